/* SPDX-License-Identifier: MIT */
/* audit: whole tables read through: merged ranges, and what must never be. */
#ifndef MM_AUDIT_H
#define MM_AUDIT_H

#include <mm/pt.h>

/* A maximal run of neighbouring entries that say the same. */
struct audit_run {
    vaddr_t start;
    uint64_t bytes; /* 0 = 2^64, never reached in practice */
    enum pte_state state;
    enum pt_promise promise;
    unsigned level;      /* size of the leaves */
    struct pt_attr attr; /* effective: rights of all levels together */
    pfn_t pfn;           /* PRESENT, PARKED: frame at start */
    uint64_t payload;    /* PROMISE, SWAPPED: at start */
    bool is_contiguous;  /* frames, or payloads, follow each other */
};

/* Return false to stop. */
typedef bool (*audit_fn)(void *context, const struct audit_run *run);

/*
 * Report everything in [start, end) that is not a gap, merged.
 * Cost: O(entries of the tables in the range). Takes no lock.
 */
void audit_runs(const struct pt *pt, vaddr_t start, vaddr_t end,
                audit_fn report, void *context);

/*
 * The same in runs that are contiguous: what a run leads to is known for each
 * of its pages.
 */
void audit_extents(const struct pt *pt, vaddr_t start, vaddr_t end,
                   audit_fn report, void *context);

/* Pairs of mappings that share frames and must not be as they are. */
struct audit_aliases {
    uint64_t rights;    /* one lets write what the other executes */
    uint64_t memory;    /* their memory types differ */
    vaddr_t address[2]; /* the first such pair, at a frame in common */
};

/*
 * Compare what @pt may change itself (the kernel's tables: everything; others:
 * the lower half) with all that its tables lead to. Frames that user mode
 * executes may be writable for the kernel, which fills them.
 * Shape:  mappings that are executable, or not write-back, are few. 16 of them
 *         are remembered at once; more take further passes. Nothing else is:
 *         no memory in proportion to RAM.
 * Cost:   a pass over the tables, and two for each 16 such mappings.
 * Return: are there none?
 * Source: [SDM-3A 12.12.4 "Programming the PAT"] on memory types.
 */
bool audit_aliases(const struct pt *pt, struct audit_aliases *out);

struct audit_verdict {
    uint64_t tables;    /* reachable table pages */
    uint64_t leaves[3]; /* by level */
    uint64_t promises;
    uint64_t writable_exec; /* entries that break W^X */
    uint64_t reserved_bits; /* entries the CPU would refuse */
    uint64_t damaged;       /* entries of no state */
    uint64_t freed_frames;  /* entries that lead to free frames */
    uint64_t wrong_counts;  /* tables whose record counts wrongly */
    uint64_t empty_tables;  /* tables that should have been given back */
    uint64_t lost_tables; /* reachable tables that were not counted, or back */
    struct audit_aliases aliases; /* of the kernel's tables */
};

/*
 * Walk all of @pt and count; true if every count of a fault is zero. Aliases
 * are looked for in the kernel's tables only: what user mode shares, and with
 * which rights, is its owner's choice; who forbids it asks audit_aliases().
 */
bool pt_audit(const struct pt *pt, struct audit_verdict *out);

/*
 * Tell pt_audit() what may lead to free frames: the direct map, and what
 * start-up has mapped of the image, in large pages with RAM around it.
 */
void audit_set_fixed(struct pt_range direct, struct pt_range image);

/* What the records of frames count, beside what all tables say. */
struct audit_holders {
    uint64_t entries; /* that own frames, in the kernel's tables and all spaces
                         (pt_next()) */
    uint64_t missing; /* blocks with fewer holders than entries that own them */
    uint64_t extra;   /* blocks with more: something else holds them, or they
                         will never be free */
    pfn_t first;      /* the first block of these; or PFN_NONE */
    uint64_t lost_tables; /* frames of tables that no table leads to */
};

/*
 * Compare, for each block that an entry owns, its holders with these entries.
 * Not seen are blocks that nothing maps.
 * @room, @count  room for so many numbers; a pass for as many frames
 * Return: are all counts right? Who holds frames beside tables expects .extra.
 * Cost:   a pass over all tables, and one more for each @room frame numbers
 *         among which some are owned.
 * Context: nobody changes tables meanwhile; no batch waits for tlb_commit().
 */
bool audit_holders(uint32_t *count, size_t room, struct audit_holders *out);

/* Entries of a page table that are not absent, as its record counts them. */
unsigned audit_table_entries(pfn_t table);

/* An address that must work the moment new tables are loaded. */
struct audit_need {
    const char *name; /* "stack", "IDT" */
    vaddr_t address;
    unsigned flags; /* PT_WRITE, PT_EXEC: rights it needs at least */
    pfn_t pfn;      /* frame it must lead to; PFN_NONE: any */
};

/* Why tables must not be loaded: "IDT at 0x... is not mapped". */
struct audit_refusal {
    const char *name;
    vaddr_t address;
    const char *text;
};

/*
 * Would loading @root leave the CPU on its feet? No entry may have a reserved
 * bit or a frame beyond MAXPHYADDR, and each need must be met.
 * Return: true; false with the first thing that is wrong in @out.
 */
MM_MUST_CHECK bool audit_before_load(pfn_t root, const struct audit_need *need,
                                     size_t count, struct audit_refusal *out);

#endif
