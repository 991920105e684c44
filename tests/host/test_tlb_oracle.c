/* SPDX-License-Identifier: MIT */
/* The oracle: no frame is handed out that a CPU may still know. */
/*
 * At risk: an oracle that sees nothing, or that accuses CPUs which can use
 * nothing of what they have cached. A protocol that fails is played by a frame
 * that claims to have become unreachable at a flush that is yet to come.
 */
#include <mm/frame.h>
#include <mm/pt.h>
#include "map/tlb_impl.h"
#include "base/check.h"
#include "base/lock.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"

#define RAM_BYTES (32 * MiB)

static struct pt pt;

static void start_cpus(unsigned cpus)
{
    sim_boot_cpus(RAM_BYTES, cpus, SIM_ALL_PARTS);
    CHECK_EQUAL(pt_init(&pt), MM_OK);
}

static void load_on(unsigned cpu, struct tlb_space *what)
{
    sim_set_cpu(cpu);
    tlb_switch(what);
    sim_set_cpu(0);
}

static pfn_t stamped;

/* Let a frame go as if the next flush of @tlb had made it unreachable. */
static void release_too_early(const struct tlb_space *tlb)
{
    stamped = frame_alloc(0, FRAME_USER, FRAME_ANY);
    record_stamp(record_of(stamped),
                 tlb_stamp(tlb, atomic_load(&tlb->generation) + 1));
    frame_free(stamped, 0);
}

/* Allocate until its turn comes; then all are free again. */
static void hand_it_out(void)
{
    static pfn_t pfn[RAM_BYTES / PAGE_BYTES];
    unsigned count = 0;

    do {
        pfn[count] = frame_alloc(0, FRAME_USER, FRAME_ANY);
        ASSERT(!pfn_is_none(pfn[count]));
    } while (!pfn_equal(pfn[count++], stamped));
    while (count > 0) {
        frame_free(pfn[--count], 0);
    }
}

TEST(tlb, a_frame_not_all_cpus_have_let_go_of_is_not_handed_out)
{
    struct tlb_batch batch;

    if (!MM_DEBUG) {
        return;
    }
    CHECK_HELPER(start_cpus(2));
    load_on(1, &pt.tlb);
    release_too_early(&pt.tlb);
    CHECK(sim_panics(hand_it_out, "it became unreachable at flush 1 of space"));
    CHECK(sim_panics(hand_it_out, "of which CPU 1 has made only 0"));
    /* An idle CPU uses nothing of it; nor does one that has left. */
    sim_set_cpu(1);
    tlb_begin_lazy();
    sim_set_cpu(0);
    hand_it_out();
    release_too_early(&pt.tlb);
    sim_set_cpu(1);
    tlb_end_lazy();
    sim_set_cpu(0);
    CHECK(sim_panics(hand_it_out, "of which CPU 1 has made only 0"));
    tlb_batch_init(&batch, &pt.tlb);
    batch.whole = true;
    tlb_commit(&batch);
    hand_it_out(); /* now it has made it */
    release_too_early(&pt.tlb);
    load_on(1, &pt_kernel.tlb);
    hand_it_out();
    pt_fini(&pt);
    CHECK(frame_check());
}

TEST(tlb, all_cpus_must_have_let_go_of_a_kernel_frame)
{
    if (!MM_DEBUG) {
        return;
    }
    CHECK_HELPER(start_cpus(3));
    sim_set_cpu(2);
    tlb_begin_lazy();
    sim_set_cpu(0);
    release_too_early(&pt_kernel.tlb);
    CHECK(sim_panics(hand_it_out, "of which CPU 0 has made only"));
}

static void commit_under_a_lock(void)
{
    struct lock lock = LOCK_INIT(LOCK_RANK_HOST_OUTER);
    struct tlb_batch batch;
    uint64_t irq = lock_acquire(&lock);

    tlb_batch_init(&batch, &pt.tlb);
    batch.whole = true;
    tlb_commit(&batch);
    lock_release(&lock, irq);
}

static void commit_in_a_visit(void)
{
    struct tlb_batch batch;
    uint64_t irq = port_irq_save();
    bool is_visit = tlb_begin_visit(&pt.tlb);

    tlb_batch_init(&batch, &pt.tlb);
    batch.whole = true;
    tlb_commit(&batch);
    tlb_end_visit(&pt.tlb, is_visit);
    port_irq_restore(irq);
}

static void switch_in_a_visit(void)
{
    uint64_t irq = port_irq_save();
    bool is_visit = tlb_begin_visit(&pt.tlb);

    tlb_switch(&pt.tlb);
    tlb_end_visit(&pt.tlb, is_visit);
    port_irq_restore(irq);
}

TEST(tlb, who_may_not_wait_is_told)
{
    if (!MM_DEBUG) {
        return;
    }
    CHECK_HELPER(start_cpus(2));
    CHECK(sim_panics(commit_under_a_lock, "lock_count_held() == 0"));
    CHECK(sim_panics(commit_in_a_visit, "is_visiting"));
    CHECK(sim_panics(switch_in_a_visit, "is_visiting"));
}

/* The last holder of a frame that had two. */
TEST(tlb, a_frame_that_was_shared_is_stamped_too)
{
    struct tlb_batch batch;

    if (!MM_DEBUG) {
        return;
    }
    CHECK_HELPER(start_cpus(1));
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    frame_ref(pfn);
    tlb_batch_init(&batch, &pt.tlb);
    batch.whole = true;
    tlb_batch_release(&batch, pfn); /* waits among the shared */
    frame_unref(pfn);
    tlb_commit(&batch);
    CHECK(record_is_stamped(record_of(pfn)));
}
