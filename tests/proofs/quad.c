/* SPDX-License-Identifier: MIT */
/* step_swap() of any blocks of a quad: all of them or none, and no other. */
#include "tests/proofs/blocks.h"

void harness(void)
{
    uint64_t which = nondet_u64() & QUAD_ALL;
    bool were_from = true;

    any_blocks();
    for (uint64_t i = 0; i < QUAD_BLOCKS; i++) {
        bool is_named = (which & step_blocks(i, BLOCK_ORDER)) != 0;
        were_from = were_from && (!is_named || old_count(i) == FROM);
    }
    uint64_t free = step_free_blocks(old_counts);
    bool is_done = step_swap(any_up_to(QUAD_BLOCKS - 1), which, FROM, TO);
    PROVE(is_done == were_from, "done if and only if all were so");
    PROVE(is_taken() == was_taken(), "no bit is touched");
    for (uint64_t i = 0; i < QUAD_BLOCKS; i++) {
        uint64_t name = step_blocks(i, BLOCK_ORDER);
        bool is_mine = is_done && (which & name) != 0;
        PROVE(new_count(i) == (is_mine ? TO : old_count(i)),
              "those that were named, all else as before");
        if (old_count(i) == COUNT_WHOLE || old_count(i) <= BLOCK_FRAMES) {
            PROVE(((free & name) != 0) == (old_count(i) == BLOCK_FRAMES),
                  "free blocks are found by their counts");
        }
    }
}
