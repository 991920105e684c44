/* SPDX-License-Identifier: MIT */
/* audit: whole tables read through: merged ranges, and what must never be. */
/*
 * Idea      The tables are the truth, so a reader of the tables can answer
 *           everything: which ranges there are, and whether a rule is broken
 *           anywhere. It takes no lock: it is for tests, the monitor and the
 *           moment before CR3 is loaded.
 *
 * Cost      O(entries of all tables).
 *
 * Limits    Frames that are mapped twice are found among mappings that are
 *           executable or not write-back, which are few; to find every frame
 *           that has two mappings would take memory in proportion to RAM.
 */
#include <mm/audit.h>

#include <mm/frame.h>
#include "base/bits.h"
#include "base/check.h"
#include "map/scan.h"
#include "map/table.h"

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

    uint64_t inside = (run.start & (pte_span(scan->at) - 1)) >> PAGE_SHIFT;
    run.bytes = min_u64(entry_end - 1, end - 1) - run.start + 1;
    if (run.state == PTE_PROMISE) {
        run.promise = pte_promise(scan->entry);
        run.payload = pte_payload(scan->entry);
        run.payload += run.promise == PT_OBJECT ? inside : 0;
    } else if (run.state == PTE_SWAPPED) {
        run.payload = pte_payload(scan->entry) + inside;
    } else if (run.state == PTE_PRESENT || run.state == PTE_PARKED) {
        run.pfn = pfn_add(pte_pfn(scan->entry, scan->at), inside);
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

/* Does @next lead to what comes after that which @run leads to? */
static bool follows(const struct audit_run *run, const struct audit_run *next)
{
    uint64_t pages = run->bytes >> PAGE_SHIFT;

    switch (run->state) {
    case PTE_PRESENT:
    case PTE_PARKED:
        return pfn_equal(pfn_add(run->pfn, pages), next->pfn);
    case PTE_PROMISE:
        return run->promise != PT_OBJECT ||
               run->payload + pages == next->payload;
    case PTE_SWAPPED:
        return run->payload + pages == next->payload;
    default:
        return true;
    }
}

/* What becomes one run. */
enum merge {
    MERGE_ALIKE,     /* entries that say the same */
    MERGE_CONTIGUOUS /* and lead to what is contiguous */
};

static void report_runs(const struct scan *range, enum merge merge,
                        audit_fn report, void *context)
{
    struct audit_run run = {.bytes = 0};
    struct scan scan = *range;
    enum scan_event event;

    while ((event = scan_next(&scan)) != SCAN_END) {
        if (event == SCAN_LEAVE || pte_is_table(scan.entry, scan.at)) {
            continue;
        }
        struct audit_run next = run_of(&scan, scan.end);
        bool is_next = continues(&run, &next) && follows(&run, &next);
        if (is_next || (merge == MERGE_ALIKE && continues(&run, &next))) {
            run.is_contiguous = run.is_contiguous && is_next;
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

void audit_runs(const struct pt *pt, vaddr_t start, vaddr_t end,
                audit_fn report, void *context)
{
    struct scan scan;

    scan_init(&scan, pt->root, pt_features.levels - 1, start, end);
    report_runs(&scan, MERGE_ALIKE, report, context);
}

void audit_extents(const struct pt *pt, vaddr_t start, vaddr_t end,
                   audit_fn report, void *context)
{
    struct scan scan;

    scan_init(&scan, pt->root, pt_features.levels - 1, start, end);
    report_runs(&scan, MERGE_CONTIGUOUS, report, context);
}

/* --- aliases -------------------------------------------------------------- */

#define REMEMBERED 16

/* Mappings that others may clash with, and what was found. */
struct clashes {
    unsigned count;
    struct audit_run risky[REMEMBERED];
    vaddr_t next; /* where the first that had no place begins */
    bool is_full;
    struct audit_aliases *out;
};

/* What the page says of caching, as the PAT knows it. */
static unsigned memory_type(const struct audit_run *run)
{
    return (unsigned)(PTE_PAT_LAYOUT >> (run->attr.memory * 8)) & 0xff;
}

static bool is_write_back(const struct audit_run *run)
{
    return memory_type(run) == (PTE_PAT_LAYOUT & 0xff);
}

/* Without NX everything can be executed; that says nothing. */
static bool is_executable(const struct audit_run *run)
{
    return pt_features.has_nx && (run->attr.flags & PT_EXEC) != 0;
}

static bool remember_risky(void *context, const struct audit_run *run)
{
    struct clashes *clashes = context;

    if (run->state != PTE_PRESENT ||
        (is_write_back(run) && !is_executable(run))) {
        return true;
    }
    if (clashes->count == REMEMBERED) {
        clashes->is_full = true;
        clashes->next = run->start;
        return false;
    }
    clashes->risky[clashes->count++] = *run;
    return true;
}

/* Can what @risky executes be written by @run, by whom it does not trust? */
static bool lets_write(const struct audit_run *run,
                       const struct audit_run *risky)
{
    return is_executable(risky) && (run->attr.flags & PT_WRITE) != 0 &&
           ((risky->attr.flags & PT_USER) == 0 ||
            (run->attr.flags & PT_USER) != 0);
}

/* Of two that are not write-back, each meets the other: count it once. */
static bool has_other_type(const struct audit_run *run,
                           const struct audit_run *risky)
{
    return memory_type(run) != memory_type(risky) &&
           (is_write_back(run) || is_write_back(risky) ||
            run->start < risky->start);
}

static void compare(struct audit_aliases *out, const struct audit_run *run,
                    const struct audit_run *risky)
{
    uint64_t first = max_u64(run->pfn.v, risky->pfn.v);
    uint64_t end = min_u64(run->pfn.v + (run->bytes >> PAGE_SHIFT),
                           risky->pfn.v + (risky->bytes >> PAGE_SHIFT));
    bool is_known = out->rights + out->memory > 0;

    if (first >= end || run->start == risky->start) {
        return;
    }
    bool rights = lets_write(run, risky);
    bool memory = has_other_type(run, risky);
    out->rights += rights ? 1 : 0;
    out->memory += memory ? 1 : 0;
    if ((rights || memory) && !is_known) {
        out->address[0] = risky->start + ((first - risky->pfn.v) << PAGE_SHIFT);
        out->address[1] = run->start + ((first - run->pfn.v) << PAGE_SHIFT);
    }
}

static bool compare_all(void *context, const struct audit_run *run)
{
    const struct clashes *clashes = context;

    for (unsigned i = 0; run->state == PTE_PRESENT && i < clashes->count; i++) {
        compare(clashes->out, run, &clashes->risky[i]);
    }
    return true;
}

bool audit_aliases(const struct pt *pt, struct audit_aliases *out)
{
    struct clashes clashes = {.is_full = true, .out = out};
    vaddr_t half = pte_span(pt_features.levels - 1) * (PTE_TABLE_COUNT / 2);

    *out = (struct audit_aliases){0};
    while (clashes.is_full) {
        clashes.is_full = false;
        clashes.count = 0;
        audit_extents(pt, clashes.next, pt->is_kernel ? 0 : half,
                      remember_risky, &clashes);
        if (clashes.count > 0) {
            audit_extents(pt, 0, 0, compare_all, &clashes);
        }
    }
    return out->rights == 0 && out->memory == 0;
}

/* --- everything at once --------------------------------------------------- */

/* (C) What may lead to free frames; see audit_set_fixed(). */
static struct pt_range fixed[2];

void audit_set_fixed(struct pt_range direct, struct pt_range image)
{
    fixed[0] = direct;
    fixed[1] = image;
}

/* Has start-up mapped @address, whoever has the frame? */
static bool is_fixed(vaddr_t address)
{
    for (unsigned i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        if (address - fixed[i].start < fixed[i].end - fixed[i].start) {
            return true;
        }
    }
    return false;
}

/* Does the entry lead to a frame that is anybody's to take? */
static bool leads_to_free_frame(const struct scan *scan)
{
    if (pte_owns_frames(scan->entry, scan->at)) {
        return frame_state(pte_pfn(scan->entry, scan->at)) !=
               FRAME_STATE_ALLOCATED;
    }
    if (!pte_has_frames(scan->entry, scan->at) || is_fixed(scan->address)) {
        return false;
    }
    pfn_t first = pte_pfn(scan->entry, scan->at);
    for (uint64_t i = 0; i < pte_span(scan->at) >> PAGE_SHIFT; i++) {
        enum frame_state state = frame_state(pfn_add(first, i));

        if (state == FRAME_STATE_FREE || state == FRAME_STATE_CACHED) {
            return true;
        }
    }
    return false;
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
    out->freed_frames += leads_to_free_frame(scan) ? 1 : 0;
    if (state != PTE_PRESENT) {
        return;
    }
    if (scan->at < sizeof(out->leaves) / sizeof(out->leaves[0])) {
        out->leaves[scan->at]++;
    }
    if (pt_features.has_nx && scan->is_writable && scan->is_executable) {
        out->writable_exec++;
    }
}

unsigned audit_table_entries(pfn_t table)
{
    return table_count(table);
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
        } else if (scan_is_foreign(&scan, pt)) {
            scan_skip(&scan);
        }
    }
    uint64_t expected = atomic_load_explicit(&pt->tables, memory_order_relaxed);
    out->lost_tables = out->tables > expected ? out->tables - expected
                                              : expected - out->tables;
    bool has_clashes = pt->is_kernel && !audit_aliases(pt, &out->aliases);
    return !has_clashes && out->writable_exec == 0 && out->reserved_bits == 0 &&
           out->damaged == 0 && out->freed_frames == 0 &&
           out->wrong_counts == 0 && out->empty_tables == 0 &&
           out->lost_tables == 0;
}

/* --- before tables are loaded --------------------------------------------- */

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
