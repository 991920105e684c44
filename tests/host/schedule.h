/* SPDX-License-Identifier: MIT */
/* schedule: one thread plays all CPUs and chooses who goes on, at each step. */
#ifndef TESTS_HOST_SCHEDULE_H
#define TESTS_HOST_SCHEDULE_H

#include <mm/types.h>

/* More CPUs find nothing that four do not, only later. */
#define SCHEDULE_CPUS 4
/* Stores a CPU has under way, the oldest comes out; real ones have 42 or more.
 */
#define SCHEDULE_STORES 8

enum schedule_strategy {
    SCHEDULE_WALK,      /* whoever comes next is drawn by lot */
    SCHEDULE_PRIORITIES /* the highest runs, until it is made the lowest */
};

/* An access to memory that a CPU is about to make. */
struct schedule_access {
    const volatile void *address;
    uint64_t bytes;
    bool is_write;
    bool is_delayed; /* waits to be seen */
    bool drains;     /* all stores of the CPU are seen after it */
};

/* Who goes on, if that is not drawn by lot; see schedule_explore.h. */
struct schedule_chooser {
    /*
     * The CPU that goes on, before each access by the one that is now on; NULL:
     * that waits, or has ended.
     */
    unsigned (*choose)(const struct schedule_access *access);
    /* Or NULL: a CPU that goes on again, is it asked anew before its access? */
    bool (*is_asked_anew)(void);
    unsigned first; /* CPU that begins */
};

struct schedule_plan {
    uint64_t seed;
    unsigned cpus; /* 2 .. SCHEDULE_CPUS */
    enum schedule_strategy strategy;
    unsigned pace;             /* steps from one change to the next, about */
    void (*run)(unsigned cpu); /* what a CPU does; then it idles */
    void (*guess)(void);       /* what it may do on a guess at any time */
    void (*see)(const volatile void *address); /* an atomic load, before it */
    bool (*forgive)(const char *text);      /* a bug report; or NULL: none is */
    const struct schedule_chooser *chooser; /* or NULL: by lot */
};

/*
 * Run all programs to their ends; each begins with interrupts on. Other CPUs
 * go on at each access of instrumented code to memory and at each action of
 * the simulated MMU.
 * Return: NULL, or the first thing that went wrong. Then the programs were
 *         left where they were, and the machine must be made anew.
 */
const char *schedule_run(const struct schedule_plan *plan);

/* Steps of all runs so far. */
uint64_t schedule_steps(void);

/* From a program or a guess: a number of this run below @limit. */
unsigned schedule_below(unsigned limit);
/* A program begins something; the text appears in reports. */
void schedule_note(const char *what);
/* A program gives up: schedule_run() returns @text. */
void schedule_fail(const char *text);
/* A program waits; the others go on. */
void schedule_wait(void);

/*
 * What instrumented code does instead of reading and writing memory. Stores
 * that are neither seq_cst nor part of a larger operation wait in the CPU's
 * buffer, in order; the CPU itself sees them at once [SDM-3A 9.2.3 "Examples
 * Illustrating the Memory-Ordering Principles"].
 */
uint64_t schedule_load(const volatile void *address, unsigned bytes, int order);
void schedule_store(volatile void *address, unsigned bytes, uint64_t value,
                    int order);
/* Before a locked operation, which the caller then does. */
void schedule_lock_at(volatile void *address, unsigned bytes);
/* The same of what the library does not see, or a full fence. */
static inline void schedule_lock(void)
{
    schedule_lock_at(NULL, 0);
}
/* Before a plain access, which the compiled code then does itself. */
void schedule_touch(const volatile void *address, uint64_t bytes);
void schedule_change(volatile void *address, uint64_t bytes);

/* --- for a chooser -------------------------------------------------------- */

unsigned schedule_now(void);
/* Has the program of @cpu ended, or been stopped? */
bool schedule_is_finished(unsigned cpu);
/* @cpu does nothing any more; its stores are seen. It is not the one on. */
void schedule_stop(unsigned cpu);
/* Stores of @cpu that others do not see yet. */
unsigned schedule_stores(unsigned cpu);
/* Is any of them to the bytes of @access? */
bool schedule_has_store(unsigned cpu, const struct schedule_access *access);
/* The oldest of them, as a write to memory; let it be seen. */
struct schedule_access schedule_oldest_store(unsigned cpu);
void schedule_flush(unsigned cpu);
/* Called before all writes of instrumented code from now on; or NULL. */
void schedule_set_writing(void (*writing)(volatile void *address,
                                          uint64_t bytes));

#endif
