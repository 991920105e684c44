/* SPDX-License-Identifier: MIT */
/* bitfield_take(), orders 9 and 10: all or nothing, in one word. */
#include "tests/proofs/blocks.h"

void harness(void)
{
    uint64_t block = ORDER > BLOCK_ORDER ? 0 : any_up_to(1);
    uint64_t frames = UINT64_C(1) << ORDER;

    any_blocks();
    bool was_free = old_count(block) == BLOCK_FRAMES;
    if (ORDER > BLOCK_ORDER) {
        was_free = was_free && old_count(1) == BLOCK_FRAMES;
    }
    pfn_t pfn = bitfield_take(block, ORDER, 0);
    PROVE(is_taken() == was_taken(), "no bit is touched");
    PROVE(was_free == !pfn_is_none(pfn), "taken if and only if it was free");
    if (pfn_is_none(pfn)) {
        prove_nothing_changed();
        return;
    }
    PROVE(pfn.v == block * BLOCK_FRAMES, "the first frame is the block's");
    for (uint64_t i = 0; i < 2; i++) {
        uint64_t first = i * BLOCK_FRAMES;
        bool is_mine = first >= pfn.v && first < pfn.v + frames;
        PROVE(new_count(i) == (is_mine ? COUNT_WHOLE : old_count(i)),
              "marked whole, and no other");
    }
}
