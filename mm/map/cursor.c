/* SPDX-License-Identifier: MIT */
/* cursor: single steps on the tables of an open range; for pt alone. */
/*
 * Owns      the path from the highest locked table to where a cursor stands;
 *           the count of entries in each table's record; making and unhooking
 *           tables.
 *
 * Idea      A cursor is a lock on a range and a remembered descent: the next
 *           address mostly lies in the same table, and then no level is read
 *           again [CortenMM25]. Everything that may fail for lack of memory
 *           (grow, cut, split) does not change what addresses mean; everything
 *           that changes it (swap) cannot fail. So pt.c prepares first and
 *           acts then, and a failure leaves nothing to undo but empty tables.
 *
 * Invariants
 *   I1  path[l] is the table of level l on the way to `at`, for
 *       level <= l <= cover, and slot is the entry for it in path[level].
 *   I2  table_count() is the number of a table's entries that are not absent.
 *   I3  outside of an open cursor no table but the root, the pinned and the
 *       kept ones is empty. Kept are the kernel's: its small blocks come and
 *       go, and a table goes when all of its range is unmapped at once, or
 *       becomes a large entry. So there are at most as many as small blocks
 *       have needed at one time, a page for 2 MiB of addresses.
 *
 * Locking   Tables on the path are locked: open.c. A new table is locked from
 *           the start; one that is unhooked is let go of at once, and marked,
 *           so that whoever waits for it looks again from the root.
 */
#include "map/cursor.h"

#include <mm/frame.h>
#include "base/check.h"
#include "map/scan.h"

pte_t cursor_swap(struct pt_cursor *cursor, pte_t entry)
{
    _Atomic uint64_t *slot = (_Atomic uint64_t *)&cursor->slot->v;
    /* Releases what the entry points to, to the loads in table_look(). */
    pte_t old = {atomic_exchange_explicit(slot, entry.v, memory_order_acq_rel)};

    if (pte_is_absent(old) != pte_is_absent(entry)) {
        cursor_count(cursor, pte_is_absent(old) ? 1 : -1U);
    }
    return old;
}

/* Lowest level at which the remembered path is also that of @address (I1). */
static unsigned common_level(const struct pt_cursor *cursor, vaddr_t address)
{
    unsigned level = cursor->level;

    while (level < cursor->cover &&
           ((cursor->at ^ address) >> pte_shift(level + 1))) {
        level++;
    }
    return level;
}

unsigned cursor_seek(struct pt_cursor *cursor, vaddr_t address, unsigned level)
{
    unsigned at = common_level(cursor, address);

    ASSERT_SLOW(level <= cursor->cover);
    at = at < level ? level : at;
    cursor->at = address;
    for (;;) {
        cursor->level = at;
        cursor->slot = &table_at(cursor->path[at])[pte_index(address, at)];
        if (at == level || !pte_is_table(cursor_entry(cursor), at)) {
            return at;
        }
        at--;
        cursor->path[at] = pte_table(cursor_entry(cursor));
    }
}

static pfn_t new_table(struct pt_cursor *cursor)
{
    pfn_t table = frame_alloc(0, FRAME_TABLE, FRAME_ZEROED);

    if (!pfn_is_none(table)) {
        table_init_held(table, cursor->pt->is_kernel ? TABLE_KEPT : 0);
        atomic_fetch_add_explicit(&cursor->pt->tables, 1, memory_order_relaxed);
    }
    return table;
}

/*
 * The block of an owned leaf of @level becomes frames, each with a holder: or,
 * if it has more holders than this leaf, small leaves hold it in its place.
 */
static void split_block(pfn_t pfn, unsigned level)
{
    if (frame_split(pfn, pte_shift(level) - PAGE_SHIFT) != MM_OK) {
        frame_ref_many(pfn, PTE_TABLE_COUNT - 1);
    }
}

/* What the CPU has set in a large leaf meanwhile, for all its parts. */
static void set_accessed_dirty(pte_t *part, uint64_t bits)
{
    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++) {
        atomic_fetch_or_explicit((_Atomic uint64_t *)&part[i].v, bits & PTE_AD,
                                 memory_order_relaxed);
    }
}

/*
 * The new table says the same, so nothing changes for a reader; the batch
 * forgets the large translation. size.c says why that may be done in use.
 */
enum mm_status cursor_split(struct pt_cursor *cursor)
{
    unsigned level = cursor->level;
    pte_t entry = cursor_entry(cursor);
    pfn_t table = new_table(cursor);

    ASSERT(level > 0);
    ASSERT(pte_is_leaf(entry, level) || /* swapped ones are never large */
           pte_state(entry, level) == PTE_PARKED ||
           pte_state(entry, level) == PTE_PROMISE);
    if (pfn_is_none(table)) {
        return MM_ENOMEM;
    }
    if (pte_owns_frames(entry, level)) {
        split_block(pte_pfn(entry, level), level);
    }
    pte_t *part = table_at(table);
    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++) {
        part[i] = pte_part(entry, level, i);
    }
    table_set_marks(table, table_marks(table) + PTE_TABLE_COUNT);
    pte_t old =
        cursor_swap(cursor, pte_make_table(table, !cursor->pt->is_kernel));
    if (old.v != entry.v) {
        set_accessed_dirty(part, old.v & ~entry.v);
    }
    if (pte_is_present(entry)) {
        vaddr_t start = align_down(cursor->at, pte_span(level));
        tlb_batch_range(cursor->batch, start, start + pte_span(level), level);
    }
    return MM_OK;
}

/* Put an empty table where the cursor stands. */
static enum mm_status add_table(struct pt_cursor *cursor)
{
    pfn_t table = new_table(cursor);

    if (pfn_is_none(table)) {
        return MM_ENOMEM;
    }
    cursor_swap(cursor, pte_make_table(table, !cursor->pt->is_kernel));
    return MM_OK;
}

enum mm_status cursor_grow(struct pt_cursor *cursor, vaddr_t address,
                           unsigned level)
{
    enum mm_status status = MM_OK;

    while (status == MM_OK && cursor_seek(cursor, address, level) > level) {
        status = pte_is_absent(cursor_entry(cursor)) ? add_table(cursor)
                                                     : cursor_split(cursor);
    }
    return status;
}

/* Split the entries over @inside until none reaches across @address. */
static enum mm_status cut(struct pt_cursor *cursor, vaddr_t inside,
                          vaddr_t address)
{
    enum mm_status status = MM_OK;

    while (status == MM_OK) {
        unsigned level = cursor_seek(cursor, inside, 0);

        if (is_aligned(address, pte_span(level)) ||
            pte_is_absent(cursor_entry(cursor))) {
            break;
        }
        status = cursor_split(cursor);
    }
    return status;
}

enum mm_status cursor_cut_large(struct pt_cursor *cursor, vaddr_t start,
                                uint64_t bytes)
{
    enum mm_status status = cut(cursor, start, start);
    vaddr_t end = start + bytes;

    return status == MM_OK ? cut(cursor, end - PAGE_BYTES, end) : status;
}

/* @table, which nothing leads to any more, goes with the batch. */
static void let_go(struct pt_cursor *cursor, pfn_t table)
{
    atomic_fetch_sub_explicit(&cursor->pt->tables, 1, memory_order_relaxed);
    table_retire(table);
}

void cursor_prune(struct pt_cursor *cursor)
{
    while (cursor->level < cursor->cover) {
        pfn_t table = cursor->path[cursor->level];

        if (!table_is_spare(table)) {
            return;
        }
        cursor_seek(cursor, cursor->at, cursor->level + 1);
        cursor_replace_table(cursor, (pte_t){0});
    }
}

void cursor_replace_table(struct pt_cursor *cursor, pte_t entry)
{
    pfn_t table = pte_table(cursor_swap(cursor, entry));

    let_go(cursor, table);
    tlb_batch_release_table(cursor->batch, table);
}

void cursor_replace_tree(struct pt_cursor *cursor, pte_t entry)
{
    unsigned level = cursor->level - 1;
    pfn_t table = pte_table(cursor_swap(cursor, entry));
    struct scan scan;
    enum scan_event event;

    let_go(cursor, table);
    scan_init(&scan, table, level, 0, 0);
    scan_no_leaves(&scan);
    while (level > 0 && (event = scan_next(&scan)) != SCAN_END) {
        if (event == SCAN_ENTRY && pte_is_table(scan.entry, scan.at)) {
            let_go(cursor, pte_table(scan.entry));
            if (scan.at == 1) {
                scan_skip(&scan);
            }
        }
    }
    tlb_batch_release_tree(cursor->batch, table, level);
}

void cursor_place(struct pt_cursor *cursor, pte_t entry)
{
    if (pte_is_table(cursor_entry(cursor), cursor->level)) {
        cursor_replace_tree(cursor, entry);
    } else {
        cursor_swap(cursor, entry);
    }
}

bool cursor_is_vacant(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes)
{
    for (vaddr_t at = start; at - start < bytes;) {
        cursor_seek_page(cursor, at);
        unsigned count = cursor_run(cursor, start + bytes);

        if (!cursor_run_is_vacant(cursor, count)) {
            return false;
        }
        at = cursor_after(cursor, count);
    }
    return true;
}

void cursor_prune_range(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes)
{
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        cursor_seek(cursor, at, 0);
        cursor_prune(cursor);
    }
}
