/* SPDX-License-Identifier: MIT */
/* cursor: single steps on the tables of an open range; for pt alone. */
#ifndef MM_MAP_CURSOR_H
#define MM_MAP_CURSOR_H

#include <mm/pt.h>
#include "base/bits.h"
#include "map/table.h"

static inline bool range_has(const struct pt_range *range, vaddr_t start,
                             uint64_t bytes)
{
    return start - range->start < range->end - range->start &&
           bytes <= range->end - start;
}

/* Is [start, start + bytes) whole pages of one of the open ranges? */
static inline bool cursor_has(const struct pt_cursor *cursor, vaddr_t start,
                              uint64_t bytes)
{
    return bytes > 0 && is_aligned(start | bytes, PAGE_BYTES) &&
           (range_has(&cursor->range[0], start, bytes) ||
            range_has(&cursor->range[1], start, bytes));
}

/*
 * Store @entry in place of @expected if that still stands there: for changes
 * of an entry whose A and D the CPU may set meanwhile. Neither is absent.
 */
static inline MM_MUST_CHECK bool slot_replace(pte_t *slot, pte_t expected,
                                              pte_t entry)
{
    return atomic_compare_exchange_strong_explicit(
        (_Atomic uint64_t *)&slot->v, &expected.v, entry.v,
        memory_order_acq_rel, memory_order_relaxed);
}

/*
 * Turn @bits of the entry at @slot, of which the CPU changes none. A and D that
 * it sets meanwhile stay.
 */
static inline void slot_turn(pte_t *slot, uint64_t bits)
{
    atomic_fetch_xor_explicit((_Atomic uint64_t *)&slot->v, bits,
                              memory_order_relaxed);
}

/*
 * Store @entry in one piece over what the CPU does not change: it is not
 * present, or what the CPU sets in it is of no interest any more.
 */
static inline void slot_store(pte_t *slot, pte_t entry)
{
    /* Releases what the entry points to, to the loads in table_look(). */
    atomic_store_explicit((_Atomic uint64_t *)&slot->v, entry.v,
                          memory_order_release);
}

/* The entry where the cursor stands. */
static inline pte_t cursor_entry(const struct pt_cursor *cursor)
{
    return slot_entry(cursor->slot);
}

/*
 * Stand at the entry for @address, as far down as tables lead, at most in a
 * table of @level, which is not above the highest that is locked.
 * Return: the level reached; the entry is no table, or the level is @level.
 */
unsigned cursor_seek(struct pt_cursor *cursor, vaddr_t address, unsigned level);

/* The same, down to level 0, where it mostly stands in the right table. */
static inline unsigned cursor_seek_page(struct pt_cursor *cursor,
                                        vaddr_t address)
{
    if (cursor->level > 0 || ((cursor->at ^ address) >> pte_shift(1)) != 0) {
        return cursor_seek(cursor, address, 0);
    }
    cursor->slot += (int64_t)pte_index(address, 0) - pte_index(cursor->at, 0);
    cursor->at = address;
    return 0;
}

/* Is nothing but gaps and promises in @count entries from here on? */
static inline bool cursor_run_is_vacant(const struct pt_cursor *cursor,
                                        unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        pte_t entry = slot_entry(&cursor->slot[i]);

        if (!pte_is_absent(entry) &&
            pte_state(entry, cursor->level) != PTE_PROMISE) {
            return false;
        }
    }
    return true;
}

/* The address after @count entries of a run. */
static inline vaddr_t cursor_after(const struct pt_cursor *cursor,
                                   unsigned count)
{
    uint64_t span = pte_span(cursor->level);

    return align_down(cursor->at, span) + count * span;
}

/* First address after the entry. */
static inline vaddr_t cursor_next(const struct pt_cursor *cursor)
{
    return cursor_after(cursor, 1);
}

/*
 * How many entries there are from where the cursor stands on to @end, in its
 * table: small ones, or else one, since what is large may be a table.
 */
static inline unsigned cursor_run(const struct pt_cursor *cursor, vaddr_t end)
{
    uint64_t left = (end - cursor->at) >> PAGE_SHIFT;
    unsigned room = PTE_TABLE_COUNT - pte_index(cursor->at, 0);

    if (cursor->level > 0) {
        return 1;
    }
    return left < room ? (unsigned)left : room;
}

/* Entries @first to @end of the run have changed, and may be cached. */
static inline void cursor_forget(struct pt_cursor *cursor, unsigned first,
                                 unsigned end)
{
    if (first < end) {
        tlb_batch_range(cursor->batch, cursor_after(cursor, first),
                        cursor_after(cursor, end), cursor->level);
    }
}

/* @count entries more of the cursor's table say something, or -@count less. */
static inline void cursor_count(const struct pt_cursor *cursor, unsigned count)
{
    pfn_t table = cursor->path[cursor->level];

    table_set_marks(table, table_marks(table) + count);
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
MM_MUST_CHECK enum mm_status cursor_cut_large(struct pt_cursor *cursor,
                                              vaddr_t start, uint64_t bytes);

static inline MM_MUST_CHECK enum mm_status cursor_cut_ends(
    struct pt_cursor *cursor, vaddr_t start, uint64_t bytes)
{
    /* Under a cover of level 0 all is small. */
    return cursor->cover == 0 ? MM_OK : cursor_cut_large(cursor, start, bytes);
}

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
 * Tables that are empty then stay: for pt_fini().
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

/* A bit for each of enum pt_memory. */
#define MEMORY_TYPES                                                           \
    (1u << PT_WB | 1u << PT_WC | 1u << PT_UC | 1u << PT_WP | 1u << PT_WT)

/* May @attr be said in these tables: known rights that make sense together? */
static inline bool cursor_allows(const struct pt_cursor *cursor,
                                 struct pt_attr attr)
{
    unsigned foreign = cursor->pt->is_kernel ? PT_USER : PT_GLOBAL;

    if ((attr.flags & (~(unsigned)PT_FLAGS | foreign)) != 0) {
        return false;
    }
    if ((attr.flags & PT_WRITE) && (attr.flags & (PT_EXEC | PT_COW))) {
        return false;
    }
    if ((attr.flags & PT_NONE) && (attr.flags & (PT_WRITE | PT_EXEC))) {
        return false;
    }
    return attr.memory <= PT_WT && ((MEMORY_TYPES >> attr.memory) & 1) != 0;
}

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
