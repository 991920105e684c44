/* SPDX-License-Identifier: MIT */
/* Tests of kmap in both worlds: blocks, windows and stacks as callers see. */
#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/pt.h>
#include <mm/shrink.h>
#include "base/bits.h"
#include "tests/shared/access.h"
#include "tests/shared/figures.h"

/*
 * At risk: memory that is not there or is not zero, a block that costs frames
 * before it is touched or keeps them when it is freed, an overrun that no
 * guard stops, a window that opens onto RAM. Provoked with real accesses, in
 * the kernel by the processor and on the host by the simulated one. What is
 * behind blocks is counted by the frame allocator, by type: other parts may
 * take frames meanwhile, but none for kmap, and tables only come for blocks.
 */

#define PAGE ((size_t)PAGE_BYTES)

/* What must be the same again when all blocks of a test are freed. */
struct account {
    uint64_t frames;
    uint64_t tables;    /* of the kernel, in use */
    uint64_t elsewhere; /* frames of other tables */
    struct kmap_stats kmap;
};

static struct account account_open(void)
{
    struct account now;

    access_boot();
    kmap_purge(); /* what other tests have left */
    now.frames = frames_of(FRAME_KMAP);
    now.tables = kernel_tables_in_use();
    now.elsewhere = tables_elsewhere();
    kmap_stats(&now.kmap);
    return now;
}

static void account_close(const struct account *before)
{
    struct kmap_stats kmap;

    kmap_purge();
    kmap_stats(&kmap);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before->frames);
    CHECK_EQUAL(kernel_tables_in_use(), before->tables);
    CHECK_EQUAL(tables_elsewhere(), before->elsewhere);
    CHECK_EQUAL(kmap.blocks, before->kmap.blocks);
    CHECK_EQUAL(kmap.bytes, before->kmap.bytes);
    CHECK_EQUAL(kmap.arena_free, before->kmap.arena_free);
    CHECK(kmap_check());
}

static void check_byte(const uint8_t *address, uint8_t expected)
{
    uint8_t value;

    CHECK(access_read(address, &value));
    CHECK_EQUAL(value, expected);
}

/* Neither can be touched: the bytes around a block. */
static void check_guards(uint8_t *block, size_t bytes)
{
    uint8_t value;

    CHECK(!access_read(block - 1, &value));
    CHECK(!access_write(block - 1, 1));
    CHECK(!access_read(block - PAGE, &value));
    CHECK(!access_read(block + bytes, &value));
    CHECK(!access_write(block + bytes + PAGE - 1, 1));
}

TEST(kmap, an_eager_block_is_memory)
{
    enum { PAGES = 40 };
    struct account before = account_open();
    uint8_t *block = kmap_alloc(PAGES * PAGE - 100, KMAP_EAGER, "eager");

    CHECK(block != NULL && is_aligned((vaddr_t)block, PAGE_BYTES));
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames + PAGES);
    for (size_t i = 0; i < PAGES; i++) {
        CHECK(access_write(block + i * PAGE, (uint8_t)i));
        CHECK(access_write(block + i * PAGE + PAGE - 1, (uint8_t)(i + 100)));
    }
    for (size_t i = 0; i < PAGES; i++) {
        CHECK_HELPER(check_byte(block + i * PAGE, (uint8_t)i));
        CHECK_HELPER(
            check_byte(block + i * PAGE + PAGE - 1, (uint8_t)(i + 100)));
    }
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames + PAGES);
    CHECK_HELPER(check_guards(block, PAGES * PAGE));
    CHECK(kmap_check());
    kmap_free(block);
    CHECK_HELPER(account_close(&before));
}

TEST(kmap, the_figures_are_of_blocks_without_guards)
{
    struct account before = account_open();
    struct kmap_stats now;
    void *small = kmap_alloc(1, KMAP_EAGER, "small");
    void *large = kmap_alloc(5 * PAGE, KMAP_LAZY, "large");

    CHECK(small != NULL && large != NULL);
    kmap_stats(&now);
    CHECK_EQUAL(now.blocks, before.kmap.blocks + 2);
    CHECK_EQUAL(now.bytes, before.kmap.bytes + 6 * PAGE_BYTES);
    CHECK_EQUAL(now.arena_bytes, before.kmap.arena_bytes);
    CHECK_EQUAL(now.arena_free, before.kmap.arena_free - 10 * PAGE_BYTES);
    kmap_free(large);
    kmap_stats(&now);
    CHECK_EQUAL(now.blocks, before.kmap.blocks + 1);
    CHECK_EQUAL(now.bytes, before.kmap.bytes + PAGE_BYTES);
    kmap_free(small);
    CHECK_HELPER(account_close(&before));
}

/* Other CPUs need not answer at once; they have until this is over. */
#define SHRINK_CALLS 10000

TEST(kmap, kept_frames_go_when_memory_is_short)
{
    enum { BLOCKS = 4 };
    struct account before = account_open();
    void *block[BLOCKS];

    for (unsigned i = 0; i < BLOCKS; i++) {
        block[i] = kmap_alloc(PAGE, KMAP_EAGER, "kept");
        CHECK(block[i] != NULL);
        CHECK(access_write(block[i], 1));
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        kmap_free(block[i]);
    }
    for (unsigned i = 0;
         i < SHRINK_CALLS && frames_of(FRAME_KMAP) > before.frames; i++) {
        shrink_reclaim(BLOCKS);
    }
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames);
    CHECK(kmap_check());
    CHECK_HELPER(account_close(&before));
}

/* The frames it gets were written by the block before it. */
TEST(kmap, a_zeroed_block_is_zero)
{
    enum { PAGES = 8 };
    struct account before = account_open();

    for (unsigned round = 0; round < 3; round++) {
        uint8_t *block = kmap_alloc(PAGES * PAGE, KMAP_ZERO, "zeroed");
        CHECK(block != NULL);
        for (size_t at = 0; at < PAGES * PAGE; at += 509) {
            CHECK_HELPER(check_byte(block + at, 0));
            CHECK(access_write(block + at, 0xa5));
        }
        kmap_free(block);
    }
    CHECK_HELPER(account_close(&before));
}

TEST(kmap, a_lazy_block_costs_what_is_touched)
{
    static const size_t touched[] = {0, 1, 511, 512, 100000, 262143};
    const size_t pages = 262144; /* 1 GiB */
    struct account before = account_open();
    uint8_t *block = kmap_alloc(pages * PAGE, KMAP_LAZY, "lazy");
    size_t count = sizeof(touched) / sizeof(touched[0]);

    CHECK(block != NULL);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames);
    for (size_t i = 0; i < count; i++) {
        uint8_t *page = block + touched[i] * PAGE;
        CHECK_HELPER(check_byte(page + 7, 0));
        CHECK(access_write(page, (uint8_t)(i + 1)));
        CHECK_HELPER(check_byte(page + PAGE - 1, 0));
        CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames + i + 1);
    }
    for (size_t i = 0; i < count; i++) {
        CHECK_HELPER(check_byte(block + touched[i] * PAGE, (uint8_t)(i + 1)));
    }
    CHECK_HELPER(check_guards(block, pages * PAGE));
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames + count);
    CHECK(kmap_check());
    kmap_free(block);
    CHECK_HELPER(account_close(&before));
}

TEST(kmap, a_stack_ends_at_a_guard)
{
    enum { BYTES = 16384 };
    struct account before = account_open();
    uint8_t *stack = kmap_stack(BYTES, "stack");
    struct kmap_info info;

    CHECK(stack != NULL);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames + BYTES / PAGE);
    for (size_t top = BYTES; top > 0; top -= 8) {
        CHECK(access_write(stack + top - 8, 0x5a));
    }
    CHECK(!access_write(stack - 8, 0x5a));
    CHECK(kmap_find((vaddr_t)stack - 8, &info));
    CHECK(info.is_guard && info.start == (vaddr_t)stack &&
          info.bytes == BYTES && info.name[0] == 's');
    CHECK_HELPER(check_guards(stack, BYTES));
    kmap_free(stack);
    CHECK_HELPER(account_close(&before));
}

TEST(kmap, a_freed_block_is_gone)
{
    struct account before = account_open();
    uint8_t *block = kmap_alloc(3 * PAGE, KMAP_EAGER, "gone");
    struct kmap_info info;
    uint8_t value;

    CHECK(block != NULL);
    for (size_t i = 0; i < 3; i++) {
        CHECK(access_write(block + i * PAGE, 1)); /* the TLB knows it now */
    }
    CHECK(kmap_find((vaddr_t)block + 2 * PAGE, &info) && !info.is_guard);
    kmap_free(block);
    kmap_purge(); /* until then the TLB may know it */
    for (size_t i = 0; i < 3; i++) {
        CHECK(!access_read(block + i * PAGE, &value));
        CHECK(!access_write(block + i * PAGE, 1));
    }
    CHECK(!kmap_find((vaddr_t)block, &info));
    CHECK_HELPER(account_close(&before));
}

TEST(kmap, wrong_frees_are_reported)
{
    struct account before = account_open();
    uint8_t *block = kmap_alloc(2 * PAGE, KMAP_EAGER, "mine");
    int local;

    CHECK(block != NULL);
    kmap_free(NULL);
    kmap_free(block + 8);
    CHECK_BUG("is not what was given for \"mine\"");
    kmap_free(block + PAGE);
    CHECK_BUG("is not what was given for \"mine\"");
    kmap_free(block - 1);
    CHECK_BUG("is not what was given for \"mine\"");
    kmap_free(&local);
    CHECK_BUG("is in no block");
    kmap_free((void *)(uintptr_t)1);
    CHECK_BUG("kmap_free: 0x1 is in no block");
    CHECK(access_write(block + 2 * PAGE - 1, 1)); /* all of it still stands */
    CHECK(kmap_check());
    kmap_free(block);
    kmap_free(block);
    CHECK_BUG("is in no block");
    CHECK_HELPER(account_close(&before));
}

TEST(kmap, impossible_blocks_are_refused)
{
    static const uint64_t bytes[] = {
        0,
        UINT64_MAX,
        UINT64_MAX - 2 * PAGE_BYTES,
        0 - 3 * PAGE_BYTES,
        UINT64_C(1) << 63,
    };
    struct account before = account_open();

    for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
        CHECK(kmap_alloc(bytes[i], KMAP_LAZY, "no") == NULL);
        CHECK(kmap_alloc(bytes[i], KMAP_EAGER, "no") == NULL);
        CHECK(kmap_stack(bytes[i], "no") == NULL);
    }
    CHECK(kmap_alloc(before.kmap.arena_bytes, KMAP_LAZY, "no") == NULL);
    CHECK_HELPER(account_close(&before));
}

TEST(kmap, no_window_opens_onto_ram)
{
    struct account before = account_open();
    pfn_t frame = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    paddr_t ram = pfn_to_phys(frame);

    CHECK(!pfn_is_none(frame));
    CHECK(kmap_mmio(ram, 1, PT_UC, "ram") == NULL);
    CHECK(kmap_mmio(paddr_of(ram.v + 4095), 1, PT_UC, "ram") == NULL);
    CHECK(kmap_mmio(paddr_of(ram.v - 1), 2, PT_UC, "ram") == NULL);
    CHECK(kmap_mmio(paddr_of(ram.v + 8), 0, PT_UC, "empty") == NULL);
    CHECK(kmap_mmio(paddr_of(UINT64_MAX), 2, PT_UC, "wraps") == NULL);
    CHECK(kmap_mmio(paddr_of(0), UINT64_MAX, PT_UC, "all") == NULL);
    CHECK(kmap_mmio(paddr_of(UINT64_C(1) << 52), 1, PT_UC, "beyond") == NULL);
    frame_free(frame, 0);
    frame = frame_alloc(0, FRAME_KERNEL, FRAME_ANY); /* free is no better */
    CHECK(!pfn_is_none(frame));
    frame_free(frame, 0);
    CHECK(kmap_mmio(pfn_to_phys(frame), 4096, PT_WB, "free") == NULL);
    CHECK_HELPER(account_close(&before));
}

/* RAM in use that the allocator never had: tables made at start-up. */
TEST(kmap, no_window_opens_onto_what_start_up_built)
{
    struct account before = account_open();
    paddr_t root = pfn_to_phys(pt_kernel.root);

    CHECK_EQUAL(frame_state(pt_kernel.root), FRAME_STATE_RESERVED);
    CHECK(kmap_mmio(root, PAGE_BYTES, PT_UC, "root") == NULL);
    CHECK(kmap_mmio(paddr_of(root.v + PAGE_BYTES - 1), 1, PT_WB, "end") ==
          NULL);
    CHECK(kmap_mmio(paddr_of(root.v - 1), 2, PT_UC, "before") == NULL);
    CHECK_HELPER(account_close(&before));
}

/* The local APIC's page: no machine has RAM there. */
TEST(kmap, a_window_keeps_the_offset_in_the_page)
{
    struct account before = account_open();
    uint8_t *window =
        kmap_mmio(paddr_of(0xfee00030), 2 * PAGE_BYTES, PT_UC, "window");
    struct kmap_info info;
    uint8_t value;

    CHECK(window != NULL);
    CHECK_EQUAL((vaddr_t)window & (PAGE_BYTES - 1), 0x30);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames);
    CHECK(kmap_find((vaddr_t)window, &info));
    CHECK_EQUAL(info.bytes, 3 * PAGE_BYTES);
    CHECK(!access_read(window - 0x31, &value));
    CHECK(!access_read(window - 0x30 + 3 * PAGE_BYTES, &value));
    kmap_free(window - 0x30);
    CHECK_BUG("is not what was given for \"window\"");
    kmap_free(window);
    CHECK_HELPER(account_close(&before));
}

/* --- many blocks, freed in random order ----------------------------------- */

#define LIVE 24

struct owned {
    uint8_t *start; /* NULL: not in use */
    size_t bytes;
    uint8_t stamp; /* in the first and last byte */
};

static struct owned live[LIVE];

static void take(struct test_random *random, struct owned *one)
{
    static const unsigned kind[] = {KMAP_EAGER, KMAP_LAZY, KMAP_ZERO};
    size_t bytes = 1 + (size_t)test_random_below(random, 20 * PAGE_BYTES);

    one->start = kmap_alloc(bytes, kind[test_random_below(random, 3)], "many");
    CHECK(one->start != NULL);
    one->bytes = bytes;
    one->stamp = (uint8_t)test_random_next(random);
    CHECK(access_write(one->start, one->stamp));
    CHECK(access_write(one->start + bytes - 1, one->stamp));
}

static void give(struct owned *one)
{
    CHECK_HELPER(check_byte(one->start, one->stamp));
    CHECK_HELPER(check_byte(one->start + one->bytes - 1, one->stamp));
    kmap_free(one->start);
    one->start = NULL;
}

TEST(kmap, many_blocks_do_not_meet)
{
    struct account before = account_open();
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < LIVE; i++) {
        live[i].start = NULL;
    }
    for (unsigned i = 0; i < 400; i++) {
        struct owned *one = &live[test_random_below(&random, LIVE)];
        if (one->start == NULL) {
            CHECK_HELPER(take(&random, one));
        } else {
            CHECK_HELPER(give(one));
        }
        if (i % 50 == 0) {
            CHECK(kmap_check());
        }
    }
    for (unsigned i = 0; i < LIVE; i++) {
        if (live[i].start != NULL) {
            CHECK_HELPER(give(&live[i]));
        }
    }
    CHECK_HELPER(account_close(&before));
}
