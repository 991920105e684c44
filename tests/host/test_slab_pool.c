/* SPDX-License-Identifier: MIT */
/* Tests of slab: the pool of slabs below the magazines. */
/*
 * At risk: an object that comes back twice and is believed; a slab that is
 * made without the lock, comes too late, is kept beside an empty one, and is
 * there when its cache is destroyed; a pointer that is freed while its slab is
 * made or released, and leads to no descriptor. Provoked by wrong objects, and
 * by giving objects back from within: from a constructor, and from an interrupt
 * when a frame is wanted.
 */
#include <mm/kmalloc.h>
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

/* --- old pointers --------------------------------------------------------- */

static void *gone;
static unsigned moments; /* until another CPU frees it */

static void free_elsewhere(void)
{
    if (moments > 0 && --moments == 0) {
        sim_set_cpu(1);
        kfree(gone);
        sim_set_cpu(0);
    }
}

static void make(struct slab_pool *pool)
{
    void *object;

    CHECK_EQUAL(pool_take(pool, &object, 1), 1);
    CHECK(object == gone);
}

/* Whatever the record of its frame says at that moment. */
static void free_at(unsigned moment, void (*act)(struct slab_pool *pool))
{
    static struct slab_pool pool;

    sim_boot_frames_on(RAM_BYTES, 2);
    CHECK(slab_init() == MM_OK && kmalloc_init() == MM_OK);
    pool_init(&pool, POOL_CACHE, "old", 3000, 16);
    CHECK_EQUAL(pool_take(&pool, &gone, 1), 1);
    pool_put(&pool, &gone, 1);
    if (act == make) {
        pool_trim(&pool);
    }
    moments = moment;
    sim_set_interrupt(free_elsewhere);
    act(&pool);
    sim_set_interrupt(NULL);
    if (moments == 0) {
        CHECK_BUG("free");
    }
    CHECK(pool_check(&pool));
    CHECK_HELPER(check_heap());
}

TEST(slab, an_old_pointer_is_freed_at_any_moment)
{
    static void (*const acts[])(struct slab_pool *) = {pool_trim, make};

    for (unsigned i = 0; i < 2; i++) {
        unsigned moment = 0;

        do {
            CHECK_HELPER(free_at(++moment, acts[i]));
        } while (moments == 0 && moment < 1000);
        CHECK(moment > 4 && moment < 1000);
    }
}
