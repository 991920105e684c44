/* SPDX-License-Identifier: MIT */
/* Tests of guard: objects between closed pages, and the pool that has them. */
#include <string.h>

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "heap/guard.h"
#include "heap/magazine.h"
#include "heap/slab_impl.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"

/*
 * At risk: a crime that goes unseen, or is told with the wrong object; a page
 * that stays closed for who may use it; a direct map that is left in pieces.
 * Provoked by committing each crime through the simulated MMU, and by looking
 * at the tables after the pool has gone, also when memory was short.
 */

#define RAM_BYTES (64 * MiB)
#define BYTES     60 /* four less than their class: a gap at the end */
#define SITE      UINT64_C(0x1111)
#define OTHER     UINT64_C(0x2222)
#define SEATS     GUARD_OBJECTS

static struct slab_cache *cache;
static struct slab_cache *other;

static void boot(void)
{
    sim_boot(RAM_BYTES);
    cache = slab_create_kind(POOL_KMALLOC, "sixty-four", 64, 64, NULL);
    other = slab_create_kind(POOL_CACHE, "other", 64, 64, NULL);
    CHECK(cache != NULL && other != NULL);
    CHECK_EQUAL(guard_enable(1), MM_OK);
}

static char *alloc(uint64_t bytes)
{
    return guard_alloc(&cache->pool, bytes, SITE);
}

enum edge { UPPER, LOWER };

/* One at that edge of its page: every fourth is at the lower. */
static char *alloc_at(uint64_t bytes, enum edge edge)
{
    char *object = alloc(bytes);

    while (object != NULL &&
           is_aligned(virt_to_phys(object).v, PAGE_BYTES) != (edge == LOWER)) {
        object = guard_free(object, NULL, OTHER) ? alloc(bytes) : NULL;
    }
    return object;
}

static bool free_as(void *object, const struct slab_cache *from)
{
    return guard_free(object, from == NULL ? NULL : &from->pool, OTHER);
}

/* Where the simulated CPU finds what is at @address. */
static vaddr_t mapped(const void *address)
{
    return SIM_DIRECT + virt_to_phys(address).v;
}

/* May this CPU touch @address? */
static bool is_open(const void *address, unsigned access)
{
    paddr_t physical;

    return sim_translate(mapped(address), access, &physical) == WALK_ALLOWED &&
           physical.v == virt_to_phys(address).v;
}

/* What the kernel does on a fault there; false if there is none, or no help. */
static bool commit(const void *address, unsigned access)
{
    if (is_open(address, access)) {
        return false;
    }
    return guard_fault((vaddr_t)address,
                       access == WALK_WRITE ? GUARD_WRITE : GUARD_READ,
                       OTHER) &&
           is_open(address, access);
}

static struct guard_stats stats(void)
{
    struct guard_stats now;

    guard_stats(&now);
    return now;
}

/* The level of the leaf that maps @address in the direct map. */
static unsigned leaf_level(vaddr_t address)
{
    uint64_t irq = port_irq_save();
    struct pt_leaf leaf = pt_lookup(&pt_kernel, address);

    port_irq_restore(irq);
    return pte_is_present(leaf.entry) ? leaf.level : PTE_LEVELS;
}

static void check_all(void)
{
    struct audit_verdict verdict;

    CHECK(guard_check());
    CHECK(pt_audit(&pt_kernel, &verdict));
    CHECK(frame_check());
}

/* --- the pool ------------------------------------------------------------- */

TEST(guard, pool_comes_and_goes_whole)
{
    sim_boot(RAM_BYTES);
    slab_drain();
    struct frame_stats before = figures();
    uint64_t tables = kernel_tables_in_use();
    CHECK_EQUAL(guard_enable(0), MM_EINVAL);
    CHECK_EQUAL(guard_disable(), MM_OK);

    for (unsigned round = 0; round < 3; round++) {
        CHECK_EQUAL(guard_enable(7), MM_OK);
        CHECK_EQUAL(guard_enable(9), MM_OK);
        CHECK_EQUAL(stats().interval, 9);
        vaddr_t start = mapped((void *)stats().start);
        CHECK_EQUAL(frames_of(FRAME_GUARD), 512);
        CHECK_EQUAL(leaf_level(start), PTE_LEVELS); /* closed */
        CHECK_EQUAL(kernel_tables_in_use(), tables + 1);
        CHECK_HELPER(check_all());
        CHECK_EQUAL(guard_disable(), MM_OK);
        CHECK_EQUAL(leaf_level(start), 1);
        CHECK_EQUAL(leaf_level(start + 2 * MiB - PAGE_BYTES), 1);
        CHECK_EQUAL(kernel_tables_in_use(), tables);
        CHECK_EQUAL(sim_stale(), 0);
        CHECK_HELPER(check_all());
    }
    compare_frames(&before);
}

/* Of a page of 1 GiB, too: two tables more, and none afterwards. */
TEST(guard, pool_splits_a_gigabyte)
{
    struct pt_features features = {
        .levels = 4,
        .physical_bits = 46,
        .has_nx = true,
        .has_1g = true,
        .has_global = true,
    };

    sim_boot_with(8 * GiB, &features);
    uint64_t tables = kernel_tables_in_use();
    CHECK_EQUAL(guard_enable(1), MM_OK);
    vaddr_t start = mapped((void *)stats().start);
    CHECK_EQUAL(kernel_tables_in_use(), tables + 2);
    CHECK_EQUAL(guard_disable(), MM_OK);
    CHECK_EQUAL(leaf_level(start), 2);
    CHECK_EQUAL(kernel_tables_in_use(), tables);
    CHECK_HELPER(check_all());
}

/* Not on a CPU that takes a large and a small translation of a page amiss. */
TEST(guard, pool_is_not_merged_where_that_is_an_erratum)
{
    sim_boot(RAM_BYTES);
    pt_quirks = PT_QUIRK_MULTIMATCH;
    CHECK_EQUAL(guard_enable(1), MM_OK);
    vaddr_t start = mapped((void *)stats().start);
    CHECK_EQUAL(guard_disable(), MM_OK);
    pt_quirks = 0;
    CHECK_EQUAL(leaf_level(start), 0);
    CHECK_HELPER(check_all());
}

TEST(guard, live_objects_keep_the_pool)
{
    CHECK_HELPER(boot());
    char *object = alloc(BYTES);
    CHECK_EQUAL(guard_count_live(&cache->pool), 1);
    CHECK_EQUAL(guard_count_live(&other->pool), 0);
    CHECK_EQUAL(guard_disable(), MM_EBUSY);
    CHECK_EQUAL(guard_interval(), 0);
    CHECK(is_open(object, WALK_WRITE));
    CHECK(free_as(object, NULL));
    CHECK_EQUAL(guard_count_live(&cache->pool), 0);
    CHECK_EQUAL(guard_disable(), MM_OK);
    CHECK(alloc(BYTES) == NULL);
    CHECK(!free_as(object, NULL)); /* not ours any more */
}

/* The k-th allocation fails, for every k: of the block, its records, a table.
 */
TEST(guard, short_memory_leaves_all_whole)
{
    unsigned refused = 0;
    uint64_t tried;
    uint64_t k = 0;

    do {
        sim_boot(RAM_BYTES);
        slab_drain();
        struct frame_stats before = figures();
        uint64_t tables = kernel_tables_in_use();
        frame_inject(++k);
        bool is_on = guard_enable(1) == MM_OK;
        tried = frame_inject_count();
        frame_inject(0);
        refused += is_on ? 0 : 1;
        CHECK_EQUAL(stats().bytes, is_on ? 2 * MiB : 0);
        CHECK_EQUAL(guard_disable(), MM_OK);
        CHECK_EQUAL(kernel_tables_in_use(), tables);
        CHECK_HELPER(compare_frames(&before));
        CHECK_HELPER(check_all());
    } while (tried >= k);
    CHECK(refused >= 2);
}

/* --- objects -------------------------------------------------------------- */

TEST(guard, object_stands_at_an_edge_of_its_page)
{
    CHECK_HELPER(boot());
    unsigned low = 0;

    for (unsigned i = 0; i < 40; i++) {
        char *object = alloc(BYTES);
        CHECK(object != NULL);
        uint64_t offset = virt_to_phys(object).v % PAGE_BYTES;
        low += offset == 0;
        CHECK(offset == 0 || offset == PAGE_BYTES - 64);
        CHECK(heap_has_type(object, FRAME_GUARD));
        CHECK_EQUAL(guard_size(object), BYTES);
        CHECK_EQUAL(guard_size(object + 1), 0);
        memset(object, 0xa5, BYTES);
        CHECK(is_open(object, WALK_WRITE));
        CHECK(is_open(object + BYTES - 1, WALK_READ));
        char *page = object - offset;
        CHECK(!is_open(page - 1, WALK_READ));
        CHECK(!is_open(page + PAGE_BYTES, WALK_READ));
        CHECK(guard_check());
        CHECK(free_as(object, NULL));
        CHECK_EQUAL(guard_size(object), 0);
        CHECK(!is_open(object, WALK_READ));
    }
    CHECK_EQUAL(low, 10);
    CHECK_EQUAL(stats().samples, 40);
    CHECK_EQUAL(stats().live, 0);
    CHECK_HELPER(check_all());
}

/* The one that was freed last is used again last. */
TEST(guard, freed_pages_stay_closed_long)
{
    CHECK_HELPER(boot());
    char *first = alloc(BYTES);
    CHECK(free_as(first, NULL));

    for (unsigned i = 1; i < SEATS; i++) {
        char *object = alloc(BYTES);
        CHECK(align_down(virt_to_phys(object).v, PAGE_BYTES) !=
              align_down(virt_to_phys(first).v, PAGE_BYTES));
        CHECK(free_as(object, NULL));
        CHECK(!is_open(first, WALK_READ));
    }
    CHECK_EQUAL(stats().freed, SEATS);
    char *again = alloc(BYTES);
    CHECK_EQUAL(align_down(virt_to_phys(again).v, PAGE_BYTES),
                align_down(virt_to_phys(first).v, PAGE_BYTES));
}

/* What lives long does not take it all: one site has three quarters. */
TEST(guard, full_pool_guards_no_more)
{
    CHECK_HELPER(boot());
    unsigned count = 0;

    while (alloc(BYTES) != NULL) {
        count++;
    }
    CHECK_EQUAL(count, SEATS * 3 / 4);
    for (uintptr_t site = 1; guard_alloc(&cache->pool, BYTES, site) != NULL;
         site++) {
        count++;
    }
    CHECK(count > SEATS * 3 / 4 && count <= SEATS);
    CHECK_EQUAL(stats().live, count);
    CHECK_EQUAL(stats().passed, 2);
    CHECK_HELPER(check_all());
    struct guard_object object;
    unsigned live = 0;
    for (unsigned i = 0; i < SEATS; i++) {
        if (guard_look(i, &object) && object.is_live) {
            live++;
            CHECK(free_as((void *)object.start, NULL));
        }
    }
    CHECK_EQUAL(live, count);
    CHECK_EQUAL(guard_disable(), MM_OK);
}

TEST(guard, interval_is_met_in_the_mean)
{
    CHECK_HELPER(boot());
    CHECK_EQUAL(guard_interval(), 1);
    CHECK_EQUAL(guard_enable(1000), MM_OK);
    uint64_t sum = 0;
    unsigned count = 0;

    for (; count < 1000; count++) {
        uint32_t next = guard_interval();
        CHECK(next >= 500 && next < 1500);
        sum += next;
        CHECK(free_as(alloc(BYTES), NULL));
    }
    CHECK(sum / count > 990 && sum / count < 1010);
}

static void construct(void *object)
{
    memset(object, 0x42, 100);
}

TEST(guard, cache_decides_on_place_and_contents)
{
    CHECK_HELPER(boot());
    struct slab_cache *made =
        slab_create_kind(POOL_CACHE, "made", 100, 16, construct);
    struct slab_cache *page =
        slab_create_kind(POOL_CACHE, "page", PAGE_BYTES, PAGE_BYTES, NULL);
    struct slab_cache *large =
        slab_create_kind(POOL_CACHE, "large", PAGE_BYTES + 1, 16, NULL);

    for (unsigned i = 0; i < 600; i++) {
        const char *object = guard_alloc(&made->pool, 100, SITE);
        CHECK(object[0] == 0x42 && object[99] == 0x42);
        CHECK(is_aligned(virt_to_phys(object).v, 16));
        CHECK(free_as((void *)object, made));
    }
    char *whole = guard_alloc(&page->pool, PAGE_BYTES, SITE);
    CHECK(is_aligned(virt_to_phys(whole).v, PAGE_BYTES));
    CHECK(!is_open(whole - 1, WALK_READ));
    CHECK(!is_open(whole + PAGE_BYTES, WALK_READ));
    CHECK(free_as(whole, page));
    CHECK(guard_alloc(&large->pool, 100, SITE) == NULL);

    /* A cache that goes: its objects are remembered without a name. */
    struct guard_object object;
    CHECK(guard_find((vaddr_t)whole + 5, &object));
    CHECK(strcmp(object.name, "page") == 0);
    guard_forget(&page->pool);
    CHECK(guard_find((vaddr_t)whole + 5, &object));
    CHECK(strcmp(object.name, "?") == 0);
    CHECK(!object.is_live && object.alloc_site == SITE &&
          object.free_site == OTHER);
}

/* --- crimes --------------------------------------------------------------- */

TEST(guard, overflow_is_a_fault)
{
    CHECK_HELPER(boot());
    char *object = alloc_at(64, UPPER);

    CHECK(!is_open(object + 64, WALK_WRITE));
    CHECK(commit(object + 64, WALK_WRITE));
    CHECK_BUG("overflow: write at ");
    object = alloc_at(64, UPPER);
    CHECK(commit(object + 64 + 7, WALK_READ));
    CHECK_BUG("(offset 71) by 0x2222; guarded object ");
    object = alloc_at(64, UPPER);
    CHECK(commit(object + 64, WALK_READ));
    CHECK_BUG("(64 bytes, cache sixty-four), allocated by 0x1111 on CPU 0");
    CHECK_EQUAL(stats().found, 3);
    CHECK(free_as(object, NULL));
    CHECK_HELPER(check_all());
}

TEST(guard, overflow_into_the_gap_is_seen_when_freed)
{
    CHECK_HELPER(boot());
    for (unsigned beyond = 0; beyond < 4; beyond++) {
        char *object = alloc_at(BYTES, UPPER);
        object[BYTES + beyond] = 0;
        CHECK(!is_open(object + 64, WALK_READ));
        CHECK(!guard_check());
        CHECK(free_as(object, NULL));
        CHECK_BUG("overflow: write at ");
        CHECK_EQUAL(stats().live, 0);
    }
    char *object = alloc_at(BYTES, LOWER);
    object[BYTES] = 0;
    CHECK(free_as(object, NULL));
    CHECK_BUG("(offset 60) by 0x2222");
}

TEST(guard, underflow_is_seen)
{
    CHECK_HELPER(boot());
    char *object = alloc_at(BYTES, LOWER);

    CHECK(commit(object - 1, WALK_WRITE));
    CHECK_BUG("underflow: write at ");
    CHECK(commit(object - 1, WALK_READ) == false); /* open since then */
    object = alloc_at(BYTES, UPPER);
    object[-1] = 1;
    CHECK(free_as(object, NULL));
    CHECK_BUG("underflow: write at ");
    object = alloc_at(BYTES, LOWER);
    CHECK(commit(object - 8, WALK_READ));
    CHECK_BUG("underflow: read at ");
}

TEST(guard, use_after_free_is_a_fault)
{
    CHECK_HELPER(boot());
    char *object = alloc(BYTES);
    CHECK(is_open(object, WALK_READ)); /* and cached here */
    CHECK(free_as(object, NULL));

    CHECK(commit(object + 5, WALK_READ));
    CHECK_BUG("use after free: read at ");
    object = alloc(BYTES);
    CHECK(free_as(object, NULL));
    CHECK(commit(object, WALK_WRITE));
    CHECK_BUG("allocated by 0x1111 on CPU 0, freed by 0x2222 on CPU 0");
    CHECK_HELPER(check_all());
    CHECK_EQUAL(guard_disable(), MM_OK);
    CHECK_HELPER(check_all());
}

TEST(guard, guards_are_closed_again)
{
    CHECK_HELPER(boot());
    char *object = alloc_at(64, UPPER);

    CHECK(commit(object + 64, WALK_WRITE));
    CHECK_BUG("overflow");
    CHECK(is_open(object + 64, WALK_WRITE));
    CHECK(free_as(object, NULL));
    for (unsigned i = 0; i < SEATS; i++) {
        CHECK(free_as(alloc(64), NULL));
    }
    CHECK(!is_open(object + 64, WALK_READ));
}

TEST(guard, wrong_frees_are_named_and_change_nothing)
{
    CHECK_HELPER(boot());
    char *object = alloc(BYTES);
    char mine;

    CHECK(!free_as(&mine, NULL));
    CHECK(free_as(object + 8, NULL));
    CHECK_BUG("free of an interior pointer at ");
    CHECK(free_as(object, other));
    CHECK_BUG("free to the wrong cache at ");
    CHECK(free_as((void *)stats().start, NULL));
    CHECK_BUG("free at ");
    CHECK(free_as(object + PAGE_BYTES * 4, NULL));
    CHECK_BUG("where none has ever been");
    CHECK_EQUAL(stats().live, 1);
    CHECK(is_open(object, WALK_WRITE));
    CHECK(free_as(object, NULL));
    CHECK(free_as(object, NULL));
    CHECK_BUG("double free at ");
    CHECK_EQUAL(stats().live, 0);
    object = guard_alloc(&other->pool, 64, SITE);
    CHECK(free_as(object, NULL));
    CHECK_BUG("free to the wrong cache at ");
    CHECK(free_as(object, other));
    CHECK_HELPER(check_all());
}

TEST(guard, other_faults_are_not_its_own)
{
    CHECK_HELPER(boot());
    char *object = alloc(BYTES);
    struct guard_object found;

    CHECK(!guard_fault((vaddr_t)object, GUARD_EXEC, OTHER));
    CHECK(!guard_fault(stats().start - 1, GUARD_READ, OTHER));
    CHECK(!guard_fault(stats().start + stats().bytes, GUARD_READ, OTHER));
    CHECK(!guard_fault(0, GUARD_READ, OTHER));
    CHECK(!guard_find(0, &found));
    CHECK(guard_fault(stats().start + 2 * MiB - 1, GUARD_READ, OTHER));
    CHECK_BUG("invalid read at ");
    CHECK(guard_fault(stats().start + 9 * PAGE_BYTES, GUARD_WRITE, OTHER));
    CHECK_BUG("invalid write at ");
}

/* --- other CPUs ----------------------------------------------------------- */

/*
 * Another CPU may go on with what it has cached; but before the frames are
 * anybody else's it has forgotten it (sim_watch.c looks).
 */
TEST(guard, other_cpus_forget_before_the_pool_goes)
{
    sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
    CHECK_EQUAL(guard_enable(1), MM_OK);
    cache = slab_create_kind(POOL_KMALLOC, "sixty-four", 64, 64, NULL);
    char *object = alloc(64);

    sim_set_cpu(1);
    CHECK(is_open(object, WALK_WRITE));
    sim_set_cpu(0);
    uint64_t interrupts = sim_interrupts(1);
    CHECK(free_as(object, NULL));
    CHECK_EQUAL(sim_interrupts(1), interrupts); /* nobody was waited for */
    CHECK(!is_open(object, WALK_READ));
    CHECK_EQUAL(guard_disable(), MM_OK);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_HELPER(check_all());
}

/* kfree() of an interrupt; with interrupts off, and a lock held. */
TEST(guard, frees_wait_for_nobody)
{
    sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
    CHECK_EQUAL(guard_enable(1), MM_OK);
    cache = slab_create_kind(POOL_KMALLOC, "sixty-four", 64, 64, NULL);
    struct lock lock = LOCK_INIT(LOCK_RANK_HOST_OUTER);
    uint64_t interrupts = sim_interrupts(1);

    uint64_t irq = lock_acquire(&lock);
    for (unsigned i = 0; i < 2 * SEATS; i++) {
        CHECK(free_as(alloc(BYTES), NULL));
    }
    lock_release(&lock, irq);
    CHECK_EQUAL(sim_interrupts(1), interrupts);
}
