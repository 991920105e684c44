/* SPDX-License-Identifier: MIT */
/* Tests of the heap in both worlds: blocks and objects as callers see them. */
#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "base/memory.h"
#include "heap/pool.h"
#include "tests/shared/access.h"
#include "tests/shared/figures.h"

/*
 * At risk: two callers in the same bytes, a block smaller or less aligned than
 * promised, contents lost by krealloc, a wrong free that is believed, memory
 * that does not come back. Provoked through the public interface only: every
 * block is filled to its last byte with a pattern of its own, and frames are
 * counted before and after. Other parts of a booted kernel may hold objects:
 * what is compared are differences.
 */

static bool is_filled(const void *block, uint8_t value, uint64_t bytes)
{
    const uint8_t *byte = block;

    for (uint64_t i = 0; i < bytes; i++) {
        if (byte[i] != value) {
            return false;
        }
    }
    return true;
}

/* Physical: on the host, simulated RAM begins at any page. */
static bool is_block_aligned(const void *block, uint64_t alignment)
{
    return is_aligned(virt_to_phys(block).v, alignment);
}

/* One block of @bytes: aligned, all usable, taken back. */
static void check_size(uint64_t bytes)
{
    uint64_t own = is_power_of_two(bytes) ? bytes : 16;
    uint8_t *block = kmalloc(bytes);

    CHECK(block != NULL);
    CHECK(is_block_aligned(block, max_u64(own, 16)));
    CHECK(ksize(block) >= bytes);
    memset(block, 0x17, bytes);
    CHECK(is_filled(block, 0x17, bytes));
    kfree(block);
}

TEST(heap, blocks_of_edge_sizes)
{
    static const uint64_t size[] = {
        1,    2,    15,    16,    17,    31,    32,   33,   127,
        128,  129,  255,   256,   257,   4095,  4096, 4097, 8191,
        8192, 8193, 12288, 12289, 16384, 65536, 65537};

    access_boot();
    for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
        CHECK_HELPER(check_size(size[i]));
    }
    CHECK_HELPER(check_heap());
}

struct flexible {
    uint32_t count;
    uint64_t item[];
};

/* What the typed helpers give has room for the last one. */
TEST(heap, objects_are_counted_with_care)
{
    static const uint64_t too_many[] = {UINT64_MAX, UINT64_MAX / 8,
                                        UINT64_MAX / 8 + 1, UINT64_MAX / 8 + 2,
                                        KMALLOC_MAX / 8 + 1};

    access_boot();
    uint32_t *word = kmalloc_objects(uint32_t, 1000);
    CHECK(word != NULL && ksize(word) >= 4000);
    struct flexible *list = kmalloc_flex(struct flexible, item, 100);
    CHECK(list != NULL && ksize(list) >= 808);
    word[999] = 1;
    list->item[99] = 1;
    kfree(list);
    kfree(word);
    for (size_t i = 0; i < sizeof(too_many) / sizeof(too_many[0]); i++) {
        CHECK(kmalloc_objects(uint64_t, too_many[i]) == NULL);
        CHECK(kmalloc_flex(struct flexible, item, too_many[i]) == NULL);
    }
    CHECK(kmalloc_objects(uint64_t, 0) == NULL);
    CHECK_HELPER(check_heap());
}

/* Detectives of debug builds, and states that a boot option notes. */
TEST(heap, a_second_free_is_noticed)
{
    access_boot();
    void *block = kmalloc(100);
    CHECK(block != NULL);
    kfree(block);
    if (MM_DEBUG || pool_notes_states) {
        kfree(block);
        CHECK_BUG("double free of object");
    }
    CHECK_HELPER(check_heap());
}

/* Many at once, from less than a magazine to more than all have. */
TEST(heap, objects_in_bulk)
{
    static const unsigned many[] = {0, 1, 2, 7, 100, 1000};
    static void *object[1000];

    access_boot();
    uint64_t before = heap_frames();
    struct slab_cache *cache = slab_create("bulk", 40, 0, NULL);
    CHECK(cache != NULL);
    for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++) {
        CHECK(slab_alloc_bulk(cache, many[i], object));
        for (unsigned k = 0; k < many[i]; k++) {
            memset(object[k], (int)(k & 0xff), 40);
        }
        for (unsigned k = 0; k < many[i]; k++) {
            CHECK(is_filled(object[k], k & 0xff, 40));
        }
        struct slab_stats stats;
        slab_stats(cache, &stats);
        CHECK_EQUAL(stats.live, many[i]);
        CHECK_HELPER(check_heap());
        slab_free_bulk(cache, object, many[i]);
    }
    /* One of them is no object: the others go all the same. */
    CHECK(slab_alloc_bulk(cache, 10, object));
    object[3] = (char *)object[3] + 8;
    slab_free_bulk(cache, object, 10);
    CHECK_BUG("interior pointer");
    object[3] = (char *)object[3] - 8;
    slab_free_bulk(cache, object + 3, 1);
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK(heap_frames() <= before);
    CHECK_HELPER(check_heap());
}

TEST(heap, sizes_that_cannot_be_served)
{
    access_boot();
    CHECK(kmalloc(0) == NULL);
    CHECK(kmalloc(KMALLOC_MAX + 1) == NULL);
    CHECK(kmalloc(UINT64_MAX) == NULL);
    CHECK(kmalloc(UINT64_MAX - 15) == NULL);
    CHECK(kzalloc(0) == NULL);
    CHECK(kzalloc(UINT64_MAX) == NULL);
    CHECK(kmalloc_array(0, 8) == NULL);
    CHECK(kmalloc_array(8, 0) == NULL);
    CHECK(kmalloc_array(UINT64_C(1) << 32, UINT64_C(1) << 32) == NULL);
    CHECK(kmalloc_array(UINT64_MAX / 8 + 2, 8) == NULL); /* wraps to 8 */
    CHECK(kmalloc_aligned(0, 16) == NULL);
    CHECK(kmalloc_aligned(16, 0) == NULL);
    CHECK(kmalloc_aligned(16, 48) == NULL);
    CHECK(kmalloc_aligned(16, 2 * KMALLOC_MAX) == NULL);
    CHECK(kmalloc_aligned(UINT64_MAX, 4096) == NULL);
    kfree(NULL);
    CHECK_HELPER(check_heap());
}

/* The promise of 12.5 %, and that classes are where sizes say. */
TEST(heap, a_class_wastes_at_most_an_eighth)
{
    for (uint64_t bytes = 1; bytes <= KMALLOC_SLAB_MAX; bytes++) {
        uint64_t class = kmalloc_class_bytes(bytes);
        CHECK(class >= bytes);
        CHECK(is_aligned(class, 16));
        CHECK(kmalloc_class_bytes(class) == class);
        if (bytes <= 128) {
            CHECK(class - bytes < 16);
        } else {
            CHECK((class - bytes) * 8 <= class);
        }
    }
}

TEST(heap, alignment_as_asked)
{
    static const uint64_t size[] = {1, 24, 100, 130, 450, 4097, 8192, 9000};

    access_boot();
    for (uint64_t alignment = 1; alignment <= 64 * KiB; alignment *= 2) {
        for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
            uint8_t *block = kmalloc_aligned(size[i], alignment);
            CHECK(block != NULL);
            CHECK(is_block_aligned(block, alignment));
            memset(block, 0x2a, size[i]);
            kfree(block);
        }
    }
    CHECK_HELPER(check_heap());
}

TEST(heap, zeroed_means_zero)
{
    static const uint64_t size[] = {16, 100, 4096, 8192, 20000};

    access_boot();
    for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
        for (unsigned turn = 0; turn < 3; turn++) {
            uint8_t *block =
                turn == 2 ? kmalloc_array(size[i] / 4, 4) : kzalloc(size[i]);
            CHECK(block != NULL);
            CHECK(is_filled(block, 0, size[i]));
            memset(block, 0xff, size[i]);
            kfree(block);
        }
    }
}

/* Up and down through classes and large blocks, contents kept. */
TEST(heap, krealloc_keeps_contents)
{
    static const uint64_t size[] = {1,    16,   17,    120,   128,  1000,
                                    8192, 8193, 12000, 40000, 9000, 8192,
                                    100,  101,  97,    16,    3};
    uint64_t length = 0;
    uint8_t *block = NULL;

    access_boot();
    for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
        block = krealloc(block, size[i]);
        CHECK(block != NULL);
        CHECK(is_filled(block, 0x77, min_u64(length, size[i])));
        length = size[i];
        memset(block, 0x77, length);
    }
    CHECK(krealloc(block, KMALLOC_MAX + 1) == NULL); /* and it stays */
    CHECK(is_filled(block, 0x77, length));
    CHECK(krealloc(block, 0) == NULL);
    CHECK_HELPER(check_heap());
}

TEST(heap, krealloc_stays_within_its_class)
{
    access_boot();
    uint8_t *block = kmalloc(130);
    CHECK(block != NULL);
    CHECK(krealloc(block, 144) == block);
    CHECK(krealloc(block, 129) == block);
    kfree(block);
    block = kmalloc(9000);
    CHECK(block != NULL);
    CHECK(krealloc(block, 12000) == block);
    kfree(block);
}

static unsigned constructed;

struct made {
    uint64_t word[5];
};

static void construct(void *object)
{
    struct made *made = object;

    constructed++;
    for (unsigned i = 0; i < 5; i++) {
        made->word[i] = 0x5151 + i;
    }
}

static bool is_constructed(const struct made *made)
{
    for (unsigned i = 0; i < 5; i++) {
        if (made->word[i] != 0x5151 + i) {
            return false;
        }
    }
    return true;
}

TEST(heap, a_constructor_runs_once_an_object)
{
    enum { OBJECTS = 300, TURNS = 3 };
    static struct made *made[OBJECTS];
    struct guard_object found;
    struct slab_stats stats;
    uint64_t guarded = 0;

    access_boot();
    constructed = 0;
    struct slab_cache *cache =
        slab_create("made", sizeof(struct made), 0, construct);
    CHECK(cache != NULL);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        for (unsigned i = 0; i < OBJECTS; i++) {
            made[i] = slab_alloc(cache);
            CHECK(made[i] != NULL && is_constructed(made[i]));
            made[i]->word[0] = i;
            guarded += guard_find((vaddr_t)made[i], &found) ? 1 : 0;
        }
        slab_stats(cache, &stats);
        CHECK_EQUAL(stats.live, OBJECTS);
        for (unsigned i = 0; i < OBJECTS; i++) {
            CHECK_EQUAL(made[i]->word[0], i);
            made[i]->word[0] = 0x5151;
            slab_free(cache, made[i]);
        }
        slab_stats(cache, &stats);
        CHECK_EQUAL(stats.live, 0);
        CHECK(constructed >= OBJECTS);
        CHECK(turn > 0 ||
              constructed == stats.slabs * stats.slab_objects + guarded);
    }
    CHECK_EQUAL(stats.allocs, OBJECTS * TURNS);
    CHECK_EQUAL(stats.frees, OBJECTS * TURNS);
    CHECK_HELPER(check_heap());
    CHECK(slab_destroy(cache) == MM_OK);
}

TEST(heap, a_cache_with_live_objects_stays)
{
    access_boot();
    struct slab_cache *cache = slab_create("stays", 40, 8, NULL);
    CHECK(cache != NULL);
    void *object = slab_alloc(cache);
    CHECK(object != NULL);
    CHECK(slab_destroy(cache) == MM_EBUSY);
    CHECK_BUG("cache stays has 1 live objects");
    slab_free(cache, object);
    CHECK(slab_destroy(cache) == MM_OK);
    CHECK_HELPER(check_heap());
}

TEST(heap, an_address_is_found)
{
    struct slab_place place;
    char on_stack;

    access_boot();
    char *block = kmalloc(200);
    CHECK(block != NULL);
    CHECK(slab_find(block + 199, &place));
    CHECK_EQUAL(place.object, (vaddr_t)block);
    CHECK_EQUAL(place.object_bytes, kmalloc_class_bytes(200));
    CHECK(place.is_live);
    CHECK(!MM_DEBUG || place.alloc_site != 0);
    kfree(block);
    CHECK(slab_find(block, &place) && !place.is_live);
    CHECK(!MM_DEBUG || place.free_site != 0);
    CHECK(!slab_find(&on_stack, &place));
    CHECK(!slab_find(NULL, &place));
}

TEST(heap, wrong_frees_are_reported)
{
    char on_stack = 0;

    access_boot();
    struct slab_cache *cache = slab_create("wrong", 64, 0, NULL);
    CHECK(cache != NULL);
    char *object = slab_alloc(cache);
    char *block = kmalloc(64);
    CHECK(object != NULL && block != NULL);

    kfree(&on_stack);
    CHECK_BUG("foreign pointer");
    kfree((void *)(uintptr_t)8);
    CHECK_BUG("foreign pointer");
    kfree(block + 8);
    CHECK_BUG("interior pointer");
    slab_free(cache, object + 1);
    CHECK_BUG("interior pointer");
    kfree(object);
    CHECK_BUG("wrong cache");
    slab_free(cache, block);
    CHECK_BUG("wrong cache");
    CHECK_EQUAL(ksize(block + 8), 0);
    CHECK_BUG("interior pointer");
    CHECK_HELPER(check_heap());

    kfree(block);
    slab_free(cache, object);
    if (MM_DEBUG) {
        kfree(block);
        CHECK_BUG("double free");
        slab_free(cache, object);
        CHECK_BUG("double free");
    }
    CHECK(slab_destroy(cache) == MM_OK);
    CHECK_HELPER(check_heap());
}

/* Random sizes, freed in random order; afterwards no frame is missing. */
TEST(heap, memory_comes_back)
{
    enum { SLOTS = 64, STEPS = 1500 };
    static struct {
        uint8_t *block;
        uint64_t bytes;
    } slot[SLOTS];
    struct test_random random;

    access_boot();
    uint64_t before = heap_frames();
    test_random_init(&random, test_seed());
    memset(slot, 0, sizeof(slot));
    for (unsigned step = 0; step < STEPS; step++) {
        size_t i = test_random_below(&random, SLOTS);
        if (slot[i].block != NULL) {
            CHECK(is_filled(slot[i].block, (uint8_t)i, slot[i].bytes));
            kfree(slot[i].block);
            slot[i].block = NULL;
        } else {
            slot[i].bytes = 1 + test_random_below(&random, 2000);
            slot[i].block = kmalloc(slot[i].bytes);
            CHECK(slot[i].block != NULL);
            memset(slot[i].block, (int)i, slot[i].bytes);
        }
    }
    CHECK_HELPER(check_heap());
    for (size_t i = 0; i < SLOTS; i++) {
        kfree(slot[i].block);
    }
    CHECK_EQUAL(heap_frames(), before);
    CHECK_HELPER(check_heap());
}
