/* SPDX-License-Identifier: MIT */
/* Two CPUs in one space: faults, forks, collapses, at each of their steps. */
/*
 * At risk: what one CPU does between two steps of another's. A write that is
 * lost to a copy made before it; a copy of the space that sees a write made
 * after it; a page that goes while somebody fills it; a table that is unlocked
 * in another's place. A lot finds such places once in hundreds of runs. So here
 * they are tried in a row: CPU 0 makes one step more each time, then CPU 1 acts
 * until it waits, which it does with its cursor open, then CPU 0 ends. CPU 2
 * has all pages cached, and does nothing but answer. Each CPU has a byte of its
 * own in each page, and knows what it has written there.
 */
#include "tests/host/schedule_acts_scene.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/host/sim_cpus.h"

/* --- a run ---------------------------------------------------------------- */

static enum acts_state begins_as;
static enum acts_what act[2]; /* of CPU 0 and 1 */
static bool has_begun;        /* CPU 0 */
static bool may_begin;        /* CPU 1 */
static unsigned at_work;      /* CPUs 0 and 1 until they have done it */

/* At which step of CPU 0 CPU 1 begins, and how many it has made. */
static uint64_t turn;
static uint64_t steps;

/*
 * Where CPU 1 waits CPU 0 goes on; or not before it has waited so often, if it
 * does not end first. But CPU 0 answers meanwhile, if its interrupts are on.
 */
#define PATIENCE 40
static unsigned patience;
static unsigned waits;
static bool is_answering;
static bool is_asked; /* it, and where it stands; else at its next access */

static unsigned who_is_next(unsigned now)
{
    if (!may_begin || at_work < 2 || now == 0 || waits++ >= patience) {
        return (now + 1) % ACTS_CPUS;
    }
    if (sim_is_interrupted(0) && !sim_irq_is_off_on(0)) {
        is_answering = true;
        is_asked = false;
        return 0;
    }
    return ACTS_CPUS - now; /* the other of 1 and 2 */
}

/* In the middle of an instruction no interrupt comes. */
static bool is_of_mmu(const struct schedule_access *access)
{
    return access->is_write && access->bytes == 1;
}

static unsigned choose(const struct schedule_access *access)
{
    unsigned now = schedule_now();

    for (unsigned i = 0; i < ACTS_CPUS; i++) {
        while (schedule_stores(i) > 0) {
            schedule_flush(i);
        }
    }
    if (access == NULL) {
        return who_is_next(now);
    }
    if (now == 0 && is_answering && !is_of_mmu(access)) {
        is_answering = false;
        sim_poll();
        return 1;
    }
    if (now == 0 && has_begun && !may_begin && steps++ == turn) {
        may_begin = true;
        return 1;
    }
    return now;
}

static void do_work(unsigned cpu)
{
    has_begun = has_begun || cpu == 0;
    while (cpu == 1 && !may_begin) {
        schedule_wait();
    }
    schedule_note(acts_name(act[cpu]));
    acts_do(act[cpu]);
    may_begin = true;
    at_work--;
}

static void run(unsigned cpu)
{
    acts_cache();
    scene_meet();
    if (cpu < 2) {
        do_work(cpu);
    }
    while (at_work > 0) {
        acts_poke();
        schedule_wait();
    }
    acts_check();
    scene_meet();
    acts_end();
}

static void prepare(struct test_random *random)
{
    (void)random;
    has_begun = false;
    may_begin = false;
    waits = 0;
    is_answering = false;
    at_work = 2;
    steps = 0;
    acts_prepare(begins_as);
}

static bool is_asked_anew(void)
{
    bool is_due = is_answering && !is_asked && schedule_now() == 0;

    is_asked = is_asked || is_due;
    return is_due;
}

static const struct schedule_chooser chooser = {.choose = choose,
                                                .is_asked_anew = is_asked_anew};

static void run_at(uint64_t at)
{
    static const struct scene scene = {.prepare = prepare, .run = run};

    turn = at;
    scene_run_chosen(&scene, ACTS_CPUS, &chooser);
    if (test_has_failed()) {
        char text[120];

        snprintf(text, sizeof(text), "# state %u, step %llu of \"%s\": \"%s\"",
                 (unsigned)begins_as, (unsigned long long)at, acts_name(act[0]),
                 acts_name(act[1]));
        test_print(text);
    }
}

/* Places in a long act; and its last steps, in which most is at stake. */
#define SOME_OF_LONG 160
#define LAST         120

/* @turns places: all, or evenly, and all of the last. Return: runs. */
static unsigned run_pair(enum acts_state state, enum acts_what first,
                         enum acts_what second, uint64_t turns)
{
    unsigned runs = 1;

    begins_as = state;
    act[0] = first;
    act[1] = second;
    run_at(UINT64_MAX);
    uint64_t end = steps;
    uint64_t stride =
        end < turns ? 1
                    : end / (turns < SOME_OF_LONG ? turns : SOME_OF_LONG) + 1;
    uint64_t last = turns > LAST && end > LAST ? end - LAST : end;
    for (uint64_t at = test_seed() % stride; at < end && !test_has_failed();
         at += at < last ? stride : 1) {
        run_at(at);
        runs++;
    }
    return runs;
}

/* STEPS in the environment: so many times as many places. */
static unsigned times(void)
{
    const char *text = getenv("STEPS");

    return text != NULL ? (unsigned)strtoul(text, NULL, 0) : 1;
}

static void print_runs(unsigned runs)
{
    char text[80];

    snprintf(text, sizeof(text), "# %u runs", runs);
    test_print(text);
}

#define SOME_TURNS 4

TEST(fault_schedule, any_two_meet_somewhere)
{
    unsigned runs = 0;

    for (unsigned i = 0; i < STATES * ACTS * ACTS && !test_has_failed(); i++) {
        patience = i % 2 * PATIENCE;
        runs += run_pair((enum acts_state)(i / (ACTS * ACTS)),
                         (enum acts_what)(i / ACTS % ACTS),
                         (enum acts_what)(i % ACTS), SOME_TURNS * times());
    }
    print_runs(runs);
}

/* What is narrow. */
static void meet_often(uint64_t turns)
{
    static const struct {
        enum acts_state state;
        enum acts_what act[2];
    } pair[] = {
        {SHARED, {WRITE, COPY_ANEW}},      {SHARED, {WRITE, FILL_ANEW}},
        {SHARED, {WRITE, WRITE_IN_KID}},   {WRITTEN, {COPY, WRITE}},
        {WRITTEN, {COPY, COPY}},           {WRITTEN, {COLLAPSE, UNMAP}},
        {WRITTEN, {COLLAPSE, WRITE}},      {WRITTEN, {COLLAPSE, COPY}},
        {WRITTEN, {REACH_ACROSS, BESIDE}}, {PROMISED, {WRITE, WRITE}},
    };
    unsigned runs = 0;

    for (unsigned i = 0;
         i < sizeof(pair) / sizeof(pair[0]) && !test_has_failed(); i++) {
        runs += run_pair(pair[i].state, pair[i].act[0], pair[i].act[1],
                         turns * times());
    }
    print_runs(runs);
}

#define MANY_TURNS 100

TEST(fault_schedule, some_meet_at_many_steps)
{
    patience = 0;
    meet_often(MANY_TURNS);
}

/* All steps of the shorter acts. */
#define ALL_TURNS 800

TEST(fault_schedule, one_comes_between_any_two_steps)
{
    patience = PATIENCE;
    meet_often(ALL_TURNS);
}

/* It stays locked by who has made it. */
TEST(fault_schedule, a_table_comes_at_each_step_of_a_cursor)
{
    patience = 0;
    print_runs(
        run_pair(WRITTEN, REACH_ACROSS, BESIDE, ALL_TURNS * (uint64_t)times()));
}
