/* SPDX-License-Identifier: MIT */
/* vmem: an arena that hands out ranges of integers (here: of addresses). */
#ifndef MM_VMEM_H
#define MM_VMEM_H

#include <mm/types.h>
#include "base/lock.h"

/*
 * After Bonwick and Adams, "Magazines and Vmem" [Bonwick01]: boundary tags in
 * address order, free segments on power-of-two lists (instant fit), allocated
 * ones in a hash by address, so that a free with a wrong address or size is
 * found out at once.
 */
struct vmem_tag;
struct vmem_kept;
struct slab_cache;

#define VMEM_LISTS   64 /* one for each possible log2(size / quantum) */
#define VMEM_BUCKETS 64 /* of the hash at first; it grows with the arena */

struct vmem {
    struct lock lock;
    const char *name;                   /* (C) */
    uint64_t quantum;                   /* (C) power of two; unit of sizes */
    unsigned quantum_shift;             /* (C) log2 of it */
    unsigned kept_quanta;               /* (I) see vmem_keep() */
    struct vmem_kept **kept;            /* (I) by CPU */
    struct slab_cache *tags;            /* (I) where tags come from */
    uint64_t total;                     /* (L) bytes under management */
    uint64_t free;                      /* (L) bytes */
    uint64_t allocated;                 /* (L) segments in the hash */
    struct vmem_tag *first;             /* (L) lowest segment */
    uint64_t filled;                    /* (L) bit n: lists[n] is not empty */
    struct vmem_tag *lists[VMEM_LISTS]; /* (L) free, by log2(size/quantum) */
    struct vmem_tag **buckets;          /* (L) allocated, by address */
    unsigned bucket_shift;              /* (L) log2 of the buckets */
    uint64_t crowd;                     /* (L) segments they are too few for */
    struct vmem_tag *few[VMEM_BUCKETS]; /* (L) the buckets until they grow */
};

/* One segment of an arena. */
struct vmem_segment {
    uint64_t start;
    uint64_t size;
    bool is_allocated;
    void *owner; /* see vmem_set_owner(); NULL if it is free */
};

struct vmem_stats {
    uint64_t total; /* bytes */
    uint64_t free;  /* bytes */
    uint64_t allocated;
    uint64_t kept; /* of these, free but kept by a CPU */
};

/* @quantum: power of two. No range yet: vmem_add(). @name: by pointer. */
void vmem_init(struct vmem *vmem, const char *name, uint64_t quantum);
/* Give the tags back. With segments still allocated: a bug report instead. */
void vmem_fini(struct vmem *vmem);

/*
 * Put [start, start + size) under management, both multiples of the quantum.
 * Ranges that touch become one. The end must be below 2^64.
 * Return: MM_OK; MM_EINVAL if unaligned, empty, wrapping or overlapping;
 *         MM_ENOMEM for tags.
 * Context: nobody else is at work in the arena before the first range.
 * Cost: O(segments).
 */
MM_MUST_CHECK enum mm_status vmem_add(struct vmem *vmem, uint64_t start,
                                      uint64_t size);

/*
 * From now on each CPU keeps some of the segments of up to @quanta quanta that
 * are freed there, and allocates them again without the arena's lock. For
 * walks, sums and vmem_size() they stay allocated; no owner hangs on them.
 * Return: MM_OK; MM_ENOMEM: none is kept.
 * Context: once, before the first allocation.
 */
MM_MUST_CHECK enum mm_status vmem_keep(struct vmem *vmem, unsigned quanta);

/* What all CPUs keep goes back to the arena. */
void vmem_drain(struct vmem *vmem);

/*
 * Allocate @size (rounded up to the quantum) aligned to @alignment (a power
 * of two, 0 = the quantum).
 * Return: MM_OK; MM_EINVAL for size 0 or overflow; MM_ENOMEM if no segment
 *         fits or a tag cannot be had: nothing has changed.
 * Context: any, also interrupts.
 * Cost: O(1) unless only segments of nearly @size are left.
 */
MM_MUST_CHECK enum mm_status vmem_alloc(struct vmem *vmem, uint64_t size,
                                        uint64_t alignment, uint64_t *out);

/*
 * Free the segment vmem_alloc() gave, on which no owner hangs if it may be
 * kept. A wrong address or size is a bug report that changes nothing: at once,
 * but for segments that may be kept where MM_DEBUG is off: those are looked at
 * when they go back to the arena. Cannot fail.
 */
void vmem_free(struct vmem *vmem, uint64_t address, uint64_t size);

/* Size of the allocated segment that starts at @address, or 0. */
uint64_t vmem_size(struct vmem *vmem, uint64_t address);

/*
 * Hang @owner on the allocated segment that starts at @address, until that is
 * freed. Return: false, and nothing has changed, if there is none, or one that
 * has an owner.
 */
MM_MUST_CHECK bool vmem_set_owner(struct vmem *vmem, uint64_t address,
                                  void *owner);

/* Return false to stop. */
typedef bool (*vmem_fn)(void *context, const struct vmem_segment *segment);

/*
 * Report the allocated segment that starts at @address, if there is one, and
 * see to it that it is not freed meanwhile, nor what hangs on it.
 * Context: as that of vmem_walk().
 * Return: what @report has returned; false if there is none.
 */
bool vmem_look(struct vmem *vmem, uint64_t address, vmem_fn report,
               void *context);

/*
 * Report all segments in address order, for checks and reports.
 * Context: @report runs with the arena locked and must not enter it.
 * Return: false if @report stopped it.
 */
bool vmem_walk(struct vmem *vmem, vmem_fn report, void *context);

/*
 * The same for reports that must end: false, too, if the arena was not to be
 * had within @turns turns of waiting, or is locked by this CPU.
 */
bool vmem_try_walk(struct vmem *vmem, unsigned turns, vmem_fn report,
                   void *context);

void vmem_stats(struct vmem *vmem, struct vmem_stats *out);

/* Segments in order, no two free neighbours, sums right, lists complete. */
bool vmem_check(struct vmem *vmem);

#endif
