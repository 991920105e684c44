/* SPDX-License-Identifier: MIT */
/* yield: another thread may go on between a load and the swap that wants it. */
#ifndef TESTS_HOST_YIELD_H
#define TESTS_HOST_YIELD_H

#include <mm/types.h>

/*
 * From now on this thread lets others go on before one in @chance of its
 * swaps; 0: never. Without ThreadSanitizer nothing happens.
 */
void yield_before_swaps(unsigned chance, uint64_t seed);

#endif
