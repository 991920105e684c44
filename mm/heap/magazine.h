/* SPDX-License-Identifier: MIT */
/* magazine: free objects at hand, per CPU and per cache; private to the heap.
 */
#ifndef MM_HEAP_MAGAZINE_H
#define MM_HEAP_MAGAZINE_H

#include "heap/poison.h"
#include "heap/pool.h"
#include "heap/report.h"

/* An array of pointers to free objects, the latest on top. */
struct magazine {
    uint32_t count;
    uint32_t capacity;
    uint64_t allocs; /* served from here */
    void *object[];
};

/*
 * A cache: the pool below, the central store, a magazine for each CPU.
 * (C) constant, (S) store_lock, (P) owning CPU with interrupts off,
 * (N) the lock of the list of caches. Numbers of other CPUs' magazines are
 * read for statistics only.
 */
struct slab_cache {
    struct slab_pool pool; /* first: a slab's pool leads to its cache */
    struct lock store_lock;
    uint32_t store_low;          /* (S) fewest objects since the last trim */
    uint32_t store_exchanges;    /* (S) since the last trim */
    uint32_t store_bytes;        /* (C) of the store's array */
    uint32_t magazine_bytes;     /* (C) of a magazine's array */
    struct magazine *store;      /* (S) */
    uint64_t allocs;             /* (S) not counted in a magazine that exists */
    uint64_t failures;           /* (S) */
    struct slab_cache *next;     /* (N) */
    struct magazine *magazine[]; /* (P) by CPU; never NULL */
};

_Static_assert(sizeof(struct slab_cache) +
                       MM_MAX_CPUS * sizeof(struct magazine *) <=
                   POOL_SIDE_MAX,
               "a cache fits in side storage");

static inline struct slab_cache *cache_of(struct slab_pool *pool)
{
    return (struct slab_cache *)pool;
}

/* Bytes of a cache with its pointers to magazines. */
uint64_t magazine_cache_bytes(void);

/* Magazines and store of a cache whose pool stands: none yet. */
void magazine_init(struct slab_cache *cache);

/*
 * The slow ways: get a batch, give a batch away. Called with interrupts off,
 * they end by restoring @irq: the fast ways then end in a jump.
 */
void *magazine_refill(struct slab_cache *cache, uint64_t irq);
void magazine_flush(struct slab_cache *cache, void *object, uint64_t irq);

/* This CPU's magazine and the store back to the slabs. */
void magazine_drain(struct slab_cache *cache);
/* The same with all magazines; no CPU uses the cache any more. */
void magazine_drain_all(struct slab_cache *cache);

/* Sums over all CPUs; exact while the others rest. */
void magazine_count(const struct slab_cache *cache, uint64_t *out_cached,
                    uint64_t *out_allocs);
/* Is the free object @object in a magazine or the store? */
bool magazine_holds(const struct slab_cache *cache, const void *object);

/* Every pointer that is held is an object of the cache, out of its slab. */
bool magazine_check(const struct slab_cache *cache);

static inline void *magazine_pop(struct slab_cache *cache)
{
    uint64_t irq = port_irq_save();
    struct magazine *magazine = cache->magazine[port_cpu()];
    uint32_t count = magazine->count;

    if (MM_UNLIKELY(count == 0)) {
        return magazine_refill(cache, irq);
    }
    void *object = magazine->object[count - 1];
    magazine->count = count - 1;
    magazine->allocs++;
    port_irq_restore(irq);
    return object;
}

static inline void magazine_push(struct slab_cache *cache, void *object)
{
    uint64_t irq = port_irq_save();
    struct magazine *magazine = cache->magazine[port_cpu()];
    uint32_t count = magazine->count;

    if (MM_UNLIKELY(count >= magazine->capacity)) {
        magazine_flush(cache, object, irq);
        return;
    }
    magazine->object[count] = object;
    magazine->count = count + 1;
    port_irq_restore(irq);
}

/* An object for @bytes <= object_bytes; the caller at @site wants it. */
static inline void *magazine_alloc(struct slab_cache *cache, uint64_t bytes,
                                   uintptr_t site)
{
    void *object = magazine_pop(cache);

    if (MM_DEBUG && object != NULL) {
        poison_on_alloc(object, bytes, site);
    }
    return object;
}

/* @object is an object of @slab, and that is a slab of @cache. */
static inline void magazine_free(struct slab_cache *cache, struct slab *slab,
                                 void *object, uintptr_t site)
{
    if (MM_DEBUG && !poison_on_free(slab, object, site)) {
        report_free(&cache->pool, object, site);
        return;
    }
    magazine_push(cache, object);
}

#endif
