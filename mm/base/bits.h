/* SPDX-License-Identifier: MIT */
/* Arithmetic on powers of two, sizes from outside, and single bits. */
#ifndef MM_BASE_BITS_H
#define MM_BASE_BITS_H

#include <mm/types.h>

static inline bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* @alignment is a power of two, here and below. */
static inline bool is_aligned(uint64_t value, uint64_t alignment)
{
    return (value & (alignment - 1)) == 0;
}

static inline uint64_t align_down(uint64_t value, uint64_t alignment)
{
    return value & ~(alignment - 1);
}

/* Wraps to 0 above 2^64 - alignment: check outside values first. */
static inline uint64_t align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t div_round_up(uint64_t value, uint64_t divisor)
{
    return value / divisor + (value % divisor != 0);
}

/* false, and @out unspecified, if the sum does not fit. */
static inline MM_MUST_CHECK bool checked_add(uint64_t a, uint64_t b,
                                             uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline MM_MUST_CHECK bool checked_mul(uint64_t a, uint64_t b,
                                             uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* Index of the lowest set bit; @value is not 0. */
static inline unsigned lowest_bit(uint64_t value)
{
    return (unsigned)__builtin_ctzll(value);
}

/* Index of the highest set bit, floor(log2); @value is not 0. */
static inline unsigned highest_bit(uint64_t value)
{
    return 63u - (unsigned)__builtin_clzll(value);
}

/* By halves: POPCNT is not on every CPU, and libgcc is not in a kernel. */
static inline unsigned count_bits(uint64_t value)
{
    value -= (value >> 1) & UINT64_C(0x5555555555555555);
    value = (value & UINT64_C(0x3333333333333333)) +
            ((value >> 2) & UINT64_C(0x3333333333333333));
    value = (value + (value >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (unsigned)((value * UINT64_C(0x0101010101010101)) >> 56);
}

/* The @count lowest bits set; @count is 0..64. */
static inline uint64_t low_bits(unsigned count)
{
    return count >= 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
}

/* Do the half-open ranges [a, a_end) and [b, b_end) share a point? */
static inline bool ranges_overlap(uint64_t a, uint64_t a_end, uint64_t b,
                                  uint64_t b_end)
{
    return a < b_end && b < a_end;
}

#endif
