/* SPDX-License-Identifier: MIT */
/* store: the magazines of a cache that no CPU has; private to the heap. */
#ifndef MM_HEAP_STORE_H
#define MM_HEAP_STORE_H

#include <stdatomic.h>

#include "heap/pool.h"

struct magazine;
struct slab_cache;

/*
 * Full and empty magazines of one cache. (C) constant, (S) lock.
 */
struct store {
    struct lock lock;
    uint32_t holds;  /* (S) objects, at most; grows and shrinks */
    uint32_t depth;  /* (S) full magazines */
    uint32_t count;  /* (S) objects in them */
    uint32_t low;    /* (S) the fewest since the last look */
    uint32_t peak;   /* (S) the most magazines since then */
    uint32_t rounds; /* (S) exchanges since then */
    uint32_t hits;   /* (S) refills since the magazines grew */
    uint32_t missed; /* (S) objects that refills would have liked to find */
    uint32_t swings; /* (S) times it had missed some, and then no room */
    /* (S) objects of a new magazine, at most; read by who makes one */
    _Atomic uint32_t room;
    uint64_t exchanges;     /* (S) in all */
    uint64_t allocs;        /* (S) served by magazines before they came here */
    uint64_t failures;      /* (S) */
    struct magazine *full;  /* (S) the latest first */
    struct magazine *empty; /* (S) */
};

/* The magazine that is full and empty: read by everybody, never written. */
extern struct magazine store_no_room;

/* A store of @cache, whose pool stands; it holds nothing. */
void store_init(struct slab_cache *cache);

/* A new empty magazine; NULL if memory is short. */
MM_MUST_CHECK struct magazine *store_make(struct slab_cache *cache);

/* A magazine of this cache leaves it: its objects go to the slabs. */
void store_scrap(struct slab_cache *cache, struct magazine *magazine);

/*
 * A magazine with objects, or NULL. @empty (or NULL) comes in its place; if
 * NULL is returned, nothing was taken.
 */
MM_MUST_CHECK struct magazine *store_refill(struct slab_cache *cache,
                                            struct magazine *empty);

/*
 * An empty magazine for @full (or NULL; not empty), whose objects go to the
 * slabs if the store has no room. Return: NULL if there is none and memory is
 * short.
 */
MM_MUST_CHECK struct magazine *store_flush(struct slab_cache *cache,
                                           struct magazine *full);

/* All that is in the store goes to the slabs. */
void store_drain(struct slab_cache *cache);

/* Numbers and lists agree; see store.c. */
bool store_check(const struct slab_cache *cache);

/* For statistics: an allocation that no magazine has counted. */
void store_count_alloc(struct slab_cache *cache);
void store_count_failure(struct slab_cache *cache);

#endif
