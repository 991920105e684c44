/* SPDX-License-Identifier: MIT */
/* kvmalloc: memory of any size, contiguous in frames if that is to be had. */
#ifndef MM_KVMALLOC_H
#define MM_KVMALLOC_H

#include <mm/types.h>

/*
 * kmalloc(), or else an eager block of kmap: for tables and buffers of which
 * only the addresses must be contiguous. A large size of which kmalloc() would
 * waste over an eighth, since it takes a power of two of frames, is a block of
 * kmap at once.
 * Return: NULL for 0, or if there is not so much memory at all.
 * Context: as kmap_alloc(): not from interrupts, no lock held.
 */
MM_MUST_CHECK void *kvmalloc(uint64_t bytes);
/* The same, zeroed. */
MM_MUST_CHECK void *kvzalloc(uint64_t bytes);
/* @count * @bytes, zeroed; NULL if the product overflows. */
MM_MUST_CHECK void *kvmalloc_array(uint64_t count, uint64_t bytes);

/*
 * Free what any of these returned, or kmalloc() or kmap_alloc(). NULL is
 * allowed; what is wrong is reported as kfree() and kmap_free() do.
 * Context: as kmap_free().
 */
void kvfree(void *block);

#endif
