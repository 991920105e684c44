/* SPDX-License-Identifier: MIT */
/* pt ops: what moves, copies, ages and replaces whole mappings. */
#include "tests/shared/pt_ops_impl.h"

#include <mm/port.h>

/* --- move ----------------------------------------------------------------- */

/* As many cells from @from on as have one of the same size from @to on. */
static unsigned count_matching(const struct pt_model *model, unsigned from,
                               unsigned to, unsigned most)
{
    unsigned count = 0;

    while (count < most && to + count < model->cells &&
           model->cell[from + count].bytes == model->cell[to + count].bytes) {
        count++;
    }
    return count;
}

void pt_ops_move(struct pt_ops *ops, const struct pt_job *given)
{
    struct pt_model *model = &ops->model;
    struct pt_job job = *given;
    unsigned to = pt_ops_cell(ops, job.op->extra);
    enum mm_status expected = MM_OK;

    job.span.count = count_matching(model, job.span.first, to, job.span.count);
    if (job.span.count == 0) {
        return;
    }
    struct pt_span target = {to, job.span.count};
    vaddr_t address = pt_model_start(model, target);
    job.bytes = pt_model_bytes_of(model, job.span);
    if (!pt_ops_open_two(ops, &job, address)) {
        return;
    }
    if (ops->is_kernel || ranges_overlap(job.start, job.start + job.bytes,
                                         address, address + job.bytes)) {
        expected = MM_EINVAL;
    } else if (pt_model_has_frames(model, job.space, target)) {
        expected = MM_EEXIST;
    }
    enum mm_status status =
        pt_move(&ops->cursor, job.start, address, job.bytes);
    if (pt_ops_took(ops, status, expected)) {
        pt_model_move(model, job.space, job.span, to);
        ops->done[PT_OP_MOVE]++;
    }
}

/* --- copy ----------------------------------------------------------------- */

/* A copy that was not finished may have made pages copied on write. */
static void accept_cow(struct pt_ops *ops, const struct pt_job *job)
{
    for (unsigned i = 0; i < job->span.count; i++) {
        struct pt_page *page =
            pt_ops_page(ops, job->space, job->span.first + i);
        struct pt_entry entry;

        pt_query(&ops->cursor, ops->model.cell[job->span.first + i].start,
                 &entry);
        if ((page->attr.flags & PT_OWNED) && (page->attr.flags & PT_WRITE) &&
            (entry.attr.flags & PT_COW)) {
            page->attr.flags ^= PT_WRITE | PT_COW;
        }
    }
}

/* Something would be copied to where the other space has something. */
static bool is_in_the_way(struct pt_ops *ops, const struct pt_job *job)
{
    for (unsigned i = 0; i < job->span.count; i++) {
        unsigned index = job->span.first + i;

        if (pt_ops_page(ops, job->space, index)->state != PTE_ABSENT &&
            pt_ops_page(ops, 1 - job->space, index)->state != PTE_ABSENT) {
            return true;
        }
    }
    return false;
}

/* The other space is not loaded anywhere, and never was. */
static bool make_room(struct pt_ops *ops, const struct pt_job *job)
{
    unsigned to = 1 - job->space;

    if (ops->is_sharing && to == 0) {
        return false;
    }
    if (ops->is_used[to] || job->op->variant < 8) {
        pt_ops_renew(ops, to);
    } else if (ops->open == to) {
        pt_ops_close(ops);
    }
    return !ops->has_failed;
}

/* Whatever went wrong, the other space has a part of it. */
static void give_up(struct pt_ops *ops, const struct pt_job *job)
{
    accept_cow(ops, job);
    pt_ops_renew(ops, 1 - job->space);
}

void pt_ops_copy(struct pt_ops *ops, const struct pt_job *job)
{
    unsigned to = 1 - job->space;

    if (ops->is_kernel) {
        pt_ops_renew(ops, to); /* which gives it what the kernel has */
        return;
    }
    if (!make_room(ops, job) || !pt_ops_open(ops, job)) {
        return;
    }
    bool is_free = pt_model_is_gap(&ops->model, to, job->span);
    enum mm_status status =
        pt_copy(&ops->cursor, ops->space[to], job->start, job->bytes);
    if (!is_free && status != MM_ENOMEM) {
        EXPECT(ops, status == MM_EEXIST || !is_in_the_way(ops, job));
        give_up(ops, job);
    } else if (pt_ops_took(ops, status, MM_OK)) {
        pt_model_copy(&ops->model, job->space, job->span);
        ops->done[PT_OP_COPY]++;
    } else if (status == MM_ENOMEM) {
        give_up(ops, job);
    }
}

/* --- age ------------------------------------------------------------------ */

struct ageing {
    struct pt_ops *ops;
    const struct pt_job *job;
    unsigned what;
    uint64_t had;
};

static void note_leaf(void *context, const struct pt_entry *entry)
{
    struct ageing *ageing = context;
    struct pt_ops *ops = ageing->ops;

    EXPECT_EQUAL(ops, entry->state, PTE_PRESENT);
    if (((ageing->what & PT_AGE_ACCESSED) && entry->accessed) ||
        ((ageing->what & PT_AGE_DIRTY) && entry->dirty)) {
        ageing->had++;
    }
    if ((ageing->what & PT_AGE_DIRTY) == 0) {
        return;
    }
    struct pt_span span =
        pt_model_find(&ops->model, entry->start, entry->bytes);
    for (unsigned i = 0; i < span.count; i++) {
        struct pt_page *page =
            pt_ops_page(ops, ageing->job->space, span.first + i);

        /* The CPU says that it was written to; the page knows. */
        EXPECT(ops, entry->dirty || !page->is_dirty);
        page->is_dirty = false;
    }
}

void pt_ops_age(struct pt_ops *ops, const struct pt_job *job)
{
    struct ageing ageing = {ops, job, 1 + job->op->variant % 3, 0};
    struct pt_entry entry;

    if (!pt_ops_open(ops, job)) {
        return;
    }
    uint64_t had = pt_age(&ops->cursor, job->start, job->bytes, ageing.what,
                          note_leaf, &ageing);
    EXPECT_EQUAL(ops, had, ageing.had);
    pt_query(&ops->cursor, job->start, &entry);
    if (entry.state == PTE_PRESENT) {
        EXPECT(ops, (ageing.what & PT_AGE_ACCESSED) == 0 || !entry.accessed);
        EXPECT(ops, (ageing.what & PT_AGE_DIRTY) == 0 || !entry.dirty);
    }
    ops->done[PT_OP_AGE]++;
}

/* --- collapse ------------------------------------------------------------- */

/* What there is in a block of 2 MiB. */
struct block {
    struct pt_ops *ops;
    unsigned space;
    struct pt_span span;
    vaddr_t address;
    unsigned present;
    unsigned promised;
    bool is_wanted;
    bool is_alike; /* every page could be in one mapping with the others */
    bool is_plain; /* and nothing stands against it */
    bool is_large; /* already */
};

static bool policy(void *context, const struct pt_collapse *found)
{
    struct block *block = context;

    if (found->address != block->address || found->present != block->present ||
        found->promised != block->promised ||
        found->accessed > found->present) {
        pt_ops_fail(block->ops, __LINE__, "pages found for collapse",
                    found->present << 16 | found->promised,
                    block->present << 16 | block->promised);
    }
    return block->is_wanted;
}

static bool is_sole(const struct pt_page *page)
{
    return record_of(pfn_of(page->number))->order == 0 &&
           !pt_page_is_shared(page);
}

static void look_at_page(struct block *block, const struct pt_page *first,
                         const struct pt_page *page)
{
    struct pt_attr attr = first->attr;
    struct pt_attr other = page->attr;

    attr.flags |= PT_OWNED;
    other.flags |= PT_OWNED;
    block->is_alike = block->is_alike && pt_attr_alike(attr, other);
    if (page->state == PTE_PROMISE && page->promise == PT_ZERO) {
        block->promised++;
    } else if (page->state == PTE_PRESENT) {
        block->present++;
        if ((page->attr.flags & PT_OWNED) == 0) {
            block->is_plain = false;
        } else if ((page->attr.flags & PT_COW) || !is_sole(page)) {
            block->is_plain = false;
        }
    } else {
        block->is_alike = false;
    }
}

static bool is_large(struct pt_ops *ops, unsigned space, vaddr_t address)
{
    static const struct pt_op any = {.what = PT_OP_COLLAPSE};
    struct pt_job job = {.op = &any, .space = space};
    struct pt_entry entry = {.level = 0};

    if (pt_ops_open(ops, &job)) {
        pt_query(&ops->cursor, address, &entry);
        pt_ops_close(ops);
    }
    return entry.level > 0;
}

static struct block look_at_block(struct pt_ops *ops, const struct pt_job *job)
{
    struct block block = {
        .ops = ops,
        .space = job->space,
        .span = pt_model_block(&ops->model, job->span.first, 2 * MiB),
        .is_wanted = job->op->variant % 8 != 7,
        .is_alike = true,
        .is_plain = true,
    };
    const struct pt_page *first =
        pt_ops_page(ops, job->space, block.span.first);

    block.address = pt_model_start(&ops->model, block.span);
    for (unsigned i = 0; i < block.span.count; i++) {
        look_at_page(&block, first,
                     pt_ops_page(ops, job->space, block.span.first + i));
    }
    block.is_large = is_large(ops, job->space, block.address);
    block.is_plain = block.is_plain && block.is_alike && block.is_wanted &&
                     !block.is_large && block.present > 0 &&
                     (first->attr.flags & PT_NONE) == 0 &&
                     (first->attr.memory == PT_WB) && block.span.count == 512;
    return block;
}

/* One page of a block that was collapsed. */
static void note_collapsed(struct pt_ops *ops, struct pt_page *page, pfn_t pfn)
{
    if (page->state == PTE_PROMISE) {
        page->state = PTE_PRESENT;
        page->attr.flags |= PT_OWNED;
        page->word = 0;
    }
    page->number = pfn.v;
    if (page->attr.flags & PT_OWNED) {
        EXPECT_EQUAL(ops, pt_ops_word(pfn), page->word);
        pt_ops_copy_words(pfn, pfn); /* zeroes get their code */
    }
}

static void note_block(struct pt_ops *ops, const struct block *block)
{
    struct pt_op any = {.what = PT_OP_COLLAPSE};
    struct pt_job job = {.op = &any, .space = block->space};
    struct pt_entry entry;

    if (!pt_ops_open(ops, &job)) {
        return;
    }
    pt_query(&ops->cursor, block->address, &entry);
    EXPECT_EQUAL(ops, entry.level, 1);
    EXPECT_EQUAL(ops, entry.state, PTE_PRESENT);
    for (unsigned i = 0; i < block->span.count && !ops->has_failed; i++) {
        note_collapsed(ops,
                       pt_ops_page(ops, block->space, block->span.first + i),
                       pfn_add(entry.pfn, i));
    }
    ops->done[PT_OP_COLLAPSE]++;
}

/*
 * Half of the time there is something to collapse first: a promise, and a few
 * of its pages, in a row or not.
 */
static void prepare_block(struct pt_ops *ops, const struct pt_job *given)
{
    struct pt_op op = *given->op;
    struct pt_job job = *given;

    job.op = &op;
    job.span = pt_model_block(&ops->model, job.span.first, 2 * MiB);
    job.start = pt_model_start(&ops->model, job.span);
    job.bytes = pt_model_bytes_of(&ops->model, job.span);
    if (op.variant >= 8 || job.bytes != 2 * MiB) {
        return;
    }
    pt_ops_unmap(ops, &job);
    op.variant = 0; /* zeroes, small */
    for (unsigned i = 0; i <= op.extra % 5 && !ops->has_failed; i++) {
        if (i == 0) {
            pt_ops_promise(ops, &job);
        }
        job.span.first += (op.size + i) % (job.span.count > 1 ? 64 : 1);
        pt_ops_fault(ops, &job);
    }
}

/* The last block of the range is one leaf, if its pages can be. */
static void look_at_merged(struct pt_ops *ops, const struct pt_job *job)
{
    unsigned last = job->span.first + job->span.count - 1;
    struct pt_span block = pt_model_block(&ops->model, last, 2 * MiB);
    const struct pt_page *page = pt_ops_page(ops, job->space, block.first);

    if (page->state == PTE_PRESENT && (page->attr.flags & PT_OWNED) == 0 &&
        page->number % 512 == 0 && block.count == 512 && pt_features.has_nx &&
        pt_may_resize(page->attr.flags) &&
        pt_model_is_alike(&ops->model, job->space, block)) {
        EXPECT(ops,
               is_large(ops, job->space, pt_model_start(&ops->model, block)));
        ops->done[PT_OP_MERGE]++;
    }
}

/* It looks at each 2 MiB: not more than that many. */
#define MAX_AT_ONCE GiB

/* There is nothing to collapse in the kernel's tables; they have their own. */
static void protect_kernel(struct pt_ops *ops, const struct pt_job *job)
{
    struct pt_attr attr = job->attr;

    if (job->bytes > MAX_AT_ONCE) {
        return;
    }
    pt_ops_close(ops);
    if (pt_model_owns(&ops->model, job->space, job->span)) {
        attr.memory = PT_WB; /* it is RAM */
    }
    enum mm_status status = pt_protect_kernel(job->start, job->bytes, attr);
    if (pt_ops_took(ops, status, MM_OK)) {
        pt_model_protect(&ops->model, job->space, job->span, attr);
        ops->done[PT_OP_COLLAPSE]++;
        look_at_merged(ops, job);
    }
}

void pt_ops_collapse(struct pt_ops *ops, const struct pt_job *given)
{
    struct pt_job narrow = *given;
    const struct pt_job *job = &narrow;

    if (ops->is_kernel && given->op->variant < 14) {
        protect_kernel(ops, given);
        return;
    }

    narrow.span.first = pt_ops_fine(ops, given->span.first);
    if (!pt_ops_has_block(ops, narrow.span.first, 1)) {
        return;
    }
    prepare_block(ops, job);
    if (ops->has_failed) {
        return;
    }
    pt_ops_close(ops);
    struct block block = look_at_block(ops, job);
    vaddr_t shift = job->op->variant == 15 ? PAGE_BYTES : 0;
    bool is_small = block.span.count == 512;
    bool can_resize = pt_may_resize(
        pt_ops_page(ops, job->space, block.span.first)->attr.flags);
    enum mm_status status = pt_collapse(ops->space[job->space],
                                        block.address + shift, policy, &block);

    if (ops->has_failed) {
        return;
    }
    if (shift != 0 || ops->is_kernel) {
        EXPECT_EQUAL(ops, status, MM_EINVAL);
        return;
    }
    if (status == MM_ENOMEM && (ops->may_fail || !pt_ops_has_frames(ops, 9))) {
        ops->is_unsure = true;
        return;
    }
    if (block.is_plain && can_resize) {
        EXPECT_EQUAL(ops, status, MM_OK);
    }
    EXPECT(ops, status == MM_OK || status == MM_ENOENT || status == MM_ERANGE);
    EXPECT(ops, status != MM_ERANGE || !block.is_wanted || !can_resize);
    if (status == MM_OK) {
        EXPECT(ops, can_resize && block.is_alike && is_small);
        EXPECT(ops, !block.is_large);
        note_block(ops, &block);
    }
}
