/* SPDX-License-Identifier: MIT */
/* schedule_trace: the steps of a run, and which could come in another order. */
/*
 * Idea      Two steps are ordered if one actor makes both, if they conflict, or
 *           by steps between them; a clock for each step, with a number for
 *           each actor, says which came before it so. Where two conflict and
 *           nothing else orders them, the other order is worth a run: one in
 *           which, at the first of them, somebody goes on whose step need not
 *           wait for any other on the way to the second [Abdulla14].
 */
#include "tests/host/schedule_trace.h"

#include <string.h>

#include <mm/port.h>
#include "tests/host/schedule_words.h"

/* More than a run that can be tried in all orders has. */
#define STEPS 20000
#define RACES 2000 /* of one step */

struct clock {
    uint16_t of[TRACE_ACTORS];
};

static struct step {
    unsigned actor;
    unsigned choice;
    bool depends_on_all;
    struct schedule_access access;
    struct clock clock; /* its own number included */
} steps[STEPS];
static unsigned count;

static struct clock last[TRACE_ACTORS]; /* of each actor's last step */

/* Clocks of the stores in the buffers, the oldest first. */
#define STORES 64
static struct clock stored[SCHEDULE_CPUS][STORES];
static unsigned stored_count[SCHEDULE_CPUS];

static void (*want)(unsigned choice, unsigned actors);

void trace_begin(void (*want_them)(unsigned choice, unsigned actors))
{
    want = want_them;
    count = 0;
    memset(last, 0, sizeof(last));
    memset(stored_count, 0, sizeof(stored_count));
}

/* --- which steps are ordered ---------------------------------------------- */

bool trace_overlap(const struct schedule_access *one,
                   const struct schedule_access *other)
{
    uintptr_t a = (uintptr_t)one->address;
    uintptr_t b = (uintptr_t)other->address;
    uintptr_t mask = ~(uintptr_t)(WORD_BYTES - 1);

    return (a & mask) < b + other->bytes && (b & mask) < a + one->bytes;
}

bool trace_conflict(const struct schedule_access *one,
                    const struct schedule_access *other)
{
    return !one->is_delayed && !other->is_delayed &&
           (one->is_write || other->is_write) && trace_overlap(one, other);
}

static bool do_conflict(const struct step *one, const struct step *other)
{
    return one->depends_on_all || other->depends_on_all ||
           trace_conflict(&one->access, &other->access);
}

static void join(struct clock *clock, const struct clock *other)
{
    for (unsigned i = 0; i < TRACE_ACTORS; i++) {
        if (other->of[i] > clock->of[i]) {
            clock->of[i] = other->of[i];
        }
    }
}

/* Does @one come before whatever has @clock, in every order that is alike? */
static bool is_before(const struct step *one, const struct clock *clock)
{
    return one->clock.of[one->actor] <= clock->of[one->actor];
}

/* --- races ---------------------------------------------------------------- */

/*
 * Steps @first and @second race. Of what comes after @first, but not because of
 * it, up to @second: who makes a step that waits for none of the others?
 */
static unsigned initials(unsigned first, unsigned second)
{
    const struct step *begin[TRACE_ACTORS] = {NULL};
    unsigned actors = 0;

    for (unsigned i = first + 1; i <= second; i++) {
        const struct step *step = &steps[i];
        bool is_initial = begin[step->actor] == NULL;

        if (!is_initial ||
            (i < second && is_before(&steps[first], &step->clock))) {
            continue;
        }
        for (unsigned k = 0; k < TRACE_ACTORS; k++) {
            is_initial = is_initial && (begin[k] == NULL ||
                                        !is_before(begin[k], &step->clock));
        }
        begin[step->actor] = step;
        actors |= is_initial ? 1u << step->actor : 0;
    }
    return actors;
}

unsigned trace_stores(unsigned cpu)
{
    return stored_count[cpu];
}

/* Stores that came out by the way. */
void trace_forget_stores(unsigned cpu, unsigned left)
{
    unsigned gone = stored_count[cpu] - left;

    stored_count[cpu] = left;
    memmove(&stored[cpu][0], &stored[cpu][gone], left * sizeof(struct clock));
}

void trace_store(unsigned cpu)
{
    if (stored_count[cpu] == STORES) {
        port_panic("trace: more than %u stores under way", STORES);
    }
    stored[cpu][stored_count[cpu]++] = last[cpu];
}

/*
 * What must have come before: what the actor did; that a store went in before
 * it comes out; and that all have come out before what waits for that.
 */
static struct clock clock_before(unsigned actor,
                                 const struct schedule_access *access)
{
    struct clock clock = last[actor];
    unsigned cpu = actor % SCHEDULE_CPUS;

    if (access != NULL && access->drains) {
        join(&clock, &last[trace_buffer_of(cpu)]);
    }
    if (actor >= SCHEDULE_CPUS && stored_count[cpu] > 0) {
        join(&clock, &stored[cpu][0]);
        stored_count[cpu]--;
        memmove(&stored[cpu][0], &stored[cpu][1],
                stored_count[cpu] * sizeof(struct clock));
    }
    return clock;
}

void trace_add(unsigned actor, const struct schedule_access *access,
               unsigned choice, bool is_new)
{
    unsigned races[RACES];
    unsigned race_count = 0;
    unsigned number = count;

    if (count == STEPS || number >= UINT16_MAX) {
        port_panic("trace: a run has more than %u steps", STEPS);
    }
    struct step *step = &steps[count++];
    *step = (struct step){.actor = actor,
                          .choice = choice,
                          .depends_on_all = access == NULL,
                          .clock = clock_before(actor, access)};
    if (access != NULL) {
        step->access = *access;
    }
    for (unsigned i = number; i-- > 0;) {
        if (is_before(&steps[i], &step->clock) ||
            !do_conflict(&steps[i], step)) {
            continue;
        }
        if (race_count == RACES) {
            port_panic("trace: a step has more than %u races", RACES);
        }
        races[race_count++] = i;
        join(&step->clock, &steps[i].clock);
    }
    step->clock.of[actor] = (uint16_t)(last[actor].of[actor] + 1);
    last[actor] = step->clock;
    for (unsigned i = 0; is_new && i < race_count; i++) {
        if (steps[races[i]].choice != TRACE_FORCED) {
            want(steps[races[i]].choice, initials(races[i], number));
        }
    }
}
