/* SPDX-License-Identifier: MIT */
/* open: which tables a cursor locks, and how it finds them. */
/*
 * Picture   root ------------- not locked, unless the range needs it
 *             |
 *           table ------------ the cover: the smallest that has the range
 *           /   |   \
 *        table table table --- locked, if the range touches them
 *
 * Idea      [CortenMM25] A range is locked by the lowest table that covers it
 *           and by all below that it touches, so ranges in different parts of
 *           a space never meet. The cover is found without a lock, and locked;
 *           if it was unhooked meanwhile, the search begins anew. What leads
 *           to it may be cut by nobody else, since who unhooks a table holds
 *           its lock. All locks are kept until the cursor is closed (two-phase
 *           locking), so what cursors do is as if one came after the other.
 *           The cover of a range that is all of a table is the one above: its
 *           entry may change.
 *
 * Circles   Locks are waited for from the top down, and beside each other
 *           from the left. Who waits for a table that another cursor holds
 *           holds tables above it or to its left alone; that one waits, if at
 *           all, for tables further below or to the right. So no circle closes.
 *
 * Locking   While it searches or waits, a CPU is inside (docs/locking.md,
 *           Grace period), so what it waits for is not released.
 *
 * Cost      A range within one table: one lock, found in as many loads as
 *           there are levels. Else O(tables that it touches).
 */
#include <mm/pt.h>

#include "base/bits.h"
#include "base/check.h"
#include "map/cursor.h"
#include "map/scan.h"

/*
 * The table on the way to @address, at most down to @level. With constants for
 * @level and @levels each turn is a copy of its own.
 */
static inline pfn_t descend(const struct pt *pt, vaddr_t address,
                            unsigned level, unsigned levels,
                            unsigned *out_level)
{
    unsigned at = levels - 1;
    pte_t way = {pt->tlb.root.v};

    MM_UNROLL(4)
    for (; at > level; at--) {
        pte_t entry = table_look(way, address, at);

        if (!pte_leads_on(entry)) {
            break;
        }
        way = entry;
    }
    *out_level = at;
    return pte_table(way);
}

static inline pfn_t find_table(const struct pt *pt, vaddr_t address,
                               unsigned level, unsigned *out_level)
{
    if (MM_LIKELY(level == 0 && pt_features.levels == 4)) {
        return descend(pt, address, 0, 4, out_level);
    }
    return descend(pt, address, level, pt_features.levels, out_level);
}

/* Is [start, end) whole pages of what the tables of @pt translate? */
static bool is_legal(const struct pt *pt, vaddr_t start, vaddr_t end)
{
    uint64_t half = UINT64_C(1) << (pte_shift(pt_features.levels) - 1);

    if (start >= end || !is_aligned(start | end, PAGE_BYTES)) {
        return false;
    }
    return pt->is_kernel ? start >= -half : start > 0 && end <= half;
}

/* Is all of [start, end) in one table of @level, and not all of that? */
static inline bool covers(vaddr_t start, vaddr_t end, unsigned level)
{
    return ((start ^ (end - 1)) >> pte_shift(level + 1)) == 0 &&
           end - start != pte_span(level + 1);
}

/* The lowest level a table that covers [start, end) may have; see Idea. */
static MM_NOINLINE unsigned lowest_cover(vaddr_t start, vaddr_t end)
{
    unsigned top = pt_features.levels - 1;
    unsigned level = 0;

    while (!covers(start, end, level) && level < top) {
        level++;
    }
    return level;
}

/* The same, locked, and still hooked. */
static inline pfn_t lock_on_way(const struct pt *pt, vaddr_t address,
                                unsigned level, unsigned *out_level)
{
    for (;;) {
        pfn_t table = find_table(pt, address, level, out_level);

        table_lock(table);
        if (MM_LIKELY((table_marks(table) & TABLE_GONE) == 0)) {
            return table;
        }
        table_unlock(table); /* another cursor has come further: no livelock */
    }
}

static void scan_range(struct scan *scan, const struct pt_cursor *cursor,
                       unsigned range)
{
    scan_init(scan, cursor->path[cursor->cover], cursor->cover,
              cursor->range[range].start, cursor->range[range].end);
    scan_no_leaves(scan);
}

/* Has the scan come to a table? Those of the record array are not ours. */
static bool is_at_table(struct scan *scan, enum scan_event event)
{
    bool is_table = event == SCAN_ENTRY && pte_is_table(scan->entry, scan->at);

    if (is_table && scan_holds_records(scan)) {
        scan_skip(scan);
        return false;
    }
    return is_table;
}

/* Does range @range touch the table of @level at @address first, or another? */
static bool is_first(const struct pt_cursor *cursor, unsigned range,
                     vaddr_t address, unsigned level)
{
    return range == 0 || align_down(address, pte_span(level + 1)) >=
                             cursor->range[range - 1].end;
}

/* Lock what the ranges touch below the cover: before its entries are read. */
static MM_NOINLINE void lock_below(const struct pt_cursor *cursor)
{
    struct scan scan;
    enum scan_event event;

    for (unsigned i = 0; i < PT_RANGES && cursor->range[i].end != 0; i++) {
        scan_range(&scan, cursor, i);
        while ((event = scan_next(&scan)) != SCAN_END) {
            if (!is_at_table(&scan, event)) {
                continue;
            }
            if (is_first(cursor, i, scan.address, scan.at - 1)) {
                table_lock(pte_table(scan.entry));
            }
            if (scan.at == 1) {
                scan_skip(&scan); /* no tables below those of level 0 */
            }
        }
    }
}

/* Unlock it: after the last of its entries was read. */
static MM_NOINLINE void unlock_below(const struct pt_cursor *cursor)
{
    struct scan scan;
    enum scan_event event;

    for (unsigned i = PT_RANGES; i-- > 0;) {
        if (cursor->range[i].end == 0) {
            continue;
        }
        scan_range(&scan, cursor, i);
        while ((event = scan_next(&scan)) != SCAN_END) {
            bool is_last = event == SCAN_LEAVE && scan.at < cursor->cover;
            pfn_t table = is_last ? scan.owner : pte_table(scan.entry);
            unsigned level = is_last ? scan.at : 0;

            if (is_at_table(&scan, event) && scan.at == 1) {
                scan_skip(&scan); /* as above: there is nothing to read */
                is_last = true;
            }
            if (is_last && is_first(cursor, i, scan.address, level)) {
                table_unlock(table);
            }
        }
    }
}

/* Entries of this level, 512 GiB each, start-up makes for the kernel's half. */
#define KERNEL_LEVEL 3

/* Has start-up made all entries of the kernel's range? */
static MM_NOINLINE bool has_top_entries(const struct pt *pt,
                                        const struct pt_range *range)
{
    uint64_t span = pte_span(KERNEL_LEVEL);
    unsigned level;

    for (vaddr_t at = range->start;
         at - range->start < range->end - range->start;
         at = align_down(at, span) + span) {
        find_table(pt, at, KERNEL_LEVEL - 1, &level);
        if (level >= KERNEL_LEVEL) {
            return false;
        }
    }
    return true;
}

/* Are the ranges such as a cursor may hold? Lower covers say so themselves. */
static bool may_hold(const struct pt_cursor *cursor)
{
    return !cursor->pt->is_kernel || cursor->cover < KERNEL_LEVEL ||
           (has_top_entries(cursor->pt, &cursor->range[0]) &&
            has_top_entries(cursor->pt, &cursor->range[1]));
}

/*
 * The cover is locked and not of level 0: lock what is below.
 * Return: MM_OK; MM_ERANGE, as pt_open(): nothing is locked then.
 */
static MM_NOINLINE enum mm_status lock_rest(const struct pt_cursor *cursor)
{
    if (!may_hold(cursor)) {
        table_unlock(cursor->path[cursor->cover]);
        return MM_ERANGE;
    }
    lock_below(cursor);
    return MM_OK;
}

/* Stand at the first entry of the cursor's ranges in the cover, @table. */
static inline void enter_cover(struct pt_cursor *cursor, pfn_t table,
                               unsigned level)
{
    vaddr_t start = cursor->range[0].start;

    cursor->cover = level;
    cursor->level = level;
    cursor->path[level] = table;
    cursor->at = start;
    cursor->slot = &table_at(table)[pte_index(start, level)];
}

/*
 * Lock the tables of the cursor's ranges, of which @end is the last address.
 * Return: MM_OK; MM_ERANGE, as pt_open().
 */
static inline enum mm_status lock_tables(struct pt_cursor *cursor, vaddr_t end)
{
    struct pt *pt = cursor->pt;
    vaddr_t start = cursor->range[0].start;
    enum mm_status status = MM_OK;
    unsigned level = covers(start, end, 0) ? 0 : lowest_cover(start, end);
    bool is_visit = !pt->is_kernel && tlb_begin_visit(&pt->tlb);
    pfn_t table = lock_on_way(pt, start, level, &level);

    if (MM_LIKELY(level == 0)) {
        enter_cover(cursor, table, 0);
    } else {
        enter_cover(cursor, table, level);
        status = lock_rest(cursor);
    }
    if (is_visit) {
        tlb_end_visit(&pt->tlb, true);
    }
    return status;
}

static void set_range(struct pt_cursor *out, vaddr_t start, vaddr_t end)
{
    out->range[0] = (struct pt_range){start, end};
    out->range[1] = (struct pt_range){0, 0};
}

/* A cursor that has nothing locked yet. */
static void start_cursor(struct pt_cursor *out, struct pt *pt,
                         struct tlb_batch *batch)
{
    tlb_batch_init(batch, &pt->tlb);
    out->pt = pt;
    out->batch = batch;
}

/* The ranges are set and legal; @end is the end of the last. */
static inline enum mm_status open_ranges(struct pt *pt, vaddr_t end,
                                         struct tlb_batch *batch,
                                         struct pt_cursor *out)
{
    start_cursor(out, pt, batch);
    out->irq = port_irq_save();
    lock_check_wait(&pt->order);
    enum mm_status status = lock_tables(out, end);
    if (status != MM_OK) {
        port_irq_restore(out->irq);
        return status;
    }
    lock_note_taken(&pt->order);
    return MM_OK;
}

enum mm_status pt_open(struct pt *pt, vaddr_t start, vaddr_t end,
                       struct tlb_batch *batch, struct pt_cursor *out)
{
    if (!is_legal(pt, start, end)) {
        return MM_EINVAL;
    }
    set_range(out, start, end);
    return open_ranges(pt, end, batch, out);
}

enum mm_status cursor_open_beside(struct pt *pt, vaddr_t start, vaddr_t end,
                                  struct tlb_batch *batch,
                                  struct pt_cursor *out)
{
    if (!is_legal(pt, start, end)) {
        return MM_EINVAL;
    }
    set_range(out, start, end);
    start_cursor(out, pt, batch);
    return lock_tables(out, end);
}

enum mm_status pt_open_two(struct pt *pt, vaddr_t start, vaddr_t end,
                           vaddr_t start2, vaddr_t end2,
                           struct tlb_batch *batch, struct pt_cursor *out)
{
    struct pt_range low = {start, end};
    struct pt_range high = {start2, end2};

    if (!is_legal(pt, start, end) || !is_legal(pt, start2, end2)) {
        return MM_EINVAL;
    }
    out->range[0] = start < start2 ? low : high;
    out->range[1] = start < start2 ? high : low;
    if (out->range[0].end > out->range[1].start) {
        return MM_EINVAL;
    }
    return open_ranges(pt, out->range[1].end, batch, out);
}

/* --- closing -------------------------------------------------------------- */

/*
 * Unhook the table under the entry for @address in @parent of @level, which is
 * locked, if it is empty. Return: is there a gap now?
 */
static bool drop_child(struct pt_cursor *cursor, pfn_t parent, vaddr_t address,
                       unsigned level)
{
    pte_t *slot = &table_at(parent)[pte_index(address, level)];

    cursor->cover = level;
    cursor->level = level;
    cursor->path[level] = parent;
    cursor->at = address;
    cursor->slot = slot;
    if (!pte_is_table(cursor_entry(cursor), level)) {
        return false;
    }
    pfn_t child = pte_table(cursor_entry(cursor));
    table_lock(child);
    if (!table_is_spare(child)) {
        table_unlock(child);
        return false;
    }
    cursor->level = level - 1;
    cursor->path[level - 1] = child;
    cursor_prune(cursor);
    return true;
}

/*
 * The cover was left empty: the table above is needed to unhook it, and as
 * locks are taken from the top down, the cover was let go of before.
 */
static MM_NOINLINE void prune_cover(struct pt_cursor *cursor)
{
    struct pt *pt = cursor->pt;
    vaddr_t address = cursor->range[0].start;
    unsigned level = cursor->cover + 1;
    bool is_spare = true;

    while (is_spare && level < pt_features.levels) {
        bool is_visit = tlb_begin_visit(&pt->tlb);
        unsigned reached;
        pfn_t parent = lock_on_way(pt, address, level, &reached);

        is_spare = reached == level &&
                   drop_child(cursor, parent, address, level) &&
                   table_is_spare(parent);
        table_unlock(parent);
        tlb_end_visit(&pt->tlb, is_visit);
        level++;
    }
}

/* Return: was the cover left empty? */
static inline bool unlock_tables(struct pt_cursor *cursor)
{
    pfn_t cover = cursor->path[cursor->cover];
    bool is_spare = table_is_spare(cover);

    if (cursor->cover > 0) {
        unlock_below(cursor);
    }
    table_unlock(cover);
    return is_spare;
}

void cursor_close_beside(struct pt_cursor *cursor)
{
    (void)unlock_tables(cursor);
    cursor->pt = NULL;
}

void pt_close(struct pt_cursor *cursor)
{
    bool is_spare = unlock_tables(cursor);

    lock_note_released(&cursor->pt->order);
    if (MM_UNLIKELY(is_spare)) {
        prune_cover(cursor);
    }
    port_irq_restore(cursor->irq);
    cursor->pt = NULL;
}
