/* SPDX-License-Identifier: MIT */
/* Tests of frame: several processors at once. */
/*
 * At risk: two processors that get the same frame, a count that is lost, a
 * record that is read before it was backed, frames that nobody finds when
 * memory is short. Provoked by threads, each of which plays a processor, signs
 * all it holds, and lets others go on before some of its swaps.
 */
#include <mm/frame.h>

#include <stdatomic.h>
#include <stdio.h>

#include <mm/port.h>
#include "base/memory.h"
#include "tests/host/held.h"
#include "tests/host/players.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define HELD  64
#define STEPS 4000
#define BULK  40 /* frames, in places of their own */

/* Part of the memory that is in use all the time: then it runs out. */
#define CROWDED_RAM (24 * MiB)
#define ROOMY_RAM   (256 * MiB)

/* What one processor has. */
static struct share {
    uint64_t failures; /* allocations that found nothing */
    struct held held[HELD];
    pfn_t bulk[BULK];
    unsigned bulk_count;
    pfn_t run;
    uint64_t run_frames; /* 0: none */
} share[PLAYERS];

static struct share *mine(void)
{
    return &share[player_me()->cpu];
}

/* --- what a processor does ------------------------------------------------ */

/* Mostly one frame, often a few, now and then 2 or 4 MiB. */
static unsigned any_order(void)
{
    switch (player_below(16)) {
    case 0:
        return player_below(MM_MAX_ORDER + 1);
    case 1:
    case 2:
    case 3:
        return 1 + player_below(4);
    default:
        return 0;
    }
}

static unsigned any_flags(void)
{
    static const unsigned flags[] = {FRAME_ZEROED, FRAME_BELOW_4G,
                                     FRAME_BELOW_16M,
                                     FRAME_BELOW_16M | FRAME_ZEROED};

    return player_below(4) == 0 ? flags[player_below(4)] : FRAME_ANY;
}

static void take(struct held *block)
{
    unsigned flags = any_flags();

    block->order = any_order();
    block->pfn = frame_alloc(block->order, FRAME_USER, flags);
    if (pfn_is_none(block->pfn)) {
        mine()->failures++;
        return;
    }
    if (flags & FRAME_ZEROED) {
        player_expect(frames_are_zero(block->pfn, UINT64_C(1) << block->order));
    }
    block->sign = (uint64_t)(player_me()->cpu + 1) << 56 |
                  (uint64_t)player_below(1u << 24) << 32;
    sign_block(block);
}

/* Give it back whole, as single frames, or after a second holder has left. */
static void give(struct held *block)
{
    pfn_t pfn = block->pfn;

    player_expect(is_signed(block));
    block->pfn = PFN_NONE;
    switch (player_below(6)) {
    case 0:
        player_expect(frame_split(pfn, block->order) == MM_OK);
        for (uint64_t i = 0; i < UINT64_C(1) << block->order; i++) {
            frame_free(pfn_add(pfn, i), 0);
        }
        break;
    case 1:
        frame_ref(pfn);
        frame_unref(pfn);
        frame_unref(pfn);
        break;
    case 2:
        player_expect(frame_split(pfn, block->order) == MM_OK);
        player_expect(frame_join(pfn, block->order) == MM_OK);
        frame_free(pfn, block->order);
        break;
    default:
        frame_free(pfn, block->order);
        break;
    }
}

static void take_or_give(void)
{
    struct held *block = &mine()->held[player_below(HELD)];

    if (pfn_is_none(block->pfn)) {
        take(block);
    } else {
        give(block);
    }
}

static void sign_frames(pfn_t first, uint64_t frames)
{
    for (uint64_t i = 0; i < frames; i++) {
        struct held frame = {pfn_add(first, i), 0, player_me()->cpu + 1};
        sign_block(&frame);
    }
}

static void check_frames(pfn_t first, uint64_t frames)
{
    for (uint64_t i = 0; i < frames; i++) {
        struct held frame = {pfn_add(first, i), 0, player_me()->cpu + 1};
        player_expect(is_signed(&frame));
    }
}

static void take_or_give_bulk(void)
{
    struct share *me = mine();

    for (unsigned i = 0; i < me->bulk_count; i++) {
        check_frames(me->bulk[i], 1);
    }
    if (me->bulk_count > 0) {
        frame_free_bulk(me->bulk, me->bulk_count);
        me->bulk_count = 0;
        return;
    }
    unsigned wanted = 1 + player_below(BULK);
    me->bulk_count =
        frame_alloc_bulk(me->bulk, wanted, FRAME_KERNEL, FRAME_ANY);
    me->failures += me->bulk_count < wanted ? 1 : 0;
    for (unsigned i = 0; i < me->bulk_count; i++) {
        sign_frames(me->bulk[i], 1);
    }
}

static void take_or_give_run(void)
{
    struct share *me = mine();

    if (me->run_frames > 0) {
        check_frames(me->run, me->run_frames);
        frame_free_run(me->run, me->run_frames);
        me->run_frames = 0;
        return;
    }
    me->run_frames = 1 + player_below(700);
    me->run = frame_alloc_run(me->run_frames, UINT64_C(1) << player_below(8),
                              FRAME_KERNEL, FRAME_ANY);
    if (pfn_is_none(me->run)) {
        me->failures++;
        me->run_frames = 0;
        return;
    }
    sign_frames(me->run, me->run_frames);
}

static void do_something(void)
{
    switch (player_below(40)) {
    case 0:
        take_or_give_run();
        break;
    case 1:
    case 2:
        take_or_give_bulk();
        break;
    case 3:
        frame_drain();
        break;
    case 4:
    case 5:
        (void)frame_zero_idle();
        break;
    default:
        take_or_give();
        break;
    }
}

static void work(void)
{
    struct share *me = mine();

    for (unsigned i = 0; i < HELD; i++) {
        me->held[i].pfn = PFN_NONE;
    }
    for (unsigned step = 0; step < STEPS; step++) {
        do_something();
    }
    for (unsigned i = 0; i < HELD; i++) {
        if (!pfn_is_none(me->held[i].pfn)) {
            give(&me->held[i]);
        }
    }
    if (me->bulk_count > 0) {
        take_or_give_bulk();
    }
    if (me->run_frames > 0) {
        take_or_give_run();
    }
}

/* --- machines ------------------------------------------------------------- */

/* Nothing is in use; and all that is free can be had, frame by frame. */
static void check_all_is_there(unsigned cpus)
{
    struct frame_stats stats = figures();
    uint64_t had = 0;

    CHECK(frame_check());
    CHECK_EQUAL(stats.by_type[FRAME_USER], 0);
    CHECK_EQUAL(stats.by_type[FRAME_KERNEL], 0);
    CHECK_EQUAL(stats.free, stats.managed - stats.metadata);
    for (unsigned i = 0; i < cpus; i++) {
        sim_set_cpu(i);
        frame_drain();
    }
    sim_set_cpu(0);
    CHECK_EQUAL(figures().cached, 0);
    CHECK(frame_check());
    while (!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY))) {
        had++;
    }
    CHECK_EQUAL(had, figures().managed - figures().metadata);
    CHECK(frame_check());
}

static void work_at_once(uint64_t ram_bytes, unsigned cpus)
{
    uint64_t failures = 0;
    char text[100];

    sim_boot_frames_on(ram_bytes, cpus);
    memset(share, 0, sizeof(share));
    CHECK_HELPER(players_run(cpus, work));
    for (unsigned i = 0; i < cpus; i++) {
        failures += share[i].failures;
    }
    snprintf(text, sizeof(text),
             "# %u CPUs: %llu found nothing, %llu asked the others", cpus,
             (unsigned long long)failures,
             (unsigned long long)figures().drains);
    test_print(text);
    CHECK_HELPER(check_all_is_there(cpus));
}

TEST(frame, processors_allocate_at_once)
{
    for (unsigned cpus = 2; cpus <= PLAYERS; cpus++) {
        CHECK_HELPER(work_at_once(ROOMY_RAM, cpus));
    }
}

/* Most of the time somebody is short, and asks the others. */
TEST(frame, processors_fight_for_what_is_left)
{
    for (unsigned cpus = 2; cpus <= PLAYERS; cpus++) {
        CHECK_HELPER(work_at_once(CROWDED_RAM, cpus));
    }
}

/* --- holders -------------------------------------------------------------- */

/*
 * Blocks with a holder a thread. Each writes to its part of each block, then
 * leaves: what others wrote the last one sees, since it frees the block and
 * may clear it.
 */
#define SHARED_ROUNDS 1000
#define SHARED_ORDER  2

static _Atomic uint64_t shared[SHARED_ROUNDS]; /* frame number, or 0 */

/* The first thread allocates for all; others wait until it is there. */
static pfn_t shared_block(unsigned cpu, unsigned round)
{
    pfn_t pfn = PFN_NONE;

    if (cpu == 0) {
        pfn = frame_alloc(SHARED_ORDER, FRAME_USER, FRAME_ZEROED);
        for (unsigned i = 1; i < PLAYERS; i++) {
            frame_ref(pfn);
        }
        atomic_store_explicit(&shared[round], pfn.v, memory_order_release);
    }
    while (pfn_is_none(pfn) || pfn.v == 0) {
        pfn =
            pfn_of(atomic_load_explicit(&shared[round], memory_order_acquire));
        sim_poll();
        sim_yield();
    }
    return pfn;
}

static void hold_and_leave(void)
{
    unsigned cpu = player_me()->cpu;

    for (unsigned round = 0; round < SHARED_ROUNDS; round++) {
        pfn_t pfn = shared_block(cpu, round);
        uint64_t *word = (uint64_t *)phys_to_virt(pfn_to_phys(pfn)) + cpu;
        /* Plain accesses: whoever clears the block comes after them. */
        player_expect(*word == 0);
        *word = round + 1;
        for (unsigned i = player_below(3); i > 0; i--) {
            frame_ref(pfn);
            frame_unref(pfn);
        }
        frame_unref(pfn);
    }
}

TEST(frame, holders_leave_at_once)
{
    sim_boot_frames_on(ROOMY_RAM, PLAYERS);
    for (unsigned i = 0; i < SHARED_ROUNDS; i++) {
        atomic_store(&shared[i], 0);
    }
    CHECK_HELPER(players_run(PLAYERS, hold_and_leave));
    CHECK_HELPER(check_all_is_there(PLAYERS));
}
