/* SPDX-License-Identifier: MIT */
/* The space of space_scene.h, and one cursor that tests open and shut. */
#ifndef TESTS_HOST_OPEN_SCENE_H
#define TESTS_HOST_OPEN_SCENE_H

#include "tests/host/space_scene.h"

static struct tlb_batch batch;
static struct pt_cursor cursor;

static inline void open_range(vaddr_t from, uint64_t bytes)
{
    CHECK_EQUAL(pt_open(&space, from, from + bytes, &batch, &cursor), MM_OK);
}

static inline void shut(void)
{
    pt_close(&cursor);
    tlb_commit(&batch);
}

#endif
