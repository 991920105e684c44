/* SPDX-License-Identifier: MIT */
/* Two CPUs at one block, in every order that x86-64's memory allows. */
#include "tests/proofs/proof.h"

/*
 * Each does one thing, FIRST and SECOND: take ORDER, take a row, take a block
 * whole, give back what it had. The block is at rest before; afterwards the
 * bits and the count must be what the results say, and nobody has what another
 * one has, too. tests/proofs/list makes the block smaller: two rows.
 */
#include "frame/bitfield.c"

enum act { TAKE, TAKE_AT, TAKE_ROW, TAKE_WHOLE, GIVE, GIVE_ROW, GIVE_WHOLE };

#ifndef ORDER
#define ORDER 0
#endif
#ifndef ANY_BITS
#define ANY_BITS 64
#endif
#define RUN step_run(ORDER)

/* What a CPU has got or given, bits by row; and whether it had the whole. */
struct result {
    uint64_t taken[2];
    uint64_t given[2];
    bool is_whole;
};

static struct result first_result;
static bool is_done;

/* @bits from @first on were taken, of which there may be none. */
static struct result taken(pfn_t first, uint64_t bits)
{
    struct result mine = {{0, 0}, {0, 0}, false};

    if (pfn_is_none(first)) {
        return mine;
    }
    if (first.v < ROW_FRAMES) {
        mine.taken[0] = bits << first.v;
    } else {
        mine.taken[1] = bits << (first.v - ROW_FRAMES);
    }
    return mine;
}

static struct result given(bool is_given, uint64_t bits)
{
    return (struct result){{0, 0}, {is_given ? bits : 0, 0}, false};
}

static struct result whole(bool has_it)
{
    return (struct result){{0, 0}, {0, 0}, has_it};
}

static struct result take_row(void)
{
    pfn_t first;
    uint64_t bits = bitfield_take_row(0, &first);

    return taken(first, bits);
}

static struct result take_whole(void)
{
    bool is_mine = !pfn_is_none(bitfield_take(0, BLOCK_ORDER, 0));

    PROVE(!is_mine || (bitfield_rows[0] | bitfield_rows[1]) == 0,
          "who has the whole finds nobody inside");
    return whole(is_mine);
}

/* A CPU's turn; @bits of row 0 are what it wishes or gives back. */
static struct result act(enum act what, uint64_t bits)
{
    pfn_t first = pfn_of(0);

    switch (what) {
    case TAKE:
        return taken(bitfield_take(0, ORDER, 0), RUN);
    case TAKE_AT:
        return taken(bitfield_take_at(first, ORDER) ? first : PFN_NONE, bits);
    case TAKE_ROW:
        return take_row();
    case TAKE_WHOLE:
        return take_whole();
    case GIVE:
        return given(bitfield_give(first, ORDER), bits);
    case GIVE_ROW:
        return given(bitfield_give_row(first, bits), bits);
    case GIVE_WHOLE:
        return whole(bitfield_give(first, BLOCK_ORDER));
    }
    return whole(false);
}

static void first_cpu(uint64_t bits)
{
    first_result = act(FIRST, bits);
    is_done = true;
}

/*
 * Bits of row 0 that @what can be asked for: any, or the first run, which is
 * as good as another.
 */
static uint64_t any_bits(enum act what)
{
    return what == TAKE_AT || what == GIVE ? RUN : nondet_u64();
}

/*
 * A block at rest, I1 or I2: whole (if somebody gives that back), free, or
 * with any frames free among the first ANY_BITS of each row, fewer where CBMC
 * would take too long.
 */
static uint64_t any_block(uint64_t row[2])
{
    bool is_whole =
        nondet_bool() || FIRST == GIVE_WHOLE || SECOND == GIVE_WHOLE;
    bool is_free = is_whole || nondet_bool();
    uint64_t count = 0;

    for (unsigned i = 0; i < 2; i++) {
        row[i] = is_free ? 0 : nondet_u64() | ~low_bits(ANY_BITS);
        bitfield_rows[i] = row[i];
        count += count_bits(~row[i]);
    }
    bitfield_counts[0] = is_whole ? COUNT_WHOLE : count;
    return bitfield_counts[0];
}

static unsigned count_both(const uint64_t *row)
{
    return count_bits(row[0]) + count_bits(row[1]);
}

/* What @first and @second have got, and what is left, are one whole. */
static void prove_sum(const uint64_t old[2], uint64_t count,
                      struct result first, struct result second)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t left = old[i] & ~(first.given[i] | second.given[i]);
        uint64_t taken = first.taken[i] | second.taken[i];

        PROVE((first.taken[i] & second.taken[i]) == 0,
              "no frame is taken by both");
        PROVE((first.given[i] & second.given[i]) == 0,
              "no frame is given back twice");
        PROVE((taken & left) == 0, "only free frames are taken");
        PROVE(bitfield_rows[i] == (left | taken), "the bits say who has what");
    }
    PROVE(FIRST != SECOND || !first.is_whole || !second.is_whole,
          "the whole is not taken, or given back, by both");
    if (first.is_whole || second.is_whole) {
        return;
    }
    PROVE(bitfield_counts[0] ==
              count + count_both(first.given) + count_both(second.given) -
                  count_both(first.taken) - count_both(second.taken),
          "the count is that of the bits");
}

/* The same if one had the whole. */
static void prove_whole(struct result first, struct result second)
{
    bool is_taken = (FIRST == TAKE_WHOLE && first.is_whole) ||
                    (SECOND == TAKE_WHOLE && second.is_whole);
    bool is_given = (FIRST == GIVE_WHOLE && first.is_whole) ||
                    (SECOND == GIVE_WHOLE && second.is_whole);
    uint32_t taken = count_both(first.taken) + count_both(second.taken);

    if (is_taken) {
        PROVE(taken == 0, "nobody else has a part of the whole");
        PROVE(bitfield_counts[0] == COUNT_WHOLE, "it is marked so");
    } else if (is_given) {
        PROVE(bitfield_counts[0] == BLOCK_FRAMES - taken,
              "the count is that of the bits");
    }
}

void harness(void)
{
    uint64_t old[2];
    uint64_t count = any_block(old);
    uint64_t first_bits = any_bits(FIRST);
    uint64_t second_bits = any_bits(SECOND);

    /* A lie while the other just takes these very bits shows only later. */
    if (FIRST < GIVE && SECOND >= GIVE && SECOND != GIVE_WHOLE) {
        ASSUME((~old[0] & second_bits) == 0);
    }
__CPROVER_ASYNC_1:
    first_cpu(first_bits);
    struct result second = act(SECOND, second_bits);
    ASSUME(is_done);
    struct result first = first_result;
    prove_sum(old, count, first, second);
    PROVE(FIRST >= GIVE || SECOND < GIVE || SECOND == GIVE_WHOLE ||
              second.given[0] == second_bits,
          "who gives back what is his is not refused");
    prove_whole(first, second);
}
