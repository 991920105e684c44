/* SPDX-License-Identifier: MIT */
/* Tests of guard by threads: objects change hands, and each has one owner. */
#include <stdatomic.h>

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/pt.h>
#include "heap/guard_impl.h"
#include "heap/slab_impl.h"
#include "heap/magazine.h"
#include "tests/host/players.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"

/*
 * At risk: a seat that two get at once, one that is lost from the list, a
 * count that is wrong in the end, entries of one table that two change, a
 * cache that goes, and takes or keeps what was another's. Provoked by threads
 * that allocate more than there are seats, free what others allocated, and
 * make and destroy caches; and by one that touches what is closed while the
 * pool comes and goes: to whom a fault must always be explained.
 */

#define ROUNDS  1500
#define SLOTS   300 /* more than seats */
#define BYTES   64
#define ANYBODY UINT64_C(1)

static struct {
    struct slab_cache *cache;
    _Atomic(uint64_t *) slot[SLOTS];
    _Atomic unsigned freed; /* that were */
} field;

/* What belongs to whoever has the pointer, and to nobody else. */
static void own(uint64_t *object, uint64_t mark)
{
    for (unsigned i = 0; i < BYTES / sizeof(*object); i++) {
        object[i] = mark + i;
    }
}

static bool is_own(const uint64_t *object)
{
    for (unsigned i = 1; i < BYTES / sizeof(*object); i++) {
        if (object[i] != object[0] + i) {
            return false;
        }
    }
    return true;
}

static void let_go(uint64_t *object)
{
    if (object == NULL) {
        return;
    }
    player_expect(is_own(object) && guard_size(object) == BYTES &&
                  guard_free(object, NULL, ANYBODY));
    atomic_fetch_add(&field.freed, 1);
}

static void trade(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t site = test_random_next(&player_me()->random);
        uint64_t *object = guard_alloc(&field.cache->pool, BYTES, site);
        if (object != NULL) {
            own(object, site);
        }
        let_go(atomic_exchange(&field.slot[player_below(SLOTS)], object));
    }
}

/* All CPUs do as @act says; what is left in the slots goes, and is sound. */
static void run(void (*act)(void))
{
    sim_boot_cpus(64 * MiB, PLAYERS, SIM_ALL_PARTS);
    field.cache = slab_create_kind(POOL_KMALLOC, "trade", BYTES, BYTES, NULL);
    atomic_store(&field.freed, 0);
    CHECK_EQUAL(guard_enable(1), MM_OK);
    CHECK_HELPER(players_run(PLAYERS, act));
    CHECK(guard_check());
    for (unsigned i = 0; i < SLOTS; i++) {
        let_go(atomic_exchange(&field.slot[i], NULL));
    }
    CHECK_EQUAL(player_me()->errors, 0);
}

TEST(guard, threads_trade_objects)
{
    struct audit_verdict verdict;
    struct guard_stats stats;

    CHECK_HELPER(run(trade));
    guard_stats(&stats);
    CHECK_EQUAL(stats.live, 0);
    CHECK_EQUAL(stats.samples, field.freed);
    CHECK_EQUAL(stats.samples + stats.passed, PLAYERS * ROUNDS);
    CHECK(stats.passed > 0); /* it was full */
    CHECK_EQUAL(guard_disable(), MM_OK);
    CHECK(pt_audit(&pt_kernel, &verdict));
}

/* --- caches come and go meanwhile ----------------------------------------- */

#define CACHES 300

/* A seat that was its last object's is another cache's before it goes. */
static void make_and_destroy(void)
{
    for (unsigned i = 0; i < CACHES; i++) {
        struct slab_cache *cache =
            slab_create_kind(POOL_CACHE, "short-lived", BYTES, BYTES, NULL);
        if (cache == NULL) {
            player_expect(false);
            return;
        }
        void *object = guard_alloc(&cache->pool, BYTES, ANYBODY);
        player_expect(object == NULL ||
                      guard_free(object, &cache->pool, ANYBODY));
        player_expect(slab_destroy(cache) == MM_OK);
    }
}

static void live(void)
{
    if (player_me()->cpu == 0) {
        make_and_destroy();
    }
    trade();
}

TEST(guard, threads_destroy_caches)
{
    CHECK_HELPER(run(live));
    CHECK_EQUAL(guard_disable(), MM_OK);
}

/* --- the pool comes and goes meanwhile ------------------------------------ */

#define COMINGS 40
#define TOUCHES 20 /* at least, of each pool */

static _Atomic unsigned touches;
static _Atomic bool is_over;

/* CPU 0: the pool is there until somebody has met it. */
static void come_and_go(void)
{
    for (unsigned i = 0; i < COMINGS; i++) {
        atomic_store(&touches, 0);
        player_expect(guard_enable(1) == MM_OK);
        while (atomic_load(&touches) < TOUCHES) {
            sim_poll();
            sim_yield();
        }
        enum mm_status status = guard_disable();
        while (status == MM_EBUSY) {
            sim_poll();
            sim_yield();
            status = guard_disable();
        }
        player_expect(status == MM_OK);
    }
    atomic_store(&is_over, true);
}

/* What a processor does at a page that it may not touch. */
static void touch(void)
{
    struct guard_stats stats;
    uint64_t irq = port_irq_save();

    guard_stats(&stats);
    vaddr_t address =
        stats.start + player_below((unsigned)(POOL_BYTES / 64)) * 64;
    paddr_t physical;
    if (stats.start != 0 &&
        sim_translate(SIM_DIRECT + virt_to_phys((void *)address).v, WALK_READ,
                      &physical) != WALK_ALLOWED) {
        player_expect(guard_fault(address, GUARD_READ, ANYBODY));
        atomic_fetch_add(&touches, 1);
    }
    port_irq_restore(irq);
}

static void use(void)
{
    uint64_t *object = guard_alloc(&field.cache->pool, BYTES, ANYBODY);

    if (object != NULL) {
        player_expect(guard_size(object) == BYTES);
        own(object, player_me()->cpu);
        player_expect(is_own(object) && guard_free(object, NULL, ANYBODY));
    }
}

static void come_touch_or_use(void)
{
    if (player_me()->cpu == 0) {
        come_and_go();
    }
    while (!atomic_load(&is_over)) {
        if (player_me()->cpu == 1) {
            touch();
        } else {
            use();
        }
        sim_yield();
    }
}

TEST(guard, threads_touch_what_is_closed)
{
    struct audit_verdict verdict;

    sim_boot_cpus(64 * MiB, PLAYERS, SIM_ALL_PARTS);
    field.cache = slab_create_kind(POOL_KMALLOC, "trade", BYTES, BYTES, NULL);
    atomic_store(&is_over, false);
    CHECK_HELPER(players_run(PLAYERS, come_touch_or_use));
    CHECK_BUG(" by 0x1");
    CHECK_EQUAL(frames_of(FRAME_GUARD), 0);
    CHECK(pt_audit(&pt_kernel, &verdict));
}
