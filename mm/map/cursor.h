/* SPDX-License-Identifier: MIT */
/* cursor: single steps on the tables of an open range; for pt.c alone. */
#ifndef MM_MAP_CURSOR_H
#define MM_MAP_CURSOR_H

#include <mm/pt.h>

/* The table page as memory. */
static inline pte_t *cursor_table(pfn_t table)
{
    return phys_to_virt(pfn_to_phys(table));
}

/*
 * Stand at the entry for @address, as far down as tables lead, at most in a
 * table of @level.
 * Return: the level reached; the entry is no table, or the level is @level.
 */
unsigned cursor_seek(struct pt_cursor *cursor, vaddr_t address, unsigned level);

/* Has a present or parked entry of @level a reference on its frames? */
static inline bool cursor_owns_frames(pte_t entry, unsigned level)
{
    enum pte_state state = pte_state(entry, level);

    return (state == PTE_PRESENT || state == PTE_PARKED) &&
           (entry.v & PTE_OWN) != 0;
}

/* First address after the entry. */
static inline vaddr_t cursor_next(const struct pt_cursor *cursor)
{
    uint64_t span = pte_span(cursor->level);

    return (cursor->at & ~(span - 1)) + span;
}

/* The entry as it is now; the CPU may set A and D at any time. */
static inline pte_t cursor_entry(const struct pt_cursor *cursor)
{
    return (pte_t){atomic_load_explicit((_Atomic uint64_t *)&cursor->slot->v,
                                        memory_order_relaxed)};
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

/* Split the entry that @address lies inside of, so that one begins there. */
MM_MUST_CHECK enum mm_status cursor_cut(struct pt_cursor *cursor,
                                        vaddr_t address);

/*
 * Replace the large entry by a table that says the same.
 * Return: MM_OK; MM_ENOMEM; MM_EBUSY: its block has more than one holder.
 */
MM_MUST_CHECK enum mm_status cursor_split(struct pt_cursor *cursor);

/*
 * If the table the cursor stands in is empty, unhook it, and so on upwards:
 * the cursor then stands at the gap that is left.
 */
void cursor_prune(struct pt_cursor *cursor);

/* Hand a table that was unhooked, and all below it, to the batch. */
void cursor_release_tree(struct pt_cursor *cursor, pfn_t table, unsigned level);

/* @entry as this CPU can take it: no XD without NX. */
static inline pte_t cursor_for_cpu(pte_t entry)
{
    if (pte_is_present(entry) && !pt_features.has_nx) {
        entry.v &= ~PTE_XD;
    }
    return entry;
}

/* owner word of a table that start-up made: it stays when it is empty. */
#define TABLE_PINNED 1

#endif
