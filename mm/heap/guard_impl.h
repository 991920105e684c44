/* SPDX-License-Identifier: MIT */
/* guard_impl: the seats of guarded objects, for guard.c and guard_look.c. */
#ifndef MM_HEAP_GUARD_IMPL_H
#define MM_HEAP_GUARD_IMPL_H

#include "heap/guard.h"

/* Object pages are the odd ones; the last two pages have none. */
#define SEAT_NONE  GUARD_OBJECTS
#define GUARDS     (GUARD_OBJECTS + 1)
#define POOL_BYTES (PAGE_BYTES << GUARD_ORDER)
_Static_assert(2 * GUARDS == 1 << GUARD_ORDER, "a guard beside each object");

/* For a hash of who has live objects. */
#define SEEN_SLOTS 256

enum seat_state {
    SEAT_UNUSED,
    SEAT_MAKING, /* an object is about to be handed out */
    SEAT_LIVE,
    SEAT_GOING, /* the object is looked at, its page about to be closed */
    SEAT_FREED
};

/*
 * (L) changed under the pool's lock, so that a report under it sees one object
 * and not the half of another; who has made it MAKING or GOING, or has the
 * object, reads it without.
 */
struct seat {
    _Atomic uint8_t state;        /* (A) enum seat_state */
    uint16_t next;                /* (L) on the list */
    uint16_t offset;              /* (L) of the object in its page */
    uint16_t bytes;               /* (L) of the object, as asked for */
    uint16_t alloc_cpu;           /* (L) */
    uint16_t free_cpu;            /* (L) */
    const struct slab_pool *pool; /* (L) NULL: its cache is gone */
    uintptr_t alloc_site;         /* (L) */
    uintptr_t free_site;          /* (L) 0 while it is live */
};

extern struct guard_pool {
    struct lock lock;
    uint16_t first;                  /* (L) longest free, or SEAT_NONE */
    uint16_t last;                   /* (L) */
    uint32_t live;                   /* (L) */
    bool has_seats;                  /* (L) to hand out: it is not to go */
    const struct guard_pages *pages; /* (C) while there is a pool */
    _Atomic uint32_t interval;       /* (A) */
    _Atomic uint32_t draws;          /* (A) intervals handed out */
    _Atomic uint64_t samples;        /* (A) */
    _Atomic uint64_t passed;         /* (A) */
    _Atomic uint64_t found;          /* (A) */
    struct seat seat[GUARD_OBJECTS]; /* each for itself */
    uint8_t seen[SEEN_SLOTS];        /* (L) */
    /* (A) a report has opened the guard page */
    _Atomic bool is_bared[UINT64_C(1) << GUARD_ORDER];
} guard_pool;

/* What is known of the seat's object. */
void guard_describe_locked(const struct seat *seat, struct guard_object *out);

/*
 * @crime was committed at @address, by @site, against @object; or where no
 * object is to be named, for the reason @why.
 */
void guard_report(const struct guard_object *object, const char *crime,
                  vaddr_t address, uintptr_t site);
void guard_report_nowhere(const char *crime, vaddr_t address, uintptr_t site,
                          const char *why);
#define GUARD_NEVER_USED "where none has ever been"

/* What has happened around the object, NULL if nothing; and where. */
const char *guard_find_damage(const struct seat *seat, const uint8_t **out_bad);

/* --- counters and states -------------------------------------------------- */

static inline void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline uint64_t counted(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline enum seat_state seat_state(const struct seat *seat)
{
    /* Pairs with seat_set_state(): what is said of the object is complete. */
    return (enum seat_state)atomic_load_explicit(&seat->state,
                                                 memory_order_acquire);
}

static inline void seat_set_state(struct seat *seat, enum seat_state state)
{
    atomic_store_explicit(&seat->state, (uint8_t)state, memory_order_release);
}

/* --- where things are ----------------------------------------------------- */

static inline vaddr_t guard_pool_start(void)
{
    return atomic_load_explicit(&guard_start, memory_order_relaxed);
}

static inline unsigned seat_index(const struct seat *seat)
{
    return (unsigned)(seat - guard_pool.seat);
}

static inline vaddr_t seat_page(const struct seat *seat)
{
    return guard_pool_start() + (2 * seat_index(seat) + 1) * PAGE_BYTES;
}

static inline vaddr_t seat_object(const struct seat *seat)
{
    return seat_page(seat) + seat->offset;
}

/* Which page of the pool is @address in? The caller knows that it is. */
static inline unsigned guard_page_index(vaddr_t address)
{
    return (unsigned)((address - guard_pool_start()) >> PAGE_SHIFT);
}

static inline bool guard_is_page(unsigned page)
{
    return page % 2 == 0 || page / 2 >= GUARD_OBJECTS;
}

static inline bool seat_was_used(const struct seat *seat)
{
    return seat_state(seat) != SEAT_UNUSED;
}

/* The seat of the object page that @address lies in; NULL if it is a guard. */
static inline struct seat *guard_seat_at(vaddr_t address)
{
    unsigned page = guard_page_index(address);

    return guard_is_page(page) ? NULL : &guard_pool.seat[page / 2];
}

#endif
