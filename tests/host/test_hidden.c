/* SPDX-License-Identifier: MIT */
/* Tests of what is hidden: who touches a free object is reported at once. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <mm/kmalloc.h>
#include <mm/slab.h>
#include "heap/magazine.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"

/*
 * At risk: that the sanitizer takes free objects for memory like any other,
 * since it knows nothing of this heap: all other tests would then miss who
 * uses one. Provoked by asking it about every byte of objects at each step of
 * their lives, and by a copy of this process that commits the crime and must
 * not survive it.
 */

#if SIM_HIDES

#define RAM_BYTES (16 * MiB)

/* As many as a store holds from the start: they stay in the heap. */
enum { OBJECTS = 250, BYTES = 100 };

/* How many of the bytes from @object on nobody may touch. */
static uint64_t count_hidden(const char *object, uint64_t bytes)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < bytes; i++) {
        count += __asan_address_is_poisoned(object + i) != 0 ? 1 : 0;
    }
    return count;
}

static bool is_hidden(const char *object, uint64_t bytes)
{
    return count_hidden(object, bytes) == bytes;
}

static void construct(void *object)
{
    memset(object, 1, BYTES);
}

/* Of every slab: what is in nobody's hands, and the rest behind an object. */
static void check_slabs_of(const struct slab_cache *cache, char *const *live,
                           unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct slab *slab = slab_around(live[i]);
        CHECK(count_hidden(live[i], BYTES) == 0);
        CHECK(is_hidden(live[i] + BYTES, cache->pool.stride - BYTES));
        for (unsigned j = 0; j < cache->pool.objects; j++) {
            const char *object = slab_object(slab, j);
            CHECK(slab_is_out(slab, j) || is_hidden(object, BYTES));
        }
    }
}

/* In slabs, in magazines, in the store and in the frames again. */
TEST(hidden, objects_of_a_cache)
{
    static char *object[OBJECTS];

    sim_boot_heap(RAM_BYTES);
    struct slab_cache *cache = slab_create("hidden", BYTES, 0, construct);
    CHECK(cache != NULL);
    for (unsigned i = 0; i < OBJECTS; i++) {
        object[i] = slab_alloc(cache);
        CHECK(object[i] != NULL && object[i][BYTES - 1] == 1);
    }
    CHECK_HELPER(check_slabs_of(cache, object, OBJECTS));
    for (unsigned i = 0; i < OBJECTS; i++) {
        slab_free(cache, object[i]);
        CHECK(is_hidden(object[i], BYTES));
    }
    CHECK(slab_alloc_bulk(cache, OBJECTS, (void **)object));
    CHECK_HELPER(check_slabs_of(cache, object, OBJECTS));
    slab_free_bulk(cache, (void **)object, OBJECTS);
    for (unsigned i = 0; i < OBJECTS; i++) {
        CHECK(is_hidden(object[i], BYTES));
    }
    slab_drain();
    for (unsigned i = 0; i < OBJECTS; i++) {
        CHECK(count_hidden(object[i], BYTES) == 0);
    }
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
}

/* The ways to a block: all of its class's bytes may be used, as ksize() says */
static void *get(unsigned way, uint64_t bytes)
{
    switch (way) {
    case 0:
        return kmalloc(BYTES); /* the class is known to the compiler */
    case 1:
        return kmalloc(bytes);
    case 2:
        return kzalloc(bytes);
    case 3:
        return kmalloc_array(1, bytes);
    case 4:
        return kmalloc_sum(0, 1, bytes);
    case 5:
        return kmalloc_aligned(bytes, 16);
    case 6:
        return krealloc(NULL, bytes);
    default:
        return krealloc(kmalloc(1), bytes); /* moves */
    }
}

static void check_blocks(void)
{
    enum { WAYS = 8, ROUNDS = 100 }; /* rounds: by the fast ways, too */

    for (unsigned i = 0; i < WAYS * ROUNDS; i++) {
        char *block = get(i % WAYS, BYTES);
        CHECK(block != NULL && ksize(block) >= BYTES);
        CHECK(count_hidden(block, ksize(block)) == 0);
        if (i % 2 == 0) {
            kfree(block);
        } else {
            CHECK(krealloc(block, 0) == NULL);
        }
        CHECK(is_hidden(block, BYTES));
    }
}

TEST(hidden, blocks_by_every_way)
{
    sim_boot_heap(RAM_BYTES);
    check_blocks();
    slab_note_states(); /* all allocations take the slow ways */
    sim_boot_heap(RAM_BYTES);
    check_blocks();
    pool_notes_states = false;
}

/* A new machine starts with nothing hidden. */
TEST(hidden, all_is_shown_at_a_reset)
{
    sim_boot_heap(RAM_BYTES);
    char *block = kmalloc(BYTES);
    CHECK(block != NULL);
    kfree(block);
    CHECK(is_hidden(block, BYTES));
    sim_reset(RAM_BYTES);
    CHECK(count_hidden(block, BYTES) == 0);
}

static void read_after_free(void)
{
    volatile char *block = kmalloc(BYTES);

    kfree((void *)block);
    (void)block[BYTES / 2];
}

static void write_after_free(void)
{
    volatile char *block = kmalloc(BYTES);

    kfree((void *)block);
    block[BYTES / 2] = 1;
}

/* Where the sanitizer writes. */
static void say_errors_to(int end)
{
    dup2(end, STDERR_FILENO);
}

/* Does @act, in a copy of this process, end in a report that says @text? */
static bool is_reported(void (*act)(void), const char *text)
{
    static char said[64 * KiB];
    int status = sim_in_child(say_errors_to, act, said, sizeof(said));

    return status > 0 && strstr(said, "use-after-poison") != NULL &&
           strstr(said, text) != NULL;
}

/* At the instruction that does it: the report names the function. */
TEST(hidden, a_use_after_free_is_reported)
{
    sim_boot_heap(RAM_BYTES);
    CHECK(is_reported(read_after_free, "in read_after_free"));
    CHECK(is_reported(write_after_free, "in write_after_free"));
}

#endif
