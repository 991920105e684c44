/* SPDX-License-Identifier: MIT */
/* A ticket spinlock: fair, four bytes, taken with interrupts off. */
#ifndef MM_BASE_LOCK_H
#define MM_BASE_LOCK_H

#include <stdatomic.h>

#include "base/check.h"

struct MM_CAPABILITY("spinlock") lock {
    _Atomic uint16_t next;  /* (A) ticket the next caller draws */
    _Atomic uint16_t owner; /* (A) ticket that holds the lock */
};

#define LOCK_INIT                                                              \
    {                                                                          \
        0, 0                                                                   \
    }

static inline void lock_init(struct lock *lock)
{
    atomic_init(&lock->next, 0);
    atomic_init(&lock->owner, 0);
}

static inline bool lock_is_held(struct lock *lock)
{
    return atomic_load_explicit(&lock->next, memory_order_relaxed) !=
           atomic_load_explicit(&lock->owner, memory_order_relaxed);
}

/*
 * Take the lock; interrupts go off until lock_release().
 * Return: the interrupt state to hand to lock_release().
 */
static inline uint64_t lock_acquire(struct lock *lock)
    MM_ACQUIRES(lock) MM_NO_ANALYSIS
{
    uint64_t irq = port_irq_save();
    uint16_t ticket =
        atomic_fetch_add_explicit(&lock->next, 1, memory_order_relaxed);
    /* Pairs with the release store in lock_release(). */
    while (atomic_load_explicit(&lock->owner, memory_order_acquire) != ticket) {
        port_relax();
    }
    return irq;
}

static inline void lock_release(struct lock *lock, uint64_t irq)
    MM_RELEASES(lock) MM_NO_ANALYSIS
{
    ASSERT(lock_is_held(lock));
    uint16_t ticket = atomic_load_explicit(&lock->owner, memory_order_relaxed);
    /* Pairs with the acquire load in lock_acquire(). */
    atomic_store_explicit(&lock->owner, (uint16_t)(ticket + 1),
                          memory_order_release);
    port_irq_restore(irq);
}

#endif
