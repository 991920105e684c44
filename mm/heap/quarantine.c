/* SPDX-License-Identifier: MIT */
/* quarantine: freed objects wait before they are used again, debug builds. */
/*
 * Owns: the objects that wait.
 *
 * Idea: magazines give out first what came last, so that a block that is
 * still written to has a new owner at once, and the owner is blamed. One queue
 * for all caches keeps each freed object out of reach while as many bytes as
 * it has room for are freed behind it; its poison is looked at when it is used
 * again. KASAN's quarantine in Linux is the same idea.
 *
 * Invariants:
 *   I1  what waits is an object of a cache, out of its slab and not live
 *   I2  bytes is the sum of the strides of what waits
 *
 * Locking: one lock, as one of a store: innermost but for that of the host.
 * Cost: O(1) a free; take and count O(OBJECTS).
 * Limits: large blocks do not wait, their frames go back at once.
 */
#include "heap/quarantine.h"

#include "base/check.h"
#include "base/lock.h"
#include "heap/magazine.h"

/* A slot for each object that waits; a power of two. */
#define OBJECTS 1024

#define DRAINED_AT_ONCE 64

static struct lock lock = LOCK_INIT(LOCK_RANK_STORE);
static uintptr_t waiting[OBJECTS]; /* (L) a ring, inverted: no references */
static uint32_t first;             /* (L) the oldest, modulo OBJECTS */
static uint32_t count;             /* (L) */
static uint64_t bytes;             /* (L) */
static _Atomic uint64_t limit;     /* (A) of bytes */

static void *waiting_at(uint32_t place)
{
    return (void *)~waiting[(first + place) % OBJECTS];
}

static uint64_t bytes_of(const void *object)
{
    return slab_around(object)->pool->stride;
}

static uint64_t limit_now(void)
{
    return atomic_load_explicit(&limit, memory_order_relaxed);
}

void quarantine_init(void)
{
    lock_init(&lock, LOCK_RANK_STORE);
    first = 0;
    count = 0;
    bytes = 0;
    quarantine_set(0);
}

void quarantine_set(uint64_t most)
{
    atomic_store_explicit(&limit, most, memory_order_relaxed);
}

/*
 * The oldest, if it need not wait on; or NULL. A slot stays free, so that the
 * next who enters finds one.
 */
static void *leave(void)
{
    void *object = NULL;
    uint64_t irq = lock_acquire(&lock);

    if (count > 0 && (bytes > limit_now() || count == OBJECTS)) {
        object = waiting_at(0);
        first++;
        count--;
        bytes -= bytes_of(object); // I2
    }
    lock_release(&lock, irq);
    return object;
}

bool quarantine_enter(void *object)
{
    if (limit_now() == 0) {
        return false;
    }
    uint64_t irq = lock_acquire(&lock);
    bool has_room = count < OBJECTS;

    if (has_room) {
        waiting[(first + count) % OBJECTS] = ~(uintptr_t)object;
        count++;
        bytes += bytes_of(object); // I2
    }
    lock_release(&lock, irq);
    for (void *old = leave(); old != NULL; old = leave()) {
        magazine_push(cache_of(slab_around(old)->pool), old);
    }
    return has_room;
}

/* Up to @most objects of @pool, out of the queue. */
static unsigned take(const struct slab_pool *pool, void **out_objects,
                     unsigned most)
{
    unsigned taken = 0;
    uint32_t kept = 0;
    uint64_t irq = lock_acquire(&lock);

    for (uint32_t i = 0; i < count; i++) {
        void *object = waiting_at(i);

        if (taken < most && slab_around(object)->pool == pool) {
            out_objects[taken++] = object;
            bytes -= bytes_of(object); // I2
        } else {
            waiting[(first + kept) % OBJECTS] = ~(uintptr_t)object;
            kept++;
        }
    }
    count = kept;
    lock_release(&lock, irq);
    return taken;
}

void quarantine_drain(struct slab_pool *pool)
{
    void *out[DRAINED_AT_ONCE];
    unsigned taken;

    do {
        taken = take(pool, out, DRAINED_AT_ONCE);
        pool_put(pool, out, taken);
    } while (taken > 0);
}

unsigned quarantine_count(const struct slab_pool *pool)
{
    unsigned found = 0;
    uint64_t irq = lock_acquire(&lock);

    for (uint32_t i = 0; i < count; i++) {
        found += slab_around(waiting_at(i))->pool == pool ? 1 : 0;
    }
    lock_release(&lock, irq);
    return found;
}
