/* SPDX-License-Identifier: MIT */
/* quarantine: freed objects wait before they are used again, debug builds. */
/*
 * Owns: the objects that wait.
 *
 * Idea: magazines give out first what came last, so that a block that is
 * still written to has a new owner at once, and the owner is blamed. A queue
 * a CPU keeps each freed object out of reach while as many bytes as it has
 * room for are freed behind it; its poison is looked at when it is used again.
 * KASAN's quarantine in Linux is the same idea.
 *
 * Invariants:
 *   I1  what waits is an object of a cache, out of its slab and not live
 *   I2  bytes is the sum of the strides of what waits
 *
 * Locking: one lock a queue, which others take only to drain it. It is held
 * until what leaves the queue is in a magazine: who has drained all queues
 * knows that no CPU has an object of his cache in hand.
 * Cost: O(1) a free; drain and count O(OBJECTS) a CPU.
 * Limits: large blocks do not wait, their frames go back at once.
 */
#include "heap/quarantine.h"

#include "base/check.h"
#include "base/lock.h"
#include "heap/magazine.h"

/* A slot for each object that waits; a power of two. */
#define OBJECTS 256

#define DRAINED_AT_ONCE 64

/* (L) lock */
struct queue {
    struct lock lock;
    uint32_t first;             /* (L) the oldest, modulo OBJECTS */
    uint32_t count;             /* (L) */
    uint64_t bytes;             /* (L) */
    uintptr_t waiting[OBJECTS]; /* (L) a ring, inverted: no references */
};

_Static_assert(sizeof(struct queue) <= POOL_SIDE_MAX, "in side storage");

static struct queue *queue_of[MM_MAX_CPUS]; /* (C) once there are any */
static _Atomic unsigned queue_count;        /* (A) 0 until all are there */
static _Atomic uint64_t limit_now; /* (A) of bytes of a queue; 0: none waits */

static void *waiting_at(const struct queue *queue, uint32_t place)
{
    return (void *)~queue->waiting[(queue->first + place) % OBJECTS];
}

static uint64_t bytes_of(const void *object)
{
    return slab_around(object)->pool->stride;
}

/* How many queues there are. */
static unsigned queues(void)
{
    /* Acquire: pairs with the release in make_queues(). */
    return atomic_load_explicit(&queue_count, memory_order_acquire);
}

void quarantine_init(void)
{
    atomic_init(&queue_count, 0);
    atomic_init(&limit_now, 0);
}

/* All or none. */
static enum mm_status make_queues(void)
{
    unsigned made = 0;

    while (made < port_cpu_count()) {
        struct queue *queue = pool_side_alloc(sizeof(*queue));
        if (queue == NULL) {
            goto out_free_queues;
        }
        *queue = (struct queue){.count = 0};
        lock_init(&queue->lock, LOCK_RANK_QUARANTINE);
        queue_of[made++] = queue;
    }
    /* Release: pairs with the acquire in queues(). */
    atomic_store_explicit(&queue_count, made, memory_order_release);
    return MM_OK;

out_free_queues:
    while (made > 0) {
        pool_side_free(queue_of[--made]);
    }
    return MM_ENOMEM;
}

enum mm_status quarantine_set(uint64_t bytes)
{
    if (!MM_DEBUG) {
        return MM_OK;
    }
    if (bytes > 0 && queues() == 0) {
        enum mm_status status = make_queues();
        if (status != MM_OK) {
            return status;
        }
    }
    /* Release: pairs with the acquire in quarantine_enter(). */
    atomic_store_explicit(&limit_now, bytes, memory_order_release);
    return MM_OK;
}

static void append_locked(struct queue *queue, void *object)
{
    queue->waiting[(queue->first + queue->count) % OBJECTS] =
        ~(uintptr_t)object;
    queue->count++;
    queue->bytes += bytes_of(object); // I2
}

/* The oldest becomes free. */
static void leave_locked(struct queue *queue)
{
    void *object = waiting_at(queue, 0);

    queue->first++;
    queue->count--;
    queue->bytes -= bytes_of(object); // I2
    magazine_push(cache_of(slab_around(object)->pool), object);
}

bool quarantine_enter(void *object)
{
    /* Acquire: pairs with the release in quarantine_set(). */
    uint64_t limit = atomic_load_explicit(&limit_now, memory_order_acquire);

    if (!MM_DEBUG || limit == 0) {
        return false;
    }
    uint64_t irq = port_irq_save();
    struct queue *queue = queue_of[port_cpu()];
    uint64_t inner = lock_acquire(&queue->lock);
    if (queue->count == OBJECTS) {
        leave_locked(queue);
    }
    append_locked(queue, object);
    while (queue->bytes > limit) {
        leave_locked(queue);
    }
    lock_release(&queue->lock, inner);
    port_irq_restore(irq);
    return true;
}

/* Up to @most objects of @pool, out of the queue. */
static unsigned take(struct queue *queue, const struct slab_pool *pool,
                     void **out_objects, unsigned most)
{
    unsigned taken = 0;
    uint32_t kept = 0;
    uint64_t irq = lock_acquire(&queue->lock);

    for (uint32_t i = 0; i < queue->count; i++) {
        void *object = waiting_at(queue, i);

        if (taken < most && slab_around(object)->pool == pool) {
            out_objects[taken++] = object;
            queue->bytes -= bytes_of(object); // I2
        } else {
            queue->waiting[(queue->first + kept) % OBJECTS] =
                ~(uintptr_t)object;
            kept++;
        }
    }
    queue->count = kept;
    lock_release(&queue->lock, irq);
    return taken;
}

void quarantine_drain(struct slab_pool *pool)
{
    void *out[DRAINED_AT_ONCE];

    for (unsigned cpu = 0; MM_DEBUG && cpu < queues(); cpu++) {
        unsigned taken;

        do {
            taken = take(queue_of[cpu], pool, out, DRAINED_AT_ONCE);
            pool_put(pool, out, taken);
        } while (taken > 0);
    }
}

static unsigned count_in(struct queue *queue, const struct slab_pool *pool)
{
    unsigned found = 0;
    uint64_t irq = lock_acquire(&queue->lock);

    for (uint32_t i = 0; i < queue->count; i++) {
        found += slab_around(waiting_at(queue, i))->pool == pool ? 1 : 0;
    }
    lock_release(&queue->lock, irq);
    return found;
}

unsigned quarantine_count(const struct slab_pool *pool)
{
    unsigned found = 0;

    for (unsigned cpu = 0; MM_DEBUG && cpu < queues(); cpu++) {
        found += count_in(queue_of[cpu], pool);
    }
    return found;
}
