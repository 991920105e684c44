/* SPDX-License-Identifier: MIT */
/* magazine: free objects at hand, per CPU and per cache; private to the heap.
 */
#ifndef MM_HEAP_MAGAZINE_H
#define MM_HEAP_MAGAZINE_H

#include <mm/kmalloc.h>
#include "heap/poison.h"
#include "heap/pool.h"
#include "heap/quarantine.h"
#include "heap/report.h"
#include "heap/store.h"

/*
 * Do the fast ways leave interrupts on, as sequences that begin anew after one?
 * In debug builds, and where free objects are hidden, they have more to do.
 */
#if defined(MM_PORT_RESTARTS) && !defined(MM_PORT_HIDES) && !MM_DEBUG
#define MAGAZINE_RESTARTS 1
#else
#define MAGAZINE_RESTARTS 0
#endif

/*
 * An array of pointers to free objects, the latest on top. Below the first
 * stands NULL, the floor, so that to look whether there is an object is to
 * read it. An allocation more is one less in the budget: that counts them,
 * and when it falls below 0 it is time for a look (see magazine_look()).
 * Both numbers are in one word: to take an object is to change that word once.
 */
struct magazine {
    uint64_t state;        /* the budget, 48 bits, signed; objects, 16 bits */
    uint64_t granted;      /* all budgets it was given */
    struct magazine *next; /* of a CPU's: its other one; else of a list */
    uint32_t capacity;     /* objects */
    void *object[];        /* [0]: the floor */
};

/* What taking an object subtracts from the state. */
#define MAGAZINE_COUNT_BITS 16
#define MAGAZINE_TAKEN      ((UINT64_C(1) << MAGAZINE_COUNT_BITS) + 1)

static inline uint32_t magazine_count(const struct magazine *magazine)
{
    return (uint16_t)magazine->state;
}

/*
 * Where the latest object stands, and in [1] the next one will. An address
 * without an index: processors hand what is stored to a load close behind only
 * then (an Intel Xeon: a pair 3.9 instead of 10 ns).
 */
static MM_INLINE void **magazine_top(struct magazine *magazine)
{
    void **top = &magazine->object[magazine_count(magazine)];

    MM_OPAQUE(top);
    return top;
}

/* Allocations until it is time for a look; below 0 it is. */
static inline int64_t magazine_budget(const struct magazine *magazine)
{
    return (int64_t)magazine->state >> MAGAZINE_COUNT_BITS;
}

/* How many were served from @magazine. */
static inline uint64_t magazine_allocs(const struct magazine *magazine)
{
    return magazine->granted - (uint64_t)magazine_budget(magazine);
}

/*
 * The next so many allocations are made without a look.
 * Return: false: it is nobody's turn to be guarded.
 */
bool magazine_grant(struct magazine *magazine);

/*
 * A cache: the pool below, the store, two magazines for each CPU.
 * (C) constant, (P) owning CPU (magazine.c), (N) the lock of the list
 * of caches. Numbers of other CPUs' magazines are read for statistics only.
 */
struct slab_cache {
    struct slab_pool pool; /* first: a slab's pool leads to its cache */
    struct store store;
    struct slab_cache *next; /* (N) */
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
_Static_assert(offsetof(struct slab_cache, pool) == 0, "cache_of()");

static inline struct slab_cache *cache_of(struct slab_pool *pool)
{
    return (struct slab_cache *)pool;
}

/* (C) By CPU, where it has the magazines of the size classes, or NULL. */
extern struct magazine **magazine_of_classes[MM_MAX_CPUS];

/*
 * Where the magazines of @cpu are. With MAGAZINE_RESTARTS, of a size class: in
 * what the CPU has for itself; the cache has none then.
 */
static inline struct magazine **magazine_slot(struct slab_cache *cache,
                                              unsigned cpu)
{
    if (pool_notes_states) {
        return &cache->magazine[port_cpu_count() + cpu];
    }
    if (MAGAZINE_RESTARTS && cache->pool.number != 0 &&
        magazine_of_classes[cpu] != NULL) {
        return &magazine_of_classes[cpu][cache->pool.number / sizeof(void *)];
    }
    return &cache->magazine[cpu];
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
 * The slow ways, called last: an object if there is none at hand; @object, or
 * a guarded one in its place; room for @object.
 * @bytes: 0 means object_bytes
 */
void *magazine_refill(struct slab_cache *cache, uint64_t bytes, uintptr_t site);
void *magazine_look(struct slab_cache *cache, uint64_t bytes, uintptr_t site,
                    void *object);
void magazine_flush(struct slab_cache *cache, void *object);

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
 * The fast ways. Nothing in them may need a frame of the stack: what does is
 * called last, as a jump; and the call site is not looked up before that.
 */
#if MAGAZINE_RESTARTS

/* x86_64/magazine.asm has them, and kmalloc_from() and slab_alloc(). */
_Static_assert(offsetof(struct slab_cache, magazine) == 0xe8 &&
                   offsetof(struct magazine, state) == 0 &&
                   offsetof(struct magazine, capacity) == 24 &&
                   offsetof(struct magazine, object) == 32 &&
                   MAGAZINE_TAKEN == 0x10001,
               "as in x86_64/magazine.asm");

/* Arguments as their callers have them, so that none has to change places. */
void *kmalloc_for(uint64_t number, uint64_t bytes, uintptr_t site);
void kmalloc_push(void *object, uint64_t number);
void magazine_push(struct slab_cache *cache, void *object);

/* What they call last: as magazine_refill(), _look(), _flush(). */
void *kmalloc_refill(uint64_t number, uint64_t bytes, uintptr_t site);
void *kmalloc_look(uint64_t number, uint64_t bytes, uintptr_t site,
                   void *object);
void kmalloc_flush(void *object, uint64_t number);

#else

/* An object for @bytes <= object_bytes; 0: all of them. */
static MM_INLINE void *magazine_alloc(struct slab_cache *cache, uint64_t bytes)
{
    uint64_t irq = port_irq_save();
    struct magazine *magazine = cache->magazine[port_cpu()];
    void *object = *magazine_top(magazine);

    if (MM_UNLIKELY(object == NULL)) {
        port_irq_restore(irq);
        return magazine_refill(cache, bytes, MM_CALLER());
    }
    magazine->state -= MAGAZINE_TAKEN;
    bool is_spent = magazine_budget(magazine) < 0;
    port_irq_restore(irq);
    if (MM_UNLIKELY(is_spent)) {
        return magazine_look(cache, bytes, MM_CALLER(), object);
    }
    if (MM_DEBUG) {
        poison_on_alloc(object, bytes != 0 ? bytes : cache->pool.object_bytes,
                        MM_CALLER());
    }
    port_show(object, cache->pool.object_bytes);
    return object;
}

/* @object is an object of @cache, and free. */
static MM_INLINE void magazine_push(struct slab_cache *cache, void *object)
{
    port_hide(object, cache->pool.stride);
    uint64_t irq = port_irq_save();
    struct magazine *magazine = cache->magazine[port_cpu()];

    if (MM_UNLIKELY(magazine_count(magazine) == magazine->capacity)) {
        port_irq_restore(irq);
        magazine_flush(cache, object);
        return;
    }
    magazine_top(magazine)[1] = object;
    magazine->state++;
    port_irq_restore(irq);
}

#endif

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
