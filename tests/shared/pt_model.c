/* SPDX-License-Identifier: MIT */
/* pt model: what page tables must say, kept naively, an entry a page. */
#include "tests/shared/pt_model.h"

#include <mm/frame.h>
#include <mm/record.h>
#include "base/bits.h"

#define FINE      512 /* single pages: as many as one table has */
#define COARSE    3   /* cells of 2 MiB beside them */
#define COARSE_2M (2 * MiB)

struct pt_layout pt_layout_large(vaddr_t base)
{
    /* One GiB: pages, large pages, what lies between, and back. */
    const uint64_t middle = GiB - 2 * (COARSE + 1) * COARSE_2M;

    return (struct pt_layout){
        .start = base + 512 * GiB,
        .segment =
            {
                {256 * GiB, 1},
                {254 * GiB, 1},
                {GiB, 1},
                {PAGE_BYTES, FINE},
                {COARSE_2M, COARSE},
                {middle, 1},
                {COARSE_2M, COARSE},
                {PAGE_BYTES, FINE},
                /* 1 TiB */
                {PAGE_BYTES, FINE},
                {COARSE_2M, COARSE},
                {middle, 1},
                {COARSE_2M, COARSE},
                {PAGE_BYTES, FINE},
                {GiB, 1},
                {510 * GiB, 1},
                {512 * GiB, 1},
            },
    };
}

struct pt_layout pt_layout_kernel(vaddr_t base)
{
    const uint64_t middle = GiB - (COARSE + 1) * COARSE_2M;

    return (struct pt_layout){
        .start = base + 128 * GiB,
        .segment =
            {
                {127 * GiB, 1},
                {middle, 1},
                {COARSE_2M, COARSE},
                {PAGE_BYTES, FINE},
                /* 256 GiB */
                {PAGE_BYTES, FINE},
                {COARSE_2M, COARSE},
                {middle, 1},
                {127 * GiB, 1},
            },
    };
}

#define SMALL 40

struct pt_layout pt_layout_small(vaddr_t base)
{
    return (struct pt_layout){
        .start = base + TiB - SMALL * PAGE_BYTES,
        .segment = {{PAGE_BYTES, SMALL}, {PAGE_BYTES, SMALL}},
    };
}

unsigned pt_layout_cells(const struct pt_layout *layout)
{
    unsigned cells = 0;

    for (unsigned i = 0; i < PT_SEGMENTS; i++) {
        cells += layout->segment[i].bytes > 0 ? layout->segment[i].count : 0;
    }
    return cells;
}

size_t pt_model_bytes(const struct pt_layout *layout)
{
    size_t each = sizeof(struct pt_cell) +
                  PT_SPACES * (sizeof(struct pt_page) + sizeof(uint64_t));

    return pt_layout_cells(layout) * each;
}

static void make_cells(struct pt_model *model, const struct pt_layout *layout)
{
    vaddr_t at = layout->start;

    model->cells = 0;
    model->edges = 0;
    for (unsigned i = 0; i < PT_SEGMENTS && layout->segment[i].bytes > 0; i++) {
        const struct pt_segment *segment = &layout->segment[i];

        model->edge[model->edges++] = model->cells;
        for (unsigned j = 0; j < segment->count; j++) {
            model->cell[model->cells++] = (struct pt_cell){at, segment->bytes};
            at += segment->bytes;
        }
    }
}

void pt_model_init(struct pt_model *model, const struct pt_layout *layout,
                   void *memory)
{
    unsigned cells = pt_layout_cells(layout);

    model->cell = memory;
    struct pt_page *page = (struct pt_page *)(model->cell + cells);
    for (unsigned i = 0; i < PT_SPACES; i++) {
        model->page[i] = page;
        page += cells;
    }
    uint64_t *seen = (uint64_t *)page;
    for (unsigned i = 0; i < PT_SPACES; i++) {
        model->seen[i] = seen;
        seen += cells;
    }
    make_cells(model, layout);
    for (unsigned i = 0; i < PT_SPACES; i++) {
        pt_model_set(model, i, (struct pt_span){0, cells},
                     (struct pt_page){.state = PTE_ABSENT});
    }
}

/* --- where ---------------------------------------------------------------- */

vaddr_t pt_model_start(const struct pt_model *model, struct pt_span span)
{
    return model->cell[span.first].start;
}

uint64_t pt_model_bytes_of(const struct pt_model *model, struct pt_span span)
{
    const struct pt_cell *last = &model->cell[span.first + span.count - 1];

    return last->start + last->bytes - pt_model_start(model, span);
}

struct pt_span pt_model_block(const struct pt_model *model, unsigned index,
                              uint64_t bytes)
{
    vaddr_t start = align_down(model->cell[index].start, bytes);
    struct pt_span span = {index, 1};

    while (span.first > 0 && model->cell[span.first - 1].start >= start) {
        span.first--;
        span.count++;
    }
    while (span.first + span.count < model->cells &&
           model->cell[span.first + span.count].start - start < bytes) {
        span.count++;
    }
    return span;
}

struct pt_span pt_model_find(const struct pt_model *model, vaddr_t start,
                             uint64_t bytes)
{
    struct pt_span span = {0, 0};
    unsigned end = model->cells;

    /* The first cell that ends behind @start lies in [first, end). */
    while (span.first < end) {
        unsigned middle = (span.first + end) / 2;
        const struct pt_cell *cell = &model->cell[middle];

        if (cell->start + cell->bytes <= start) {
            span.first = middle + 1;
        } else {
            end = middle;
        }
    }
    while (span.first + span.count < model->cells &&
           model->cell[span.first + span.count].start < start + bytes) {
        span.count++;
    }
    return span;
}

/* --- what ----------------------------------------------------------------- */

bool pt_page_has_frame(const struct pt_page *page)
{
    return page->state == PTE_PRESENT || page->state == PTE_PARKED;
}

bool pt_page_counts(const struct pt_page *page)
{
    return pt_page_has_frame(page) ||
           (page->state == PTE_PROMISE && page->promise == PT_OBJECT);
}

void pt_model_set(struct pt_model *model, unsigned space, struct pt_span span,
                  struct pt_page page)
{
    bool is_counting = pt_page_counts(&page);
    vaddr_t start = model->cell[span.first].start;

    for (unsigned i = span.first; i < span.first + span.count; i++) {
        struct pt_page *one = &model->page[space][i];

        *one = page;
        if (is_counting) {
            one->number += (model->cell[i].start - start) >> PAGE_SHIFT;
        }
    }
}

bool pt_model_has_frames(const struct pt_model *model, unsigned space,
                         struct pt_span span)
{
    for (unsigned i = span.first; i < span.first + span.count; i++) {
        if (pt_page_has_frame(&model->page[space][i])) {
            return true;
        }
    }
    return false;
}

bool pt_model_is_gap(const struct pt_model *model, unsigned space,
                     struct pt_span span)
{
    for (unsigned i = span.first; i < span.first + span.count; i++) {
        if (model->page[space][i].state != PTE_ABSENT) {
            return false;
        }
    }
    return true;
}

bool pt_model_owns(const struct pt_model *model, unsigned space,
                   struct pt_span span)
{
    for (unsigned i = span.first; i < span.first + span.count; i++) {
        if (model->page[space][i].attr.flags & PT_OWNED) {
            return true;
        }
    }
    return false;
}

bool pt_attr_alike(struct pt_attr a, struct pt_attr b)
{
    if (!pt_features.has_nx) {
        a.flags |= PT_EXEC;
        b.flags |= PT_EXEC;
    }
    return pt_attr_equal(a, b);
}

bool pt_model_is_alike(const struct pt_model *model, unsigned space,
                       struct pt_span span)
{
    const struct pt_page *first = &model->page[space][span.first];
    vaddr_t start = model->cell[span.first].start;

    for (unsigned i = span.first; i < span.first + span.count; i++) {
        const struct pt_page *page = &model->page[space][i];
        uint64_t pages = (model->cell[i].start - start) >> PAGE_SHIFT;

        if (page->state != first->state || page->promise != first->promise ||
            !pt_attr_alike(page->attr, first->attr) ||
            page->number !=
                first->number + (pt_page_counts(first) ? pages : 0)) {
            return false;
        }
    }
    return true;
}

#define RIGHTS (PT_WRITE | PT_EXEC | PT_USER | PT_NONE)

pfn_t pt_page_block(const struct pt_page *page)
{
    return frame_head(pfn_of(page->number));
}

bool pt_page_is_shared(const struct pt_page *page)
{
    return atomic_load(&record_of(pt_page_block(page))->refs) > 1;
}

/* Who may write to an owned page that others hold copies it first. */
static void protect_page(struct pt_page *page, struct pt_attr attr)
{
    unsigned flags =
        (page->attr.flags & ~(unsigned)RIGHTS) | (attr.flags & RIGHTS);

    if (pt_page_has_frame(page) && (flags & PT_OWNED)) {
        bool is_cow = (flags & PT_WRITE) && pt_page_is_shared(page);
        flags &= ~(unsigned)PT_COW;
        flags |= is_cow ? PT_COW : 0;
    }
    if (flags & PT_COW) {
        flags &= ~(unsigned)PT_WRITE;
    }
    page->attr.flags = (uint8_t)flags;
    page->attr.memory = attr.memory;
    if (pt_page_has_frame(page)) {
        page->state = (flags & PT_NONE) ? PTE_PARKED : PTE_PRESENT;
    }
}

void pt_model_protect(struct pt_model *model, unsigned space,
                      struct pt_span span, struct pt_attr attr)
{
    for (unsigned i = span.first; i < span.first + span.count; i++) {
        if (model->page[space][i].state != PTE_ABSENT) {
            protect_page(&model->page[space][i], attr);
        }
    }
}

void pt_model_move(struct pt_model *model, unsigned space, struct pt_span from,
                   unsigned to)
{
    struct pt_page *page = model->page[space];

    for (unsigned i = 0; i < from.count; i++) {
        page[to + i] = page[from.first + i];
        page[from.first + i] = (struct pt_page){.state = PTE_ABSENT};
    }
}

void pt_model_copy(struct pt_model *model, unsigned space, struct pt_span span)
{
    for (unsigned i = span.first; i < span.first + span.count; i++) {
        struct pt_page *page = &model->page[space][i];

        if ((page->attr.flags & (PT_OWNED | PT_WRITE)) ==
            (PT_OWNED | PT_WRITE)) {
            page->attr.flags ^= PT_WRITE | PT_COW;
        }
        model->page[1 - space][i] = *page;
        model->page[1 - space][i].is_dirty = false;
    }
}

void pt_model_write(struct pt_model *model, uint64_t frame, uint64_t word)
{
    for (unsigned space = 0; space < PT_SPACES; space++) {
        for (unsigned i = 0; i < model->cells; i++) {
            struct pt_page *page = &model->page[space][i];

            if ((page->attr.flags & PT_OWNED) && page->number == frame) {
                page->word = word;
            }
        }
    }
}

/* --- access --------------------------------------------------------------- */

enum walk_verdict pt_page_verdict(const struct pt_page *page, unsigned access,
                                  const struct walk_rules *rules)
{
    unsigned flags = page->attr.flags;
    bool by_user = (access & WALK_USER) != 0;

    if (page->state != PTE_PRESENT) {
        return WALK_NOT_PRESENT;
    }
    if (by_user && !(flags & PT_USER)) {
        return WALK_SUPERVISOR;
    }
    if (access & WALK_EXEC) {
        if (rules->nx && !(flags & PT_EXEC)) {
            return WALK_NO_EXECUTE;
        }
        return rules->smep && (flags & PT_USER) && !by_user ? WALK_USER_EXEC
                                                            : WALK_ALLOWED;
    }
    if (rules->smap && (flags & PT_USER) && !by_user) {
        return WALK_USER_ACCESS;
    }
    return (access & WALK_WRITE) && !(flags & PT_WRITE) ? WALK_READ_ONLY
                                                        : WALK_ALLOWED;
}
