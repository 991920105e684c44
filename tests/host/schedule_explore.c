/* SPDX-License-Identifier: MIT */
/* schedule_explore: all orders in which the steps of a few CPUs can come. */
/*
 * Idea      Depth first over all choices of who goes on. A run cannot be
 *           copied in its middle, so each begins anew, repeats the choices of
 *           the last one but for the deepest that has an alternative left, and
 *           takes that. What a run has written is written back after it.
 *           A choice is worth making only before an access that another CPU
 *           can tell: to a word that several have used and one has written, in
 *           any run so far. Such words are found on the way; with each new one
 *           everything begins again, until there is none.
 *           Orders that are like others are left out: schedule_reduce.c.
 *           Most bugs need few changes of CPU at the right places, so a bound
 *           on those that no wait asks for leaves little out [PCT10].
 *
 * Model     schedule.c: x86's order of stores. That a store comes out of its
 *           buffer is a step, too; with a bound only before whoever is about
 *           to touch the same word, and at the end.
 *           Who waits is not tried again before anything has changed.
 *
 * Limits    What code that is not instrumented writes is not written back:
 *           the test's own state is begin()'s.
 */
#include "tests/host/schedule_explore_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mm/port.h>
#include "tests/host/schedule_undo.h"
#include "tests/host/schedule_words.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"

/* Runs of one exploration, unless LIMIT= in the environment says otherwise. */
#define LIMIT UINT64_C(3000000)
/* Turns of waiting in which nothing changes: a bounded wait must end in it. */
#define IDLE_TURNS 20000
/* A run this long does not end. */
#define STEPS_OF_RUN 200000u

/* What has happened in a run: who made how many shared accesses in a row. */
#define EVENTS 400
struct event {
    enum kind kind;
    unsigned cpu;
    unsigned places;
};

struct choice path[EXPLORE_CHOICES];
struct explorer now;
static struct event event[EVENTS];

/* Why a run ends early: how it goes on has been seen in another order. */
static const char KNOWN[] = "known";

/* --- choices -------------------------------------------------------------- */

/* One of @count options; the first in new territory. */
static unsigned choose_of(unsigned count)
{
    if (count == 1) {
        return 0;
    }
    if (now.at == now.depth) {
        if (now.depth == EXPLORE_CHOICES) {
            port_panic("explore: %s: a run has more than %u choices",
                       now.what->name, EXPLORE_CHOICES);
        }
        path[now.depth++] = (struct choice){.count = (uint8_t)count};
    }
    if (path[now.at].count != count) {
        port_panic("explore: %s: choice %u had %u options, has %u: something "
                   "was not written back",
                   now.what->name, now.at, path[now.at].count, count);
    }
    return path[now.at++].taken;
}

/* The deepest choice that has one takes its next option; false: none has. */
static bool next_path(void)
{
    while (now.depth > 0) {
        if (take_next(&path[now.depth - 1])) {
            return true;
        }
        now.depth--;
    }
    return false;
}

/* --- what has happened ---------------------------------------------------- */

static void note_event(enum kind kind, unsigned cpu, unsigned places)
{
    struct event *last = &event[now.events > 0 ? now.events - 1 : 0];

    if (now.events > 0 && last->kind == kind && last->cpu == cpu) {
        last->places += places;
    } else if (now.events < EVENTS) {
        event[now.events++] = (struct event){kind, cpu, places};
    }
}

/* "0 goes 5, store of 1, 1 goes 3" */
static void print_events(char *out, size_t size)
{
    static const char *const text[] = {
        [GO_ON] = "%s%u:%u", [FLUSH] = "%sstore of %u", [STOP] = "%s%u stops"};
    size_t length = 0;

    for (unsigned i = 0; i < now.events && length < size; i++) {
        length +=
            (size_t)snprintf(out + length, size - length, text[event[i].kind],
                             i > 0 ? ", " : "", event[i].cpu, event[i].places);
    }
}

/* --- who can go on -------------------------------------------------------- */

static bool is_waiting(unsigned cpu)
{
    return now.waits_since[cpu] != 0;
}

/* Would @cpu, which is not on, do anything new? */
static bool can_go_on(unsigned cpu)
{
    if (cpu == now.stopped) {
        return false;
    }
    if (schedule_is_finished(cpu)) {
        return sim_is_interrupted(cpu) || sim_irq_is_off_on(cpu);
    }
    return !is_waiting(cpu) || now.changes >= now.waits_since[cpu];
}

/* --- who goes on ---------------------------------------------------------- */

static unsigned add(struct option *option, unsigned count, enum kind kind,
                    unsigned cpu)
{
    option[count] = (struct option){kind, cpu};
    return count + 1;
}

/*
 * With a bound: is the next access of a CPU to a word that CPU @cpu has a store
 * to on its way? Of @me; and of others, if they may go on.
 */
static bool is_wanted(unsigned cpu, unsigned me, bool others_too)
{
    for (unsigned i = 0; i < now.what->cpus; i++) {
        if (i != cpu && (i == me || others_too) && now.is_known[i] &&
            schedule_has_store(cpu, &now.next[i])) {
            return true;
        }
    }
    return false;
}

/* Add the stores that may be seen next. */
static unsigned add_stores(struct option *option, unsigned count, unsigned me,
                           bool is_ready, bool others_too)
{
    bool is_last = count == 0; /* nobody else does anything */

    for (unsigned i = 0; i < now.what->cpus; i++) {
        bool is_new = (now.stores_asleep >> i & 1) == 0;
        bool may = is_unbounded() ? is_new && !(is_ready && now.is_chosen[me])
                                  : (i != me || others_too) &&
                                        is_wanted(i, me, others_too);
        if (schedule_stores(i) > 0 && (may || (is_last && is_new))) {
            count = add(option, count, FLUSH, i);
        }
    }
    return count;
}

/* Without a bound, stores are seen one by one before what makes them seen. */
static bool is_held_up(unsigned cpu)
{
    return is_asleep(cpu) || (is_unbounded() && would_drain(cpu));
}

/*
 * What can happen before the next access of CPU @me, which can go on by itself
 * if @is_ready. Going on is the first, so that runs come to their ends.
 */
static unsigned list_options(struct option *option, unsigned me, bool is_ready,
                             bool must_change)
{
    bool may_change =
        !is_ready || must_change ||
        (now.preemptions < now.what->preemptions && !now.is_chosen[me]);
    bool may_stop = is_ready && now.stopped == EXPLORE_NONE && !must_change &&
                    (now.what->stoppable >> me & 1) != 0;
    unsigned count = 0;
    unsigned others = 0;

    if (is_ready && !must_change && (now.is_chosen[me] || !is_held_up(me))) {
        count = add(option, count, GO_ON, me);
    }
    for (unsigned i = 0; i < now.what->cpus; i++) {
        if (i == me || !may_change || !can_go_on(i)) {
            continue;
        }
        others++;
        if (!is_held_up(i)) {
            count = add(option, count, GO_ON, i);
        }
    }
    count = add_stores(option, count, me, is_ready, others > 0);
    for (unsigned i = 0; may_stop && i < now.what->cpus; i++) {
        if (i != me && can_go_on(i)) {
            count = add(option, count, STOP, i);
        }
    }
    return count;
}

/* Nobody can do anything new: who waits takes a turn, so that a bound ends. */
static unsigned take_turn(unsigned me)
{
    if (++now.idle > IDLE_TURNS) {
        schedule_fail("no CPU gets any further");
    }
    for (unsigned i = 1; i <= now.what->cpus; i++) {
        unsigned cpu = (me + i) % now.what->cpus;
        if (cpu != now.stopped && !schedule_is_finished(cpu)) {
            return cpu;
        }
    }
    return me;
}

static void note_change(void)
{
    now.changes++;
    now.idle = 0;
}

static unsigned go_on_as(unsigned cpu, unsigned me, bool is_ready)
{
    if (cpu != me && is_ready) {
        now.preemptions++;
    }
    now.waits_since[cpu] = 0;
    note_event(GO_ON, cpu, 1);
    return cpu;
}

/* Is the next access of another CPU to the bytes of @store? */
static bool is_awaited(unsigned cpu, const struct schedule_access *store)
{
    bool is_awaited = false;

    for (unsigned i = 0; i < now.what->cpus; i++) {
        is_awaited = is_awaited || (i != cpu && now.is_known[i] &&
                                    trace_overlap(&now.next[i], store));
    }
    return is_awaited;
}

/* The oldest store of @cpu is seen; with a bound, all up to one awaited. */
static void flush(unsigned cpu)
{
    bool is_enough = false;

    note_change();
    note_event(FLUSH, cpu, 0);
    while (!is_enough && schedule_stores(cpu) > 0) {
        struct schedule_access store = schedule_oldest_store(cpu);
        is_enough = is_unbounded() || is_awaited(cpu, &store);
        schedule_flush(cpu);
    }
}

static unsigned decide(unsigned me, bool is_ready)
{
    struct option option[OPTIONS];
    bool must_change = false;

    for (;;) {
        unsigned count = list_options(option, me, is_ready, must_change);
        if (count == 0 && (now.asleep | now.stores_asleep) != 0) {
            schedule_fail(KNOWN);
        }
        if (count == 0) {
            unsigned cpu = take_turn(me);
            now.chosen_at[cpu] = TRACE_FORCED;
            return cpu;
        }
        unsigned number =
            is_reducing() ? reduce(option, count) : choose_of(count);
        const struct option *chosen = &option[number];
        if (!is_reducing()) {
            let_sleep(option, number);
        }
        switch (chosen->kind) {
        case GO_ON:
            return go_on_as(chosen->cpu, me, is_ready);
        case FLUSH:
            must_change = must_change ||
                          (!is_unbounded() && is_ready && chosen->cpu == me);
            flush(chosen->cpu);
            break;
        case STOP:
            note_event(STOP, me, 0);
            now.stopped = me;
            schedule_stop(me);
            return go_on_as(chosen->cpu, me, false);
        }
    }
}

/* CPU @me waits, or has ended. */
static unsigned choose_other(unsigned me)
{
    now.waits_since[me] = now.changes + 1;
    now.is_chosen[me] = true;
    unsigned next = is_reducing() ? next_to_start(me) : me;
    return next != me ? next : decide(me, false);
}

/*
 * CPU @me has been let go on before it was known to what.
 * Return: false if that was only to find it out.
 */
static bool arrive(unsigned me)
{
    bool has_begun = (now.started >> me & 1) != 0;

    if (!is_reducing() || has_begun) {
        note_step(me, &now.next[me]);
        wake_for_next_of(me);
    }
    return has_begun;
}

static unsigned choose(const struct schedule_access *access)
{
    unsigned me = schedule_now();

    if (++now.steps > STEPS_OF_RUN) {
        schedule_fail("a run does not end");
    }
    if (now.will_change[me]) {
        note_change();
        now.will_change[me] = false;
    }
    note_lost_stores(me);
    now.is_known[me] = false;
    if (access == NULL) {
        return choose_other(me);
    }
    bool is_seen = access->drains && schedule_stores(me) > 0;
    bool is_shared = words_note(access, me);
    if (!is_shared && !is_seen) {
        if (is_reducing() && access->is_delayed) {
            note_store(me);
        }
        return me;
    }
    now.places++;
    now.will_change[me] = (access->is_write && !access->is_delayed) ||
                          (access->drains && schedule_stores(me) > 0);
    now.next[me] = *access;
    now.is_known[me] = true;
    if (now.is_chosen[me] && arrive(me) && is_reducing()) {
        now.is_chosen[me] = false;
        return me;
    }
    now.is_chosen[me] = is_reducing() ? false : now.is_chosen[me];
    unsigned next = is_reducing() ? next_to_start(me) : me;
    next = next != me ? next : decide(me, true);
    now.is_chosen[me] = false;
    return next;
}

/* --- runs ----------------------------------------------------------------- */

static uint64_t limit(void)
{
    const char *text = getenv("LIMIT");

    return text != NULL ? strtoull(text, NULL, 0) : LIMIT;
}

static void begin_run(void)
{
    now.at = 0;
    now.old = now.depth;
    now.started = 0;
    trace_begin(want);
    now.places = 0;
    now.steps = 0;
    now.events = 0;
    now.idle = 0;
    now.preemptions = 0;
    now.stopped = EXPLORE_NONE;
    now.changes = 0;
    for (unsigned i = 0; i < SCHEDULE_CPUS; i++) {
        now.waits_since[i] = 0;
        now.will_change[i] = false;
        now.is_chosen[i] = true;
        now.is_known[i] = false;
        now.chosen_at[i] = TRACE_FORCED;
    }
    wake_all();
}

/* One run along the path and beyond its end. */
static const char *run_once(bool *out_known)
{
    struct schedule_chooser chooser = {.choose = choose};
    struct schedule_plan plan = {.seed = 1,
                                 .cpus = now.what->cpus,
                                 .pace = 1,
                                 .run = now.what->run,
                                 .see = now.what->see,
                                 .forgive = now.what->forgive,
                                 .chooser = &chooser};

    begin_run();
    if (now.what->begin != NULL) {
        now.what->begin();
    }
    sim_calm_cpus();
    chooser.first = is_reducing() ? 0 : choose_of(now.what->cpus);
    undo_begin();
    const char *verdict = schedule_run(&plan);
    undo_pause();
    sim_calm_cpus();
    undo_begin();
    *out_known =
        verdict != NULL && strncmp(verdict, KNOWN, sizeof(KNOWN) - 1) == 0;
    if (verdict == NULL) {
        verdict = now.what->check(now.stopped);
    }
    undo_pause();
    undo_all();
    return verdict;
}

static void report(const char *verdict)
{
    char text[4096];

    snprintf(text, sizeof(text), "# %s: %s", now.what->name, verdict);
    test_print(text);
    print_events(text, sizeof(text));
    printf("# order (CPU:accesses): %s\n", text);
}

static const char *run_all(struct explored *out)
{
    for (uint64_t tried = 1;; tried++) {
        bool is_known;
        const char *verdict = run_once(&is_known);
        if (verdict != NULL && !is_known) {
            report(verdict);
            return verdict;
        }
        out->runs += is_known ? 0 : 1;
        out->known += is_known ? 1 : 0;
        out->stopped += now.stopped != EXPLORE_NONE ? 1 : 0;
        out->places = now.places > out->places ? now.places : out->places;
        if (words_have_grown()) {
            *out = (struct explored){0};
            now.depth = 0;
        } else if (!next_path()) {
            return NULL;
        } else if (tried >= limit()) {
            out->was_cut = true;
            return NULL;
        }
    }
}

const char *explore(const struct explore *what, struct explored *out)
{
    char text[200];

    *out = (struct explored){0};
    words_forget(what->owned, what->owned_bytes);
    memset(&now, 0, sizeof(now));
    now.what = what;
    const char *verdict = run_all(out);
    snprintf(text, sizeof(text),
             "# %s: %llu orders of up to %u accesses (and %llu begun that are "
             "like others), %llu with a CPU that stops%s",
             what->name, (unsigned long long)out->runs, out->places,
             (unsigned long long)out->known, (unsigned long long)out->stopped,
             out->was_cut ? ", cut short" : "");
    if (!what->is_quiet) {
        test_print(text);
    }
    return verdict;
}
