/* SPDX-License-Identifier: MIT */
/* schedule_explore: its state, for its own files alone. */
#ifndef TESTS_HOST_SCHEDULE_EXPLORE_IMPL_H
#define TESTS_HOST_SCHEDULE_EXPLORE_IMPL_H

#include "tests/host/schedule_explore.h"
#include "tests/host/schedule_trace.h"

/* Choices of one run: more is a bug in the test. */
#define EXPLORE_CHOICES 20000

struct choice {
    uint8_t taken;
    uint8_t count;
    /* Without a bound, of actors, bit by bit: see schedule_trace.h. */
    uint8_t actor;  /* that was taken */
    uint8_t may;    /* who could be */
    uint8_t asleep; /* who need not be */
    uint8_t wanted; /* who must be, in this run or another */
    uint8_t done;   /* who has been */
};
_Static_assert(TRACE_ACTORS <= 8, "a bit each");

/* What can happen next. */
enum kind { GO_ON, FLUSH, STOP };
struct option {
    enum kind kind;
    unsigned cpu; /* that goes on, or whose store is seen */
};
#define OPTIONS  (4 * SCHEDULE_CPUS)
#define ALL_CPUS ((1u << SCHEDULE_CPUS) - 1)

extern struct choice path[EXPLORE_CHOICES];

struct explorer {
    const struct explore *what;
    unsigned depth;  /* choices that are known */
    unsigned at;     /* of those, made in this run */
    unsigned places; /* shared accesses of this run */
    unsigned steps;
    unsigned events;
    unsigned idle;        /* turns of waiting since the last change */
    unsigned preemptions; /* spent in this run */
    unsigned stopped;     /* CPU, or EXPLORE_NONE */
    uint64_t changes;     /* of shared words in this run */
    bool will_change[SCHEDULE_CPUS]; /* by the access it goes on with */
    /* It has been chosen when it began or waited: for its next access, too. */
    bool is_chosen[SCHEDULE_CPUS];
    /* The access it stands before, if that is known. */
    struct schedule_access next[SCHEDULE_CPUS];
    bool is_known[SCHEDULE_CPUS];
    unsigned asleep; /* bit by bit: who need not go on from here, see Idea */
    unsigned stores_asleep; /* whose oldest store need not be seen from here */
    uint64_t waits_since[SCHEDULE_CPUS]; /* changes when it began; 0: not */
    unsigned old;     /* choices that are as in the last run */
    unsigned started; /* bit by bit: who stands before its first access */
    unsigned chosen_at[SCHEDULE_CPUS]; /* by which choice it went on */
};
extern struct explorer now;

static inline bool is_unbounded(void)
{
    return now.what->preemptions >= EXPLORE_EVERY;
}

/* Is an order left out if it is like another one by the races in it? */
static inline bool is_reducing(void)
{
    return now.what->preemptions == EXPLORE_ALL && now.what->stoppable == 0;
}

/* --- schedule_reduce.c ---------------------------------------------------- */

/* @access is made: for whom it makes a difference, it is worth a try. */
void wake_for(const struct schedule_access *access);
void wake_all(void);
/* CPU @cpu makes its next access. */
void wake_for_next_of(unsigned cpu);
/* Would the next access of @cpu make others see its stores? */
bool would_drain(unsigned cpu);
/* Of orders that are the same, all of @option before @chosen have been tried.
 */
void let_sleep(const struct option *option, unsigned chosen);
bool is_asleep(unsigned cpu);

/* The next option of a choice, if it has one: any, or one that is wanted. */
bool take_next(struct choice *choice);
/* Without a bound: one of @count options, of which some may be left out. */
unsigned reduce(const struct option *option, unsigned count);
/*
 * CPUs run up to their first shared access before anything is chosen: only then
 * is known what a choice would be of. Return: who must go on to there, or @me.
 */
unsigned next_to_start(unsigned me);
/* From schedule_trace.c: after choice @number, one of @actors. */
void want(unsigned number, unsigned actors);
/* CPU @cpu makes a step; NULL: it may depend on all. */
void note_step(unsigned cpu, const struct schedule_access *access);
/* A store goes into the buffer of @cpu; if that is full, one comes out. */
void note_store(unsigned cpu);
/* Has the last access of @cpu let stores come out by the way? */
void note_lost_stores(unsigned cpu);

#endif
