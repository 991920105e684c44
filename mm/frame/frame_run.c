/* SPDX-License-Identifier: MIT */
/* frame_run: frames in a row, any number. */
/*
 * Owns    nothing.
 * Idea    A run is blocks in a row, each as large as its address and what is
 *         left allow. A place is looked for by reading counts and bits; then
 *         its blocks are claimed one by one, and if another CPU was faster at
 *         one of them, they go back and the search goes on behind it.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"

/* Places tried, since others may take what was just found. */
#define PLACES 64

/* Order of the largest block that begins at @at and ends by @end. */
static unsigned block_order(uint64_t at, uint64_t end)
{
    unsigned order = highest_bit(end - at);

    if (at != 0) {
        order = (unsigned)min_u64(order, lowest_bit(at));
    }
    return (unsigned)min_u64(order, MM_MAX_ORDER);
}

/* Take one block, with records; false if that cannot be had. */
static bool claim_block(uint64_t at, unsigned order)
{
    for (uint64_t i = 0; i < UINT64_C(1) << order; i += BLOCK_FRAMES) {
        if (record_back_block(pfn_of(at + i)) != MM_OK) {
            return false;
        }
    }
    if (!blocks_claim_block(pfn_of(at), order)) {
        return false;
    }
    frame_count_taken(pfn_of(at), INT64_C(1) << order);
    return true;
}

/* Claim [start, end). Return: @end, or where it failed: nothing is kept. */
static uint64_t claim_place(uint64_t start, uint64_t end)
{
    uint64_t at = start;

    while (at < end && claim_block(at, block_order(at, end))) {
        at += UINT64_C(1) << block_order(at, end);
    }
    if (at == end) {
        return end;
    }
    for (uint64_t back = start; back < at;) {
        unsigned order = block_order(back, end);
        frame_release(pfn_of(back), order);
        back += UINT64_C(1) << order;
    }
    return at;
}

static pfn_t claim_in_zone(const struct blocks_zone *zone, uint64_t frames,
                           uint64_t alignment)
{
    uint64_t from = 0;

    for (unsigned i = 0; i < PLACES; i++) {
        pfn_t first = blocks_find_run(zone, from, frames, alignment);
        if (pfn_is_none(first)) {
            break;
        }
        from = claim_place(first.v, first.v + frames);
        if (from == first.v + frames) {
            return first;
        }
        /* Behind what was taken, or behind a block without records. */
        from = record_exists(pfn_of(from))
                   ? from + 1
                   : align_down(from, BLOCK_FRAMES) + BLOCK_FRAMES;
    }
    return PFN_NONE;
}

static pfn_t claim_run(uint64_t frames, uint64_t alignment, unsigned flags)
{
    pfn_t first = PFN_NONE;

    for (unsigned zone = frame_zone_for(flags) + 1;
         zone-- > 0 && pfn_is_none(first);) {
        first = claim_in_zone(&frame_zones[zone].blocks, frames, alignment);
    }
    return first;
}

/* Run searches pass by what other CPUs just wake: let them. */
static void await_trees(unsigned flags)
{
    for (unsigned zone = 0; zone <= frame_zone_for(flags); zone++) {
        const struct blocks_zone *blocks = &frame_zones[zone].blocks;
        trees_await(blocks->first, blocks->end);
    }
}

/* The same, with what CPUs keep, which stands in the way, and with reclaim. */
static pfn_t claim_hard(uint64_t frames, uint64_t alignment, unsigned flags)
{
    pfn_t first = PFN_NONE;

    for (unsigned i = 0; i <= FRAME_RECLAIM_TRIES; i++) {
        if (!frame_is_barred(frames, flags)) {
            first = claim_run(frames, alignment, flags);
        }
        if (pfn_is_none(first)) {
            frame_gather();
            await_trees(flags);
            if (!frame_is_barred(frames, flags)) {
                first = claim_run(frames, alignment, flags);
            }
        }
        if (!pfn_is_none(first) || i == FRAME_RECLAIM_TRIES ||
            !frame_ask_reclaim(frames, flags)) {
            break;
        }
    }
    return first;
}

static pfn_t alloc_run(uint64_t frames, uint64_t alignment,
                       enum frame_type type, unsigned flags)
{
    ASSERT(frames > 0 && is_power_of_two(alignment));
    ASSERT(type > FRAME_NONE && type < FRAME_TYPES);
    if (frames > trees_frames || alignment > trees_frames) {
        frame_count_failure();
        return PFN_NONE;
    }
    pfn_t first = claim_hard(frames, alignment, flags);
    if (pfn_is_none(first)) {
        frame_count_failure();
        return PFN_NONE;
    }
    if (frame_is_watched) {
        frame_watch_marks();
    }
    for (uint64_t at = first.v; at < first.v + frames;) {
        unsigned order = block_order(at, first.v + frames);
        frame_hand_out(pfn_of(at), order, type);
        if (flags & FRAME_ZEROED) {
            frame_zero(pfn_of(at), order);
        }
        at += UINT64_C(1) << order;
    }
    return first;
}

#if MM_INJECT
pfn_t frame_alloc_run_at(const char *site, uint64_t frames, uint64_t alignment,
                         enum frame_type type, unsigned flags)
{
    if (frame_must_fail(site)) {
        frame_count_failure();
        return PFN_NONE;
    }
    return alloc_run(frames, alignment, type, flags);
}
#else
pfn_t frame_alloc_run(uint64_t frames, uint64_t alignment, enum frame_type type,
                      unsigned flags)
{
    return alloc_run(frames, alignment, type, flags);
}
#endif

/* --- release -------------------------------------------------------------- */

/* Frames of the block in use at @at if it ends by @end, or 0. */
static uint64_t block_frames(uint64_t at, uint64_t end)
{
    if (!record_exists(pfn_of(at))) {
        return 0;
    }
    const struct frame_record *record = record_of(pfn_of(at));
    unsigned order = record->order;

    if (order > MM_MAX_ORDER || UINT64_C(1) << order > end - at ||
        frame_sole_type(record, order) == FRAME_NONE) {
        return 0;
    }
    return UINT64_C(1) << order;
}

void frame_free_run(pfn_t first, uint64_t frames)
{
    uint64_t end;

    if (!checked_add(first.v, frames, &end)) {
        frame_report("frame_free_run", first, 0);
        return;
    }
    for (uint64_t at = first.v; at < end;) {
        uint64_t step = block_frames(at, end);
        if (step == 0) {
            frame_report("frame_free_run", pfn_of(at), 0);
            return;
        }
        at += step;
    }
    for (uint64_t at = first.v; at < end;) {
        unsigned order = record_of(pfn_of(at))->order;
        frame_free(pfn_of(at), order);
        at += UINT64_C(1) << order;
    }
}
