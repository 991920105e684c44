/* SPDX-License-Identifier: MIT */
/* Tests of the last frames of the machine, and of who has them. */
/*
 * At risk: frames that nobody finds again, or finds twice; a CPU that is short
 * of memory while another one keeps some; two that wait for each other.
 * Provoked by taking all frames of the machine, on all CPUs at once, and then
 * by leaving a single one where it is hardest to get at: with a CPU that
 * sleeps, that spins for a lock, that waits for a flush, that does not answer.
 */
#include <mm/frame.h>
#include <mm/port.h>
#include <mm/pt.h>
#include <mm/slab.h>
#include "base/lock.h"
#include "kernel/apic.h"
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/layout.h"
#include "kernel/smp.h"
#include "tests/kernel/crew.h"
#include "tests/kernel/hoard.h"
#include "tests/shared/figures.h"

#define ROUNDS 10

static struct frame_stats before;

static void drain_here(void *argument)
{
    (void)argument;
    frame_drain();
}

static void begin(void)
{
    slab_drain();
    note_frames(&before);
}

static void nothing_is_left(void)
{
    struct frame_stats now;

    frame_stats(&now);
    CHECK_EQUAL(now.free, 0);
    CHECK_EQUAL(now.cached, 0);
    CHECK(frame_check());
}

/* --- all of it, ten times ------------------------------------------------- */

static struct {
    unsigned order;
    struct hoard of[MM_MAX_CPUS];
} hoards;

static void take_share(void *argument)
{
    (void)argument;
    hoard_init(&hoards.of[port_cpu()]);
    hoard_take_all(&hoards.of[port_cpu()], hoards.order);
}

/* What the next CPU has taken: frames change hands. */
static void free_share(void *argument)
{
    (void)argument;
    hoard_free(&hoards.of[(port_cpu() + 1) % smp_possible()]);
}

TEST(exhaust, all_frames_are_taken_and_come_back)
{
    if (smp_count() < smp_possible() || !hoard_is_wanted()) {
        return; /* nobody would free the share of one that is left out */
    }
    CHECK_HELPER(begin());
    hoards.order = hoard_order();
    for (unsigned round = 0; round < ROUNDS; round++) {
        crew_run(take_share, NULL);
        uint64_t frames = 0;
        for (unsigned i = 0; i < smp_possible(); i++) {
            frames += hoards.of[i].frames;
        }
        nothing_is_left();
        crew_run(free_share, NULL);
        if (test_has_failed()) {
            return;
        }
        struct frame_stats now;
        frame_stats(&now);
        CHECK_EQUAL(frames, now.free); /* each of them once */
        CHECK_HELPER(compare_frames(&before));
    }
    crew_run(drain_here, NULL);
    frame_stats(&before);
    CHECK_EQUAL(before.cached, 0);
}

/* --- the last frames ------------------------------------------------------ */

#define LEFT 2

static pfn_t left[LEFT]; /* the frames that are left */

static void free_left(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < LEFT; i++) {
        frame_free(left[i], 0);
    }
}

/*
 * Take all but two frames, of which CPU @index, another one, keeps the second:
 * after a shortage the first that is freed passes its array by.
 */
static void leave_with(unsigned index, struct hoard *hoard)
{
    hoard_init(hoard);
    hoard_take_all(hoard, hoard_order());
    CHECK_HELPER(nothing_is_left());
    for (unsigned i = 0; i < LEFT; i++) {
        CHECK(record_of(hoard->last)->order == 0);
        left[i] = hoard_drop(hoard);
    }
    CHECK_EQUAL(smp_call(index, free_left, NULL), MM_OK);
    CHECK_EQUAL(frame_state(left[LEFT - 1]), FRAME_STATE_CACHED);
}

/* Can this CPU have both, and nothing more? */
static void get_them(void)
{
    struct hoard found;

    hoard_init(&found);
    bool has_both = hoard_take(&found, 0) && hoard_take(&found, 0);
    bool has_more = hoard_take(&found, 0);
    hoard_free(&found);
    CHECK(has_both && !has_more);
}

TEST(exhaust, the_last_frame_is_found_with_any_other_cpu)
{
    CHECK_HELPER(begin());
    for (unsigned i = 0; i < smp_possible() && hoard_is_wanted(); i++) {
        struct hoard hoard;

        if (i == port_cpu() || !smp_is_online(i)) {
            continue;
        }
        leave_with(i, &hoard);
        if (!test_has_failed()) {
            get_them();
        }
        hoard_free(&hoard);
        CHECK_HELPER(compare_frames(&before));
    }
}

/* --- with one that waits -------------------------------------------------- */

static struct lock lock;
static _Atomic bool is_there; /* the other CPU has come to where it waits */
static _Atomic bool may_go;

static void say_there(void)
{
    atomic_store_explicit(&is_there, true, memory_order_release);
}

static void wait_there(void)
{
    while (!atomic_load_explicit(&is_there, memory_order_acquire)) {
        cpu_pause();
    }
}

static void spin_for_lock(void *argument)
{
    (void)argument;
    say_there();
    lock_release(&lock, lock_acquire(&lock));
}

static bool has_waiter(void)
{
    return (uint32_t)(atomic_load(&lock.next) - atomic_load(&lock.owner)) == 2;
}

TEST(exhaust, who_spins_for_a_lock_gives_back)
{
    unsigned other = smp_first_other();
    struct hoard hoard;

    if (other == smp_possible() || !hoard_is_wanted()) {
        return;
    }
    CHECK_HELPER(begin());
    lock_init(&lock, LOCK_RANK_HOST_OUTER);
    leave_with(other, &hoard);
    if (!test_has_failed()) {
        is_there = false;
        uint64_t irq = lock_acquire(&lock);
        CHECK_EQUAL(smp_run(other, spin_for_lock, NULL), MM_OK);
        while (!has_waiter()) {
            cpu_pause();
        }
        get_them();
        lock_release(&lock, irq);
        smp_wait(other);
    }
    hoard_free(&hoard);
    CHECK_HELPER(compare_frames(&before));
}

/* Deaf until it may go. */
static void keep_off(void *argument)
{
    (void)argument;
    uint64_t irq = cpu_irq_save();

    say_there();
    while (!atomic_load_explicit(&may_go, memory_order_acquire)) {
        cpu_pause();
    }
    cpu_irq_restore(irq);
}

static void flush_everywhere(void *argument)
{
    (void)argument;
    struct tlb_batch batch;
    uint64_t irq = cpu_irq_save();

    tlb_batch_init(&batch, &pt_kernel.tlb);
    tlb_batch_range(&batch, LAYOUT_IMAGE, LAYOUT_IMAGE + PAGE_BYTES, 0);
    tlb_commit(&batch);
    cpu_irq_restore(irq);
}

/* Two others: one waits for an answer of the other. */
static bool find_two(unsigned *waits, unsigned *deaf)
{
    *waits = smp_first_other();
    for (*deaf = *waits + 1; *deaf < smp_possible(); ++*deaf) {
        if (*deaf != port_cpu() && smp_is_online(*deaf)) {
            return true;
        }
    }
    return false;
}

TEST(exhaust, who_waits_for_a_flush_gives_back)
{
    struct hoard hoard;
    unsigned waits;
    unsigned deaf;

    if (!find_two(&waits, &deaf) || !hoard_is_wanted()) {
        return;
    }
    CHECK_HELPER(begin());
    leave_with(waits, &hoard);
    if (!test_has_failed()) {
        is_there = false;
        may_go = false;
        CHECK_EQUAL(smp_run(deaf, keep_off, NULL), MM_OK);
        wait_there();
        CHECK_EQUAL(smp_run(waits, flush_everywhere, NULL), MM_OK);
        while (!apic_is_requested(APIC_VECTOR_TLB)) {
            cpu_pause(); /* it waits for this CPU, too */
        }
        get_them();
        atomic_store_explicit(&may_go, true, memory_order_release);
        smp_wait(waits);
        smp_wait(deaf);
    }
    hoard_free(&hoard);
    CHECK_HELPER(compare_frames(&before));
}
