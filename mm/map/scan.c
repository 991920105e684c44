/* SPDX-License-Identifier: MIT */
/* scan: every entry of a set of tables in address order, without recursion. */
/*
 * Idea      Whoever reads whole tables (audit, adoption, tear-down) needs the
 *           same descent. It keeps its place in arrays indexed by level, so
 *           that depth is bounded by PTE_LEVELS and not by a stack.
 *
 * Cost      O(entries of the tables in the range); absent ones cost a load,
 *           those passed by a load and a test.
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

/* Report all entries of @level: none is 1 under a mask of 0. */
static void pass_none(struct scan *scan, unsigned level)
{
    scan->pass_mask[level] = 0;
    scan->pass_bits[level] = 1;
}

void scan_init(struct scan *scan, pfn_t table, unsigned level, vaddr_t start,
               vaddr_t end)
{
    scan->end = end;
    scan->top = level;
    scan->is_over = false;
    scan->address = start;
    for (unsigned i = 0; i < PTE_LEVELS; i++) {
        pass_none(scan, i);
    }
    enter(scan, table, level, SCAN_ALL_RIGHTS);
}

void scan_no_leaves(struct scan *scan)
{
    for (unsigned i = 0; i < PTE_LEVELS; i++) {
        scan->pass_bits[i] = PTE_P | (i > 0 ? PTE_PS : 0);
        scan->pass_mask[i] = scan->pass_bits[i];
    }
}

void scan_only_refused(struct scan *scan)
{
    const pte_t all_bits = {UINT64_MAX};

    scan_no_leaves(scan);
    for (unsigned i = 0; i < PTE_LEVELS; i++) {
        uint64_t refused = walk_reserved_bits(all_bits, i);

        if (refused & PTE_PS) {
            pass_none(scan, i); /* there are no leaves of this level */
        } else {
            scan->pass_mask[i] |= refused;
        }
    }
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

/* The first entry from @i on that is not absent; most are, in most tables. */
static unsigned skip_absent(const volatile pte_t *table, unsigned i,
                            unsigned stop)
{
    while (i + 4 <= stop && (table[i].v | table[i + 1].v | table[i + 2].v |
                             table[i + 3].v) == 0) {
        i += 4;
    }
    while (i < stop && table[i].v == 0) {
        i++;
    }
    return i;
}

/* The first entry from @i on that is not passed by. */
static unsigned pass_by(const volatile pte_t *table, unsigned i, unsigned stop,
                        uint64_t mask, uint64_t bits)
{
    while (i < stop && (table[i].v & mask) == bits) {
        i++;
    }
    return i;
}

enum scan_event scan_next(struct scan *scan)
{
    if (scan->is_over) {
        return SCAN_END;
    }
    unsigned level = scan->level;
    unsigned stop = scan->stop[level];
    const volatile pte_t *table = phys_to_virt(pfn_to_phys(scan->table[level]));

    for (unsigned i = scan->next[level]; i < stop;) {
        unsigned first = skip_absent(table, i, stop);

        i = pass_by(table, first, stop, scan->pass_mask[level],
                    scan->pass_bits[level]);
        scan->seen[level] += i - first;
        pte_t entry = {i < stop ? table[i].v : 0};
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

    /* A simulated array lies in the lower half, where no table leads to it. */
    return scan->at == RECORD_LEVEL && (first >> 63) != 0 &&
           first <= last_record && records <= first + (span - 1);
}

bool scan_is_foreign(const struct scan *scan, const struct pt *pt)
{
    return scan_holds_records(scan) ||
           (!pt->is_kernel && scan->at == pt_features.levels - 1 &&
            (scan->address >> 63) != 0);
}
