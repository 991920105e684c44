/* SPDX-License-Identifier: MIT */
/* blocks_look: what is free, by the bits, without changing any. */
/*
 * Owns    nothing.
 * Idea    Free memory is counted as a buddy system would: each maximal aligned
 *         free block once.
 */
#include "base/bits.h"
#include "base/check.h"
#include "frame/blocks.h"

bool blocks_is_free(pfn_t pfn)
{
    ASSERT(pfn.v < trees_frames);
    if ((trees_peek((uint32_t)(pfn.v / TREE_FRAMES)) & TREE_READY) == 0) {
        return trees_usable(pfn.v, pfn.v + 1) != 0;
    }
    uint64_t row = bitfield_row(pfn.v / ROW_FRAMES);
    return !bitfield_is_whole(pfn.v / BLOCK_FRAMES) &&
           (row >> (pfn.v % ROW_FRAMES) & 1) == 0;
}

pfn_t blocks_touch(pfn_t start, pfn_t end)
{
    uint64_t at = start.v;

    while (at < end.v && trees_touch((uint32_t)(at / TREE_FRAMES))) {
        at = align_down(at, TREE_FRAMES) + TREE_FRAMES;
    }
    return pfn_of(min_u64(at, end.v));
}

/* The runs inside one row that is not free altogether. */
static void count_row(uint64_t free, uint64_t count[MM_MAX_ORDER + 1])
{
    for (unsigned order = ROW_ORDER; order-- > 0;) {
        uint64_t runs = bitfield_runs(free, order);
        count[order] += count_bits(runs);
        free &= ~(runs * low_bits(1u << order));
    }
}

/* Are @row[0 .. count-1] all free? */
static bool rows_are_free(const uint64_t *row, unsigned count)
{
    uint64_t taken = 0;

    for (unsigned i = 0; i < count; i++) {
        taken |= row[i];
    }
    return taken == 0;
}

/* Largest aligned run of free rows at @index; its order, or ROW_ORDER - 1. */
static unsigned rows_order(const uint64_t row[TREE_ROWS], unsigned index)
{
    for (unsigned order = MM_MAX_ORDER; order >= ROW_ORDER; order--) {
        unsigned count = 1u << (order - ROW_ORDER);
        if (index % count == 0 && rows_are_free(&row[index], count)) {
            return order;
        }
    }
    return ROW_ORDER - 1;
}

void blocks_count(const struct blocks_zone *zone,
                  uint64_t count[MM_MAX_ORDER + 1])
{
    uint64_t row[TREE_ROWS];

    for (uint32_t tree = zone->first; tree < zone->end; tree++) {
        trees_read(tree, row);
        for (unsigned i = 0; i < TREE_ROWS;) {
            unsigned order = rows_order(row, i);
            if (order < ROW_ORDER) {
                count_row(~row[i], count);
                i++;
            } else {
                count[order]++;
                i += 1u << (order - ROW_ORDER);
            }
        }
    }
}
