/* SPDX-License-Identifier: MIT */
/* bench_heap: what memory from the heap costs, one by one and in batches. */
#include "kernel/bench_impl.h"

#include <mm/kmalloc.h>
#include <mm/slab.h>

#define OBJECT_BYTES 200
#define SEED         12345 /* bench/linux has the same order */

static struct slab_cache *cache; /* objects of OBJECT_BYTES */
static void *blocks[BENCH_BATCH];
static unsigned shuffled[BENCH_BATCH];
static volatile uint64_t variable_bytes = 64;

/* --- operations: true if they worked -------------------------------------- */

/* Sizes are constants, as they are for most callers. */
static inline bool pair(uint64_t bytes)
{
    void *block = kmalloc(bytes);

    if (block == NULL) {
        return false;
    }
    kfree(block);
    return true;
}

static bool do_kmalloc_8(unsigned argument)
{
    (void)argument;
    return pair(8);
}

static bool do_kmalloc_64(unsigned argument)
{
    (void)argument;
    return pair(64);
}

static bool do_kmalloc_512(unsigned argument)
{
    (void)argument;
    return pair(512);
}

static bool do_kmalloc_1024(unsigned argument)
{
    (void)argument;
    return pair(1024);
}

static bool do_kmalloc_4096(unsigned argument)
{
    (void)argument;
    return pair(4096);
}

static bool do_kmalloc_16k(unsigned argument)
{
    (void)argument;
    return pair(16 * KiB);
}

static bool do_kmalloc_variable(unsigned argument)
{
    (void)argument;
    return pair(variable_bytes);
}

static bool do_slab(unsigned argument)
{
    (void)argument;
    void *object = slab_alloc(cache);

    if (object == NULL) {
        return false;
    }
    slab_free(cache, object);
    return true;
}

/* Fill with blocks of @bytes, and free them out of order. */
static inline bool batch(uint64_t bytes)
{
    bool success = true;

    for (unsigned i = 0; i < BENCH_BATCH; i++) {
        blocks[i] = kmalloc(bytes);
        success = success && blocks[i] != NULL;
    }
    for (unsigned i = 0; i < BENCH_BATCH; i++) {
        kfree(blocks[shuffled[i]]);
    }
    return success;
}

static bool do_batch_64(unsigned argument)
{
    (void)argument;
    return batch(64);
}

static bool do_batch_1024(unsigned argument)
{
    (void)argument;
    return batch(1024);
}

/* --- the list ------------------------------------------------------------- */

static const struct bench_subject pairs[] = {
    {"kmalloc_8", NULL, do_kmalloc_8, 0},
    {"kmalloc_64", NULL, do_kmalloc_64, 0},
    {"kmalloc_512", NULL, do_kmalloc_512, 0},
    {"kmalloc_1024", NULL, do_kmalloc_1024, 0},
    {"kmalloc_4096", NULL, do_kmalloc_4096, 0},
    {"kmalloc_variable", NULL, do_kmalloc_variable, 0},
    {"kmalloc_16k", NULL, do_kmalloc_16k, 0},
    {"slab_200", NULL, do_slab, 0},
};

static const struct bench_subject batches[] = {
    {"kmalloc_64_batch_1000", NULL, do_batch_64, 0},
    {"kmalloc_1024_batch_1000", NULL, do_batch_1024, 0},
};

/* Fisher and Yates, with a generator anybody can write again. */
static void shuffle(void)
{
    uint32_t random = SEED;

    for (unsigned i = 0; i < BENCH_BATCH; i++) {
        shuffled[i] = i;
    }
    for (unsigned i = BENCH_BATCH - 1; i > 0; i--) {
        random = random * UINT32_C(1664525) + UINT32_C(1013904223);
        unsigned other = (random >> 8) % (i + 1);
        unsigned kept = shuffled[i];
        shuffled[i] = shuffled[other];
        shuffled[other] = kept;
    }
}

bool bench_heap(const char *pattern, unsigned *run)
{
    cache = slab_create("bench", OBJECT_BYTES, 0, NULL);
    if (cache == NULL) {
        return false;
    }
    shuffle();
    bool success = bench_list(pairs, sizeof(pairs) / sizeof(pairs[0]),
                              bench_measure, pattern, run);
    success = bench_list(batches, sizeof(batches) / sizeof(batches[0]),
                         bench_measure_batch, pattern, run) &&
              success;
    return slab_destroy(cache) == MM_OK && success;
}
