/* SPDX-License-Identifier: MIT */
/* pool: slabs of equal objects, straight from frames; private to the heap. */
#ifndef MM_HEAP_POOL_H
#define MM_HEAP_POOL_H

#include <stdatomic.h>

#include <mm/frame.h>
#include <mm/port.h>
#include "base/lock.h"

/* 16-byte objects in one frame: the most objects a slab can have. */
#define POOL_MAX_OBJECTS   256
#define POOL_MAX_ORDER     5 /* 128 KiB; only debug builds need more than 4 */
#define POOL_MIN_ALIGNMENT 16
#define POOL_MAX_BYTES     (8 * KiB)
#define POOL_MAX_STRIDE    (2 * POOL_MAX_BYTES) /* debug: aligned to 8 KiB */

/* What a pool's objects are used for. */
enum pool_kind {
    POOL_SIDE,   /* the heap's own needs; descriptor inside the slab */
    POOL_CACHE,  /* slab_create() */
    POOL_KMALLOC /* a size class: kfree() takes its objects */
};

/*
 * A slab is on the list that its count of objects out says: those of which some
 * are out, by quarters, so that the densest can be filled first.
 */
#define POOL_QUARTERS 4
enum pool_list {
    POOL_EMPTY,
    POOL_PARTIAL, /* and so on */
    POOL_FULL = POOL_PARTIAL + POOL_QUARTERS,
    POOL_LISTS
};

/*
 * What is known of a slab. It stands beside the objects, never in them.
 * (C) constant while the slab exists, (L) pool->lock.
 */
struct slab {
    struct slab_pool *pool;     /* (C) */
    vaddr_t start;              /* (C) object 0 */
    vaddr_t frames;             /* (C) first byte of the first frame */
    struct poison_track *track; /* (C) debug: a word on each object, or NULL */
    struct slab *next;          /* (L) */
    struct slab *previous;      /* (L) */
    uint32_t out_count;         /* (L) */
    uint32_t number;            /* of a leak scan, while it is under way */
    /* (L) bit set: out of the slab, or beyond the last object */
    uint64_t out[POOL_MAX_OBJECTS / 64];
};

/* (C) constant after pool_init(), (L) lock. */
struct slab_pool {
    uint32_t reciprocal; /* (C) 2^32 / stride, rounded up */
    /* The same for quick frees; 0 if there are none: states are noted. */
    uint32_t quick;      /* (C) */
    uint32_t span;       /* (C) bytes from object 0 to the end of the last */
    enum pool_kind kind; /* (C) */
    /* (I) kmalloc_number(), or 0: it stands in the records of its frames */
    uint16_t number;
    uint32_t object_bytes; /* (C) */
    uint32_t stride;       /* (C) from an object to the next */
    uint32_t objects;      /* (C) in a slab */
    uint32_t states;       /* (C) behind a slab, a byte each: objects, or 0 */
    uint32_t first;        /* (C) from the slab's first byte to object 0 */
    uint32_t order;        /* (C) of the slab's block of frames */
    uint32_t alignment;    /* (C) */
    struct lock lock;
    const char *name;              /* (C) */
    void (*constructor)(void *);   /* (C) or NULL */
    struct slab *list[POOL_LISTS]; /* (L) */
    uint64_t slabs;                /* (L) on all lists */
    uint64_t out;                  /* (L) objects out of all slabs */
};

/* The list it is on, by I1 of pool.c. */
static inline enum pool_list slab_list(const struct slab *slab)
{
    if (slab->out_count == 0) {
        return POOL_EMPTY;
    }
    return POOL_PARTIAL + slab->out_count * POOL_QUARTERS / slab->pool->objects;
}

static inline void *slab_object(const struct slab *slab, unsigned index)
{
    return (void *)(slab->start + (vaddr_t)index * slab->pool->stride);
}

/*
 * offset / stride, for offset < span, by one multiplication: the upper half of
 * the product is the quotient, and the lower half is smaller than the
 * reciprocal exactly if nothing remains. Both hold while
 * (offset + stride) * stride < 2^32.
 */
_Static_assert(((PAGE_BYTES << POOL_MAX_ORDER) + POOL_MAX_STRIDE) *
                       POOL_MAX_STRIDE <
                   (UINT64_C(1) << 32),
               "the reciprocal of the stride is exact");

static inline unsigned slab_index(const struct slab *slab, const void *address)
{
    uint64_t offset = (vaddr_t)address - slab->start;

    return (unsigned)((offset * slab->pool->reciprocal) >> 32);
}

/* Is @address the first byte of an object? Any number is allowed. */
static inline bool slab_is_object(const struct slab *slab, const void *address)
{
    uint64_t offset = (vaddr_t)address - slab->start;
    uint32_t reciprocal = slab->pool->reciprocal;

    return offset < slab->pool->span &&
           (uint32_t)(offset * reciprocal) < reciprocal;
}

/*
 * The same for an @address that is known to lie in a frame of @slab.
 * @reciprocal: the pool's, or 0: then the answer is no.
 *
 * What is too much for another object lies before the first one, so that no
 * look at the slab's end is needed: 2^32 - m * reciprocal, for an address m
 * bytes before the first object, is smaller than the reciprocal only if m is
 * the stride or one less, and the rest is at least POOL_MIN_ALIGNMENT smaller.
 * In debug builds it may be as large, because of the first red zone.
 */
static inline bool slab_starts_object(const struct slab *slab,
                                      uint32_t reciprocal, const void *address)
{
    uint32_t offset = (uint32_t)(vaddr_t)address - (uint32_t)slab->start;

    if (MM_DEBUG && !slab_is_object(slab, address)) {
        return false;
    }
    return offset * reciprocal < reciprocal;
}

static inline bool slab_is_out(const struct slab *slab, unsigned index)
{
    return ((slab->out[index / 64] >> (index % 64)) & 1) != 0;
}

/*
 * (C) Is it noted of each object whether it is in a caller's hands? Release
 * builds learn that only from the bitmap, when it returns to its slab.
 * slab_note_states() sets it, before slab_init().
 */
extern bool pool_notes_states;

/* The byte that says so; only while pool_notes_states. */
static inline _Atomic bool *slab_state(const struct slab *slab, unsigned index)
{
    return (_Atomic bool *)&slab[1] + index;
}

/* A cache takes its own objects; kmalloc (NULL) those of all size classes. */
static inline bool pool_is_expected(const struct slab_pool *expected,
                                    const struct slab_pool *pool)
{
    return expected == NULL ? pool->kind == POOL_KMALLOC : pool == expected;
}

/*
 * Can the record of the frame @address lies in be read, and has it @type? Any
 * address is allowed: records of blocks no frame of which was ever handed out
 * are not there.
 */
static inline bool heap_has_type(const void *address, enum frame_type type)
{
    pfn_t pfn = phys_to_pfn(virt_to_phys(address));

    return record_exists(pfn) && record_of(pfn)->type == type;
}

/*
 * record_what() of the frame @address lies in, 0 if its record is not there.
 * Any address is allowed. For who asks at every free: where the host survives
 * the fault, it is read without a look whether it is backed.
 */
static inline uint32_t heap_what(const void *address)
{
    pfn_t pfn = phys_to_pfn(virt_to_phys(address));

#ifdef MM_PORT_PEEKS
    return MM_LIKELY(pfn.v < record_frames)
               ? port_peek(
                     (const uint32_t *)(const void *)&record_of(pfn)->type)
               : 0;
#else
    return MM_LIKELY(record_exists(pfn)) ? record_what(record_of(pfn)) : 0;
#endif
}

/* The slab @address lies in, if it is heap_has_type(@address, FRAME_SLAB). */
static inline struct slab *slab_around(const void *address)
{
    return (struct slab *)record_of(phys_to_pfn(virt_to_phys(address)))->owner;
}

/* The slab @address lies in, or NULL. Any address is allowed. */
static inline struct slab *slab_of(const void *address)
{
    return heap_has_type(address, FRAME_SLAB) ? slab_around(address) : NULL;
}

/* Frames that slabs have given back since the kernel started. */
extern _Atomic uint64_t pool_frames_freed; /* (A) */

/* Make the pools for side storage anew. */
void pool_start(void);

/*
 * Storage for what stands beside objects: descriptors, magazines, call sites,
 * caches. @bytes up to POOL_SIDE_MAX are rounded up to a power of two.
 * Return: aligned to 64, uninitialised; NULL if out of memory.
 */
#define POOL_SIDE_SHIFT 6 /* smallest: 64 bytes */
#define POOL_SIDE_SIZES 8
#define POOL_SIDE_MAX   (UINT64_C(1) << (POOL_SIDE_SHIFT + POOL_SIDE_SIZES - 1))
MM_MUST_CHECK void *pool_side_alloc(uint64_t bytes);
/* The same where memory may be reclaimed: no lock held, nothing in hand. */
MM_MUST_CHECK void *pool_side_alloc_or_reclaim(uint64_t bytes);
void pool_side_free(void *storage);

/* @alignment: a power of two; the pool has no slab yet. */
void pool_init(struct slab_pool *pool, enum pool_kind kind, const char *name,
               uint64_t bytes, uint64_t alignment);

/*
 * Take up to @count objects out of the slabs; a new slab is made only if there
 * is no free object. Return: how many, 0 if out of memory.
 */
MM_MUST_CHECK unsigned pool_take(struct slab_pool *pool, void **out_objects,
                                 unsigned count);

/* Objects back to their slabs; what is none of them is reported. */
void pool_put(struct slab_pool *pool, void *const *objects, unsigned count);

/* Give the empty slab that is kept back to the frames. */
void pool_trim(struct slab_pool *pool);

/* Bitmaps, counts, lists and records agree; debug: poison is intact. */
bool pool_check(struct slab_pool *pool);

/* pool_trim() and pool_check() of the pools for side storage. */
void pool_side_trim(void);
bool pool_side_check(void);

#endif
