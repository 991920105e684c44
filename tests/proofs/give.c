/* SPDX-License-Identifier: MIT */
/* bitfield_give(), orders 0 to 8: what was taken, and nothing else. */
#include "tests/proofs/blocks.h"

/* Were the @frames from @first on, aligned, all taken? */
static bool run_was_taken(uint64_t first, uint64_t frames)
{
    uint64_t row = first / ROW_FRAMES;
    uint64_t taken = UINT64_MAX;

    if (frames <= ROW_FRAMES) {
        uint64_t mask = low_bits((unsigned)frames);
        return (old_rows[row] >> first % ROW_FRAMES & mask) == mask;
    }
    for (unsigned i = 0; i < frames / ROW_FRAMES; i++) {
        taken &= old_rows[row + i];
    }
    return taken == UINT64_MAX;
}

void harness(void)
{
    unsigned order = LOW + (unsigned)any_up_to(HIGH - LOW);
    uint64_t frames = UINT64_C(1) << order;
    uint64_t first = align_down(any_up_to(PROOF_FRAMES - 1), frames);
    uint64_t block = first / BLOCK_FRAMES;

    any_blocks();
    /* Else the block counts more than it has, if all of this is taken. */
    ASSUME(old_count(block) <= BLOCK_FRAMES - frames ||
           !run_was_taken(first, frames));
    bool is_given = bitfield_give(pfn_of(first), order);
    PROVE(is_given == run_was_taken(first, frames),
          "refused if and only if any of it was free");
    if (!is_given) {
        prove_nothing_changed();
        return;
    }
    PROVE(new_count(block) == old_count(block) + frames, "they are counted");
    PROVE(new_count(1 - block) == old_count(1 - block),
          "the other block counts as before");
    PROVE(is_taken() == (was_taken() && !is_probed(first, frames)),
          "they are free now, and no others");
}
