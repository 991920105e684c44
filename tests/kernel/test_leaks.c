/* SPDX-License-Identifier: MIT */
/* leaks: the scan finds what is lost, and nothing that somebody has. */
#include "kernel/leaks.h"

#include <stdatomic.h>

#include <mm/kmalloc.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include "base/memory.h"
#include "kernel/smp.h"
#include "tests/shared/test.h"

/*
 * At risk: a root that was forgotten, which would call a live object leaked in
 * any test; and a scan that finds nothing because it sees old pointers
 * everywhere. Provoked by the only reference in each kind of root, and by
 * losing objects, here and on another processor. Addresses are kept inverted:
 * so they are no references. One or the other lost object may have the address
 * of one that a test before has left in a variable; most do not.
 */

#define LOST 16

static uintptr_t kept[LOST]; /* inverted */
static void *volatile only;  /* a variable as a root */

static void *kept_block(unsigned i)
{
    return (void *)~kept[i];
}

static MM_NOINLINE void lose_blocks(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < LOST; i++) {
        kept[i] = ~(uintptr_t)kzalloc(1000);
    }
}

/* Let other calls use the stack where the pointers were. */
static MM_NOINLINE void lose_traces(void)
{
    volatile char old[1024];

    for (size_t i = 0; i < sizeof(old); i++) {
        old[i] = 0;
    }
}

static uint64_t count_leaks(void)
{
    const struct leaks *leaks = leaks_find();
    uint64_t leaked = leaks == NULL ? UINT64_MAX : leaks->totals.leaked;

    leaks_forget();
    return leaked;
}

static void free_blocks(void)
{
    for (unsigned i = 0; i < LOST; i++) {
        kfree(kept_block(i));
    }
}

TEST(leaks, what_is_lost_is_found)
{
    CHECK_EQUAL(count_leaks(), 0);
    lose_blocks(NULL);
    lose_traces();
    uint64_t leaked = count_leaks();
    free_blocks();
    CHECK(leaked <= LOST && leaked >= LOST / 2);
    CHECK_EQUAL(count_leaks(), 0);
}

TEST(leaks, what_another_processor_has_lost_is_found)
{
    unsigned other = smp_first_other();

    if (other == smp_possible()) {
        return;
    }
    CHECK_EQUAL(smp_call(other, lose_blocks, NULL), MM_OK);
    uint64_t leaked = count_leaks();
    free_blocks();
    CHECK(leaked <= LOST && leaked >= LOST / 2);
}

/* All blocks but one hang on the one before. */
static MM_NOINLINE void chain_blocks(void)
{
    for (unsigned i = 0; i + 1 < LOST; i++) {
        *(void **)kept_block(i) = kept_block(i + 1);
    }
}

TEST(leaks, every_root_holds)
{
    lose_blocks(NULL);
    chain_blocks();
    lose_traces();
    only = kept_block(0);
    CHECK_EQUAL(count_leaks(), 0);

    void **map = kmap_alloc(PAGE_BYTES, KMAP_EAGER, "root");
    CHECK(map != NULL);
    map[7] = only;
    only = NULL;
    CHECK_EQUAL(count_leaks(), 0);

    void *volatile local = map[7];
    kmap_free(map);
    CHECK_EQUAL(count_leaks(), 0);
    CHECK(local == kept_block(0));
    free_blocks();
}

/* Where another processor is, with a block that only its stack knows. */
static _Atomic unsigned stage;

static void hold_block(void *argument)
{
    void *volatile block = kzalloc(500);

    (void)argument;
    kept[0] = ~(uintptr_t)block;
    atomic_store_explicit(&stage, 1, memory_order_release);
    while (atomic_load_explicit(&stage, memory_order_acquire) != 2) {
        port_relax();
    }
    kfree(block);
}

TEST(leaks, stacks_of_others_are_roots)
{
    unsigned other = smp_first_other();

    if (other == smp_possible()) {
        return;
    }
    atomic_store_explicit(&stage, 0, memory_order_relaxed);
    CHECK_EQUAL(smp_run(other, hold_block, NULL), MM_OK);
    while (atomic_load_explicit(&stage, memory_order_acquire) != 1) {
        port_relax();
    }
    uint64_t leaked = count_leaks();
    atomic_store_explicit(&stage, 2, memory_order_release);
    smp_wait(other);
    CHECK_EQUAL(leaked, 0);
}
