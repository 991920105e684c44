/* SPDX-License-Identifier: MIT */
/* magazine: free objects at hand, per CPU and per cache; private to the heap.
 */
#ifndef MM_HEAP_MAGAZINE_H
#define MM_HEAP_MAGAZINE_H

#include "heap/poison.h"
#include "heap/pool.h"
#include "heap/quarantine.h"
#include "heap/report.h"
#include "heap/store.h"

/*
 * An array of pointers to free objects, the latest on top. Below the first
 * stands NULL, the floor, so that to look whether there is an object is to
 * read it. An allocation more is one less in the budget: that counts them,
 * and when it is used up the slow way has its turn (see magazine_refill()).
 */
struct magazine {
    void **top;            /* the latest object, or the floor */
    void **last;           /* where top stands if there is no more room */
    uint32_t budget;       /* allocations until the slow way has a look */
    uint32_t granted;      /* what the budget was */
    uint64_t allocs;       /* served from here before that */
    struct magazine *next; /* of a CPU's: its other one; else of a list */
    void *object[];        /* [0]: the floor */
};

static inline uint32_t magazine_count(const struct magazine *magazine)
{
    return (uint32_t)(magazine->top - magazine->object);
}

static inline uint32_t magazine_capacity(const struct magazine *magazine)
{
    return (uint32_t)(magazine->last - magazine->object);
}

/* How many were served from @magazine. */
static inline uint64_t magazine_allocs(const struct magazine *magazine)
{
    return magazine->allocs + (magazine->granted - magazine->budget);
}

/*
 * The next so many allocations are made without a look.
 * Return: false: it is nobody's turn to be guarded.
 */
bool magazine_grant(struct magazine *magazine);

/*
 * A cache: the pool below, the store, two magazines for each CPU.
 * (C) constant, (P) owning CPU with interrupts off, (N) the lock of the list
 * of caches. Numbers of other CPUs' magazines are read for statistics only.
 */
struct slab_cache {
    struct store store;
    struct slab_cache *next; /* (N) */
    struct slab_pool pool;   /* a slab's pool leads to its cache */
    /*
     * (P) By CPU; never NULL. While pool_notes_states, the fast ways must not
     * find any: these have no room then, and the real ones come behind them.
     */
    struct magazine *magazine[];
};

_Static_assert(sizeof(struct slab_cache) +
                       2 * MM_MAX_CPUS * sizeof(struct magazine *) <=
                   POOL_SIDE_MAX,
               "a cache fits in side storage");

static inline struct slab_cache *cache_of(struct slab_pool *pool)
{
    return (struct slab_cache *)((char *)pool -
                                 offsetof(struct slab_cache, pool));
}

/* Where the magazines of @cpu are. */
static inline struct magazine **magazine_slot(struct slab_cache *cache,
                                              unsigned cpu)
{
    return &cache->magazine[cpu + (pool_notes_states ? port_cpu_count() : 0)];
}

/* Pointers to magazines in a cache: one or two a CPU. */
static inline unsigned magazine_pointers(void)
{
    return port_cpu_count() * (pool_notes_states ? 2 : 1);
}

/* Bytes of a cache with its pointers to magazines. */
uint64_t magazine_cache_bytes(void);

/* Magazines and store of a cache whose pool stands: none yet. */
void magazine_init(struct slab_cache *cache);

/*
 * The slow ways: get a batch, give a batch away. Called with interrupts off,
 * they end by restoring @irq: the fast ways then end in a jump.
 * @bytes: 0 means object_bytes
 */
void *magazine_refill(struct slab_cache *cache, uint64_t bytes, uintptr_t site,
                      uint64_t irq);
void magazine_flush(struct slab_cache *cache, void *object, uint64_t irq);

/*
 * Up to @count objects, of which none is guarded. Return: how many; fewer only
 * if memory is short.
 */
MM_MUST_CHECK unsigned magazine_alloc_bulk(struct slab_cache *cache,
                                           void **out_objects, unsigned count,
                                           uintptr_t site);

/* Objects of @cache that nobody has to be told about. */
void magazine_push_bulk(struct slab_cache *cache, void *const *objects,
                        unsigned count);

/* magazine_free() while pool_notes_states. */
void magazine_free_noted(struct slab_cache *cache, struct slab *slab,
                         void *object, uintptr_t site);

/* This CPU's magazines back to the slabs. */
void magazine_drain_cpu(struct slab_cache *cache);
/* The same, then the store's, and empty slabs to the frames. */
void magazine_drain(struct slab_cache *cache);
/* The same for those of all CPUs; none uses the cache meanwhile. */
void magazine_drain_all(struct slab_cache *cache);

/*
 * Sums over all CPUs; and is the free object @object in a magazine or the
 * store? Exact while the others rest. Else there is an answer, but it may be
 * wrong; no memory is touched that is not there.
 */
void magazine_sum(const struct slab_cache *cache, uint64_t *out_cached,
                  uint64_t *out_allocs);
bool magazine_holds(const struct slab_cache *cache, const void *object);

/*
 * Every pointer that is held is an object of the cache, out of its slab.
 * Context: while the others rest.
 */
bool magazine_check(const struct slab_cache *cache);

/*
 * An object for @bytes <= object_bytes (0: all of them). These two are the fast
 * ways. Nothing in them may need a frame of the stack: what does is called
 * last, as a jump; and the call site is not looked up before that.
 */
static MM_INLINE void *magazine_alloc(struct slab_cache *cache, uint64_t bytes)
{
    uint64_t irq = port_irq_save();
    struct magazine *magazine = cache->magazine[port_cpu()];
    void **top = magazine->top;
    void *object = *top;

    if (MM_UNLIKELY(object == NULL || --magazine->budget == 0)) {
        return magazine_refill(cache, bytes, MM_CALLER(), irq);
    }
    magazine->top = top - 1;
    port_irq_restore(irq);
    if (MM_DEBUG) {
        poison_on_alloc(object, bytes != 0 ? bytes : cache->pool.object_bytes,
                        MM_CALLER());
    }
    port_show(object, cache->pool.object_bytes);
    return object;
}

/* @object is an object of @cache. */
static MM_INLINE void magazine_push(struct slab_cache *cache, void *object)
{
    port_hide(object, cache->pool.stride);
    uint64_t irq = port_irq_save();
    struct magazine *magazine = cache->magazine[port_cpu()];
    void **top = magazine->top;

    if (MM_UNLIKELY(top == magazine->last)) {
        magazine_flush(cache, object, irq);
        return;
    }
    top[1] = object;
    magazine->top = top + 1;
    port_irq_restore(irq);
}

/* @object is an object of @slab, and that is a slab of @cache. */
static MM_INLINE void magazine_free(struct slab_cache *cache, struct slab *slab,
                                    void *object)
{
    if (MM_DEBUG && !poison_on_free(slab, object, MM_CALLER())) {
        report_free(&cache->pool, object, MM_CALLER());
        return;
    }
    if (MM_DEBUG && quarantine_enter(object)) {
        return;
    }
    magazine_push(cache, object);
}

#endif
