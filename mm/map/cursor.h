/* SPDX-License-Identifier: MIT */
/* cursor: single steps on the tables of an open range; for pt alone. */
#ifndef MM_MAP_CURSOR_H
#define MM_MAP_CURSOR_H

#include <mm/pt.h>
#include "base/bits.h"
#include "map/table.h"

/* Is [start, start + bytes) whole pages of one of the open ranges? */
static inline bool cursor_has(const struct pt_cursor *cursor, vaddr_t start,
                              uint64_t bytes)
{
    bool is_inside = false;

    for (unsigned i = 0; i < PT_RANGES; i++) {
        const struct pt_range *range = &cursor->range[i];

        is_inside = is_inside || (start >= range->start && start < range->end &&
                                  bytes <= range->end - start);
    }
    return is_inside && bytes > 0 && is_aligned(start | bytes, PAGE_BYTES);
}

/* The entry as it is now; the CPU may set A and D at any time. */
static inline pte_t cursor_entry(const struct pt_cursor *cursor)
{
    return (pte_t){atomic_load_explicit((_Atomic uint64_t *)&cursor->slot->v,
                                        memory_order_relaxed)};
}

/*
 * Stand at the entry for @address, as far down as tables lead, at most in a
 * table of @level, which is not above the highest that is locked.
 * Return: the level reached; the entry is no table, or the level is @level.
 */
unsigned cursor_seek(struct pt_cursor *cursor, vaddr_t address, unsigned level);

/* First address after the entry. */
static inline vaddr_t cursor_next(const struct pt_cursor *cursor)
{
    uint64_t span = pte_span(cursor->level);

    return (cursor->at & ~(span - 1)) + span;
}

/*
 * Store @entry in place of *@expected if that is what stands there: for
 * changes of an entry whose A and D the CPU may set meanwhile. Neither is
 * absent. On failure *@expected is what stands there now.
 */
static inline MM_MUST_CHECK bool cursor_replace(const struct pt_cursor *cursor,
                                                pte_t *expected, pte_t entry)
{
    return atomic_compare_exchange_strong_explicit(
        (_Atomic uint64_t *)&cursor->slot->v, &expected->v, entry.v,
        memory_order_acq_rel, memory_order_relaxed);
}

/* Store @entry there in one piece and keep the table's count. The old one. */
pte_t cursor_swap(struct pt_cursor *cursor, pte_t entry);

/*
 * Stand at the entry for @address in a table of @level: with new tables where
 * there is a gap, and by splitting a large entry.
 * Return: MM_OK; MM_ENOMEM: empty new tables may stand: cursor_prune().
 */
MM_MUST_CHECK enum mm_status cursor_grow(struct pt_cursor *cursor,
                                         vaddr_t address, unsigned level);

/*
 * Let entries begin at @start and at @start + @bytes, by splitting those that
 * reach across. Return: MM_OK; MM_ENOMEM.
 */
MM_MUST_CHECK enum mm_status cursor_cut_ends(struct pt_cursor *cursor,
                                             vaddr_t start, uint64_t bytes);

/*
 * Replace the large entry by a table that says the same. A block that has
 * other holders stays one, held by each of the small leaves.
 * Return: MM_OK; MM_ENOMEM.
 */
MM_MUST_CHECK enum mm_status cursor_split(struct pt_cursor *cursor);

/*
 * If the table the cursor stands in is empty, unhook it, and so on upwards as
 * far as tables are locked: the cursor then stands at the gap that is left.
 */
void cursor_prune(struct pt_cursor *cursor);

/*
 * Does the cursor stand at a table that may be taken away with all below it?
 * It lies in the range, so all of it is locked.
 */
static inline bool cursor_is_at_tree(const struct pt_cursor *cursor)
{
    pte_t entry = cursor_entry(cursor);

    /* Tables that stay are hooked in such as stay: so none is below. */
    return pte_is_table(entry, cursor->level) &&
           (table_marks(pte_table(entry)) & TABLE_PINNED) == 0;
}

/*
 * pt_open() for a CPU that has a cursor of another space open, and pt_close().
 * @pt  nobody else opens it, so nobody is waited for.
 */
MM_MUST_CHECK enum mm_status cursor_open_beside(struct pt *pt, vaddr_t start,
                                                vaddr_t end,
                                                struct tlb_batch *batch,
                                                struct pt_cursor *out);
void cursor_close_beside(struct pt_cursor *cursor);

/* Is nothing in the range but gaps and promises? */
bool cursor_is_vacant(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes);

/* Unhook the tables in the range that are empty. */
void cursor_prune_range(struct pt_cursor *cursor, vaddr_t start,
                        uint64_t bytes);

/* @entry, which stands where the cursor does, in words. */
void cursor_describe(const struct pt_cursor *cursor, pte_t entry,
                     struct pt_entry *out);

/* May @attr be said in these tables: known rights that make sense together? */
bool cursor_allows(const struct pt_cursor *cursor, struct pt_attr attr);

/* Put @entry in place of what is there: gaps, promises, tables of such. */
void cursor_place(struct pt_cursor *cursor, pte_t entry);

/*
 * Put @entry in place of the table where the cursor stands, and hand that to
 * the batch: it is empty, or @entry says and owns what it did.
 */
void cursor_replace_table(struct pt_cursor *cursor, pte_t entry);

/*
 * Put @entry in place of the tables where the cursor stands, and hand these
 * to the batch, with the frames they own.
 */
void cursor_replace_tree(struct pt_cursor *cursor, pte_t entry);

/* @entry as this CPU can take it: no XD without NX. */
static inline pte_t cursor_for_cpu(pte_t entry)
{
    if (pte_is_present(entry) && !pt_features.has_nx) {
        entry.v &= ~PTE_XD;
    }
    return entry;
}

#endif
