/* SPDX-License-Identifier: MIT */
/* The scheduler itself: what it must show, and what it must never show. */
/*
 * At risk: a scheduler that finds nothing because it tries nothing, or that
 * accuses code of what no x86 processor does. So the classic small programs
 * run under it: each outcome that x86 allows comes up, no other does.
 */
#include "tests/host/schedule_litmus.h"

#include <stdatomic.h>
#include <string.h>

#include "tests/shared/test.h"

#define SEEDS 400

static const char *run(uint64_t seed, void (*program)(unsigned cpu))
{
    struct schedule_plan plan = {.seed = seed,
                                 .cpus = 2,
                                 .strategy = seed % 2 ? SCHEDULE_WALK
                                                      : SCHEDULE_PRIORITIES,
                                 .pace = 20,
                                 .run = program};

    litmus_reset(2);
    return schedule_run(&plan);
}

/* In how many runs does neither see what the other has written? */
static unsigned count_unseen(int with_order)
{
    unsigned unseen = 0;

    litmus.order = with_order;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        if (run(seed, litmus_store_then_load) != NULL) {
            return SEEDS;
        }
        unseen += litmus.seen[0] == 0 && litmus.seen[1] == 0 ? 1 : 0;
    }
    return unseen;
}

TEST(schedule, loads_overtake_stores_but_no_locked_ones)
{
    unsigned unseen = count_unseen(memory_order_release);

    CHECK(unseen > 0 && unseen < SEEDS);
    CHECK_EQUAL(count_unseen(memory_order_seq_cst), 0);
}

TEST(schedule, stores_are_seen_in_their_order)
{
    unsigned outcome[2][2] = {{0}};

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        CHECK(run(seed, litmus_publish) == NULL);
        outcome[litmus.seen[1]][litmus.seen[0]]++;
    }
    CHECK(outcome[0][0] > 0 && outcome[0][1] > 0 && outcome[1][1] > 0);
    CHECK_EQUAL(outcome[1][0], 0);
}

/* A CPU sees its own stores at once, parts of them as well. */
static void look_at_own(unsigned cpu)
{
    uint64_t *mine = cpu == 0 ? &litmus.x : &litmus.y;

    schedule_store(mine, sizeof(*mine), 0x1122334455667788,
                   memory_order_relaxed);
    litmus.seen[cpu] =
        schedule_load(mine, sizeof(*mine), memory_order_relaxed) ==
            0x1122334455667788 &&
        schedule_load(mine, 1, memory_order_relaxed) == 0x88;
}

TEST(schedule, a_cpu_sees_its_own_stores_at_once)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        CHECK(run(seed, look_at_own) == NULL);
        CHECK(litmus.seen[0] && litmus.seen[1]);
    }
}

static void wait_for_ever(unsigned cpu)
{
    schedule_note(cpu == 0 ? "first" : "second");
    while (schedule_load(&litmus.x, sizeof(litmus.x), memory_order_acquire) ==
           0) {
        schedule_wait();
    }
}

TEST(schedule, a_deadlock_is_reported_with_what_all_do)
{
    const char *verdict = run(1, wait_for_ever);

    CHECK(verdict != NULL);
    CHECK(strstr(verdict, "no CPU gets any further") != NULL);
    CHECK(strstr(verdict, "CPU 0: first; CPU 1: second") != NULL);
}

static uint64_t trace;

/* Who did it, in which order. */
static void leave_traces(unsigned cpu)
{
    for (unsigned i = 0; i < 30; i++) {
        schedule_touch(&litmus.x, sizeof(litmus.x));
        trace = trace * 3 + cpu;
    }
}

TEST(schedule, a_seed_is_a_run)
{
    unsigned different = 0;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        trace = 1;
        CHECK(run(seed, leave_traces) == NULL);
        uint64_t first = trace;
        trace = 1;
        CHECK(run(seed, leave_traces) == NULL);
        CHECK_EQUAL(trace, first);
        trace = 1;
        CHECK(run(seed + 2, leave_traces) == NULL);
        different += trace != first ? 1 : 0;
    }
    CHECK(different > SEEDS / 2);
}
