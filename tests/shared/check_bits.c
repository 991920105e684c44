/* SPDX-License-Identifier: MIT */
/* Words of base/: powers of two, checked sums, bit counts, the lock. */
/*
 * At risk: edges (0, 1, 2^63, wrap-around), which everything above trusts.
 */
#include "tests/shared/test.h"

#include "base/bits.h"
#include "base/lock.h"

TEST(bits, powers_and_alignment)
{
    CHECK(!is_power_of_two(0) && is_power_of_two(1));
    CHECK(is_power_of_two(UINT64_C(1) << 63) && !is_power_of_two(3));
    CHECK(is_aligned(0, 4096) && is_aligned(8192, 4096));
    CHECK(!is_aligned(4097, 4096));
    CHECK_EQUAL(align_up(1, 4096), 4096);
    CHECK_EQUAL(align_up(4096, 4096), 4096);
    CHECK_EQUAL(align_down(4095, 4096), 0);
    CHECK_EQUAL(div_round_up(UINT64_MAX, 2), UINT64_C(1) << 63);
    CHECK_EQUAL(div_round_up(0, 7), 0);
}

TEST(bits, checked_arithmetic_reports_overflow)
{
    uint64_t out;

    CHECK(checked_add(UINT64_MAX - 1, 1, &out) && out == UINT64_MAX);
    CHECK(!checked_add(UINT64_MAX, 1, &out));
    CHECK(checked_mul(UINT32_MAX, UINT32_MAX, &out));
    CHECK(!checked_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &out));
}

TEST(bits, counting)
{
    struct test_random random;

    CHECK_EQUAL(lowest_bit(1), 0);
    CHECK_EQUAL(highest_bit(1), 0);
    CHECK_EQUAL(highest_bit(UINT64_MAX), 63);
    CHECK_EQUAL(lowest_bit(UINT64_C(1) << 63), 63);
    CHECK_EQUAL(low_bits(0), 0);
    CHECK_EQUAL(low_bits(64), UINT64_MAX);
    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t value = test_random_next(&random);
        unsigned naive = 0;

        for (unsigned bit = 0; bit < 64; bit++) {
            naive += (unsigned)(value >> bit) & 1;
        }
        CHECK_EQUAL(count_bits(value), naive);
    }
}

TEST(bits, overlap_is_half_open)
{
    CHECK(ranges_overlap(0, 2, 1, 3));
    CHECK(!ranges_overlap(0, 1, 1, 2));
    CHECK(!ranges_overlap(1, 2, 0, 1));
    CHECK(ranges_overlap(0, 10, 4, 5));
}

TEST(lock, is_held_between_acquire_and_release)
{
    struct lock lock = LOCK_INIT(LOCK_RANK_HOST_OUTER);

    CHECK(!lock_is_held(&lock));
    uint64_t irq = lock_acquire(&lock);
    CHECK(lock_is_held(&lock));
    lock_release(&lock, irq);
    CHECK(!lock_is_held(&lock));
}
