/* SPDX-License-Identifier: MIT */
/* bitfield_take_at(): these frames or none, orders 0 to 8. */
#include "tests/proofs/blocks.h"

#define RUN_FRAMES (UINT64_C(1) << ORDER)

void harness(void)
{
    uint64_t first = align_down(any_up_to(PROOF_FRAMES - 1), RUN_FRAMES);
    uint64_t block = first / BLOCK_FRAMES;

    any_blocks();
    assume_count(block);
    bool is_mine = bitfield_take_at(pfn_of(first), ORDER);
    PROVE(!is_mine || !is_probed(first, RUN_FRAMES) || !was_taken(),
          "they were free");
    if (!is_mine) {
        prove_nothing_changed();
        return;
    }
    PROVE((old_count(block) & COUNT_FREE) >= RUN_FRAMES, "the count had them");
    PROVE(new_count(block) == old_count(block) - RUN_FRAMES,
          "they are counted off");
    PROVE(new_count(1 - block) == old_count(1 - block),
          "the other block counts as before");
    PROVE(is_taken() == (was_taken() || is_probed(first, RUN_FRAMES)),
          "they are taken now, and no others");
}
