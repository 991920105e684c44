/* SPDX-License-Identifier: MIT */
/* What tests compare before and after: frames in use, by what for. */
#ifndef TESTS_SHARED_FIGURES_H
#define TESTS_SHARED_FIGURES_H

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/slab.h>
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

#endif
