/* SPDX-License-Identifier: MIT */
/* bitfield_give(), orders 9 and 10: only what was taken whole. */
#include "tests/proofs/blocks.h"

void harness(void)
{
    uint64_t first =
        align_down(any_up_to(PROOF_FRAMES - 1), UINT64_C(1) << ORDER);
    uint64_t block = first / BLOCK_FRAMES;
    uint64_t end = block + (ORDER > BLOCK_ORDER ? 2 : 1);

    any_blocks();
    bool was_whole =
        old_count(block) == COUNT_WHOLE && old_count(end - 1) == COUNT_WHOLE;
    bool is_given = bitfield_give(pfn_of(first), ORDER);
    PROVE(is_given == was_whole, "given if and only if it was whole");
    PROVE(is_taken() == was_taken(), "no bit is touched");
    for (uint64_t i = 0; i < 2; i++) {
        bool is_mine = is_given && i >= block && i < end;
        PROVE(new_count(i) == (is_mine ? BLOCK_FRAMES : old_count(i)),
              "all of it is free, all else as before");
    }
}
