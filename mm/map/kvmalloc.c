/* SPDX-License-Identifier: MIT */
/* kvmalloc: memory of any size, contiguous in frames if that is to be had. */
/*
 * Idea: the direct map costs no table and no flush, and shares its entries of
 * the TLB with all else that lies there; so it comes first. But a row of frames
 * is hard to find when memory is in pieces, and a power of two of them may be
 * far more than was asked for. Blocks of kmap need neither. Which of the two
 * an address is, its range says.
 *
 * Limits: before kmap is asked, kmalloc() has asked all who can give back
 * memory.
 */
#include <mm/kvmalloc.h>

#include <mm/kmalloc.h>
#include <mm/kmap.h>
#include "base/bits.h"

/* kmalloc() may take so much of what it takes for nothing: one part in so many.
 */
#define WASTE_PARTS 8

/* Is @bytes, not 0, nearly what kmalloc() would take for it? */
static inline bool is_snug(uint64_t bytes)
{
    if (bytes <= KMALLOC_SLAB_MAX) {
        return true;
    }
    if (bytes > KMALLOC_MAX) {
        return false;
    }
    uint64_t taken = UINT64_C(2) << highest_bit(bytes - 1);
    return taken - bytes <= taken / WASTE_PARTS;
}

/* @flags: KMAP_EAGER or KMAP_ZERO. */
static inline void *allocate(uint64_t bytes, unsigned flags)
{
    void *block = NULL;

    if (bytes == 0) {
        return NULL;
    }
    if (is_snug(bytes)) {
        block = flags & KMAP_ZERO ? kzalloc(bytes) : kmalloc(bytes);
    }
    if (MM_UNLIKELY(block == NULL)) {
        block = kmap_alloc(bytes, flags, "kvmalloc");
    }
    return block;
}

void *kvmalloc(uint64_t bytes)
{
    return allocate(bytes, KMAP_EAGER);
}

void *kvzalloc(uint64_t bytes)
{
    return allocate(bytes, KMAP_ZERO);
}

void *kvmalloc_array(uint64_t count, uint64_t bytes)
{
    uint64_t product;

    return checked_mul(count, bytes, &product) ? allocate(product, KMAP_ZERO)
                                               : NULL;
}

void kvfree(void *block)
{
    if (kmap_has(block)) {
        kmap_free(block);
    } else {
        kfree(block);
    }
}
