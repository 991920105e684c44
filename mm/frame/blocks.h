/* SPDX-License-Identifier: MIT */
/* blocks: finding free frames in a zone, and giving them back. */
#ifndef MM_FRAME_BLOCKS_H
#define MM_FRAME_BLOCKS_H

#include <stdatomic.h>

#include <mm/types.h>
#include "frame/trees.h"

/*
 * What a scan looks for in a tree. For each, a zone remembers above which
 * tree there was none last time.
 */
enum blocks_kind {
    BLOCKS_ANY,   /* a free frame */
    BLOCKS_ROOMY, /* many, and no CPU sits there */
    BLOCKS_WHOLE, /* a block entirely free */
    BLOCKS_KINDS
};

/* A run of trees to take from, highest first. */
struct blocks_zone {
    uint32_t first;                      /* (C) tree */
    uint32_t end;                        /* (C) one past the last tree */
    _Atomic uint32_t hint[BLOCKS_KINDS]; /* (A) scan below this tree */
};

/*
 * The tree a CPU takes single frames from and other CPUs avoid, plus one; 0
 * is none. An atomic, since a caller may be interrupted or moved.
 */
typedef _Atomic uint32_t blocks_seat;

/* Ask for as many frames of one row as are free, instead of 2^order. */
#define BLOCKS_ROW (MM_MAX_ORDER + 1)

/* A request, and its answer. */
struct blocks_wish {
    unsigned order; /* or BLOCKS_ROW */
    bool is_raw;    /* the frames need no records */
    bool is_stuck;  /* out: records could not be backed: backed blocks only */
    pfn_t pfn;      /* out: first frame; for a row, the row's first frame */
    uint64_t mask;  /* out: for a row, which of its 64 frames */
};

/* What the shared structure knows of one frame. */
enum blocks_bit {
    BLOCKS_FREE,
    BLOCKS_TAKEN,
    BLOCKS_IN_WHOLE /* in a block of order 9 or 10 handed out in one step */
};

/* The trees of [first_frame, end_frame) that exist; both at tree borders. */
void blocks_zone_init(struct blocks_zone *zone, uint64_t first_frame,
                      uint64_t end_frame);

/*
 * Take what @wish asks for from @zone where the hints say it may be.
 * @seat: of this CPU, or NULL.
 * Return: false if nothing was found; a frame freed at this moment, or left
 *         out by a hint that lost a race, is found by blocks_claim_anywhere().
 */
bool blocks_claim(struct blocks_zone *zone, blocks_seat *seat,
                  struct blocks_wish *wish);
bool blocks_claim_anywhere(struct blocks_zone *zone, struct blocks_wish *wish);

/*
 * Give back a block of @order that was claimed, or had become one.
 * Return: false, with nothing changed, if part of it was free already.
 */
MM_MUST_CHECK bool blocks_release(struct blocks_zone *zone, pfn_t pfn,
                                  unsigned order);
/* The same for the frames @mask of the row at @first. */
MM_MUST_CHECK bool blocks_release_row(struct blocks_zone *zone, pfn_t first,
                                      uint64_t mask);

/* Bring the trees of [start, end) to life, before the map changes there. */
void blocks_touch(pfn_t start, pfn_t end);

enum blocks_bit blocks_look(pfn_t pfn);

/* Add the zone's free blocks to @count, by order, as a buddy system would. */
void blocks_count(const struct blocks_zone *zone,
                  uint64_t count[MM_MAX_ORDER + 1]);

/* Counters equal the bits; @out_free: free frames of the zone. */
bool blocks_check(const struct blocks_zone *zone, uint64_t *out_free);

#endif
