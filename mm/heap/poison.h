/* SPDX-License-Identifier: MIT */
/* poison: patterns in and around objects, debug builds; private to the heap. */
#ifndef MM_HEAP_POISON_H
#define MM_HEAP_POISON_H

#include "heap/pool.h"

/* The patterns, as Linux has them: seen in a register, they say what it is. */
#define POISON_FREE 0x6b /* "kkkk": a free object */
#define POISON_NEW  0x5a /* "ZZZZ": allocated, not yet written */
#define POISON_HEAD 0xbb /* red zone before an object */
#define POISON_TAIL 0xcc /* red zone behind it */

/* Red zones between two objects; none in release builds. */
#define POISON_HEAD_BYTES 8
#define POISON_TAIL_BYTES 8 /* and what alignment adds */
#define POISON_GAP                                                             \
    (MM_DEBUG ? UINT64_C(0) + POISON_HEAD_BYTES + POISON_TAIL_BYTES : 0)

/* What stands beside an object. (P) whoever holds the object. */
struct poison_track {
    uintptr_t alloc_site;
    uintptr_t free_site;
    uint32_t bytes; /* asked for; the red zone begins behind them */
    bool is_live;   /* in a caller's hands */
};

/* All objects of a new slab are free. */
void poison_slab(struct slab *slab);

/*
 * @object leaves the heap, asked for with @bytes: report a write since it was
 * freed, then fill it and draw its red zones.
 */
void poison_on_alloc(void *object, uint64_t bytes, uintptr_t site);

/*
 * @object, an object of @slab, comes back: report broken red zones and repair
 * them, then fill it. Return: false, and nothing has changed, if it is free
 * already; that is for the caller to report.
 */
MM_MUST_CHECK bool poison_on_free(struct slab *slab, void *object,
                                  uintptr_t site);

/* @object is live and now @bytes long. */
void poison_resize(void *object, uint64_t bytes);

/* Report writes to the free objects of an empty slab. */
void poison_verify_slab(struct slab *slab);

/* Objects in callers' hands. */
unsigned poison_count_live(const struct slab *slab);

/* All red zones and all free objects intact? Says what is not. */
bool poison_check_slab(const struct slab *slab);

/*
 * [start, end) holds nothing but @value? Else the first byte that differs is
 * in @out_bad. For the rest of a large block, too.
 */
MM_MUST_CHECK bool poison_is_intact(const void *start, const void *end,
                                    uint8_t value, const uint8_t **out_bad);

#endif
