/* SPDX-License-Identifier: MIT */
/* A machine with one space of its own loaded, and a cursor to open on it. */
#ifndef TESTS_HOST_SPACE_SCENE_H
#define TESTS_HOST_SPACE_SCENE_H

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/pt.h>
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/once.h"
#include "tests/shared/test.h"

#define RAM (64 * MiB)

/* Frames that are mapped without being owned: as device memory is. */
#define DEVICE_PFN UINT64_C(0x100000)

static struct pt space;

static inline void start_space(void)
{
    CHECK_EQUAL(pt_init(&space), MM_OK);
    tlb_switch(&space.tlb);
}

static inline void start(void)
{
    sim_boot(RAM);
    start_space();
}

/* Everything sound, nothing stale, all of the space given back. */
static inline void finish(void)
{
    struct audit_verdict verdict;

    CHECK(pt_audit(&space, &verdict));
    tlb_switch(&pt_kernel.tlb);
    pt_fini(&space);
    CHECK(frame_check());
    CHECK_EQUAL(sim_stale(), 0);
}

#endif
