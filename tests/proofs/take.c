/* SPDX-License-Identifier: MIT */
/* bitfield_take(), orders 0 to 8: the frames were free, all else stays. */
#include "tests/proofs/blocks.h"

#define RUN_FRAMES (UINT64_C(1) << ORDER)

/* Were the frames from @first on, aligned, all free? */
static bool run_was_free(uint64_t first)
{
    const uint64_t *row = &old_rows[first / ROW_FRAMES];
    uint64_t taken = 0;

    if (ORDER <= ROW_ORDER) {
        return (*row >> first % ROW_FRAMES & low_bits(RUN_FRAMES)) == 0;
    }
    for (unsigned i = 0; i < RUN_FRAMES / ROW_FRAMES; i++) {
        taken |= row[i];
    }
    return taken == 0;
}

void harness(void)
{
    uint64_t block = any_up_to(1);

    any_blocks();
    assume_at_rest(block);
    pfn_t pfn =
        bitfield_take(block, ORDER, (unsigned)any_up_to(BLOCK_ROWS - 1));
    PROVE(new_count(1 - block) == old_count(1 - block),
          "the other block counts as before");
    if (pfn_is_none(pfn)) {
        uint64_t first = align_down(any_up_to(BLOCK_FRAMES - 1), RUN_FRAMES);

        prove_nothing_changed();
        PROVE((old_count(block) & COUNT_FREE) < RUN_FRAMES ||
                  !run_was_free(block * BLOCK_FRAMES + first),
              "in vain only if there is no such run");
        return;
    }
    PROVE(pfn.v / BLOCK_FRAMES == block, "the frames are of this block");
    PROVE(is_aligned(pfn.v, RUN_FRAMES), "they are aligned to their number");
    PROVE((old_count(block) & COUNT_FREE) >= RUN_FRAMES, "the count had them");
    PROVE(new_count(block) == old_count(block) - RUN_FRAMES,
          "they are counted off");
    PROVE(is_taken() == (was_taken() || is_probed(pfn.v, RUN_FRAMES)),
          "they are taken now, and no others");
    PROVE(!is_probed(pfn.v, RUN_FRAMES) || !was_taken(), "they were free");
}
