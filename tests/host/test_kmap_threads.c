/* SPDX-License-Identifier: MIT */
/* Kernel blocks of several threads. */
/*
 * At risk: a block that two CPUs have, an entry or a list that two change at
 * once, a translation that outlives a purge on another CPU. So threads play
 * CPUs, take and free small blocks and windows, hand some to each other, and
 * now and then let go of what all of them keep. In a second test one of them
 * does nothing but free pointers that nobody was given: it finds descriptors
 * that others let go of. ThreadSanitizer sees what no test can.
 */
#include <stdatomic.h>

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/shrink.h>
#include "tests/host/players.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"

#define STEPS     1500
#define LIVE      6
#define RAM_BYTES (256 * MiB)
#define DEVICE    UINT64_C(0xfd000000)
#define KEPT      24 /* pages */

static _Atomic vaddr_t handed; /* a block on its way to another CPU */
static _Atomic vaddr_t latest; /* that somebody was given */

/* What is in a block: its own address, which nobody else writes there. */
static uint8_t stamp_of(vaddr_t block)
{
    return (uint8_t)(block >> PAGE_SHIFT);
}

static vaddr_t take(void)
{
    uint64_t pages = 1 + player_below(3);

    if (player_below(3) == 0) {
        paddr_t device = paddr_of(DEVICE + player_me()->cpu * MiB);

        return (vaddr_t)kmap_mmio(device, pages * PAGE_BYTES, PT_UC, "thread");
    }
    vaddr_t block =
        (vaddr_t)kmap_alloc(pages * PAGE_BYTES, KMAP_EAGER, "thread");
    player_expect(sim_write(block, stamp_of(block)));
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
        player_expect(is_right);
    }
    kmap_free((void *)block);
}

static void take_and_give(void)
{
    vaddr_t block = take();

    atomic_store(&latest, block);
    sim_poll();
    give(block);
}

/* Purges come often: empty blocks go then, which nothing else flushes. */
static void free_wrongly(void)
{
    bool is_wrong = player_me()->cpu == 0;

    for (unsigned i = 0; i < 2 * STEPS; i++) {
        if (is_wrong) {
            kmap_free((void *)(atomic_load(&latest) + 1));
        } else if (test_random_below(&player_me()->random, 4) == 0) {
            kmap_purge();
        } else {
            take_and_give();
        }
        sim_poll();
    }
}

static void work(void)
{
    vaddr_t live[LIVE] = {0};

    for (unsigned i = 0; i < STEPS; i++) {
        vaddr_t *one = &live[player_below(LIVE)];
        uint64_t what = player_below(100);

        if (what == 0) {
            kmap_purge();
        } else if (what < 4) {
            shrink_reclaim(1);
        } else if (what < 20) {
            *one = atomic_exchange(&handed, *one);
        } else if (*one == 0) {
            *one = take();
            player_expect(*one != 0);
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

static void run(void (*act)(void))
{
    struct kmap_stats kmap;

    sim_boot_cpus(RAM_BYTES, PLAYERS, SIM_ALL_PARTS);
    kmap_keep(KEPT);
    uint64_t frames = frames_of(FRAME_KMAP);
    atomic_store(&handed, 0);
    atomic_store(&latest, SIM_KMAP);
    CHECK_HELPER(players_run(PLAYERS, act));
    kmap_free((void *)atomic_load(&handed));
    CHECK(kmap_check());
    kmap_purge();
    kmap_stats(&kmap);
    CHECK_EQUAL(kmap.blocks, 0);
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames);
    CHECK_EQUAL(sim_stale(), 0);
}

TEST(kmap_threads, blocks_belong_to_one)
{
    CHECK_HELPER(run(work));
}

TEST(kmap_threads, wrong_frees_touch_no_descriptor_that_went)
{
    CHECK_HELPER(run(free_wrongly));
    CHECK_BUG("kmap_free: ");
}
