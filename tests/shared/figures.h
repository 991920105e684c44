/* SPDX-License-Identifier: MIT */
/* What tests look at and compare: frames, faults, caches. */
#ifndef TESTS_SHARED_FIGURES_H
#define TESTS_SHARED_FIGURES_H

#include <mm/fault.h>
#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/pt.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "map/scan.h"
#include "tests/shared/test.h"

static inline struct frame_stats figures(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    return stats;
}

static inline uint64_t frames_of(enum frame_type type)
{
    return figures().by_type[type];
}

static inline bool frames_are_zero(pfn_t first, uint64_t frames)
{
    const uint64_t *word = phys_to_virt(pfn_to_phys(first));

    for (uint64_t i = 0; i < frames * (PAGE_BYTES / sizeof(*word)); i++) {
        if (word[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Of a run, the order of the largest block that begins at @at: frames. */
static inline unsigned order_in_run(uint64_t at, uint64_t end)
{
    unsigned order = 0;

    while (order < MM_MAX_ORDER && is_aligned(at, UINT64_C(2) << order) &&
           at + (UINT64_C(2) << order) <= end) {
        order++;
    }
    return order;
}

static inline uint64_t faults_of(enum fault_result result)
{
    struct fault_stats stats;

    fault_stats(&stats);
    return stats.count[result];
}

static inline struct slab_stats slab_figures(const struct slab_cache *cache)
{
    struct slab_stats stats;

    slab_stats(cache, &stats);
    return stats;
}

/*
 * Tables of the kernel that lead anywhere: empty ones are kept for blocks to
 * come.
 */
static inline uint64_t kernel_tables_in_use(void)
{
    bool is_used[PTE_LEVELS + 1] = {false};
    uint64_t count = 0;
    enum scan_event event;
    struct scan scan;

    scan_init(&scan, pt_kernel.root, pt_features.levels - 1, 0, 0);
    while ((event = scan_next(&scan)) != SCAN_END) {
        if (event == SCAN_ENTRY && scan_holds_records(&scan)) {
            scan_skip(&scan);
        } else if (event == SCAN_ENTRY && !pte_is_table(scan.entry, scan.at)) {
            is_used[scan.at] = true;
        } else if (event == SCAN_LEAVE && is_used[scan.at]) {
            is_used[scan.at] = false;
            is_used[scan.at + 1] = true;
            count++;
        }
    }
    return count;
}

/* Frames of tables that are not hooked into the kernel's: of spaces, or lost.
 */
static inline uint64_t tables_elsewhere(void)
{
    return frames_of(FRAME_TABLE) - pt_kernel.tables;
}

/* What spaces and kernel blocks have: the kernel's own tables may stay. */
static inline uint64_t frames_of_spaces(void)
{
    return frames_of(FRAME_USER) + frames_of(FRAME_KMAP) + tables_elsewhere();
}

/* The frames before a test, as compare_frames() compares with them. */
static inline void note_frames(struct frame_stats *out)
{
    *out = figures();
    CHECK(frame_check());
}

/*
 * None is lost since note_frames(). Frames under records may grow in number
 * and stay what they are: they count as free.
 */
static inline void compare_frames(const struct frame_stats *before)
{
    struct frame_stats now = figures();

    CHECK(frame_check());
    CHECK_EQUAL(now.managed, before->managed);
    CHECK_EQUAL(now.free + now.metadata, before->free + before->metadata);
    for (unsigned type = 0; type < FRAME_TYPES; type++) {
        CHECK_EQUAL(now.by_type[type], before->by_type[type]);
    }
}

/* Frames the heap cannot do without. */
static inline uint64_t heap_frames(void)
{
    slab_drain();
    return frames_of(FRAME_SLAB) + frames_of(FRAME_LARGE);
}

static inline void check_heap(void)
{
    CHECK(slab_check());
    CHECK(kmalloc_check());
}

#if MM_INJECT
/*
 * Live a @life with the k-th frame allocation failing, for every k: the heap
 * is sound after each, and no frame is lost. At least @least allocations.
 */
static inline void fail_each_allocation(void (*life)(void), uint64_t least)
{
    uint64_t before = heap_frames();
    uint64_t nth = 1;
    uint64_t tried;

    do {
        slab_drain();
        frame_inject(nth);
        CHECK_HELPER(life());
        tried = frame_inject_count();
        frame_inject(0);
        CHECK_EQUAL(heap_frames(), before);
        CHECK_HELPER(check_heap());
        nth++;
    } while (nth <= tried + 1);
    CHECK(nth > least);
}
#endif

#endif
