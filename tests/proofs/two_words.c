/* SPDX-License-Identifier: MIT */
/* Two CPUs at a tree's word: one sits down, and no frame is lost. */
#include "tests/proofs/proof.h"

#include "frame/bitfield.c"
#include "frame/trees.c"

/* Frames the first CPU has in its seat; whether it sits there. */
static int32_t seat;
static bool is_seated;
static bool is_done;

/* A CPU that gives @frames back to the tree. */
static void give(int32_t frames)
{
    (void)trees_add(0, frames);
}

/* One that sits down, or not, collects, and perhaps leaves. */
static void sit(bool is_leaving)
{
    int32_t free = 0;

    if (!trees_reserve(0, &free)) {
        return;
    }
    free += trees_collect(0);
    if (is_leaving) {
        trees_leave(0, free);
    } else {
        seat = free;
        is_seated = true;
    }
}

static void first_cpu(bool is_leaving)
{
    sit(is_leaving);
    is_done = true;
}

void harness(void)
{
    uint32_t word = nondet_u32();
    int32_t frames = (int32_t)any_up_to(TREE_FRAMES);
    bool is_leaving = nondet_bool();
    int32_t other_seat = 0;
    bool is_other = false;

    ASSUME(tree_free(word) >= 0 && tree_free(word) <= (int32_t)TREE_FRAMES);
    ASSUME((word & TREE_RESERVED) == 0);
    trees_word[0] = word;
__CPROVER_ASYNC_1:
    first_cpu(is_leaving);
    if (OTHER_SITS) {
        frames = 0;
        is_other = trees_reserve(0, &other_seat);
    } else {
        give(frames);
    }
    ASSUME(is_done);
    PROVE(!is_seated || !is_other, "one sits at a tree");
    PROVE(is_leaving || is_seated || is_other, "of two, one gets it");
    PROVE(tree_free(trees_word[0]) + seat + (is_other ? other_seat : 0) ==
              tree_free(word) + frames,
          "no frame is lost or counted twice");
    PROVE(((trees_word[0] & TREE_RESERVED) != 0) == (is_seated || is_other),
          "the word says whether somebody sits there");
}
