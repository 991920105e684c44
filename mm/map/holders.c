/* SPDX-License-Identifier: MIT */
/* holders: what records count, compared with what all tables say. */
/*
 * Idea      A block is let go of when its last holder is; so one holder too
 *           few is a use after free to come, and one too many a leak. Only
 *           all tables together know how many entries own a block. To count
 *           for each frame at once would take memory in proportion to RAM; so
 *           the caller gives room for some, and the tables are read again for
 *           each such window of frame numbers.
 *
 * Limits    Blocks that no entry owns are somebody else's to account for.
 */
#include <mm/audit.h>

#include <mm/frame.h>
#include "base/bits.h"
#include "map/scan.h"

/* What one pass over all tables is for. */
struct pass {
    struct audit_holders *out;
    uint32_t *count; /* of entries that own frame window + i */
    pfn_t window;
    size_t room; /* 0 in the first pass */
    pfn_t next;  /* lowest owned block behind the window; PFN_NONE: none */
    uint64_t entries;
    uint64_t tables;
};

/* The block that the entry just seen is a holder of. */
static pfn_t block_of(const struct scan *scan)
{
    pfn_t pfn = pte_pfn(scan->entry, scan->at);

    return record_exists(pfn) ? frame_head(pfn) : pfn;
}

static void count_entry(struct pass *pass, const struct scan *scan)
{
    pfn_t block = block_of(scan);

    pass->entries++;
    if (block.v < pass->window.v) {
        return; /* was counted in an earlier pass */
    }
    if (block.v - pass->window.v < pass->room) {
        pass->count[block.v - pass->window.v]++;
    } else if (pfn_is_none(pass->next) || block.v < pass->next.v) {
        pass->next = block;
    }
}

static void count_tables(struct pass *pass, const struct pt *pt)
{
    enum scan_event event;
    struct scan scan;

    scan_init(&scan, pt->root, pt_features.levels - 1, 0, 0);
    while ((event = scan_next(&scan)) != SCAN_END) {
        if (event == SCAN_LEAVE) {
            /* Those of start-up are not the allocator's. */
            pass->tables += record_of(scan.owner)->order == 0 ? 1 : 0;
        } else if (pte_is_table(scan.entry, scan.at)) {
            if (scan_is_foreign(&scan, pt)) {
                scan_skip(&scan);
            }
        } else if (pte_owns_frames(scan.entry, scan.at)) {
            count_entry(pass, &scan);
        }
    }
}

static void count_all(struct pass *pass)
{
    pass->next = PFN_NONE;
    pass->entries = 0;
    pass->tables = 0;
    count_tables(pass, &pt_kernel);
    for (struct pt *pt = pt_next(NULL); pt != NULL; pt = pt_next(pt)) {
        count_tables(pass, pt);
    }
}

/* Has the block as many holders as entries, of which there are @entries? */
static void compare(struct pass *pass, pfn_t block, uint32_t entries)
{
    struct audit_holders *out = pass->out;
    uint32_t refs = 0;

    if (record_exists(block) && record_of(block)->type != FRAME_NONE) {
        refs =
            atomic_load_explicit(&record_of(block)->refs, memory_order_relaxed);
    }
    if (refs == entries) {
        return;
    }
    out->missing += refs < entries ? 1 : 0;
    out->extra += refs > entries ? 1 : 0;
    out->first = pfn_is_none(out->first) ? block : out->first;
}

static void compare_window(struct pass *pass)
{
    for (size_t i = 0; i < pass->room; i++) {
        pass->count[i] = 0;
    }
    count_all(pass);
    for (size_t i = 0; i < pass->room; i++) {
        if (pass->count[i] > 0) {
            compare(pass, pfn_add(pass->window, i), pass->count[i]);
        }
    }
}

bool audit_holders(uint32_t *count, size_t room, struct audit_holders *out)
{
    struct pass pass = {.out = out, .count = count};
    struct frame_stats stats;

    count_all(&pass);
    *out = (struct audit_holders){.entries = pass.entries, .first = PFN_NONE};
    frame_stats(&stats);
    uint64_t taken = stats.by_type[FRAME_TABLE];
    out->lost_tables =
        taken > pass.tables ? taken - pass.tables : pass.tables - taken;
    pass.room = room;
    while (!pfn_is_none(pass.next)) {
        pass.window = pass.next;
        compare_window(&pass);
    }
    return out->missing == 0 && out->extra == 0 && out->lost_tables == 0;
}
