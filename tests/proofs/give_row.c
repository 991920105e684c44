/* SPDX-License-Identifier: MIT */
/* bitfield_give_row(): any frames of a row, all of them taken. */
#include "tests/proofs/blocks.h"

void harness(void)
{
    uint64_t row = any_up_to(PROOF_ROWS - 1);
    uint64_t first = row * ROW_FRAMES;
    uint64_t block = row / BLOCK_ROWS;
    uint64_t mask = nondet_u64();

    any_blocks();
    bool was_mine = (old_rows[row] & mask) == mask;
    /* Else the block counts more than it has, if all of this is taken. */
    ASSUME(old_count(block) + count_bits(mask) <= BLOCK_FRAMES || !was_mine);
    bool is_given = bitfield_give_row(pfn_of(first), mask);
    PROVE(is_given == was_mine, "refused if and only if any of it was free");
    if (!is_given) {
        prove_nothing_changed();
        return;
    }
    PROVE(new_count(block) == old_count(block) + count_bits(mask),
          "they are counted");
    PROVE(new_count(1 - block) == old_count(1 - block),
          "the other block counts as before");
    bool is_mine =
        is_probed(first, ROW_FRAMES) && (mask >> probe % ROW_FRAMES & 1) != 0;
    PROVE(is_taken() == (was_taken() && !is_mine),
          "they are free now, and no others");
}
