/* SPDX-License-Identifier: MIT */
/* Tests of vmem: small segments that are kept by CPU. */
#include <mm/frame.h>
#include <mm/vmem.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

/*
 * At risk: an address that two CPUs keep, one that is kept for good while
 * another CPU is refused, a wrong free that enters an array and is handed out,
 * an arena that is taken down with segments kept. Provoked by arenas without
 * room, by frees of the wrong size and place, and by each allocation that
 * fails. Random work is in test_vmem_model.c.
 */

#define QUANTUM   PAGE_BYTES
#define BASE      UINT64_C(0xffffc00000000000)
#define RAM_BYTES (16 * MiB)
#define KEPT      4 /* quanta */

static struct vmem arena;

static void boot(unsigned cpus, uint64_t quanta)
{
    sim_boot_cpus(RAM_BYTES, cpus, SIM_ALL_PARTS);
    vmem_init(&arena, "test", QUANTUM);
    CHECK(vmem_keep(&arena, KEPT) == MM_OK);
    CHECK(vmem_add(&arena, BASE, quanta * QUANTUM) == MM_OK);
    CHECK(vmem_check(&arena));
}

static struct vmem_stats stats(void)
{
    struct vmem_stats now;

    vmem_stats(&arena, &now);
    return now;
}

static uint64_t take(uint64_t size)
{
    uint64_t address;

    return vmem_alloc(&arena, size, 0, &address) == MM_OK ? address : 0;
}

static void end(uint64_t quanta)
{
    CHECK(vmem_check(&arena));
    vmem_drain(&arena);
    CHECK_EQUAL(stats().kept, 0);
    CHECK_EQUAL(stats().allocated, 0);
    CHECK_EQUAL(stats().free, quanta * QUANTUM);
    CHECK(vmem_check(&arena));
    vmem_fini(&arena);
}

TEST(vmem_keep, the_last_segment_of_a_size_comes_first)
{
    uint64_t address[KEPT + 2];

    CHECK_HELPER(boot(1, 64));
    for (unsigned i = 1; i <= KEPT + 1; i++) {
        address[i] = take(i * QUANTUM);
        CHECK(address[i] != 0);
    }
    for (unsigned i = 1; i <= KEPT + 1; i++) {
        vmem_free(&arena, address[i], i * QUANTUM - 1); /* is rounded up */
    }
    CHECK_EQUAL(stats().kept, KEPT);
    CHECK_EQUAL(stats().allocated, KEPT);
    CHECK(vmem_check(&arena));
    for (unsigned i = 1; i <= KEPT; i++) {
        CHECK_EQUAL(take(i * QUANTUM - 1), address[i]);
    }
    CHECK_EQUAL(stats().kept, 0);
    for (unsigned i = 1; i <= KEPT; i++) {
        vmem_free(&arena, address[i], i * QUANTUM);
    }
    CHECK_HELPER(end(64));
}

TEST(vmem_keep, an_array_that_is_full_gives_half_back)
{
    enum { COUNT = 100 };
    uint64_t address[COUNT];

    CHECK_HELPER(boot(1, 2 * COUNT));
    for (unsigned i = 0; i < COUNT; i++) {
        address[i] = take(QUANTUM);
        CHECK(address[i] != 0);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        vmem_free(&arena, address[i], QUANTUM);
        CHECK(stats().kept <= 16);
        CHECK_EQUAL(stats().allocated, COUNT - 1 - i + stats().kept);
    }
    CHECK(stats().kept >= 8);
    CHECK_HELPER(end(2 * COUNT));
}

/* Nobody is refused what others keep; alignments are for the arena. */
TEST(vmem_keep, what_is_kept_goes_before_anybody_is_refused)
{
    uint64_t address[16];
    uint64_t one;

    CHECK_HELPER(boot(3, 16));
    for (unsigned i = 0; i < 16; i++) {
        address[i] = take(QUANTUM);
    }
    CHECK_EQUAL(take(1), 0);
    for (unsigned i = 0; i < 16; i++) {
        sim_set_cpu(i % 2);
        vmem_free(&arena, address[i], QUANTUM);
    }
    CHECK_EQUAL(stats().kept, 16);
    sim_set_cpu(2);
    CHECK_EQUAL(take(16 * QUANTUM), BASE);
    CHECK_EQUAL(stats().kept, 0);
    vmem_free(&arena, BASE, 16 * QUANTUM);
    vmem_free(&arena, take(QUANTUM), QUANTUM);
    CHECK(vmem_alloc(&arena, QUANTUM, 8 * QUANTUM, &one) == MM_OK);
    CHECK(is_aligned(one, 8 * QUANTUM));
    vmem_free(&arena, one, QUANTUM);
    sim_set_cpu(0);
    CHECK_HELPER(end(16));
}

TEST(vmem_keep, wrong_frees_are_found_out)
{
    CHECK_HELPER(boot(1, 64));
    uint64_t address = take(2 * QUANTUM);
    vmem_free(&arena, address + QUANTUM, QUANTUM);
    vmem_drain(&arena); /* at the latest */
    CHECK_BUG("test has no segment at 0xffffc00000001000");
    vmem_free(&arena, address, QUANTUM);
    vmem_drain(&arena);
    CHECK_BUG("has size 0x2000, not 0x1000");
    vmem_free(&arena, address, 0);
    CHECK_BUG("has size 0x2000, not 0x0");
    vmem_free(&arena, address, UINT64_MAX);
    CHECK_BUG("has size 0x2000");
    CHECK_EQUAL(vmem_size(&arena, address), 2 * QUANTUM);
    vmem_free(&arena, address, 2 * QUANTUM);
    vmem_free(&arena, address, 2 * QUANTUM);
    if (MM_DEBUG) {
        CHECK_BUG("is free already, and kept");
    } else {
        CHECK(!vmem_check(&arena)); /* it is kept twice */
    }
    vmem_drain(&arena);
    if (!MM_DEBUG) {
        CHECK_BUG("has no segment at");
    }
    CHECK_HELPER(end(64));
}

TEST(vmem_keep, an_arena_goes_with_what_it_keeps)
{
    sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
    uint64_t before = heap_frames();
    for (unsigned i = 0; i < 3; i++) {
        vmem_init(&arena, "test", 1);
        CHECK(vmem_keep(&arena, 1) == MM_OK);
        CHECK(vmem_add(&arena, 1, 100) == MM_OK);
        for (uint64_t number = 1; number <= 100; number++) {
            sim_set_cpu((unsigned)number % 2);
            CHECK(take(1) != 0);
        }
        for (uint64_t number = 1; number <= 100; number++) {
            sim_set_cpu((unsigned)number / 2 % 2);
            vmem_free(&arena, number, 1);
        }
        sim_set_cpu(0);
        CHECK(stats().kept > 8);
        vmem_fini(&arena);
        CHECK_EQUAL(heap_frames(), before);
    }
}

static void live(void)
{
    uint64_t address[40];

    vmem_init(&arena, "life", QUANTUM);
    if (vmem_keep(&arena, 16) == MM_OK &&
        vmem_add(&arena, BASE, 400 * QUANTUM) == MM_OK) {
        for (unsigned i = 0; i < 40; i++) {
            address[i] = take((1 + i % 3) * QUANTUM);
        }
        for (unsigned i = 0; i < 40; i++) {
            if (address[i] != 0) {
                vmem_free(&arena, address[i], (1 + i % 3) * QUANTUM);
            }
        }
        CHECK(vmem_check(&arena));
    }
    vmem_fini(&arena);
}

TEST(vmem_keep, a_failure_leaves_nothing)
{
    sim_boot_heap(RAM_BYTES);
    CHECK_HELPER(fail_each_allocation(live, 2));
}
