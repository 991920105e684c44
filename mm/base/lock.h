/* SPDX-License-Identifier: MIT */
/* lock: a ticket spinlock; in debug builds with its rank and its holder. */
#ifndef MM_BASE_LOCK_H
#define MM_BASE_LOCK_H

#include <stdatomic.h>

#include "base/check.h"

/*
 * Who holds a lock may wait only for locks of a higher rank, so no circle of
 * waiting CPUs can close: docs/locking.md. The host's own locks are outside
 * the library's, or inside them if port_log() and its like take them; a host
 * with several of a kind counts up from these two.
 */
enum lock_rank {
    LOCK_RANK_NONE = 0,          /* of a lock that was never initialised */
    LOCK_RANK_HOST_OUTER = 1,    /* the host calls the library under it */
    LOCK_RANK_SHRINK = 0x40,     /* shrink: the list of shrinkers */
    LOCK_RANK_CACHES,            /* slab: the list of caches */
    LOCK_RANK_QUARANTINE,        /* slab: what a CPU has freed and waits */
    LOCK_RANK_STORE,             /* slab: the central store of a cache */
    LOCK_RANK_POOL,              /* slab: the slabs of a pool */
    LOCK_RANK_GUARD,             /* guard: the seats of guarded objects */
    LOCK_RANK_ARENA,             /* vmem: an arena */
    LOCK_RANK_TABLES,            /* pt: the tables of a space */
    LOCK_RANK_RANGES,            /* frame: ranges added or removed */
    LOCK_RANK_SPACES,            /* pt: the list of spaces */
    LOCK_RANK_HOST_INNER = 0x80, /* the library calls the host under any */
    LOCK_RANK_END = 0x100
};

/* Fair; taken with interrupts off. Four bytes without MM_DEBUG. */
struct MM_CAPABILITY("spinlock") lock {
    _Atomic uint16_t next;  /* (A) ticket the next caller draws */
    _Atomic uint16_t owner; /* (A) ticket that holds the lock */
#if MM_DEBUG
    uint16_t rank;           /* (C) enum lock_rank */
    _Atomic uint16_t holder; /* (A) CPU that holds it, plus 1; 0: none */
#endif
};

#if MM_DEBUG
#define LOCK_INIT(lock_rank)                                                   \
    {                                                                          \
        0, 0, (lock_rank), 0                                                   \
    }
_Static_assert(MM_MAX_CPUS < UINT16_MAX, "a holder fits its word");
#else
#define LOCK_INIT(lock_rank)                                                   \
    {                                                                          \
        0, 0                                                                   \
    }
_Static_assert(sizeof(struct lock) == 4, "two tickets");
#endif

static inline void lock_init(struct lock *lock, enum lock_rank rank)
{
    atomic_init(&lock->next, 0);
    atomic_init(&lock->owner, 0);
#if MM_DEBUG
    lock->rank = (uint16_t)rank;
    atomic_init(&lock->holder, 0);
#else
    (void)rank;
#endif
}

/* Does any CPU hold the lock? */
static inline bool lock_is_held(const struct lock *lock)
{
    return atomic_load_explicit(&lock->next, memory_order_relaxed) !=
           atomic_load_explicit(&lock->owner, memory_order_relaxed);
}

#if MM_DEBUG

/*
 * What debug builds keep and ask, with interrupts off: before waiting for the
 * lock, when it is had, and before it is let go. Misuse is a panic that names
 * the CPU, the locks and their ranks.
 */
void lock_check_wait(const struct lock *lock);
void lock_note_taken(struct lock *lock);
void lock_note_released(struct lock *lock);

/*
 * Is it certain that this CPU holds the lock? Debug builds know; others only
 * where there is one CPU.
 * Context: interrupts off.
 */
bool lock_is_mine(const struct lock *lock);

/*
 * Locks that this CPU holds; 0 in release builds, which do not know. Who
 * waits for another CPU asserts that there are none.
 */
unsigned lock_count_held(void);

#else

static inline void lock_check_wait(const struct lock *lock)
{
    (void)lock;
}

static inline void lock_note_taken(struct lock *lock)
{
    (void)lock;
}

static inline void lock_note_released(struct lock *lock)
{
    (void)lock;
}

static inline bool lock_is_mine(const struct lock *lock)
{
    return port_cpu_count() == 1 && lock_is_held(lock);
}

static inline unsigned lock_count_held(void)
{
    return 0;
}

#endif

/*
 * (C) What a CPU does for others in each turn of waiting, with interrupts off:
 * it may hold other locks, and takes none for it. frame_init() sets it.
 */
extern void (*lock_serve)(void);

/*
 * Take the lock; interrupts go off until lock_release().
 * Return: the interrupt state to hand to lock_release().
 * Context: any but NMI and machine check, which may have interrupted the
 * holder. While it waits this CPU answers no flush: it may be inside tables
 * without a lock, or hold others. It does give back frames (lock_serve).
 */
static inline uint64_t lock_acquire(struct lock *lock)
    MM_ACQUIRES(lock) MM_NO_ANALYSIS
{
    uint64_t irq = port_irq_save();
    lock_check_wait(lock);
    uint16_t ticket =
        atomic_fetch_add_explicit(&lock->next, 1, memory_order_relaxed);
    /* Pairs with the release store in lock_release(). */
    while (atomic_load_explicit(&lock->owner, memory_order_acquire) != ticket) {
        lock_serve();
        port_relax();
    }
    lock_note_taken(lock);
    return irq;
}

/*
 * Take the lock if that is possible within @turns turns of waiting: for
 * reports, which must end whoever holds what, also in an NMI. Ranks do not
 * matter to who gives up.
 * @out_irq: as lock_acquire() returns it.
 * Return: false if it was not to be had; interrupts are as before.
 */
MM_MUST_CHECK bool lock_try_acquire(struct lock *lock, unsigned turns,
                                    uint64_t *out_irq);

/*
 * Let go of the lock taken last: it puts back the interrupt state from before
 * it, so out of order it would turn interrupts on under a lock.
 */
static inline void lock_release(struct lock *lock, uint64_t irq)
    MM_RELEASES(lock) MM_NO_ANALYSIS
{
    ASSERT(lock_is_held(lock));
    lock_note_released(lock);
    uint16_t ticket = atomic_load_explicit(&lock->owner, memory_order_relaxed);
    /* Pairs with the acquire load in lock_acquire(). */
    atomic_store_explicit(&lock->owner, (uint16_t)(ticket + 1),
                          memory_order_release);
    port_irq_restore(irq);
}

#endif
