/* SPDX-License-Identifier: MIT */
/* frame_range: RAM that comes into use, or goes out of it, at run time. */
/*
 * Owns    the order of changes of the map once frame_init() has seen it.
 * Idea    Trees are drawn from what the map said at start, so a tree is woken
 *         before its part of the map changes; from then on its bits are the
 *         truth. A range goes when each of its frames can be claimed, and the
 *         watermarks can be kept without it.
 * Locking range_lock: one change of the map at a time; frames are claimed and
 *         given back outside it, so a CPU stopped in it keeps the others from
 *         changing the map, but not from frames. frame_state() reads the map
 *         without it: about a range that is just changing it may say either.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"
#include "base/lock.h"

static struct lock range_lock = LOCK_INIT(LOCK_RANK_RANGES);

/* The bits of the row at @at that lie before @end; where the next begins. */
static uint64_t row_part(uint64_t at, uint64_t end, uint64_t *out_next)
{
    uint64_t row = align_down(at, ROW_FRAMES);

    *out_next = min_u64(end, row + ROW_FRAMES);
    return low_bits((unsigned)(*out_next - at)) << (at - row);
}

static bool is_possible(pfn_t start, pfn_t end)
{
    return start.v != 0 && start.v < end.v && end.v <= trees_frames;
}

/* [at, next), which lies in one row, came into use, or if @sign < 0, left. */
static void count_managed(uint64_t at, uint64_t next, int sign)
{
    atomic_fetch_add_explicit(&frame_zones[frame_zone_of(pfn_of(at))].managed,
                              sign < 0 ? at - next : next - at,
                              memory_order_relaxed);
}

/* Give [start, end), all of it taken, to whoever wants it. */
static void give(uint64_t start, uint64_t end)
{
    uint64_t next;

    for (uint64_t at = start; at < end; at = next) {
        pfn_t row = pfn_of(align_down(at, ROW_FRAMES));
        uint64_t mask = row_part(at, end, &next);
        bool was_taken = blocks_release_row(
            &frame_zones[frame_zone_of(row)].blocks, NULL, row, mask);
        ASSERT(was_taken);
    }
    frame_note_motion();
}

enum mm_status frame_add(pfn_t start, pfn_t end)
{
    if (!is_possible(start, end)) {
        return MM_EINVAL;
    }
    if (blocks_touch(start, end).v != end.v) {
        return MM_EBUSY;
    }
    uint64_t irq = lock_acquire(&range_lock);
    enum mm_status status =
        memmap_release(frame_map, pfn_to_phys(start), pfn_to_phys(end));
    lock_release(&range_lock, irq);
    if (status != MM_OK) {
        return status;
    }
    uint64_t next;
    for (uint64_t at = start.v; at < end.v; at = next) {
        (void)row_part(at, end.v, &next);
        count_managed(at, next, 1);
    }
    give(start.v, end.v); /* the map had kept them back */
    frame_watch_marks();
    return MM_OK;
}

/* --- out of use ----------------------------------------------------------- */

/* Rows where they are all free, single frames to find the one that is not. */
static uint64_t claim_part(uint64_t at, uint64_t end)
{
    if (is_aligned(at, ROW_FRAMES) && end - at >= ROW_FRAMES &&
        blocks_claim_block(pfn_of(at), ROW_ORDER)) {
        return ROW_FRAMES;
    }
    return blocks_claim_block(pfn_of(at), 0) ? 1 : 0;
}

/* Claim every frame of [start, end). Return: @end, or the first in use. */
static uint64_t claim_all(uint64_t start, uint64_t end)
{
    uint64_t at = start;
    uint64_t claimed = 1;

    while (at < end && claimed != 0) {
        claimed = claim_part(at, end);
        at += claimed;
    }
    if (at < end) {
        give(start, at);
    }
    return at;
}

/* Is all of [start, end) the allocator's? */
static bool is_usable(pfn_t start, pfn_t end)
{
    uint64_t at = start.v << PAGE_SHIFT;
    uint64_t irq = lock_acquire(&range_lock);

    while (at < end.v << PAGE_SHIFT) {
        const struct memmap_range *range = memmap_find(frame_map, paddr_of(at));
        if (range == NULL || range->type != MEMMAP_USABLE) {
            break;
        }
        at = range->end;
    }
    lock_release(&range_lock, irq);
    return at >= end.v << PAGE_SHIFT;
}

/* What was claimed goes out of the map, or back if that has no room. */
static enum mm_status retire(pfn_t start, pfn_t end)
{
    uint64_t irq = lock_acquire(&range_lock);
    enum mm_status status =
        memmap_retire(frame_map, pfn_to_phys(start), pfn_to_phys(end));
    lock_release(&range_lock, irq);
    if (status != MM_OK) {
        give(start.v, end.v);
        return status;
    }
    uint64_t next;
    for (uint64_t at = start.v; at < end.v; at = next) {
        (void)row_part(at, end.v, &next);
        count_managed(at, next, -1);
    }
    frame_watch_marks();
    return MM_OK;
}

enum mm_status frame_remove(pfn_t start, pfn_t end, pfn_t *out_busy)
{
    if (out_busy != NULL) {
        *out_busy = PFN_NONE;
    }
    if (!is_possible(start, end) || !is_usable(start, end)) {
        return MM_EINVAL;
    }
    frame_gather(); /* what CPUs keep may lie there, and counts as used */
    if (!frame_can_lose(end.v - start.v)) {
        return MM_ENOMEM;
    }
    uint64_t at = blocks_touch(start, end).v;
    if (at == end.v) {
        at = claim_all(start.v, end.v);
        if (at == end.v) {
            return retire(start, end);
        }
    }
    if (out_busy != NULL) {
        *out_busy = pfn_of(at);
    }
    return MM_EBUSY;
}
