/* SPDX-License-Identifier: MIT */
/* Two CPUs at the two halves of a pair: neither minds the other's half. */
#include "tests/proofs/proof.h"

#include "frame/bitfield.c"

/* Frames the first takes of the even block, the second of the odd one. */
static unsigned wanted[2];
static bool is_first_mine;
static bool is_done;

static uint32_t half_in(uint32_t pair, unsigned block)
{
    return pair >> (block * HALF_BITS) & HALF_MASK;
}

static void first_cpu(unsigned frames)
{
    is_first_mine = step_take_count(0, frames);
    is_done = true;
}

static void prove_halves(uint32_t old, bool is_second_mine)
{
    uint32_t pair = bitfield_pairs[0];
    bool is_mine[2] = {is_first_mine, is_second_mine};

    for (unsigned i = 0; i < 2; i++) {
        uint32_t half = half_in(old, i);
        PROVE(is_mine[i] == ((half & HALF_COUNT) >= wanted[i]),
              "each gets what is in its half");
        PROVE(half_in(pair, i) == half - (is_mine[i] ? wanted[i] : 0),
              "each half counts what was taken of it");
    }
}

static void prove_both(uint32_t old, bool is_both_mine)
{
    uint32_t all = (uint32_t)BLOCK_FRAMES << HALF_BITS | BLOCK_FRAMES;

    PROVE(!is_first_mine || !is_both_mine, "not a part and the whole");
    PROVE(is_first_mine || is_both_mine || old != all, "one of them gets it");
    PROVE(!is_both_mine ||
              bitfield_pairs[0] == (HALF_WHOLE << HALF_BITS | HALF_WHOLE),
          "both halves are marked");
}

void harness(void)
{
    uint32_t old = nondet_u32();
    bool is_second_mine;

    for (unsigned i = 0; i < 2; i++) {
        wanted[i] = 1 + (unsigned)any_up_to(BLOCK_FRAMES - 1);
        ASSUME(half_in(old, i) == HALF_WHOLE ||
               half_in(old, i) <= BLOCK_FRAMES);
    }
    bitfield_pairs[0] = old;
__CPROVER_ASYNC_1:
    first_cpu(wanted[0]);
    if (TAKES_BOTH) {
        is_second_mine =
            step_swap(0, BLOCK_ORDER + 1, BLOCK_FRAMES, HALF_WHOLE);
    } else {
        is_second_mine = step_take_count(1, wanted[1]);
    }
    ASSUME(is_done);
    if (TAKES_BOTH) {
        prove_both(old, is_second_mine);
    } else {
        prove_halves(old, is_second_mine);
    }
}
