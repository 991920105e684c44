/* SPDX-License-Identifier: MIT */
/* The changes of a tree's word: the flags say who sits. */
#include "tests/proofs/proof.h"

#include "frame/bitfield.c"
#include "frame/trees.c"

static _Atomic uint32_t proof_word[1];

/* A tree that is awake; @flags more. */
static uint32_t awake(uint32_t flags)
{
    trees_word = proof_word;
    proof_word[0] = TREE_READY | flags;
    return proof_word[0];
}

static void prove_reserve(void)
{
    uint32_t old = awake(nondet_bool() ? TREE_RESERVED : 0);
    bool is_mine = trees_reserve(0);

    PROVE(is_mine == ((old & TREE_RESERVED) == 0), "one sits at a tree");
    PROVE(proof_word[0] == (TREE_READY | TREE_RESERVED), "the word says so");
}

static void prove_leave(void)
{
    (void)awake(TREE_RESERVED);
    trees_leave(0);
    PROVE(proof_word[0] == TREE_READY, "others may come");
}

void harness(void)
{
    PROOF();
}
