/* SPDX-License-Identifier: MIT */
/* scan: every entry of a set of tables in address order, without recursion. */
/*
 * Idea      Whoever reads whole tables (audit, adoption, tear-down) needs the
 *           same descent. It keeps its place in arrays indexed by level, so
 *           that depth is bounded by PTE_LEVELS and not by a stack.
 *
 * Cost      O(entries of the tables in the range); absent ones cost a load.
 */
#include "map/scan.h"

#include <mm/port.h>
#include <mm/record.h>
#include "base/bits.h"
#include "base/check.h"

/* The record array has entries of this level, 512 GiB each, to itself. */
#define RECORD_LEVEL 3

/* All rights on: what narrows them is on the way down. */
#define SCAN_ALL_RIGHTS (PTE_RW | PTE_US | PTE_XD)

/* Index after the last entry of a table of @level that lies in the range. */
static unsigned stop_index(const struct scan *scan, unsigned level)
{
    vaddr_t last = scan->end - 1;
    bool is_top = level + 1 == pt_features.levels;

    /* Above the top level there is nothing but the sign of the address. */
    if (scan->end != 0 && (is_top || ((last ^ scan->address) >>
                                      pte_shift(level)) < PTE_TABLE_COUNT)) {
        return pte_index(last, level) + 1;
    }
    return PTE_TABLE_COUNT; /* it ends in a later table */
}

/* Go on in @table, from the entry for the current address. */
static void enter(struct scan *scan, pfn_t table, unsigned level,
                  uint64_t rights)
{
    scan->level = level;
    scan->table[level] = table;
    scan->next[level] = pte_index(scan->address, level);
    scan->stop[level] = stop_index(scan, level);
    scan->seen[level] = 0;
    scan->rights[level] = rights;
}

void scan_init(struct scan *scan, pfn_t table, unsigned level, vaddr_t start,
               vaddr_t end)
{
    scan->end = end;
    scan->top = level;
    scan->is_over = false;
    scan->address = start;
    enter(scan, table, level, SCAN_ALL_RIGHTS);
}

/* Rights with those of @entry taken into account; XD is kept inverted. */
static uint64_t narrow(uint64_t rights, pte_t entry)
{
    uint64_t own = entry.v ^ (pt_features.has_nx ? PTE_XD : 0);

    return rights & (own | (pt_features.has_nx ? 0 : PTE_XD));
}

/* The entry's first address: that of its table, plus its index. */
static vaddr_t address_of(const struct scan *scan, unsigned level,
                          unsigned index)
{
    uint64_t table_span = pte_span(level) << MM_TABLE_BITS;
    vaddr_t base = align_down(scan->address, table_span);
    vaddr_t address = base + ((vaddr_t)index << pte_shift(level));

    if (level + 1 != pt_features.levels) {
        return address;
    }
    /* In the top table the upper half is sign-extended. */
    unsigned unused = 64 - pte_shift(pt_features.levels);
    return (vaddr_t)((int64_t)(address << unused) >> unused);
}

static enum scan_event leave(struct scan *scan)
{
    unsigned level = scan->level;

    scan->at = level;
    scan->owner = scan->table[level];
    scan->entries = scan->seen[level];
    if (level == scan->top) {
        scan->is_over = true;
    } else {
        scan->level++;
    }
    return SCAN_LEAVE;
}

static enum scan_event report(struct scan *scan, unsigned level, pte_t entry)
{
    uint64_t rights = narrow(scan->rights[level], entry);

    scan->at = level;
    scan->entry = entry;
    scan->owner = scan->table[level];
    scan->is_writable = (rights & PTE_RW) != 0;
    scan->is_executable = (rights & PTE_XD) != 0;
    scan->is_user = (rights & PTE_US) != 0;
    scan->seen[level]++;
    if (pte_is_table(entry, level)) {
        enter(scan, pte_pfn(entry, level), level - 1, rights);
    }
    return SCAN_ENTRY;
}

enum scan_event scan_next(struct scan *scan)
{
    if (scan->is_over) {
        return SCAN_END;
    }
    unsigned level = scan->level;
    const volatile pte_t *table = phys_to_virt(pfn_to_phys(scan->table[level]));

    for (unsigned i = scan->next[level]; i < scan->stop[level]; i++) {
        pte_t entry = {table[i].v};

        if (!pte_is_absent(entry)) {
            vaddr_t address = address_of(scan, level, i);

            scan->next[level] = i + 1;
            scan->address = address > scan->address ? address : scan->address;
            return report(scan, level, entry);
        }
    }
    return leave(scan);
}

void scan_skip(struct scan *scan)
{
    ASSERT(pte_is_table(scan->entry, scan->at));
    scan->level = scan->at;
}

bool scan_holds_records(const struct scan *scan)
{
    uint64_t span = pte_span(scan->at);
    vaddr_t first = align_down(scan->address, span);
    vaddr_t records = (vaddr_t)record_base;
    vaddr_t last_record = (vaddr_t)(record_base + record_frames) - 1;

    return scan->at == RECORD_LEVEL && first <= last_record &&
           records <= first + (span - 1);
}
