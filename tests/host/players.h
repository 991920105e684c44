/* SPDX-License-Identifier: MIT */
/* players: threads that play CPUs against each other. */
#ifndef TESTS_HOST_PLAYERS_H
#define TESTS_HOST_PLAYERS_H

#include <pthread.h>

#include "tests/shared/test.h"

#define PLAYERS 4

struct player {
    pthread_t thread;
    unsigned cpu; /* its index, too */
    struct test_random random;
    uint64_t errors;
};

extern struct player player[PLAYERS];

/* Who this thread is; the first one outside of players_run(). */
struct player *player_me(void);
/* Of this thread's own random numbers. */
unsigned player_below(unsigned limit);
/* What is false is one of its errors. */
void player_expect(bool is_true);

/*
 * Each thread calls @act as a CPU of its own, and others go on by chance at
 * each step of the simulated machine. A CPU that has ended loads the kernel's
 * tables, and answers the others until all have.
 */
void players_run(void (*act)(void));

#endif
