/* SPDX-License-Identifier: MIT */
/* cursor: single steps on the tables of an open range; for pt.c alone. */
/*
 * Owns      the path from the root to where a cursor stands; the count of
 *           entries in each table's record; making and unhooking tables.
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
 *       level <= l < levels, and slot is the entry for it in path[level].
 *   I2  record.entries of a table is the number of its entries that are not
 *       absent.
 *   I3  outside of an open cursor no table but the root and the pinned ones
 *       is empty.
 *
 * Locking   The lock of the space, held from pt_open() to pt_close().
 *
 * Limits    One cursor a space at a time.
 */
#include "map/cursor.h"

#include <mm/frame.h>
#include "base/bits.h"
#include "base/check.h"
#include "map/scan.h"

pte_t cursor_swap(struct pt_cursor *cursor, pte_t entry)
{
    _Atomic uint64_t *slot = (_Atomic uint64_t *)&cursor->slot->v;
    /* Releases what the entry points to, to pt_lookup()'s acquire load. */
    pte_t old = {atomic_exchange_explicit(slot, entry.v, memory_order_acq_rel)};

    if (pte_is_absent(old) != pte_is_absent(entry)) {
        struct frame_record *record = record_of(cursor->path[cursor->level]);

        atomic_fetch_add_explicit(&record->entries,
                                  pte_is_absent(old) ? 1 : UINT16_MAX,
                                  memory_order_relaxed);
    }
    return old;
}

/* Lowest level at which the remembered path is also that of @address (I1). */
static unsigned common_level(const struct pt_cursor *cursor, vaddr_t address)
{
    unsigned top = pt_features.levels - 1;
    unsigned level = cursor->level;

    while (level < top && ((cursor->at ^ address) >> pte_shift(level + 1))) {
        level++;
    }
    return level;
}

unsigned cursor_seek(struct pt_cursor *cursor, vaddr_t address, unsigned level)
{
    unsigned at = common_level(cursor, address);

    at = at < level ? level : at;
    cursor->at = address;
    for (;;) {
        cursor->level = at;
        cursor->slot = &cursor_table(cursor->path[at])[pte_index(address, at)];
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
        record_of(table)->owner = 0;
        atomic_store_explicit(&record_of(table)->entries, 0,
                              memory_order_relaxed);
        atomic_fetch_add_explicit(&cursor->pt->tables, 1, memory_order_relaxed);
    }
    return table;
}

/* Undo new_table(): nothing has ever led to it. */
static void drop_table(struct pt_cursor *cursor, pfn_t table)
{
    atomic_fetch_sub_explicit(&cursor->pt->tables, 1, memory_order_relaxed);
    frame_free(table, 0);
}

/* Entry @index of the table that says what the large @entry said. */
static pte_t part_of(pte_t entry, unsigned level, unsigned index)
{
    uint64_t frames = pte_span(level - 1) >> PAGE_SHIFT;
    struct pt_attr attr = pte_attr(entry, level);

    switch (pte_state(entry, level)) {
    case PTE_PRESENT:
        return cursor_for_cpu(pte_make_leaf(
            level - 1, pfn_add(pte_pfn(entry, level), index * frames), attr));
    case PTE_PARKED:
        return pte_make_parked(pfn_add(pte_pfn(entry, level), index * frames),
                               attr);
    case PTE_PROMISE:
        if (pte_promise(entry) == PT_OBJECT) {
            return pte_make_promise(PT_OBJECT, attr,
                                    pte_payload(entry) + index * frames);
        }
        return entry;
    default:
        ASSERT(false); /* swapped and table entries are never large */
        return entry;
    }
}

/*
 * The new table says the same, so nothing changes for a reader; a TLB may
 * hold the large and a small translation of an address at once, which is
 * defined as long as they agree [SDM-3A 4.10.2.3 "Details of TLB Use"]; the
 * batch forgets the large one. Some processors have errata here, of which this
 * takes no account (AMD family 10h number 383, Intel's multihit of ITLBs).
 */
enum mm_status cursor_split(struct pt_cursor *cursor)
{
    unsigned level = cursor->level;
    pte_t entry = cursor_entry(cursor);
    enum mm_status status = MM_OK;
    pfn_t table = new_table(cursor);

    ASSERT(level > 0 && !pte_is_absent(entry));
    if (pfn_is_none(table)) {
        return MM_ENOMEM;
    }
    if (cursor_owns_frames(entry, level)) {
        status =
            frame_split(pte_pfn(entry, level), pte_shift(level) - PAGE_SHIFT);
    }
    if (status != MM_OK) {
        drop_table(cursor, table);
        return status;
    }
    pte_t *part = cursor_table(table);
    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++) {
        part[i] = part_of(entry, level, i);
    }
    atomic_store_explicit(&record_of(table)->entries, PTE_TABLE_COUNT,
                          memory_order_relaxed);
    cursor_swap(cursor, pte_make_table(table, !cursor->pt->is_kernel));
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

enum mm_status cursor_cut(struct pt_cursor *cursor, vaddr_t address)
{
    enum mm_status status = MM_OK;

    while (status == MM_OK) {
        unsigned level = cursor_seek(cursor, address, 0);

        if (is_aligned(address, pte_span(level)) ||
            pte_is_absent(cursor_entry(cursor))) {
            break;
        }
        status = cursor_split(cursor);
    }
    return status;
}

void cursor_prune(struct pt_cursor *cursor)
{
    while (cursor->level + 1 < pt_features.levels) {
        pfn_t table = cursor->path[cursor->level];
        struct frame_record *record = record_of(table);

        if (atomic_load_explicit(&record->entries, memory_order_relaxed) > 0 ||
            record->owner == TABLE_PINNED) {
            return;
        }
        cursor_seek(cursor, cursor->at, cursor->level + 1);
        cursor_swap(cursor, (pte_t){0});
        atomic_fetch_sub_explicit(&cursor->pt->tables, 1, memory_order_relaxed);
        tlb_batch_release_table(cursor->batch, table);
    }
}

void cursor_release_tree(struct pt_cursor *cursor, pfn_t table, unsigned level)
{
    struct scan scan;

    scan_init(&scan, table, level, 0, 0);
    for (;;) {
        enum scan_event event = scan_next(&scan);
        if (event == SCAN_END) {
            return;
        }
        if (event == SCAN_LEAVE) {
            ASSERT(record_of(scan.owner)->owner != TABLE_PINNED);
            atomic_fetch_sub_explicit(&cursor->pt->tables, 1,
                                      memory_order_relaxed);
            tlb_batch_release_table(cursor->batch, scan.owner);
        }
    }
}

/* Is there a table under each top-level entry of the kernel's range? */
static bool has_top_entries(const struct pt *pt, vaddr_t start, vaddr_t end)
{
    unsigned top = pt_features.levels - 1;
    const pte_t *root = cursor_table(pt->root);

    for (unsigned i = pte_index(start, top); i <= pte_index(end - 1, top);
         i++) {
        if (!pte_is_table(root[i], top)) {
            return false;
        }
    }
    return true;
}

/* Status of opening [start, end); the rules of pt_open(). */
static enum mm_status check_range(const struct pt *pt, vaddr_t start,
                                  vaddr_t end)
{
    bool is_upper = (start >> 63) != 0;

    if (start >= end || start == 0 || !is_aligned(start | end, PAGE_BYTES) ||
        !pt_is_canonical(start) || !pt_is_canonical(end - 1) ||
        ((end - 1) >> 63) != (start >> 63) || is_upper != pt->is_kernel) {
        return MM_EINVAL;
    }
    if (pt->is_kernel && !has_top_entries(pt, start, end)) {
        return MM_ERANGE;
    }
    return MM_OK;
}

enum mm_status pt_open(struct pt *pt, vaddr_t start, vaddr_t end,
                       struct tlb_batch *batch, struct pt_cursor *out)
{
    enum mm_status status = check_range(pt, start, end);

    if (status != MM_OK) {
        return status;
    }
    tlb_batch_init(batch, &pt->tlb);
    out->pt = pt;
    out->batch = batch;
    out->start = start;
    out->end = end;
    out->at = start;
    out->level = pt_features.levels - 1;
    out->path[out->level] = pt->root;
    out->irq = lock_acquire(&pt->lock);
    return MM_OK;
}

void pt_close(struct pt_cursor *cursor)
{
    lock_release(&cursor->pt->lock, cursor->irq);
    cursor->pt = NULL;
}
