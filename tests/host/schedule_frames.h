/* SPDX-License-Identifier: MIT */
/* schedule_frames: small machines on which a few CPUs want the same frames. */
#ifndef TESTS_HOST_SCHEDULE_FRAMES_H
#define TESTS_HOST_SCHEDULE_FRAMES_H

#include <mm/frame.h>
#include "tests/host/schedule_explore.h"

/* 16 MiB of ZONE_DMA and three trees of ZONE_DMA32. */
#define FRAMES_RAM   (64 * MiB)
#define FRAMES_COUNT (FRAMES_RAM / PAGE_BYTES)
#define FRAMES_TREE  UINT64_C(4096)
#define FRAMES_BASE  (FRAMES_COUNT - 2 * FRAMES_TREE) /* two whole trees */

/* What a CPU does; a block has a number, by which others free it. */
enum act_kind {
    ACT_NONE,
    ACT_ALLOC,   /* which must succeed */
    ACT_TRY,     /* which may find nothing, unless there is a single frame */
    ACT_TRY_LOW, /* the same below 16 MiB */
    ACT_VAIN,    /* which must find nothing */
    ACT_VAIN_AT, /* the same of the block at FRAMES_BASE, as runs claim */
    ACT_FREE,
    ACT_FREE_TWICE, /* what another CPU frees, too: one of them is reported */
    ACT_SPLIT,      /* if there is the block */
    ACT_JOIN,
    ACT_REF,   /* one more holder of what this CPU holds */
    ACT_UNREF, /* one holder less; the last frees it */
    ACT_BULK,  /* single frames, as many as the order says, or fewer */
    ACT_RUN,   /* the same in a row from a multiple of four on; must succeed */
    ACT_TRY_RUN,
    ACT_LOOK, /* ask about a frame of the highest tree, which wakes it */
    ACT_DRAIN
};

struct act {
    enum act_kind kind;
    unsigned block; /* 0 .. FRAMES_BLOCKS-1 */
    unsigned order;
};

#define FRAMES_BLOCKS 8
#define FRAMES_ACTS   6
#define FRAMES_BULK   8 /* most of one ACT_BULK */

/* A block by where it lies, from FRAMES_BASE on. */
/* The highest frames hold the allocator's own data. */
struct place {
    uint64_t offset;
    unsigned order; /* FRAMES_END: no more */
};
#define FRAMES_PLACES 12
#define FRAMES_END    UINT32_MAX

struct frames_scene {
    const char *name;
    unsigned cpus;
    unsigned preemptions;
    unsigned stoppable;
    uint64_t ram;    /* 0: FRAMES_RAM; not more */
    bool is_asleep;  /* nothing has been touched: all else is as after start */
    bool are_shared; /* several CPUs change the same records */
    /* Otherwise all frames are in use but these... */
    struct place free[FRAMES_PLACES];
    /* ... and these, which are blocks 0, 1 .. */
    struct place block[FRAMES_PLACES];
    /* What CPUs did before, one by one: what they keep, where they sit. */
    struct act before[SCHEDULE_CPUS][FRAMES_ACTS];
    struct act act[SCHEDULE_CPUS][FRAMES_ACTS];
    unsigned reports; /* bug reports that every run must have */
    /* After each run, as CPU 0; it may allocate. What is wrong, or NULL. */
    const char *(*check)(void);
};

/*
 * All orders of a scene; after each nothing is lost, nothing was handed out
 * twice, and all that is free can be allocated. Fails the test otherwise.
 */
void frames_explore(const struct frames_scene *scene);

#endif
