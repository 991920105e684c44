/* SPDX-License-Identifier: MIT */
/* kmalloc: memory of any size, from size classes or runs of frames. */
#ifndef MM_KMALLOC_H
#define MM_KMALLOC_H

#include <mm/types.h>
#include "base/bits.h"

struct slab_cache;

/* Largest size that comes from a size class. */
#define KMALLOC_SLAB_MAX (8 * KiB)
/* Largest size at all: 2^MM_MAX_ORDER frames. */
#define KMALLOC_MAX (PAGE_BYTES << MM_MAX_ORDER)

MM_MUST_CHECK enum mm_status kmalloc_init(void);

/*
 * The number of the size class of @bytes (1 .. KMALLOC_SLAB_MAX): 8 for 16
 * bytes, 16 for 32, and so on to 128; then eight for each doubling. It is an
 * offset into tables of pointers.
 */
#define KMALLOC_STEP    16
#define KMALLOC_SIZES   (KMALLOC_SLAB_MAX / KMALLOC_STEP)
#define KMALLOC_CLASSES (8 + 8 * 6)
static inline uint64_t kmalloc_number(uint64_t bytes)
{
    unsigned doubling = highest_bit((bytes - 1) | 128);

    return 8 * (8 * (doubling - 7) + 1 + ((bytes - 1) >> (doubling - 3)));
}

/* (C) The same, by (@bytes - 1) / KMALLOC_STEP. */
extern uint16_t kmalloc_number_of[KMALLOC_SIZES];

/* kmalloc() of a size that is not known before, and of one whose class is. */
MM_MUST_CHECK void *kmalloc_any(uint64_t bytes);
MM_MUST_CHECK void *kmalloc_from(uint64_t number, uint64_t bytes);
MM_MUST_CHECK void *kmalloc_large(unsigned order, uint64_t bytes);

/* Of the smallest block of frames that holds @bytes, more than a frame. */
static inline unsigned kmalloc_order(uint64_t bytes)
{
    return highest_bit((bytes - 1) / PAGE_BYTES) + 1;
}

/*
 * At least @bytes, aligned to 16 (to its size if that is a power of two).
 * Return: NULL for 0, for more than KMALLOC_MAX, or if memory is short.
 * Context: any, also interrupts. On the direct map: never faults.
 */
MM_MUST_CHECK static inline void *kmalloc(uint64_t bytes)
{
    if (MM_IS_CONSTANT(bytes) && bytes - 1 < KMALLOC_SLAB_MAX) { /* 0 wraps */
        return kmalloc_from(kmalloc_number(bytes), bytes);
    }
    if (MM_IS_CONSTANT(bytes) && bytes - 1 < KMALLOC_MAX) {
        return kmalloc_large(kmalloc_order(bytes), bytes);
    }
    return kmalloc_any(bytes);
}
/* The same, zeroed. */
MM_MUST_CHECK void *kzalloc(uint64_t bytes);
/* @count * @bytes, zeroed; NULL if the product overflows. */
MM_MUST_CHECK void *kmalloc_array(uint64_t count, uint64_t bytes);
/*
 * @head + @count * @bytes; NULL if that overflows. Not zeroed.
 */
MM_MUST_CHECK void *kmalloc_sum(uint64_t head, uint64_t count, uint64_t bytes);
/* Room for @count objects of @type; NULL if that overflows. */
#define kmalloc_objects(type, count)                                           \
    ((type *)kmalloc_sum(0, (count), sizeof(type)))
/* A struct @type whose last member @member[] has @count elements. */
#define kmalloc_flex(type, member, count)                                      \
    ((type *)kmalloc_sum(sizeof(type), (count), sizeof(((type *)0)->member[0])))
/* @alignment: a power of two up to KMALLOC_MAX. */
MM_MUST_CHECK void *kmalloc_aligned(uint64_t bytes, uint64_t alignment);
/*
 * Resize; contents move if they must. NULL and the old block stays if memory
 * is short. krealloc(NULL, n) allocates, krealloc(p, 0) frees.
 */
MM_MUST_CHECK void *krealloc(void *block, uint64_t bytes);
/*
 * Free. NULL is allowed. A pointer to anything that is no block of the heap is
 * reported. A second free is reported at once for large blocks and in debug
 * builds; else when the block's object returns from the magazines to its
 * slab, and until then the block may be handed out twice.
 */
void kfree(void *block);
/*
 * Usable bytes of a live block; 0 and a bug report for anything else. Debug
 * builds: the bytes asked for, since the red zone begins behind them.
 */
uint64_t ksize(const void *block);

/* The size class that serves @bytes (1 .. KMALLOC_SLAB_MAX): its size. */
uint64_t kmalloc_class_bytes(uint64_t bytes);

/* The cache of that class: its figures. */
struct slab_cache *kmalloc_cache_of(uint64_t bytes);

bool kmalloc_check(void);

#endif
