/* SPDX-License-Identifier: MIT */
/* Tests of leak: what is called leaked is, and nothing else. */
#include <string.h>

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/leak.h>
#include <mm/slab.h>
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

/*
 * At risk: a live object that is called leaked, because its only reference is
 * of a kind that was forgotten, or because the list of what is still to be
 * read was full; and a leak that is not seen, because something that is no
 * reference counts as one. Provoked by one reference of each kind, by chains
 * and fans of many times the list's length, and by pointers in free objects,
 * magazines and numbers. Nothing on this machine is a root but what a test
 * says.
 */

#define RAM_BYTES (64 * MiB)
#define GROUPS    8

static void *no_roots[1];
static struct leak_group group[GROUPS];
static struct leak_totals totals;
static unsigned group_count;

static void scan(void *const *roots, size_t count)
{
    CHECK_EQUAL(leak_begin(), MM_OK);
    leak_scan(roots, roots + count);
    group_count = leak_end(group, GROUPS, &totals);
}

TEST(leak, nothing_is_lost_in_an_empty_heap)
{
    sim_boot_heap(RAM_BYTES);
    scan(no_roots, 0);
    CHECK_EQUAL(totals.live, 0);
    CHECK_EQUAL(totals.leaked, 0);
    CHECK_EQUAL(group_count, 0);
}

/* Each in its turn is the only reference to a block. */
TEST(leak, every_kind_of_reference_counts)
{
    sim_boot_heap(RAM_BYTES);
    char *small = kmalloc(100);
    char *large = kmalloc(5 * PAGE_BYTES);
    void *roots[] = {small, large};

    CHECK(small != NULL && large != NULL);
    scan(roots, 2);
    CHECK_EQUAL(totals.leaked, 0);
    roots[0] = small + 99;
    roots[1] = large + 5 * PAGE_BYTES - 1;
    scan(roots, 2);
    CHECK_EQUAL(totals.leaked, 0);
    roots[0] = large + PAGE_BYTES; /* in its second frame */
    memset(large, 0, 5 * PAGE_BYTES);
    *(void **)(large + 4 * PAGE_BYTES) = small;
    scan(roots, 1);
    CHECK_EQUAL(totals.live, 2);
    CHECK_EQUAL(totals.leaked, 0);
    pfn_t frame = frame_alloc(0, FRAME_KERNEL, FRAME_ZEROED);
    *(void **)phys_to_virt(pfn_to_phys(frame)) = large;
    scan(no_roots, 0);
    CHECK_EQUAL(totals.leaked, 0);
    frame_free(frame, 0);
    scan(no_roots, 0);
    CHECK_EQUAL(totals.leaked, 2);
    kfree(small);
    kfree(large);
    CHECK_HELPER(check_heap());
}

TEST(leak, what_is_leaked_is_named)
{
    sim_boot_heap(RAM_BYTES);
    struct slab_cache *cache = slab_create("widget", 48, 0, NULL);
    void *roots[] = {slab_alloc(cache)};
    void *lost = slab_alloc(cache);

    CHECK(roots[0] != NULL && lost != NULL);
    scan(roots, 1);
    CHECK_EQUAL(totals.live, 2);
    CHECK_EQUAL(totals.leaked, 1);
    CHECK_EQUAL(totals.leaked_bytes, 48);
    CHECK_EQUAL(group_count, 1);
    CHECK(strcmp(group[0].cache, "widget") == 0);
    CHECK(group[0].example == lost);
    CHECK((group[0].site != 0) == (MM_DEBUG != 0));
    slab_free(cache, lost);
    scan(roots, 1);
    CHECK_EQUAL(totals.leaked, 0);
    slab_free(cache, roots[0]);
    CHECK(slab_destroy(cache) == MM_OK);
}

/* A CPU stands still where it makes or releases a slab: no slab as yet. */
TEST(leak, frames_of_a_slab_that_is_not_there_yet)
{
    sim_boot_heap(RAM_BYTES);
    pfn_t frame = frame_alloc(0, FRAME_SLAB, FRAME_ANY);
    void *roots[] = {phys_to_virt(pfn_to_phys(frame))};

    CHECK_EQUAL(record_of(frame)->owner, 0);
    scan(roots, 1);
    CHECK_EQUAL(totals.live, 0);
    frame_free(frame, 0);
}

TEST(leak, without_memory_there_is_no_scan)
{
    sim_boot_heap(RAM_BYTES);
    void *lost = kmalloc(100);

    CHECK(lost != NULL);
    frame_inject(1);
    enum mm_status status = leak_begin();
    frame_inject(0);
    CHECK_EQUAL(status, MM_ENOMEM);
    scan(no_roots, 0);
    CHECK_EQUAL(totals.leaked, 1);
    kfree(lost);
    CHECK_HELPER(check_heap());
}

static void *allocate_here(void)
{
    return kmalloc(200);
}

/* Alike: one call site in debug builds, one size class in others. */
TEST(leak, leaks_are_grouped)
{
    enum { HERE = 7 };
    void *lost[HERE + 2];

    sim_boot_heap(RAM_BYTES);
    for (size_t i = 0; i < HERE; i++) {
        lost[i] = allocate_here();
    }
    lost[HERE] = kmalloc(3000);
    lost[HERE + 1] = kmalloc(3 * PAGE_BYTES);
    scan(no_roots, 0);
    CHECK_EQUAL(totals.leaked, HERE + 2);
    CHECK_EQUAL(group_count, 3);
    CHECK_EQUAL(group[0].count, HERE);
    CHECK_EQUAL(group[2].bytes, 3 * PAGE_BYTES);
    CHECK_EQUAL(leak_begin(), MM_OK);
    CHECK_EQUAL(leak_end(group, 1, &totals), 1);
    CHECK_EQUAL(totals.leaked, HERE + 2);
    CHECK_EQUAL(totals.ungrouped, 2);
    for (size_t i = 0; i < HERE + 2; i++) {
        kfree(lost[i]);
    }
}

/* A ring is not held by itself. */
TEST(leak, a_ring_of_objects_is_leaked)
{
    sim_boot_heap(RAM_BYTES);
    void **a = kzalloc(64);
    void **b = kzalloc(64);

    a[3] = b;
    b[5] = a;
    scan(no_roots, 0);
    CHECK_EQUAL(totals.leaked, 2);
    void *roots[] = {&b[1]};
    scan(roots, 1);
    CHECK_EQUAL(totals.leaked, 0);
    kfree(a);
    kfree(b);
}

/* Free objects keep their contents in release builds, magazines pointers. */
TEST(leak, free_objects_hold_nothing)
{
    sim_boot_heap(RAM_BYTES);
    void **holder = kzalloc(64);
    void *lost = kmalloc(500);
    void *others[4];

    holder[0] = lost;
    for (size_t i = 0; i < 4; i++) {
        others[i] = kmalloc(64);
    }
    void *roots[] = {holder, others[0], others[1], others[2], others[3]};
    scan(roots, 5);
    CHECK_EQUAL(totals.leaked, 0);
    kfree(holder);
    scan(roots, 5);
    CHECK_EQUAL(totals.live, 5);
    CHECK_EQUAL(totals.leaked, 1);
    CHECK(group[0].example == lost);
    kfree(lost);
    for (size_t i = 0; i < 4; i++) {
        kfree(others[i]);
    }
    scan(no_roots, 0);
    CHECK_EQUAL(totals.live, 0);
}

/* Far more at once than the list has room for, and one behind another. */
TEST(leak, a_list_that_is_too_short_loses_nothing)
{
    enum { FAN = 20000, CHAIN = 5000 };
    void **fan = NULL;
    void *chain = NULL;

    sim_boot_heap(RAM_BYTES);
    fan = kzalloc(FAN * sizeof(*fan));
    CHECK(fan != NULL);
    for (size_t i = 0; i < FAN; i++) {
        void **leaf = kzalloc(32);
        CHECK(leaf != NULL);
        *leaf = kzalloc(48);
        fan[i] = leaf;
    }
    for (size_t i = 0; i < CHAIN; i++) {
        void **link = kzalloc(32);
        link[2] = chain;
        chain = link;
    }
    void *roots[] = {fan, chain};
    scan(roots, 2);
    CHECK(totals.rescans > 0);
    CHECK_EQUAL(totals.live, 2 * FAN + CHAIN + 1);
    CHECK_EQUAL(totals.leaked, 0);
    *(void **)fan[FAN / 2] = NULL;
    scan(roots, 2);
    CHECK_EQUAL(totals.leaked, 1);
    scan(roots, 1);
    CHECK_EQUAL(totals.leaked, CHAIN + 1);
}

/* Of all words only those count that lead into a live object. */
TEST(leak, numbers_are_no_pointers)
{
    sim_boot_heap(RAM_BYTES);
    char *block = kmalloc(4096);
    uint64_t numbers[] = {
        0,
        1,
        UINT64_MAX,
        UINT64_C(0x8000000000000000),
        (uint64_t)(uintptr_t)phys_to_virt(paddr_of(RAM_BYTES)),
        (uint64_t)(uintptr_t)phys_to_virt(paddr_of(RAM_BYTES)) - 1,
        ~(uint64_t)(uintptr_t)block,
        (uint64_t)(uintptr_t)block >> 4,
        virt_to_phys(block).v,
    };

    CHECK_EQUAL(leak_begin(), MM_OK);
    leak_scan(numbers, numbers + sizeof(numbers) / sizeof(numbers[0]));
    leak_scan(numbers + 3, numbers + 1);
    leak_scan((char *)numbers + 1, (char *)numbers + 7);
    (void)leak_end(group, GROUPS, &totals);
    CHECK_EQUAL(totals.leaked, 1);
    kfree(block);
}

/* A cache made under a name of its own holds the name. */
TEST(leak, names_of_caches_are_held)
{
    sim_boot_heap(RAM_BYTES);
    char *name = kzalloc(16);

    memcpy(name, "made up", 8);
    struct slab_cache *cache = slab_create(name, 32, 0, NULL);
    scan(no_roots, 0);
    CHECK_EQUAL(totals.live, 1);
    CHECK_EQUAL(totals.leaked, 0);
    CHECK(slab_destroy(cache) == MM_OK);
    scan(no_roots, 0);
    CHECK_EQUAL(totals.leaked, 1);
    kfree(name);
}

/* What other CPUs keep in magazines is free; the heap works on. */
TEST(leak, other_cpus_keep_nothing_alive)
{
    sim_boot_frames_on(RAM_BYTES, 3);
    CHECK(slab_init() == MM_OK && kmalloc_init() == MM_OK);
    for (unsigned cpu = 0; cpu < 3; cpu++) {
        sim_set_cpu(cpu);
        void *block[40];
        for (size_t i = 0; i < 40; i++) {
            block[i] = kmalloc(64);
        }
        for (size_t i = 0; i < 40; i++) {
            kfree(block[i]);
        }
    }
    sim_set_cpu(0);
    scan(no_roots, 0);
    CHECK_EQUAL(totals.live, 0);
    CHECK_EQUAL(totals.leaked, 0);
    CHECK_HELPER(check_heap());
}

/* --- very many slabs ------------------------------------------------------ */

#define SLABS_MOST 131071

static uint64_t count_slabs(void)
{
    uint64_t slabs = 0;

    for (const struct slab_cache *cache = slab_next(NULL); cache != NULL;
         cache = slab_next(cache)) {
        struct slab_stats stats;
        slab_stats(cache, &stats);
        slabs += stats.slabs;
    }
    return slabs;
}

/* The marks of all stand in one block of frames. */
TEST(leak, as_many_slabs_as_have_marks)
{
    sim_boot_heap(1200 * MiB);
    struct slab_cache *cache = slab_create("one a slab", 4000, 0, NULL);
    void *last[1] = {NULL};
    uint64_t slabs = count_slabs();

    for (uint64_t i = slabs; i < SLABS_MOST; i++) {
        CHECK(slab_alloc_bulk(cache, 1, last));
        slabs++;
    }
    slab_drain();
    CHECK(count_slabs() <= SLABS_MOST);
    while (count_slabs() < SLABS_MOST) {
        CHECK(slab_alloc_bulk(cache, 1, last));
        slab_drain();
        slabs++;
    }
    CHECK_EQUAL(count_slabs(), SLABS_MOST);
    scan(last, 1);
    CHECK_EQUAL(totals.live, slabs);
    CHECK_EQUAL(totals.leaked, slabs - 1);
    CHECK(slab_alloc_bulk(cache, 1, last));
    slab_drain();
    CHECK_EQUAL(leak_begin(), MM_ERANGE);
    slab_free(cache, last[0]);
    slab_drain();
    scan(no_roots, 0);
    CHECK_EQUAL(totals.leaked, slabs);
}
