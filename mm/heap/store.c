/* SPDX-License-Identifier: MIT */
/* store: the magazines of a cache that no CPU has. */
/*
 * Owns: the magazines of all caches as long as no CPU has them.
 *
 * Idea: the depot of [Bonwick01 3 "Magazines"]. A CPU hands over a magazine
 * that is full, or has no room for what comes, and gets an empty one, or the
 * other way round: an exchange of two pointers, whatever their number of
 * objects.
 *
 * How much a store holds follows the load. It begins with HOLDS_LEAST bytes.
 * If refills found nothing and later a full magazine finds no room, both would
 * have been spared by a larger store. That is a swing. One alone may be the way
 * of things (much is built, much is taken down) and gives the store no more
 * than it had at first; after GROW_SWINGS it may hold what was missed. What was
 * there all the time from one look to the next (its low-water mark) was held
 * for nothing: it goes back to the slabs, and the store may hold half as much.
 * A look comes after as many exchanges as would empty and fill it twice, so
 * that a swing of its contents is not taken for rest. And if a store is asked
 * often, its magazines grow, so that it is asked less.
 *
 * Picture:
 *
 *   CPU 0 [ooo.] [oooo]   CPU 1 [o...] [....]   CPU 2 -> the one without room
 *             \                 /
 *   store    full: [oooo]-[oooo]   empty: [....]        low-water mark: 4
 *
 * Invariants:
 *   I1  depth is the number of the full magazines, none of which is empty, and
 *       count that of their objects
 *   I2  low <= count, and the empty ones are empty
 *
 * Locking: one lock a store, held to link magazines. Slabs and side storage
 * are taken and given outside it.
 *
 * Cost: an exchange O(1), and objects that go back to the slabs O(1) each.
 * Held at most: HOLDS_MOST bytes, which a cache has to earn by its load.
 */
#include "heap/store.h"

#include "base/bits.h"
#include "base/check.h"
#include "heap/magazine.h"

/* Bytes of objects that a store may hold, at first and at last. */
#define HOLDS_LEAST (32 * KiB)
#define HOLDS_MOST  (16 * MiB)

/* The same of a magazine; but always ROOM_LEAST objects. */
#define MAGAZINE_LEAST (8 * KiB)
#define MAGAZINE_MOST  (64 * KiB)
#define ROOM_LEAST     2u

/* log2 bytes of their arrays: 11 and 1,019 objects, beside what else is there.
 */
#define ARRAY_SHIFT_MIN 7
#define ARRAY_SHIFT_MAX 13

/* Often enough to follow the load, seldom enough to have seen a swing. */
#define LOOK_ROUNDS 8
#define LOOK_SWINGS 2
/* So often too empty and then too full: it may hold more. */
#define GROW_SWINGS 3
/* Refills that larger magazines would have spared. */
#define GROW_HITS 16
/* Magazines that one exchange sends back to the slabs, at most. */
#define SCRAP_MOST 8

struct magazine store_no_room = {.object = {NULL}};

static uint32_t objects_of(const struct slab_cache *cache, uint64_t bytes)
{
    return (uint32_t)max_u64(bytes / cache->pool.stride, ROOM_LEAST);
}

/* Pointers that an array of 2^@shift bytes has room for. */
static uint32_t room_of(unsigned shift)
{
    uint64_t bytes = (UINT64_C(1) << shift) - sizeof(struct magazine);

    return (uint32_t)(bytes / sizeof(void *) - 1);
}

/* Objects of a magazine of @bytes of them, as far as arrays have room. */
static uint32_t room_for(const struct slab_cache *cache, uint64_t bytes)
{
    return (uint32_t)min_u64(objects_of(cache, bytes),
                             room_of(ARRAY_SHIFT_MAX));
}

void store_init(struct slab_cache *cache)
{
    cache->store = (struct store){.holds = objects_of(cache, HOLDS_LEAST),
                                  .room = room_for(cache, MAGAZINE_LEAST)};
    lock_init(&cache->store.lock, LOCK_RANK_STORE);
}

/* 2^*@shift bytes, or fewer, where memory is in pieces; NULL if it is short. */
static struct magazine *array_alloc(unsigned *shift)
{
    struct magazine *array = pool_side_alloc(UINT64_C(1) << *shift);

    while (array == NULL && *shift > ARRAY_SHIFT_MIN) {
        array = pool_side_alloc(UINT64_C(1) << --*shift);
    }
    return array;
}

struct magazine *store_make(struct slab_cache *cache)
{
    uint32_t room =
        atomic_load_explicit(&cache->store.room, memory_order_relaxed);
    unsigned shift = ARRAY_SHIFT_MIN;

    while (shift < ARRAY_SHIFT_MAX && room_of(shift) < room) {
        shift++;
    }
    struct magazine *magazine = array_alloc(&shift);
    if (magazine == NULL) {
        return NULL;
    }
    *magazine =
        (struct magazine){.capacity = (uint32_t)min_u64(room, room_of(shift))};
    magazine->object[0] = NULL;
    (void)magazine_grant(magazine);
    return magazine;
}

/* Count what @magazine has served, and no longer in it. */
static void collect_allocs_locked(struct store *store,
                                  struct magazine *magazine)
{
    store->allocs += magazine_allocs(magazine);
    magazine->granted = (uint64_t)magazine_budget(magazine);
}

static void push(struct magazine **list, struct magazine *magazine)
{
    magazine->next = *list;
    *list = magazine;
}

static struct magazine *pop(struct magazine **list)
{
    struct magazine *magazine = *list;

    if (magazine != NULL) {
        *list = magazine->next;
        magazine->next = NULL;
    }
    return magazine;
}

static struct magazine *take_full_locked(struct store *store)
{
    struct magazine *full = pop(&store->full);

    if (full != NULL) {
        store->depth--;
        store->count -= magazine_count(full);
    }
    return full;
}

static void give_full_locked(struct store *store, struct magazine *full)
{
    push(&store->full, full);
    store->depth++;
    store->count += magazine_count(full);
}

/* The objects of @magazine to their slabs; it is empty then. */
static void empty_out(struct slab_cache *cache, struct magazine *magazine)
{
    pool_put(&cache->pool, magazine->object + 1, magazine_count(magazine));
    magazine->state -= magazine_count(magazine);
}

void store_scrap(struct slab_cache *cache, struct magazine *magazine)
{
    empty_out(cache, magazine);
    uint64_t irq = lock_acquire(&cache->store.lock);
    collect_allocs_locked(&cache->store, magazine);
    lock_release(&cache->store.lock, irq);
    pool_side_free(magazine);
}

static void scrap_list(struct slab_cache *cache, struct magazine *list)
{
    while (list != NULL) {
        store_scrap(cache, pop(&list));
    }
}

/*
 * An exchange has taken place. Return: magazines that nobody has needed for a
 * while, a list.
 */
static struct magazine *trim_locked(struct slab_cache *cache)
{
    struct store *store = &cache->store;
    struct magazine *idle = NULL;

    store->exchanges++;
    store->rounds++;
    store->low = (uint32_t)min_u64(store->low, store->count);
    store->peak = (uint32_t)max_u64(store->peak, store->depth);
    if (store->rounds < LOOK_ROUNDS + LOOK_SWINGS * 2 * store->peak) {
        return NULL;
    }
    for (unsigned i = 0; i < SCRAP_MOST && store->full != NULL &&
                         magazine_count(store->full) <= store->low;
         i++) {
        struct magazine *magazine = take_full_locked(store);
        store->low -= magazine_count(magazine);
        push(&idle, magazine);
    }
    if (idle != NULL) {
        store->holds /= 2;
    }
    store->low = store->count;
    store->peak = store->depth;
    store->rounds = 0;
    return idle;
}

/* Refills come here again and again: next time, magazines are larger. */
static void count_hit_locked(struct slab_cache *cache)
{
    struct store *store = &cache->store;
    uint32_t most = room_for(cache, MAGAZINE_MOST);

    if (++store->hits >= GROW_HITS && store->room < most) {
        store->room = (uint32_t)min_u64(UINT64_C(2) * store->room, most);
        store->hits = 0;
    }
}

struct magazine *store_refill(struct slab_cache *cache, struct magazine *empty)
{
    struct store *store = &cache->store;
    struct magazine *scrap = NULL;
    uint64_t irq = lock_acquire(&store->lock);
    struct magazine *full = take_full_locked(store);

    if (full == NULL) {
        store->missed += store->room / 2;
    } else {
        count_hit_locked(cache);
        if (empty != NULL) {
            collect_allocs_locked(store, empty);
            push(empty->capacity < store->room ? &scrap : &store->empty, empty);
        }
    }
    struct magazine *idle = trim_locked(cache);
    lock_release(&store->lock, irq);
    scrap_list(cache, scrap);
    scrap_list(cache, idle);
    return full;
}

/* Is there room for @count objects more, or has the load earned some? */
static bool has_room_locked(struct slab_cache *cache, uint32_t count)
{
    struct store *store = &cache->store;

    if (store->count + count > store->holds && store->missed > 0) {
        store->swings++;
        uint64_t most = store->swings < GROW_SWINGS ? HOLDS_LEAST : HOLDS_MOST;
        uint64_t wanted =
            min_u64(store->holds + store->missed, objects_of(cache, most));
        store->holds = (uint32_t)max_u64(store->holds, wanted);
        store->missed = 0;
    }
    return store->count + count <= store->holds;
}

struct magazine *store_flush(struct slab_cache *cache, struct magazine *full)
{
    struct store *store = &cache->store;
    struct magazine *empty = NULL;
    uint64_t irq = lock_acquire(&store->lock);

    if (full != NULL && has_room_locked(cache, magazine_count(full))) {
        collect_allocs_locked(store, full);
        give_full_locked(store, full);
        full = NULL;
    }
    if (full == NULL) {
        empty = pop(&store->empty);
    }
    struct magazine *idle = trim_locked(cache);
    lock_release(&store->lock, irq);
    scrap_list(cache, idle);
    if (full != NULL) {
        empty_out(cache, full);
        return full;
    }
    return empty != NULL ? empty : store_make(cache);
}

void store_drain(struct slab_cache *cache)
{
    struct store *store = &cache->store;
    uint64_t irq = lock_acquire(&store->lock);
    struct magazine *full = store->full;
    struct magazine *empty = store->empty;

    store->full = NULL;
    store->empty = NULL;
    store->depth = 0;
    store->count = 0;
    store->low = 0;
    store->peak = 0;
    store->room = room_for(cache, MAGAZINE_LEAST);
    store->holds = objects_of(cache, HOLDS_LEAST);
    store->missed = 0;
    store->swings = 0;
    lock_release(&store->lock, irq);
    scrap_list(cache, full);
    scrap_list(cache, empty);
}

void store_count_alloc(struct slab_cache *cache)
{
    uint64_t irq = lock_acquire(&cache->store.lock);

    cache->store.allocs++;
    lock_release(&cache->store.lock, irq);
}

void store_count_failure(struct slab_cache *cache)
{
    uint64_t irq = lock_acquire(&cache->store.lock);

    cache->store.failures++;
    lock_release(&cache->store.lock, irq);
}

bool store_check(const struct slab_cache *cache)
{
    const struct store *store = &cache->store;
    const char *name = cache->pool.name;
    uint64_t count = 0;
    uint64_t depth = 0;

    for (const struct magazine *at = store->full; at != NULL; at = at->next) {
        CHECK_OR_FAIL(magazine_count(at) > 0 && count < store->count, // I1
                      "%s: the store's full magazines hold not %u objects",
                      name, store->count);
        count += magazine_count(at);
        depth++;
    }
    for (const struct magazine *at = store->empty; at != NULL; at = at->next) {
        CHECK_OR_FAIL(magazine_count(at) == 0, // I2
                      "%s: an empty magazine holds %u objects", name,
                      magazine_count(at));
    }
    CHECK_OR_FAIL(count == store->count && depth == store->depth &&
                      store->low <= count, // I1, I2
                  "%s: %u objects in the store for %u, low-water mark %u", name,
                  (unsigned)count, store->count, store->low);
    return true;
}
