/* SPDX-License-Identifier: MIT */
/* Two CPUs at two blocks of a quad: neither minds the other's count. */
#include "tests/proofs/proof.h"

#include "frame/bitfield.c"

/* Frames the first takes of the even block, the second of the odd one. */
static unsigned wanted[2];
static bool is_first_mine;
static bool is_done;

static uint64_t count_in(uint64_t counts, unsigned block)
{
    return counts >> (block * COUNT_BITS) & COUNT_MASK;
}

static void first_cpu(unsigned frames)
{
    is_first_mine = step_take_count(0, frames);
    is_done = true;
}

static void prove_counts(uint64_t old, bool is_second_mine)
{
    uint64_t counts = bitfield_counts[0];
    bool is_mine[2] = {is_first_mine, is_second_mine};

    for (unsigned i = 0; i < 2; i++) {
        uint64_t count = count_in(old, i);
        PROVE(is_mine[i] == ((count & COUNT_FREE) >= wanted[i]),
              "each gets what its block has");
        PROVE(count_in(counts, i) == count - (is_mine[i] ? wanted[i] : 0),
              "each block counts what was taken of it");
    }
}

static void prove_both(uint64_t old, bool is_both_mine)
{
    uint64_t pair = step_blocks(0, BLOCK_ORDER + 1);

    PROVE(!is_first_mine || !is_both_mine, "not a part and the whole");
    PROVE(is_first_mine || is_both_mine ||
              (old & pair * COUNT_MASK) != pair * BLOCK_FRAMES,
          "one of them gets it");
    PROVE(!is_both_mine || bitfield_counts[0] == ((old & ~(pair * COUNT_MASK)) |
                                                  pair * COUNT_WHOLE),
          "both are marked, and no other");
}

void harness(void)
{
    uint64_t old = nondet_u64();
    bool is_second_mine;

    for (unsigned i = 0; i < 2; i++) {
        wanted[i] = 1 + (unsigned)any_up_to(BLOCK_FRAMES - 1);
        ASSUME(count_in(old, i) == COUNT_WHOLE ||
               count_in(old, i) <= BLOCK_FRAMES);
    }
    bitfield_counts[0] = old;
__CPROVER_ASYNC_1:
    first_cpu(wanted[0]);
    if (TAKES_BOTH) {
        is_second_mine = step_swap(0, step_blocks(0, BLOCK_ORDER + 1),
                                   BLOCK_FRAMES, COUNT_WHOLE);
    } else {
        is_second_mine = step_take_count(1, wanted[1]);
    }
    ASSUME(is_done);
    if (TAKES_BOTH) {
        prove_both(old, is_second_mine);
    } else {
        prove_counts(old, is_second_mine);
    }
}
