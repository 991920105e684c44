/* SPDX-License-Identifier: MIT */
/* Tests of guarded blocks by all that kmalloc and slab can do with one. */
#include <string.h>

#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "heap/guard.h"
#include "heap/magazine.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"
#include "tests/shared/text.h"

/*
 * At risk: a call that takes a guarded block for another one: it gives the
 * wrong size, room or alignment, loses what is in it, frees it in the wrong
 * way, or counts it twice or not at all. Provoked by each call with a block
 * that is guarded, and by a look at the report's words and the figures after
 * each crime.
 */

#define RAM_BYTES (64 * MiB)
#define PATIENCE  64 /* allocations until one is guarded, and more */

static void boot(void)
{
    sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
    CHECK_EQUAL(guard_enable(1), MM_OK);
}

static uint64_t live(void)
{
    struct guard_stats stats;

    guard_stats(&stats);
    return stats.live;
}

static uint64_t passed(void)
{
    struct guard_stats stats;

    guard_stats(&stats);
    return stats.passed;
}

/* A guarded one, or NULL. */
static char *take(uint64_t bytes)
{
    for (unsigned i = 0; i < PATIENCE; i++) {
        char *block = kmalloc_any(bytes);
        if (guard_holds(block)) {
            return block;
        }
        kfree(block);
    }
    return NULL;
}

static uint64_t live_of(uint64_t bytes)
{
    struct slab_stats stats;

    slab_stats(kmalloc_cache_of(bytes), &stats);
    return stats.live;
}

/* Is the latest report @crime at @address, about @block of @bytes? */
static bool is_told(const char *crime, const char *address, const char *block,
                    uint64_t bytes)
{
    char text[160];

    test_format(text, sizeof(text), "%s at 0x%lx (offset %d) by ", crime,
                (unsigned long)address, (int)(address - block));
    if (!test_contains(test_last_bug(), text)) {
        return false;
    }
    test_format(text, sizeof(text),
                "guarded object 0x%lx (%u bytes, cache kmalloc-%u), allocated",
                (unsigned long)block, (unsigned)bytes,
                (unsigned)kmalloc_class_bytes(bytes));
    return test_take_bug(text);
}

static void check_figures(uint64_t guarded)
{
    CHECK_EQUAL(live(), guarded);
    CHECK(guard_check());
    CHECK_HELPER(check_heap());
}

/* --- sizes ---------------------------------------------------------------- */

static const uint64_t sizes[] = {1,   7,   8,    15,   16,   17,  100,
                                 127, 128, 1000, 2049, 4095, 4096};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void use(uint64_t bytes)
{
    uint64_t others = live_of(bytes);
    char *block = take(bytes);
    CHECK(block != NULL);

    CHECK_EQUAL(ksize(block), bytes);
    CHECK(is_aligned(virt_to_phys(block).v, 16));
    CHECK_EQUAL(live_of(bytes), others + 1);
    memset(block, 0x5a, bytes);
    CHECK_HELPER(check_figures(1));
    for (uint64_t offset = 1; offset <= bytes; offset += bytes / 3 + 1) {
        kfree(block + offset);
        CHECK(offset == bytes || is_told("free of an interior pointer",
                                         block + offset, block, bytes));
        (void)test_take_bug("");
    }
    CHECK_HELPER(check_figures(1));
    kfree(block);
    CHECK_HELPER(check_figures(0));
    CHECK_EQUAL(live_of(bytes), others);
    kfree(block);
    CHECK(is_told("double free", block, block, bytes));
    CHECK_EQUAL(ksize(block), 0);
    CHECK(is_told("double free", block, block, bytes));
    CHECK_HELPER(check_figures(0));
}

TEST(guard, blocks_of_every_size)
{
    CHECK_HELPER(boot());
    for (size_t i = 0; i < SIZES; i++) {
        for (unsigned edge = 0; edge < 5; edge++) { /* a fourth stand low */
            CHECK_HELPER(use(sizes[i]));
        }
    }
}

/* A write behind what was asked for, and before it. */
TEST(guard, damage_of_every_size)
{
    CHECK_HELPER(boot());
    for (size_t i = 0; i < SIZES; i++) {
        char *block = take(sizes[i]);
        char *end = block + sizes[i];
        if (virt_to_phys(end).v % PAGE_BYTES != 0) {
            *end = 0;
            kfree(block);
            CHECK(is_told("overflow: write", end, block, sizes[i]));
        } else if (virt_to_phys(block).v % PAGE_BYTES != 0) {
            block[-1] = 0;
            kfree(block);
            CHECK(is_told("underflow: write", block - 1, block, sizes[i]));
        } else {
            kfree(block);
        }
        CHECK_HELPER(check_figures(0));
    }
}

/* What needs more than a page is passed by, and works as ever. */
TEST(guard, larger_than_a_page_is_none)
{
    static const uint64_t larger[] = {4097, 8191, 8192};

    CHECK_HELPER(boot());
    for (size_t i = 0; i < 3; i++) {
        uint64_t before = passed();
        CHECK(take(larger[i]) == NULL);
        CHECK(passed() > before);
        CHECK_HELPER(check_figures(0));
    }
    char *block = kmalloc_any(8193);
    CHECK(block != NULL && !guard_holds(block));
    kfree(block);
}

/* --- resized -------------------------------------------------------------- */

static void fill(char *block, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        block[i] = (char)(i * 7);
    }
}

static bool is_filled(const char *block, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (block[i] != (char)(i * 7)) {
            return false;
        }
    }
    return true;
}

/* From each size to each, small, guarded or large. */
static void resize(uint64_t from, uint64_t to)
{
    char *block = take(from);
    struct guard_object found;

    fill(block, from);
    char *moved = krealloc(block, to);
    CHECK(moved != NULL);
    CHECK(ksize(moved) >= to);
    CHECK(is_filled(moved, min_u64(from, to)));
    memset(moved, 1, to);
    if (moved != block) {
        CHECK(guard_find((vaddr_t)block, &found));
        CHECK(found.start == (vaddr_t)block && !found.is_live);
        CHECK(krealloc(block, to) == NULL);
        CHECK(is_told("double free", block, block, from));
    }
    CHECK_HELPER(check_figures(guard_holds(moved) ? 1 : 0));
    CHECK(krealloc(moved, 0) == NULL);
    CHECK_HELPER(check_figures(0));
}

TEST(guard, blocks_are_resized)
{
    static const uint64_t to[] = {1, 16, 100, 101, 4096, 4097, 8192, 12289};

    CHECK_HELPER(boot());
    for (size_t i = 0; i < SIZES; i++) {
        for (size_t k = 0; k < sizeof(to) / sizeof(to[0]); k++) {
            CHECK_HELPER(resize(sizes[i], to[k]));
        }
    }
}

TEST(guard, a_block_that_cannot_be_resized_stays)
{
    CHECK_HELPER(boot());
    char *block = take(100);

    fill(block, 100);
    CHECK(krealloc(block, KMALLOC_MAX + 1) == NULL);
    CHECK_EQUAL(ksize(block), 100);
    frame_inject(1);
    CHECK(krealloc(block, 3 * PAGE_BYTES) == NULL);
    frame_inject(0);
    CHECK(is_filled(block, 100));
    CHECK(krealloc(block + 16, 200) == NULL);
    CHECK(is_told("free of an interior pointer", block + 16, block, 100));
    CHECK_HELPER(check_figures(1));
    block[100] = 0;
    char *moved = krealloc(block, 200);
    CHECK(virt_to_phys(block).v % PAGE_BYTES == PAGE_BYTES - 100 ||
          is_told("overflow: write", block + 100, block, 100));
    kfree(moved);
    CHECK_HELPER(check_figures(0));
}

/* --- other ways to get one ------------------------------------------------ */

TEST(guard, aligned_blocks_are_aligned)
{
    unsigned guarded = 0;

    CHECK_HELPER(boot());
    for (uint64_t alignment = 1; alignment <= PAGE_BYTES; alignment *= 2) {
        for (size_t i = 0; i < SIZES; i++) {
            for (unsigned k = 0; k < 5; k++) {
                char *block = kmalloc_aligned(sizes[i], alignment);
                CHECK(block != NULL);
                CHECK(is_aligned(virt_to_phys(block).v, alignment));
                CHECK(ksize(block) >= sizes[i]);
                guarded += guard_holds(block);
                memset(block, 1, sizes[i]);
                kfree(block);
            }
        }
    }
    CHECK(guarded > 100);
    CHECK_HELPER(check_figures(0));
}

struct flexible {
    uint32_t count;
    uint64_t member[];
};

TEST(guard, counted_blocks_have_room)
{
    static const uint64_t zero[8];
    unsigned guarded = 0;

    CHECK_HELPER(boot());
    for (unsigned i = 0; i < PATIENCE; i++) {
        struct flexible *flexible = kmalloc_flex(struct flexible, member, 5);
        guarded += guard_holds(flexible);
        CHECK(ksize(flexible) >= sizeof(*flexible) + 5 * sizeof(uint64_t));
        flexible->member[4] = 1;
        kfree(flexible);
        uint64_t *objects = kmalloc_objects(uint64_t, 8);
        guarded += guard_holds(objects);
        memset(objects, 1, sizeof(zero));
        kfree(objects);
        objects = kmalloc_array(8, sizeof(uint64_t));
        guarded += guard_holds(objects);
        CHECK(memcmp(objects, zero, sizeof(zero)) == 0);
        kfree(objects);
        objects = kzalloc(sizeof(zero));
        CHECK(memcmp(objects, zero, sizeof(zero)) == 0);
        kfree(objects);
    }
    CHECK(guarded > PATIENCE);
    CHECK_HELPER(check_figures(0));
}

/* --- many at once --------------------------------------------------------- */

#define MANY 50

/* A bulk has none of them; but all go back, each in its way. */
TEST(guard, bulks_take_guarded_objects_back)
{
    static void *object[MANY];
    struct slab_stats stats;

    CHECK_HELPER(boot());
    struct slab_cache *cache = slab_create("many", 64, 0, NULL);
    CHECK_EQUAL(guard_enable(2), MM_OK);
    CHECK(slab_alloc_bulk(cache, MANY, object));
    for (unsigned i = 0; i < MANY; i++) {
        CHECK(!guard_holds(object[i]));
    }
    slab_free_bulk(cache, object, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        object[i] = i == MANY / 2 ? NULL : slab_alloc(cache);
    }
    CHECK(live() > MANY / 4 && live() < MANY - 2);
    slab_stats(cache, &stats);
    CHECK_EQUAL(stats.live, MANY - 1);
    slab_free_bulk(cache, object, MANY);
    CHECK_HELPER(check_figures(0));
    slab_stats(cache, &stats);
    CHECK_EQUAL(stats.live, 0);
    CHECK_EQUAL(stats.allocs, 2 * MANY - 1);
    CHECK_EQUAL(stats.frees, 2 * MANY - 1);
    for (unsigned i = 0; i < MANY; i++) {
        if (guard_holds(object[i])) {
            slab_free_bulk(cache, &object[i], 1);
            CHECK_BUG("double free at ");
        }
    }
    CHECK_HELPER(check_figures(0));
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
}

/* --- who frees ------------------------------------------------------------ */

static void free_to(struct slab_cache *cache, void *object)
{
    slab_free(cache, object);
    CHECK_BUG("free to the wrong cache at ");
    slab_free_bulk(cache, &object, 1);
    CHECK_BUG("free to the wrong cache at ");
}

TEST(guard, wrong_caches_get_nothing)
{
    CHECK_HELPER(boot());
    struct slab_cache *cache = slab_create("right", 64, 0, NULL);
    struct slab_cache *other = slab_create("wrong", 64, 0, NULL);
    struct slab_stats stats;
    void *object = slab_alloc(cache);

    for (unsigned i = 0; i < PATIENCE && !guard_holds(object); i++) {
        slab_free(cache, object);
        object = slab_alloc(cache);
    }
    CHECK(guard_holds(object));
    CHECK_HELPER(free_to(other, object));
    CHECK(test_contains(test_last_bug(), "(64 bytes, cache right)"));
    CHECK_HELPER(free_to(kmalloc_cache_of(64), object));
    kfree(object);
    CHECK_BUG("free to the wrong cache at ");
    CHECK_EQUAL(ksize(object), 0);
    CHECK_BUG("free to the wrong cache at ");
    CHECK_HELPER(check_figures(1));
    slab_stats(cache, &stats);
    CHECK_EQUAL(stats.live, 1);
    slab_stats(other, &stats);
    CHECK_EQUAL(stats.live, 0);
    slab_free(cache, object);
    CHECK_HELPER(check_figures(0));
    CHECK_EQUAL(slab_destroy(other), MM_OK);
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
}

TEST(guard, another_cpu_frees)
{
    paddr_t physical;

    CHECK_HELPER(boot());
    char *block = take(100);
    memset(block, 1, 100);
    sim_set_cpu(1);
    kfree(block);
    CHECK(sim_translate(SIM_DIRECT + virt_to_phys(block).v, WALK_READ,
                        &physical) != WALK_ALLOWED);
    CHECK(guard_fault((vaddr_t)block + 5, GUARD_READ, 1));
    CHECK(test_contains(test_last_bug(), " on CPU 0, freed by "));
    CHECK(test_contains(test_last_bug(), " on CPU 1"));
    CHECK(is_told("use after free: read", block + 5, block, 100));
    sim_set_cpu(0);
    kfree(block);
    CHECK(is_told("double free", block, block, 100));
    CHECK_HELPER(check_figures(0));
}
