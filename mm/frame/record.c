/* SPDX-License-Identifier: MIT */
/* record: what is known of a frame beside whether it is free. */
/*
 * Owns    the address of the record array and the way to back it.
 * Idea    An array indexed by frame number needs no lookup, but 16 bytes for
 *         each frame of 900 GiB are 3.5 GiB. So the array is virtual, and the
 *         two pages with the 512 records of a block come to life when the
 *         first frame of that block is handed out.
 * Picture
 *     record_base      + 8 KiB          + 16 KiB
 *     | block 0: 2 pages | block 1: 2 pages | block 2: not backed | ...
 *
 * Locking None: trees.c remembers which blocks are backed; two CPUs that
 *         back the same block at once rely on the function to cope with it.
 * Limits  Records are never given back.
 */
#include <mm/record.h>

#include "base/bits.h"
#include "base/check.h"
#include "frame/bitfield.h"

#define BLOCK_RECORD_BYTES (BLOCK_FRAMES * sizeof(struct frame_record))
_Static_assert(BLOCK_RECORD_BYTES % PAGE_BYTES == 0, "whole pages a block");

struct frame_record *record_base; /* (C) */

static record_back_fn back_range; /* (C) */

void record_init(void *base, record_back_fn back)
{
    ASSERT(is_aligned((uintptr_t)base, PAGE_BYTES) && back != NULL);
    record_base = base;
    back_range = back;
}

enum mm_status record_back_block(pfn_t pfn)
{
    vaddr_t start = (vaddr_t)record_of(pfn_of(align_down(pfn.v, BLOCK_FRAMES)));

    ASSERT(back_range != NULL);
    return back_range(start, start + BLOCK_RECORD_BYTES);
}

const char *frame_type_name(enum frame_type type)
{
    static const char *const name[FRAME_TYPES] = {
        "none", "kernel", "table", "slab", "large", "kmap", "user"};

    return (unsigned)type < FRAME_TYPES ? name[type] : "unknown";
}
