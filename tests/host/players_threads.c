/* SPDX-License-Identifier: MIT */
/* players: threads that play CPUs against each other. */
#include "tests/host/players.h"

#include <sched.h>
#include <stdatomic.h>

#include <mm/pt.h>
#include "tests/host/sim.h"
#include "tests/host/sim_cpus.h"
#include "tests/host/yield.h"

/* One in so many steps lets another thread run. */
#define YIELD_CHANCE 16

struct player player[PLAYERS];

static _Atomic unsigned unfinished;
static void (*part)(void);
static _Thread_local struct player *me;

struct player *player_me(void)
{
    return me != NULL ? me : &player[0];
}

unsigned player_below(unsigned limit)
{
    return (unsigned)test_random_below(&player_me()->random, limit);
}

void player_expect(bool is_true)
{
    player_me()->errors += is_true ? 0 : 1;
}

static void yield_by_chance(void)
{
    if (me != NULL && player_below(YIELD_CHANCE) == 0) {
        sched_yield();
    }
}

static void yield(void)
{
    sched_yield();
}

static const struct sim_driver driver = {.step = yield_by_chance,
                                         .relax = yield};

static void *play(void *context)
{
    me = context;
    sim_set_cpu(me->cpu);
    test_random_init(&me->random, test_seed() + me->cpu);
    yield_before_swaps(YIELD_CHANCE, test_seed() + me->cpu);
    part();
    tlb_switch(&pt_kernel.tlb);
    atomic_fetch_sub(&unfinished, 1);
    while (atomic_load(&unfinished) > 0) {
        sim_poll();
        sched_yield();
    }
    return NULL;
}

void players_run(void (*act)(void))
{
    part = act;
    sim_set_driver(&driver);
    atomic_store(&unfinished, PLAYERS);
    for (unsigned i = 0; i < PLAYERS; i++) {
        player[i] = (struct player){.cpu = i};
        CHECK_EQUAL(pthread_create(&player[i].thread, NULL, play, &player[i]),
                    0);
    }
    for (unsigned i = 0; i < PLAYERS; i++) {
        CHECK_EQUAL(pthread_join(player[i].thread, NULL), 0);
    }
    sim_set_driver(NULL);
    sim_set_cpu(0);
}
