/* SPDX-License-Identifier: MIT */
/* cursor: single steps on the tables of an open range; for pt.c alone. */
#ifndef MM_MAP_CURSOR_H
#define MM_MAP_CURSOR_H

#include <mm/pt.h>

/*
 * Go down towards @address as far as tables lead, at most to @level.
 * Return: the level reached: the entry for @address in that table is no
 * table, or the level is @level.
 */
unsigned cursor_descend(struct pt_cursor *cursor, vaddr_t address,
                        unsigned level);

/* The entry for @address in the table of @level the path goes through. */
pte_t cursor_read(const struct pt_cursor *cursor, vaddr_t address,
                  unsigned level);

/* Store @entry there in one piece and keep the table's count. The old one. */
pte_t cursor_swap(struct pt_cursor *cursor, vaddr_t address, unsigned level,
                  pte_t entry);

/*
 * Make the path for @address end in a table of @level, with new tables where
 * there is a gap, and by splitting a large entry.
 * Return: MM_OK; MM_ENOMEM: empty new tables may stand: cursor_prune().
 */
MM_MUST_CHECK enum mm_status cursor_grow(struct pt_cursor *cursor,
                                         vaddr_t address, unsigned level);

/* Split the entry that @address lies inside of, so that one begins there. */
MM_MUST_CHECK enum mm_status cursor_cut(struct pt_cursor *cursor,
                                        vaddr_t address);

/* Replace the large entry for @address (the path ends at it) by a table. */
MM_MUST_CHECK enum mm_status cursor_split(struct pt_cursor *cursor,
                                          vaddr_t address);

/* Unhook the tables at the path's end that are empty. */
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

/* The table page as memory. */
static inline pte_t *cursor_table(pfn_t table)
{
    return phys_to_virt(pfn_to_phys(table));
}

/* owner word of a table that start-up made: it stays when it is empty. */
#define TABLE_PINNED 1

#endif
