/* SPDX-License-Identifier: MIT */
/* What all proofs have in common: values that may be any, and claims. */
#ifndef TESTS_PROOFS_PROOF_H
#define TESTS_PROOFS_PROOF_H

#include <mm/types.h>

#include <mm/port.h>
#include "base/bits.h"

/* CBMC gives these any value; it knows them by their names. */
uint64_t nondet_u64(void);
uint32_t nondet_u32(void);
bool nondet_bool(void);

/* What is presupposed, and what must follow from it in every case. */
#define ASSUME(condition)       __CPROVER_assume(condition)
#define PROVE(condition, claim) __CPROVER_assert(condition, claim)

static inline void proof_panic(void)
{
    PROVE(false, "the library does not panic");
    ASSUME(false);
}

/*
 * As macros: an array of arguments is a pointer that threads share, of which
 * CBMC knows nothing.
 */
#define port_panic(...) proof_panic()
#define port_bug(...)   proof_panic()
#define port_log(...)   ((void)0)

/* Proved equal in bits.c, and easier for CBMC. */
#ifndef PROVE_BITS
#define count_bits(value) ((unsigned)__builtin_popcountll(value))
#endif

/* Any value from 0 to @last. */
static inline uint64_t any_up_to(uint64_t last)
{
    uint64_t value = nondet_u64();

    ASSUME(value <= last);
    return value;
}

/* Claims are made here, in the harness of each proof. */
void harness(void);

#endif
