/* SPDX-License-Identifier: MIT */
/* Tests of lock: order, holder, and giving up. */
#include <stdio.h>
#include <string.h>

#include <mm/fault.h>
#include <mm/kmap.h>
#include <mm/pt.h>
#include "base/lock.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"

/*
 * At risk: two CPUs that each wait for what the other holds, one that waits
 * for itself, and a check that lets that pass or that accuses the innocent.
 * Provoked by breaking each rule in a process of its own, whose panic is read,
 * by keeping the rules in the same places, and by threads.
 */

/* Locks in the order in which they may be taken. */
#define DEPTH 8
static struct lock chain[DEPTH];

static const enum lock_rank rank_of[DEPTH] = {
    LOCK_RANK_HOST_OUTER, LOCK_RANK_SHRINK,     LOCK_RANK_CACHES,
    LOCK_RANK_POOL,       LOCK_RANK_ARENA,      LOCK_RANK_TABLES,
    LOCK_RANK_RANGES,     LOCK_RANK_HOST_INNER,
};

static void make_chain(void)
{
    sim_reset(0);
    for (unsigned i = 0; i < DEPTH; i++) {
        lock_init(&chain[i], rank_of[i]);
    }
}

/* --- order ---------------------------------------------------------------- */

TEST(lock, ranks_may_ascend)
{
    uint64_t irq[DEPTH];

    make_chain();
    CHECK_EQUAL(lock_count_held(), 0);
    for (unsigned i = 0; i < DEPTH; i++) {
        irq[i] = lock_acquire(&chain[i]);
        CHECK(lock_is_held(&chain[i]) && sim_irq_is_off());
        CHECK_EQUAL(lock_count_held(), MM_DEBUG ? i + 1 : 0);
    }
    for (unsigned i = DEPTH; i-- > 0;) {
        CHECK(!MM_DEBUG || lock_is_mine(&chain[i]));
        lock_release(&chain[i], irq[i]);
        CHECK(!lock_is_held(&chain[i]) && !lock_is_mine(&chain[i]));
        CHECK_EQUAL(sim_irq_is_off(), i > 0);
    }
    CHECK_EQUAL(lock_count_held(), 0);
}

static unsigned outer;
static unsigned inner;

static void take_two(void)
{
    lock_acquire(&chain[outer]);
    lock_acquire(&chain[inner]);
}

TEST(lock, a_rank_that_does_not_ascend_is_a_panic)
{
    make_chain();
    for (outer = 0; MM_DEBUG && outer < DEPTH; outer++) {
        for (inner = 0; inner < outer; inner++) {
            CHECK(sim_panics(take_two, "ranks must ascend"));
        }
    }
}

TEST(lock, two_of_one_rank_are_a_panic)
{
    make_chain();
    outer = 0;
    inner = 1;
    lock_init(&chain[1], rank_of[0]);
    CHECK(!MM_DEBUG ||
          sim_panics(take_two, "of rank host outer (0x1) is taken by CPU 0"));
}

static void take_again(void)
{
    lock_acquire(&chain[3]);
    lock_acquire(&chain[4]);
    lock_acquire(&chain[3]);
}

TEST(lock, one_that_this_cpu_holds_is_a_panic_and_no_hang)
{
    make_chain();
    CHECK(!MM_DEBUG || sim_panics(take_again, "is held by this CPU (0)"));
}

static void take_unmade(void)
{
    static struct lock unmade;

    lock_acquire(&unmade);
}

TEST(lock, one_without_a_rank_is_a_panic)
{
    CHECK(!MM_DEBUG || sim_panics(take_unmade, "was never initialised"));
}

static void take_too_many(void)
{
    static struct lock extra;

    for (unsigned i = 0; i < DEPTH; i++) {
        lock_acquire(&chain[i]);
    }
    lock_init(&extra, LOCK_RANK_HOST_INNER + 1);
    lock_acquire(&extra);
}

TEST(lock, more_than_the_list_has_room_for_is_a_panic)
{
    make_chain();
    CHECK(!MM_DEBUG || sim_panics(take_too_many, "CPU 0 holds 8 locks"));
}

/* --- letting go ----------------------------------------------------------- */

static void release_of_other(void)
{
    uint64_t irq = lock_acquire(&chain[0]);

    sim_set_cpu(1);
    lock_release(&chain[0], irq);
}

static void release_out_of_order(void)
{
    uint64_t first = lock_acquire(&chain[0]);

    lock_acquire(&chain[1]);
    lock_release(&chain[0], first);
}

static void release_twice(void)
{
    uint64_t irq = lock_acquire(&chain[0]);

    lock_release(&chain[0], irq);
    lock_release(&chain[0], irq);
}

TEST(lock, only_the_holder_lets_go_and_of_the_last_one_first)
{
    make_chain();
    CHECK(!MM_DEBUG ||
          sim_panics(release_of_other, "released by CPU 1, but held by CPU 0"));
    CHECK(!MM_DEBUG ||
          sim_panics(release_out_of_order, "which was taken later"));
    CHECK(sim_panics(release_twice, "lock_is_held"));
}

/* --- giving up ------------------------------------------------------------ */

TEST(lock, a_report_gives_up_and_leaves_no_trace)
{
    uint64_t irq;

    make_chain();
    sim_set_cpu_count(2);
    uint64_t held = lock_acquire(&chain[0]);
    if (MM_DEBUG) {
        CHECK(!lock_try_acquire(&chain[0], UINT32_MAX, &irq)); /* at once */
    }
    sim_set_cpu(1);
    CHECK(!lock_try_acquire(&chain[0], 10, &irq));
    CHECK_EQUAL(lock_count_held(), 0);
    sim_set_cpu(0);
    CHECK(sim_irq_is_off());
    lock_release(&chain[0], held);
    CHECK(!sim_irq_is_off());
    CHECK(lock_try_acquire(&chain[0], 0, &irq));
    CHECK(sim_irq_is_off() && lock_is_held(&chain[0]));
    lock_release(&chain[0], irq);
    lock_release(&chain[0], lock_acquire(&chain[0]));
    CHECK(!sim_irq_is_off() && !lock_is_held(&chain[0]));
}

static void take_under_tried(void)
{
    uint64_t irq;

    lock_acquire(&chain[5]);
    if (lock_try_acquire(&chain[1], 0, &irq)) {
        lock_acquire(&chain[3]);
    }
}

/* Who gives up closes no circle; who waits under it may. */
TEST(lock, only_waiting_is_bound_to_ranks)
{
    uint64_t irq;

    make_chain();
    uint64_t first = lock_acquire(&chain[5]);
    CHECK(lock_try_acquire(&chain[1], 0, &irq));
    uint64_t last = lock_acquire(&chain[6]);
    lock_release(&chain[6], last);
    lock_release(&chain[1], irq);
    lock_release(&chain[5], first);
    CHECK(!MM_DEBUG || sim_panics(take_under_tried, "ranks must ascend"));
}

static void fault_under_tables(void)
{
    vaddr_t block = (vaddr_t)kmap_alloc(PAGE_BYTES, KMAP_LAZY, "block");
    struct fault fault = {.address = block, .rules = {true, true, true, true}};
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct walk walk;

    if (pt_open(&pt_kernel, block, block + PAGE_BYTES, &batch, &cursor) ==
        MM_OK) {
        fault_handle(&fault, &walk);
    }
}

/* Debug builds know whose lock it is, others that there is nobody else. */
TEST(lock, a_promise_touched_under_the_tables_lock_is_a_panic)
{
    sim_boot(64 * MiB);
    CHECK(sim_panics(fault_under_tables,
                     MM_DEBUG ? "pt->order" : "port_cpu_count() > 1"));
    sim_set_cpu_count(2);
    CHECK(!MM_DEBUG || sim_panics(fault_under_tables, "pt->order"));
    sim_set_cpu_count(1);
}
