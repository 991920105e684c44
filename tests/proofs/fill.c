/* SPDX-License-Identifier: MIT */
/* bitfield_fill(): the bits of the map, and their counts. */
#define PROOF_BLOCKS 4
#include "tests/proofs/blocks.h"

void harness(void)
{
    uint64_t row[PROOF_ROWS];
    uint32_t free[PROOF_BLOCKS] = {0};

    any_blocks();
    for (unsigned i = 0; i < PROOF_ROWS; i++) {
        row[i] = nondet_u64();
        free[i / BLOCK_ROWS] += count_bits(~row[i]);
    }
    uint32_t total = bitfield_fill(0, PROOF_BLOCKS, row);
    PROVE(is_taken() == bit_of(row, probe), "the bits are those of the map");
    for (uint64_t i = 0; i < PROOF_BLOCKS; i++) {
        PROVE(new_count(i) == free[i], "each block counts its clear bits");
        PROVE(bitfield_free(i) == free[i] && !bitfield_is_whole(i),
              "the questions are answered so");
    }
    PROVE(total == free[0] + free[1] + free[2] + free[3],
          "the sum is returned");
}
