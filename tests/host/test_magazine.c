/* SPDX-License-Identifier: MIT */
/* Tests of magazine: what moves between a CPU's two. */
/*
 * At risk: more objects moved than the second has room for, or moved in such
 * an order that cold ones come first; a CPU that moves them again and again
 * because it allocates and frees just at the edge; and who looks from outside,
 * and reads what is no array. Provoked by playing the CPU, with a look at both
 * after each step.
 */
#include "heap/magazine.h"

#include <mm/slab.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define RAM_BYTES (16 * MiB)

enum { OBJECT_BYTES = 512, HELD = 512, SMALL = 4 };

static struct slab_cache *cache;

/* Objects that the load is said to have earned room for in new magazines. */
static void set_room(uint32_t objects)
{
    atomic_store(&cache->store.room, objects);
}

static bool open_cache(void)
{
    sim_boot_heap(RAM_BYTES);
    cache = slab_create("moved", OBJECT_BYTES, 0, NULL);
    return cache != NULL;
}

#if !MM_DEBUG /* there the quarantine has what was freed */

static void *held[HELD];
static unsigned count;

static void take(void)
{
    CHECK(count < HELD);
    held[count] = slab_alloc(cache);
    CHECK(held[count] != NULL);
    count++;
}

static void give(void)
{
    slab_free(cache, held[--count]);
}

static const struct magazine *first(void)
{
    return *magazine_slot(cache, 0);
}

static void take_many(unsigned wanted)
{
    for (count = 0; count < wanted;) {
        CHECK_HELPER(take());
    }
}

static void close_cache(void)
{
    while (count > 0) {
        give();
    }
    CHECK(slab_check());
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK_HELPER(check_heap());
}

/* Frees until the first is full; the next one moves half of it. */
static void fill_first(void)
{
    while (first()->capacity == 0 ||
           magazine_count(first()) < first()->capacity) {
        give();
    }
}

TEST(magazine, half_of_it_moves_and_the_latest_stay)
{
    CHECK(open_cache());
    CHECK_HELPER(take_many(HELD));
    CHECK_HELPER(fill_first());
    unsigned capacity = first()->capacity;
    CHECK_HELPER(give());
    CHECK_EQUAL(magazine_count(first()), capacity - capacity / 2 + 1);
    CHECK(first()->next != NULL);
    unsigned moved = magazine_count(first()->next);
    CHECK(moved == capacity / 2);
    /* Back in the opposite order, over the edge. */
    for (unsigned i = 0; i <= capacity; i++) {
        void *expected = held[count];
        CHECK_HELPER(take());
        CHECK(held[count - 1] == expected);
    }
    CHECK_HELPER(close_cache());
}

TEST(magazine, at_the_edge_nothing_moves_twice)
{
    CHECK(open_cache());
    CHECK_HELPER(take_many(HELD));
    CHECK_HELPER(fill_first());
    CHECK_HELPER(give());
    unsigned moved = magazine_count(first()->next);
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned j = 0; j < 3; j++) {
            CHECK_HELPER(take());
        }
        for (unsigned j = 0; j < 3; j++) {
            CHECK_HELPER(give());
        }
        CHECK_EQUAL(magazine_count(first()->next), moved);
    }
    CHECK_HELPER(close_cache());
}

/* The first is a large one, from the store, and the second is small. */
TEST(magazine, no_more_moves_than_the_second_has_room_for)
{
    CHECK(open_cache());
    set_room(SMALL);
    CHECK_HELPER(take_many(10 * SMALL));
    while (first()->next == NULL) {
        CHECK_HELPER(give());
    }
    CHECK_EQUAL(first()->capacity, SMALL);
    CHECK_EQUAL(first()->next->capacity, SMALL);
    set_room(4 * SMALL);
    struct magazine *large = store_make(cache);
    CHECK(large != NULL);
    large->state += pool_take(&cache->pool, large->object + 1, large->capacity);
    struct magazine *empty = store_flush(cache, large);
    CHECK(empty != NULL);
    store_scrap(cache, empty);
    while (first()->capacity == SMALL) {
        CHECK_HELPER(take());
    }
    CHECK(first() == large && first()->next->capacity == SMALL);
    while (count > 0) {
        CHECK_HELPER(give());
        CHECK(magazine_check(cache));
    }
    CHECK_HELPER(close_cache());
}

#endif

/* The largest array is two pages long. */
TEST(magazine, what_it_holds_behind_the_end_of_a_page_is_found)
{
    CHECK(open_cache());
    set_room(2 * PAGE_BYTES / sizeof(void *));
    struct magazine *array = store_make(cache);
    CHECK(array != NULL && array->capacity > PAGE_BYTES / sizeof(void *));
    while (magazine_count(array) < array->capacity) {
        unsigned taken =
            pool_take(&cache->pool, array->object + 1 + magazine_count(array),
                      array->capacity - magazine_count(array));
        CHECK(taken > 0);
        array->state += taken;
    }
    *magazine_slot(cache, 0) = array;
    for (uint32_t i = 1; i <= array->capacity; i++) {
        CHECK(magazine_holds(cache, array->object[i]));
    }
    CHECK(!magazine_holds(cache, cache));
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK_HELPER(check_heap());
}

/* Memory of an array may be anything by the time somebody follows a pointer. */
TEST(magazine, what_is_no_array_is_not_read_past_two_pages)
{
    enum { ORDER = 5 };

    CHECK(open_cache());
    pfn_t pfn = frame_alloc(ORDER, FRAME_KERNEL, FRAME_ZEROED);
    CHECK(!pfn_is_none(pfn));
    char *block = phys_to_virt(pfn_to_phys(pfn));
    /* A pointer to the end of a slab's page, behind which lies none. */
    record_set_type(record_of(pfn), FRAME_SLAB);
    struct magazine *wild = (void *)(block + PAGE_BYTES - 16);
    wild->state = UINT16_MAX;
    *(void **)(void *)(block + 16 * PAGE_BYTES) = cache;
    *magazine_slot(cache, 0) = wild;
    CHECK(!magazine_holds(cache, cache));
    *magazine_slot(cache, 0) = &store_no_room;
    record_set_type(record_of(pfn), FRAME_KERNEL);
    frame_free(pfn, ORDER);
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK_HELPER(check_heap());
}

/* Of each two buddies one is free: no slab of the largest arrays has room. */
TEST(magazine, where_memory_is_in_pieces_arrays_are_smaller)
{
    enum { ORDER = 3 };
    static pfn_t block[RAM_BYTES / PAGE_BYTES];
    unsigned blocks = 0;

    CHECK(open_cache());
    do {
        block[blocks] = frame_alloc(ORDER, FRAME_KERNEL, FRAME_ANY);
    } while (!pfn_is_none(block[blocks++]));
    blocks--;
    for (unsigned i = 0; i < blocks; i++) {
        if ((block[i].v >> ORDER) % 2 == 0) {
            frame_free(block[i], ORDER);
        }
    }
    set_room(2 * PAGE_BYTES / sizeof(void *));
    struct magazine *array = store_make(cache);
    CHECK(array != NULL && array->capacity < PAGE_BYTES / sizeof(void *));
    store_scrap(cache, array);
    for (unsigned i = 0; i < blocks; i++) {
        if ((block[i].v >> ORDER) % 2 != 0) {
            frame_free(block[i], ORDER);
        }
    }
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK_HELPER(check_heap());
}
