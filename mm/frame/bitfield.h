/* SPDX-License-Identifier: MIT */
/* bitfield: the bits and the count of each block of 512 frames. */
#ifndef MM_FRAME_BITFIELD_H
#define MM_FRAME_BITFIELD_H

#include <stdatomic.h>

#include <mm/types.h>

#define ROW_ORDER    6 /* one word of bits: 64 frames */
#define ROW_FRAMES   UINT64_C(64)
#define BLOCK_ORDER  9 /* 2 MiB */
#define BLOCK_FRAMES UINT64_C(512)
#define BLOCK_ROWS   (BLOCK_FRAMES / ROW_FRAMES)
#define QUAD_BLOCKS  UINT64_C(4) /* their counts share a word */

/* Blocks are counted from physical address 0, rows too. */

/*
 * Claims that found no bits for the count they had taken: what they gave back
 * was out of sight of others for a moment.
 */
extern _Atomic uint64_t bitfield_undone; /* (A) */

/* Bytes of storage for @blocks (whole quads), a multiple of a cache line. */
uint64_t bitfield_bytes(uint64_t blocks);

/* @storage: as bitfield_bytes() says; its contents are rubbish and remain. */
void bitfield_init(uint64_t blocks, void *storage);

/*
 * Give @blocks blocks (whole quads) from @first on the bits @row, set = taken.
 * Return: how many frames are free there.
 * Context: nobody else looks at these blocks yet.
 */
uint32_t bitfield_fill(uint64_t first, uint64_t blocks, const uint64_t *row);

/* Frames of a block that can be taken now. */
unsigned bitfield_free(uint64_t block);

/* Has the block been taken by order 9 or 10, and not been split? */
bool bitfield_is_whole(uint64_t block);

/* The 64 bits of a row; those of a whole block are clear. */
uint64_t bitfield_row(uint64_t row);

/*
 * Take an aligned run of 2^order frames inside the block; order 10 takes the
 * next block as well, @block being even.
 * @first  row of the block to look at first, 0 .. BLOCK_ROWS-1; a hint
 * Return: its first frame, or PFN_NONE.
 */
pfn_t bitfield_take(uint64_t block, unsigned order, unsigned first);

/* The same for the run at @pfn and no other. */
MM_MUST_CHECK bool bitfield_take_at(pfn_t pfn, unsigned order);

/*
 * Take all free frames of the row that has most, by one exchange.
 * Return: which frames of the row, bit by bit; 0 if there was none.
 */
uint64_t bitfield_take_row(uint64_t block, pfn_t *out_first);

/* Give up @frames of the count of a block, which no bits were found for. */
void bitfield_undo_count(uint64_t block, unsigned frames);

/*
 * Give back what was taken, or a part of it that is a block of its own.
 * Return: false, with nothing changed, if any of it is free already.
 */
MM_MUST_CHECK bool bitfield_give(pfn_t pfn, unsigned order);
/* The same for the frames @mask of the row that begins at @first. */
MM_MUST_CHECK bool bitfield_give_row(pfn_t first, uint64_t mask);

/* Turn a whole block of order 9 or 10 into single taken frames, and back. */
void bitfield_split(pfn_t pfn, unsigned order);
void bitfield_join(pfn_t pfn, unsigned order);

/* I1 and I2 of bitfield.c for one block at rest. */
bool bitfield_check(uint64_t block);

/* First bits of the aligned runs of 2^order bits (order 0..6) in @free. */
uint64_t bitfield_runs(uint64_t free, unsigned order);

#endif
