/* SPDX-License-Identifier: MIT */
/* schedule_tsan: what -fsanitize=thread makes of accesses, for schedule.c. */
/*
 * The compiler puts a call before each plain access, and in place of each
 * atomic operation. Their names and meanings are those of ThreadSanitizer's
 * interface (compiler-rt, tsan_interface.h and tsan_interface_atomic.h); its
 * library is not linked.
 */
#include <stdatomic.h>

#include "tests/host/schedule.h"

/* Each function is declared where it is defined: only compilers call it. */
#define ACCESS(name, bytes, touch_or_change)                                   \
    void name(void *address);                                                  \
    void name(void *address)                                                   \
    {                                                                          \
        touch_or_change(address, bytes);                                       \
    }

#define ACCESSES(bytes)                                                        \
    ACCESS(__tsan_read##bytes, bytes, schedule_touch)                          \
    ACCESS(__tsan_write##bytes, bytes, schedule_change)                        \
    ACCESS(__tsan_read_write##bytes, bytes, schedule_change)                   \
    ACCESS(__tsan_unaligned_read##bytes, bytes, schedule_touch)                \
    ACCESS(__tsan_unaligned_write##bytes, bytes, schedule_change)              \
    ACCESS(__tsan_unaligned_read_write##bytes, bytes, schedule_change)

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

#define RANGE(name, touch_or_change)                                           \
    void name(void *address, unsigned long bytes);                             \
    void name(void *address, unsigned long bytes)                              \
    {                                                                          \
        touch_or_change(address, bytes);                                       \
    }

RANGE(__tsan_read_range, schedule_touch)
RANGE(__tsan_write_range, schedule_change)

#define FETCH(bits, name, expression)                                          \
    uint##bits##_t __tsan_atomic##bits##_##name(                               \
        volatile uint##bits##_t *address, uint##bits##_t operand, int order);  \
    uint##bits##_t __tsan_atomic##bits##_##name(                               \
        volatile uint##bits##_t *address, uint##bits##_t operand, int order)   \
    {                                                                          \
        schedule_lock_at(address, (bits) / 8);                                 \
        uint##bits##_t old = *address;                                         \
        (void)order;                                                           \
        *address = (uint##bits##_t)(expression);                               \
        return old;                                                            \
    }

/* Both kinds of compare-and-swap are the one that x86 has. */
#define COMPARE(bits, name)                                                    \
    int __tsan_atomic##bits##_##name(                                          \
        volatile uint##bits##_t *address, uint##bits##_t *expected,            \
        uint##bits##_t desired, int order, int order_of_failure);              \
    int __tsan_atomic##bits##_##name(                                          \
        volatile uint##bits##_t *address, uint##bits##_t *expected,            \
        uint##bits##_t desired, int order, int order_of_failure)               \
    {                                                                          \
        schedule_lock_at(address, (bits) / 8);                                 \
        uint##bits##_t old = *address;                                         \
        (void)order;                                                           \
        (void)order_of_failure;                                                \
        if (old != *expected) {                                                \
            *expected = old;                                                   \
            return 0;                                                          \
        }                                                                      \
        *address = desired;                                                    \
        return 1;                                                              \
    }

/* clang asks for the old value instead. */
#define COMPARE_VALUE(bits)                                                    \
    uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(                 \
        volatile uint##bits##_t *address, uint##bits##_t expected,             \
        uint##bits##_t desired, int order, int order_of_failure);              \
    uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(                 \
        volatile uint##bits##_t *address, uint##bits##_t expected,             \
        uint##bits##_t desired, int order, int order_of_failure)               \
    {                                                                          \
        __tsan_atomic##bits##_compare_exchange_strong(                         \
            address, &expected, desired, order, order_of_failure);             \
        return expected;                                                       \
    }

#define ATOMIC(bits)                                                           \
    uint##bits##_t __tsan_atomic##bits##_load(                                 \
        const volatile uint##bits##_t *address, int order);                    \
    uint##bits##_t __tsan_atomic##bits##_load(                                 \
        const volatile uint##bits##_t *address, int order)                     \
    {                                                                          \
        return (uint##bits##_t)schedule_load(address, (bits) / 8, order);      \
    }                                                                          \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *address,         \
                                     uint##bits##_t value, int order);         \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *address,         \
                                     uint##bits##_t value, int order)          \
    {                                                                          \
        schedule_store(address, (bits) / 8, value, order);                     \
    }                                                                          \
    FETCH(bits, exchange, operand)                                             \
    FETCH(bits, fetch_add, old + operand)                                      \
    FETCH(bits, fetch_sub, old - operand)                                      \
    FETCH(bits, fetch_and, old &operand)                                       \
    FETCH(bits, fetch_or, old | operand)                                       \
    FETCH(bits, fetch_xor, old ^ operand)                                      \
    COMPARE(bits, compare_exchange_strong)                                     \
    COMPARE(bits, compare_exchange_weak)                                       \
    COMPARE_VALUE(bits)

ATOMIC(8)
ATOMIC(16)
ATOMIC(32)
ATOMIC(64)

void __tsan_atomic_thread_fence(int order);
void __tsan_atomic_thread_fence(int order)
{
    if (order == memory_order_seq_cst) {
        schedule_lock();
    }
}

/* Nothing is reordered for a handler on the same CPU. */
void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order)
{
    (void)order;
}

void __tsan_init(void);
void __tsan_init(void)
{
}

void __tsan_func_entry(void *caller);
void __tsan_func_entry(void *caller)
{
    (void)caller;
}

void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}
