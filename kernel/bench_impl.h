/* SPDX-License-Identifier: MIT */
/* bench: what is measured, for the files of bench alone. */
#ifndef KERNEL_BENCH_IMPL_H
#define KERNEL_BENCH_IMPL_H

#include <mm/types.h>

/* Operations of a batch, and as many opposites. */
#define BENCH_BATCH 1000

struct bench_subject {
    const char *name;
    bool (*before)(unsigned argument); /* each time, not measured; or NULL */
    bool (*operation)(unsigned argument);
    unsigned argument;
};

/* Of an operation, less an empty measurement. */
struct bench_figures {
    uint64_t minimum;
    uint64_t median;
    uint64_t mean;
};

/* Does @name begin with @pattern? */
bool bench_is_wanted(const char *name, const char *pattern);

/* One figure, as bench_run() prints it. */
void bench_print(const char *name, uint64_t value, const char *unit);

/* What the clock counts of many runs; false if one failed: it is said. */
MM_MUST_CHECK bool bench_take(const struct bench_subject *subject,
                              struct bench_figures *out);

/* The same, printed: the median is the figure. */
MM_MUST_CHECK bool bench_measure(const struct bench_subject *subject);

/*
 * The same for operations that are BENCH_BATCH operations and their opposites:
 * of one of them. The mean is the figure, for the slow paths are in it.
 */
MM_MUST_CHECK bool bench_measure_batch(const struct bench_subject *subject);

/* Those of a list that are wanted, one by one; adds how many to @run. */
typedef bool (*bench_measure_fn)(const struct bench_subject *subject);
MM_MUST_CHECK bool bench_list(const struct bench_subject *subjects,
                              size_t count, bench_measure_fn measure,
                              const char *pattern, unsigned *run);

/*
 * The groups of figures. Each prints those that are wanted.
 * @run: their number is added to it.
 */
MM_MUST_CHECK bool bench_frames(const char *pattern, unsigned *run);
MM_MUST_CHECK bool bench_heap(const char *pattern, unsigned *run);
MM_MUST_CHECK bool bench_guard(const char *pattern, unsigned *run);
MM_MUST_CHECK bool bench_maps(const char *pattern, unsigned *run);
MM_MUST_CHECK bool bench_tables(const char *pattern, unsigned *run);
/* What several CPUs have to do with: shootdowns, switches. */
MM_MUST_CHECK bool bench_cpus(const char *pattern, unsigned *run);

#endif
