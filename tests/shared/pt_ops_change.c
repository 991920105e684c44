/* SPDX-License-Identifier: MIT */
/* pt ops: operations on a range of one space. */
#include "tests/shared/pt_ops_impl.h"

#include <mm/port.h>

/* More in one call would be many tables, or not fit where a device is. */
#define MAX_MAPPED (2 * GiB)

/* --- frames --------------------------------------------------------------- */

/* The highest that can be parked, too. */
pfn_t pt_ops_device(void)
{
    uint64_t end =
        min_u64(UINT64_C(1) << (pt_features.physical_bits - PAGE_SHIFT),
                pt_payload_end);

    return pfn_of(end - (8 * GiB >> PAGE_SHIFT));
}

/* What a page of RAM begins with: a word of its own, and code that returns. */
#define CODE_RET UINT64_C(0xc3)

static uint64_t *words_of(pfn_t frame)
{
    return phys_to_virt(pfn_to_phys(frame));
}

uint64_t pt_ops_mark(struct pt_ops *ops, pfn_t frame)
{
    uint64_t *words = words_of(frame);

    words[0] = ops->next_word++;
    words[1] = CODE_RET;
    return words[0];
}

void pt_ops_copy_words(pfn_t from, pfn_t to)
{
    words_of(to)[0] = words_of(from)[0];
    words_of(to)[1] = CODE_RET;
}

uint64_t pt_ops_word(pfn_t frame)
{
    return words_of(frame)[0];
}

/* --- map ------------------------------------------------------------------ */

/* Alike modulo 1 GiB, 2 MiB or not at all, as far as leaves stay few. */
static pfn_t device_frame(const struct pt_job *job)
{
    uint64_t page = job->start >> PAGE_SHIFT;
    unsigned which = job->op->extra >> 5;
    pfn_t device = pt_ops_device();

    if (job->bytes > GiB || job->op->variant < 6) {
        return pfn_add(device, page % (GiB >> PAGE_SHIFT) +
                                   (GiB >> PAGE_SHIFT) * (which % 4));
    }
    if (job->bytes > 4 * MiB || job->op->variant < 12) {
        return pfn_add(device, page % 512 + 512 * (which % 7));
    }
    return pfn_add(device, which * 5 + job->op->size % 512);
}

/* As much of the range as may be mapped at once; false: nothing. */
static bool clip_mapped(struct pt_ops *ops, struct pt_job *job, uint64_t most)
{
    while (job->span.count > 1 && job->bytes > most) {
        job->span.count--;
        job->bytes -= ops->model.cell[job->span.first + job->span.count].bytes;
    }
    return job->bytes <= most;
}

void pt_ops_map(struct pt_ops *ops, const struct pt_job *given)
{
    struct pt_job job = *given;

    if (!clip_mapped(ops, &job, MAX_MAPPED) || !pt_ops_open(ops, &job)) {
        return;
    }
    struct pt_page page = {.attr = pt_ops_said(ops, job.attr),
                           .number = device_frame(&job).v};
    page.state = job.attr.flags & PT_NONE ? PTE_PARKED : PTE_PRESENT;
    bool is_free = !pt_model_has_frames(&ops->model, job.space, job.span);
    enum mm_status status = pt_map(&ops->cursor, job.start, pfn_of(page.number),
                                   job.bytes, job.attr);
    if (pt_ops_took(ops, status, is_free ? MM_OK : MM_EEXIST)) {
        pt_model_set(&ops->model, job.space, job.span, page);
        ops->done[PT_OP_MAP]++;
    }
}

/* --- own ------------------------------------------------------------------ */

/*
 * Frames that stay for who copies pages, and for tables: what is mapped at once
 * may be so twice by small pages, and what is split.
 */
static uint64_t kept_frames(const struct pt_ops *ops)
{
    struct pt_span all = {0, ops->model.cells};
    uint64_t bytes = min_u64(pt_model_bytes_of(&ops->model, all), MAX_MAPPED);

    return 3 * (bytes / pte_span(1)) + 16;
}

bool pt_ops_has_frames(const struct pt_ops *ops, unsigned order)
{
    struct frame_stats stats;

    if (!ops->world->is_alone) {
        return true; /* its RAM is large, and others change the figures */
    }
    frame_stats(&stats);
    return stats.free > kept_frames(ops) + (UINT64_C(1) << order);
}

/* Map the block at @pfn, or its frames, to the range. */
static void own_block(struct pt_ops *ops, const struct pt_job *job, pfn_t pfn,
                      unsigned order, bool is_whole)
{
    struct pt_attr attr = job->attr;
    bool is_free = !pt_model_has_frames(&ops->model, job->space, job->span);
    enum mm_status expected = is_free ? MM_OK : MM_EEXIST;

    attr.flags |= PT_OWNED;
    attr.memory = PT_WB;
    if (!is_whole) {
        EXPECT_EQUAL(ops, frame_split(pfn, order), MM_OK);
    }
    enum mm_status status =
        pt_map(&ops->cursor, job->start, pfn, job->bytes, attr);
    if (!pt_ops_took(ops, status, expected)) {
        for (uint64_t i = 0; !is_whole && i < UINT64_C(1) << order; i++) {
            frame_free(pfn_add(pfn, i), 0);
        }
        if (is_whole) {
            frame_free(pfn, order);
        }
        return;
    }
    struct pt_page page = {.attr = pt_ops_said(ops, attr), .number = pfn.v};
    page.state = attr.flags & PT_NONE ? PTE_PARKED : PTE_PRESENT;
    pt_model_set(&ops->model, job->space, job->span, page);
    for (unsigned i = 0; i < job->span.count; i++) {
        struct pt_page *one = pt_ops_page(ops, job->space, job->span.first + i);
        one->word = pt_ops_mark(ops, pfn_of(one->number));
    }
    ops->done[PT_OP_OWN]++;
}

/* A block of the size of the range, from its beginning on. */
void pt_ops_own(struct pt_ops *ops, const struct pt_job *given)
{
    struct pt_job job = *given;
    unsigned order = 0;
    unsigned limit = job.op->variant < 8 ? 4 : 9;

    /* Frames of other cells would have no word that is known. */
    if (ops->model.cell[job.span.first].bytes > 2 * MiB) {
        return;
    }
    while (order < limit && (PAGE_BYTES << (order + 1)) <= job.bytes) {
        order++;
    }
    bool is_large = (PAGE_BYTES << order) >= 2 * MiB;
    bool is_whole =
        is_large && is_aligned(job.start, 2 * MiB) && job.op->variant < 14;
    if (!clip_mapped(ops, &job, PAGE_BYTES << order) ||
        job.bytes != PAGE_BYTES << order || !pt_ops_has_frames(ops, order) ||
        (ops->model.cell[job.span.first].bytes > PAGE_BYTES && !is_whole)) {
        return;
    }
    pfn_t pfn = frame_alloc(order, FRAME_USER, FRAME_ANY);
    if (pfn_is_none(pfn)) {
        return;
    }
    if (!pt_ops_open(ops, &job)) {
        frame_free(pfn, order);
        return;
    }
    own_block(ops, &job, pfn, order, is_whole || order == 0);
}

/* --- promise, protect, unmap ---------------------------------------------- */

/* Numbers of pages go on from range to range, or not. */
static uint64_t payload_of(const struct pt_job *job)
{
    uint64_t page = job->start >> PAGE_SHIFT;

    return job->op->size % 4 == 0
               ? (uint64_t)job->op->size << 20
               : page % (UINT64_C(1) << 30) + (job->op->extra >> 14);
}

void pt_ops_promise(struct pt_ops *ops, const struct pt_job *job)
{
    static const uint8_t promise[] = {PT_ZERO,   PT_ZERO,      PT_ZERO,
                                      PT_OBJECT, PT_GUARD,     PT_OBJECT,
                                      PT_ZERO,   PT_GUARD_GROW};
    struct pt_page page = {.state = PTE_PROMISE,
                           .attr = pt_ops_said(ops, job->attr),
                           .promise = promise[job->op->variant % 8]};

    if (!pt_ops_open(ops, job)) {
        return;
    }
    page.number = page.promise == PT_OBJECT ? payload_of(job) : 0;
    enum mm_status expected =
        pt_model_has_frames(&ops->model, job->space, job->span) ? MM_EEXIST
                                                                : MM_OK;
    if (page.promise == PT_OBJECT &&
        page.number + (job->bytes >> PAGE_SHIFT) > pt_payload_end) {
        expected = MM_EINVAL; /* on CPUs that look at fewer bits */
    }
    enum mm_status status =
        pt_promise(&ops->cursor, job->start, job->bytes,
                   (enum pt_promise)page.promise, job->attr, page.number);
    if (pt_ops_took(ops, status, expected)) {
        pt_model_set(&ops->model, job->space, job->span, page);
        ops->done[PT_OP_PROMISE]++;
    }
}

void pt_ops_protect(struct pt_ops *ops, const struct pt_job *job)
{
    struct pt_attr attr = job->attr;

    if (!pt_ops_open(ops, job)) {
        return;
    }
    if (pt_model_owns(&ops->model, job->space, job->span)) {
        attr.memory = PT_WB; /* it is RAM */
    }
    enum mm_status status =
        pt_protect(&ops->cursor, job->start, job->bytes, attr);
    if (pt_ops_took(ops, status, MM_OK)) {
        pt_model_protect(&ops->model, job->space, job->span, attr);
        ops->done[PT_OP_PROTECT]++;
    }
}

/* The batch is full: let go, and come again. */
static bool come_again(struct pt_ops *ops, const struct pt_job *job)
{
    pt_ops_close(ops);
    return pt_ops_open(ops, job);
}

void pt_ops_unmap(struct pt_ops *ops, const struct pt_job *given)
{
    struct pt_job job = *given;
    vaddr_t end = job.start + job.bytes;

    while (job.start < end) {
        vaddr_t reached = 0;

        if (!pt_ops_open(ops, &job)) {
            return;
        }
        enum mm_status status =
            pt_unmap(&ops->cursor, job.start, end - job.start, &reached);
        if (!pt_ops_took(ops, status, MM_OK)) {
            return;
        }
        EXPECT(ops, reached >= job.start && reached <= end);
        struct pt_span gone =
            pt_model_find(&ops->model, job.start, reached - job.start);
        if (gone.count > 0) {
            EXPECT_EQUAL(ops, pt_model_bytes_of(&ops->model, gone),
                         reached - job.start);
            pt_model_set(&ops->model, job.space, gone,
                         (struct pt_page){.state = PTE_ABSENT});
        }
        job.start = reached;
        job.bytes = end - reached;
        if (reached < end && !come_again(ops, &job)) {
            return;
        }
    }
    ops->done[PT_OP_UNMAP]++;
}

/* --- split, merge --------------------------------------------------------- */

/* Neither changes what anything means. */
void pt_ops_split(struct pt_ops *ops, const struct pt_job *job)
{
    struct pt_entry entry;

    if (!pt_ops_open(ops, job)) {
        return;
    }
    pt_query(&ops->cursor, job->start, &entry);
    bool is_whole = entry.level == 0 || entry.state == PTE_ABSENT;
    enum mm_status status = pt_split(&ops->cursor, job->start);
    if (pt_ops_took(ops, status, is_whole ? MM_ENOENT : MM_OK)) {
        pt_query(&ops->cursor, job->start, &entry);
        ops->done[PT_OP_SPLIT]++;
    }
}

/*
 * What must be merged is: neighbours that go on, of the next smaller size, with
 * frames of nobody. Owned ones may have other holders, or no block in common.
 */
static bool must_merge(struct pt_ops *ops, const struct pt_job *job,
                       struct pt_span block, unsigned level)
{
    const struct pt_page *page = pt_ops_page(ops, job->space, block.first);
    struct pt_entry entry;

    pt_query(&ops->cursor, pt_model_start(&ops->model, block), &entry);
    if (level != 1 || entry.level != 0 || !pt_features.has_nx ||
        (page->attr.flags & PT_OWNED)) {
        return false;
    }
    return page->state == PTE_PROMISE ||
           (pt_page_has_frame(page) && page->number % 512 == 0);
}

void pt_ops_merge(struct pt_ops *ops, const struct pt_job *job)
{
    unsigned level = 1 + (job->op->variant >= 12 ? job->op->variant % 3 : 0);
    unsigned fine = pt_ops_fine(ops, job->span.first);
    vaddr_t address = ops->model.cell[fine].start;
    vaddr_t start = align_down(address, pte_span(level));
    struct pt_span block = pt_model_find(&ops->model, start, pte_span(level));
    struct pt_op whole = *job->op;
    struct pt_job wide = *job;

    whole.is_exact = false;
    wide.op = &whole;
    if (!pt_ops_has_block(ops, fine, level) || !pt_ops_open(ops, &wide)) {
        return;
    }
    if (job->op->variant < 6) {
        enum mm_status status = pt_split(&ops->cursor, address);
        EXPECT(ops, status == MM_OK || status == MM_ENOENT || ops->may_fail);
    }
    bool is_alike = pt_model_is_alike(&ops->model, job->space, block);
    bool must = is_alike && must_merge(ops, job, block, level);
    enum mm_status status = pt_merge(&ops->cursor, address, level);
    if (must) {
        EXPECT_EQUAL(ops, status, MM_OK);
    }
    EXPECT(ops, status == MM_OK || status == MM_EINVAL || status == MM_ENOENT);
    if (status == MM_OK) {
        struct pt_entry entry;

        EXPECT(ops, is_alike);
        pt_query(&ops->cursor, start, &entry);
        EXPECT_EQUAL(ops, entry.level, level);
        ops->done[PT_OP_MERGE]++;
    }
}

/* --- what must be refused ------------------------------------------------- */

static void refuse(struct pt_ops *ops, enum mm_status status)
{
    EXPECT_EQUAL(ops, status, MM_EINVAL);
}

void pt_ops_wrong(struct pt_ops *ops, const struct pt_job *job)
{
    const uint8_t foreign = ops->is_kernel ? PT_USER : PT_GLOBAL;
    const uint8_t wrong_flags[] = {PT_WRITE | PT_EXEC, PT_WRITE | PT_COW,
                                   foreign, 0x80};
    struct pt_cursor *cursor = &ops->cursor;
    struct pt_attr attr = job->attr;
    vaddr_t reached;

    if (!pt_ops_open(ops, job)) {
        return;
    }
    switch (job->op->variant) {
    case 0:
        refuse(ops, pt_unmap(cursor, job->start + 8, PAGE_BYTES, &reached));
        break;
    case 1:
        refuse(ops, pt_unmap(cursor, job->start, 0, &reached));
        break;
    case 2:
        refuse(ops, pt_protect(cursor, job->start, 64 * TiB, attr));
        break;
    case 3:
        refuse(ops, pt_map(cursor, job->start, pfn_of(UINT64_C(1) << 40),
                           PAGE_BYTES, attr));
        break;
    case 4:
        refuse(ops, pt_promise(cursor, job->start, PAGE_BYTES, PT_OBJECT, attr,
                               UINT64_C(1) << 39));
        break;
    case 5:
        refuse(ops, pt_unmap(cursor, 0, PAGE_BYTES, &reached));
        break;
    default:
        attr.flags = wrong_flags[job->op->size % 4];
        refuse(ops, job->op->variant < 10
                        ? pt_protect(cursor, job->start, PAGE_BYTES, attr)
                        : pt_promise(cursor, job->start, PAGE_BYTES, PT_ZERO,
                                     attr, 0));
        break;
    }
    ops->done[PT_OP_WRONG]++;
}
