/* SPDX-License-Identifier: MIT */
/* vmem_impl: the boundary tags of an arena and how they are found. */
#ifndef MM_MAP_VMEM_IMPL_H
#define MM_MAP_VMEM_IMPL_H

#include <mm/vmem.h>
#include "base/bits.h"

/* One segment: always in address order, and on a list or in the hash. */
struct vmem_tag {
    uint64_t start;
    uint64_t size;
    void *owner;            /* of an allocated segment */
    struct vmem_tag *below; /* neighbours in address order */
    struct vmem_tag *above;
    struct vmem_tag *next;  /* on the free list or in the bucket */
    struct vmem_tag **link; /* the pointer there that leads to this tag */
    bool is_allocated;
    bool is_kept; /* by a CPU; only MM_DEBUG and vmem_check() know */
};

/* What vmem_note_kept() is to note. */
enum vmem_note {
    VMEM_KEPT, /* allocated until now, and kept from now on */
    VMEM_TAKEN /* the opposite */
};

/* --- vmem.c --------------------------------------------------------------- */

/* vmem_alloc() and vmem_free() without what is kept. */
MM_MUST_CHECK enum mm_status vmem_arena_alloc(struct vmem *vmem, uint64_t size,
                                              uint64_t alignment,
                                              uint64_t *out);
void vmem_arena_free(struct vmem *vmem, uint64_t address, uint64_t size);

/* Return: false, and nothing is noted, if that cannot be. */
MM_MUST_CHECK bool vmem_note_kept(struct vmem *vmem, uint64_t address,
                                  uint64_t size, enum vmem_note note);

/* --- vmem_keep.c ---------------------------------------------------------- */

/* Nothing is kept any more, and nothing is: give the arrays back. */
void vmem_keep_end(struct vmem *vmem);

uint64_t vmem_kept_count(struct vmem *vmem);

/* I7 */
bool vmem_check_kept(struct vmem *vmem);

/* 2^64 over the golden ratio: spreads addresses over the top bits. */
#define HASH_FACTOR UINT64_C(0x9e3779b97f4a7c15)

static inline uint64_t end_of(const struct vmem_tag *tag)
{
    return tag->start + tag->size;
}

static inline unsigned list_of(const struct vmem *vmem, uint64_t size)
{
    return highest_bit(size / vmem->quantum);
}

static inline struct vmem_tag **bucket_of(struct vmem *vmem, uint64_t address)
{
    return &vmem->buckets[address * HASH_FACTOR >> (64 - vmem->bucket_shift)];
}

static inline void chain(struct vmem_tag **head, struct vmem_tag *tag)
{
    tag->next = *head;
    tag->link = head;
    if (tag->next != NULL) {
        tag->next->link = &tag->next;
    }
    *head = tag;
}

static inline void unchain(struct vmem_tag *tag)
{
    *tag->link = tag->next;
    if (tag->next != NULL) {
        tag->next->link = tag->link;
    }
}

#endif
