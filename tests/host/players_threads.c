/* SPDX-License-Identifier: MIT */
/* players: threads that play CPUs against each other. */
#include "tests/host/players.h"

#include <sched.h>
#include <stdatomic.h>

#include "tests/host/sim.h"

/* One in so many steps and swaps; of swaps, fewer and more find less. */
#define YIELD_CHANCE 8

struct player player[PLAYERS];

static _Atomic unsigned unfinished;
static void (*part)(void);
static _Thread_local struct player *me;
static _Thread_local struct test_random lot; /* whether others go on */

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

/* --- others go on --------------------------------------------------------- */

static void yield_by_chance(void)
{
    if (me != NULL && test_random_below(&lot, YIELD_CHANCE) == 0) {
        sched_yield();
    }
}

/* Who waits answers the others in the meantime. */
static void answer(void)
{
    sim_poll();
    sched_yield();
}

static const struct sim_driver driver = {.step = yield_by_chance,
                                         .relax = answer};

/*
 * A thread that reads a word and swaps it is hardly ever stopped between the
 * two. Where all is atomic ThreadSanitizer sees no race, so that what goes
 * wrong there is not found. The linker puts these in place of its swaps
 * (Makefile).
 */
#if SIM_TSAN

/* Each function is declared where it is defined: only compilers call it. */
#define SWAP(bits, kind)                                                       \
    int __real___tsan_atomic##bits##_compare_exchange_##kind(                  \
        volatile uint##bits##_t *address, uint##bits##_t *expected,            \
        uint##bits##_t desired, int order, int order_of_failure);              \
    int __wrap___tsan_atomic##bits##_compare_exchange_##kind(                  \
        volatile uint##bits##_t *address, uint##bits##_t *expected,            \
        uint##bits##_t desired, int order, int order_of_failure);              \
    int __wrap___tsan_atomic##bits##_compare_exchange_##kind(                  \
        volatile uint##bits##_t *address, uint##bits##_t *expected,            \
        uint##bits##_t desired, int order, int order_of_failure)               \
    {                                                                          \
        yield_by_chance();                                                     \
        return __real___tsan_atomic##bits##_compare_exchange_##kind(           \
            address, expected, desired, order, order_of_failure);              \
    }

SWAP(32, strong)
SWAP(32, weak)
SWAP(64, strong)
SWAP(64, weak)

#endif

/* --- a run ---------------------------------------------------------------- */

static void *play(void *context)
{
    me = context;
    sim_set_cpu(me->cpu);
    test_random_init(&lot, test_seed() + me->cpu);
    part();
    atomic_fetch_sub(&unfinished, 1);
    while (atomic_load(&unfinished) > 0) {
        answer();
    }
    return NULL;
}

void players_run(unsigned count, void (*act)(void))
{
    part = act;
    sim_set_driver(&driver);
    atomic_store(&unfinished, count);
    for (unsigned i = 0; i < count; i++) {
        player[i] = (struct player){.cpu = i};
        test_random_init(&player[i].random, test_seed() * PLAYERS + i);
        CHECK_EQUAL(pthread_create(&player[i].thread, NULL, play, &player[i]),
                    0);
    }
    for (unsigned i = 0; i < count; i++) {
        CHECK_EQUAL(pthread_join(player[i].thread, NULL), 0);
    }
    sim_set_driver(NULL);
    sim_set_cpu(0);
    for (unsigned i = 0; i < count; i++) {
        CHECK_EQUAL(player[i].errors, 0);
    }
}
