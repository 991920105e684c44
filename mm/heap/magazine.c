/* SPDX-License-Identifier: MIT */
/* magazine: free objects at hand, per CPU and per cache. */
/*
 * Owns: the magazines that CPUs have, and when they are exchanged.
 *
 * Idea: magazines after [Bonwick01 3 "Magazines"]. A CPU has two, of which the
 * fast ways look at the first alone. If that is full its older half moves to
 * the second, and if it is empty as many come back: so the latest objects are
 * handed out first, and an alternation at the edge moves nothing again. The
 * second is exchanged with the store (store.c). The first stays, since other
 * CPUs' stand beside where that is noted: to note another one would cost them
 * a line of their caches, more than it does to move pointers.
 *
 * Picture:
 *
 *   CPU 0  -> [ooo.] -next-> [oooo]
 *   CPU 1  -> [....] -next-> NULL
 *   CPU 2  -> the one without room
 *
 * Each of these first arrows is in the cache, by CPU; of a size class, with
 * MAGAZINE_RESTARTS, in what the CPU has for itself: kfree() need not find the
 * cache then.
 *
 * A magazine is made when its CPU first needs it; until then, and after a
 * drain, the CPU has the one without room: it is always empty and always full,
 * so that the fast ways leave by the checks they make anyway. Without memory
 * for a magazine, objects come from the slabs and go there one by one.
 *
 * Invariants, for magazine_look.c to check:
 *   I1  the floor is NULL, and there are no more objects than have room
 *   I2  what is held is an object of the cache and out of its slab
 *
 * Locking: a magazine belongs to its CPU with interrupts off, or in a sequence
 * that begins anew after an interrupt. While its slabs are asked for objects it
 * is out of reach: who is called for memory then may use the cache, or drain
 * it.
 *
 * Cost: alloc and free a few instructions, and for each half of a magazine a
 * copy of so many pointers, 4 KiB at most. Held at most: two magazines a CPU.
 *
 * Limits: a CPU drains its own magazines only, and of these not one that is
 * just being refilled.
 */
#include "heap/magazine.h"

#include <mm/shrink.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "base/memory.h"
#include "heap/guard.h"

/* Allocations until it is asked again whether guards are on: costs nothing. */
#define BUDGET_UNGUARDED 65536

#if MAGAZINE_RESTARTS
/* x86_64/magazine.asm: behind the last instruction of each sequence. */
extern const char kmalloc_from_end[];
extern const char kmalloc_for_end[];
extern const char kmalloc_push_end[];
extern const char slab_alloc_end[];
extern const char magazine_push_end[];

vaddr_t slab_restart(vaddr_t ip)
{
    const struct {
        vaddr_t start;
        vaddr_t end;
    } sequences[] = {
        {(vaddr_t)kmalloc_from, (vaddr_t)kmalloc_from_end},
        {(vaddr_t)kmalloc_for, (vaddr_t)kmalloc_for_end},
        {(vaddr_t)kmalloc_push, (vaddr_t)kmalloc_push_end},
        {(vaddr_t)slab_alloc, (vaddr_t)slab_alloc_end},
        {(vaddr_t)magazine_push, (vaddr_t)magazine_push_end},
    };

    for (unsigned i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++) {
        if (ip - sequences[i].start < sequences[i].end - sequences[i].start) {
            return sequences[i].start;
        }
    }
    return ip;
}
#else
vaddr_t slab_restart(vaddr_t ip)
{
    return ip;
}
#endif

uint64_t magazine_cache_bytes(void)
{
    return sizeof(struct slab_cache) +
           magazine_pointers() * sizeof(struct magazine *);
}

struct magazine **magazine_of_classes[MM_MAX_CPUS];

void slab_cpu_init(unsigned cpu, void *area)
{
    struct magazine **slots = area;

    for (unsigned i = 0; i < SLAB_CPU_BYTES / sizeof(*slots); i++) {
        slots[i] = &store_no_room;
    }
    magazine_of_classes[cpu] = slots;
}
_Static_assert(SLAB_CPU_BYTES == (1 + KMALLOC_CLASSES) * sizeof(void *),
               "a pointer a class");

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
    uint64_t budget = interval == 0 ? BUDGET_UNGUARDED : interval - 1;

    magazine->granted = budget + magazine_allocs(magazine);
    magazine->state =
        (budget << MAGAZINE_COUNT_BITS) + magazine_count(magazine);
    return interval != 0;
}

static bool is_empty(const struct magazine *magazine)
{
    return magazine_count(magazine) == 0;
}

static uint32_t room_in(const struct magazine *magazine)
{
    return magazine->capacity - magazine_count(magazine);
}

static bool is_full(const struct magazine *magazine)
{
    return room_in(magazine) == 0;
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
    magazine->state += pool_take(&cache->pool, magazine->object + 1,
                                 (magazine->capacity + 1) / 2);
    struct magazine *other = *first;
    /* What was freed meanwhile may be all there is. */
    bool has_none = is_empty(magazine) && !is_empty(other);
    *first = has_none ? other : magazine;
    scrap(cache, has_none ? magazine : other);
}

/* So many objects move between a CPU's two at a time. */
static uint64_t half_of(const struct magazine *first)
{
    return first->capacity / 2;
}

/* The latest objects of the second to the first, which is empty. */
static void move_up(struct magazine *first)
{
    struct magazine *second = first->next;
    uint64_t count = min_u64(magazine_count(second), half_of(first));

    second->state -= count;
    memcpy(first->object + 1, second->object + 1 + magazine_count(second),
           count * sizeof(void *));
    first->state += count;
}

/* The oldest objects of the first, which is full, to the second. */
static void move_down(struct magazine *first)
{
    struct magazine *second = first->next;
    uint64_t count = min_u64(room_in(second), half_of(first));

    memcpy(second->object + 1 + magazine_count(second), first->object + 1,
           count * sizeof(void *));
    second->state += count;
    first->state -= count;
    memmove(first->object + 1, first->object + 1 + count,
            magazine_count(first) * sizeof(void *));
}

/* Objects for the first of a CPU's two; it stays empty if memory is short. */
static void get_objects(struct slab_cache *cache, struct magazine **first)
{
    struct magazine *magazine = *first;

    if (magazine->next != NULL && !is_empty(magazine->next)) {
        move_up(magazine);
        return;
    }
    struct magazine *full = store_refill(cache, magazine->next);
    if (full == NULL) {
        fill(cache, first);
    } else if (full->capacity > magazine->capacity) {
        magazine->next = NULL;
        full->next = magazine;
        *first = full;
    } else {
        magazine->next = full;
        move_up(magazine);
    }
}

/* Is there room for what the first hands over; or as much as there can be? */
static bool is_ready(const struct magazine *second,
                     const struct magazine *first)
{
    return second != NULL &&
           (is_empty(second) || room_in(second) >= half_of(first));
}

/* Room in the first of a CPU's two, which is full. */
static void get_room(struct slab_cache *cache, struct magazine **first)
{
    struct magazine *magazine = *first;
    struct magazine *second = magazine->next;

    if (!is_ready(second, magazine)) {
        magazine->next = NULL;
        magazine->next = store_flush(cache, second);
    }
    if (magazine->next != NULL) {
        move_down(magazine);
        return;
    }
    /* No memory for a second one. */
    uint64_t half = half_of(magazine);
    magazine->state -= half;
    pool_put(&cache->pool, magazine->object + 1 + magazine_count(magazine),
             (unsigned)half);
}

/* Take the latest object of a magazine that has one. */
static void *pop(struct magazine *magazine)
{
    void *object = magazine->object[magazine_count(magazine)];

    magazine->state -= MAGAZINE_TAKEN;
    return object;
}

/* One more into a magazine that has room. */
static void push(struct magazine *magazine, void *object)
{
    magazine->object[magazine_count(magazine) + 1] = object;
    magazine->state++;
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
    } else if (is_empty(*first)) {
        get_objects(cache, first);
    }
    /* Without the first, too: one made meanwhile, for what was freed then. */
    if (!is_empty(*first)) {
        return pop(*first);
    }
    store_count_failure(cache);
    return NULL;
}

/* Return: what the state was. */
static bool note_state(const void *object, bool is_live)
{
    const struct slab *slab = slab_around(object);

    return atomic_exchange_explicit(slab_state(slab, slab_index(slab, object)),
                                    is_live, memory_order_relaxed);
}

/* @object has been taken; its caller may have it. */
static void *hand_out(struct slab_cache *cache, uint64_t bytes, uintptr_t site,
                      void *object)
{
    if (pool_notes_states) {
        note_state(object, true);
    }
    if (MM_DEBUG) {
        poison_on_alloc(object, bytes, site);
    }
    port_show(object, cache->pool.object_bytes);
    return object;
}

/* Is the budget used up, and with guards on? There is a new one then. */
static bool is_turn(struct slab_cache *cache)
{
    uint64_t irq = port_irq_save();
    struct magazine *magazine = *magazine_slot(cache, port_cpu());
    bool is_spent = magazine_budget(magazine) < 0;
    bool answer = is_spent && magazine_grant(magazine);

    port_irq_restore(irq);
    return answer;
}

/* @object is free, and nobody has to be told. Context: interrupts off. */
static void put_back(struct slab_cache *cache, void *object)
{
    struct magazine *magazine = *magazine_slot(cache, port_cpu());

    port_hide(object, cache->pool.stride);
    if (is_full(magazine)) {
        magazine_flush(cache, object);
    } else {
        push(magazine, object);
    }
}

void *magazine_look(struct slab_cache *cache, uint64_t bytes, uintptr_t site,
                    void *object)
{
    if (bytes == 0) {
        bytes = cache->pool.object_bytes;
    }
    void *guarded =
        is_turn(cache) ? guard_alloc(&cache->pool, bytes, site) : NULL;
    if (guarded == NULL) {
        return hand_out(cache, bytes, site, object);
    }
    uint64_t irq = port_irq_save();
    put_back(cache, object);
    port_irq_restore(irq);
    return guarded;
}

void *magazine_refill(struct slab_cache *cache, uint64_t bytes, uintptr_t site)
{
    uint64_t irq = port_irq_save();

    void *object = take(cache);
    shrink_note_kept(); /* not before: it may have drained meanwhile */
    port_irq_restore(irq);
    return object != NULL ? magazine_look(cache, bytes, site, object) : NULL;
}

/* Objects of a magazine, as many as it has. */
static unsigned pop_many(struct magazine *magazine, void **out_objects,
                         unsigned count)
{
    uint64_t most = min_u64(count, magazine_count(magazine));

    if (most == 0) { /* nobody writes to the one without room */
        return 0;
    }
    magazine->state -= most * MAGAZINE_TAKEN;
    memcpy(out_objects, magazine->object + 1 + magazine_count(magazine),
           most * sizeof(void *));
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
    (void)is_turn(cache); /* none of these is guarded; the budget goes on */
    shrink_note_kept();
    port_irq_restore(irq);
    for (unsigned i = 0; i < made; i++) {
        (void)hand_out(cache, cache->pool.object_bytes, site, out_objects[i]);
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
    if (MM_DEBUG && quarantine_enter(object)) {
        return;
    }
    magazine_push(cache, object);
}

void magazine_flush(struct slab_cache *cache, void *object)
{
    uint64_t irq = port_irq_save();
    struct magazine **first = prepare(cache);

    shrink_note_kept();
    if (*first == &store_no_room) {
        pool_put(&cache->pool, &object, 1);
    } else {
        if (is_full(*first)) {
            get_room(cache, first);
        }
        push(*first, object);
    }
    port_irq_restore(irq);
}

void magazine_push_bulk(struct slab_cache *cache, void *const *objects,
                        unsigned count)
{
    uint64_t irq = port_irq_save();

    for (unsigned i = 0; i < count; i++) {
        put_back(cache, objects[i]);
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
