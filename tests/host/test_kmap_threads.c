/* SPDX-License-Identifier: MIT */
/* Kernel blocks of several threads. */
/*
 * At risk: a block that two CPUs have, an entry or a list that two change at
 * once, a translation that outlives a purge on another CPU. So threads play
 * CPUs, take and free small blocks and windows, hand some to each other, and
 * now and then let go of what all of them keep. ThreadSanitizer sees what no
 * test can.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <mm/frame.h>
#include <mm/kmap.h>
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/host/yield.h"
#include "tests/shared/figures.h"

#define THREADS   4
#define STEPS     1500
#define LIVE      6
#define RAM_BYTES (256 * MiB)
#define DEVICE    UINT64_C(0xfd000000)
#define KEPT      24 /* pages */

#define YIELD_CHANCE 16

static _Atomic unsigned unfinished;
static _Atomic vaddr_t handed; /* a block on its way to another CPU */

struct player {
    pthread_t thread;
    unsigned cpu;
    struct test_random random;
    uint64_t errors;
};

static struct player player[THREADS];
static _Thread_local struct player *me;

static void yield_by_chance(void)
{
    if (me != NULL && test_random_below(&me->random, YIELD_CHANCE) == 0) {
        sched_yield();
    }
}

static void yield(void)
{
    sched_yield();
}

static const struct sim_driver driver = {.step = yield_by_chance,
                                         .relax = yield};

/* What is in a block: its own address, which nobody else writes there. */
static uint8_t stamp_of(vaddr_t block)
{
    return (uint8_t)(block >> PAGE_SHIFT);
}

static vaddr_t take(void)
{
    uint64_t pages = 1 + test_random_below(&me->random, 3);

    if (test_random_below(&me->random, 3) == 0) {
        paddr_t device = paddr_of(DEVICE + me->cpu * MiB);

        return (vaddr_t)kmap_mmio(device, pages * PAGE_BYTES, PT_UC, "thread");
    }
    vaddr_t block =
        (vaddr_t)kmap_alloc(pages * PAGE_BYTES, KMAP_EAGER, "thread");
    me->errors += sim_write(block, stamp_of(block)) ? 0 : 1;
    return block;
}

static bool is_window(vaddr_t block)
{
    return (pt_lookup(&pt_kernel, block).entry.v & PTE_OWN) == 0;
}

static void give(vaddr_t block)
{
    uint8_t value;

    if (block != 0 && !is_window(block)) {
        bool is_right = sim_read(block, &value) && value == stamp_of(block);
        me->errors += is_right ? 0 : 1;
    }
    kmap_free((void *)block);
}

static void work(void)
{
    vaddr_t live[LIVE] = {0};

    for (unsigned i = 0; i < STEPS; i++) {
        vaddr_t *one = &live[test_random_below(&me->random, LIVE)];
        uint64_t what = test_random_below(&me->random, 100);

        if (what == 0) {
            kmap_purge();
        } else if (what < 20) {
            *one = atomic_exchange(&handed, *one);
        } else if (*one == 0) {
            *one = take();
            me->errors += *one == 0 ? 1 : 0;
        } else {
            give(*one);
            *one = 0;
        }
        sim_poll();
    }
    for (unsigned i = 0; i < LIVE; i++) {
        give(live[i]);
    }
}

/* A CPU that has ended answers the others until all have. */
static void *play(void *context)
{
    me = context;
    sim_set_cpu(me->cpu);
    test_random_init(&me->random, test_seed() + me->cpu);
    yield_before_swaps(YIELD_CHANCE, test_seed() + me->cpu);
    work();
    atomic_fetch_sub(&unfinished, 1);
    while (atomic_load(&unfinished) > 0) {
        sim_poll();
        sched_yield();
    }
    return NULL;
}

TEST(kmap_threads, blocks_belong_to_one)
{
    struct kmap_stats kmap;

    sim_boot_cpus(RAM_BYTES, THREADS, SIM_ALL_PARTS);
    kmap_keep(KEPT);
    uint64_t frames = frames_of(FRAME_KMAP);
    sim_set_driver(&driver);
    atomic_store(&unfinished, THREADS);
    atomic_store(&handed, 0);
    for (unsigned i = 0; i < THREADS; i++) {
        player[i].cpu = i;
        player[i].errors = 0;
        CHECK_EQUAL(pthread_create(&player[i].thread, NULL, play, &player[i]),
                    0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK_EQUAL(pthread_join(player[i].thread, NULL), 0);
    }
    sim_set_driver(NULL);
    sim_set_cpu(0);
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK_EQUAL(player[i].errors, 0);
    }
    kmap_free((void *)atomic_load(&handed));
    CHECK(kmap_check());
    kmap_purge();
    kmap_stats(&kmap);
    CHECK_EQUAL(kmap.blocks, 0);
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames);
    CHECK_EQUAL(sim_stale(), 0);
}
