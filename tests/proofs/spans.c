/* SPDX-License-Identifier: MIT */
/* Trees that sleep: their bits are those of the memory map. */
#include "tests/proofs/proof.h"

#include "frame/bitfield.c"
#include "frame/trees.c"

#define SPANS  2
#define FRAMES (3 * TREE_FRAMES)

static struct span proof_span[SPANS];

/* Up to SPANS spans of at least one frame, sorted, without frame 0. */
static void any_spans(void)
{
    uint64_t end = 1;

    spans = proof_span;
    span_count = any_up_to(SPANS);
    for (unsigned i = 0; i < SPANS; i++) {
        proof_span[i].start = any_up_to(FRAMES);
        proof_span[i].end = any_up_to(FRAMES);
        ASSUME(end <= proof_span[i].start);
        ASSUME(proof_span[i].start < proof_span[i].end);
        end = proof_span[i].end;
    }
}

/* Is the frame in a span? By looking at each. */
static bool is_usable(uint64_t frame)
{
    bool is_there = false;

    for (unsigned i = 0; i < SPANS; i++) {
        is_there |= i < span_count && proof_span[i].start <= frame &&
                    frame < proof_span[i].end;
    }
    return is_there;
}

static void prove_first(void)
{
    uint64_t frame = any_up_to(FRAMES);

    any_spans();
    size_t first = first_span_above(frame);
    PROVE(first <= span_count, "a span, or the end");
    PROVE(first == span_count || proof_span[first].end > frame,
          "it ends above the frame");
    PROVE(first == 0 || proof_span[first - 1].end <= frame, "the first one");
}

static void prove_usable(void)
{
    uint64_t start = any_up_to(FRAMES);
    uint64_t end = any_up_to(FRAMES);
    uint64_t frames = 0;

    any_spans();
    ASSUME(start <= end);
    for (unsigned i = 0; i < SPANS; i++) {
        uint64_t low = max_u64(start, proof_span[i].start);
        uint64_t high = min_u64(end, proof_span[i].end);
        frames += i < span_count && low < high ? high - low : 0;
    }
    PROVE(trees_usable(start, end) == frames, "the frames of all spans");
}

static void prove_draw(void)
{
    uint64_t row[TREE_ROWS];
    uint32_t tree = (uint32_t)any_up_to(2);
    uint64_t frame = any_up_to(TREE_FRAMES - 1);

    any_spans();
    draw_tree(tree, row);
    bool is_taken = (row[frame / ROW_FRAMES] >> frame % ROW_FRAMES & 1) != 0;
    PROVE(is_taken == !is_usable(tree * TREE_FRAMES + frame),
          "a bit is clear if the map offers the frame");
}

void harness(void)
{
    PROOF();
}
