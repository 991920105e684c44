/* SPDX-License-Identifier: MIT */
/* yield: another thread may go on between a load and the swap that wants it. */
/*
 * A thread that reads a word and swaps it is hardly ever stopped between the
 * two. Where all is atomic ThreadSanitizer sees no race, so that what goes
 * wrong there is not found. The linker puts these in place of its swaps
 * (Makefile).
 */
#include "tests/host/yield.h"

#include <sched.h>

#include "tests/shared/test.h"

static _Thread_local struct test_random random_of;
static _Thread_local unsigned chance_of;

void yield_before_swaps(unsigned chance, uint64_t seed)
{
    test_random_init(&random_of, seed);
    chance_of = chance;
}

#if SIM_TSAN

static void yield_by_chance(void)
{
    if (chance_of != 0 && test_random_below(&random_of, chance_of) == 0) {
        sched_yield();
    }
}

/* Each function is declared where it is defined: only compilers call it. */
#define SWAP(bits, kind)                                                       \
    int __real___tsan_atomic##bits##_compare_exchange_##kind(                  \
        volatile uint##bits##_t *address, uint##bits##_t *expected,            \
        uint##bits##_t desired, int order, int order_of_failure);              \
    int __wrap___tsan_atomic##bits##_compare_exchange_##kind(                  \
        volatile uint##bits##_t *address, uint##bits##_t *expected,            \
        uint##bits##_t desired, int order, int order_of_failure);              \
    int __wrap___tsan_atomic##bits##_compare_exchange_##kind(                  \
        volatile uint##bits##_t *address, uint##bits##_t *expected,            \
        uint##bits##_t desired, int order, int order_of_failure)               \
    {                                                                          \
        yield_by_chance();                                                     \
        return __real___tsan_atomic##bits##_compare_exchange_##kind(           \
            address, expected, desired, order, order_of_failure);              \
    }

SWAP(32, strong)
SWAP(32, weak)
SWAP(64, strong)
SWAP(64, weak)

#endif
