/* SPDX-License-Identifier: MIT */
/* The changes of a tree's word: the count moves, the flags say who sits. */
#include "tests/proofs/proof.h"

#include "frame/bitfield.c"
#include "frame/trees.c"

static _Atomic uint32_t proof_word[1];

/* A word whose count is @room or more from both ends of its 16 bits. */
static uint32_t any_word(int32_t room)
{
    uint32_t word = nondet_u32();

    ASSUME(tree_free(word) >= INT16_MIN + room);
    ASSUME(tree_free(word) <= INT16_MAX - room);
    trees_word = proof_word;
    proof_word[0] = word;
    return word;
}

static uint32_t flags_of(uint32_t word)
{
    return word & TREE_FLAGS;
}

static int32_t any_frames(void)
{
    return (int32_t)any_up_to(2 * TREE_FRAMES) - (int32_t)TREE_FRAMES;
}

static void prove_add(void)
{
    uint32_t old = any_word((int32_t)TREE_FRAMES);
    int32_t frames = any_frames();
    uint32_t word = trees_add(0, frames);

    PROVE(word == proof_word[0], "the new word is returned");
    PROVE(tree_free(word) == tree_free(old) + frames, "they are counted");
    PROVE(flags_of(word) == flags_of(old), "the flags stay");
}

static void prove_reserve(void)
{
    uint32_t old = any_word(0);
    int32_t free = 0;
    bool is_mine = trees_reserve(0, &free);
    uint32_t word = proof_word[0];

    PROVE(is_mine == ((old & TREE_RESERVED) == 0), "one sits at a tree");
    if (!is_mine) {
        PROVE(word == old, "refused, nothing has changed");
        return;
    }
    PROVE(free == tree_free(old) && tree_free(word) == 0,
          "the whole count moves to the seat");
    PROVE(flags_of(word) == (flags_of(old) | TREE_RESERVED),
          "the word says so");
}

static void prove_collect(void)
{
    uint32_t old = any_word(0);
    int32_t free = trees_collect(0);

    PROVE(free == tree_free(old) && tree_free(proof_word[0]) == 0,
          "what was given meanwhile moves to the seat");
    PROVE(flags_of(proof_word[0]) == flags_of(old), "the flags stay");
}

static void prove_leave(void)
{
    uint32_t old = any_word((int32_t)TREE_FRAMES);
    int32_t frames = any_frames();

    ASSUME((old & TREE_RESERVED) != 0);
    trees_leave(0, frames);
    PROVE(tree_free(proof_word[0]) == tree_free(old) + frames,
          "the count moves back to the word");
    PROVE(flags_of(proof_word[0]) == (flags_of(old) & ~TREE_RESERVED),
          "others may come");
}

void harness(void)
{
    PROOF();
}
