/* SPDX-License-Identifier: MIT */
/* random: numbers that are the same everywhere for the same seed. */
#include "tests/shared/test.h"

void test_random_init(struct test_random *random, uint64_t seed)
{
    random->state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

uint64_t test_random_next(struct test_random *random)
{
    uint64_t x = random->state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random->state = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t test_random_below(struct test_random *random, uint64_t limit)
{
    return (test_random_next(random) >> 11) % limit;
}
