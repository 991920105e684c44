/* SPDX-License-Identifier: MIT */
/* lock: which locks each CPU holds, and what must not be done with them. */
/*
 * Owns: a list for each CPU of the locks it holds, in debug builds.
 *
 * Idea: a deadlock needs a circle of CPUs, each waiting for what the next one
 * holds. If ranks ascend along everything one CPU holds, no circle closes. A
 * broken order is found when it is broken, by whoever comes that way, not on
 * the day when two CPUs meet in it. A CPU that waits for itself would hang
 * without a word; here it says so.
 *
 * Locking: a list is its CPU's own, with interrupts off, as they are from
 * lock_acquire() to lock_release(). An exception may use it in between, and
 * leaves it as it was.
 *
 * Limits: an NMI between the two halves of an acquire finds the lock taken
 * but not on the list. It takes locks by lock_try_acquire() only, which then
 * gives up after its turns.
 */
#include "base/lock.h"

static void serve_nobody(void)
{
}

void (*lock_serve)(void) = serve_nobody; /* (C) see lock.h */

/* A ticket, if nobody is before it. */
static bool draw_if_free(struct lock *lock)
{
    uint16_t ticket = atomic_load_explicit(&lock->owner, memory_order_relaxed);
    uint16_t next = ticket;

    if (!atomic_compare_exchange_strong_explicit(
            &lock->next, &next, (uint16_t)(ticket + 1), memory_order_relaxed,
            memory_order_relaxed)) {
        return false;
    }
    /*
     * Served at once, unless 2^16 tickets were drawn between the two lines
     * above: then it is an ordinary one. Pairs as in lock_acquire().
     */
    while (atomic_load_explicit(&lock->owner, memory_order_acquire) != ticket) {
        port_relax(); /* perhaps in an NMI: it serves nobody */
    }
    return true;
}

bool lock_try_acquire(struct lock *lock, unsigned turns, uint64_t *out_irq)
{
    uint64_t irq = port_irq_save();

    if (!lock_is_mine(lock)) {
        for (unsigned turn = 0; turn <= turns; turn++) {
            if (draw_if_free(lock)) {
                lock_note_taken(lock);
                *out_irq = irq;
                return true;
            }
            port_relax();
        }
    }
    port_irq_restore(irq);
    return false;
}

#if MM_DEBUG

/* More than there are ranks in use between the host's two. */
#define DEPTH_MAX 8

#define CACHE_LINE_BYTES 64

static struct held {
    MM_ALIGNED(CACHE_LINE_BYTES) unsigned count; /* (P) */
    const struct lock *lock[DEPTH_MAX];          /* (P) the latest on top */
} held[MM_MAX_CPUS];

static struct held *held_here(void)
{
    unsigned cpu = port_cpu();

    ASSERT(cpu < MM_MAX_CPUS);
    return &held[cpu];
}

static const char *rank_name(const struct lock *lock)
{
    static const char *const name[] = {
        "shrinkers", "caches", "quarantine", "store",  "pool",
        "guard",     "arena",  "tables",     "ranges", "spaces",
    };
    _Static_assert(sizeof(name) / sizeof(name[0]) ==
                       LOCK_RANK_SPACES - LOCK_RANK_SHRINK + 1,
                   "a name for each rank of the library");

    if (lock->rank == LOCK_RANK_NONE || lock->rank >= LOCK_RANK_END) {
        return "none";
    }
    if (lock->rank < LOCK_RANK_SHRINK) {
        return "host outer";
    }
    if (lock->rank >= LOCK_RANK_HOST_INNER) {
        return "host inner";
    }
    unsigned index = lock->rank - LOCK_RANK_SHRINK;
    return index < sizeof(name) / sizeof(name[0]) ? name[index] : "unknown";
}

static bool is_on_list(const struct held *mine, const struct lock *lock)
{
    for (unsigned i = 0; i < mine->count; i++) {
        if (mine->lock[i] == lock) {
            return true;
        }
    }
    return false;
}

/* Against all: lock_try_acquire() may have put a low one on top. */
static void check_ranks(const struct held *mine, const struct lock *lock)
{
    for (unsigned i = 0; i < mine->count; i++) {
        if (mine->lock[i]->rank >= lock->rank) {
            port_panic("lock %p of rank %s (0x%x) is taken by CPU %u, which "
                       "holds lock %p of rank %s (0x%x): ranks must ascend",
                       (const void *)lock, rank_name(lock), lock->rank,
                       port_cpu(), (const void *)mine->lock[i],
                       rank_name(mine->lock[i]), mine->lock[i]->rank);
        }
    }
}

void lock_check_wait(const struct lock *lock)
{
    const struct held *mine = held_here();

    if (lock->rank == LOCK_RANK_NONE || lock->rank >= LOCK_RANK_END) {
        port_panic("lock %p has rank 0x%x: it was never initialised",
                   (const void *)lock, lock->rank);
    }
    if (is_on_list(mine, lock)) {
        port_panic("lock %p of rank %s (0x%x) is held by this CPU (%u), which "
                   "takes it again: it would wait for ever",
                   (const void *)lock, rank_name(lock), lock->rank, port_cpu());
    }
    check_ranks(mine, lock);
}

void lock_note_taken(struct lock *lock)
{
    struct held *mine = held_here();

    if (mine->count == DEPTH_MAX) {
        port_panic("CPU %u holds %u locks and takes lock %p of rank %s: more "
                   "than there is room for",
                   port_cpu(), mine->count, (const void *)lock,
                   rank_name(lock));
    }
    /* In this order, so that an NMI between the two has a place of its own. */
    unsigned place = mine->count;
    mine->count = place + 1;
    atomic_signal_fence(memory_order_seq_cst);
    mine->lock[place] = lock;
    atomic_store_explicit(&lock->holder, (uint16_t)(port_cpu() + 1),
                          memory_order_relaxed);
}

void lock_note_released(struct lock *lock)
{
    struct held *mine = held_here();

    if (!is_on_list(mine, lock)) {
        port_panic("lock %p of rank %s (0x%x) is released by CPU %u, but held "
                   "by CPU %d (-1: by none)",
                   (const void *)lock, rank_name(lock), lock->rank, port_cpu(),
                   atomic_load_explicit(&lock->holder, memory_order_relaxed) -
                       1);
    }
    const struct lock *last = mine->lock[mine->count - 1];
    if (last != lock) {
        port_panic("lock %p of rank %s (0x%x) is released by CPU %u before "
                   "lock %p of rank %s (0x%x), which was taken later",
                   (const void *)lock, rank_name(lock), lock->rank, port_cpu(),
                   (const void *)last, rank_name(last), last->rank);
    }
    mine->count--;
    atomic_store_explicit(&lock->holder, 0, memory_order_relaxed);
}

bool lock_is_mine(const struct lock *lock)
{
    return is_on_list(held_here(), lock);
}

unsigned lock_count_held(void)
{
    uint64_t irq = port_irq_save();
    unsigned count = held_here()->count;

    port_irq_restore(irq);
    return count;
}

#endif
