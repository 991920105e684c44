/* SPDX-License-Identifier: MIT */
/* bitfield_split() and bitfield_join(): whole, single, and back. */
#include "tests/proofs/blocks.h"

void harness(void)
{
    uint64_t frames = UINT64_C(1) << ORDER;
    uint64_t first = align_down(any_up_to(PROOF_FRAMES - 1), frames);
    uint64_t block = first / BLOCK_FRAMES;
    uint64_t end = (first + frames) / BLOCK_FRAMES;

    any_blocks();
    ASSUME(old_count(block) == COUNT_WHOLE &&
           old_count(end - 1) == COUNT_WHOLE);
    ASSUME(!was_taken() || !is_probed(first, frames));
    bitfield_split(pfn_of(first), ORDER);
    PROVE(is_taken() == (was_taken() || is_probed(first, frames)),
          "each frame is taken by itself, and no other");
    for (uint64_t i = 0; i < 2; i++) {
        PROVE(new_count(i) == (i >= block && i < end ? 0 : old_count(i)),
              "none is free there, all else as before");
    }
    bitfield_join(pfn_of(first), ORDER);
    PROVE(proof_counts[0] == old_counts, "joined, the counts are as they were");
    PROVE(is_taken() == was_taken(), "joined, the bits are as they were");
}
