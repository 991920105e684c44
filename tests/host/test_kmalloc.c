/* SPDX-License-Identifier: MIT */
/* Tests of kmalloc: memory of any size, against a model and shortage. */
#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "base/memory.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

/*
 * At risk: blocks that overlap, contents that change behind the owner's back
 * or get lost when a block moves, large blocks of the wrong order, and a
 * failure half way that leaks or leaves a block in two states. Provoked by
 * random work against a shadow table in which every byte has a known value,
 * by every edge of every size class, and by failing each frame allocation in
 * turn. What both worlds can see is in tests/shared/check_heap.c.
 */

#define RAM_BYTES (64 * MiB)

/* By its physical address: the simulated RAM begins at any page. */
static bool is_block_aligned(const void *block, uint64_t alignment)
{
    return is_aligned(virt_to_phys(block).v, alignment);
}

/* --- model ---------------------------------------------------------------- */

/* What the heap should hold: byte i of a block is (uint8_t)(seed + i). */
struct shadow {
    uint8_t *block;
    uint64_t bytes;
    uint64_t seed;
};

static void fill(const struct shadow *shadow)
{
    for (uint64_t i = 0; i < shadow->bytes; i++) {
        shadow->block[i] = (uint8_t)(shadow->seed + i);
    }
}

static bool holds(const struct shadow *shadow, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (shadow->block[i] != (uint8_t)(shadow->seed + i)) {
            return false;
        }
    }
    return true;
}

/* Mostly small, sometimes at an edge of a class, now and then large. */
static uint64_t random_size(struct test_random *random)
{
    switch (test_random_below(random, 8)) {
    case 0:
        return 1 + test_random_below(random, 40000);
    case 1:
        return 1 + test_random_below(random, KMALLOC_SLAB_MAX);
    case 2:
        return (UINT64_C(1) << test_random_below(random, 14)) +
               test_random_below(random, 3);
    default:
        return 1 + test_random_below(random, 300);
    }
}

static void model_alloc(struct test_random *random, struct shadow *shadow)
{
    uint64_t alignment = UINT64_C(1) << test_random_below(random, 13);

    shadow->bytes = random_size(random);
    shadow->seed = test_random_next(random);
    if (test_random_below(random, 4) == 0) {
        shadow->block = kmalloc_aligned(shadow->bytes, alignment);
        CHECK(is_block_aligned(shadow->block, alignment));
    } else {
        shadow->block = kmalloc(shadow->bytes);
    }
    CHECK(shadow->block != NULL);
    CHECK(ksize(shadow->block) >= shadow->bytes);
    fill(shadow);
}

static void model_realloc(struct test_random *random, struct shadow *shadow)
{
    uint64_t bytes = random_size(random);
    uint8_t *block = krealloc(shadow->block, bytes);

    CHECK(block != NULL);
    shadow->block = block;
    CHECK(holds(shadow, min_u64(bytes, shadow->bytes)));
    shadow->bytes = bytes;
    fill(shadow);
}

static void model_free(struct shadow *shadow)
{
    CHECK(holds(shadow, shadow->bytes));
    kfree(shadow->block);
    shadow->block = NULL;
}

TEST(kmalloc, model)
{
    enum { SLOTS = 400, STEPS = 20000, CHECK_EVERY = 2000 };
    static struct shadow shadow[SLOTS];
    struct test_random random;

    sim_boot_heap(RAM_BYTES);
    uint64_t before = heap_frames();
    memset(shadow, 0, sizeof(shadow));
    test_random_init(&random, test_seed());
    for (unsigned step = 0; step < STEPS; step++) {
        struct shadow *one = &shadow[test_random_below(&random, SLOTS)];
        if (one->block == NULL) {
            CHECK_HELPER(model_alloc(&random, one));
        } else if (test_random_below(&random, 3) == 0) {
            CHECK_HELPER(model_realloc(&random, one));
        } else {
            CHECK_HELPER(model_free(one));
        }
        if (step % CHECK_EVERY == 0) {
            CHECK_HELPER(check_heap());
        }
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        if (shadow[i].block != NULL) {
            CHECK_HELPER(model_free(&shadow[i]));
        }
    }
    CHECK_EQUAL(heap_frames(), before);
    CHECK_HELPER(check_heap());
}

/* --- sizes ---------------------------------------------------------------- */

/* Every size of a class can be had and has the class's room. */
TEST(kmalloc, every_size_to_8_kib)
{
    sim_boot_heap(RAM_BYTES);
    uint64_t before = heap_frames();
    for (uint64_t bytes = 1; bytes <= KMALLOC_SLAB_MAX; bytes++) {
        uint64_t power = bytes & -bytes;
        uint8_t *block = kmalloc(bytes);
        CHECK(block != NULL);
        CHECK(is_block_aligned(block, bytes == power ? power : 16));
        CHECK_EQUAL(ksize(block),
                    MM_DEBUG ? bytes : kmalloc_class_bytes(bytes));
        block[0] = 1;
        block[bytes - 1] = 1;
        kfree(block);
    }
    CHECK_EQUAL(heap_frames(), before);
    CHECK_HELPER(check_heap());
}

/* A large block has the smallest order that holds it. */
TEST(kmalloc, large_blocks)
{
    sim_boot_heap(RAM_BYTES);
    uint64_t before = heap_frames();
    for (unsigned order = 2; order <= MM_MAX_ORDER; order++) {
        uint64_t bytes = PAGE_BYTES << order;
        uint8_t *exact = kmalloc(bytes);
        uint8_t *less = kmalloc(bytes / 2 + 1);
        CHECK(exact != NULL && less != NULL);
        CHECK(is_block_aligned(exact, bytes) && is_block_aligned(less, bytes));
        CHECK_EQUAL(heap_frames(), before + 2 * (bytes / PAGE_BYTES));
        CHECK_EQUAL(ksize(exact), bytes);
        CHECK_EQUAL(ksize(less), MM_DEBUG ? bytes / 2 + 1 : bytes);
        exact[bytes - 1] = 1;
        less[bytes / 2] = 1;
        kfree(exact);
        kfree(less);
    }
    CHECK(kmalloc(KMALLOC_MAX + 1) == NULL);
    CHECK(kmalloc_aligned(1, KMALLOC_MAX) != NULL);
    CHECK_EQUAL(heap_frames(), before + KMALLOC_MAX / PAGE_BYTES);
}

/* Sizes that the compiler knows, and the same ones when it does not. */
TEST(kmalloc, constant_sizes_are_as_others)
{
    static volatile const uint64_t size[] = {0,           1,
                                             8 * KiB,     8 * KiB + 1,
                                             16 * KiB,    16 * KiB + 1,
                                             KMALLOC_MAX, KMALLOC_MAX + 1};
    sim_boot_heap(RAM_BYTES);
    uint64_t before = heap_frames();
    void *const known[] = {
        kmalloc(0),           kmalloc(1),
        kmalloc(8 * KiB),     kmalloc(8 * KiB + 1),
        kmalloc(16 * KiB),    kmalloc(16 * KiB + 1),
        kmalloc(KMALLOC_MAX), kmalloc(KMALLOC_MAX + 1),
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        void *other = kmalloc(size[i]);
        CHECK((known[i] == NULL) == (other == NULL));
        if (other != NULL) {
            CHECK_EQUAL(ksize(known[i]), ksize(other));
            kfree(known[i]);
            kfree(other);
        }
    }
    CHECK_EQUAL(heap_frames(), before);
    CHECK_HELPER(check_heap());
}

TEST(kmalloc, alignment_at_all_edges)
{
    sim_boot_heap(RAM_BYTES);
    uint64_t before = heap_frames();
    for (uint64_t alignment = 1; alignment <= KMALLOC_MAX; alignment *= 2) {
        for (uint64_t bytes = 1; bytes <= 16 * KiB; bytes += 77) {
            void *block = kmalloc_aligned(bytes, alignment);
            CHECK(block != NULL);
            CHECK(is_block_aligned(block, alignment));
            kfree(block);
        }
    }
    CHECK_EQUAL(heap_frames(), before);
    CHECK_HELPER(check_heap());
}

/* --- shortage ------------------------------------------------------------- */

/* kmalloc_init() fails at each frame it needs, and then succeeds. */
TEST(kmalloc, start_with_each_frame_failing)
{
    uint64_t nth = 1;
    uint64_t failed;

    do {
        struct frame_stats stats;
        sim_boot_frames(RAM_BYTES);
        CHECK(slab_init() == MM_OK);
        frame_inject(nth);
        enum mm_status status = kmalloc_init();
        failed = frame_inject_failed();
        frame_inject(0);
        /* A frame for records may be had at the second attempt. */
        CHECK(status == MM_OK || failed == 1);
        CHECK(status == MM_OK || status == MM_ENOMEM);
        CHECK(slab_check());
        if (status == MM_ENOMEM) {
            slab_drain();
            frame_stats(&stats);
            CHECK_EQUAL(stats.by_type[FRAME_SLAB], 0);
            CHECK(slab_next(NULL) == NULL);
        }
        nth++;
    } while (failed > 0);
    CHECK(nth > 3);
    CHECK_HELPER(check_heap());
}

/* Blocks grow from @first to 70,000 bytes; what fails leaves all as it was. */
static void grow_blocks(void)
{
    enum { BLOCKS = 20 };
    struct shadow shadow[BLOCKS];

    for (unsigned i = 0; i < BLOCKS; i++) {
        shadow[i] = (struct shadow){NULL, 10 + 90 * i, i};
        shadow[i].block = kmalloc(shadow[i].bytes);
        if (shadow[i].block != NULL) {
            fill(&shadow[i]);
        }
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        uint64_t bytes = i % 2 == 0 ? 70000 : 3000 + i;
        if (shadow[i].block == NULL) {
            continue;
        }
        uint8_t *block = krealloc(shadow[i].block, bytes);
        if (block != NULL) {
            shadow[i].block = block;
        }
        CHECK(holds(&shadow[i], shadow[i].bytes));
    }
    CHECK_HELPER(check_heap());
    for (unsigned i = 0; i < BLOCKS; i++) {
        kfree(shadow[i].block);
    }
}

TEST(kmalloc, each_frame_allocation_fails)
{
    sim_boot_heap(RAM_BYTES);
    fail_each_allocation(grow_blocks, 20);
}

/* --- crimes --------------------------------------------------------------- */

/* The red zone begins at the byte asked for, wherever the class ends. */
TEST(kmalloc, crime_overflow_by_one)
{
    static const uint64_t size[] = {1,    15,   16,   17,   100,   130,
                                    4096, 8000, 8192, 8193, 12287, 70000};

    sim_boot_heap(RAM_BYTES);
    for (size_t i = 0; i < sizeof(size) / sizeof(size[0]) && MM_DEBUG; i++) {
        uint8_t *block = kmalloc(size[i]);
        CHECK(block != NULL);
        block[size[i]] = 0;
        kfree(block);
        CHECK_BUG("overflow: byte");
        CHECK_HELPER(check_heap());
    }
}

TEST(kmalloc, crime_overflow_after_krealloc)
{
    sim_boot_heap(RAM_BYTES);
    if (MM_DEBUG) {
        uint8_t *block = kmalloc(144);
        CHECK(block != NULL);
        CHECK(krealloc(block, 130) == block);
        block[130] = 0;
        kfree(block);
        CHECK_BUG("overflow: byte");
        block = kmalloc(9000);
        CHECK(block != NULL);
        CHECK(krealloc(block, 10000) == block);
        block[9999] = 0;
        block[10000] = 0;
        kfree(block);
        CHECK_BUG("large block");
        block = kmalloc(9000);
        CHECK(block != NULL);
        block[9000] = 0;
        CHECK(krealloc(block, 10000) == block); /* looks before it moves it */
        CHECK_BUG("large block");
        kfree(block);
        CHECK_HELPER(check_heap());
    }
}

/* Every eighth byte of a slab of each class, but where objects begin. */
TEST(kmalloc, crime_free_of_anything_in_a_slab)
{
    sim_boot_heap(RAM_BYTES);
    for (uint64_t bytes = 16; bytes <= KMALLOC_SLAB_MAX;
         bytes = kmalloc_class_bytes(bytes + 1)) {
        struct slab_place place;
        struct slab_stats stats;
        uint8_t *block = kmalloc(bytes);
        CHECK(block != NULL && slab_find(block, &place));
        slab_stats(place.cache, &stats);
        vaddr_t end = place.slab_start + stats.slab_frames * PAGE_BYTES;
        for (vaddr_t at = place.slab_start; at < end; at += 8) {
            if ((end - at) % stats.stride_bytes != 0 ||
                (end - at) / stats.stride_bytes > stats.slab_objects) {
                kfree((void *)at);
                CHECK_BUG("free of");
            }
        }
        kfree(block);
        if (bytes == KMALLOC_SLAB_MAX) {
            break;
        }
    }
    CHECK_HELPER(check_heap());
}

TEST(kmalloc, crime_double_free_of_a_large_block)
{
    sim_boot_heap(RAM_BYTES);
    uint8_t *block = kmalloc(20000);
    CHECK(block != NULL);
    kfree(block + 16);
    CHECK_BUG("0x10 bytes into");
    CHECK_EQUAL(ksize(block), MM_DEBUG ? 20000 : 32768);
    kfree(block);
    kfree(block);
    CHECK_BUG("a free frame");
    CHECK_EQUAL(ksize(block), 0);
    CHECK_BUG("a free frame");
    CHECK_HELPER(check_heap());
}

/* In each of its frames; a free frame behind it is none of them. */
TEST(kmalloc, crime_interior_pointer_of_a_large_block)
{
    sim_boot_heap(RAM_BYTES);
    uint8_t *block = kmalloc(8 * PAGE_BYTES);
    CHECK(block != NULL);
    for (uint64_t offset = PAGE_BYTES; offset < 8 * PAGE_BYTES;
         offset += PAGE_BYTES / 2) {
        kfree(block + offset);
        CHECK_BUG("bytes into the large block");
        CHECK_EQUAL(ksize(block + offset), 0);
        CHECK_BUG("bytes into the large block");
    }
    kfree(block + 8 * PAGE_BYTES);
    CHECK_BUG("foreign pointer");
    kfree(block);
    kfree(block + PAGE_BYTES);
    CHECK_BUG("a free frame");
    CHECK_HELPER(check_heap());
}

TEST(kmalloc, crime_krealloc_of_a_free_block)
{
    sim_boot_heap(RAM_BYTES);
    uint8_t *block = kmalloc(50);
    CHECK(block != NULL);
    CHECK(krealloc(block + 16, 60) == NULL);
    CHECK_BUG("use of an interior pointer");
    kfree(block);
    if (MM_DEBUG) {
        CHECK(krealloc(block, 60) == NULL);
        CHECK_BUG("use after free of object");
        CHECK_EQUAL(ksize(block), 0);
        CHECK_BUG("use after free of object");
    }
    CHECK_HELPER(check_heap());
}

/* kfree() does not take objects of other caches. */
TEST(kmalloc, crime_kfree_of_an_object)
{
    sim_boot_heap(RAM_BYTES);
    struct slab_cache *cache = slab_create("own", 64, 0, NULL);
    CHECK(cache != NULL);
    void *object = slab_alloc(cache);
    CHECK(object != NULL);
    kfree(object);
    CHECK_BUG("free to the wrong cache of object");
    kfree(cache); /* the heap's own storage */
    CHECK_BUG("free to the wrong cache of object");
    slab_free(cache, object);
    CHECK(slab_destroy(cache) == MM_OK);
    CHECK_HELPER(check_heap());
}
