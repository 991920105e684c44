/* SPDX-License-Identifier: MIT */
/* Tests of the quarantine: freed objects wait, and nothing is lost by it. */
#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/quarantine.h>
#include <mm/slab.h>
#include "base/check.h"
#include "heap/pool.h"
#include "heap/quarantine.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

/*
 * At risk: an object that waits for ever, or is handed out while it waits, a
 * cache that cannot go because some of its objects wait. Provoked by freeing
 * more than the quarantine holds, of several caches, and by counting. Release
 * builds have none: there, what holds is that nothing waits.
 */

#define RAM_BYTES (16 * MiB)
#define LIMIT     (16 * KiB)
#define BYTES     496 /* of the class 512 */

static void boot(uint64_t limit)
{
    sim_boot_heap(RAM_BYTES);
    enum mm_status status = quarantine_set(limit);
    ASSERT(status == MM_OK);
}

/* Is @block given out again within @tries allocations? All are freed. */
static bool comes_back(const void *block, unsigned tries)
{
    static void *taken[POOL_MAX_OBJECTS];
    bool found = false;
    unsigned count = 0;

    while (!found && count < tries && count < POOL_MAX_OBJECTS) {
        taken[count] = kmalloc(BYTES);
        found = taken[count] == block;
        count++;
    }
    for (unsigned i = 0; i < count; i++) {
        kfree(taken[i]);
    }
    return found;
}

TEST(quarantine, a_freed_object_waits)
{
    boot(LIMIT);
    void *block = kmalloc(BYTES);
    kfree(block);
    CHECK(comes_back(block, 1) == !MM_DEBUG);
    CHECK(quarantine_set(0) == MM_OK);
    slab_drain();
    block = kmalloc(BYTES);
    kfree(block);
    CHECK(comes_back(block, 1));
    CHECK_HELPER(check_heap());
}

/* As many bytes as there is room for, and then the oldest goes. */
TEST(quarantine, it_ends)
{
    boot(LIMIT);
    void *block = kmalloc(BYTES);
    kfree(block);
    unsigned frees = 1;
    void *again = kmalloc(BYTES);
    while (again != block && frees < 2 * LIMIT / BYTES) {
        kfree(again);
        again = kmalloc(BYTES);
        frees++;
    }
    CHECK(again == block);
    CHECK(!MM_DEBUG || frees >= LIMIT / (2 * BYTES));
    kfree(again);
    CHECK_HELPER(check_heap());
}

TEST(quarantine, a_late_write_is_noticed)
{
    if (!MM_DEBUG) {
        return;
    }
    boot(LIMIT);
    volatile char *block = kmalloc(BYTES);
    kfree((void *)block);
    for (unsigned i = 0; i < 8; i++) { /* others allocate meanwhile */
        kfree(kmalloc(BYTES));
    }
    block[100] = 1;
    CHECK(!slab_check());
    CHECK(sim_log_contains("use after free: byte"));
    slab_drain();
    CHECK_BUG("use after free");
}

/* What waits is counted as cached, and gone after a drain. */
TEST(quarantine, nothing_is_lost)
{
    static void *object[200];
    struct slab_stats stats;

    boot(64 * LIMIT);
    uint64_t before = heap_frames();
    struct slab_cache *cache = slab_create("waiting", 100, 0, NULL);
    for (unsigned i = 0; i < 200; i++) {
        object[i] = slab_alloc(cache);
        CHECK(object[i] != NULL);
    }
    for (unsigned i = 0; i < 200; i++) {
        slab_free(cache, object[i]);
    }
    slab_stats(cache, &stats);
    CHECK_EQUAL(stats.live, 0);
    CHECK(stats.cached >= 200);
    CHECK_HELPER(check_heap());
    CHECK(slab_destroy(cache) == MM_OK);
    slab_drain();
    CHECK_EQUAL(heap_frames(), before);
}

/* So do those of which it is noted who has them. */
TEST(quarantine, noted_objects_wait)
{
    slab_note_states();
    boot(LIMIT);
    void *block = kmalloc(BYTES);
    kfree(block);
    bool is_back = comes_back(block, 1);
    bool is_sound = slab_check() && kmalloc_check();
    pool_notes_states = false;
    CHECK(is_sound && is_back == !MM_DEBUG);
}

TEST(quarantine, a_second_free_is_one)
{
    boot(LIMIT);
    void *block = kmalloc(BYTES);
    kfree(block);
    kfree(block);
    slab_drain();
    CHECK_BUG("double free");
    CHECK_HELPER(check_heap());
}

/* More objects than it has slots for, however small they are. */
TEST(quarantine, many_small_objects_pass_through)
{
    boot(RAM_BYTES);
    for (unsigned i = 0; i < 5000; i++) {
        void *block = kmalloc(16);
        CHECK(block != NULL);
        kfree(block);
    }
    CHECK_HELPER(check_heap());
}

/* Freed many at once, they wait all the same. */
TEST(quarantine, bulks_wait)
{
    void *object[3];
    void *again[3];

    boot(LIMIT);
    struct slab_cache *cache = slab_create("bulk", BYTES, 0, NULL);
    CHECK(cache != NULL && slab_alloc_bulk(cache, 3, object));
    slab_free_bulk(cache, object, 3);
    CHECK(slab_alloc_bulk(cache, 3, again));
    for (unsigned i = 0; i < 3; i++) {
        CHECK((again[i] == object[i]) == !MM_DEBUG);
    }
    slab_free_bulk(cache, again, 3);
    CHECK(slab_destroy(cache) == MM_OK);
    CHECK_HELPER(check_heap());
}

/* The k-th allocation fails, for every k: no queue is left behind. */
TEST(quarantine, without_memory_nothing_has_changed)
{
    enum { CPUS = 20 }; /* queues for them take several slabs */
    unsigned refused = 0;
    enum mm_status status;

    do {
        sim_boot_frames_on(RAM_BYTES, CPUS);
        CHECK(slab_init() == MM_OK && kmalloc_init() == MM_OK);
        void *block = kmalloc(BYTES);
        slab_drain();
        uint64_t before = heap_frames();
        frame_inject(refused + 1);
        status = quarantine_set(LIMIT);
        frame_inject(0);
        kfree(block);
        if (status != MM_OK) {
            CHECK_EQUAL(status, MM_ENOMEM);
            CHECK(comes_back(block, 1)); /* it did not wait */
            CHECK_HELPER(check_heap());
            slab_drain();
            CHECK(heap_frames() <= before);
            CHECK(quarantine_set(LIMIT) == MM_OK);
            refused++;
        }
    } while (status != MM_OK);
    CHECK(!MM_DEBUG || refused >= 2);
    CHECK_HELPER(check_heap());
}

/* --- its caches go -------------------------------------------------------- */

static struct slab_cache *going;
static unsigned moments; /* until it goes */
static enum mm_status gone;

static void destroy_elsewhere(void)
{
    if (moments > 0 && --moments == 0) {
        sim_set_cpu(1);
        gone = slab_destroy(going);
        sim_set_cpu(0);
    }
}

/* What a free drives out is in no one's hands at any moment. */
TEST(quarantine, a_cache_goes_while_its_objects_leave)
{
    enum { MOMENTS = 40 };

    for (unsigned i = 1; i <= MOMENTS; i++) {
        sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
        CHECK(quarantine_set(LIMIT) == MM_OK);
        going = slab_create("going", BYTES, 0, NULL);
        CHECK(going != NULL);
        slab_free(going, slab_alloc(going));
        void *block = kmalloc(BYTES);
        moments = i;
        gone = MM_EINVAL;
        CHECK(quarantine_set(BYTES) == MM_OK);
        sim_set_interrupt(destroy_elsewhere);
        kfree(block);
        sim_set_interrupt(NULL);
        CHECK(moments > 0 || gone == MM_OK);
        CHECK_HELPER(check_heap());
    }
    CHECK(moments > 0); /* each had its turn */
}
