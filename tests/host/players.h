/* SPDX-License-Identifier: MIT */
/* players: threads that play CPUs against each other. */
#ifndef TESTS_HOST_PLAYERS_H
#define TESTS_HOST_PLAYERS_H

#include <pthread.h>

#include "tests/shared/test.h"

#define PLAYERS 4 /* at most */

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
/* What is false is one of its errors: a CHECK is for one thread alone. */
void player_expect(bool is_true);

/*
 * @count threads call @act, each as a CPU of its own. Others go on by chance at
 * each step of the simulated machine, and under ThreadSanitizer before each
 * swap. A CPU that has ended answers the others until all have. Fails a CHECK
 * if any has made an error.
 */
void players_run(unsigned count, void (*act)(void));

#endif
