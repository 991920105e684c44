/* SPDX-License-Identifier: MIT */
/* bitfield_take_row(): all that the best row has, and no more. */
#include "tests/proofs/blocks.h"

static void prove_block(uint64_t block)
{
    pfn_t first;

    any_blocks();
    assume_at_rest(block);
    uint64_t got = bitfield_take_row(block, &first);
    PROVE(first.v / BLOCK_FRAMES == block && first.v % ROW_FRAMES == 0,
          "the row is one of the block");
    uint64_t free = ~old_rows[first.v / ROW_FRAMES];
    if (got == 0) {
        prove_nothing_changed();
        PROVE((old_count(block) & COUNT_FREE) < count_bits(free) || free == 0,
              "in vain only if there was none");
        return;
    }
    PROVE(got == free, "all that was free in the row");
    PROVE(new_count(block) == old_count(block) - count_bits(got),
          "they are counted off");
    PROVE(new_count(1 - block) == old_count(1 - block),
          "the other block counts as before");
    bool is_mine =
        is_probed(first.v, ROW_FRAMES) && (got >> probe % ROW_FRAMES & 1) != 0;
    PROVE(is_taken() == (was_taken() || is_mine),
          "they are taken now, and no others");
    uint64_t other = block * BLOCK_ROWS + any_up_to(BLOCK_ROWS - 1);
    PROVE(count_bits(~old_rows[other]) <= count_bits(got), "no row had more");
}

void harness(void)
{
    if (nondet_bool()) {
        prove_block(0);
    } else {
        prove_block(1);
    }
}
