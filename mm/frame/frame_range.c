/* SPDX-License-Identifier: MIT */
/* frame_range: RAM that comes into use, or goes out of it, at run time. */
/*
 * Owns    the order of changes of the map once frame_init() has seen it.
 * Idea    Trees are drawn from what the map said at start, so a tree is woken
 *         before its part of the map changes; from then on its bits are the
 *         truth. A range goes when each of its frames can be claimed.
 * Locking frame_range_lock: one change at a time. frame_state() reads the map
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

/* The zone's share of [start, end) came into use, or went. */
static void change_managed(uint64_t at, uint64_t next, int sign)
{
    atomic_fetch_add_explicit(&frame_zones[frame_zone_of(pfn_of(at))].managed,
                              sign > 0 ? next - at : at - next,
                              memory_order_relaxed);
}

enum mm_status frame_add(pfn_t start, pfn_t end)
{
    if (!is_possible(start, end)) {
        return MM_EINVAL;
    }
    blocks_touch(start, end);
    uint64_t irq = lock_acquire(&range_lock);
    enum mm_status status =
        memmap_release(frame_map, pfn_to_phys(start), pfn_to_phys(end));
    uint64_t next;
    for (uint64_t at = start.v; status == MM_OK && at < end.v; at = next) {
        pfn_t row = pfn_of(align_down(at, ROW_FRAMES));
        uint64_t mask = row_part(at, end.v, &next);
        bool was_taken = blocks_release_row(
            &frame_zones[frame_zone_of(row)].blocks, NULL, row, mask);
        ASSERT(was_taken); /* the map had kept them back */
        change_managed(at, next, +1);
    }
    lock_release(&range_lock, irq);
    return status;
}

/* Give back what was claimed of [start, end). */
static void unclaim(uint64_t start, uint64_t end)
{
    uint64_t next;

    for (uint64_t at = start; at < end; at = next) {
        pfn_t row = pfn_of(align_down(at, ROW_FRAMES));
        uint64_t mask = row_part(at, end, &next);
        bool was_taken = blocks_release_row(
            &frame_zones[frame_zone_of(row)].blocks, NULL, row, mask);
        ASSERT(was_taken);
    }
}

/* Claim every frame of [start, end). Return: @end, or the first in use. */
static uint64_t claim_all(uint64_t start, uint64_t end)
{
    uint64_t at = start;

    while (at < end && blocks_claim_block(pfn_of(at), 0)) {
        at++;
    }
    if (at < end) {
        unclaim(start, at);
    }
    return at;
}

/* Is all of [start, end) the allocator's? */
static bool is_usable(pfn_t start, pfn_t end)
{
    uint64_t at = start.v << PAGE_SHIFT;

    while (at < end.v << PAGE_SHIFT) {
        const struct memmap_range *range = memmap_find(frame_map, paddr_of(at));
        if (range == NULL || range->type != MEMMAP_USABLE) {
            return false;
        }
        at = range->end;
    }
    return true;
}

static enum mm_status remove_range(pfn_t start, pfn_t end, pfn_t *out_busy)
{
    if (!is_usable(start, end)) {
        return MM_EINVAL;
    }
    uint64_t at = claim_all(start.v, end.v);
    if (at < end.v) {
        *out_busy = pfn_of(at);
        return MM_EBUSY;
    }
    enum mm_status status =
        memmap_retire(frame_map, pfn_to_phys(start), pfn_to_phys(end));
    if (status != MM_OK) {
        unclaim(start.v, end.v);
        return status;
    }
    uint64_t next;
    for (at = start.v; at < end.v; at = next) {
        (void)row_part(at, end.v, &next);
        change_managed(at, next, -1);
    }
    return MM_OK;
}

enum mm_status frame_remove(pfn_t start, pfn_t end, pfn_t *out_busy)
{
    pfn_t busy = PFN_NONE;

    if (!is_possible(start, end)) {
        return MM_EINVAL;
    }
    frame_gather(); /* what CPUs keep may lie there */
    blocks_touch(start, end);
    uint64_t irq = lock_acquire(&range_lock);
    enum mm_status status = remove_range(start, end, &busy);
    lock_release(&range_lock, irq);
    if (out_busy != NULL) {
        *out_busy = busy;
    }
    return status;
}
