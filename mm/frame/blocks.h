/* SPDX-License-Identifier: MIT */
/* blocks: finding free frames in a zone, and giving them back. */
#ifndef MM_FRAME_BLOCKS_H
#define MM_FRAME_BLOCKS_H

#include <stdatomic.h>

#include <mm/record.h>
#include <mm/types.h>
#include "frame/steps.h"
#include "frame/trees.h"

/*
 * What a search looks for in a tree. For each, a zone remembers above which
 * tree there was none last time.
 */
enum blocks_kind {
    BLOCKS_ANY,     /* a free frame */
    BLOCKS_PARTIAL, /* a block of which a row's worth is free, but not all */
    BLOCKS_WHOLE,   /* a block entirely free; for both: no CPU sits there */
    BLOCKS_KINDS
};

/* A run of trees to take from, highest first. */
struct blocks_zone {
    uint32_t first;                      /* (C) tree */
    uint32_t end;                        /* (C) one past the last tree */
    _Atomic uint32_t hint[BLOCKS_KINDS]; /* (A) search below this tree */
    /* (A) the same for trees whose counts share no line with another seat */
    _Atomic uint32_t apart[BLOCKS_KINDS];
};

/* Small and large blocks come from different trees. */
enum blocks_use {
    BLOCKS_SMALL, /* orders 0 to 8, rows */
    BLOCKS_LARGE, /* orders 9 and 10 */
    BLOCKS_USES
};

/*
 * The tree a CPU takes from and other CPUs avoid. Those of a CPU are read and
 * changed by it alone, with interrupts off.
 */
struct blocks_seat {
    uint32_t tree;  /* its index plus one; 0: none */
    uint64_t row;   /* look here first, it has records; or BLOCKS_NO_ROW */
    uint32_t block; /* rows come from here, index in the tree */
};

#define BLOCKS_NO_ROW UINT64_MAX

/* A request, and its answer. */
struct blocks_wish {
    unsigned order;
    bool is_raw;   /* the frames need no records */
    bool is_stuck; /* records cannot be backed: look at backed blocks only */
    pfn_t pfn;     /* out: first frame */
};

enum blocks_answer {
    BLOCKS_NONE,    /* found nothing */
    BLOCKS_CLAIMED, /* wish->pfn */
    BLOCKS_UNBACKED /* nothing yet: first back the records of wish->pfn */
};

/* The trees of [first_frame, end_frame) that exist; both at tree borders. */
void blocks_zone_init(struct blocks_zone *zone, uint64_t first_frame,
                      uint64_t end_frame);

static inline enum blocks_use blocks_use_of(unsigned order)
{
    return order >= BLOCK_ORDER ? BLOCKS_LARGE : BLOCKS_SMALL;
}

/* Is the seat a tree of this zone? */
static inline bool blocks_sits_in(const struct blocks_seat *seat,
                                  const struct blocks_zone *zone)
{
    return seat->tree > zone->first && seat->tree <= zone->end;
}

/*
 * What the word of a quad shows of each kind: any count but 0; one from 64 to
 * 511; one of 512.
 */
#define BLOCKS_SHOW_ANY     (COUNT_FREE * QUAD_ALL)
#define BLOCKS_SHOW_PARTIAL ((BLOCK_FRAMES - ROW_FRAMES) * QUAD_ALL)
#define BLOCKS_SHOW_WHOLE   (BLOCK_FRAMES * QUAD_ALL)

/* Is there something of the kind in a tree that is awake? */
static inline bool blocks_tree_has(uint32_t tree, enum blocks_kind kind)
{
    static const uint64_t shows[BLOCKS_KINDS] = {
        BLOCKS_SHOW_ANY, BLOCKS_SHOW_PARTIAL, BLOCKS_SHOW_WHOLE};
    uint64_t counts = 0;

    for (unsigned i = 0; i < TREE_BLOCKS; i += QUAD_BLOCKS) {
        counts |= step_counts(tree * TREE_BLOCKS + i);
    }
    return (counts & shows[kind]) != 0;
}

/*
 * Orders 9 and 10 by one step; no more is tried. @seat is that of large ones.
 * Return: the block, or PFN_NONE. Context: as blocks_claim_at().
 */
static inline pfn_t blocks_claim_whole(const struct blocks_seat *seat,
                                       unsigned order)
{
    uint64_t first = (seat->tree - 1) * TREE_BLOCKS;

    for (uint64_t quad = first; quad < first + TREE_BLOCKS;
         quad += QUAD_BLOCKS) {
        uint64_t free = step_free_blocks(step_counts(quad));
        if (order > BLOCK_ORDER) {
            free &= free >> COUNT_BITS & QUAD_EVEN;
        }
        if (free == 0) {
            continue;
        }
        uint64_t block = quad + lowest_bit(free) / COUNT_BITS;
        pfn_t pfn = pfn_of(block * BLOCK_FRAMES);
        if (record_exists(pfn) &&
            (order == BLOCK_ORDER ||
             record_exists(pfn_add(pfn, BLOCK_FRAMES))) &&
            step_swap(block, step_blocks(block, order), BLOCK_FRAMES,
                      COUNT_WHOLE)) {
            return pfn;
        }
    }
    return PFN_NONE;
}

/*
 * Take all blocks of a quad that are free and have records, by one step.
 * Return: which, as step_blocks() names them; 0: none, and no more is tried.
 * Context: as blocks_claim_at().
 */
static inline uint64_t blocks_claim_quad(const struct blocks_seat *seat,
                                         pfn_t *out_first)
{
    uint64_t first = (seat->tree - 1) * TREE_BLOCKS;

    for (uint64_t quad = first; quad < first + TREE_BLOCKS;
         quad += QUAD_BLOCKS) {
        uint64_t which = 0;
        uint64_t free = step_free_blocks(step_counts(quad));
        for (; free != 0; free &= free - 1) {
            uint64_t block = quad + lowest_bit(free) / COUNT_BITS;
            which |= record_exists(pfn_of(block * BLOCK_FRAMES))
                         ? step_blocks(block, BLOCK_ORDER)
                         : 0;
        }
        if (which != 0 && step_swap(quad, which, BLOCK_FRAMES, COUNT_WHOLE)) {
            *out_first = pfn_of(quad * BLOCK_FRAMES);
            return which;
        }
    }
    return 0;
}

/*
 * Take where the last was taken or given back, by two steps; no more is tried.
 * Orders 0 to 6 only. Return, Context: as blocks_claim_whole().
 */
static inline pfn_t blocks_claim_near(const struct blocks_seat *seat,
                                      unsigned order)
{
    uint64_t row = seat->row;
    uint64_t block = row / BLOCK_ROWS;

    if (MM_UNLIKELY(row == BLOCKS_NO_ROW || order > ROW_ORDER) ||
        !step_take_count(block, 1u << order)) {
        return PFN_NONE;
    }
    unsigned bit = step_take_run(&bitfield_rows[row], order);
    if (MM_UNLIKELY(bit == ROW_FRAMES)) {
        bitfield_undo_count(block, 1u << order);
        return PFN_NONE;
    }
    return pfn_of(row * ROW_FRAMES + bit);
}

/*
 * Take from the tree of a seat.
 * Context: interrupts off, @seat is one of this CPU or held by nobody else.
 */
enum blocks_answer blocks_claim_at(struct blocks_seat *seat,
                                   struct blocks_wish *wish);

/*
 * Take all free frames of a row from the tree of a seat: from a block that is
 * in use partly, or if @kind is BLOCKS_WHOLE, from one that is free altogether.
 * @wish: pfn is the row's first frame; its order is not looked at.
 * @out_mask: if claimed, which of its 64 frames.
 * Context: as blocks_claim_at().
 */
enum blocks_answer blocks_claim_row(struct blocks_seat *seat,
                                    enum blocks_kind kind,
                                    struct blocks_wish *wish,
                                    uint64_t *out_mask);

/*
 * Give back a block to the tree of a seat, if it can be done by two steps or
 * one. Orders 0 to 6, 9 and 10 only.
 * Return: false, and nothing has changed: blocks_release() will do it, or say
 *         that part of it was free.
 * Context: as blocks_claim_at().
 */
static inline bool blocks_release_near(struct blocks_seat *seat, pfn_t pfn,
                                       unsigned order)
{
    uint64_t block = pfn.v / BLOCK_FRAMES;

    if (seat->tree != (uint32_t)(pfn.v / TREE_FRAMES) + 1) {
        return false;
    }
    if (order >= BLOCK_ORDER) {
        if (!step_swap(block, step_blocks(block, order), COUNT_WHOLE,
                       BLOCK_FRAMES)) {
            return false;
        }
    } else {
        if (order > ROW_ORDER ||
            !step_clear_bits(&bitfield_rows[pfn.v / ROW_FRAMES],
                             step_run(order) << (pfn.v % ROW_FRAMES))) {
            return false;
        }
        step_give_count(block, 1u << order);
    }
    seat->row = pfn.v / ROW_FRAMES;
    return true;
}

/*
 * Find a tree of @zone where nobody sits and take from it.
 * @out_seat: its tree is that of the seat which is given up for it (0: none):
 *            beside that one is no reason to keep away. If claimed, the tree
 *            found, reserved: sit down or leave.
 */
enum blocks_answer blocks_search(struct blocks_zone *zone,
                                 struct blocks_wish *wish,
                                 struct blocks_seat *out_seat);

/* The same, but sit down only: at a tree with a block of @kind. */
MM_MUST_CHECK bool blocks_find_seat(struct blocks_zone *zone,
                                    enum blocks_kind kind,
                                    struct blocks_seat *out_seat);

/* Give up a seat: the tree is everybody's again. @seat is none after that. */
void blocks_leave(struct blocks_zone *zone, struct blocks_seat *seat);

/*
 * Take from any tree, whoever sits there: where the hints say there may be
 * something, or everywhere, also where a hint has lost a race. The latter waits
 * a while for trees that other CPUs just wake.
 */
enum blocks_answer blocks_steal(struct blocks_zone *zone,
                                struct blocks_wish *wish);
enum blocks_answer blocks_steal_anywhere(struct blocks_zone *zone,
                                         struct blocks_wish *wish);

/*
 * Give back a block of @order that was claimed, or had become one.
 * @seat: BLOCKS_USES seats of this CPU; or NULL.
 * Return: false, with nothing changed, if part of it was free already.
 * Context: interrupts off, for the seats.
 */
MM_MUST_CHECK bool blocks_release(struct blocks_zone *zone,
                                  struct blocks_seat *seat, pfn_t pfn,
                                  unsigned order);
/* The same for the blocks @which, see step_blocks(), of the quad at @first. */
MM_MUST_CHECK bool blocks_release_quad(struct blocks_zone *zone,
                                       struct blocks_seat *seat, pfn_t first,
                                       uint64_t which);
/* The same for the frames @mask of the row at @first. */
MM_MUST_CHECK bool blocks_release_row(struct blocks_zone *zone,
                                      struct blocks_seat *seat, pfn_t first,
                                      uint64_t mask);

/*
 * Take this very block. Return: false if any of it is in use, or if another CPU
 * just wakes its tree.
 */
MM_MUST_CHECK bool blocks_claim_block(pfn_t pfn, unsigned order);

/*
 * First of @frames free frames in a row, at a multiple of @alignment; PFN_NONE
 * if there are none at or above @from. They may be gone when it returns. A tree
 * that another CPU just wakes is passed by.
 */
pfn_t blocks_find_run(const struct blocks_zone *zone, uint64_t from,
                      uint64_t frames, uint64_t alignment);

/*
 * Bring the trees of [start, end) to life; waits a while for those that other
 * CPUs just wake. Return: @end, or the first frame of a tree that sleeps on.
 */
MM_MUST_CHECK pfn_t blocks_touch(pfn_t start, pfn_t end);

/* Is a frame free, as far as it is not kept by a CPU? */
bool blocks_is_free(pfn_t pfn);

/* Add the zone's free blocks to @count, by order, as a buddy system would. */
void blocks_count(const struct blocks_zone *zone,
                  uint64_t count[MM_MAX_ORDER + 1]);

#endif
