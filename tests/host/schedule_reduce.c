/* SPDX-License-Identifier: MIT */
/* schedule_reduce: which orders need not be tried, since others are like them.
 */
/*
 * Idea      Two accesses of which neither writes what the other reads can come
 *           in any order: if one has been tried first, it need not be tried
 *           after the other [Godefroid96]. It sleeps until something comes that
 *           makes a difference to it. And a choice need not be made otherwise
 *           at all unless two steps race in some run that begins with it
 *           [Abdulla14]: schedule_trace.c finds these. Then each order that is
 *           tried is one that none before was like, nearly.
 *           That is for orders without a bound: an order that is left out is
 *           like one with more preemptions.
 * Limits    A turn of waiting in which nothing is seen counts as none. With
 *           CPUs that may stop there is sleep only.
 */
#include <mm/port.h>
#include "base/bits.h"
#include "tests/host/schedule_explore_impl.h"

/* --- orders that are the same --------------------------------------------- */

void wake_for(const struct schedule_access *access)
{
    for (unsigned i = 0; i < now.what->cpus; i++) {
        struct schedule_access store = schedule_oldest_store(i);

        if (trace_conflict(access, &now.next[i])) {
            now.asleep &= ~(1u << i);
        }
        if (trace_conflict(access, &store)) {
            now.stores_asleep &= ~(1u << i);
        }
    }
}

void wake_all(void)
{
    now.asleep = 0;
    now.stores_asleep = 0;
}

bool would_drain(unsigned cpu)
{
    return now.is_known[cpu] && now.next[cpu].drains &&
           schedule_stores(cpu) > 0;
}

void wake_for_next_of(unsigned cpu)
{
    if (would_drain(cpu)) {
        wake_all();
    }
    wake_for(&now.next[cpu]);
    now.asleep &= ~(1u << cpu);
}

/* All of @option before @chosen have been tried from here. */
void let_sleep(const struct option *option, unsigned chosen)
{
    unsigned cpu = option[chosen].cpu;

    if (now.what->preemptions != EXPLORE_ALL) {
        return;
    }
    for (unsigned i = 0; i < chosen; i++) {
        if (option[i].kind == GO_ON && now.is_known[option[i].cpu]) {
            now.asleep |= 1u << option[i].cpu;
        } else if (option[i].kind == FLUSH) {
            now.stores_asleep |= 1u << option[i].cpu;
        }
    }
    if (option[chosen].kind == STOP) {
        wake_all();
    } else if (option[chosen].kind == FLUSH) {
        struct schedule_access store = schedule_oldest_store(cpu);
        wake_for(&store);
        now.stores_asleep &= ~(1u << cpu);
    } else if (now.is_known[cpu]) {
        wake_for_next_of(cpu);
    }
}

/* The same without a bound: who has been tried from here is known by name. */
static void let_done_sleep(const struct choice *choice)
{
    now.asleep |= choice->done & ALL_CPUS;
    now.stores_asleep |= choice->done >> SCHEDULE_CPUS;
    for (unsigned i = 0; i < now.what->cpus; i++) {
        now.asleep &= now.is_known[i] ? UINT32_MAX : ~(1u << i);
    }
}

bool is_asleep(unsigned cpu)
{
    return (now.asleep >> cpu & 1) != 0;
}

bool take_next(struct choice *choice)
{
    if (!is_reducing()) {
        return ++choice->taken < choice->count;
    }
    choice->done |= (uint8_t)(1u << choice->actor);
    unsigned rest = choice->wanted & choice->may & ~(unsigned)choice->done;
    if (rest == 0) {
        return false;
    }
    choice->actor = (uint8_t)lowest_bit(rest);
    return true;
}

/* --- orders that are left out --------------------------------------------- */

static unsigned actor_of(const struct option *option)
{
    return option->kind == FLUSH ? trace_buffer_of(option->cpu) : option->cpu;
}

void want(unsigned number, unsigned actors)
{
    struct choice *choice = &path[number];
    unsigned may = actors & choice->may;

    if ((actors & (choice->wanted | choice->asleep)) != 0) {
        return;
    }
    /* None can go on there: then all may lead to where one can. */
    choice->wanted |=
        (uint8_t)(may != 0 ? may & (~may + 1) : (unsigned)choice->may);
}

static bool is_new(unsigned choice)
{
    return choice != TRACE_FORCED && (now.old == 0 || choice >= now.old - 1);
}

void note_store(unsigned cpu)
{
    unsigned choice = now.chosen_at[cpu];

    if (schedule_stores(cpu) == SCHEDULE_STORES) {
        struct schedule_access oldest = schedule_oldest_store(cpu);
        trace_add(trace_buffer_of(cpu), &oldest, choice, is_new(choice));
        wake_for(&oldest);
    }
    trace_store(cpu);
}

void note_step(unsigned cpu, const struct schedule_access *access)
{
    unsigned choice = now.chosen_at[cpu];

    if (!is_reducing()) {
        return;
    }
    trace_add(cpu, access, choice, is_new(choice));
    if (access != NULL && access->is_delayed) {
        note_store(cpu);
    }
}

void note_lost_stores(unsigned cpu)
{
    if (is_reducing() && trace_stores(cpu) > schedule_stores(cpu)) {
        trace_forget_stores(cpu, schedule_stores(cpu));
        note_step(cpu, NULL);
        wake_all();
    }
}

/* The same as choose_of() by actors, the first of which comes first. */
static unsigned choose_actor(const struct option *option, unsigned count)
{
    unsigned may = 0;

    for (unsigned i = 0; i < count; i++) {
        may |= 1u << actor_of(&option[i]);
    }
    if (now.at == now.depth) {
        if (now.depth == EXPLORE_CHOICES) {
            port_panic("explore: %s: a run has more than %u choices",
                       now.what->name, EXPLORE_CHOICES);
        }
        unsigned first = actor_of(&option[0]);
        path[now.depth++] = (struct choice){
            .actor = (uint8_t)first,
            .may = (uint8_t)may,
            .asleep =
                (uint8_t)(now.asleep | now.stores_asleep << SCHEDULE_CPUS),
            .wanted = (uint8_t)(1u << first)};
    }
    const struct choice *choice = &path[now.at];
    if (choice->may != may) {
        port_panic("explore: %s: choice %u was of 0x%x, is of 0x%x: something "
                   "was not written back",
                   now.what->name, now.at, choice->may, may);
    }
    now.at++;
    unsigned number = 0;
    while (actor_of(&option[number]) != choice->actor) {
        number++;
    }
    return number;
}

/* Take it, and let those sleep that were tried before. */
unsigned reduce(const struct option *option, unsigned count)
{
    unsigned number = choose_actor(option, count);
    unsigned cpu = option[number].cpu;
    unsigned choice = now.at - 1;

    let_done_sleep(&path[choice]);
    if (option[number].kind == FLUSH) {
        struct schedule_access store = schedule_oldest_store(cpu);
        trace_add(trace_buffer_of(cpu), &store, choice, is_new(choice));
        wake_for(&store);
        now.stores_asleep &= ~(1u << cpu);
        return number;
    }
    now.chosen_at[cpu] = choice;
    if (now.is_known[cpu]) {
        note_step(cpu, &now.next[cpu]);
        wake_for_next_of(cpu);
    }
    return number;
}

unsigned next_to_start(unsigned me)
{
    now.started |= 1u << me;
    for (unsigned i = 0; i < now.what->cpus; i++) {
        if ((now.started >> i & 1) == 0) {
            return i;
        }
    }
    return me;
}
