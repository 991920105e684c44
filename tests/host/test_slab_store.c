/* SPDX-License-Identifier: MIT */
/* Tests of slab: magazines and stores above the slabs. */
/*
 * At risk: objects lost or doubled on the way between CPUs, magazines and
 * store; memory that a load has left behind and nobody needs; and a cache that
 * is used or drained while one of its magazines is just being filled. Provoked
 * by loads that swing, by a model that knows every object of two CPUs, and by
 * interrupts at the moment when a frame is wanted.
 */
#include <mm/frame.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "base/memory.h"
#include "heap/magazine.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define RAM_BYTES (16 * MiB)

/* What is held beyond what is live has a bound, and shrinks when idle. */
TEST(slab, idle_objects_go_back)
{
    enum { OBJECTS = 8000, BURST = 600, ROUNDS = 200 };
    static void *object[OBJECTS];

    sim_boot_heap(RAM_BYTES);
    struct slab_cache *cache = slab_create("idle", 64, 0, NULL);
    CHECK(cache != NULL);
    for (unsigned i = 0; i < OBJECTS; i++) {
        object[i] = slab_alloc(cache);
        CHECK(object[i] != NULL);
    }
    uint64_t peak = slab_figures(cache).slabs;
    for (unsigned i = 0; i < OBJECTS; i++) {
        slab_free(cache, object[i]);
    }
    uint64_t cached = slab_figures(cache).cached;
    /* What the store holds and two magazines. */
    CHECK(cached > 0 && cached * 64 <= 64 * KiB + 2 * 64 * KiB);
    CHECK(slab_figures(cache).slabs < peak);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < BURST; i++) {
            object[i] = slab_alloc(cache);
        }
        for (unsigned i = 0; i < BURST; i++) {
            slab_free(cache, object[i]);
        }
    }
    CHECK(slab_figures(cache).cached <= 2 * BURST);
    CHECK_HELPER(check_heap());
    slab_drain();
    CHECK_EQUAL(slab_figures(cache).slabs, 0);
    CHECK_EQUAL(slab_figures(cache).cached, 0);
    CHECK_EQUAL(slab_figures(cache).allocs, OBJECTS + BURST * ROUNDS);
    CHECK_EQUAL(slab_figures(cache).frees, OBJECTS + BURST * ROUNDS);
    CHECK(slab_destroy(cache) == MM_OK);
}

/* A machine with two CPUs; frame allocator and heap are made for them. */
static void boot_two(void)
{
    static MM_ALIGNED(4096) char storage[64 * KiB];

    sim_boot_frames(RAM_BYTES);
    sim_set_cpu_count(2);
    CHECK(frame_metadata_bytes(sim_map()) <= sizeof(storage));
    frame_init(sim_map(), storage);
    CHECK(slab_init() == MM_OK && kmalloc_init() == MM_OK);
}

/* One CPU allocates, the other frees: nothing is lost on the way. */
TEST(slab, objects_travel_between_processors)
{
    enum { OBJECTS = 500, ROUNDS = 20 };
    static void *object[OBJECTS];

    CHECK_HELPER(boot_two());
    uint64_t before = heap_frames();
    struct slab_cache *cache = slab_create("travel", 128, 0, NULL);
    CHECK(cache != NULL);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < OBJECTS; i++) {
            object[i] = slab_alloc(cache);
            CHECK(object[i] != NULL);
        }
        CHECK_EQUAL(slab_figures(cache).live, OBJECTS);
        sim_set_cpu(1);
        for (unsigned i = 0; i < OBJECTS; i++) {
            slab_free(cache, object[i]);
        }
        sim_set_cpu(0);
        CHECK_EQUAL(slab_figures(cache).live, 0);
        CHECK(slab_figures(cache).cached <= 3 * OBJECTS);
        CHECK_HELPER(check_heap());
    }
    CHECK(slab_destroy(cache) == MM_OK); /* both magazines */
    CHECK_EQUAL(heap_frames(), before);
}

static uint64_t most; /* that were cached during a swing */

/* All objects out, then all back. */
static void swing(struct slab_cache *cache, void **object, unsigned count)
{
    most = 0;
    for (unsigned i = 0; i < count; i++) {
        object[i] = slab_alloc(cache);
        CHECK(object[i] != NULL);
    }
    for (unsigned i = 0; i < count; i++) {
        slab_free(cache, object[i]);
        most = max_u64(most, slab_figures(cache).cached);
    }
}

/* It holds what it may to the last place; what is asked for again, it gets. */
TEST(slab, a_store_follows_the_load)
{
    enum { OBJECTS = 400, MAGAZINES = 2 * 2 /* two, of two objects */ };
    static void *object[OBJECTS];

    sim_boot_heap(RAM_BYTES);
    struct slab_cache *cache = slab_create("big", 8192, 0, NULL);
    CHECK(cache != NULL);
    uint64_t least = 32 * KiB / slab_figures(cache).stride_bytes;
    CHECK_HELPER(swing(cache, object, OBJECTS));
    CHECK_EQUAL(most, MAGAZINES + least);
    for (unsigned i = 0; i < 8; i++) {
        CHECK_HELPER(swing(cache, object, OBJECTS));
    }
    uint64_t exchanges = slab_figures(cache).exchanges;
    uint64_t slabs = slab_figures(cache).slabs;
    CHECK_HELPER(swing(cache, object, OBJECTS));
    CHECK(most > OBJECTS - 10);
    CHECK_EQUAL(slab_figures(cache).slabs, slabs); /* none went, none came */
    CHECK(slab_figures(cache).exchanges > exchanges);
    CHECK_HELPER(check_heap());
    slab_drain();
    CHECK_EQUAL(slab_figures(cache).slabs, 0);
    CHECK(slab_destroy(cache) == MM_OK);
    CHECK_HELPER(check_heap());
}

/* --- a model: each object is in exactly one place ------------------------- */

enum { MODEL_SLOTS = 3000 };

static struct {
    struct slab_cache *cache;
    void *object[MODEL_SLOTS]; /* NULL: none */
    uint64_t live;
} model;

/* A mark of its own in each object: nobody else has it. */
static void model_alloc(unsigned slot)
{
    uint64_t *object = slab_alloc(model.cache);

    CHECK(object != NULL);
    object[0] = slot;
    object[1] = ~(uint64_t)slot;
    model.object[slot] = object;
    model.live++;
}

static void model_free(unsigned slot)
{
    uint64_t *object = model.object[slot];

    CHECK(object[0] == slot && object[1] == ~(uint64_t)slot);
    slab_free(model.cache, object);
    model.object[slot] = NULL;
    model.live--;
}

static void model_step(struct test_random *random)
{
    /* Many in a row, so that magazines and store run full and empty. */
    uint64_t count = test_random_below(random, 200);
    unsigned slot = (unsigned)test_random_below(random, MODEL_SLOTS);

    sim_set_cpu((unsigned)test_random_below(random, 2));
    if (test_random_below(random, 40) == 0) {
        slab_drain();
        count = 0;
    }
    for (; count > 0; count--, slot = (slot + 1) % MODEL_SLOTS) {
        CHECK_HELPER(model.object[slot] == NULL ? model_alloc(slot)
                                                : model_free(slot));
    }
    sim_set_cpu(0);
    CHECK_EQUAL(slab_figures(model.cache).live, model.live);
}

TEST(slab, two_processors_against_a_model)
{
    enum { STEPS = 2000, CHECK_EVERY = 100 };
    struct test_random random;

    CHECK_HELPER(boot_two());
    uint64_t before = heap_frames();
    memset(&model, 0, sizeof(model));
    model.cache = slab_create("model", 48, 0, NULL);
    CHECK(model.cache != NULL);
    test_random_init(&random, test_seed());
    for (unsigned step = 0; step < STEPS; step++) {
        CHECK_HELPER(model_step(&random));
        if (step % CHECK_EVERY == 0) {
            CHECK_HELPER(check_heap());
        }
    }
    for (unsigned slot = 0; slot < MODEL_SLOTS; slot++) {
        if (model.object[slot] != NULL) {
            CHECK_HELPER(model_free(slot));
        }
    }
    struct slab_stats stats = slab_figures(model.cache);
    CHECK(stats.live == 0 && stats.allocs == stats.frees);
    CHECK_EQUAL(slab_destroy(model.cache), MM_OK);
    CHECK_EQUAL(heap_frames(), before);
    CHECK_HELPER(check_heap());
}

/* --- in the middle of a refill -------------------------------------------- */

enum { HOARD_MOST = 20000, VISIT = 40 };
static struct {
    struct slab_cache *cache;
    void *object[HOARD_MOST];
    unsigned count;
    unsigned visits;
} hoard;

/* Who is asked for memory uses the cache that wants it, and drains it. */
static uint64_t visit(uint64_t frames)
{
    (void)frames;
    hoard.visits++;
    for (unsigned i = 0; i < VISIT && hoard.count > VISIT; i++) {
        slab_free(hoard.cache, hoard.object[--hoard.count]);
    }
    if (hoard.visits % 2 == 0) {
        slab_drain();
    }
    void *one = slab_alloc(hoard.cache);
    if (one != NULL) {
        slab_free(hoard.cache, one);
    }
    return hoard.visits % 8 == 0 ? 0 : 1;
}

/* All memory is in one cache; what its reclaim does is in the same one. */
TEST(slab, a_cache_is_used_while_it_is_refilled)
{
    static const struct frame_reclaim hooks = {.reclaim = visit};

    sim_boot_heap(4 * MiB);
    uint64_t before = heap_frames();
    memset(&hoard, 0, sizeof(hoard));
    hoard.cache = slab_create("hoard", 1024, 0, NULL);
    CHECK(hoard.cache != NULL);
    frame_set_reclaim(&hooks);
    for (unsigned i = 0; i < HOARD_MOST && hoard.visits < 100; i++) {
        void *object = slab_alloc(hoard.cache);
        CHECK_EQUAL(slab_figures(hoard.cache).live,
                    hoard.count + (object != NULL ? 1 : 0));
        if (object != NULL) {
            hoard.object[hoard.count++] = object;
        }
    }
    CHECK_EQUAL(hoard.visits, 100);
    CHECK_HELPER(check_heap());
    frame_set_reclaim(NULL);
    while (hoard.count > 0) {
        slab_free(hoard.cache, hoard.object[--hoard.count]);
    }
    CHECK_EQUAL(slab_destroy(hoard.cache), MM_OK);
    CHECK_EQUAL(heap_frames(), before);
    CHECK_HELPER(check_heap());
}

static uint64_t give_one_back(uint64_t frames)
{
    (void)frames;
    slab_free(hoard.cache, hoard.object[--hoard.count]);
    return 0;
}

/* There is no frame for a slab, but an object has come back meanwhile. */
TEST(slab, an_object_freed_during_a_refill_is_found)
{
    static const struct frame_reclaim hooks = {.reclaim = give_one_back};

    sim_boot_heap(4 * MiB);
    memset(&hoard, 0, sizeof(hoard));
    hoard.cache = slab_create("found", 1024, 0, NULL);
    CHECK(hoard.cache != NULL);
    void *object;
    while ((object = slab_alloc(hoard.cache)) != NULL) {
        hoard.object[hoard.count++] = object;
    }
    frame_set_reclaim(&hooks);
    for (unsigned i = 0; i < 5; i++) {
        CHECK(slab_alloc(hoard.cache) == hoard.object[hoard.count]);
    }
    CHECK_HELPER(check_heap());
}

/* --- while it is counted -------------------------------------------------- */

static void give_all_back(void)
{
    while (hoard.count > 0) {
        slab_free(hoard.cache, hoard.object[--hoard.count]);
    }
    slab_drain();
}

/* An interrupt empties the cache: fewer are live, but not less than none. */
TEST(slab, figures_do_not_wrap_while_objects_go_back)
{
    enum { OBJECTS = 3000 };

    sim_boot_heap(RAM_BYTES);
    hoard.cache = slab_create("counted", 100, 0, NULL);
    CHECK(hoard.cache != NULL);
    for (hoard.count = 0; hoard.count < OBJECTS; hoard.count++) {
        hoard.object[hoard.count] = slab_alloc(hoard.cache);
        CHECK(hoard.object[hoard.count] != NULL);
    }
    while (hoard.count > OBJECTS / 2) {
        slab_free(hoard.cache, hoard.object[--hoard.count]);
    }
    sim_set_interrupt(give_all_back);
    struct slab_stats stats = slab_figures(hoard.cache);
    sim_set_interrupt(NULL);
    CHECK_EQUAL(hoard.count, 0);
    CHECK(stats.live <= OBJECTS && stats.frees <= OBJECTS);
    CHECK_EQUAL(slab_destroy(hoard.cache), MM_OK);
}

/* --- states --------------------------------------------------------------- */

/* The heap as a boot option has it: states are noted, in all builds. */
static void boot_noting_states(void)
{
    slab_note_states();
    sim_boot_heap(RAM_BYTES);
}

static void free_twice(struct slab_cache *cache, void *object)
{
    slab_free(cache, object);
    CHECK_HELPER(check_heap());
    slab_free(cache, object);
    CHECK_BUG("double free of object");
    void *again = slab_alloc(cache);
    void *other = slab_alloc(cache);
    CHECK(again == object && other != object); /* it was there once */
    slab_free(cache, other);
    slab_free(cache, again);
    slab_free(cache, again);
    CHECK_BUG("double free of object");
}

static void free_block_twice(uint64_t bytes)
{
    void *block = kmalloc(bytes);

    CHECK(block != NULL);
    kfree((char *)block + 8);
    CHECK_BUG("interior pointer");
    kfree(block);
    kfree(block);
    CHECK_BUG("double free of object");
}

/* It would be handed back as if it were live. */
static void resize_freed_block(uint64_t bytes)
{
    void *block = kmalloc(bytes);

    CHECK(block != NULL);
    kfree(block);
    CHECK(krealloc(block, bytes) == NULL);
    CHECK_BUG("use after free of object");
}

static void commit_crimes(void)
{
    enum { OBJECTS = 2000 };
    static void *object[OBJECTS];
    struct slab_cache *cache = slab_create("noted", 48, 0, NULL);

    CHECK(cache != NULL);
    uint64_t before = heap_frames();
    for (unsigned i = 0; i < OBJECTS; i++) {
        object[i] = slab_alloc(cache);
        CHECK(object[i] != NULL);
    }
    CHECK_HELPER(check_heap());
    CHECK_EQUAL(slab_figures(cache).live, OBJECTS);
    CHECK_HELPER(free_twice(cache, object[OBJECTS / 2]));
    for (unsigned i = 0; i < OBJECTS; i++) {
        if (i != OBJECTS / 2) {
            slab_free(cache, object[i]);
        }
    }
    CHECK_HELPER(free_block_twice(16));
    CHECK_HELPER(free_block_twice(3000));
    CHECK_HELPER(resize_freed_block(3000));
    slab_drain();
    CHECK(heap_frames() <= before);
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK_HELPER(check_heap());
}

TEST(slab, a_second_free_is_noticed_at_once)
{
    CHECK_HELPER(boot_noting_states());
    CHECK_HELPER(commit_crimes());
    pool_notes_states = false;
}

/* All or none: what was had before memory ran out goes back. */
TEST(slab, a_bulk_that_cannot_be_served)
{
    enum { OBJECTS = 8 * 1024 };
    static void *object[OBJECTS];

    sim_boot_heap(4 * MiB);
    struct slab_cache *cache = slab_create("bulk", 1024, 0, NULL);
    CHECK(cache != NULL);
    CHECK(!slab_alloc_bulk(cache, OBJECTS, object));
    CHECK_EQUAL(slab_figures(cache).live, 0);
    CHECK_EQUAL(slab_figures(cache).failures, 1);
    CHECK_HELPER(check_heap());
    CHECK(slab_alloc_bulk(cache, OBJECTS / 8, object));
    slab_free_bulk(cache, object, OBJECTS / 8);
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
}

/* --- without a magazine --------------------------------------------------- */

enum { SMALLEST = 128 }; /* bytes of a magazine */
static void *spare;      /* side storage for one */

static uint64_t give_spare_and_object(uint64_t frames)
{
    (void)frames;
    if (spare != NULL) {
        pool_side_free(spare);
        spare = NULL;
        slab_free(hoard.cache, hoard.object[--hoard.count]);
    }
    return 0;
}

/* Frames and side storage are used up; of the cache no object is free. */
static void use_up(void)
{
    void *side;

    while (!pfn_is_none(frame_alloc(0, FRAME_KERNEL, FRAME_ANY))) {
    }
    spare = NULL;
    while ((side = pool_side_alloc(SMALLEST)) != NULL) {
        spare = side;
    }
}

/* Its CPU has no magazine when it asks, but has one when it is answered. */
TEST(slab, an_object_freed_while_another_is_looked_for_is_found)
{
    static const struct frame_reclaim hooks = {.reclaim =
                                                   give_spare_and_object};

    sim_boot_heap(4 * MiB);
    hoard.cache = slab_create("single", 8 * KiB, 0, NULL);
    hoard.count = 0;
    CHECK(hoard.cache != NULL);
    do {
        hoard.object[hoard.count] = slab_alloc(hoard.cache);
        CHECK(hoard.object[hoard.count++] != NULL);
        slab_drain();
    } while (slab_figures(hoard.cache).slabs *
                 slab_figures(hoard.cache).slab_objects >
             hoard.count);
    use_up();
    CHECK(spare != NULL);
    frame_set_reclaim(&hooks);
    void *object = slab_alloc(hoard.cache);
    frame_set_reclaim(NULL);
    CHECK(spare == NULL && object == hoard.object[hoard.count]);
}
