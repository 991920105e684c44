/* SPDX-License-Identifier: MIT */
/* cpus: a set of processors that several of them change at once. */
#ifndef MM_BASE_CPUS_H
#define MM_BASE_CPUS_H

#include <stdatomic.h>

#include <mm/config.h>
#include <mm/types.h>

#define CPU_SET_WORDS ((MM_MAX_CPUS + 63) / 64)

struct cpu_set {
    _Atomic uint64_t word[CPU_SET_WORDS]; /* (A) a bit a processor */
};

static inline void cpu_set_init(struct cpu_set *set)
{
    for (unsigned i = 0; i < CPU_SET_WORDS; i++) {
        atomic_init(&set->word[i], 0);
    }
}

/*
 * A full barrier: what the caller reads afterwards is read after everybody
 * can see that it is in the set.
 */
static inline void cpu_set_add(struct cpu_set *set, unsigned cpu)
{
    atomic_fetch_or_explicit(&set->word[cpu / 64], UINT64_C(1) << (cpu % 64),
                             memory_order_seq_cst);
}

/* A full barrier: what the caller did before is done for all who miss it. */
static inline void cpu_set_remove(struct cpu_set *set, unsigned cpu)
{
    atomic_fetch_and_explicit(&set->word[cpu / 64],
                              ~(UINT64_C(1) << (cpu % 64)),
                              memory_order_seq_cst);
}

static inline bool cpu_set_has(const struct cpu_set *set, unsigned cpu)
{
    uint64_t word =
        atomic_load_explicit(&set->word[cpu / 64], memory_order_seq_cst);

    return ((word >> (cpu % 64)) & 1) != 0;
}

#endif
