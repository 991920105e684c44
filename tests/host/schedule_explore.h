/* SPDX-License-Identifier: MIT */
/* schedule_explore: all orders in which the steps of a few CPUs can come. */
#ifndef TESTS_HOST_SCHEDULE_EXPLORE_H
#define TESTS_HOST_SCHEDULE_EXPLORE_H

#include "tests/host/schedule.h"

/* Of struct explore: changes of CPU that no wait has asked for. */
#define EXPLORE_ALL UINT32_MAX
/* The same, and no order is left out because it is like another one. */
#define EXPLORE_EVERY (UINT32_MAX - 1)

struct explore {
    const char *name;
    bool is_quiet;        /* how many orders there were is not printed */
    unsigned cpus;        /* 2 .. SCHEDULE_CPUS */
    unsigned preemptions; /* at most, in a run; or EXPLORE_ALL */
    /*
     * CPUs that may stop for ever before one of their steps, one in a run;
     * bit by bit. The others must get to their ends.
     */
    unsigned stoppable;
    /*
     * Memory whose accesses are no places to change the CPU at: whoever owns
     * it uses it alone, as ThreadSanitizer knows.
     */
    const void *owned;
    uint64_t owned_bytes;
    void (*begin)(void);       /* before each run: the test's own state */
    void (*run)(unsigned cpu); /* what a CPU does */
    void (*see)(const volatile void *address); /* an atomic load; or NULL */
    bool (*forgive)(const char *text);         /* a bug report; or NULL */
    const char *(*check)(unsigned stopped);    /* after each; what is wrong */
};

/* No CPU was stopped in a run. */
#define EXPLORE_NONE UINT32_MAX

struct explored {
    uint64_t runs;    /* orders tried */
    uint64_t known;   /* ended early, since they are like others */
    uint64_t stopped; /* of them those in which a CPU stopped */
    unsigned places;  /* most accesses of one run that others may see */
    bool was_cut;     /* EXPLORE_LIMIT ended it, not the last order */
};

/*
 * Run the programs in each order of those accesses to memory that another CPU
 * can see, and of the moments at which stores come out of their buffers. After
 * each all memory that instrumented code has written is as it was.
 * Return: NULL, or the first thing that went wrong and the order that led to
 *         it. Prints how many orders there were.
 */
const char *explore(const struct explore *what, struct explored *out);

#endif
