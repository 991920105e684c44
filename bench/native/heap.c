/* SPDX-License-Identifier: MIT */
/* heap: workloads of small objects. Every object's first word is written. */
#include <stdatomic.h>
#include <stdio.h>

#include "bench/native/native.h"

static void set_up_batch(struct native_worker *worker)
{
    worker->object = native_own(worker->count * sizeof(void *));
    native_shuffle(worker);
}

static void set_up_none(struct native_worker *worker)
{
    (void)worker;
}

static uint64_t pair(struct native_worker *worker, uint64_t pairs)
{
    for (uint64_t i = 0; i < pairs; i++) {
        native.free(native_object(worker->bytes));
    }
    return pairs;
}

/* A batch is allocated, then freed in random order. */
static uint64_t batch(struct native_worker *worker, uint64_t pairs)
{
    uint64_t made = 0;

    while (made < pairs) {
        for (uint64_t i = 0; i < worker->count; i++) {
            worker->object[i] = native_object(worker->bytes);
        }
        for (uint64_t i = 0; i < worker->count; i++) {
            native.free(worker->object[worker->turn[i]]);
        }
        made += worker->count;
    }
    return made;
}

/* A random one of the objects gives way to one of @least to @most bytes. */
static inline void replace(struct native_worker *worker, size_t least,
                           size_t most)
{
    uint64_t random = native_random(worker);
    void **slot = &worker->object[native_below(random, worker->count)];

    native.free(*slot);
    *slot = native_object(native_between(random, least, most));
}

#define MIXED_LEAST  8
#define MIXED_MOST   2048
#define LARSON_LEAST 8 /* as its authors and mimalloc-bench run it */
#define LARSON_MOST  1000

static void fill(struct native_worker *worker, size_t least, size_t most)
{
    worker->object = native_own(worker->count * sizeof(void *));
    for (uint64_t i = 0; i < worker->count; i++) {
        worker->object[i] =
            native_object(native_between(native_random(worker), least, most));
    }
}

static void set_up_mixed(struct native_worker *worker)
{
    fill(worker, MIXED_LEAST, MIXED_MOST);
}

static uint64_t mixed(struct native_worker *worker, uint64_t pairs)
{
    for (uint64_t i = 0; i < pairs; i++) {
        replace(worker, MIXED_LEAST, MIXED_MOST);
    }
    return pairs;
}

static void set_up_larson(struct native_worker *worker)
{
    fill(worker, LARSON_LEAST, LARSON_MOST);
}

static uint64_t larson(struct native_worker *worker, uint64_t pairs)
{
    for (uint64_t i = 0; i < pairs; i++) {
        replace(worker, LARSON_LEAST, LARSON_MOST);
    }
    return pairs;
}

/* --- from one thread to the other ----------------------------------------- */

#define RING       1024 /* a power of two */
#define CACHE_LINE 64

/* One writes `sent` and the other `taken`: never on the same line. */
static struct {
    _Alignas(CACHE_LINE) void *object[RING];
    _Alignas(CACHE_LINE) _Atomic uint64_t sent;
    _Alignas(CACHE_LINE) _Atomic uint64_t taken;
} ring;

static void produce(struct native_worker *worker, uint64_t pairs)
{
    uint64_t sent = atomic_load_explicit(&ring.sent, memory_order_relaxed);
    uint64_t limit = sent;

    for (uint64_t i = 0; i < pairs; i++, sent++) {
        void *object = native_object(worker->bytes);
        /* Acquire: its place has been read; pairs with consume(). */
        while (sent == limit) {
            limit =
                RING + atomic_load_explicit(&ring.taken, memory_order_acquire);
        }
        ring.object[sent % RING] = object;
        /* Release: the object is written; pairs with consume(). */
        atomic_store_explicit(&ring.sent, sent + 1, memory_order_release);
    }
}

static void consume(struct native_worker *worker, uint64_t pairs)
{
    uint64_t taken = atomic_load_explicit(&ring.taken, memory_order_relaxed);
    uint64_t limit = taken;

    for (uint64_t i = 0; i < pairs; i++, taken++) {
        /* Acquire: pairs with produce(). */
        while (taken == limit) {
            limit = atomic_load_explicit(&ring.sent, memory_order_acquire);
        }
        void *object = ring.object[taken % RING];
        if (*(volatile uint64_t *)object != worker->bytes) {
            native_fail("an object changed on its way");
        }
        native.free(object);
        /* Release: pairs with produce(). */
        atomic_store_explicit(&ring.taken, taken + 1, memory_order_release);
    }
}

static uint64_t hand_over(struct native_worker *worker, uint64_t pairs)
{
    if (worker->thread == 0) {
        produce(worker, pairs);
    } else {
        consume(worker, pairs);
    }
    return pairs;
}

/* --- the table ------------------------------------------------------------ */

#define PAIR(size)                                                             \
    (&(const struct native_work){set_up_none, pair, 1, 0, (size), 1})
#define BATCH(number, size, threads)                                           \
    (&(const struct native_work){set_up_batch, batch, (threads), 0, (size),    \
                                 (number)})

const struct native_row native_heap_rows[] = {
    {"pair 64 B", "heap", PAIR(64), NULL},
    {"pair 4 KiB", "heap", PAIR(4096), NULL},
    {"batch 1,000 x 64 B", "heap", BATCH(1000, 64, 1), NULL},
    {"batch 1,000 x 1 KiB", "heap", BATCH(1000, 1024, 1), NULL},
    {"batch 100,000 x 64 B", "heap", BATCH(100000, 64, 1), NULL},
    {"mixed 8..2048 B", "heap",
     &(const struct native_work){set_up_mixed, mixed, 1, 0, 0, 10000}, NULL},
    {"larson 1,000 slots", "heap",
     &(const struct native_work){set_up_larson, larson, 1, 0, 0, 1000}, NULL},
    {"2 threads, pass 16 B", "heap",
     &(const struct native_work){set_up_none, hand_over, 2, 0, 16, 1}, NULL},
    {"2 threads, batch 64 B", "heap", BATCH(1000, 64, 2), NULL},
    {"2 threads, mixed", "heap",
     &(const struct native_work){set_up_mixed, mixed, 2, 0, 0, 10000}, NULL},
    {"trace", "heap", NULL, native_trace},
    {NULL, NULL, NULL, NULL},
};
