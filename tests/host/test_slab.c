/* SPDX-License-Identifier: MIT */
/* Tests of slab: caches of equal objects, their magazines, their slabs. */
#include <mm/kmalloc.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "base/memory.h"
#include "heap/magazine.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"
#include "tests/shared/text.h"

/*
 * At risk: an index off by one at the end of a slab, objects that overlap,
 * memory kept for nothing or lost when an allocation fails half way, objects
 * lost between two CPUs, and detectives that are blind. Provoked by all
 * strides and offsets for the arithmetic, by failing each frame allocation in
 * turn, by letting one CPU free what the other allocates, and by committing
 * each crime and reading the report. What both worlds can see is in
 * tests/shared/check_heap.c.
 */

#define RAM_BYTES (16 * MiB)

/* What the multiplication says, and what the division. */
static void check_start(const struct slab *slab, int64_t offset)
{
    const char *address = (const char *)slab->start + offset;
    int64_t stride = (int64_t)slab->pool->stride;
    bool is_start = offset >= 0 && offset % stride == 0;

    CHECK(slab_is_object(slab, address) == is_start);
    CHECK(slab_starts_object(slab, slab->pool->reciprocal, address) ==
          is_start);
    CHECK(!slab_starts_object(slab, 0, address));
    if (offset >= 0) {
        CHECK_EQUAL(slab_index(slab, address), offset / stride);
    }
}

/* Slabs of all strides, as large as can be: all starts, and what is between. */
TEST(slab, the_reciprocal_is_exact)
{
    struct slab_pool pool = {0};
    struct slab slab = {.pool = &pool};
    int64_t bytes = (int64_t)(PAGE_BYTES << POOL_MAX_ORDER);
    int64_t most = (int64_t)POOL_MAX_STRIDE;

    for (int64_t stride = 16; stride <= most; stride += 16) {
        int64_t rest = bytes % stride;
        pool.stride = (uint32_t)stride;
        pool.span = (uint32_t)(bytes - rest);
        pool.reciprocal =
            (uint32_t)div_round_up(UINT64_C(1) << 32, pool.stride);
        slab.start = UINT64_C(0xffff800012340000) + (uint64_t)rest;
        for (int64_t start = 0; start < bytes - rest; start += stride) {
            CHECK_HELPER(check_start(&slab, start));
            CHECK_HELPER(check_start(&slab, start + 1));
            CHECK_HELPER(check_start(&slab, start + stride - 1));
        }
        /* A prime step through all that lies between, and before. */
        for (int64_t offset = 0; offset < bytes - rest; offset += 613) {
            CHECK_HELPER(check_start(&slab, offset));
        }
        for (int64_t before = 1; before <= rest; before++) {
            CHECK_HELPER(check_start(&slab, -before));
        }
        CHECK(!slab_is_object(&slab, (char *)(slab.start + pool.span)));
        CHECK(!slab_is_object(&slab, NULL));
        CHECK(!slab_is_object(&slab, (void *)UINTPTR_MAX));
    }
}

/* Every size and alignment has a slab that holds and wastes as promised. */
TEST(slab, slabs_waste_little)
{
    for (uint64_t alignment = 16; alignment <= 8192; alignment *= 2) {
        for (uint64_t bytes = 1; bytes <= POOL_MAX_BYTES; bytes++) {
            struct slab_pool pool;
            pool_init(&pool, POOL_CACHE, "any", bytes, alignment);
            uint64_t slab = PAGE_BYTES << pool.order;
            CHECK(pool.objects >= 1 && pool.objects <= POOL_MAX_OBJECTS);
            CHECK_EQUAL(pool.first + pool.span, slab);
            CHECK(pool.stride >= bytes);
            CHECK(is_aligned(pool.stride | pool.first, alignment));
            if (pool.order < POOL_MAX_ORDER) {
                CHECK(pool.first * 6 <= slab);
            }
            CHECK(MM_DEBUG || pool.order <= 4);
        }
    }
}

/* Three slabs' worth of objects, all different, all of them usable. */
static void check_objects(uint64_t bytes, uint64_t alignment)
{
    static uint8_t *object[3 * POOL_MAX_OBJECTS];
    struct slab_cache *cache = slab_create("objects", bytes, alignment, NULL);

    CHECK(cache != NULL);
    uint64_t count = 3 * slab_figures(cache).slab_objects;
    for (uint64_t i = 0; i < count; i++) {
        object[i] = slab_alloc(cache);
        CHECK(object[i] != NULL);
        CHECK(is_aligned((vaddr_t)object[i], max_u64(alignment, 16)));
        memset(object[i], (int)(i & 0xff), bytes);
    }
    for (uint64_t i = 0; i < count; i++) {
        CHECK(object[i][0] == (i & 0xff) && object[i][bytes - 1] == (i & 0xff));
    }
    CHECK_EQUAL(slab_figures(cache).live, count);
    CHECK_HELPER(check_heap());
    for (uint64_t i = 0; i < count; i++) {
        slab_free(cache, object[i]);
    }
    CHECK(slab_destroy(cache) == MM_OK);
}

TEST(slab, objects_of_all_shapes)
{
    static const uint64_t size[] = {1,   8,   16,   17,   64,   100,
                                    255, 512, 1000, 4096, 5000, 8192};

    sim_boot_heap(8 * RAM_BYTES);
    uint64_t before = heap_frames();
    for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
        for (uint64_t alignment = 1; alignment <= 4096; alignment *= 4) {
            CHECK_HELPER(check_objects(size[i], alignment));
        }
        CHECK_HELPER(check_objects(size[i], 0));
    }
    CHECK_EQUAL(heap_frames(), before);
}

TEST(slab, arguments_out_of_range)
{
    sim_boot_heap(RAM_BYTES);
    CHECK(slab_create("x", 0, 0, NULL) == NULL);
    CHECK(slab_create("x", 8193, 0, NULL) == NULL);
    CHECK(slab_create("x", UINT64_MAX, 0, NULL) == NULL);
    CHECK(slab_create("x", 8, 3, NULL) == NULL);
    CHECK(slab_create("x", 8, 8192, NULL) == NULL);
    CHECK(slab_create("x", 8, UINT64_MAX, NULL) == NULL);
    CHECK_HELPER(check_heap());
}

/* Interrupts stay as the caller has them. */
TEST(slab, works_with_interrupts_off)
{
    enum { OBJECTS = 200 };
    static void *object[OBJECTS];

    sim_boot_heap(RAM_BYTES);
    struct slab_cache *cache = slab_create("irq", 64, 0, NULL);
    CHECK(cache != NULL);
    uint64_t irq = port_irq_save();
    for (unsigned i = 0; i < OBJECTS; i++) {
        object[i] = slab_alloc(cache);
        CHECK(object[i] != NULL && sim_irq_is_off());
    }
    for (unsigned i = 0; i < OBJECTS; i++) {
        slab_free(cache, object[i]);
        CHECK(sim_irq_is_off());
    }
    slab_drain();
    CHECK(sim_irq_is_off());
    port_irq_restore(irq);
    CHECK(slab_destroy(cache) == MM_OK);
    CHECK_HELPER(check_heap());
}

TEST(slab, caches_are_listed)
{
    unsigned found = 0;

    sim_boot_heap(RAM_BYTES);
    struct slab_cache *a = slab_create("a", 16, 0, NULL);
    struct slab_cache *b = slab_create("b", 16, 0, NULL);
    CHECK(a != NULL && b != NULL);
    for (const struct slab_cache *cache = slab_next(NULL); cache != NULL;
         cache = slab_next(cache)) {
        found += cache == a || cache == b ? 1 : 0;
    }
    CHECK_EQUAL(found, 2);
    CHECK(slab_destroy(a) == MM_OK);
    CHECK(slab_next(b) == NULL);
    CHECK(slab_destroy(b) == MM_OK);
    CHECK_HELPER(check_heap());
}

static unsigned constructed;

static void construct(void *object)
{
    constructed++;
    memset(object, 0x31, 100);
}

/*
 * A life of a cache in which every kind of growth happens. Whatever fails,
 * what was got is given back.
 */
static void live_a_life(void)
{
    enum { OBJECTS = 150 };
    void *object[OBJECTS];
    unsigned count = 0;
    struct slab_cache *cache = slab_create("life", 100, 0, construct);

    if (cache == NULL) {
        return;
    }
    while (count < OBJECTS) {
        object[count] = slab_alloc(cache);
        if (object[count] == NULL) {
            break;
        }
        count++;
    }
    CHECK_EQUAL(slab_figures(cache).live, count);
    CHECK(count == OBJECTS || slab_figures(cache).failures == 1);
    CHECK_HELPER(check_heap());
    for (unsigned i = 0; i < count; i++) {
        slab_free(cache, object[i]);
    }
    CHECK(slab_destroy(cache) == MM_OK);
}

TEST(slab, each_frame_allocation_fails)
{
    sim_boot_heap(RAM_BYTES);
    fail_each_allocation(live_a_life, 4);
}

/* From the nth on all fail: a machine without memory. */
TEST(slab, all_memory_is_gone)
{
    static void *object[32768];
    unsigned count = 0;

    sim_boot_heap(4 * MiB);
    uint64_t before = heap_frames();
    struct slab_cache *cache = slab_create("greedy", 1024, 0, NULL);
    CHECK(cache != NULL);
    while (count < 32768 && (object[count] = slab_alloc(cache)) != NULL) {
        count++;
    }
    CHECK(count > 100 && count < 32768);
    CHECK(slab_alloc(cache) == NULL);
    CHECK_EQUAL(slab_figures(cache).failures, 2);
    CHECK_EQUAL(slab_figures(cache).live, count);
    CHECK_HELPER(check_heap());
    slab_free(cache, object[--count]);
    object[count] = slab_alloc(cache);
    CHECK(object[count++] != NULL);
    for (unsigned i = 0; i < count; i++) {
        slab_free(cache, object[i]);
    }
    CHECK(slab_destroy(cache) == MM_OK);
    CHECK_EQUAL(heap_frames(), before);
    CHECK_HELPER(check_heap());
}

/* --- crimes --------------------------------------------------------------- */

static struct slab_cache *scene; /* of objects of 100 bytes */
static uint8_t *victim;

static void open_scene(void)
{
    sim_boot_heap(RAM_BYTES);
    scene = slab_create("scene", 100, 0, NULL);
    CHECK(scene != NULL);
    victim = slab_alloc(scene);
    CHECK(victim != NULL);
}

/* The report has been read: nothing else is wrong, and all comes back. */
static void close_scene(void)
{
    CHECK_HELPER(check_heap());
    CHECK(slab_destroy(scene) == MM_OK);
    CHECK_HELPER(check_heap());
}

TEST(slab, crime_overflow)
{
    static const unsigned length[] = {1, 8};

    for (unsigned i = 0; i < 2 && MM_DEBUG; i++) {
        CHECK_HELPER(open_scene());
        memset(victim + 100, 0x99, length[i]);
        CHECK(!slab_check());
        CHECK(sim_log_contains("overflow: byte"));
        slab_free(scene, victim);
        CHECK_BUG("overflow: byte");
        CHECK_HELPER(close_scene());
    }
}

TEST(slab, crime_underflow)
{
    if (MM_DEBUG) {
        CHECK_HELPER(open_scene());
        victim[-1] = 0;
        CHECK(!slab_check());
        slab_free(scene, victim);
        CHECK_BUG("underflow: byte");
        CHECK_HELPER(close_scene());
    }
}

TEST(slab, crime_write_after_free)
{
    if (MM_DEBUG) {
        CHECK_HELPER(open_scene());
        slab_free(scene, victim);
        victim[50] = 0;
        CHECK(!slab_check());
        CHECK(sim_log_contains("use after free: byte"));
        CHECK(slab_alloc(scene) == victim);
        CHECK_BUG("use after free: byte");
        slab_free(scene, victim);
        CHECK_HELPER(close_scene());

        CHECK_HELPER(open_scene());
        slab_free(scene, victim);
        victim[0] = 0;
        slab_drain(); /* the slab goes back to the frames */
        CHECK_BUG("(offset 0) is 0x0, expected 0x6b");
        CHECK_HELPER(close_scene());
    }
}

TEST(slab, crime_read_before_write)
{
    if (MM_DEBUG) {
        CHECK_HELPER(open_scene());
        CHECK(victim[0] == 0x5a && victim[99] == 0x5a);
        slab_free(scene, victim);
        CHECK(victim[0] == 0x6b && victim[99] == 0x6b);
        CHECK_HELPER(close_scene());
    }
}

TEST(slab, crime_double_free)
{
    CHECK_HELPER(open_scene());
    slab_free(scene, victim);
    slab_free(scene, victim);
    if (!MM_DEBUG) {
        slab_drain(); /* the bitmap knows */
    }
    CHECK_BUG(MM_DEBUG ? "double free of object" : "free");
    CHECK_HELPER(close_scene());
}

TEST(slab, crime_double_free_after_reuse)
{
    CHECK_HELPER(open_scene());
    slab_free(scene, victim);
    CHECK(slab_alloc(scene) == victim);
    slab_free(scene, victim); /* the new owner's, as far as one can see */
    slab_free(scene, victim);
    if (!MM_DEBUG) {
        slab_drain();
    }
    CHECK_BUG(MM_DEBUG ? "double free of object" : "free");
    CHECK_HELPER(close_scene());
}

TEST(slab, crime_wrong_cache)
{
    CHECK_HELPER(open_scene());
    struct slab_cache *other = slab_create("other", 100, 0, NULL);
    CHECK(other != NULL);
    slab_free(other, victim);
    CHECK(test_contains(test_last_bug(), "(100 bytes, cache scene, "));
    CHECK(test_contains(test_last_bug(), ") to other by "));
    CHECK_BUG("free to the wrong cache of object");
    slab_free(scene, victim);
    slab_free(other, victim);
    CHECK_BUG("free to the wrong cache of object");
    CHECK(slab_destroy(other) == MM_OK);
    CHECK_HELPER(close_scene());
}

TEST(slab, crime_interior_pointer)
{
    static const int offset[] = {1, 8, 16, 50, 99};

    CHECK_HELPER(open_scene());
    for (unsigned i = 0; i < 5; i++) {
        slab_free(scene, victim + offset[i]);
        CHECK_BUG("free of an interior pointer");
    }
    slab_free(scene, victim);
    CHECK_HELPER(close_scene());
}

/* Before and behind the objects of a slab. */
TEST(slab, crime_outside_objects)
{
    struct slab_place place;

    CHECK_HELPER(open_scene());
    CHECK(slab_find(victim, &place));
    uint64_t first = place.slab_start;
    slab_free(scene, (void *)first);
    CHECK_BUG("outside all objects of slab");
    CHECK(!slab_find((void *)first, &place));
    slab_free(scene, victim);
    CHECK_HELPER(close_scene());
}

/* Pointers to anything; records may not even exist for them. */
TEST(slab, crime_foreign_pointer)
{
    int on_stack;

    CHECK_HELPER(open_scene());
    pfn_t table = frame_alloc(0, FRAME_TABLE, FRAME_ANY);
    CHECK(!pfn_is_none(table));
    struct {
        void *pointer;
        const char *report;
    } const foreign[] = {
        {&on_stack, "no RAM"},
        {(void *)construct, "no RAM"},
        {(void *)8, "foreign"},
        {(void *)UINTPTR_MAX, "no RAM"},
        {phys_to_virt(paddr_of(SIM_PHYSICAL_END - 16)), "no RAM"},
        {phys_to_virt(paddr_of(0x1000)), "foreign"},
        {phys_to_virt(paddr_of(5 * MiB)), "a free frame"}, /* no record */
        {phys_to_virt(pfn_to_phys(table)), "type table"},
    };
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
        slab_free(scene, foreign[i].pointer);
        CHECK_BUG("free of a foreign pointer");
        kfree(foreign[i].pointer);
        CHECK_BUG(foreign[i].report);
    }
    frame_free(table, 0);
    slab_free(scene, NULL); /* allowed */
    slab_free(scene, victim);
    CHECK_HELPER(close_scene());
}

TEST(slab, crime_destroyed_while_in_use)
{
    CHECK_HELPER(open_scene());
    CHECK(slab_destroy(scene) == MM_EBUSY);
    CHECK_BUG("cache scene has 1 live objects");
    slab_free(scene, victim);
    CHECK_HELPER(close_scene());
}

/* A constructed object keeps its contents; its red zones are watched. */
TEST(slab, crime_on_a_constructed_object)
{
    sim_boot_heap(RAM_BYTES);
    struct slab_cache *cache = slab_create("built", 100, 0, construct);
    CHECK(cache != NULL);
    uint8_t *object = slab_alloc(cache);
    CHECK(object != NULL && object[0] == 0x31);
    slab_free(cache, object);
    port_show(object, 100); /* a sanitizer would report who looks */
    CHECK(object[0] == 0x31 && object[99] == 0x31);
    if (MM_DEBUG) {
        object[100] = 0;
        CHECK(slab_alloc(cache) == object);
        CHECK_BUG("overflow: byte");
        slab_free(cache, object);
    }
    CHECK(slab_destroy(cache) == MM_OK);
    CHECK_HELPER(check_heap());
}
