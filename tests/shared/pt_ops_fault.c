/* SPDX-License-Identifier: MIT */
/* pt ops: faults, handled by the library, and step by step as it would. */
#include "tests/shared/pt_ops_impl.h"

#include <mm/fault.h>
#include <mm/port.h>

/* Map @pfn, which is new, to the range; frames that are not wanted go back. */
static bool supply(struct pt_ops *ops, const struct pt_job *job, pfn_t pfn,
                   struct pt_attr attr)
{
    bool is_owned = (attr.flags & PT_OWNED) != 0;
    enum mm_status status =
        pt_map(&ops->cursor, job->start, pfn, job->bytes, attr);

    if (pt_ops_took(ops, status, MM_OK)) {
        struct pt_page page = {
            .state = PTE_PRESENT, .attr = attr, .number = pfn.v};

        pt_model_set(&ops->model, job->space, job->span, page);
        ops->done[PT_OP_FAULT]++;
        return true;
    }
    if (is_owned) {
        frame_unref(pfn);
    }
    return false;
}

static pfn_t new_block(const struct pt_ops *ops, const struct pt_job *job,
                       unsigned flags)
{
    unsigned order = job->bytes == PAGE_BYTES ? 0 : 9;

    return pt_ops_has_frames(ops, order) ? frame_alloc(order, FRAME_USER, flags)
                                         : PFN_NONE;
}

/* The block of 2 MiB around the page, if all of it is one promise. */
static bool widen(struct pt_ops *ops, struct pt_job *job)
{
    struct pt_job wide = *job;

    wide.span = pt_model_block(&ops->model, job->span.first, 2 * MiB);
    wide.start = pt_model_start(&ops->model, wide.span);
    wide.bytes = pt_model_bytes_of(&ops->model, wide.span);
    if (wide.bytes != 2 * MiB ||
        !pt_model_is_alike(&ops->model, job->space, wide.span)) {
        return false;
    }
    *job = wide;
    return true;
}

static void fill_with_zeroes(struct pt_ops *ops, struct pt_job *job,
                             struct pt_attr attr)
{
    if (job->op->variant >= 8 && !widen(ops, job)) {
        return;
    }
    pfn_t pfn = new_block(ops, job, FRAME_ZEROED);
    attr.flags |= PT_OWNED;
    attr.memory = PT_WB;
    if (pfn_is_none(pfn) || !pt_ops_open(ops, job) ||
        !supply(ops, job, pfn, attr)) {
        return;
    }
    for (unsigned i = 0; i < job->span.count; i++) {
        struct pt_page *page =
            pt_ops_page(ops, job->space, job->span.first + i);
        EXPECT_EQUAL(ops, pt_ops_word(pfn_of(page->number)), 0);
        pt_ops_copy_words(pfn_of(page->number), pfn_of(page->number));
    }
}

/* Page number N of what is no file, but lasts as long. */
#define OBJECT_PAGES (UINT64_C(1) << 20)

static void fill_with_object(struct pt_ops *ops, struct pt_job *job,
                             const struct pt_page *page)
{
    pfn_t pfn = pfn_add(pt_ops_device(), page->number % OBJECT_PAGES);

    if (pt_ops_open(ops, job)) {
        (void)supply(ops, job, pfn, page->attr);
    }
}

/* Nothing there now; the cursor stays open. False: that was not possible. */
static bool take_away(struct pt_ops *ops, const struct pt_job *job)
{
    vaddr_t reached = 0;
    enum mm_status status =
        pt_unmap(&ops->cursor, job->start, job->bytes, &reached);

    if (!pt_ops_took(ops, status, MM_OK)) {
        return false;
    }
    if (reached != job->start + job->bytes) {
        return false; /* the batch of this cursor is full */
    }
    pt_model_set(&ops->model, job->space, job->span,
                 (struct pt_page){.state = PTE_ABSENT});
    return true;
}

/* A page of its own with the same contents; the last holder keeps the page. */
static void copy_page(struct pt_ops *ops, struct pt_job *job)
{
    struct pt_page page = *pt_ops_page(ops, job->space, job->span.first);
    pfn_t old = pfn_of(page.number);
    struct pt_attr attr = page.attr;
    bool is_last = record_of(old)->order == 0 && !pt_page_is_shared(&page) &&
                   pfn_equal(pt_page_block(&page), old);
    pfn_t new = is_last ? old : new_block(ops, job, FRAME_ANY);

    attr.flags &= (uint8_t)~PT_COW;
    attr.flags |= attr.flags & PT_EXEC ? 0 : PT_WRITE;
    if (pfn_is_none(new)) {
        return;
    }
    if (is_last) {
        frame_ref(old);
    } else {
        pt_ops_copy_words(old, new);
    }
    if (!pt_ops_open(ops, job) || !take_away(ops, job)) {
        frame_unref(new);
        return;
    }
    if (supply(ops, job, new, attr)) {
        struct pt_page *copy = pt_ops_page(ops, job->space, job->span.first);
        copy->word = page.word;
        copy->is_dirty = false;
    }
}

/* Would a fault there end in a page? */
static bool can_fault(const struct pt_ops *ops, unsigned space, unsigned index)
{
    const struct pt_page *page = &ops->model.page[space][index];
    uint64_t bytes = ops->model.cell[index].bytes;

    if ((bytes != PAGE_BYTES && bytes != 2 * MiB) ||
        (page->attr.flags & PT_NONE)) {
        return false;
    }
    return (page->state == PTE_PROMISE && page->promise <= PT_OBJECT) ||
           (page->state == PTE_PRESENT && (page->attr.flags & PT_COW));
}

/* --- by the library --------------------------------------------------------
 */

static enum fault_result handle(struct pt_ops *ops, const struct pt_job *job,
                                const struct pt_page *page)
{
    unsigned code = page->state == PTE_PRESENT ? FAULT_P | FAULT_W : 0;
    struct fault fault = {.address = job->start, .rules = ops->world->rules};
    struct walk walk;

    code |= page->attr.flags & PT_USER ? FAULT_U : 0;
    code |= page->attr.flags & PT_WRITE ? FAULT_W : 0;
    fault.code = code;
    uint64_t irq = port_irq_save();
    enum fault_result result = fault_handle(&fault, &walk);
    port_irq_restore(irq);
    return result;
}

/* What stands there now: a zeroed page, or all the pages of a large one. */
static void note_zeroes(struct pt_ops *ops, const struct pt_job *job,
                        const struct pt_entry *entry)
{
    struct pt_span span =
        pt_model_find(&ops->model, entry->start, entry->bytes);
    struct pt_page page = *pt_ops_page(ops, job->space, span.first);

    EXPECT(ops, pt_model_is_alike(&ops->model, job->space, span));
    page.state = PTE_PRESENT;
    page.attr.flags |= PT_OWNED;
    page.number = entry->pfn.v;
    page.word = 0;
    pt_model_set(&ops->model, job->space, span, page);
    for (unsigned i = 0; i < span.count; i++) {
        pfn_t pfn = pfn_add(entry->pfn, i);
        EXPECT_EQUAL(ops, pt_ops_word(pfn), 0);
        pt_ops_copy_words(pfn, pfn);
    }
}

/* The pages of the leaf are writable, or one page is another. */
static void note_unshared(struct pt_ops *ops, const struct pt_job *job,
                          const struct pt_entry *entry)
{
    struct pt_span span =
        pt_model_find(&ops->model, entry->start, entry->bytes);
    struct pt_page *page = pt_ops_page(ops, job->space, job->span.first);
    uint64_t pages = (job->start - entry->start) >> PAGE_SHIFT;

    if (entry->pfn.v + pages != page->number) {
        EXPECT_EQUAL(ops, entry->level, 0);
        page->number = entry->pfn.v;
        page->is_dirty = false;
        pt_ops_copy_words(entry->pfn, entry->pfn);
    }
    for (unsigned i = 0; i < span.count; i++) {
        pt_ops_page(ops, job->space, span.first + i)->attr.flags ^=
            PT_COW | PT_WRITE;
    }
}

/* The library's own decision, on the space that is loaded. */
static void have_handled(struct pt_ops *ops, const struct pt_job *job)
{
    static const struct pt_op any = {.what = PT_OP_FAULT};
    struct pt_job look = {.op = &any, .space = job->space};
    struct pt_page page = *pt_ops_page(ops, job->space, job->span.first);
    bool is_promise = page.state == PTE_PROMISE;
    struct pt_entry entry;

    pt_ops_close(ops);
    pt_ops_load(ops, job->space);
    enum fault_result result = handle(ops, job, &page);
    if (result == FAULT_NO_MEMORY && ops->may_fail) {
        ops->failures++;
        ops->is_unsure = true;
        return;
    }
    EXPECT_EQUAL(ops, result, is_promise ? FAULT_RESOLVED : FAULT_UNSHARED);
    if (!pt_ops_open(ops, &look)) {
        return;
    }
    pt_query(&ops->cursor, job->start, &entry);
    EXPECT_EQUAL(ops, entry.state, PTE_PRESENT);
    if (is_promise) {
        note_zeroes(ops, job, &entry);
    } else {
        note_unshared(ops, job, &entry);
    }
    ops->done[PT_OP_FAULT]++;
}

/* --- either ----------------------------------------------------------------
 */

/* Cells that are looked at for one where there is something to do. */
#define SEARCHED 64

/* The first from the beginning of the range on, if need be behind it. */
void pt_ops_fault(struct pt_ops *ops, const struct pt_job *given)
{
    struct pt_job job = *given;
    unsigned end = job.span.first + SEARCHED;

    end = end < ops->model.cells ? end : ops->model.cells;
    while (job.span.first < end && !can_fault(ops, job.space, job.span.first)) {
        job.span.first++;
    }
    if (job.span.first == end) {
        return;
    }
    struct pt_page page = *pt_ops_page(ops, job.space, job.span.first);
    job.span.count = 1;
    job.start = pt_model_start(&ops->model, job.span);
    job.bytes = pt_model_bytes_of(&ops->model, job.span);
    if (job.op->variant % 2 && page.promise != PT_OBJECT &&
        job.bytes == PAGE_BYTES && pt_ops_has_frames(ops, 9)) {
        have_handled(ops, &job);
    } else if (page.state == PTE_PRESENT) {
        copy_page(ops, &job);
    } else if (page.promise == PT_ZERO) {
        fill_with_zeroes(ops, &job, page.attr);
    } else {
        fill_with_object(ops, &job, &page);
    }
}
