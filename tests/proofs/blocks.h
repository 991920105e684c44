/* SPDX-License-Identifier: MIT */
/* Blocks in any state, and what has become of them. */
#ifndef TESTS_PROOFS_BLOCKS_H
#define TESTS_PROOFS_BLOCKS_H

#include "tests/proofs/proof.h"

#include "frame/bitfield.c"

#ifndef PROOF_BLOCKS
#define PROOF_BLOCKS 2
#endif
#define PROOF_ROWS   (PROOF_BLOCKS * BLOCK_ROWS)
#define PROOF_FRAMES (PROOF_BLOCKS * BLOCK_FRAMES)

/* Of a quad, two blocks have rows: the others need only stay as they are. */
static _Atomic uint64_t proof_rows[PROOF_ROWS];
static _Atomic uint64_t proof_counts[1];

/* As they were at first. */
static uint64_t old_rows[PROOF_ROWS];
static uint64_t old_counts;

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

/* What a word of counts says of a block. */
static inline uint64_t count_in(uint64_t counts, uint64_t block)
{
    return counts >> (block * COUNT_BITS) & COUNT_MASK;
}

static inline uint64_t old_count(uint64_t block)
{
    return count_in(old_counts, block);
}

static inline uint64_t new_count(uint64_t block)
{
    return count_in(proof_counts[0], block);
}

/* Rows and words of two blocks: any bits at all. */
static inline void any_blocks(void)
{
    bitfield_rows = proof_rows;
    bitfield_counts = proof_counts;
    for (unsigned i = 0; i < PROOF_ROWS; i++) {
        old_rows[i] = nondet_u64();
        proof_rows[i] = old_rows[i];
    }
    old_counts = nondet_u64();
    proof_counts[0] = old_counts;
    probe = any_up_to(PROOF_FRAMES - 1);
}

/* The block is whole, or its count is one it can have. */
static inline void assume_count(uint64_t block)
{
    ASSUME(old_count(block) == COUNT_WHOLE || old_count(block) <= BLOCK_FRAMES);
}

/*
 * What follows from I1 and I2 of bitfield.c without counting bits, and is
 * presupposed in their place: it is less, so that more is proved.
 */
static inline void assume_at_rest(uint64_t block)
{
    uint64_t taken = 0;
    uint64_t free = 0;

    assume_count(block);
    for (unsigned i = 0; i < BLOCK_ROWS; i++) {
        taken |= old_rows[block * BLOCK_ROWS + i];
        free |= ~old_rows[block * BLOCK_ROWS + i];
    }
    if (old_count(block) == COUNT_WHOLE) {
        ASSUME(taken == 0);
    } else {
        ASSUME((old_count(block) == 0) == (free == 0));
        ASSUME((old_count(block) == BLOCK_FRAMES) == (taken == 0));
    }
}

static inline void prove_nothing_changed(void)
{
    PROVE(proof_counts[0] == old_counts, "the counts are as they were");
    PROVE(is_taken() == was_taken(), "the bits are as they were");
}

#endif
