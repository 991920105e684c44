/* SPDX-License-Identifier: MIT */
/* blocks_run: free frames in a row, and claims of this block and no other. */
/*
 * Owns    nothing: it reads bits and claims through them.
 * Idea    One walk upwards through a zone, by trees and blocks where they are
 *         of one kind, by bits where not. Single frames are taken from the top
 *         of a zone, so that a run is most likely found near its bottom.
 * Cost    A word for each 2 MiB, at worst eight.
 */
#include "base/bits.h"
#include "frame/blocks.h"

bool blocks_claim_block(pfn_t pfn, unsigned order)
{
    uint32_t word = trees_look((uint32_t)(pfn.v / TREE_FRAMES));

    return (word & TREE_READY) != 0 && bitfield_take_at(pfn, order);
}

/* A run under way: free so far is [start, at). */
struct run {
    uint64_t start;
    uint64_t at;
    uint64_t from;      /* it begins here or higher */
    uint64_t frames;    /* how long it should be */
    uint64_t alignment; /* of its start */
};

/* The next @frames frames are free. Is the run long enough now? */
static bool run_grows(struct run *run, uint64_t frames)
{
    run->at += frames;
    return run->at >= run->start && run->at - run->start >= run->frames;
}

/* The next @frames frames are not: begin anew behind them. */
static bool run_breaks(struct run *run, uint64_t frames)
{
    run->at += frames;
    run->start = align_up(max_u64(run->at, run->from), run->alignment);
    return false;
}

static bool run_meets_row(struct run *run, uint64_t taken)
{
    bool is_long = false;

    if (taken == 0) {
        return run_grows(run, ROW_FRAMES);
    }
    if (taken == UINT64_MAX) {
        return run_breaks(run, ROW_FRAMES);
    }
    for (unsigned i = 0; i < ROW_FRAMES && !is_long; i++) {
        is_long =
            (taken >> i & 1) == 0 ? run_grows(run, 1) : run_breaks(run, 1);
    }
    return is_long;
}

static bool run_meets_block(struct run *run, uint64_t block)
{
    unsigned free = bitfield_free(block);
    bool is_long = false;

    if (free == BLOCK_FRAMES) {
        return run_grows(run, BLOCK_FRAMES);
    }
    if (free == 0) {
        return run_breaks(run, BLOCK_FRAMES);
    }
    for (unsigned i = 0; i < BLOCK_ROWS && !is_long; i++) {
        is_long = run_meets_row(run, bitfield_row(block * BLOCK_ROWS + i));
    }
    return is_long;
}

/* Trees that sleep are not woken for it if they are of one kind. */
static bool run_meets_tree(struct run *run, uint32_t tree)
{
    bool is_long = false;
    uint32_t word = trees_peek(tree);

    if (word == 0) {
        uint64_t first = tree * TREE_FRAMES;
        uint64_t usable = trees_usable(first, first + TREE_FRAMES);
        if (usable == TREE_FRAMES) {
            return run_grows(run, TREE_FRAMES);
        }
        if (usable == 0) {
            return run_breaks(run, TREE_FRAMES);
        }
        word = trees_look(tree);
    }
    if ((word & TREE_READY) == 0) {
        return run_breaks(run, TREE_FRAMES);
    }
    for (unsigned i = 0; i < TREE_BLOCKS && !is_long; i++) {
        is_long = run_meets_block(run, tree * TREE_BLOCKS + i);
    }
    return is_long;
}

pfn_t blocks_find_run(const struct blocks_zone *zone, uint64_t from,
                      uint64_t frames, uint64_t alignment)
{
    uint64_t first =
        max_u64(align_down(from, TREE_FRAMES), zone->first * TREE_FRAMES);
    struct run run = {.start = align_up(max_u64(from, first), alignment),
                      .at = first,
                      .from = from,
                      .frames = frames,
                      .alignment = alignment};

    for (uint64_t tree = first / TREE_FRAMES; tree < zone->end; tree++) {
        if (run_meets_tree(&run, (uint32_t)tree)) {
            return pfn_of(run.start);
        }
    }
    return PFN_NONE;
}
