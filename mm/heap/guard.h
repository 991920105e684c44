/* SPDX-License-Identifier: MIT */
/* guard: what the heap asks of sampled guards; private to it and to map. */
#ifndef MM_HEAP_GUARD_H
#define MM_HEAP_GUARD_H

#include <stdatomic.h>

#include <mm/guard.h>
#include "heap/pool.h"

/* --- for slab and kmalloc ------------------------------------------------- */

/* (A) Where the pool is; of no bytes if there is none. */
extern _Atomic vaddr_t guard_start;
extern _Atomic uint64_t guard_bytes;

/* Does @address lie in the pool? Any number is allowed. */
static inline bool guard_holds(const void *address)
{
    /* Pairs with guard_attach(): whoever sees the bytes sees the start. */
    uint64_t bytes = atomic_load_explicit(&guard_bytes, memory_order_acquire);

    return (vaddr_t)address -
               atomic_load_explicit(&guard_start, memory_order_relaxed) <
           bytes;
}

/* There is no pool, and never was. */
void guard_init(void);

/*
 * In how many allocations the next one is to be guarded: about the interval,
 * never the same twice, so that no rhythm of the caller's hides objects for
 * ever. 0: guards are off; ask again some time.
 */
uint32_t guard_interval(void);

/*
 * A guarded object of @bytes (1 .. pool->object_bytes) in place of one of
 * @pool's, constructed if that has a constructor.
 * Return: NULL if it cannot be: go on normally.
 * Context: as slab_alloc(); takes a lock of its own, then a table's.
 */
MM_MUST_CHECK void *guard_alloc(const struct slab_pool *pool, uint64_t bytes,
                                uintptr_t site);

/*
 * Free @object if it lies in the guards' pool. What is wrong with it (double
 * free, interior pointer, wrong cache, bytes around it overwritten) is
 * reported at once.
 * @expected  the cache it is freed to; NULL: to kmalloc
 * Return: false: it does not, and nothing was done.
 * Context: as slab_free(); waits for no CPU.
 */
MM_MUST_CHECK bool guard_free(void *object, const struct slab_pool *expected,
                              uintptr_t site);

/*
 * The bytes of the live block of kmalloc at @object, its first byte: what was
 * asked for, since behind them lies what is checked. 0 if it is none.
 */
uint64_t guard_size(const void *object);

/* @object lies in the pool and has no guard_size(): report what it is. */
void guard_report_block(const void *object, uintptr_t site);

/* Live objects that were allocated in place of one of @pool's. */
unsigned guard_count_live(const struct slab_pool *pool);
/* One of them; false: there is none. */
bool guard_find_live(const struct slab_pool *pool, struct guard_object *out);
/* @pool goes, and none is live: forget it in those that were freed. */
void guard_forget(const struct slab_pool *pool);

/* --- for who owns the page tables ----------------------------------------- */

/* What is done to a page of the pool, and asked about it. */
struct guard_pages {
    void (*close)(vaddr_t page); /* nobody may touch it any more */
    void (*open)(vaddr_t page);  /* everybody may */
    bool (*allows)(vaddr_t page, enum guard_access access);
};

/* log2 frames of the pool: one large page. */
#define GUARD_ORDER 9

/*
 * The pool is the block at @start: what faults there is guard_fault()'s from
 * now on. @pages works until guard_detach().
 */
void guard_attach(vaddr_t start, const struct guard_pages *pages);
/* All its pages are single ones, and closed: guard objects in it. */
void guard_begin(void);
void guard_set_interval(uint32_t interval);
/*
 * Guard no more objects if none in the pool is live; faults there are
 * guard_fault()'s still.
 * Return: where it is; 0: something is live, or there is none.
 */
vaddr_t guard_retire(void);
/*
 * There is no pool any more. It has been retired, its pages have been opened,
 * and all CPUs that met a closed one before have ended their guard_fault().
 */
void guard_detach(void);

#endif
