/* SPDX-License-Identifier: MIT */
/* schedule_acts: what CPUs do in one space, each knowing what it has written.
 */
#ifndef TESTS_HOST_SCHEDULE_ACTS_SCENE_H
#define TESTS_HOST_SCHEDULE_ACTS_SCENE_H

#include "tests/host/schedule_scene.h"

#define ACTS_CPUS 3

/* How the block is at first. */
enum acts_state {
    PROMISED, /* as a whole */
    WRITTEN,  /* small pages, and two of them written to */
    SHARED,   /* the same, and a copy of the space has them, too */
    STATES
};

/* What a CPU does; while it has a cursor open it lets others go on, once. */
enum acts_what {
    WRITE,
    WRITE_ALL,
    COPY,
    COPY_ANEW,
    WRITE_IN_KID,
    COLLAPSE,
    PROMISE_ANEW,
    FILL_ANEW,
    UNMAP,
    PROTECT,
    RESIZE,
    MOVE,
    REACH_ACROSS,
    BESIDE,
    ACTS
};

/* One word for it. */
const char *acts_name(enum acts_what what);

/* Before the programs run: 2 MiB in the first space of the scene. */
void acts_prepare(enum acts_state state);
/* This CPU has the space loaded, and caches its pages. */
void acts_cache(void);
void acts_do(enum acts_what what);
/* It writes to a page if that is possible without a fault. */
void acts_poke(void);
/* It finds what it has written, and can write. */
void acts_check(void);
/* The copy of the space that it made is what it was. */
void acts_end(void);

#endif
