/* SPDX-License-Identifier: MIT */
/* The explorer itself: it must try every order, and no order twice. */
/*
 * At risk: an order that is left out, and with it the bug. So small programs
 * run under it whose orders and outcomes are known by counting.
 */
#include "tests/host/schedule_explore.h"

#include <stdatomic.h>
#include <string.h>

#include "tests/host/schedule_litmus.h"
#include "tests/shared/test.h"

static unsigned outcome[2][2];

static void machine(unsigned cpus)
{
    litmus_reset(cpus);
    memset(outcome, 0, sizeof(outcome));
}

/* --- counting ------------------------------------------------------------- */

static void add_twice(unsigned cpu)
{
    (void)cpu;
    for (unsigned i = 0; i < 2; i++) {
        schedule_lock_at(&litmus.x, sizeof(litmus.x));
        litmus.x++;
    }
}

static const char *check_nothing(unsigned stopped)
{
    (void)stopped;
    return NULL;
}

/* (2 + 2)! / 2!2! and (2 + 2 + 2)! / 2!2!2!. */
TEST(explore, every_order_once)
{
    struct explore two = {.name = "two that add twice",
                          .cpus = 2,
                          .preemptions = EXPLORE_ALL,
                          .run = add_twice,
                          .check = check_nothing};
    struct explore three = two;
    struct explored orders;

    machine(2);
    CHECK(explore(&two, &orders) == NULL);
    CHECK_EQUAL(orders.runs, 6);
    CHECK_EQUAL(litmus.x, 0); /* what a run writes is written back */
    machine(3);
    three.name = "three that add twice";
    three.cpus = 3;
    CHECK(explore(&three, &orders) == NULL);
    CHECK_EQUAL(orders.runs, 90);
}

/* Without a preemption, who begins is all that is open. */
TEST(explore, preemptions_are_bounded)
{
    struct explore two = {.name = "two without a preemption",
                          .cpus = 2,
                          .run = add_twice,
                          .check = check_nothing};
    struct explored orders;

    machine(2);
    CHECK(explore(&two, &orders) == NULL);
    CHECK_EQUAL(orders.runs, 2);
    two.name = "two with one";
    two.preemptions = 1;
    CHECK(explore(&two, &orders) == NULL);
    CHECK_EQUAL(orders.runs, 4);
}

/* --- outcomes ------------------------------------------------------------- */

static void add_in_two_steps(unsigned cpu)
{
    uint64_t old =
        schedule_load(&litmus.x, sizeof(litmus.x), memory_order_relaxed);

    (void)cpu;
    schedule_store(&litmus.x, sizeof(litmus.x), old + 1, memory_order_seq_cst);
}

static const char *check_sum(unsigned stopped)
{
    (void)stopped;
    return litmus.x == 2 ? NULL : "an addition is lost";
}

TEST(explore, a_lost_update_is_found)
{
    struct explore two = {.name = "two that add in two steps",
                          .cpus = 2,
                          .preemptions = 1,
                          .run = add_in_two_steps,
                          .check = check_sum};
    struct explored orders;

    machine(2);
    const char *verdict = explore(&two, &orders);
    CHECK(verdict != NULL && strstr(verdict, "lost") != NULL);
    two.preemptions = 0;
    two.name = "the same without a preemption";
    CHECK(explore(&two, &orders) == NULL);
}

static const char *note_outcome(unsigned stopped)
{
    (void)stopped;
    outcome[litmus.seen[0]][litmus.seen[1]]++;
    return NULL;
}

TEST(explore, loads_overtake_stores_but_no_locked_ones)
{
    struct explore two = {.name = "store, then load",
                          .cpus = 2,
                          .preemptions = EXPLORE_ALL,
                          .run = litmus_store_then_load,
                          .check = note_outcome};
    struct explored orders;

    machine(2);
    litmus.order = memory_order_release;
    CHECK(explore(&two, &orders) == NULL);
    CHECK(outcome[0][0] > 0 && outcome[0][1] > 0);
    CHECK(outcome[1][0] > 0 && outcome[1][1] > 0);
    machine(2);
    two.name = "locked store, then load";
    litmus.order = memory_order_seq_cst;
    CHECK(explore(&two, &orders) == NULL);
    CHECK_EQUAL(outcome[0][0], 0);
    CHECK(outcome[0][1] > 0 && outcome[1][0] > 0 && outcome[1][1] > 0);
}

TEST(explore, stores_are_seen_in_their_order)
{
    struct explore two = {.name = "two stores, two loads",
                          .cpus = 2,
                          .preemptions = EXPLORE_ALL,
                          .run = litmus_publish,
                          .check = note_outcome};
    struct explored orders;

    machine(2);
    CHECK(explore(&two, &orders) == NULL);
    CHECK(outcome[0][0] > 0 && outcome[1][0] > 0 && outcome[1][1] > 0);
    CHECK_EQUAL(outcome[0][1], 0);
}

/* --- waiting, and stopping ------------------------------------------------ */

static void answer_or_wait(unsigned cpu)
{
    if (cpu == 0) {
        schedule_store(&litmus.x, sizeof(litmus.x), 1, memory_order_release);
        return;
    }
    while (schedule_load(&litmus.x, sizeof(litmus.x), memory_order_acquire) ==
           0) {
        schedule_wait();
    }
}

TEST(explore, who_waits_is_not_a_run_without_end)
{
    struct explore two = {.name = "one waits for the other",
                          .cpus = 2,
                          .preemptions = EXPLORE_ALL,
                          .run = answer_or_wait,
                          .check = check_nothing};
    struct explored orders;

    machine(2);
    CHECK(explore(&two, &orders) == NULL);
    CHECK(!orders.was_cut && orders.runs > 1);
    two.name = "one waits for the other, which stops";
    two.stoppable = 1;
    const char *verdict = explore(&two, &orders);
    CHECK(verdict != NULL && strstr(verdict, "any further") != NULL);
    CHECK(strstr(verdict, "CPU 0: stopped") != NULL);
}

/* Stops before each of its two steps, the other being anywhere: 3 places. */
TEST(explore, a_cpu_stops_at_each_of_its_steps)
{
    struct explore two = {.name = "two that add, the first may stop",
                          .cpus = 2,
                          .preemptions = 0,
                          .stoppable = 1,
                          .run = add_twice,
                          .check = check_nothing};
    struct explored orders;

    machine(2);
    CHECK(explore(&two, &orders) == NULL);
    CHECK_EQUAL(orders.runs, 4); /* two that end, stopped at 0 and at 1 */
    CHECK_EQUAL(orders.stopped, 2);
}

/* --- orders that are left out --------------------------------------------- */

#define ACTIONS  3
#define PROGRAMS 300 /* of two CPUs */
#define TRIPLES  15  /* of three, with an action less */
#define FATES    65521

/* What a program does: a load, a store or an addition, of x or y. */
static unsigned action[3][ACTIONS];
static unsigned cpus;
static unsigned actions;
static bool has_come_up[2][FATES]; /* by what was seen in the end */
static unsigned way;

static void run_actions(unsigned cpu)
{
    litmus.seen[cpu] = 0;
    for (unsigned i = 0; i < actions; i++) {
        uint64_t *word = action[cpu][i] % 2 == 0 ? &litmus.x : &litmus.y;

        switch (action[cpu][i] / 2) {
        case 0:
            litmus.seen[cpu] =
                litmus.seen[cpu] * 5 +
                schedule_load(word, sizeof(*word), memory_order_acquire);
            break;
        case 1:
            schedule_store(word, sizeof(*word), 1 + cpu, memory_order_release);
            break;
        default:
            schedule_lock_at(word, sizeof(*word));
            litmus.seen[cpu] = litmus.seen[cpu] * 5 + *word;
            *word = (*word + 2) % 5;
            break;
        }
    }
}

static const char *note_fate(unsigned stopped)
{
    uint64_t fate = litmus.x * 5 + litmus.y;
    for (unsigned i = 0; i < cpus; i++) {
        fate = fate * 125 + litmus.seen[i];
    }

    (void)stopped;
    has_come_up[way][fate % FATES] = true;
    return NULL;
}

/* What can come of it with @preemptions; how many orders were tried. */
static uint64_t note_fates(unsigned number, unsigned preemptions)
{
    struct explored explored = {0};
    struct explore some = {.name = "random programs",
                           .is_quiet = true,
                           .cpus = cpus,
                           .preemptions = preemptions,
                           .run = run_actions,
                           .check = note_fate};

    way = number;
    return explore(&some, &explored) == NULL ? explored.runs : 0;
}

/* Whatever can come of them comes up without the orders that are left out. */
static void compare_fates(unsigned programs, uint64_t *saved_runs)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned program = 0; program < programs; program++) {
        machine(cpus);
        memset(has_come_up, 0, sizeof(has_come_up));
        for (unsigned i = 0; i < cpus * actions; i++) {
            action[i / actions][i % actions] =
                (unsigned)test_random_below(&random, 6);
        }
        uint64_t all = note_fates(0, EXPLORE_EVERY);
        uint64_t few = note_fates(1, EXPLORE_ALL);
        CHECK(all > 0 && few > 0);
        CHECK(memcmp(has_come_up[0], has_come_up[1], FATES) == 0);
        *saved_runs += all - few;
    }
    CHECK(*saved_runs > programs);
}

TEST(explore, orders_that_are_left_out_bring_nothing_new)
{
    uint64_t saved_runs = 0;

    cpus = 2;
    actions = ACTIONS;
    CHECK_HELPER(compare_fates(PROGRAMS, &saved_runs));
    cpus = 3;
    actions = ACTIONS - 1;
    CHECK_HELPER(compare_fates(TRIPLES, &saved_runs));
}
