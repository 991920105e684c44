/* SPDX-License-Identifier: MIT */
/* bitfield_runs(): the aligned runs of a row that are free. */
#include "tests/proofs/blocks.h"

void harness(void)
{
    uint64_t free = nondet_u64();
    unsigned order = (unsigned)any_up_to(ROW_ORDER);
    unsigned bit = (unsigned)any_up_to(ROW_FRAMES - 1);
    uint64_t runs = bitfield_runs(free, order);
    uint64_t run = low_bits(1u << order);
    bool is_run =
        is_aligned(bit, UINT64_C(1) << order) && (free >> bit & run) == run;

    PROVE((runs >> bit & 1) == is_run, "a bit for each run, at its first");
}
