/* SPDX-License-Identifier: MIT */
/* magazine: free objects at hand, per CPU and per cache. */
/*
 * Owns: the magazines that CPUs have, and when they are exchanged.
 *
 * Idea: magazines after [Bonwick01 3 "Magazines"]. A CPU has two, and changes
 * from one to the other before it asks the store (store.c): an alternation at
 * the edge of one does not repeat the exchange. Only the first is looked at by
 * the fast ways; it leads to the other.
 *
 * Picture:
 *
 *   cache->magazine[0] -> [ooo.] -next-> [oooo]
 *   cache->magazine[1] -> [....] -next-> NULL
 *   cache->magazine[2] -> the one without room
 *
 * A magazine is made when its CPU first needs it; until then, and after a
 * drain, the CPU has the one without room: it is always empty and always full,
 * so that the fast ways leave by the checks they make anyway. Without memory
 * for a magazine, objects come from the slabs and go there one by one.
 *
 * Invariants, for magazine_look.c to check:
 *   I1  the floor is NULL, and top between it and last
 *   I2  what is held is an object of the cache and out of its slab
 *
 * Locking: a magazine belongs to its CPU with interrupts off. While its slabs
 * are asked for objects it is out of reach: who is called for memory then may
 * use the cache, or drain it.
 *
 * Cost: alloc and free a few instructions. Held at most: two magazines a CPU.
 *
 * Limits: a CPU drains its own magazines only, and of these not one that is
 * just being refilled.
 */
#include "heap/magazine.h"

#include <mm/shrink.h>
#include "base/bits.h"
#include "base/memory.h"
#include "heap/guard.h"

/* Allocations until it is asked again whether guards are on: costs nothing. */
#define BUDGET_UNGUARDED 65536

uint64_t magazine_cache_bytes(void)
{
    return sizeof(struct slab_cache) +
           magazine_pointers() * sizeof(struct magazine *);
}

void magazine_init(struct slab_cache *cache)
{
    store_init(cache);
    cache->next = NULL;
    for (unsigned i = 0; i < magazine_pointers(); i++) {
        cache->magazine[i] = &store_no_room;
    }
}

bool magazine_grant(struct magazine *magazine)
{
    uint32_t interval = guard_interval();

    magazine->allocs = magazine_allocs(magazine);
    magazine->granted = interval == 0 ? BUDGET_UNGUARDED : interval;
    magazine->budget = magazine->granted;
    return interval != 0;
}

/* Take the latest object of a magazine that has one. */
static void *pop(struct magazine *magazine)
{
    if (--magazine->budget == 0) {
        (void)magazine_grant(magazine);
    }
    return *magazine->top--;
}

static bool is_empty(const struct magazine *magazine)
{
    return *magazine->top == NULL;
}

static bool is_full(const struct magazine *magazine)
{
    return magazine->top == magazine->last;
}

/* The CPU's two change places. */
static void swap(struct magazine **first)
{
    struct magazine *second = (*first)->next;

    (*first)->next = NULL;
    second->next = *first;
    *first = second;
}

/* A CPU's magazine, or two, go to the slabs. */
static void scrap(struct slab_cache *cache, struct magazine *first)
{
    while (first != NULL && first != &store_no_room) {
        struct magazine *next = first->next;
        store_scrap(cache, first);
        first = next;
    }
}

/* This CPU's first, made now if there is memory for it. */
static struct magazine **prepare(struct slab_cache *cache)
{
    struct magazine **first = magazine_slot(cache, port_cpu());

    if (*first == &store_no_room) {
        struct magazine *fresh = store_make(cache); /* reclaims nothing */
        if (fresh != NULL) {
            *first = fresh;
        }
    }
    return first;
}

/* Fill the first, empty, from the slabs: half of it, so that it is neither. */
static void fill(struct slab_cache *cache, struct magazine **first)
{
    struct magazine *magazine = *first;

    /* Out of the way: whoever is asked for memory may use the cache. */
    *first = &store_no_room;
    magazine->top += pool_take(&cache->pool, magazine->object + 1,
                               (magazine_capacity(magazine) + 1) / 2);
    struct magazine *other = *first;
    *first = magazine;
    scrap(cache, other);
}

/* Objects for the first of a CPU's two; it stays empty if memory is short. */
static void get_objects(struct slab_cache *cache, struct magazine **first)
{
    struct magazine *magazine = *first;

    if (magazine->next != NULL && !is_empty(magazine->next)) {
        swap(first);
        return;
    }
    struct magazine *full = store_refill(cache, magazine->next);
    if (full == NULL) {
        fill(cache, first);
        return;
    }
    magazine->next = NULL;
    full->next = magazine;
    *first = full;
}

/* Room in the first of a CPU's two, which is full. */
static void get_room(struct slab_cache *cache, struct magazine **first)
{
    struct magazine *magazine = *first;
    struct magazine *second = magazine->next;

    if (second == NULL || is_full(second)) {
        magazine->next = NULL;
        magazine->next = store_flush(cache, second);
    }
    if (magazine->next != NULL) {
        swap(first);
        return;
    }
    /* No memory for a second one. */
    unsigned half = (magazine_capacity(magazine) + 1) / 2;
    magazine->top -= half;
    pool_put(&cache->pool, magazine->top + 1, half);
}

/* An object, by any way; NULL if memory is short. */
static void *take(struct slab_cache *cache)
{
    struct magazine **first = prepare(cache);
    void *single;

    if (*first == &store_no_room) {
        if (pool_take(&cache->pool, &single, 1) == 1) {
            store_count_alloc(cache);
            return single;
        }
    } else {
        if (is_empty(*first)) {
            get_objects(cache, first);
        }
        if (!is_empty(*first)) {
            return pop(*first);
        }
    }
    store_count_failure(cache);
    return NULL;
}

/* Its budget is used up: an object in place of one of the magazine's? */
static void *take_guarded(struct slab_cache *cache, uint64_t bytes,
                          uintptr_t site)
{
    struct magazine *magazine = *magazine_slot(cache, port_cpu());
    /* The fast way has counted this one, unless it never sees the budget. */
    uint32_t left = pool_notes_states ? 1 : 0;

    if (is_empty(magazine) || magazine->budget > left) {
        return NULL;
    }
    magazine->budget = 0;
    bool is_turn = magazine_grant(magazine);
    void *object = is_turn ? guard_alloc(&cache->pool, bytes, site) : NULL;
    if (object == NULL) {
        magazine->allocs--; /* it is counted when it is taken */
    }
    return object;
}

/* Return: what the state was. */
static bool note_state(const void *object, bool is_live)
{
    const struct slab *slab = slab_around(object);

    return atomic_exchange_explicit(slab_state(slab, slab_index(slab, object)),
                                    is_live, memory_order_relaxed);
}

void *magazine_refill(struct slab_cache *cache, uint64_t bytes, uintptr_t site,
                      uint64_t irq)
{
    shrink_note_kept();
    if (bytes == 0) {
        bytes = cache->pool.object_bytes;
    }
    void *object = take_guarded(cache, bytes, site);
    if (MM_UNLIKELY(object != NULL)) {
        port_irq_restore(irq);
        return object;
    }
    object = take(cache);
    if (pool_notes_states && object != NULL) {
        note_state(object, true);
    }
    port_irq_restore(irq);
    if (MM_DEBUG && object != NULL) {
        poison_on_alloc(object, bytes, site);
    }
    if (object != NULL) {
        port_show(object, cache->pool.object_bytes);
    }
    return object;
}

/* Objects of a magazine, as many as it has without a look at its budget. */
static unsigned pop_many(struct magazine *magazine, void **out_objects,
                         unsigned count)
{
    uint64_t most = min_u64(count, magazine_count(magazine));

    if (most == 0 || most >= magazine->budget) {
        return 0;
    }
    magazine->budget -= (uint32_t)most;
    magazine->top -= most;
    memcpy(out_objects, magazine->top + 1, most * sizeof(void *));
    return (unsigned)most;
}

unsigned magazine_alloc_bulk(struct slab_cache *cache, void **out_objects,
                             unsigned count, uintptr_t site)
{
    uint64_t irq = port_irq_save();
    unsigned made = 0;

    while (made < count) {
        made += pop_many(*magazine_slot(cache, port_cpu()), out_objects + made,
                         count - made);
        void *object = made < count ? take(cache) : NULL;
        if (object == NULL) {
            break;
        }
        out_objects[made++] = object;
    }
    port_irq_restore(irq);
    for (unsigned i = 0; i < made; i++) {
        if (pool_notes_states) {
            note_state(out_objects[i], true);
        }
        if (MM_DEBUG) {
            poison_on_alloc(out_objects[i], cache->pool.object_bytes, site);
        }
        port_show(out_objects[i], cache->pool.object_bytes);
    }
    return made;
}

void magazine_free_noted(struct slab_cache *cache, struct slab *slab,
                         void *object, uintptr_t site)
{
    if ((MM_DEBUG && !poison_on_free(slab, object, site)) ||
        !note_state(object, false)) {
        report_free(&cache->pool, object, site);
        return;
    }
    magazine_push(cache, object);
}

void magazine_flush(struct slab_cache *cache, void *object, uint64_t irq)
{
    struct magazine **first = prepare(cache);

    shrink_note_kept();
    if (*first == &store_no_room) {
        pool_put(&cache->pool, &object, 1);
    } else {
        if (is_full(*first)) {
            get_room(cache, first);
        }
        *++(*first)->top = object;
    }
    port_irq_restore(irq);
}

void magazine_push_bulk(struct slab_cache *cache, void *const *objects,
                        unsigned count)
{
    uint64_t irq = port_irq_save();

    for (unsigned i = 0; i < count; i++) {
        struct magazine *magazine = cache->magazine[port_cpu()];
        port_hide(objects[i], cache->pool.stride);
        if (is_full(magazine)) {
            magazine_flush(cache, objects[i], port_irq_save());
        } else {
            *++magazine->top = objects[i];
        }
    }
    port_irq_restore(irq);
}

static void drain(struct slab_cache *cache, unsigned cpu)
{
    struct magazine **slot = magazine_slot(cache, cpu);
    struct magazine *first = *slot;

    *slot = &store_no_room;
    scrap(cache, first);
}

void magazine_drain_cpu(struct slab_cache *cache)
{
    uint64_t irq = port_irq_save();

    drain(cache, port_cpu());
    port_irq_restore(irq);
}

void magazine_drain(struct slab_cache *cache)
{
    magazine_drain_cpu(cache);
    store_drain(cache);
    pool_trim(&cache->pool);
}

void magazine_drain_all(struct slab_cache *cache)
{
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        drain(cache, cpu);
    }
    store_drain(cache);
    pool_trim(&cache->pool);
}
