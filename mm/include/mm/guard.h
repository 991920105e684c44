/* SPDX-License-Identifier: MIT */
/* guard: one allocation in N lies between pages that nobody may touch. */
#ifndef MM_GUARD_H
#define MM_GUARD_H

#include <mm/types.h>

/* Objects that can be guarded at once. */
#define GUARD_OBJECTS 255

/*
 * Allocations from one that is guarded to the next, if nobody says else: a
 * guarded pair costs some 1,300 instructions, and a mixed workload 72 a pair,
 * to which this adds less than 1 % (`make bench`, rows guarded_pair_64,
 * heap_mixed, guard_overhead: QEMU's -icount, gcc 12, release).
 */
#define GUARD_INTERVAL 3500
/* The largest: half as much again is a 32-bit number. */
#define GUARD_INTERVAL_MAX (UINT32_C(1) << 30)

/* Where the tables have the direct map: mm_init() says it. */
void guard_setup(vaddr_t direct_start);

/*
 * Take a block of 2 MiB for guarded objects, cut the large page that the
 * direct map has there, and guard one in about @interval allocations of the
 * heap from now on; what other CPUs have at hand they use up by the old
 * interval. Called again: only the interval changes.
 * @interval  1 .. GUARD_INTERVAL_MAX
 * Return: MM_OK; MM_EINVAL; MM_ENOMEM: no block, or no tables; nothing has
 *         changed.
 * Context: as tlb_commit(); after mm_init(); not by two CPUs at once.
 */
MM_MUST_CHECK enum mm_status guard_enable(uint32_t interval);

/*
 * Guard nothing more. If no guarded object is live, the block goes back and
 * the direct map's large page is whole again, if pt_may_resize().
 * Return: MM_OK, also if guards were off; MM_EBUSY: objects are live: call
 *         again when they have been freed.
 * Context: as guard_enable().
 */
MM_MUST_CHECK enum mm_status guard_disable(void);

enum guard_access { GUARD_READ, GUARD_WRITE, GUARD_EXEC };

/*
 * A fault at @address, by the instruction at @ip, which nothing allows: if it
 * hit a guarded object that was freed, or a page beside one, report that by
 * port_bug() with object, size, cache, and who allocated and freed it; then
 * let the access be tried again.
 * Return: was it that? If not, nothing was done.
 * Context: the fault's, with interrupts off since then, so that this CPU
 *          answers no flush meanwhile: guard_disable() waits for that. Waits
 *          for no CPU.
 *
 * A page that a report has opened is closed again with its next object: then
 * it can have another report, and for an access by two CPUs at once two.
 *
 * What another CPU does to an object that this one has freed is not seen as
 * long as that CPU has the translation cached: kfree() may come from an
 * interrupt, so it invalidates here alone. Nothing else depends on it: the
 * frame stays in the pool until guard_disable() has flushed every CPU.
 */
MM_MUST_CHECK bool guard_fault(vaddr_t address, enum guard_access access,
                               uintptr_t ip);

/* One guarded object, live or freed. */
struct guard_object {
    vaddr_t start;
    uint64_t bytes;   /* asked for */
    const char *name; /* of its cache; "?" if that is gone */
    bool is_live;
    uintptr_t alloc_site;
    uintptr_t free_site; /* 0 while it is live */
    unsigned alloc_cpu;
    unsigned free_cpu;
};

/* Object @index, 0 .. GUARD_OBJECTS - 1, if its page was ever used. */
bool guard_look(unsigned index, struct guard_object *out);

/* The object to whose page or guard pages @address belongs, if any. */
bool guard_find(vaddr_t address, struct guard_object *out);

struct guard_stats {
    uint32_t interval; /* 0: off */
    vaddr_t start;     /* of the pool, 0: none */
    uint64_t bytes;    /* of it */
    uint64_t live;     /* objects in callers' hands */
    uint64_t freed;    /* freed ones that are still watched */
    uint64_t samples;  /* allocations that were guarded, ever */
    uint64_t passed;   /* that were to be, but for room, size or alignment */
    uint64_t found;    /* crimes reported */
};
void guard_stats(struct guard_stats *out);

/* States, lists and counts agree; what lies around live objects is intact. */
bool guard_check(void);

#endif
