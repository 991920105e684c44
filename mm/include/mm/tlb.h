/* SPDX-License-Identifier: MIT */
/* tlb: change, invalidate, release: the one way frames leave a mapping. */
#ifndef MM_TLB_H
#define MM_TLB_H

#include <stdatomic.h>

#include <mm/types.h>

/* Who may cache translations of one set of tables. */
struct tlb_space {
    _Atomic uint64_t generation; /* (A) flushes so far */
    paddr_t root;                /* (C) what CR3 holds when it is loaded */
    bool is_kernel;              /* (C) global pages, on every CPU */
};

/* Separate ranges a batch remembers before it flushes the whole space. */
#define TLB_BATCH_RANGES 4
/* Frames with more than one holder that a batch can wait to let go of. */
#define TLB_BATCH_SHARED 8

struct tlb_range {
    vaddr_t start;
    vaddr_t end;
    unsigned level; /* size of the leaves that were there */
};

/*
 * Invalidations that are due and what to release after them. Lives on the
 * caller's stack; needs no memory: sole-owned frames are chained through
 * their records.
 */
struct tlb_batch {
    struct tlb_space *space;
    struct tlb_range range[TLB_BATCH_RANGES];
    unsigned range_count;
    unsigned shared_count;
    uint64_t pages;       /* INVLPGs that the ranges would take */
    bool whole;           /* flush the space, ranges or not */
    bool tables;          /* paging-structure caches must go too */
    pfn_t chain;          /* sole-owned blocks and tables, by record.owner */
    uint64_t chain_count; /* blocks in the chain */
    pfn_t shared[TLB_BATCH_SHARED];
};

struct tlb_stats {
    uint64_t commits;  /* batches that had something to do */
    uint64_t pages;    /* single invalidations */
    uint64_t whole;    /* full flushes of a space */
    uint64_t switches; /* loads of another space */
    uint64_t released; /* blocks and tables released */
};

/* Nothing is known of what CR3 holds. Before the first tlb_switch(). */
void tlb_init(void);

void tlb_space_init(struct tlb_space *space, paddr_t root, bool is_kernel);

void tlb_batch_init(struct tlb_batch *batch, struct tlb_space *space);

/* Leaves of @level in [start, end) were removed or lost rights. */
void tlb_batch_range(struct tlb_batch *batch, vaddr_t start, vaddr_t end,
                     unsigned level);

/* Is there room to release one more shared frame? If not, commit first. */
bool tlb_batch_has_room(const struct tlb_batch *batch);

/*
 * Let go of the block at @pfn, one reference, once nothing can reach it.
 * The entry that mapped it has been removed and handed to tlb_batch_range().
 */
void tlb_batch_release(struct tlb_batch *batch, pfn_t pfn);

/* The same for a page table that was unhooked from its parent. */
void tlb_batch_release_table(struct tlb_batch *batch, pfn_t table);

/*
 * Invalidate on every CPU that may cache the space, then release.
 * The batch is empty and usable afterwards.
 * Context: no lock held that the invalidation of another CPU may want.
 */
void tlb_commit(struct tlb_batch *batch);

/* Load @space on this CPU; nothing if it is loaded already. */
void tlb_switch(struct tlb_space *space);

/* Is @space loaded on this CPU? */
bool tlb_is_loaded(const struct tlb_space *space);

/* Forget everything of every space on this CPU. */
void tlb_flush_all(void);

/* INVLPGs above which a batch flushes the whole space instead. */
extern unsigned tlb_ceiling;

void tlb_stats(struct tlb_stats *out);

#endif
