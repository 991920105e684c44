/* SPDX-License-Identifier: MIT */
/* record: what is known of a frame beside whether it is free. */
/*
 * Owns    the address of the record array, the way to back it, and a bit for
 *         each block that says whether it is.
 * Idea    An array indexed by frame number needs no lookup, but 16 bytes for
 *         each frame of 900 GiB are 3.5 GiB. So the array is virtual, and the
 *         two pages with the 512 records of a block come to life when the
 *         first frame of that block is handed out.
 * Picture
 *     record_base      + 8 KiB          + 16 KiB
 *     | block 0: 2 pages | block 1: 2 pages | block 2: not backed | ...
 *
 * Locking None: two CPUs that back the same block at once rely on the function
 *         to cope with it.
 * Limits  Records are never given back.
 */
#include <mm/record.h>

#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"

#define BLOCK_RECORD_BYTES (RECORD_BLOCK_FRAMES * sizeof(struct frame_record))
_Static_assert(BLOCK_RECORD_BYTES % PAGE_BYTES == 0, "whole pages a block");

struct frame_record *record_base;
uint64_t record_frames;
_Atomic uint64_t *record_backed;

static record_back_fn back_range; /* (C) */

void record_init(void *base, record_back_fn back)
{
    ASSERT(is_aligned((uintptr_t)base, PAGE_BYTES) && back != NULL);
    record_base = base;
    back_range = back;
}

uint64_t record_bytes(uint64_t frames)
{
    uint64_t blocks = div_round_up(frames, RECORD_BLOCK_FRAMES);

    return align_up(div_round_up(blocks, 8), 64);
}

void record_cover(uint64_t frames, void *storage)
{
    ASSERT(is_aligned((uintptr_t)storage, sizeof(*record_backed)));
    memset(storage, 0, record_bytes(frames));
    record_backed = storage;
    record_frames = frames;
}

enum mm_status record_back_block(pfn_t pfn)
{
    uint64_t block = pfn.v / RECORD_BLOCK_FRAMES;
    vaddr_t start = (vaddr_t)record_of(pfn_of(block * RECORD_BLOCK_FRAMES));

    ASSERT(back_range != NULL && pfn.v < record_frames);
    if (record_exists(pfn)) {
        return MM_OK;
    }
    enum mm_status status = back_range(start, start + BLOCK_RECORD_BYTES);
    if (status == MM_OK) {
        /* Release: pairs with the acquire in record_exists(). */
        atomic_fetch_or_explicit(&record_backed[block / 64],
                                 UINT64_C(1) << (block % 64),
                                 memory_order_release);
    }
    return status;
}

const char *frame_type_name(enum frame_type type)
{
    static const char *const name[FRAME_TYPES] = {
        "none", "kernel", "table", "slab", "large", "kmap", "user", "guard"};

    return (unsigned)type < FRAME_TYPES ? name[type] : "unknown";
}
