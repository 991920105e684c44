/* SPDX-License-Identifier: MIT */
/* schedule_trace: the steps of a run, and which could come in another order. */
#ifndef TESTS_HOST_SCHEDULE_TRACE_H
#define TESTS_HOST_SCHEDULE_TRACE_H

#include "tests/host/schedule.h"

/* Who makes steps: each CPU, and its buffer, from which stores come out. */
#define TRACE_ACTORS (2 * SCHEDULE_CPUS)
static inline unsigned trace_buffer_of(unsigned cpu)
{
    return SCHEDULE_CPUS + cpu;
}

/* Of a step: before it there was nothing to choose from. */
#define TRACE_FORCED UINT32_MAX

/*
 * A new run begins.
 * @want: a race was found: after the choices before choice number @choice one
 *        of @actors, bit by bit, should make the next step in some run.
 */
void trace_begin(void (*want)(unsigned choice, unsigned actors));

/*
 * An actor makes a step.
 * @access  what it does; NULL: it may depend on all that others do
 * @choice  number of the choice that let it
 * @is_new  has not been looked at in an earlier run, after the same choices
 */
void trace_add(unsigned actor, const struct schedule_access *access,
               unsigned choice, bool is_new);
/* A store of @cpu goes into its buffer; trace_add() of that takes it out. */
void trace_store(unsigned cpu);
/* How many are in there; or only the last @left, some came out by the way. */
unsigned trace_stores(unsigned cpu);
void trace_forget_stores(unsigned cpu, unsigned left);

/* Would it make a difference which of them comes first? */
bool trace_conflict(const struct schedule_access *one,
                    const struct schedule_access *other);
/* Do they touch the same word? */
bool trace_overlap(const struct schedule_access *one,
                   const struct schedule_access *other);

#endif
