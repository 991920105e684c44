/* SPDX-License-Identifier: MIT */
/* Tests of kvmalloc: memory whose frames need not lie in a row. */
#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/kmap.h>
#include <mm/kvmalloc.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"

/*
 * At risk: a block that is refused though there are frames enough, one that is
 * freed by the wrong of the two, a product that wraps around, memory that is
 * not zero. Provoked by RAM that is free in single frames only, by sizes at
 * the edges of what kmalloc() serves, and by each allocation that fails.
 */

#define RAM_BYTES (64 * MiB)

static uint64_t blocks(void)
{
    struct kmap_stats kmap;

    kmap_stats(&kmap);
    return kmap.blocks;
}

static uint64_t frames_before;

static void boot(void)
{
    sim_boot(RAM_BYTES);
    frames_before = heap_frames();
}

static void end(void)
{
    kmap_purge();
    CHECK_EQUAL(frames_of(FRAME_KMAP), 0);
    CHECK_EQUAL(blocks(), 0);
    CHECK_EQUAL(heap_frames(), frames_before);
    CHECK(kmap_check());
    CHECK(kmalloc_check());
}

/* Who serves a size; up to an eighth may be wasted. */
TEST(kvmalloc, sizes_go_where_they_waste_little)
{
    static const struct {
        uint64_t bytes;
        bool is_kmap;
    } table[] = {
        {1, false},
        {KMALLOC_SLAB_MAX, false},
        {KMALLOC_SLAB_MAX + 1, true},
        {14 * KiB - 1, true},
        {14 * KiB, false},
        {16 * KiB, false},
        {16 * KiB + 1, true},
        {64 * KiB, false},
        {65 * KiB, true},
        {112 * KiB, false},
        {KMALLOC_MAX, false},
        {KMALLOC_MAX + 1, true},
    };

    CHECK_HELPER(boot());
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        void *block = kvmalloc(table[i].bytes);
        CHECK(block != NULL);
        CHECK_EQUAL(kmap_has(block), table[i].is_kmap);
        CHECK_EQUAL(blocks(), table[i].is_kmap ? 1 : 0);
        kvfree(block);
        CHECK_EQUAL(blocks(), 0);
    }
    CHECK_HELPER(end());
}

TEST(kvmalloc, impossible_sizes_are_refused)
{
    CHECK_HELPER(boot());
    CHECK(kvmalloc(0) == NULL && kvzalloc(0) == NULL);
    CHECK(kvmalloc_array(0, 8) == NULL && kvmalloc_array(8, 0) == NULL);
    CHECK(kvmalloc(UINT64_MAX) == NULL && kvzalloc(UINT64_MAX) == NULL);
    CHECK(kvmalloc(2 * RAM_BYTES) == NULL);
    CHECK(kvmalloc_array(UINT64_C(1) << 32, UINT64_C(1) << 32) == NULL);
    CHECK(kvmalloc_array((UINT64_C(1) << 32) + 1, UINT64_C(1) << 32) == NULL);
    CHECK(kvmalloc_array(UINT64_MAX, 2) == NULL);
    kvfree(NULL);
    CHECK_HELPER(end());
}

/* Of the heap no function takes a block of kmap, and none changes it. */
TEST(kvmalloc, the_heap_takes_no_block_of_kmap)
{
    CHECK_HELPER(boot());
    for (unsigned i = 0; i < 2; i++) {
        vaddr_t block = (vaddr_t)kvmalloc(i == 0 ? 20 * KiB : KMALLOC_MAX + 1);
        uint8_t value;

        CHECK(kmap_has((void *)block) && sim_write(block, 0x42));
        kfree((void *)block);
        CHECK_BUG("free of a foreign pointer");
        CHECK_EQUAL(ksize((void *)block), 0);
        CHECK_BUG("foreign pointer");
        CHECK(krealloc((void *)block, 64) == NULL);
        CHECK_BUG("foreign pointer");
        CHECK(sim_read(block, &value));
        CHECK_EQUAL(value, 0x42);
        CHECK_EQUAL(blocks(), 1);
        kvfree((void *)block);
        CHECK_EQUAL(blocks(), 0);
    }
    CHECK_HELPER(end());
}

/* kvfree() is for what any of them has given. */
TEST(kvmalloc, blocks_of_both_kinds_are_freed)
{
    CHECK_HELPER(boot());
    kvfree(kmalloc(100));
    kvfree(kmalloc(64 * KiB));
    kvfree(kmap_alloc(PAGE_BYTES, KMAP_EAGER, "eager"));
    kvfree(kmap_alloc(MiB, KMAP_LAZY, "lazy"));
    kvfree(kmap_stack(16 * KiB, "stack"));
    CHECK_HELPER(end());
}

TEST(kvmalloc, wrong_frees_are_reported)
{
    int local;

    CHECK_HELPER(boot());
    uint8_t *block = kvmalloc(20 * KiB);
    CHECK(kmap_has(block));
    kvfree(block + 8);
    CHECK_BUG("is not what was given for \"kvmalloc\"");
    kvfree(&local);
    CHECK_BUG("free of a foreign pointer");
    kvfree(block);
    kvfree(block);
    CHECK_BUG("is in no block");
    kvfree((void *)SIM_KMAP); /* no block has ever begun there */
    CHECK_BUG("is in no block");
    kvfree((void *)(SIM_KMAP - 8));
    CHECK_BUG("free of a foreign pointer");
    kvfree((void *)UINTPTR_MAX);
    CHECK_BUG("free of a foreign pointer");
    uint8_t *object = kvmalloc(100);
    uint8_t *large = kvmalloc(64 * KiB);
    CHECK(!kmap_has(object) && !kmap_has(large));
    kvfree(object + 8);
    CHECK_BUG("free of an interior pointer");
    kvfree(large + PAGE_BYTES);
    CHECK_BUG("free of ");
    kvfree(object);
    kvfree(large);
    kvfree(large);
    CHECK_BUG("free of ");
    CHECK_HELPER(end());
}

/* Write to every frame, and give every second one back: none are in a row. */
static void shatter(void)
{
    static pfn_t frame[RAM_BYTES / PAGE_BYTES];
    unsigned count = 0;
    pfn_t pfn;

    while (!pfn_is_none(pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY))) {
        uint8_t *byte = phys_to_virt(pfn_to_phys(pfn));
        for (unsigned i = 0; i < PAGE_BYTES; i++) {
            byte[i] = 0xa5;
        }
        frame[count++] = pfn;
    }
    for (unsigned i = 0; i < count; i++) {
        if (frame[i].v % 2 == 0) {
            frame_free(frame[i], 0);
        }
    }
}

TEST(kvmalloc, frames_in_pieces_serve_as_well)
{
    uint8_t value;

    sim_boot(RAM_BYTES);
    shatter();
    CHECK(kmalloc(16 * KiB) == NULL);
    void *small = kvmalloc(16 * KiB);
    void *large = kvmalloc_array(4096, 256);
    CHECK(kmap_has(small) && kmap_has(large));
    for (unsigned i = 0; i < MiB; i += 777) {
        CHECK(sim_read((vaddr_t)large + i, &value));
        CHECK_EQUAL(value, 0);
    }
    CHECK(sim_write((vaddr_t)small + 16 * KiB - 1, 1));
    kvfree(small);
    kvfree(large);
    kmap_purge();
    CHECK_EQUAL(frames_of(FRAME_KMAP), 0);
    CHECK(kmap_check());
}

TEST(kvmalloc, what_is_zeroed_is_zero)
{
    static const uint64_t bytes[] = {100, KMALLOC_SLAB_MAX, 16 * KiB};

    sim_boot(RAM_BYTES);
    for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
        for (unsigned round = 0; round < 2; round++) {
            uint8_t *block = kvzalloc(bytes[i]);
            CHECK(block != NULL && !kmap_has(block));
            for (uint64_t at = 0; at < bytes[i]; at++) {
                CHECK_EQUAL(block[at], 0);
                block[at] = 0xff;
            }
            kvfree(block);
        }
    }
}

/* If one allocation fails, the other way is taken, or nothing is left. */
TEST(kvmalloc, a_failure_leaves_nothing)
{
    uint64_t k = 0;
    uint64_t tried;
    unsigned served = 0;

    do {
        CHECK_HELPER(boot());
        frame_inject(++k);
        void *block[] = {kvmalloc(64 * KiB), kvzalloc(20 * KiB),
                         kvmalloc_array(100, 4000)};
        tried = frame_inject_count();
        frame_inject(0);
        served += block[0] != NULL && kmap_has(block[0]) ? 1 : 0;
        for (unsigned i = 0; i < 3; i++) {
            kvfree(block[i]);
        }
        CHECK_HELPER(end());
    } while (tried >= k);
    CHECK(k > 5 && served > 0);
}
