/* SPDX-License-Identifier: MIT */
/* audit: whole tables read through: merged ranges, and what must never be. */
/*
 * Idea      The tables are the truth, so a reader of the tables can answer
 *           everything: which ranges there are, and whether a rule is broken
 *           anywhere. It takes no lock: it is for tests, the monitor and the
 *           moment before CR3 is loaded.
 *
 * Cost      O(entries of all tables).
 */
#include <mm/audit.h>

#include <mm/frame.h>
#include "base/bits.h"
#include "base/check.h"
#include "map/cursor.h"
#include "map/scan.h"

/* The run an entry makes by itself. */
static struct audit_run run_of(const struct scan *scan, vaddr_t end)
{
    vaddr_t entry_end =
        align_down(scan->address, pte_span(scan->at)) + pte_span(scan->at);
    struct audit_run run = {.start = scan->address,
                            .state = pte_state(scan->entry, scan->at),
                            .level = scan->at,
                            .attr = pte_attr(scan->entry, scan->at),
                            .pfn = PFN_NONE,
                            .is_contiguous = true};

    run.bytes = min_u64(entry_end - 1, end - 1) - run.start + 1;
    if (run.state == PTE_PROMISE) {
        run.promise = pte_promise(scan->entry);
    }
    if (run.state == PTE_PRESENT || run.state == PTE_PARKED) {
        uint64_t inside = run.start & (pte_span(scan->at) - 1);
        run.pfn = pfn_add(pte_pfn(scan->entry, scan->at), inside >> PAGE_SHIFT);
    }
    if (run.state == PTE_PRESENT) {
        unsigned flags = run.attr.flags & (PT_GLOBAL | PT_OWNED | PT_COW);

        flags |= scan->is_writable ? PT_WRITE : 0;
        flags |= scan->is_executable ? PT_EXEC : 0;
        flags |= scan->is_user ? PT_USER : 0;
        run.attr.flags = (uint8_t)flags;
    }
    return run;
}

/* Do the entries say the same, the one right after the other? */
static bool continues(const struct audit_run *run, const struct audit_run *next)
{
    return run->bytes > 0 && run->start + run->bytes == next->start &&
           run->state == next->state && run->promise == next->promise &&
           run->level == next->level && pt_attr_equal(run->attr, next->attr);
}

void audit_runs(const struct pt *pt, vaddr_t start, vaddr_t end,
                audit_fn report, void *context)
{
    struct audit_run run = {.bytes = 0};
    enum scan_event event;
    struct scan scan;

    scan_init(&scan, pt->root, pt_features.levels - 1, start, end);
    while ((event = scan_next(&scan)) != SCAN_END) {
        if (event == SCAN_LEAVE || pte_is_table(scan.entry, scan.at)) {
            continue;
        }
        struct audit_run next = run_of(&scan, end);
        if (continues(&run, &next)) {
            pfn_t expected = pfn_add(run.pfn, run.bytes >> PAGE_SHIFT);

            run.is_contiguous =
                run.is_contiguous && pfn_equal(expected, next.pfn);
            run.bytes += next.bytes;
            continue;
        }
        if (run.bytes > 0 && !report(context, &run)) {
            return;
        }
        run = next;
    }
    if (run.bytes > 0) {
        report(context, &run);
    }
}

/* Count what is wrong with one entry that is no table. */
static void audit_entry(const struct scan *scan, struct audit_verdict *out)
{
    enum pte_state state = pte_state(scan->entry, scan->at);

    if (state == PTE_PROMISE) {
        out->promises++;
    }
    if (state == PTE_DAMAGED) {
        out->damaged++;
    }
    if (state != PTE_PRESENT) {
        return;
    }
    if (scan->at < sizeof(out->leaves) / sizeof(out->leaves[0])) {
        out->leaves[scan->at]++;
    }
    if (pt_features.has_nx && scan->is_writable && scan->is_executable) {
        out->writable_exec++;
    }
    if ((scan->entry.v & PTE_OWN) &&
        frame_state(pte_pfn(scan->entry, scan->at)) != FRAME_STATE_ALLOCATED) {
        out->freed_frames++;
    }
}

/* Is the number of entries in the table's record the number it has? */
static bool count_is_right(const struct pt *pt, const struct scan *scan)
{
    unsigned entries = scan->entries;

    if (!pt->is_kernel && pfn_equal(scan->owner, pt->root)) {
        const pte_t *root = phys_to_virt(pfn_to_phys(pt->root));

        /* Entries of the kernel's half are not the space's own. */
        for (unsigned i = PTE_TABLE_COUNT / 2; i < PTE_TABLE_COUNT; i++) {
            entries -= pte_is_absent(root[i]) ? 0 : 1;
        }
    }
    return record_of(scan->owner)->type == FRAME_TABLE &&
           table_count(scan->owner) == entries;
}

/* I3 of cursor.c: only the root and what start-up made may be empty. */
static bool is_needlessly_empty(const struct pt *pt, const struct scan *scan)
{
    return scan->entries == 0 && !pfn_equal(scan->owner, pt->root) &&
           table_is_spare(scan->owner);
}

/* Is the entry just seen a way into tables that are not @pt's to audit? */
static bool is_foreign(const struct pt *pt, const struct scan *scan)
{
    return scan_holds_records(scan) ||
           (!pt->is_kernel && scan->at == pt_features.levels - 1 &&
            (scan->address >> 63) != 0);
}

bool pt_audit(const struct pt *pt, struct audit_verdict *out)
{
    enum scan_event event;
    struct scan scan;

    *out = (struct audit_verdict){0};
    scan_init(&scan, pt->root, pt_features.levels - 1, 0, 0);
    while ((event = scan_next(&scan)) != SCAN_END) {
        if (event == SCAN_LEAVE) {
            out->tables++;
            out->wrong_counts += count_is_right(pt, &scan) ? 0 : 1;
            out->empty_tables += is_needlessly_empty(pt, &scan) ? 1 : 0;
            continue;
        }
        if (walk_reserved_bits(scan.entry, scan.at) != 0) {
            out->reserved_bits++;
        }
        if (!pte_is_table(scan.entry, scan.at)) {
            audit_entry(&scan, out);
        } else if (is_foreign(pt, &scan)) {
            scan_skip(&scan);
        }
    }
    uint64_t expected = atomic_load_explicit(&pt->tables, memory_order_relaxed);
    out->lost_tables = out->tables > expected ? out->tables - expected
                                              : expected - out->tables;
    return out->writable_exec == 0 && out->reserved_bits == 0 &&
           out->damaged == 0 && out->freed_frames == 0 &&
           out->wrong_counts == 0 && out->empty_tables == 0 &&
           out->lost_tables == 0;
}

/* What is wrong with one need, or NULL. */
static const char *need_text(pfn_t root, const struct audit_need *need)
{
    struct walk walk;

    walk_address(root, need->address, &walk);
    if (walk.count == 0) {
        return "is not canonical";
    }
    if (walk.state != PTE_PRESENT) {
        return "is not mapped";
    }
    if ((need->flags & PT_WRITE) && !walk.is_writable) {
        return "is not writable";
    }
    if ((need->flags & PT_EXEC) && !walk.is_executable) {
        return "is not executable";
    }
    if (!pfn_is_none(need->pfn) &&
        !pfn_equal(phys_to_pfn(walk.physical), need->pfn)) {
        return "leads to another frame than now";
    }
    return NULL;
}

/* Does no entry have a bit the CPU refuses? Else where. */
static bool bits_are_legal(pfn_t root, struct audit_refusal *out)
{
    enum scan_event event;
    struct scan scan;

    scan_init(&scan, root, pt_features.levels - 1, 0, 0);
    scan_only_refused(&scan);
    while ((event = scan_next(&scan)) != SCAN_END) {
        if (event == SCAN_ENTRY &&
            walk_reserved_bits(scan.entry, scan.at) != 0) {
            *out =
                (struct audit_refusal){walk_level_name(scan.at), scan.address,
                                       "has reserved bits set"};
            return false;
        }
    }
    return true;
}

bool audit_before_load(pfn_t root, const struct audit_need *need, size_t count,
                       struct audit_refusal *out)
{
    if (!bits_are_legal(root, out)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const char *text = need_text(root, &need[i]);

        if (text != NULL) {
            *out = (struct audit_refusal){need[i].name, need[i].address, text};
            return false;
        }
    }
    return true;
}
