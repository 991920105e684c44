/* SPDX-License-Identifier: MIT */
/* size: one large entry for 512 small ones, and back. */
/*
 * Idea      A table of 512 entries that say what a large one said changes no
 *           meaning, nor does the way back; so both are done while the pages
 *           are in use, by one store.
 *
 * Why that  A CPU may have the large and the small translation of an address
 * is sound  cached at once, until the batch is committed, and use either
 *           [SDM-3A 4.10.2.3 "Details of TLB Use"]. As long as they agree that
 *           is no difference. If the cursor goes on to change a small entry,
 *           a use of the large one is a use of what was there before: as after
 *           any other change, and until the same flush. An INVLPG of any page
 *           in it forgets the large translation, too [SDM-3A 4.10.4.1
 *           "Operations that Invalidate TLBs and Paging-Structure Caches"].
 *           The manual's way to avoid the ambiguity (not present, flush, then
 *           the new size) would leave a hole in which other CPUs fault, and
 *           a flush with tables locked, or a state between two openings.
 *
 *           It is not sound on two kinds of processors, which raise a machine
 *           check: AMD's families 10h and 12h when both are cached [AMD-10h
 *           383 "CPU Core May Machine Check When System Software Changes Page
 *           Tables Dynamically"], and Intel's before PSCHANGE_MC_NO when code
 *           is fetched from such a page [Multihit18]. There the library makes
 *           no large page that it could have to split or merge in use:
 *           pt_may_resize() is asked by faults, by pt_collapse() and before
 *           pt_protect_kernel() merges. What a host maps large by itself, the
 *           direct map and data of its image, is split by its changes as
 *           everywhere; it is not executable, so that Intel's erratum is not
 *           met; to AMD's it is open for the time of a flush, as Linux's
 *           direct map is. Code of the image has the size from the start that
 *           it keeps.
 *
 *           The kernel's leaves are global: found under every PCID, and not
 *           forgotten by a CR3 load. Neither is needed: INVLPG and the flush
 *           of all forget global translations of both sizes, under each PCID
 *           [SDM-3A 4.10.4.1]; CPUs on which INVLPG leaves global ones alone
 *           while PCIDs are on run without PCIDs (the host, by tlb_parts). A
 *           small translation lives on beside a merged leaf until the next
 *           flush, which tlb_force_whole() makes one of everything.
 *
 * Policy    Blocks of the kernel are put together by who changes rights, at
 *           once: the tables of the direct map would else get smaller pages
 *           for ever. Before anything is locked four entries are looked at,
 *           which tell of nearly all blocks that they cannot be one yet.
 */
#include <mm/pt.h>

#include <mm/frame.h>
#include <mm/port.h>
#include "base/bits.h"
#include "base/check.h"
#include "map/cursor.h"

enum mm_status pt_split(struct pt_cursor *cursor, vaddr_t address)
{
    ASSERT(cursor_has(cursor, align_down(address, PAGE_BYTES), PAGE_BYTES));
    unsigned level = cursor_seek(cursor, address, 0);

    if (level == 0 || pte_is_absent(cursor_entry(cursor))) {
        return MM_ENOENT;
    }
    return cursor_split(cursor);
}

/* Does part @index of a table follow from its @first, as a split would do? */
static bool is_alike(pte_t first, pte_t part, unsigned level, unsigned index)
{
    uint64_t pages = (uint64_t)index << (pte_shift(level) - PAGE_SHIFT);
    /* The CPU sets A and D where and when it likes. */
    uint64_t ignored = pte_is_present(first) ? PTE_AD : PTE_AD << PTE_AD_SHIFT;

    return ((part.v ^ pte_advance(first, pages).v) & ~ignored) == 0;
}

/* The entry of @level that says what the whole @table says, or absent. */
static pte_t whole_of(const pte_t *table, unsigned level)
{
    unsigned part = level - 1;
    pte_t first = slot_entry(&table[0]);
    enum pte_state state = pte_state(first, part);
    pte_t whole = pte_whole(first, level);

    for (unsigned i = 1; i < PTE_TABLE_COUNT; i++) {
        if (!is_alike(first, slot_entry(&table[i]), part, i)) {
            return (pte_t){0};
        }
    }
    if (state == PTE_PROMISE) {
        return whole;
    }
    if ((state != PTE_PRESENT && state != PTE_PARKED) ||
        level > pt_max_leaf() ||
        !is_aligned(pfn_to_phys(pte_pfn(first, part)).v, pte_span(level))) {
        return (pte_t){0};
    }
    /* One of the parts may have been used, and any may be just now. */
    whole.v |= state == PTE_PRESENT ? PTE_AD : PTE_AD << PTE_AD_SHIFT;
    return whole;
}

/* May the entries of @table become @whole, records included? */
static bool join_frames(pfn_t table, pte_t whole, unsigned level)
{
    if (pte_is_absent(whole) || (table_marks(table) & TABLE_PINNED) != 0) {
        return false;
    }
    return !pte_owns_frames(whole, level) ||
           frame_join(pte_pfn(whole, level), pte_shift(level) - PAGE_SHIFT) ==
               MM_OK;
}

enum mm_status pt_merge(struct pt_cursor *cursor, vaddr_t address,
                        unsigned level)
{
    vaddr_t start = align_down(address, pte_span(level));

    ASSERT(level > 0 && level < pt_features.levels);
    if (!cursor_has(cursor, start, pte_span(level))) {
        return MM_EINVAL;
    }
    unsigned reached = cursor_seek(cursor, start, level);
    pte_t entry = cursor_entry(cursor);
    if (reached != level || !pte_is_table(entry, level)) {
        return MM_ENOENT;
    }
    pfn_t table = pte_table(entry);
    pte_t whole = whole_of(table_at(table), level);
    if (!join_frames(table, whole, level)) {
        return MM_EINVAL;
    }
    cursor_replace_table(cursor, whole);
    if (pte_is_present(whole)) {
        tlb_force_whole(&cursor->pt->tlb);
        tlb_batch_range(cursor->batch, start, start + pte_span(level),
                        level - 1);
    }
    return MM_OK;
}

/* --- the kernel's blocks -------------------------------------------------- */

/* Is @leaf of @level, with the rights of @other? */
static bool is_of_kind(struct pt_leaf leaf, struct pt_leaf other,
                       unsigned level)
{
    return leaf.level == level && pte_is_present(leaf.entry) &&
           ((leaf.entry.v ^ other.entry.v) & ~(PTE_FRAME | PTE_AD)) == 0;
}

/*
 * Could the entries around @page become one of @level? A glance, nothing
 * locked: at its own, those beside it, and the ends of their table.
 */
static bool looks_whole(vaddr_t page, unsigned level)
{
    uint64_t part = pte_span(level - 1);
    vaddr_t start = align_down(page, pte_span(level));
    vaddr_t last = start + pte_span(level) - part;
    vaddr_t own = align_down(page, part);
    const vaddr_t seen[] = {own == start ? last : own - part,
                            own == last ? start : own + part, start, last};
    uint64_t irq = port_irq_save();
    struct pt_leaf leaf = pt_lookup(&pt_kernel, own);
    bool is_whole = is_of_kind(leaf, leaf, level - 1);

    for (size_t i = 0; is_whole && i < sizeof(seen) / sizeof(seen[0]); i++) {
        is_whole = is_of_kind(pt_lookup(&pt_kernel, seen[i]), leaf, level - 1);
    }
    port_irq_restore(irq);
    return is_whole;
}

/* The level of what leads to @page; it may be another soon. */
static unsigned level_of(vaddr_t page)
{
    uint64_t irq = port_irq_save();
    unsigned level = pt_lookup(&pt_kernel, page).level;

    port_irq_restore(irq);
    return level;
}

/* Put what lies around @page together, as far as it has become alike. */
static void merge_around(vaddr_t page)
{
    enum mm_status status = MM_OK;

    for (unsigned level = level_of(page) + 1;
         status == MM_OK && level <= pt_max_leaf() && looks_whole(page, level);
         level++) {
        vaddr_t start = align_down(page, pte_span(level));
        struct tlb_batch batch;
        struct pt_cursor cursor;

        status = pt_open(&pt_kernel, start, start + pte_span(level), &batch,
                         &cursor);
        if (status == MM_OK) {
            status = pt_merge(&cursor, start, level);
            pt_close(&cursor);
            tlb_commit(&batch);
        }
    }
}

enum mm_status pt_protect_kernel(vaddr_t start, uint64_t bytes,
                                 struct pt_attr attr)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    enum mm_status status =
        pt_open(&pt_kernel, start, start + bytes, &batch, &cursor);

    if (status != MM_OK) {
        return status;
    }
    status = pt_protect(&cursor, start, bytes, attr);
    pt_close(&cursor);
    tlb_commit(&batch);
    /* Where memory was short a part may have been cut, and be code still. */
    if (!pt_may_resize(status == MM_OK ? attr.flags : PT_EXEC)) {
        return status;
    }
    for (vaddr_t at = start; at - start < bytes;
         at = align_down(at, pte_span(1)) + pte_span(1)) {
        merge_around(at);
    }
    return status;
}
