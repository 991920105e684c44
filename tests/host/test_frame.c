/* SPDX-License-Identifier: MIT */
/* Tests of frame: exhaustion, zones, a model, failures, start-up. */
/*
 * At risk: one frame with two owners, a frame that is lost, low memory wasted
 * on who does not need it, a failure that leaves something behind, start-up
 * work that grows with the RAM. Provoked by taking everything there is, by
 * random steps against a list of blocks whose frames are all signed, and by
 * failing each allocation of a scenario in turn.
 */
#include <mm/frame.h>

#include <sys/mman.h>

#include <mm/port.h>
#include "base/bits.h"
#include "base/memory.h"
#include "tests/host/frame_scene.h"
#include "tests/host/held.h"

static pfn_t taken[SMALL_FRAMES];

static uint64_t free_blocks(unsigned order)
{
    uint64_t total = 0;

    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        uint64_t count[MM_MAX_ORDER + 1];
        frame_free_blocks((enum frame_zone)zone, count);
        total += count[order];
    }
    return total;
}

/* --- what is there ------------------------------------------------------- */

TEST(frame, all_usable_frames_are_managed_and_free)
{
    sim_boot_frames(SMALL_RAM);
    struct frame_stats stats = figures();
    CHECK_EQUAL(stats.managed,
                memmap_bytes(sim_map(), MEMMAP_USABLE) >> PAGE_SHIFT);
    CHECK_EQUAL(stats.free, stats.managed);
    CHECK_EQUAL(stats.set_aside_bytes, frame_metadata_bytes(sim_map()));
    CHECK_EQUAL(stats.allocs + stats.frees + stats.failures, 0);
    CHECK(frame_check());
}

TEST(frame, everything_can_be_taken_and_comes_back)
{
    for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
        sim_boot_frames(SMALL_RAM);
        uint64_t whole = free_blocks(MM_MAX_ORDER);
        uint64_t count = take_all(taken, order, FRAME_ANY);
        struct frame_stats stats = figures();
        CHECK(frame_check());
        CHECK_EQUAL(stats.by_type[FRAME_KERNEL], count << order);
        CHECK_EQUAL(stats.allocs, count);
        CHECK_EQUAL(stats.failures, 1);
        CHECK_EQUAL(stats.free,
                    stats.managed - (count << order) - stats.metadata);
        CHECK(order > 0 || stats.free == 0);
        free_all(taken, count, order);
        frame_drain();
        CHECK(frame_check());
        stats = figures();
        CHECK_EQUAL(stats.free, stats.managed - stats.metadata);
        CHECK_EQUAL(stats.frees, count);
        CHECK_EQUAL(stats.cached, 0);
        /* Frames under records stand where the densest blocks were. */
        CHECK(free_blocks(MM_MAX_ORDER) + 2 >= whole);
        CHECK(!pfn_is_none(frame_alloc(MM_MAX_ORDER, FRAME_USER, FRAME_ANY)));
    }
}

TEST(frame, the_last_free_frame_is_found)
{
    struct test_random random;

    sim_boot_frames(SMALL_RAM);
    uint64_t count = take_all(taken, 0, FRAME_ANY);
    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < 2000; i++) {
        pfn_t pfn = taken[test_random_below(&random, count)];
        unsigned flags = 0;
        flags |= i % 2 ? FRAME_ZEROED : 0;
        flags |= i % 3 == 0 ? FRAME_BELOW_4G : 0;
        frame_free(pfn, 0);
        CHECK_EQUAL(figures().free, 1);
        CHECK_EQUAL(frame_alloc(0, FRAME_USER, flags).v, pfn.v);
        CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    }
    CHECK(frame_check());
}

TEST(frame, frames_in_the_array_serve_larger_blocks)
{
    sim_boot_frames(SMALL_RAM);
    uint64_t count = take_all(taken, 0, FRAME_ANY);
    /* Two neighbours, both into the array: neither free passes it by. */
    pfn_t low = PFN_NONE;
    for (uint64_t i = 0; i + 1 < count; i++) {
        if (taken[i].v % 2 == 0 && taken[i + 1].v == taken[i].v + 1) {
            low = taken[i];
        }
    }
    CHECK(!pfn_is_none(low));
    CHECK(pfn_is_none(frame_alloc(1, FRAME_KERNEL, FRAME_ANY)));
    frame_free(low, 0);
    frame_free(pfn_add(low, 1), 0);
    CHECK(figures().cached > 0);
    CHECK_EQUAL(frame_alloc(1, FRAME_KERNEL, FRAME_ANY).v, low.v);
    frame_free(low, 1);
    CHECK_EQUAL(frame_alloc_metadata().v, low.v);
    CHECK(frame_check());
}

/* --- zones --------------------------------------------------------------- */

TEST(frame, zones_are_used_from_the_top_down)
{
    /* 2 MiB above 4 GiB, so that it can be used up. */
    sim_boot_frames(3 * GiB + 2 * MiB);
    struct frame_stats start = figures();
    CHECK(start.zone_managed[ZONE_NORMAL] <= 512);
    CHECK(start.zone_managed[ZONE_NORMAL] > 0);
    pfn_t pfn;
    do {
        pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
        CHECK(!pfn_is_none(pfn));
    } while (pfn.v >= 4 * GiB / PAGE_BYTES);
    /* What is left is kept for metadata. */
    CHECK(figures().zone_free[ZONE_NORMAL] <= 32);
    CHECK(pfn.v >= 16 * MiB / PAGE_BYTES);
    CHECK_EQUAL(figures().zone_free[ZONE_DMA], start.zone_managed[ZONE_DMA]);
    CHECK(frame_check());
}

TEST(frame, low_zones_serve_who_asks_and_the_rest_at_last)
{
    sim_boot_frames(SMALL_RAM);
    uint64_t low = figures().zone_free[ZONE_DMA];
    pfn_t pfn = frame_alloc(0, FRAME_TABLE, FRAME_BELOW_16M);
    CHECK(pfn.v < 16 * MiB / PAGE_BYTES);
    /* One frame, not a row of them. */
    CHECK(figures().zone_free[ZONE_DMA] + 1 + figures().metadata >= low);
    frame_free(pfn, 0);
    CHECK(frame_alloc(3, FRAME_TABLE, FRAME_BELOW_16M).v <
          16 * MiB / PAGE_BYTES);
    bool was_low = false;
    uint64_t count = take_all(taken, 0, FRAME_ANY);
    for (uint64_t i = 0; i < count; i++) {
        bool is_low = taken[i].v < 16 * MiB / PAGE_BYTES;
        /* Past the frames the array held, there is no way back up. */
        CHECK(is_low || !was_low || i < 256);
        was_low |= is_low && i >= 256;
    }
    CHECK(was_low);
    CHECK(pfn_is_none(frame_alloc(0, FRAME_TABLE, FRAME_BELOW_16M)));
    CHECK(frame_check());
}

TEST(frame, a_low_wish_is_never_served_from_above)
{
    sim_boot_frames(5 * GiB);
    for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
        CHECK(frame_alloc(order, FRAME_USER, FRAME_ANY).v >=
              4 * GiB / PAGE_BYTES);
        CHECK(frame_alloc(order, FRAME_USER, FRAME_BELOW_4G).v <
              4 * GiB / PAGE_BYTES);
        CHECK(frame_alloc(order, FRAME_USER, FRAME_BELOW_16M).v <
              16 * MiB / PAGE_BYTES);
    }
    while (!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_BELOW_16M))) {
    }
    CHECK_EQUAL(figures().zone_free[ZONE_DMA], 0);
    CHECK(frame_alloc(0, FRAME_USER, FRAME_BELOW_4G).v >=
          16 * MiB / PAGE_BYTES);
    CHECK(frame_check());
}

/* --- the model ----------------------------------------------------------- */

#define MODEL_BLOCKS 400
#define MODEL_STEPS  12000

static struct held held[MODEL_BLOCKS];

static void model_alloc(struct held *block, struct test_random *random)
{
    /* Mostly small: large ones would leave no room for anything. */
    uint64_t wide = test_random_below(random, 4) == 0 ? MM_MAX_ORDER + 1 : 4;
    unsigned order = (unsigned)test_random_below(random, wide);
    unsigned flags = (unsigned)test_random_below(random, 8);
    enum frame_type type =
        (enum frame_type)(1 + test_random_below(random, FRAME_TYPES - 1));

    block->pfn = frame_alloc(order, type, flags);
    if (pfn_is_none(block->pfn)) {
        return;
    }
    block->order = order;
    block->sign = test_random_next(random);
    const struct frame_record *record = record_of(block->pfn);
    CHECK(is_aligned(block->pfn.v, UINT64_C(1) << order));
    CHECK(record->type == type && record->order == order && record->refs == 1);
    CHECK(record->entries == 0 && record->owner == 0);
    CHECK(!(flags & FRAME_ZEROED) ||
          frames_are_zero(block->pfn, UINT64_C(1) << order));
    CHECK(!(flags & FRAME_BELOW_16M) || block->pfn.v < 4096);
    CHECK_EQUAL(frame_state(block->pfn), FRAME_STATE_ALLOCATED);
    CHECK_EQUAL(frame_state(pfn_add(block->pfn, (UINT64_C(1) << order) - 1)),
                FRAME_STATE_ALLOCATED);
    sign_block(block);
}

static void model_free(struct held *block)
{
    CHECK(is_signed(block));
    frame_free(block->pfn, block->order);
    enum frame_state state = frame_state(block->pfn);
    CHECK(state == FRAME_STATE_FREE || state == FRAME_STATE_CACHED);
    block->pfn = PFN_NONE;
}

/* No type is used more or less than by the blocks held. */
static void model_check(void)
{
    uint64_t used[FRAME_TYPES] = {0};
    struct frame_stats stats = figures();

    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        if (!pfn_is_none(held[i].pfn)) {
            CHECK(is_signed(&held[i]));
            used[record_of(held[i].pfn)->type] += UINT64_C(1) << held[i].order;
        }
    }
    for (unsigned type = 0; type < FRAME_TYPES; type++) {
        CHECK_EQUAL(stats.by_type[type], used[type]);
    }
}

TEST(frame, random_steps_match_the_model)
{
    struct test_random random;
    unsigned failures = 0;

    sim_boot_frames(SMALL_RAM);
    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        held[i].pfn = PFN_NONE;
    }
    for (unsigned step = 0; step < MODEL_STEPS; step++) {
        struct held *block = &held[test_random_below(&random, MODEL_BLOCKS)];
        if (pfn_is_none(block->pfn)) {
            CHECK_HELPER(model_alloc(block, &random));
            failures += pfn_is_none(block->pfn);
        } else {
            CHECK_HELPER(model_free(block));
        }
        CHECK(frame_check());
        if (step % 100 == 0) {
            CHECK_HELPER(model_check());
        }
    }
    CHECK(failures > 0 && failures < MODEL_STEPS / 4);
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        if (!pfn_is_none(held[i].pfn)) {
            CHECK_HELPER(model_free(&held[i]));
        }
    }
    frame_drain();
    CHECK_EQUAL(figures().free, figures().managed - figures().metadata);
    CHECK(frame_check());
}

/* --- packing ------------------------------------------------------------- */

/* A sixteenth of them move a frame: each of 4000 moves some ten times. */
#define PACK_STEPS 600000

TEST(frame, steady_use_of_the_array_lets_blocks_come_free)
{
    struct test_random random;
    uint64_t count = 0;

    /* Half of the memory in use, at random: no 2 MiB are free. */
    sim_boot_frames(SMALL_RAM);
    uint64_t all = take_all(taken, 0, FRAME_ANY);
    test_random_init(&random, test_seed());
    for (uint64_t i = 0; i < all; i++) {
        if (test_random_below(&random, 2) == 0) {
            frame_free(taken[i], 0);
        } else {
            taken[count++] = taken[i];
        }
    }
    CHECK_EQUAL(free_blocks(9) + free_blocks(10), 0);
    /* Random frees, each followed by an allocation. */
    for (unsigned step = 0; step < PACK_STEPS; step++) {
        uint64_t i = test_random_below(&random, count);
        frame_free(taken[i], 0);
        taken[i] = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
        CHECK(!pfn_is_none(taken[i]));
    }
    CHECK(free_blocks(9) + 2 * free_blocks(10) > 0);
    CHECK(frame_check());
}

TEST(frame, a_row_is_refilled_at_once)
{
    sim_boot_frames(SMALL_RAM);
    for (unsigned i = 0; i < 64 * 8; i++) {
        CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    }
    /* The first block is broken up by the frames under its own records. */
    CHECK(figures().refills <= 10);
    CHECK(frame_check());
}

/* --- failures ------------------------------------------------------------ */

/* Some of everything; true if all of it worked. Frees what it got. */
static bool scenario(void)
{
    static const unsigned orders[] = {0, 3, 0, 9, 0, 10, 7, 0};
    pfn_t got[COUNT(orders)];
    bool worked = true;

    for (size_t i = 0; i < COUNT(orders); i++) {
        got[i] = frame_alloc(orders[i], FRAME_USER,
                             i % 2 ? FRAME_ZEROED : FRAME_ANY);
        worked &= !pfn_is_none(got[i]);
    }
    for (size_t i = COUNT(orders); i-- > 0;) {
        if (!pfn_is_none(got[i])) {
            frame_free(got[i], orders[i]);
        }
    }
    return worked;
}

TEST(frame, each_allocation_may_fail_and_nothing_is_lost)
{
    sim_boot_frames(SMALL_RAM);
    frame_inject(0);
    CHECK(scenario());
    uint64_t calls = frame_inject_count();
    CHECK(calls > 8); /* the frames under the records are among them */
    for (uint64_t nth = 1; nth <= calls; nth++) {
        sim_boot_frames(SMALL_RAM);
        frame_inject(nth);
        bool worked = scenario();
        frame_inject(0);
        /* What fails may be the frame for a record, and the call with it. */
        CHECK(figures().failures == 1 || figures().failures == 2);
        CHECK(!worked || figures().failures == 1);
        frame_drain();
        CHECK_EQUAL(figures().by_type[FRAME_USER], 0);
        CHECK_EQUAL(figures().free, figures().managed - figures().metadata);
        CHECK(frame_check());
        CHECK(scenario());
        CHECK(frame_check());
    }
}

TEST(frame, without_records_only_backed_blocks_are_used)
{
    sim_boot_frames(SMALL_RAM);
    sim_fail_record_backing(true);
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(pfn_is_none(frame_alloc(10, FRAME_USER, FRAME_ANY)));
    CHECK_EQUAL(figures().failures, 2);
    CHECK(!pfn_is_none(frame_alloc_metadata()));
    CHECK(frame_check());
    sim_fail_record_backing(false);
    pfn_t first = frame_alloc(0, FRAME_USER, FRAME_ANY);
    sim_fail_record_backing(true);
    uint64_t count = take_all(taken, 0, FRAME_ANY);
    CHECK(count > 256 && count < 512);
    for (uint64_t i = 0; i < count; i++) {
        CHECK_EQUAL(taken[i].v / 512, first.v / 512);
    }
    CHECK(pfn_is_none(frame_alloc(9, FRAME_USER, FRAME_ANY)));
    CHECK(frame_check());
    sim_fail_record_backing(false);
    CHECK(!pfn_is_none(frame_alloc(9, FRAME_USER, FRAME_ANY)));
    CHECK(frame_check());
}

/* --- size ---------------------------------------------------------------- */

/* Pages of [start, start + bytes) that hold anything. */
static uint64_t resident_pages(const void *start, uint64_t bytes)
{
    static unsigned char page[16384];
    uint64_t pages = div_round_up(bytes, PAGE_BYTES);
    uint64_t count = 0;

    if (pages > sizeof(page) ||
        mincore((void *)(uintptr_t)start, pages * PAGE_BYTES, page) != 0) {
        return UINT64_MAX;
    }
    for (uint64_t i = 0; i < pages; i++) {
        count += page[i] & 1;
    }
    return count;
}

TEST(frame, start_up_does_not_depend_on_the_ram)
{
    sim_boot_frames(900 * GiB);
    struct frame_stats stats = figures();
    CHECK(stats.managed > 899 * GiB / PAGE_BYTES);
    CHECK(stats.set_aside_bytes < 900 * GiB / 10000);
    /* The storage was carved highest first: find it by its owner. */
    const struct memmap_range *range = NULL;
    for (size_t i = 0; i < sim_map()->count; i++) {
        uint64_t bytes = sim_map()->range[i].end - sim_map()->range[i].start;
        if (sim_map()->range[i].type == MEMMAP_KERNEL &&
            bytes == align_up(stats.set_aside_bytes, PAGE_BYTES)) {
            range = &sim_map()->range[i];
        }
    }
    CHECK(range != NULL);
    /*
     * The bits that say which records are backed: 1 byte for each 16 MiB, 15
     * pages; one CPU; two bits for each tree, 4 pages.
     */
    const void *storage = phys_to_virt(paddr_of(range->start));
    CHECK(resident_pages(storage, stats.set_aside_bytes) <= 20);
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    CHECK(pfn.v > 900 * GiB / PAGE_BYTES);
    CHECK(!pfn_is_none(frame_alloc(10, FRAME_USER, FRAME_ANY)));
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_BELOW_16M)));
    CHECK(resident_pages(storage, stats.set_aside_bytes) <= 26);
    CHECK(frame_check());
}
