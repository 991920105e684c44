/* SPDX-License-Identifier: MIT */
/* bitfield_fill(): the bits of the map, and their counts. */
#include "tests/proofs/blocks.h"

void harness(void)
{
    uint64_t row[PAIR_ROWS];
    uint32_t free[2] = {0, 0};

    any_blocks();
    for (unsigned i = 0; i < PAIR_ROWS; i++) {
        row[i] = nondet_u64();
        free[i / BLOCK_ROWS] += count_bits(~row[i]);
    }
    uint32_t total = bitfield_fill(0, 2, row);
    PROVE(is_taken() == bit_of(row, probe), "the bits are those of the map");
    PROVE(new_half(0) == free[0] && new_half(1) == free[1],
          "each block counts its clear bits");
    PROVE(total == free[0] + free[1], "the sum is returned");
    PROVE(bitfield_free(0) == free[0] && bitfield_free(1) == free[1] &&
              !bitfield_is_whole(0) && !bitfield_is_whole(1),
          "the questions are answered so");
}
