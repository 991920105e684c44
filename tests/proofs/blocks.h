/* SPDX-License-Identifier: MIT */
/* A pair of blocks in any state, and what has become of it. */
#ifndef TESTS_PROOFS_BLOCKS_H
#define TESTS_PROOFS_BLOCKS_H

#include "tests/proofs/proof.h"

#include "frame/bitfield.c"

#define PAIR_ROWS   (2 * BLOCK_ROWS)
#define PAIR_FRAMES (2 * BLOCK_FRAMES)

/* Two blocks are all there are; those of a pair never mind the others. */
static _Atomic uint64_t proof_rows[PAIR_ROWS];
static _Atomic uint32_t proof_pairs[1];

/* As they were at first. */
static uint64_t old_rows[PAIR_ROWS];
static uint32_t old_pair;

/* Any frame of the two: what is proved of it is proved of all. */
static uint64_t probe;

static inline bool bit_of(const uint64_t *row, uint64_t frame)
{
    return (row[frame / ROW_FRAMES] >> (frame % ROW_FRAMES) & 1) != 0;
}

static inline bool was_taken(void)
{
    return bit_of(old_rows, probe);
}

static inline bool is_taken(void)
{
    return bit_of(proof_rows, probe);
}

static inline bool is_probed(uint64_t first, uint64_t frames)
{
    return probe >= first && probe - first < frames;
}

/* The half word of block 0 or 1, out of a pair. */
static inline uint32_t half_in(uint32_t pair, uint64_t block)
{
    return pair >> (block * HALF_BITS) & HALF_MASK;
}

static inline uint32_t old_half(uint64_t block)
{
    return half_in(old_pair, block);
}

static inline uint32_t new_half(uint64_t block)
{
    return half_in(proof_pairs[0], block);
}

/* Rows and words of two blocks: any bits at all. */
static inline void any_blocks(void)
{
    bitfield_rows = proof_rows;
    bitfield_pairs = proof_pairs;
    for (unsigned i = 0; i < PAIR_ROWS; i++) {
        old_rows[i] = nondet_u64();
        proof_rows[i] = old_rows[i];
    }
    old_pair = nondet_u32();
    proof_pairs[0] = old_pair;
    probe = any_up_to(PAIR_FRAMES - 1);
}

/* The block is whole, or its count is one it can have. */
static inline void assume_half(uint64_t block)
{
    ASSUME(old_half(block) == HALF_WHOLE || old_half(block) <= BLOCK_FRAMES);
}

/*
 * What follows from I1 and I2 of bitfield.c without counting bits, and is
 * presupposed in their place: it is less, so that more is proved.
 */
static inline void assume_at_rest(uint64_t block)
{
    uint64_t taken = 0;
    uint64_t free = 0;

    assume_half(block);
    for (unsigned i = 0; i < BLOCK_ROWS; i++) {
        taken |= old_rows[block * BLOCK_ROWS + i];
        free |= ~old_rows[block * BLOCK_ROWS + i];
    }
    if (old_half(block) == HALF_WHOLE) {
        ASSUME(taken == 0);
    } else {
        ASSUME((old_half(block) == 0) == (free == 0));
        ASSUME((old_half(block) == BLOCK_FRAMES) == (taken == 0));
    }
}

static inline void prove_nothing_changed(void)
{
    PROVE(proof_pairs[0] == old_pair, "the counts are as they were");
    PROVE(is_taken() == was_taken(), "the bits are as they were");
}

#endif
