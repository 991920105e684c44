/* SPDX-License-Identifier: MIT */
/* Tests of small kernel blocks that are kept when they are freed. */
#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"

/*
 * At risk: a frame or an address that is handed out again while somebody can
 * still reach what it was, a block that is kept though it is not what it was
 * at first, a second free that finds the block among those that are kept, more
 * frames kept than are allowed, or kept while others go without. Provoked by a
 * TLB that never forgets by itself, by changes of pages behind the block's
 * back, by each allocation that fails, and by random work.
 */

#define RAM_BYTES (64 * MiB)
#define DEVICE    UINT64_C(0xfd000000) /* no RAM there */
#define KEPT      40                   /* pages */

struct account {
    uint64_t frames;
    uint64_t tables; /* of the kernel, in use */
    uint64_t elsewhere;
    uint64_t arena_free;
};

static struct account boot(void)
{
    struct account now;
    struct kmap_stats kmap;

    sim_boot(RAM_BYTES);
    kmap_keep(KEPT);
    kmap_stats(&kmap);
    now.frames = frames_of(FRAME_KMAP);
    now.tables = kernel_tables_in_use();
    now.elsewhere = tables_elsewhere();
    now.arena_free = kmap.arena_free;
    return now;
}

static uint64_t kept_pages(void)
{
    struct kmap_stats kmap;

    kmap_stats(&kmap);
    return kmap.kept_pages;
}

static uint64_t commits(void)
{
    struct tlb_stats stats;

    tlb_stats(&stats);
    return stats.commits;
}

static void check_all(void)
{
    struct audit_verdict verdict;

    CHECK(kmap_check());
    CHECK(pt_audit(&pt_kernel, &verdict));
}

/* Nothing is left when all that is kept has gone. */
static void end(const struct account *before)
{
    struct kmap_stats kmap;

    CHECK_HELPER(check_all());
    kmap_purge();
    kmap_stats(&kmap);
    CHECK_EQUAL(kmap.kept_pages, 0);
    CHECK_EQUAL(kmap.blocks, 0);
    CHECK_EQUAL(kmap.bytes, 0);
    CHECK_EQUAL(kmap.arena_free, before->arena_free);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before->frames);
    CHECK_EQUAL(kernel_tables_in_use(), before->tables);
    CHECK_EQUAL(tables_elsewhere(), before->elsewhere);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_HELPER(check_all());
}

/* 0 if there is none, which is no address that can be touched. */
static vaddr_t new_block(uint64_t pages)
{
    return (vaddr_t)kmap_alloc(pages * PAGE_BYTES, KMAP_EAGER, "kept");
}

static vaddr_t new_window(uint64_t offset, uint64_t bytes)
{
    paddr_t start = paddr_of(DEVICE + offset);

    return (vaddr_t)kmap_mmio(start, bytes, PT_UC, "window");
}

static pfn_t frame_at(vaddr_t address)
{
    pfn_t pfn;
    struct pt_attr attr;

    return sim_lookup(&pt_kernel, address, &pfn, &attr) ? pfn : PFN_NONE;
}

/* --- blocks with frames --------------------------------------------------- */

TEST(kmap_keep, a_block_is_had_again_as_it_was)
{
    struct account before = boot();
    struct kmap_info info;
    uint8_t value;

    vaddr_t block = new_block(3);
    pfn_t pfn = frame_at(block + 2 * PAGE_BYTES);
    CHECK(sim_write(block + 2 * PAGE_BYTES, 0x5c));
    uint64_t flushes = commits();
    kmap_free((void *)block);
    CHECK_EQUAL(kept_pages(), 3);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames + 3);
    CHECK(!pte_is_present(pt_lookup(&pt_kernel, block).entry));
    CHECK(!kmap_find(block, &info));
    CHECK_HELPER(check_all());
    CHECK_EQUAL(new_block(3), block);
    CHECK(pfn_equal(frame_at(block + 2 * PAGE_BYTES), pfn));
    CHECK(sim_read(block + 2 * PAGE_BYTES, &value));
    CHECK_EQUAL(value, 0x5c);
    CHECK_EQUAL(commits(), flushes);
    CHECK_EQUAL(kept_pages(), 0);
    CHECK(kmap_find(block, &info) && info.bytes == 3 * PAGE_BYTES);
    kmap_free((void *)block);
    CHECK_HELPER(end(&before));
}

TEST(kmap_keep, each_size_has_its_own)
{
    struct account before = boot();
    vaddr_t block[17];

    kmap_keep(200);
    for (unsigned i = 1; i <= 16; i++) {
        block[i] = new_block(i);
    }
    vaddr_t larger = new_block(17);
    for (unsigned i = 1; i <= 16; i++) {
        kmap_free((void *)block[i]);
    }
    kmap_free((void *)larger);
    CHECK_EQUAL(kept_pages(), 16 * 17 / 2);
    for (unsigned i = 16; i > 0; i--) {
        CHECK_EQUAL(new_block(i), block[i]);
    }
    CHECK_EQUAL(kept_pages(), 0);
    for (unsigned i = 1; i <= 16; i++) {
        kmap_free((void *)block[i]);
    }
    CHECK_HELPER(end(&before));
}

TEST(kmap_keep, wrong_frees_are_reported_and_change_nothing)
{
    struct account before = boot();

    vaddr_t block = new_block(4);
    kmap_free((void *)(block + PAGE_BYTES));
    CHECK_BUG("is not what was given for \"kept\"");
    kmap_free((void *)(block + 1));
    CHECK_BUG("is not what was given for \"kept\"");
    kmap_free((void *)(block - PAGE_BYTES));
    CHECK_BUG("is not what was given for \"kept\"");
    kmap_free((void *)block);
    kmap_free((void *)block);
    CHECK_BUG("is in no block");
    kmap_free(
        (void *)(block + PAGE_BYTES)); /* its guard names the block, too */
    CHECK_BUG("is in no block");
    vaddr_t window = new_window(0x10, 2 * PAGE_BYTES);
    kmap_free((void *)(window - 0x10));
    CHECK_BUG("is not what was given for \"window\"");
    kmap_free((void *)window);
    kmap_free((void *)window);
    CHECK_BUG("is in no block");
    CHECK_EQUAL(kept_pages(), 4 + 3);
    CHECK_EQUAL(new_block(4), block);
    kmap_free((void *)block);
    CHECK_HELPER(end(&before));
}

/* Whoever else holds a frame must not find the next owner's data in it. */
TEST(kmap_keep, a_block_with_a_shared_frame_is_not_kept)
{
    struct account before = boot();

    vaddr_t block = new_block(4);
    pfn_t pfn = frame_at(block + 3 * PAGE_BYTES);
    frame_ref(pfn);
    CHECK(sim_write(block + 3 * PAGE_BYTES, 1));
    kmap_free((void *)block);
    CHECK_EQUAL(kept_pages(), 0);
    CHECK_EQUAL(record_of(pfn)->refs, 1);
    CHECK_EQUAL(sim_cached(pfn, 1), 0);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames + 1);
    frame_unref(pfn);
    CHECK_HELPER(end(&before));
}

/* Change page @page of @block, as the owner of a block may. */
static void change(vaddr_t page, bool is_unmapped)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;

    CHECK_EQUAL(pt_open(&pt_kernel, page, page + PAGE_BYTES, &batch, &cursor),
                MM_OK);
    enum mm_status status =
        is_unmapped ? pt_unmap(&cursor, page, PAGE_BYTES, &reached)
                    : pt_protect(&cursor, page, PAGE_BYTES, pt_attr(PT_READ));
    pt_close(&cursor);
    tlb_commit(&batch);
    CHECK_EQUAL(status, MM_OK);
}

TEST(kmap_keep, a_block_that_was_changed_is_not_kept)
{
    struct account before = boot();

    for (unsigned i = 0; i < 12; i++) {
        vaddr_t block = i < 6 ? new_block(3) : new_window(0, 3 * PAGE_BYTES);
        bool is_kept = i >= 6 && i % 2 == 0; /* a window with other rights */

        CHECK_HELPER(change(block + i / 2 % 3 * PAGE_BYTES, i % 2 == 1));
        kmap_free((void *)block);
        CHECK_EQUAL(kept_pages(), is_kept ? 3 : 0);
        CHECK_HELPER(check_all());
        kmap_purge();
    }
    CHECK_HELPER(end(&before));
}

TEST(kmap_keep, a_zeroed_block_is_zero_whatever_is_kept)
{
    struct account before = boot();
    uint8_t value;

    vaddr_t block = new_block(1);
    CHECK(sim_write(block + 5, 0x77));
    kmap_free((void *)block);
    vaddr_t zeroed = (vaddr_t)kmap_alloc(PAGE_BYTES, KMAP_ZERO, "zeroed");
    CHECK(zeroed != 0 && sim_read(zeroed + 5, &value));
    CHECK_EQUAL(value, 0);
    kmap_free((void *)zeroed);
    CHECK_HELPER(end(&before));
}

/* What was closed before the page that is not kept may be cached still. */
TEST(kmap_keep, a_window_that_is_not_kept_is_flushed_whole)
{
    struct account before = boot();
    paddr_t physical;

    vaddr_t window = new_window(0, 3 * PAGE_BYTES);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQUAL(
            sim_translate(window + i * PAGE_BYTES, WALK_READ, &physical),
            WALK_ALLOWED);
    }
    CHECK_HELPER(change(window + 2 * PAGE_BYTES, true));
    kmap_free((void *)window);
    CHECK_EQUAL(kept_pages(), 0);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_HELPER(end(&before));
}

/* --- within reach of L1TF ------------------------------------------------- */

/* A descriptor that no guard may name: the block is one that is not kept. */
TEST(kmap_keep, a_block_is_had_whatever_guards_can_name)
{
    struct account before = boot();

    pt_payload_end = RAM_BYTES >> PAGE_SHIFT;
    vaddr_t block = new_block(2);
    vaddr_t window = new_window(0, PAGE_BYTES);
    pt_payload_end = PTE_PAYLOAD_END;
    CHECK(block != 0 && window != 0);
    kmap_free((void *)block);
    kmap_free((void *)window);
    CHECK_EQUAL(kept_pages(), 0);
    CHECK_HELPER(end(&before));
}

/* What is freed is parked: so it must be frames that may be. */
TEST(kmap_keep, frames_that_l1tf_could_name_are_not_parked)
{
    struct account before = boot();
    vaddr_t block[3];

    for (unsigned i = 0; i < 3; i++) {
        block[i] = new_block(16);
    }
    for (unsigned i = 0; i < 3; i++) {
        kmap_free((void *)block[i]); /* the last one has all flushed */
    }
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames);
    pt_payload_end = 1;
    vaddr_t high = new_block(16);
    CHECK(high != 0);
    kmap_free((void *)high);
    struct pt_leaf leaf = pt_lookup(&pt_kernel, high);
    pt_payload_end = PTE_PAYLOAD_END;
    CHECK(pte_state(leaf.entry, leaf.level) != PTE_PARKED);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames);
    CHECK_HELPER(end(&before));
}

/* --- what waits for a flush ----------------------------------------------- */

TEST(kmap_keep, no_more_than_was_said_is_kept)
{
    enum { PAGES = 8, BLOCKS = 2 * KEPT / PAGES };
    struct account before = boot();
    vaddr_t block[BLOCKS];

    for (unsigned i = 0; i < BLOCKS; i++) {
        block[i] = new_block(PAGES);
        CHECK(sim_write(block[i], (uint8_t)i));
    }
    uint64_t flushes = commits();
    for (unsigned i = 0; i < BLOCKS; i++) {
        kmap_free((void *)block[i]);
        CHECK(frames_of(FRAME_KMAP) <=
              before.frames + KEPT + (BLOCKS - 1 - i) * PAGES);
        CHECK_HELPER(check_all());
    }
    CHECK_EQUAL(commits(), flushes + 1); /* one served six blocks */
    CHECK_HELPER(end(&before));
}

/* An address of a window that was closed may be cached: it is not used. */
TEST(kmap_keep, a_closed_window_waits_for_the_flush)
{
    struct account before = boot();
    paddr_t physical;

    vaddr_t first = new_window(0, PAGE_BYTES);
    CHECK_EQUAL(sim_translate(first, WALK_READ, &physical), WALK_ALLOWED);
    uint64_t flushes = commits();
    kmap_free((void *)first);
    CHECK_EQUAL(commits(), flushes);
    vaddr_t second = new_window(PAGE_BYTES, PAGE_BYTES);
    CHECK(second != first);
    CHECK_EQUAL(sim_translate(second, WALK_READ, &physical), WALK_ALLOWED);
    CHECK_EQUAL(physical.v, DEVICE + PAGE_BYTES);
    kmap_free((void *)second);
    for (unsigned i = 2; i <= 2 * KEPT; i++) {
        vaddr_t window = new_window(i * PAGE_BYTES, PAGE_BYTES);

        CHECK_EQUAL(sim_translate(window, WALK_READ, &physical), WALK_ALLOWED);
        CHECK_EQUAL(physical.v, DEVICE + i * PAGE_BYTES);
        kmap_free((void *)window);
    }
    CHECK_HELPER(end(&before));
}

/* Windows and blocks with frames use the same addresses, one after the other.
 */
TEST(kmap_keep, a_window_becomes_a_block_and_back)
{
    struct account before = boot();
    uint8_t value;
    paddr_t physical;

    kmap_keep(1);
    for (unsigned i = 0; i < 8; i++) {
        vaddr_t window = new_window(0x800, 2 * PAGE_BYTES - 0x800);
        CHECK_EQUAL(sim_translate(window, WALK_READ, &physical), WALK_ALLOWED);
        CHECK_EQUAL(physical.v, DEVICE + 0x800);
        kmap_free((void *)window);
        vaddr_t block = (vaddr_t)kmap_alloc(2 * PAGE_BYTES, KMAP_ZERO, "block");
        CHECK_EQUAL(block, window - 0x800); /* else this proves nothing */
        CHECK(sim_read(block, &value));
        CHECK_EQUAL(value, 0);
        CHECK(sim_write(block, 0xee));
        kmap_free((void *)block);
    }
    CHECK_HELPER(end(&before));
}

/* --- without memory ------------------------------------------------------- */

TEST(kmap_keep, what_is_kept_goes_before_a_block_is_refused)
{
    static pfn_t frame[RAM_BYTES / PAGE_BYTES];
    struct account before = boot();
    unsigned count = 0;

    vaddr_t block = new_block(16);
    vaddr_t other = new_block(12);
    kmap_free((void *)new_block(12)); /* so that there is an empty one */
    kmap_purge();
    kmap_free((void *)block);
    for (pfn_t pfn;
         !pfn_is_none(pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY));) {
        frame[count++] = pfn;
    }
    vaddr_t last = new_block(12);
    CHECK(kmap_alloc(12 * PAGE_BYTES, KMAP_EAGER, "one more") == NULL);
    CHECK_HELPER(check_all());
    kmap_free((void *)last);
    kmap_free((void *)other);
    while (count > 0) {
        frame_free(frame[--count], 0);
    }
    CHECK_HELPER(end(&before));
}

/* A life of blocks and windows, of which any may be refused. */
static void live(void)
{
    void *block[12];

    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 12; i++) {
            uint64_t bytes = (1 + i % 3 * 5) * PAGE_BYTES;
            paddr_t device = paddr_of(DEVICE + i * MiB);

            block[i] = i % 2 == 0 ? kmap_alloc(bytes, KMAP_EAGER, "life")
                                  : kmap_mmio(device, bytes, PT_WC, "life");
        }
        CHECK(kmap_check());
        for (unsigned i = 0; i < 12; i++) {
            kmap_free(block[i]);
        }
        CHECK(kmap_check());
    }
}

TEST(kmap_keep, a_failure_leaves_nothing)
{
    uint64_t k = 0;
    uint64_t tried;

    do {
        struct account before = boot();
        frame_inject(++k);
        CHECK_HELPER(live());
        tried = frame_inject_count();
        frame_inject(0);
        CHECK_HELPER(end(&before));
    } while (tried >= k);
    CHECK(k > 10);
}

/* --- several CPUs --------------------------------------------------------- */

TEST(kmap_keep, what_other_cpus_keep_can_be_purged)
{
    uint8_t value;

    sim_boot_cpus(RAM_BYTES, 3, SIM_ALL_PARTS);
    kmap_keep(KEPT);
    uint64_t frames = frames_of(FRAME_KMAP);
    vaddr_t block = new_block(5);
    CHECK(sim_write(block, 1));
    sim_set_cpu(1);
    CHECK(sim_read(block, &value));
    kmap_free((void *)block); /* freed where it was not made */
    sim_set_cpu(2);
    CHECK_EQUAL(kept_pages(), 5);
    CHECK(new_block(5) != block); /* CPU 1 keeps it */
    sim_set_cpu(0);
    CHECK_EQUAL(kmap_purge(), 5);
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames + 5);
    CHECK_EQUAL(kept_pages(), 0);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK(kmap_check());
}

/* --- random work ---------------------------------------------------------- */

#define LIVE 32

static struct {
    vaddr_t start; /* of the first byte; 0: not in use */
    uint64_t bytes;
    uint8_t stamp;  /* of RAM */
    paddr_t device; /* of a window */
    bool is_window;
} live_block[LIVE];

static void take(struct test_random *random, unsigned i)
{
    static const unsigned kind[] = {KMAP_EAGER, KMAP_EAGER, KMAP_ZERO,
                                    KMAP_LAZY};
    uint64_t bytes = 1 + test_random_below(random, 20 * PAGE_BYTES);
    bool is_window = test_random_below(random, 3) == 0;

    live_block[i].bytes = bytes;
    live_block[i].is_window = is_window;
    if (is_window) {
        paddr_t device = paddr_of(DEVICE + test_random_below(random, MiB));
        live_block[i].device = device;
        live_block[i].start =
            (vaddr_t)kmap_mmio(device, bytes, PT_UC, "random");
        CHECK(live_block[i].start != 0);
        return;
    }
    live_block[i].start = (vaddr_t)kmap_alloc(
        bytes, kind[test_random_below(random, 4)], "random");
    live_block[i].stamp = (uint8_t)test_random_next(random);
    CHECK(live_block[i].start != 0);
    CHECK(sim_write(live_block[i].start, live_block[i].stamp));
    CHECK(sim_write(live_block[i].start + bytes - 1, live_block[i].stamp));
}

static void look(unsigned i)
{
    uint64_t last = live_block[i].bytes - 1;
    uint8_t value[2];
    paddr_t physical[2];

    if (live_block[i].is_window) {
        CHECK_EQUAL(
            sim_translate(live_block[i].start, WALK_WRITE, &physical[0]),
            WALK_ALLOWED);
        CHECK_EQUAL(
            sim_translate(live_block[i].start + last, WALK_WRITE, &physical[1]),
            WALK_ALLOWED);
        CHECK_EQUAL(physical[0].v, live_block[i].device.v);
        CHECK_EQUAL(physical[1].v, live_block[i].device.v + last);
        return;
    }
    CHECK(sim_read(live_block[i].start, &value[0]));
    CHECK(sim_read(live_block[i].start + last, &value[1]));
    CHECK_EQUAL(value[0], live_block[i].stamp);
    CHECK_EQUAL(value[1], live_block[i].stamp);
}

TEST(kmap_keep, random_work_meets_nobody)
{
    struct account before = boot();
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < LIVE; i++) {
        live_block[i].start = 0;
    }
    for (unsigned step = 0; step < 3000; step++) {
        unsigned i = (unsigned)test_random_below(&random, LIVE);

        if (live_block[i].start == 0) {
            CHECK_HELPER(take(&random, i));
        } else {
            CHECK_HELPER(look(i));
            kmap_free((void *)live_block[i].start);
            live_block[i].start = 0;
        }
        if (step % 100 == 0) {
            CHECK_HELPER(check_all());
        }
        if (step % 1000 == 500) {
            kmap_keep(step / 1000 * KEPT); /* 0, too */
        }
    }
    for (unsigned i = 0; i < LIVE; i++) {
        kmap_free((void *)live_block[i].start);
    }
    CHECK_HELPER(end(&before));
}
