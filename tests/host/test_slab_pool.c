/* SPDX-License-Identifier: MIT */
/* Tests of slab: the pool of slabs below the magazines. */
/*
 * At risk: an object that comes back twice and is believed; a slab that is
 * made without the lock, comes too late, is kept beside an empty one, and is
 * there when its cache is destroyed. Provoked by wrong objects, and by giving
 * objects back from within: from a constructor, and from an interrupt when a
 * frame is wanted.
 */
#include <mm/slab.h>
#include "heap/magazine.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define RAM_BYTES (16 * MiB)

/* What comes back twice without a detective in between, as in release. */
TEST(slab, the_bitmap_knows_a_double_free)
{
    static struct slab_pool pool;
    void *object[2];

    sim_boot_heap(RAM_BYTES);
    pool_init(&pool, POOL_CACHE, "bitmap", 64, 16);
    CHECK_EQUAL(pool_take(&pool, object, 2), 2);
    pool_put(&pool, object, 1);
    void *inside = (char *)object[1] + 16;
    pool_put(&pool, &inside, 1);
    CHECK_BUG("interior pointer");
    pool_put(&pool, object, 2); /* the first is refused, the second goes */
    CHECK_BUG("double free of object");
    CHECK(pool_check(&pool));
    CHECK_EQUAL(pool.out, 0);
    CHECK_EQUAL(pool.slabs, 1); /* the last one is kept */
    pool_trim(&pool);
    CHECK_EQUAL(pool.slabs, 0);
    CHECK_HELPER(check_heap());
}

/* --- others give back while a slab is made ------------------------------- */

static struct slab_pool *raced;
static void *theirs[2 * POOL_MAX_OBJECTS];
static unsigned their_count;
static unsigned give_back; /* so many, once */

static void give_meanwhile(void *object)
{
    unsigned count = give_back;

    (void)object;
    give_back = 0;
    if (count > 0) {
        their_count -= count;
        pool_put(raced, theirs + their_count, count);
    }
}

/* Two slabs' worth of objects are out; @count come back during the third. */
static void race(unsigned count, void *mine[4])
{
    their_count = 0;
    while (their_count < 2 * raced->objects) {
        their_count += pool_take(raced, theirs + their_count,
                                 2 * raced->objects - their_count);
    }
    give_back = count;
    CHECK_EQUAL(pool_take(raced, mine, 4), 4);
    CHECK_EQUAL(give_back, 0);
    CHECK(pool_check(raced));
}

/* From one object, fewer than wanted, to all of both slabs. */
TEST(slab, a_slab_that_came_too_late_is_not_kept)
{
    void *mine[4];

    sim_boot_heap(RAM_BYTES);
    uint64_t before = heap_frames();
    struct slab_cache *cache = slab_create("raced", 1024, 16, give_meanwhile);
    CHECK(cache != NULL);
    raced = &cache->pool;
    for (unsigned count = 1; count <= 2 * raced->objects; count++) {
        CHECK_HELPER(race(count, mine));
        /* Kept only if what came back was too little. */
        CHECK(count < 4 ? raced->slabs == 3 : raced->slabs <= 2);
        pool_put(raced, mine, 4);
        pool_put(raced, theirs, their_count);
        CHECK(pool_check(raced));
        CHECK_EQUAL(raced->slabs, 1);
    }
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK_EQUAL(heap_frames(), before);
    CHECK_HELPER(check_heap());
}

/* All of theirs comes back as soon as a frame is wanted. */
static void give_side_storage(void)
{
    while (frame_inject_count() > 0 && their_count > 0) {
        pool_side_free(theirs[--their_count]);
    }
}

TEST(slab, side_storage_that_came_too_late_is_not_kept)
{
    enum { THEIRS = 3 * PAGE_BYTES / 64, MINE = PAGE_BYTES / 64 };
    void *mine[MINE];
    unsigned count = 0;

    sim_boot_heap(RAM_BYTES);
    uint64_t before = heap_frames();
    for (their_count = 0; their_count < THEIRS; their_count++) {
        theirs[their_count] = pool_side_alloc(64);
        CHECK(theirs[their_count] != NULL);
    }
    frame_inject(0);
    sim_set_interrupt(give_side_storage);
    while (their_count > 0 && count < MINE) {
        mine[count++] = pool_side_alloc(64);
    }
    sim_set_interrupt(NULL);
    CHECK_EQUAL(their_count, 0);
    CHECK(pool_side_check());
    while (count > 0) {
        pool_side_free(mine[--count]);
    }
    CHECK(pool_side_check());
    CHECK_EQUAL(heap_frames(), before);
}
