/* SPDX-License-Identifier: MIT */
/* magazine: free objects at hand, per CPU and per cache. */
/*
 * Owns: the magazines of all caches, and their central stores.
 *
 * Idea: magazines after [Bonwick01 3 "Magazines"], but as one array a CPU that
 * exchanges half of itself, so that it is neither full nor empty afterwards
 * and an alternation at its edge does not repeat the exchange. The central
 * store takes such batches from one CPU and gives them to another. What it
 * did not need over TRIM_EXCHANGES exchanges (its low-water mark) was cached
 * for nothing and goes back to the slabs.
 *
 * Picture:
 *
 *   CPU 0 [ooo.]   CPU 1 [o...]   CPU 2 -> the magazine without room
 *            \        /
 *   store  [ooooooooo|oo......]       low-water mark: |
 *            |
 *   slabs  [1101][0000][1111]
 *
 * A magazine is made when its CPU first needs it; until then, and after a
 * drain, the CPU has the one without room: it is always empty and always full,
 * so that the fast paths leave by the checks they make anyway. The store is
 * made in the same way. Without memory for either, objects come from the
 * slabs and go there one by one.
 *
 * Invariants:
 *   I1  count <= capacity; store_low <= count of the store
 *   I2  what is held is an object of the cache and out of its slab
 *
 * Locking: a magazine belongs to its CPU with interrupts off. The store has a
 * lock, held to copy a batch. The store's lock, the pool's lock and that of
 * side storage are taken one after the other, never one inside another.
 *
 * Cost: alloc and free a few instructions, an exchange O(batch). Held at most:
 * MAGAZINE_HOLDS a CPU and STORE_HOLDS a cache, or 11 objects if that is more.
 *
 * Limits: a CPU drains its own magazines only, and of these not one that is
 * just being refilled.
 */
#include "heap/magazine.h"

#include "base/bits.h"
#include "base/memory.h"
#include "heap/guard.h"

/* The bytes of objects that wait in a magazine and in a store. */
#define MAGAZINE_HOLDS (16 * KiB)
#define STORE_HOLDS    (64 * KiB)

/* log2 bytes of their arrays: room for 11, 59 and 507 pointers. */
#define ARRAY_SHIFT_MIN    7
#define MAGAZINE_SHIFT_MAX 9
#define STORE_SHIFT_MAX    12

/* Half of the largest magazine: what an exchange moves at most. */
#define BATCH_MAX (((1u << MAGAZINE_SHIFT_MAX) / sizeof(void *)) / 2)

/* Often enough to follow the load, seldom enough to have seen a swing. */
#define TRIM_EXCHANGES 16

/* Allocations until it is asked again whether guards are on: costs nothing. */
#define BUDGET_UNGUARDED 65536

/* Read by everybody, written by nobody. */
static struct magazine no_room = {
    .top = no_room.object, .last = no_room.object, .object = {NULL}};

uint64_t magazine_cache_bytes(void)
{
    return sizeof(struct slab_cache) +
           port_cpu_count() * sizeof(struct magazine *);
}

/* Bytes of an array for about @bytes worth of objects of @stride. */
static uint32_t array_bytes(uint64_t bytes, uint64_t stride, unsigned max_shift)
{
    uint64_t pointers = max_u64(bytes / stride, 1);
    unsigned shift = highest_bit(pointers * sizeof(void *));

    shift = (unsigned)max_u64(shift, ARRAY_SHIFT_MIN);
    return 1u << min_u64(shift, max_shift);
}

void magazine_init(struct slab_cache *cache)
{
    uint32_t stride = cache->pool.stride;

    lock_init(&cache->store_lock, LOCK_RANK_STORE);
    cache->magazine_bytes =
        array_bytes(MAGAZINE_HOLDS, stride, MAGAZINE_SHIFT_MAX);
    cache->store_bytes = array_bytes(STORE_HOLDS, stride, STORE_SHIFT_MAX);
    cache->store_low = 0;
    cache->store_exchanges = 0;
    cache->store = &no_room;
    cache->allocs = 0;
    cache->failures = 0;
    cache->next = NULL;
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        cache->magazine[cpu] = &no_room;
    }
}

/* An empty array in @bytes of side storage, or the one without room. */
static struct magazine *array_make(uint32_t bytes)
{
    struct magazine *array = pool_side_alloc(bytes);

    if (array == NULL) {
        return &no_room;
    }
    array->object[0] = NULL;
    array->top = array->object;
    array->last = array->object + (bytes - sizeof(*array)) / sizeof(void *) - 1;
    array->allocs = 0;
    array->granted = 0;
    array->budget = 0;
    return array;
}

/* How many were served from @magazine. */
static uint64_t allocs_of(const struct magazine *magazine)
{
    return magazine->allocs + (magazine->granted - magazine->budget);
}

/*
 * The next so many allocations are made without a look. Return: false: it is
 * nobody's turn to be guarded.
 */
static bool grant(struct magazine *magazine)
{
    uint32_t interval = guard_interval();

    magazine->allocs = allocs_of(magazine);
    magazine->granted = interval == 0 ? BUDGET_UNGUARDED : interval;
    magazine->budget = magazine->granted;
    return interval != 0;
}

/* Take the latest object of a magazine that has one. */
static void *pop(struct magazine *magazine)
{
    if (--magazine->budget == 0) {
        (void)grant(magazine);
    }
    return *magazine->top--;
}

/* Put @count objects on top; there is room. */
static void stack(struct magazine *array, void *const *objects, unsigned count)
{
    memcpy(array->top + 1, objects, count * sizeof(void *));
    array->top += count;
}

static void array_free(struct magazine *array)
{
    if (array != &no_room) {
        pool_side_free(array);
    }
}

static bool has_store(struct slab_cache *cache)
{
    uint64_t irq = lock_acquire(&cache->store_lock);
    bool has_one = cache->store != &no_room;

    lock_release(&cache->store_lock, irq);
    return has_one;
}

/* Have a store if there is memory for one. */
static void store_prepare(struct slab_cache *cache)
{
    if (has_store(cache)) {
        return;
    }
    struct magazine *fresh = array_make(cache->store_bytes);
    uint64_t irq = lock_acquire(&cache->store_lock);
    if (cache->store == &no_room) {
        cache->store = fresh;
        fresh = &no_room;
    }
    lock_release(&cache->store_lock, irq);
    array_free(fresh); /* another CPU was faster */
}

/*
 * An exchange has taken place. Return: how many objects, now in @out_idle,
 * nobody has needed for a while. They lie at the bottom of the stack.
 */
static unsigned trim_locked(struct slab_cache *cache, void **out_idle)
{
    struct magazine *store = cache->store;
    uint32_t count = magazine_count(store);
    unsigned idle = 0;

    cache->store_low = (uint32_t)min_u64(cache->store_low, count);
    cache->store_exchanges++;
    if (cache->store_exchanges >= TRIM_EXCHANGES) {
        idle = (unsigned)min_u64(cache->store_low, BATCH_MAX);
        memcpy(out_idle, store->object + 1, idle * sizeof(void *));
        memmove(store->object + 1, store->object + 1 + idle,
                (count - idle) * sizeof(void *));
        store->top -= idle;
        cache->store_low = count - idle;
        cache->store_exchanges = 0;
    }
    return idle;
}

/* Up to @count objects from the store. */
static unsigned store_take(struct slab_cache *cache, void **out_objects,
                           unsigned count)
{
    void *idle[BATCH_MAX];
    uint64_t irq = lock_acquire(&cache->store_lock);
    struct magazine *store = cache->store;
    unsigned taken = (unsigned)min_u64(count, magazine_count(store));

    if (taken > 0) {
        store->top -= taken;
        memcpy(out_objects, store->top + 1, taken * sizeof(void *));
    }
    unsigned idle_count = store == &no_room ? 0 : trim_locked(cache, idle);
    lock_release(&cache->store_lock, irq);
    pool_put(&cache->pool, idle, idle_count);
    return taken;
}

/* Objects to the store; what it has no room for goes to the slabs. */
static void store_give(struct slab_cache *cache, void *const *objects,
                       unsigned count)
{
    void *idle[BATCH_MAX];
    unsigned idle_count = 0;
    unsigned given = 0;

    store_prepare(cache);
    uint64_t irq = lock_acquire(&cache->store_lock);
    struct magazine *store = cache->store;
    if ((uint32_t)(store->last - store->top) >= count) {
        stack(store, objects, count);
        given = count;
        idle_count = trim_locked(cache, idle);
    }
    lock_release(&cache->store_lock, irq);
    pool_put(&cache->pool, objects + given, count - given);
    pool_put(&cache->pool, idle, idle_count);
}

/* This CPU's magazine, made now if there is memory for it. */
static struct magazine *magazine_prepare(struct slab_cache *cache)
{
    struct magazine **mine = &cache->magazine[port_cpu()];

    if (*mine == &no_room) {
        *mine = array_make(cache->magazine_bytes);
        if (*mine != &no_room) {
            (void)grant(*mine);
        }
    }
    return *mine;
}

/* Up to @count objects from the tiers below. */
static unsigned take_below(struct slab_cache *cache, void **out_objects,
                           unsigned count)
{
    unsigned taken = store_take(cache, out_objects, count);

    return taken > 0 ? taken : pool_take(&cache->pool, out_objects, count);
}

/* For statistics: an allocation no magazine has counted. */
static void count_slow_alloc(struct slab_cache *cache, bool is_failure)
{
    uint64_t irq = lock_acquire(&cache->store_lock);

    cache->allocs += is_failure ? 0 : 1;
    cache->failures += is_failure ? 1 : 0;
    lock_release(&cache->store_lock, irq);
}

/* An object for a magazine that is empty, and half a magazine more. */
static void *refill(struct slab_cache *cache)
{
    void *single;
    struct magazine *magazine = magazine_prepare(cache);
    bool has_room = magazine != &no_room;
    void **room = has_room ? magazine->object + 1 : &single;
    unsigned batch = has_room ? magazine_capacity(magazine) / 2 : 1;
    unsigned cpu = port_cpu();

    /* Out of the way: if memory is short, all magazines may be drained. */
    cache->magazine[cpu] = &no_room;
    unsigned count = take_below(cache, room, batch);
    cache->magazine[cpu] = magazine;
    if (count == 0) {
        count_slow_alloc(cache, true);
        return NULL;
    }
    if (!has_room) {
        count_slow_alloc(cache, false);
        return single;
    }
    magazine->top = magazine->object + count;
    return pop(magazine);
}

/* The budget is used up, and there are objects. */
static void *alloc_guarded(struct slab_cache *cache, struct magazine *magazine,
                           uint64_t bytes, uintptr_t site)
{
    bool is_turn = grant(magazine);

    magazine->allocs--; /* none of them was this one */
    return is_turn ? guard_alloc(&cache->pool, bytes, site) : NULL;
}

void *magazine_refill(struct slab_cache *cache, uint64_t bytes, uintptr_t site,
                      uint64_t irq)
{
    struct magazine *magazine = cache->magazine[port_cpu()];
    void *object = NULL;

    if (bytes == 0) {
        bytes = cache->pool.object_bytes;
    }
    if (*magazine->top != NULL) {
        object = alloc_guarded(cache, magazine, bytes, site);
        if (object != NULL) {
            port_irq_restore(irq);
            return object;
        }
        /* A guard waits for nobody, but it may have drained this CPU. */
        magazine = cache->magazine[port_cpu()];
    }
    object = *magazine->top != NULL ? pop(magazine) : refill(cache);
    port_irq_restore(irq);
    if (MM_DEBUG && object != NULL) {
        poison_on_alloc(object, bytes, site);
    }
    return object;
}

void magazine_flush(struct slab_cache *cache, void *object, uint64_t irq)
{
    struct magazine *magazine = magazine_prepare(cache);

    if (magazine->top == magazine->last && magazine != &no_room) {
        unsigned batch = magazine_capacity(magazine) / 2;
        magazine->top -= batch;
        store_give(cache, magazine->top + 1, batch);
    }
    if (magazine->top != magazine->last) {
        *++magazine->top = object;
    } else {
        pool_put(&cache->pool, &object, 1); /* no magazine */
    }
    port_irq_restore(irq);
}

/* The magazine of @cpu back to the slabs, and its array, too. */
static void drain_magazine(struct slab_cache *cache, unsigned cpu)
{
    struct magazine *magazine = cache->magazine[cpu];

    if (magazine == &no_room) {
        return;
    }
    cache->magazine[cpu] = &no_room;
    pool_put(&cache->pool, magazine->object + 1, magazine_count(magazine));
    uint64_t irq = lock_acquire(&cache->store_lock);
    cache->allocs += allocs_of(magazine);
    lock_release(&cache->store_lock, irq);
    array_free(magazine);
}

static void drain_store(struct slab_cache *cache)
{
    uint64_t irq = lock_acquire(&cache->store_lock);
    struct magazine *store = cache->store;

    cache->store = &no_room;
    cache->store_low = 0;
    lock_release(&cache->store_lock, irq);
    pool_put(&cache->pool, store->object + 1, magazine_count(store));
    array_free(store);
}

void magazine_drain_cpu(struct slab_cache *cache)
{
    uint64_t irq = port_irq_save();

    drain_magazine(cache, port_cpu());
    port_irq_restore(irq);
}

void magazine_drain(struct slab_cache *cache)
{
    magazine_drain_cpu(cache);
    drain_store(cache);
    pool_trim(&cache->pool);
}

void magazine_drain_all(struct slab_cache *cache)
{
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        drain_magazine(cache, cpu);
    }
    drain_store(cache);
    pool_trim(&cache->pool);
}

void magazine_sum(const struct slab_cache *cache, uint64_t *out_cached,
                  uint64_t *out_allocs)
{
    *out_cached = magazine_count(cache->store);
    *out_allocs = cache->allocs;
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        *out_cached += magazine_count(cache->magazine[cpu]);
        *out_allocs += allocs_of(cache->magazine[cpu]);
    }
}

static bool array_holds(const struct magazine *array, const void *object)
{
    for (uint32_t i = 1; i <= magazine_count(array); i++) {
        if (array->object[i] == object) {
            return true;
        }
    }
    return false;
}

bool magazine_holds(const struct slab_cache *cache, const void *object)
{
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        if (array_holds(cache->magazine[cpu], object)) {
            return true;
        }
    }
    return array_holds(cache->store, object);
}

static bool check_array(const struct slab_cache *cache,
                        const struct magazine *array)
{
    const char *name = cache->pool.name;

    CHECK_OR_FAIL(array->object[0] == NULL &&
                      magazine_count(array) <= magazine_capacity(array), // I1
                  "%s: %u objects in room for %u", name, magazine_count(array),
                  magazine_capacity(array));
    for (uint32_t i = 1; i <= magazine_count(array); i++) {
        const void *object = array->object[i];
        const struct slab *slab = slab_of(object);
        CHECK_OR_FAIL(slab != NULL && slab->pool == &cache->pool &&
                          slab_is_object(slab, object) &&
                          slab_is_out(slab, slab_index(slab, object)), // I2
                      "%s holds 0x%lx, which is no object of it that is out",
                      name, (unsigned long)object);
    }
    return true;
}

bool magazine_check(const struct slab_cache *cache)
{
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        if (!check_array(cache, cache->magazine[cpu])) {
            return false;
        }
    }
    CHECK_OR_FAIL(cache->store_low <= magazine_count(cache->store), // I1
                  "%s: low-water mark %u above %u", cache->pool.name,
                  cache->store_low, magazine_count(cache->store));
    return check_array(cache, cache->store);
}
