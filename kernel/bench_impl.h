/* SPDX-License-Identifier: MIT */
/* bench: what is measured, for the files of bench alone. */
#ifndef KERNEL_BENCH_IMPL_H
#define KERNEL_BENCH_IMPL_H

#include <mm/types.h>

struct bench_subject {
    const char *name;
    bool (*before)(unsigned argument); /* each time, not measured; or NULL */
    bool (*operation)(unsigned argument);
    unsigned argument;
};

/* Does @name begin with @pattern? */
bool bench_is_wanted(const char *name, const char *pattern);

/* One figure, as bench_run() prints it. */
void bench_print(const char *name, uint64_t value, const char *unit);

/* Median, minimum and mean of many; false if one failed: it is said. */
MM_MUST_CHECK bool bench_measure(const struct bench_subject *subject);

/*
 * What several CPUs have to do with: shootdowns, switches.
 * @out_run: figures that were wanted.
 */
MM_MUST_CHECK bool bench_cpus(const char *pattern, unsigned *out_run);

#endif
