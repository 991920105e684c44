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

/* In a tree word: a CPU sits here, the others look elsewhere. */
#define TREE_RESERVED (UINT32_C(1) << 2)

extern _Atomic uint32_t *trees_word; /* (A) */
extern uint64_t trees_frames;        /* (C) frames there are words for */

/* Bytes of storage for @frames frames, bitfields included. */
uint64_t trees_bytes(uint64_t frames);

/* All trees asleep. @storage: any contents; only the words are cleared. */
void trees_init(const struct memmap *map, uint64_t frames, void *storage);

/* Usable frames in [start, end) by @map; frame 0 is never usable. */
uint64_t trees_usable(const struct memmap *map, uint64_t start, uint64_t end);

/*
 * The word of a tree whose bitfields may be read and changed from now on.
 * Context: any. Waits while another CPU wakes the same tree.
 */
uint32_t trees_touch(uint32_t tree);

/* The bits of a tree as they are, or will be once it wakes. */
void trees_read(uint32_t tree, uint64_t out[TREE_ROWS]);

/* @frames were given back to a tree, or taken if negative. The new word. */
uint32_t trees_add(uint32_t tree, int32_t frames);

/* Sit down at a tree, leave it. Return: the word before. */
uint32_t trees_reserve(uint32_t tree);
uint32_t trees_leave(uint32_t tree);

/* I1 of trees.c and the bitfields of one tree; @out_free: its free frames. */
bool trees_check(uint32_t tree, uint64_t *out_free);

/* Free frames by a tree's word; may be wrong for a moment, even negative. */
static inline int32_t tree_free(uint32_t word)
{
    return (int16_t)(word >> 16);
}

#endif
