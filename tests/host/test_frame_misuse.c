/* SPDX-License-Identifier: MIT */
/* Tests of frame: wrong calls; holders, splitting, joining, adding. */
/*
 * At risk: a wrong free that is believed, a reference count that wraps, a
 * block that becomes another one and takes frames along. Provoked by a table
 * of wrong calls on one machine with a block of each kind, after each of which
 * all figures must be as before, and by every order split and joined.
 */
#include <mm/frame.h>

#include <mm/port.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "base/memory.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define SMALL_RAM    (32 * MiB)
#define SMALL_FRAMES (SMALL_RAM / PAGE_BYTES)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* --- crimes -------------------------------------------------------------- */

/* A machine with one block of each kind to be mistreated. */
static struct {
    pfn_t single;
    pfn_t block; /* order 3 */
    pfn_t whole; /* order 9 */
    pfn_t shared;
    pfn_t freed;
    pfn_t cached;
    pfn_t metadata;
    pfn_t reserved;
    pfn_t beyond;
} scene;

static void set_scene(void)
{
    sim_boot_frames(SMALL_RAM);
    scene.single = frame_alloc(0, FRAME_USER, FRAME_ANY);
    scene.block = frame_alloc(3, FRAME_SLAB, FRAME_ANY);
    scene.whole = frame_alloc(9, FRAME_LARGE, FRAME_ANY);
    scene.shared = frame_alloc(0, FRAME_USER, FRAME_ANY);
    frame_ref(scene.shared);
    frame_ref(scene.shared);
    scene.freed = frame_alloc(2, FRAME_KERNEL, FRAME_ANY);
    frame_free(scene.freed, 2);
    scene.cached = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    frame_free(frame_alloc(0, FRAME_KERNEL, FRAME_ANY), 0);
    frame_free(scene.cached, 0);
    scene.metadata = frame_alloc_metadata();
    scene.reserved = virt_to_phys(sim_map()->range).v == 0
                         ? PFN_NONE
                         : phys_to_pfn(virt_to_phys(sim_map()->range));
    scene.beyond = pfn_of(SMALL_FRAMES);
}

static const struct crime {
    const pfn_t *pfn;
    uint64_t offset;
    unsigned order;
    const char *report;
} crimes[] = {
    {&scene.freed, 0, 2, "order 2, is free already"},
    {&scene.cached, 0, 0, "order 0, is free already (kept by a CPU)"},
    {&scene.single, 0, 1, "order 1, is a user block of order 0 with 1"},
    {&scene.single, 0, 9, "order 9, is a user block of order 0"},
    {&scene.single, 0, 11, "order 11, is a user block"},
    {&scene.single, 0, 255, "order 255, is a user block"},
    {&scene.single, 0, UINT32_MAX, "is a user block"},
    {&scene.block, 0, 0, "order 0, is a slab block of order 3"},
    {&scene.block, 0, 4, "order 4, is a slab block of order 3"},
    {&scene.block, 1, 0, "order 0, is inside the slab block"},
    {&scene.block, 7, 3, "order 3, is inside the slab block"},
    {&scene.whole, 0, 10, "order 10, is a large block of order 9"},
    {&scene.whole, 0, 8, "order 8, is a large block of order 9"},
    {&scene.whole, 511, 0, "order 0, is inside the large block"},
    {&scene.shared, 0, 0, "order 0, is a user block of order 0 with 3 holders"},
    {&scene.metadata, 0, 0, "holds the allocator's own data"},
    {&scene.reserved, 0, 0, "was never the allocator's"},
    {&scene.beyond, 0, 0, "0x2000000, order 0, is not RAM"},
    {&scene.beyond, UINT64_C(1) << 36, 0, "is not RAM"},
    {&scene.beyond, UINT64_C(1) << 51, 0, "is not RAM"},
};

TEST(frame, wrong_frees_are_reported_and_change_nothing)
{
    for (size_t i = 0; i < COUNT(crimes); i++) {
        CHECK_HELPER(set_scene());
        pfn_t pfn = pfn_add(*crimes[i].pfn, crimes[i].offset);
        struct frame_stats before = figures();
        frame_free(pfn, crimes[i].order);
        CHECK_BUG(crimes[i].report);
        struct frame_stats after = figures();
        CHECK(memcmp(&before, &after, sizeof(before)) == 0);
        CHECK(frame_check());
        /* All that was in use still is, and can be freed. */
        frame_free(scene.single, 0);
        frame_free(scene.block, 3);
        frame_free(scene.whole, 9);
        frame_unref(scene.shared);
        frame_unref(scene.shared);
        frame_unref(scene.shared);
        CHECK(frame_check());
        CHECK_EQUAL(figures().free, figures().managed - figures().metadata);
    }
    /* PFN_NONE, frame 0 and a device. */
    CHECK_HELPER(set_scene());
    frame_free(PFN_NONE, 0);
    CHECK_BUG("is not RAM");
    frame_free(pfn_of(0), 0);
    CHECK_BUG("frame_free: 0x0, order 0,");
    frame_free(pfn_of(0xfee00), 0);
    CHECK_BUG("0xfee00000");
}

TEST(frame, a_block_is_freed_by_its_record)
{
    CHECK_HELPER(set_scene());
    struct frame_stats start = figures();
    frame_ref(scene.block);
    frame_free_record(record_of(scene.block));
    CHECK_BUG("order 3, is a slab block of order 3 with 2 holders");
    struct frame_stats after = figures();
    CHECK(memcmp(&start, &after, sizeof(start)) == 0);
    frame_unref(scene.block);
    frame_free_record(record_of(scene.block));
    frame_free_record(record_of(scene.block));
    CHECK_BUG("is free already");
    frame_free_record(record_of(scene.whole));
    CHECK_EQUAL(figures().free, start.free + 8 + 512);
    CHECK_EQUAL(figures().by_type[FRAME_SLAB], 0);
    CHECK_EQUAL(figures().by_type[FRAME_LARGE], 0);
    CHECK(frame_check());
}

TEST(frame, a_frame_in_an_untouched_tree_is_free)
{
    sim_boot_frames(128 * MiB);
    CHECK_EQUAL(frame_state(pfn_of(32 * MiB / PAGE_BYTES)), FRAME_STATE_FREE);
    frame_free(pfn_of(64 * MiB / PAGE_BYTES), 0);
    CHECK_BUG("is free already");
    frame_unref(pfn_of(64 * MiB / PAGE_BYTES));
    CHECK_BUG("frame_unref: 0x4000000, order 0, is free already");
    CHECK(frame_check());
}

TEST(frame, wrong_references_are_reported)
{
    CHECK_HELPER(set_scene());
    frame_ref(scene.freed);
    CHECK_BUG("frame_ref");
    frame_unref(scene.freed);
    CHECK_BUG("frame_unref");
    frame_ref(pfn_add(scene.block, 1));
    CHECK_BUG("is inside the slab block");
    frame_ref(scene.beyond);
    CHECK_BUG("is not RAM");
    /* Marked inside its block, as the heap does it. */
    *record_of(pfn_add(scene.block, 2)) =
        (struct frame_record){.type = FRAME_SLAB, .order = RECORD_TAIL};
    frame_ref(pfn_add(scene.block, 2));
    CHECK_BUG("is inside the slab block");
    frame_unref(pfn_add(scene.block, 2));
    CHECK_BUG("frame_unref: ");
    atomic_store(&record_of(scene.single)->refs, 0);
    frame_ref(scene.single);
    CHECK_BUG("with 0 holders");
    atomic_store(&record_of(scene.single)->refs, UINT32_MAX);
    frame_ref(scene.single);
    CHECK_BUG("with 4294967295 holders");
    CHECK_EQUAL(record_of(scene.single)->refs, UINT32_MAX);
    frame_unref(scene.single);
    CHECK_EQUAL(record_of(scene.single)->refs, UINT32_MAX - 1);
    CHECK(frame_check());
}

/* Start-up tables have records, but are not the allocator's. */
TEST(frame, a_start_up_table_is_not_freed)
{
    sim_boot(SMALL_RAM);
    pfn_t table = pt_kernel.root;
    struct frame_stats before = figures();
    CHECK_EQUAL(frame_state(table), FRAME_STATE_RESERVED);
    frame_free(table, 0);
    CHECK_BUG("was never the allocator's");
    frame_ref(table);
    CHECK_BUG("was never the allocator's");
    frame_unref(table);
    CHECK_BUG("was never the allocator's");
    CHECK_EQUAL(record_of(table)->type, FRAME_TABLE);
    CHECK_EQUAL(record_of(table)->refs, 1);
    struct frame_stats after = figures();
    CHECK(memcmp(&before, &after, sizeof(before)) == 0);
    CHECK(frame_check());
}

TEST(frame, the_bits_catch_what_the_record_lets_pass)
{
    CHECK_HELPER(set_scene());
    frame_drain();
    /* A stray write makes a free block look like one in use. */
    struct frame_record *record = record_of(scene.freed);
    record->type = FRAME_USER;
    record->order = 2;
    atomic_store(&record->refs, 1);
    frame_free(scene.freed, 2);
    /* When it leaves the CPU that keeps it for a while. */
    frame_drain();
    CHECK_BUG("part of the block");
}

static void allocate_too_much(void)
{
    pfn_t pfn = frame_alloc(MM_MAX_ORDER + 1, FRAME_USER, FRAME_ANY);

    CHECK(pfn_is_none(pfn));
}

/* Also where a block of the largest order is at hand. */
TEST(frame, an_order_too_large_is_a_panic)
{
    sim_boot_frames(SMALL_RAM);
    CHECK(sim_panics(allocate_too_much, "assertion"));
    frame_free(frame_alloc(MM_MAX_ORDER, FRAME_USER, FRAME_ANY), MM_MAX_ORDER);
    CHECK(sim_panics(allocate_too_much, "assertion"));
    frame_drain();
    CHECK(sim_panics(allocate_too_much, "assertion"));
}

/* --- holders, splitting, joining ----------------------------------------- */

TEST(frame, the_last_holder_frees)
{
    static const unsigned orders[] = {0, 1, 9, 10};

    sim_boot_frames(SMALL_RAM);
    for (size_t i = 0; i < COUNT(orders); i++) {
        pfn_t pfn = frame_alloc(orders[i], FRAME_USER, FRAME_ANY);
        uint64_t used = figures().by_type[FRAME_USER];
        frame_ref(pfn);
        CHECK_EQUAL(record_of(pfn)->refs, 2);
        frame_unref(pfn);
        CHECK_EQUAL(figures().by_type[FRAME_USER], used);
        frame_unref(pfn);
        CHECK_EQUAL(figures().by_type[FRAME_USER], 0);
        CHECK(frame_check());
    }
}

TEST(frame, blocks_split_into_single_frames_and_join)
{
    for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
        uint64_t frames = UINT64_C(1) << order;

        sim_boot_frames(SMALL_RAM);
        pfn_t pfn = frame_alloc(order, FRAME_USER, FRAME_ANY);
        struct frame_stats before = figures();
        CHECK_EQUAL(frame_split(pfn, order), MM_OK);
        CHECK(frame_check());
        CHECK_EQUAL(figures().by_type[FRAME_USER], frames);
        for (uint64_t i = 0; i < frames; i++) {
            const struct frame_record *record = record_of(pfn_add(pfn, i));
            CHECK(record->type == FRAME_USER && record->order == 0);
            CHECK_EQUAL(record->refs, 1);
        }
        if (order > 0) {
            frame_free(pfn, order);
            CHECK_BUG("is a user block of order 0");
        }
        CHECK_EQUAL(frame_join(pfn, order), MM_OK);
        CHECK(frame_check());
        struct frame_stats after = figures();
        CHECK(memcmp(&before, &after, sizeof(before)) == 0);
        CHECK_EQUAL(frame_split(pfn, order), MM_OK);
        for (uint64_t i = 0; i < frames; i++) {
            frame_free(pfn_add(pfn, i), 0);
        }
        frame_drain();
        CHECK(frame_check());
        CHECK_EQUAL(figures().by_type[FRAME_USER], 0);
        pfn = frame_alloc(order, FRAME_USER, FRAME_ANY);
        frame_free(pfn, order);
        CHECK(frame_check());
    }
}

TEST(frame, only_equal_sole_single_frames_join)
{
    sim_boot_frames(SMALL_RAM);
    pfn_t pfn = frame_alloc(4, FRAME_USER, FRAME_ANY);
    CHECK_EQUAL(frame_join(pfn, 4), MM_EINVAL); /* is one block already */
    CHECK_EQUAL(frame_split(pfn, 4), MM_OK);
    CHECK_EQUAL(frame_join(pfn_add(pfn, 1), 4), MM_EINVAL);
    CHECK_EQUAL(frame_join(pfn_add(pfn, 1), 1), MM_EINVAL); /* misaligned */
    CHECK_EQUAL(frame_join(pfn, 11), MM_EINVAL);
    CHECK_EQUAL(frame_join(PFN_NONE, 0), MM_EINVAL);
    CHECK_EQUAL(frame_join(pfn_of(SMALL_FRAMES), 4), MM_EINVAL);
    frame_ref(pfn_add(pfn, 7));
    CHECK_EQUAL(frame_join(pfn, 4), MM_EINVAL);
    frame_unref(pfn_add(pfn, 7));
    record_of(pfn_add(pfn, 15))->type = FRAME_TABLE;
    CHECK_EQUAL(frame_join(pfn, 4), MM_EINVAL);
    record_of(pfn_add(pfn, 15))->type = FRAME_USER;
    CHECK_EQUAL(frame_join(pfn, 4), MM_OK);
    frame_free(pfn, 4);
    CHECK(frame_check());
}

TEST(frame, what_is_no_block_of_that_order_does_not_split)
{
    sim_boot_frames(SMALL_RAM);
    pfn_t pfn = frame_alloc(4, FRAME_USER, FRAME_ANY);
    static const unsigned wrong[] = {0, 3, 5, 99, RECORD_TAIL, UINT32_MAX};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        CHECK_EQUAL(frame_split(pfn, wrong[i]), MM_EINVAL);
        CHECK_BUG("is a user block of order 4 with 1");
    }
    CHECK_EQUAL(frame_split(pfn_add(pfn, 1), 0), MM_EINVAL);
    CHECK_BUG("is inside the user block");
    CHECK_EQUAL(frame_split(PFN_NONE, 0), MM_EINVAL);
    CHECK_BUG("frame_split");
    frame_free(pfn, 4);
    CHECK_EQUAL(frame_split(pfn, 4), MM_EINVAL);
    CHECK_BUG("is free already");
    CHECK(frame_check());
}

TEST(frame, a_shared_block_does_not_split)
{
    static const unsigned orders[] = {0, 4, 9, 10};

    for (size_t i = 0; i < COUNT(orders); i++) {
        sim_boot_frames(SMALL_RAM);
        pfn_t pfn = frame_alloc(orders[i], FRAME_USER, FRAME_ANY);
        struct frame_record *record = record_of(pfn);
        record->owner = 77;
        frame_ref(pfn);
        CHECK_EQUAL(frame_split(pfn, orders[i]), MM_EBUSY);
        CHECK(record->order == orders[i] && record->owner == 77);
        CHECK_EQUAL(record->refs, 2);
        frame_unref(pfn);
        CHECK_EQUAL(frame_split(pfn, orders[i]), MM_OK);
        CHECK(frame_check());
    }
}

TEST(frame, a_single_frame_splits_and_joins_unchanged)
{
    sim_boot_frames(SMALL_RAM);
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    record_of(pfn)->owner = 77;
    record_of(pfn)->entries = 5;
    CHECK_EQUAL(frame_split(pfn, 0), MM_OK);
    CHECK_EQUAL(frame_join(pfn, 0), MM_OK);
    CHECK_EQUAL(record_of(pfn)->owner, 77);
    CHECK_EQUAL(record_of(pfn)->entries, 5);
    CHECK(frame_check());
}

/* --- more frames --------------------------------------------------------- */

TEST(frame, added_frames_are_used_like_others)
{
    sim_boot_map(SMALL_RAM);
    paddr_t storage;
    paddr_t kept;
    /* 3 MiB and a bit, not aligned to anything. */
    CHECK_EQUAL(memmap_carve(sim_map(), 3 * MiB + 5 * PAGE_BYTES, PAGE_BYTES,
                             20 * MiB + 3 * PAGE_BYTES, "boot", &kept),
                MM_OK);
    CHECK_EQUAL(memmap_carve(sim_map(), frame_metadata_bytes(sim_map()),
                             PAGE_BYTES, SMALL_RAM, "frames", &storage),
                MM_OK);
    frame_init(sim_map(), phys_to_virt(storage));
    struct frame_stats before = figures();
    pfn_t start = phys_to_pfn(kept);
    uint64_t frames = 3 * MiB / PAGE_BYTES + 5;
    CHECK_EQUAL(frame_state(start), FRAME_STATE_RESERVED);
    CHECK_EQUAL(frame_add(start, pfn_add(start, frames)), MM_OK);
    CHECK(frame_check());
    CHECK(memmap_check(sim_map()));
    CHECK_EQUAL(frame_state(start), FRAME_STATE_FREE);
    CHECK_EQUAL(figures().managed, before.managed + frames);
    CHECK_EQUAL(figures().free, before.free + frames);
    /* Not twice, not what is in use, not what is no RAM, not frame 0. */
    const pfn_t refused[][2] = {
        {start, pfn_add(start, frames)},
        {start, start},
        {pfn_add(start, 1), start},
        {pfn_of(5000), pfn_of(5001)},
        {pfn_of(0), pfn_of(1)},
        {pfn_of(1), pfn_of(2)},
        {pfn_of(SMALL_FRAMES - 1), pfn_of(SMALL_FRAMES + 1)},
        {pfn_of(SMALL_FRAMES), PFN_NONE},
    };
    for (size_t i = 0; i < COUNT(refused); i++) {
        CHECK_EQUAL(frame_add(refused[i][0], refused[i][1]), MM_EINVAL);
    }
    CHECK_EQUAL(figures().managed, before.managed + frames);
    CHECK(frame_check());
}
