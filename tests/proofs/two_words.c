/* SPDX-License-Identifier: MIT */
/* Two CPUs at a tree's word: one sits down, and a seat that is left is free. */
#include "tests/proofs/proof.h"

#include "frame/bitfield.c"
#include "frame/trees.c"

static bool is_first;
static bool is_done;

/* One that sits down, or not, and perhaps leaves. */
static void first_cpu(void)
{
    is_first = trees_reserve(0);
    if (is_first && IS_LEAVING) {
        trees_leave(0);
    }
    is_done = true;
}

void harness(void)
{
    trees_word[0] = TREE_READY;
__CPROVER_ASYNC_1:
    first_cpu();
    bool is_second = trees_reserve(0);
    ASSUME(is_done);
    PROVE(IS_LEAVING || !is_first || !is_second, "one sits at a tree");
    PROVE(is_first || is_second, "of two, one gets it");
    bool is_seated = is_second || (is_first && !IS_LEAVING);
    PROVE(trees_word[0] == (TREE_READY | (is_seated ? TREE_RESERVED : 0)),
          "the word says whether somebody sits there");
}
