/* SPDX-License-Identifier: MIT */
/* bitfield_check() says yes if and only if I1 or I2 holds. */
#include "tests/proofs/blocks.h"

void harness(void)
{
    uint64_t block = any_up_to(1);
    uint32_t clear = 0;

    any_blocks();
    for (unsigned i = 0; i < BLOCK_ROWS; i++) {
        clear += count_bits(~old_rows[block * BLOCK_ROWS + i]);
    }
    bool is_right = old_count(block) == clear ||
                    (old_count(block) == COUNT_WHOLE && clear == BLOCK_FRAMES);
    PROVE(bitfield_check(block) == is_right, "it sees what is wrong");
    prove_nothing_changed();
}
