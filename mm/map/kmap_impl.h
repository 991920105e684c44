/* SPDX-License-Identifier: MIT */
/* kmap_impl: what a block is, for the files of kmap alone. */
#ifndef MM_MAP_KMAP_IMPL_H
#define MM_MAP_KMAP_IMPL_H

#include <stdatomic.h>

#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/pt.h>
#include <mm/vmem.h>
#include "base/bits.h"
#include "base/check.h"
#include "map/hold.h"
#include "map/table.h"

#define GUARD_BYTES PAGE_BYTES

/*
 * Blocks up to this size, that are not lazy, are small: their guards say which
 * they are, and they are kept ready when they are freed (kmap_keep.c).
 */
#define SMALL_PAGES 16

/*
 * (C) constant while it is hung on its segment, (A) atomic, (P) whoever has
 * the block alone: its maker, the CPU that keeps it, or who frees it.
 */
struct kmap_block {
    vaddr_t start;  /* (C) between the guards, whole pages */
    uint64_t bytes; /* (C) the same */
    /* (A) what the caller was given, and must free; NULL: nobody has it */
    _Atomic(void *) handle;
    _Atomic(const char *) name; /* (A) */
    pte_t *entry;               /* (C) of the first page; NULL: not small */
    pte_t guard;                /* (C) of a small block's, which names it */
    struct kmap_block *next;    /* (P) that is kept, too */
};

/*
 * A guard names a small block by its address in these units, so the block is
 * aligned to one. Where RAM lies too high for that, no block is small.
 */
#define BLOCK_SHIFT 6
#define BLOCK_BYTES (1u << BLOCK_SHIFT)
_Static_assert(sizeof(struct kmap_block) <= BLOCK_BYTES, "one number each");

extern struct vmem kmap_arena; /* own lock */

static inline vaddr_t block_end(const struct kmap_block *block)
{
    return block->start + block->bytes;
}

static inline vaddr_t segment_of(const struct kmap_block *block)
{
    return block->start - GUARD_BYTES;
}

static inline uint64_t segment_bytes(const struct kmap_block *block)
{
    return block->bytes + 2 * GUARD_BYTES;
}

static inline unsigned block_pages(const struct kmap_block *block)
{
    return (unsigned)(block->bytes >> PAGE_SHIFT);
}

/* Once it is hung up. */
static inline bool block_is_small(const struct kmap_block *block)
{
    return block->entry != NULL;
}

/* Does somebody have the block? */
static inline bool block_is_live(const struct kmap_block *block)
{
    return atomic_load_explicit(&block->handle, memory_order_relaxed) != NULL;
}

/* --- what CPUs keep ------------------------------------------------------- */

/* (P) of whoever has taken it. */
struct ready {
    struct hold hold;
    unsigned waiting;         /* (P) I5 */
    unsigned empties;         /* (P) I5 */
    uint64_t hole_start;      /* (P) no RAM, ever: where a window was opened */
    uint64_t hole_bytes;      /* (P) */
    struct kmap_block *stale; /* (P) */
    struct kmap_block *stocked[SMALL_PAGES]; /* (P) by pages - 1 */
    struct kmap_block *empty[SMALL_PAGES];   /* (P) the same */
    struct kmap_block *leaving; /* (P) were stocked or stale: kmap_shrink.c */
    uint64_t flush;             /* (P) after which these are empty */
} MM_ALIGNED(64);

/*
 * (C) By CPU. A pointer, because from the address of an array gcc works out
 * that of each field anew: 19 instructions a window.
 */
extern struct ready *kmap_ready;
extern unsigned kmap_keep_pages; /* (I) see kmap_keep() */

/* (I) What all descents in the arena begin with: its table of 512 GiB. */
struct kmap_root {
    vaddr_t start;
    uint64_t bytes;
    uint64_t small_bytes; /* the same; 0: they have no such table in common */
    pte_t table;          /* what leads to it */
};
extern struct kmap_root kmap_root;
#define ROOT_LEVEL 2

/* (I) Entries without their frames. */
struct kmap_entries {
    uint64_t leaf;              /* of a frame of a block */
    uint64_t flip;              /* what is different in it when it is parked */
    uint64_t guard;             /* of small blocks, without the number */
    uint64_t device[PT_WT + 1]; /* by memory type; 0: there is none */
};
extern struct kmap_entries kmap_entries;

/* Small blocks are told by their guards from others, which have no tag. */
#define GUARD_TAG 1

/* Is it an entry of level 0 for a page of a small block that nobody has? */
static inline bool kmap_entry_is_kept(pte_t entry)
{
    return pte_state(entry, 0) == PTE_PARKED ||
           (entry.v & ~PTE_FRAME) == kmap_entries.guard;
}

static inline struct ready *ready_take_mine(uint64_t *out_irq)
{
    *out_irq = port_irq_save();
    struct ready *mine = &kmap_ready[port_cpu()];

    hold_take(&mine->hold);
    return mine;
}

static inline void ready_drop(struct ready *ready, uint64_t irq)
{
    hold_drop(&ready->hold);
    port_irq_restore(irq);
}

static inline void ready_push(struct kmap_block **list,
                              struct kmap_block *block)
{
    block->next = *list;
    *list = block;
}

static inline struct kmap_block *ready_pop(struct kmap_block **list)
{
    struct kmap_block *block = *list;

    if (MM_LIKELY(block != NULL)) {
        *list = block->next;
    }
    return block;
}

/*
 * The entry that leads to the table of level 0 for an address of the arena, or
 * one that leads nowhere.
 * Context: interrupts off, unless the table is known to stay (I3).
 */
static inline pte_t kmap_find_table(vaddr_t address)
{
    pte_t entry = table_look(kmap_root.table, address, ROOT_LEVEL);

    return MM_LIKELY(pte_leads_on(entry))
               ? table_look(entry, address, ROOT_LEVEL - 1)
               : entry;
}

/* The end of making a block: from now on it can be freed. */
static inline void *block_publish(struct kmap_block *block, uint64_t offset,
                                  const char *name)
{
    void *handle = (void *)(block->start + offset);

    atomic_store_explicit(&block->name, name, memory_order_relaxed);
    /* Release: pairs with the acquire in block_claim(). */
    atomic_store_explicit(&block->handle, handle, memory_order_release);
    return handle;
}

/* The first step of freeing it: true for one of all who free @handle. */
static inline bool block_claim(struct kmap_block *block, void *handle)
{
    /* Acquire: pairs with the release in block_publish(). */
    return atomic_compare_exchange_strong_explicit(&block->handle, &handle,
                                                   NULL, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* --- kmap_keep.c ---------------------------------------------------------- */

/* As many as a purge can leave; their descriptors and tags are 32 KiB. */
#define EMPTIES_MAX 256

/* The arena is [start, end). */
void ready_init(vaddr_t start, vaddr_t end);

/*
 * A small block that is empty: one that is kept, or a new one.
 * Return: MM_OK; MM_ENOMEM; MM_ERANGE if one that need not be small might
 *         still be had.
 */
MM_MUST_CHECK enum mm_status ready_empty(unsigned pages,
                                         struct kmap_block **out);

/* All that waits for a flush is taken out of @ready, which was taken. */
MM_MUST_CHECK struct kmap_block *ready_take_waiting(struct ready *ready);

/*
 * What is parked in @list goes, by commits of @batch that are no flush, or the
 * one that is needed. Return: how many frames that are.
 */
uint64_t ready_release(const struct kmap_block *list, struct tlb_batch *batch);

/* One flush for all of @list, which waits for it; some of it is kept. */
void ready_flush(struct kmap_block *list);

/*
 * kmap_purge(): of frames, addresses and descriptors. Return: was anything
 * kept? @out_frames: how many of them.
 */
bool ready_purge(uint64_t *out_frames);

/* All of @list, which nobody has, is given back. */
void ready_dissolve(struct kmap_block *list);

/* What is kept: blocks, and their pages. */
void ready_count(uint64_t *out_blocks, uint64_t *out_pages);

/* Lists and counts agree. */
bool ready_check(void);

/* --- kmap_block.c --------------------------------------------------------- */

/* Return: MM_OK; MM_ENOMEM. */
MM_MUST_CHECK enum mm_status block_init(void);
void block_fini(void);

/*
 * Addresses for @bytes, which are not 0, between guards, aligned to
 * @alignment, and a descriptor; nothing stands there yet, nobody finds it.
 * Return: NULL if out of memory or addresses.
 */
MM_MUST_CHECK struct kmap_block *block_reserve(uint64_t bytes,
                                               uint64_t alignment);

/* From now on it is found by its address. */
void block_hang(struct kmap_block *block);

/* Take away whatever stands in the block's segment, guards too. */
void block_unmap(const struct kmap_block *block);

/*
 * Undo block_reserve() and block_hang(), when nothing stands there any more,
 * and nobody can be about to read the descriptor of a small block.
 */
void block_release(struct kmap_block *block);

/*
 * kmap_alloc() and kmap_mmio() of any size, of @bytes in whole pages; what is
 * mapped was found to be no RAM of ours.
 */
MM_MUST_CHECK void *block_alloc(uint64_t bytes, unsigned flags,
                                const char *name);
MM_MUST_CHECK void *block_window(paddr_t start, uint64_t bytes,
                                 enum pt_memory memory, const char *name);

/* kmap_free() of what is not a small block, or a bug report. */
void block_free(void *handle);

/* The frames of a block belong to the block. */
#define BLOCK_FLAGS (PT_WRITE | PT_GLOBAL | PT_OWNED)
/* Those behind a window belong to the device. */
#define WINDOW_FLAGS (PT_WRITE | PT_GLOBAL)

#endif
