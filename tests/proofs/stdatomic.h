/* SPDX-License-Identifier: MIT */
/* stdatomic.h as x86-64 has it, in the words of CBMC. */
#ifndef TESTS_PROOFS_STDATOMIC_H
#define TESTS_PROOFS_STDATOMIC_H

#include <stdbool.h>

/*
 * CBMC refuses the compiler's __atomic_*() where there are threads: pointers.
 * Here loads and stores are plain ones, which --mm tso may reorder as the CPU
 * does; what is a locked instruction on x86-64 is one step and drains the
 * store buffer. There a weak compare-and-swap does not fail by itself, so that
 * the bounds of the loops around it are proved, too.
 */
#define _Atomic

#define memory_order_relaxed 0
#define memory_order_acquire 2
#define memory_order_release 3
#define memory_order_acq_rel 4
#define memory_order_seq_cst 5

#define PROOF_FENCE()                                                          \
    __CPROVER_fence("WWfence", "RRfence", "RWfence", "WRfence")

#define PROOF_BEGIN_LOCKED()                                                   \
    do {                                                                       \
        PROOF_FENCE();                                                         \
        __CPROVER_atomic_begin();                                              \
    } while (0)
#define PROOF_END_LOCKED()                                                     \
    do {                                                                       \
        __CPROVER_atomic_end();                                                \
        PROOF_FENCE();                                                         \
    } while (0)

#define PROOF_EXCHANGE(object, result)                                         \
    ({                                                                         \
        __typeof__(object) proof_object = (object);                            \
        PROOF_BEGIN_LOCKED();                                                  \
        __typeof__(*proof_object) proof_old = *proof_object;                   \
        *proof_object = (result);                                              \
        PROOF_END_LOCKED();                                                    \
        proof_old;                                                             \
    })

#define atomic_init(object, value)          ((void)(*(object) = (value)))
#define atomic_load_explicit(object, order) (*(object))
#define atomic_store_explicit(object, value, order)                            \
    do {                                                                       \
        *(object) = (value);                                                   \
        if ((order) == memory_order_seq_cst) {                                 \
            PROOF_FENCE();                                                     \
        }                                                                      \
    } while (0)
#define atomic_exchange_explicit(object, value, order)                         \
    PROOF_EXCHANGE(object, value)
#define atomic_fetch_add_explicit(object, value, order)                        \
    PROOF_EXCHANGE(object, proof_old + (value))
#define atomic_fetch_sub_explicit(object, value, order)                        \
    PROOF_EXCHANGE(object, proof_old - (value))
#define atomic_fetch_or_explicit(object, value, order)                         \
    PROOF_EXCHANGE(object, proof_old | (value))
#define atomic_fetch_and_explicit(object, value, order)                        \
    PROOF_EXCHANGE(object, proof_old &(value))
#define PROOF_COMPARE_EXCHANGE(object, expected, desired, begin, end)          \
    ({                                                                         \
        __typeof__(object) proof_object = (object);                            \
        __typeof__(*proof_object) proof_new = (desired);                       \
        bool proof_done;                                                       \
        begin();                                                               \
        __typeof__(*proof_object) proof_old = *proof_object;                   \
        proof_done = proof_old == *(expected);                                 \
        if (proof_done) {                                                      \
            *proof_object = proof_new;                                         \
        }                                                                      \
        end();                                                                 \
        *(expected) = proof_old;                                               \
        proof_done;                                                            \
    })
#define atomic_compare_exchange_strong_explicit(object, expected, desired,     \
                                                success, failure)              \
    PROOF_COMPARE_EXCHANGE(object, expected, desired, PROOF_BEGIN_LOCKED,      \
                           PROOF_END_LOCKED)
#define atomic_compare_exchange_weak_explicit                                  \
    atomic_compare_exchange_strong_explicit

/* For planted bugs: the same without the lock prefix. */
#define PROOF_NOTHING() ((void)0)
#define torn_exchange(object, expected, desired, success, failure)             \
    PROOF_COMPARE_EXCHANGE(object, expected, desired, PROOF_NOTHING,           \
                           PROOF_NOTHING)

#endif
