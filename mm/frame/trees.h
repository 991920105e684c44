/* SPDX-License-Identifier: MIT */
/* trees: a word for each 16 MiB, which wakes when it is first needed. */
#ifndef MM_FRAME_TREES_H
#define MM_FRAME_TREES_H

#include <stdatomic.h>

#include <mm/memmap.h>
#include <mm/types.h>
#include "frame/bitfield.h"

#define TREE_FRAMES UINT64_C(4096)
#define TREE_BLOCKS (TREE_FRAMES / BLOCK_FRAMES)
#define TREE_ROWS   (TREE_FRAMES / ROW_FRAMES)

/* In a tree word; TREE_FILLING stands for the word while there is none. */
#define TREE_FILLING  (UINT32_C(1) << 0) /* a CPU is just waking it */
#define TREE_READY    (UINT32_C(1) << 1) /* it is awake */
#define TREE_RESERVED (UINT32_C(1) << 2) /* a CPU sits here, see blocks.h */

extern _Atomic uint32_t *trees_word; /* (A) of trees that are awake */
extern uint64_t trees_frames;        /* (C) frames there are words for */

/* Bytes of storage for the RAM in @map below @frames, bitfields included. */
uint64_t trees_bytes(const struct memmap *map, uint64_t frames);

/*
 * All trees asleep; @map is copied as far as it is needed to wake them.
 * @storage: any contents; only the copy and two bits a tree are written.
 */
void trees_init(const struct memmap *map, uint64_t frames, void *storage);

/* Frames in [start, end) that were usable at trees_init(); never frame 0. */
uint64_t trees_usable(uint64_t start, uint64_t end);

/*
 * The word of a tree. It is woken if nobody has; if another CPU just does,
 * the word says TREE_FILLING and nothing may be read or changed there yet.
 * Context: any.
 */
uint32_t trees_look(uint32_t tree);

/*
 * If other CPUs are just waking trees of [first, end), wait until those are
 * awake; but not for ever, since such a CPU may have been stopped, and for each
 * of them only once.
 */
void trees_await(uint32_t first, uint32_t end);

/* Have a tree awake. Return: false: another CPU is still waking it. */
MM_MUST_CHECK bool trees_touch(uint32_t tree);

/* The word as it is: 0 if nobody has needed the tree yet. */
uint32_t trees_peek(uint32_t tree);

/* The bits of a tree as they are, or will be once it wakes. */
void trees_read(uint32_t tree, uint64_t out[TREE_ROWS]);

/* Keep the others away from a tree that is awake; false if somebody does. */
MM_MUST_CHECK bool trees_reserve(uint32_t tree);

/* Let others come to a reserved tree. */
void trees_leave(uint32_t tree);

/* The bitfields of one tree; @out_free: its free frames. */
bool trees_check(uint32_t tree, uint64_t *out_free);

#endif
