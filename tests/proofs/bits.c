/* SPDX-License-Identifier: MIT */
/* base/bits.h: each function is what its name says. */
#define PROVE_BITS 1
#include "tests/proofs/proof.h"

static void prove_count(void)
{
    uint64_t value = nondet_u64();

    PROVE(count_bits(value) == (unsigned)__builtin_popcountll(value),
          "the bits that are set");
}

static void prove_single_bits(void)
{
    uint64_t value = nondet_u64();
    unsigned count = (unsigned)any_up_to(64);
    unsigned bit = (unsigned)any_up_to(63);

    PROVE((low_bits(count) >> bit & 1) == (bit < count), "the lowest bits");
    PROVE(is_power_of_two(UINT64_C(1) << bit), "one bit is a power of two");
    ASSUME(value != 0);
    PROVE((value >> lowest_bit(value) & 1) != 0 &&
              (value & low_bits(lowest_bit(value))) == 0,
          "the lowest bit that is set");
    PROVE(value >> highest_bit(value) == 1, "the highest bit that is set");
    PROVE(is_power_of_two(value) == (lowest_bit(value) == highest_bit(value)),
          "a power of two has one bit");
}

static void prove_align(void)
{
    uint64_t alignment = UINT64_C(1) << any_up_to(63);
    uint64_t value = nondet_u64();
    uint64_t down = align_down(value, alignment);

    PROVE(down <= value && value - down < alignment, "down is next to it");
    PROVE(is_aligned(down, alignment), "down is aligned");
    PROVE(is_aligned(value, alignment) == (down == value), "aligned: as it is");
    ASSUME(value <= UINT64_MAX - (alignment - 1));
    uint64_t up = align_up(value, alignment);
    PROVE(up >= value && up - value < alignment, "up is next to it");
    PROVE(is_aligned(up, alignment), "up is aligned");
}

static void prove_checked(void)
{
    uint64_t a = nondet_u64();
    uint64_t b = nondet_u64();
    uint64_t sum;

    bool has_sum = checked_add(a, b, &sum);
    PROVE(has_sum == (a <= UINT64_MAX - b), "a sum that fits");
    PROVE(!has_sum || sum - a == b, "is the sum");
}

static void prove_ranges(void)
{
    uint64_t a = nondet_u64();
    uint64_t b = nondet_u64();
    uint64_t a_end = nondet_u64();
    uint64_t b_end = nondet_u64();
    uint64_t point = max_u64(a, b);

    ASSUME(a < a_end && b < b_end);
    PROVE(point >= min_u64(a, b), "the greater is not less");
    PROVE(ranges_overlap(a, a_end, b, b_end) ==
              (point < a_end && point < b_end),
          "they share the greater start, or no point");
}

void harness(void)
{
    PROOF();
}
