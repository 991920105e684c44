/* SPDX-License-Identifier: MIT */
/* scan: every entry of a set of tables in address order, without recursion. */
#ifndef MM_MAP_SCAN_H
#define MM_MAP_SCAN_H

#include <mm/pt.h>
#include <mm/walk.h>

enum scan_event {
    SCAN_END,
    SCAN_ENTRY, /* an entry that is not absent; tables are entered next */
    SCAN_LEAVE  /* a table whose entries in the range have all been seen */
};

struct scan {
    vaddr_t end;    /* last address + 1; 0 = 2^64 */
    unsigned top;   /* level of the first table */
    unsigned level; /* where the scan is */
    bool is_over;
    pfn_t table[PTE_LEVELS];
    unsigned next[PTE_LEVELS];   /* index to look at next */
    unsigned stop[PTE_LEVELS];   /* index at which the range ends */
    unsigned seen[PTE_LEVELS];   /* entries that were not absent */
    uint64_t rights[PTE_LEVELS]; /* RW, US and ~XD of the levels above */
    /* Entries with (entry & mask) == bits are counted, not reported. */
    uint64_t pass_mask[PTE_LEVELS];
    uint64_t pass_bits[PTE_LEVELS];

    /* The event: */
    vaddr_t address; /* SCAN_ENTRY: where its span begins in the range */
    unsigned at;     /* level of the entry, or of the table that is left */
    pte_t entry;
    pfn_t owner;      /* the table the entry is in, or that is left */
    unsigned entries; /* SCAN_LEAVE: how many were not absent */
    bool is_writable; /* SCAN_ENTRY: rights of all levels together */
    bool is_executable;
    bool is_user;
};

/* Scan what @table of @level translates in [start, end). */
void scan_init(struct scan *scan, pfn_t table, unsigned level, vaddr_t start,
               vaddr_t end);

/* Pass leaves by. */
void scan_no_leaves(struct scan *scan);

/* Pass leaves by that have no bit the CPU refuses. */
void scan_only_refused(struct scan *scan);

/* The next event; its data is in @scan. */
enum scan_event scan_next(struct scan *scan);

/* Do not enter the table whose entry was the last event. */
void scan_skip(struct scan *scan);

/*
 * Does the entry just reported lead to the record array and nothing else? Its
 * tables are made by pt_install() at any time and have no records themselves.
 */
bool scan_holds_records(const struct scan *scan);

/*
 * Does it lead to tables that are counted elsewhere than with @pt? Those of the
 * record array, or from a space those of the kernel.
 */
bool scan_is_foreign(const struct scan *scan, const struct pt *pt);

#endif
