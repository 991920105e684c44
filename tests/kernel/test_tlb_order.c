/* SPDX-License-Identifier: MIT */
/* tlb: two batches at once, and idle CPUs that wake at the wrong moment. */
#include "tests/shared/test.h"

#include <stdatomic.h>

#include <mm/frame.h>
#include <mm/port.h>
#include <mm/pt.h>
#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/smp.h"
#include "tests/kernel/crew.h"

/*
 * At risk: what one batch knows and another does not; a CPU that is asked to
 * leave a space while it has just been awake; work that runs in a space that
 * other work has left loaded. Provoked by putting the steps in that order.
 */

#define BASE       UINT64_C(0x40000000)
#define LARGE      (2 * MiB)
#define USED_PAGES 64

static struct pt space;

/* A 2 MiB block in 4 KiB leaves, of which some are cached here. */
static bool begin_with_small_leaves(pfn_t block)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct probe probe;
    bool is_read = true;

    if (pt_open(&space, BASE, BASE + LARGE, &batch, &cursor) != MM_OK) {
        return false;
    }
    bool done = pt_map(&cursor, BASE, block, LARGE,
                       pt_attr(PT_WRITE | PT_OWNED)) == MM_OK &&
                pt_split(&cursor, BASE) == MM_OK;
    pt_close(&cursor);
    tlb_commit(&batch);
    tlb_switch(&space.tlb);
    for (unsigned i = 0; done && i < USED_PAGES; i++) {
        is_read =
            probe_read64((void *)(BASE + i * PAGE_BYTES), &probe) && is_read;
    }
    return done && is_read;
}

static bool merge(struct tlb_batch *batch)
{
    struct pt_cursor cursor;

    if (pt_open(&space, BASE, BASE + LARGE, batch, &cursor) != MM_OK) {
        return false;
    }
    enum mm_status status = pt_merge(&cursor, BASE, 1);
    pt_close(&cursor);
    return status == MM_OK;
}

static bool unmap(struct tlb_batch *batch)
{
    struct pt_cursor cursor;
    vaddr_t reached;

    if (pt_open(&space, BASE, BASE + LARGE, batch, &cursor) != MM_OK) {
        return false;
    }
    enum mm_status status = pt_unmap(&cursor, BASE, LARGE, &reached);
    pt_close(&cursor);
    return status == MM_OK;
}

/* One INVLPG is enough for a large page, but small ones are cached. */
TEST(tlb_order, a_page_merged_by_one_batch_is_taken_by_another)
{
    pfn_t block = frame_alloc(9, FRAME_USER, FRAME_ZEROED);
    struct tlb_batch merging;
    struct tlb_batch taking;
    unsigned stale = 0;

    CHECK(pt_init(&space) == MM_OK && !pfn_is_none(block));
    bool done = begin_with_small_leaves(block);
    done = done && merge(&merging) && unmap(&taking);
    tlb_commit(&taking);
    for (unsigned i = 0; i < USED_PAGES; i++) {
        struct probe probe;
        bool is_read = probe_read64((void *)(BASE + i * PAGE_BYTES), &probe);
        stale += is_read ? 1 : 0;
    }
    tlb_commit(&merging);
    tlb_switch(&pt_kernel.tlb);
    pt_fini(&space);
    CHECK(done);
    CHECK_EQUAL(stale, 0);
}

static _Atomic bool is_there;
static _Atomic bool may_leave;

static void wait_until_there(void)
{
    while (!atomic_load(&is_there)) {
        cpu_pause();
    }
}

/* Idle in the space; awake for a moment when the request has come. */
static void sleep_badly(void *argument)
{
    (void)argument;
    tlb_switch(&space.tlb);
    cpu_irq_off();
    tlb_begin_lazy();
    atomic_store(&is_there, true);
    while (!apic_is_requested(APIC_VECTOR_TLB)) {
        cpu_pause();
    }
    tlb_end_lazy();
    tlb_begin_lazy();
    while (!atomic_load(&may_leave)) {
        cpu_irq_window();
    }
    tlb_end_lazy();
    tlb_switch(&pt_kernel.tlb);
    cpu_irq_on();
}

TEST(tlb_order, an_idle_cpu_leaves_though_it_has_caught_up)
{
    CHECK(pt_init(&space) == MM_OK);
    atomic_store(&is_there, false);
    atomic_store(&may_leave, false);
    if (crew_others() > 0 &&
        smp_run(smp_first_other(), sleep_badly, NULL) == MM_OK) {
        wait_until_there();
    }
    pt_fini(&space); /* panics if a CPU still runs it */
    atomic_store(&may_leave, true);
    crew_wait();
}

static void load_space(void *argument)
{
    (void)argument;
    tlb_switch(&space.tlb);
}

static void stay_busy(void *argument)
{
    (void)argument;
    atomic_store(&is_there, true);
    while (!atomic_load(&may_leave)) {
        cpu_pause();
    }
}

TEST(tlb_order, work_does_not_run_in_a_space_that_was_left_loaded)
{
    CHECK(pt_init(&space) == MM_OK);
    atomic_store(&is_there, false);
    atomic_store(&may_leave, false);
    crew_start(load_space, NULL);
    crew_park();
    if (crew_others() > 0 &&
        smp_run(smp_first_other(), stay_busy, NULL) == MM_OK) {
        wait_until_there();
    }
    pt_fini(&space); /* the same */
    atomic_store(&may_leave, true);
    crew_wait();
}
