/* SPDX-License-Identifier: MIT */
/* Machines for the tests of frame: used up, dirty, with several CPUs. */
#ifndef TESTS_HOST_FRAME_SCENE_H
#define TESTS_HOST_FRAME_SCENE_H

#include <mm/frame.h>
#include <mm/port.h>
#include "base/memory.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define SMALL_RAM    (32 * MiB)
#define SMALL_FRAMES (SMALL_RAM / PAGE_BYTES)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Take what there is in blocks of @order; @out: room for all. How many. */
static inline uint64_t take_all(pfn_t *out, unsigned order, unsigned flags)
{
    uint64_t count = 0;

    for (;;) {
        pfn_t pfn = frame_alloc(order, FRAME_KERNEL, flags);
        if (pfn_is_none(pfn)) {
            return count;
        }
        out[count++] = pfn;
    }
}

static inline void free_all(const pfn_t *frame, uint64_t count, unsigned order)
{
    for (uint64_t i = 0; i < count; i++) {
        frame_free(frame[i], order);
    }
}

/* All frames of a small machine hold rubbish and are free. */
static inline void boot_dirty(void)
{
    static pfn_t frame[SMALL_FRAMES];

    sim_boot_frames(SMALL_RAM);
    uint64_t count = take_all(frame, 0, FRAME_ANY);
    for (uint64_t i = 0; i < count; i++) {
        memset(phys_to_virt(pfn_to_phys(frame[i])), 0xa5, PAGE_BYTES);
    }
    free_all(frame, count, 0);
    frame_drain();
}

/* Nothing is in use, and nothing is lost. */
static inline void check_all_free(void)
{
    struct frame_stats stats = figures();

    CHECK(frame_check());
    CHECK_EQUAL(stats.free, stats.managed - stats.metadata);
    CHECK_EQUAL(stats.allocs, stats.frees);
}

/* CPU @cpu frees @pfn, which is in use, and keeps it. */
static inline void keep_on(unsigned cpu, pfn_t pfn)
{
    sim_set_cpu(cpu);
    frame_free(pfn, 0);
    sim_set_cpu(0);
    CHECK_EQUAL(frame_state(pfn), FRAME_STATE_CACHED);
}

#endif
