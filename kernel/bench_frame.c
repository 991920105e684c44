/* SPDX-License-Identifier: MIT */
/* bench_frame: what frames cost, one by one, in batches, cleared or not. */
#include "kernel/bench_impl.h"

#include <mm/frame.h>
#include <mm/port.h>
#include "base/bits.h"
#include "base/memory.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"

static pfn_t frames[BENCH_BATCH];
static pfn_t page; /* for do_clear() */

/* --- operations: true if they worked -------------------------------------- */

/* Order and flags are constants, as they are for most callers. */
static bool do_frame_0(unsigned argument)
{
    (void)argument;
    pfn_t frame = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);

    if (pfn_is_none(frame)) {
        return false;
    }
    frame_free(frame, 0);
    return true;
}

static bool do_frame(unsigned order)
{
    pfn_t frame = frame_alloc(order, FRAME_KERNEL, FRAME_ANY);

    if (pfn_is_none(frame)) {
        return false;
    }
    frame_free(frame, order);
    return true;
}

static bool do_frame_zeroed(unsigned argument)
{
    (void)argument;
    pfn_t frame = frame_alloc(0, FRAME_KERNEL, FRAME_ZEROED);

    if (pfn_is_none(frame)) {
        return false;
    }
    frame_free(frame, 0);
    return true;
}

/* What an idle CPU does for each frame that was taken. */
static bool fill_pool(unsigned argument)
{
    (void)argument;
    (void)frame_zero_idle();
    return true;
}

static bool do_clear(unsigned argument)
{
    (void)argument;
    memset(phys_to_virt(pfn_to_phys(page)), 0, PAGE_BYTES);
    return true;
}

static bool do_batch(unsigned argument)
{
    unsigned count = 0;

    (void)argument;
    for (; count < BENCH_BATCH; count++) {
        frames[count] = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
        if (pfn_is_none(frames[count])) {
            break;
        }
    }
    for (unsigned i = 0; i < count; i++) {
        frame_free(frames[i], 0);
    }
    return count == BENCH_BATCH;
}

static bool do_bulk(unsigned argument)
{
    (void)argument;
    unsigned count =
        frame_alloc_bulk(frames, BENCH_BATCH, FRAME_KERNEL, FRAME_ANY);

    frame_free_bulk(frames, count);
    return count == BENCH_BATCH;
}

/* --- the list ------------------------------------------------------------- */

static const struct bench_subject pairs[] = {
    {"frame_order_0", NULL, do_frame_0, 0},
    {"frame_order_3", NULL, do_frame, 3},
    {"frame_order_9", NULL, do_frame, 9},
    {"frame_order_10", NULL, do_frame, 10},
};

static const struct bench_subject batches[] = {
    {"frame_batch_1000", NULL, do_batch, 0},
    {"frame_bulk_1000", NULL, do_bulk, 0},
};

/* Calls that fill the pool: it is smaller. */
#define MOST_FILLS 1000

/* The pool is full at first; then each frame was ready, or it is no figure. */
static bool measure_ready(const struct bench_subject *subject)
{
    struct frame_stats before;
    struct frame_stats after;

    for (unsigned i = 0; i < MOST_FILLS && frame_zero_idle(); i++) {
    }
    frame_stats(&before);
    bool success = bench_measure(subject);
    frame_stats(&after);
    uint64_t misses = after.zeroed_misses - before.zeroed_misses;
    if (misses > 0) {
        printk("%s: %lu frames were not ready: too little memory?\n",
               subject->name, misses);
    }
    return success && misses == 0;
}

/* Nobody fills the pool: each frame is cleared while the caller waits. */
static bool measure_cleared(const struct bench_subject *subject)
{
    frame_drain();
    return bench_measure(subject);
}

/*
 * Clearing alone has a floor, one a word that REP STOSQ writes: how far above
 * it a zeroed frame is, is what the allocator can do about it.
 */
static bool measure_without_clearing(const struct bench_subject *subject)
{
    const struct bench_subject clearing = {subject->name, NULL, do_clear, 0};
    struct bench_figures all;
    struct bench_figures clear;

    page = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    if (pfn_is_none(page)) {
        return false;
    }
    frame_drain();
    bool success = bench_take(subject, &all) && bench_take(&clearing, &clear);
    frame_free(page, 0);
    if (success) {
        bench_print(subject->name,
                    all.median - min_u64(clear.median, all.median),
                    cpu_clock_unit());
    }
    return success;
}

bool bench_frames(const char *pattern, unsigned *run)
{
    static const struct bench_subject ready = {"frame_zeroed_pool", fill_pool,
                                               do_frame_zeroed, 0};
    static const struct bench_subject cleared = {"frame_zeroed_cleared", NULL,
                                                 do_frame_zeroed, 0};
    static const struct bench_subject without = {"frame_zeroed_without", NULL,
                                                 do_frame_zeroed, 0};
    bool success = bench_list(pairs, sizeof(pairs) / sizeof(pairs[0]),
                              bench_measure, pattern, run);

    success = bench_list(&ready, 1, measure_ready, pattern, run) && success;
    success = bench_list(&cleared, 1, measure_cleared, pattern, run) && success;
    success = bench_list(&without, 1, measure_without_clearing, pattern, run) &&
              success;
    return bench_list(batches, sizeof(batches) / sizeof(batches[0]),
                      bench_measure_batch, pattern, run) &&
           success;
}
