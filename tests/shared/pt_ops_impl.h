/* SPDX-License-Identifier: MIT */
/* pt ops: what its files share. */
#ifndef TESTS_SHARED_PT_OPS_IMPL_H
#define TESTS_SHARED_PT_OPS_IMPL_H

#include "tests/shared/pt_ops.h"

#include <mm/frame.h>
#include "base/bits.h"

/* What an operation works on, out of its bytes. */
struct pt_job {
    const struct pt_op *op;
    unsigned space;
    struct pt_span span;
    vaddr_t start;
    uint64_t bytes;
    struct pt_attr attr;
};

void pt_ops_fail(struct pt_ops *ops, int line, const char *what,
                 uint64_t actual, uint64_t expected);

/* Return from a function without a value if something is not so. */
#define EXPECT(ops, condition)                                                 \
    do {                                                                       \
        if (!(condition)) {                                                    \
            pt_ops_fail(ops, __LINE__, #condition, 0, 1);                      \
            return;                                                            \
        }                                                                      \
    } while (0)

#define EXPECT_EQUAL(ops, actual, expected)                                    \
    do {                                                                       \
        uint64_t expect_actual = (uint64_t)(actual);                           \
        uint64_t expect_expected = (uint64_t)(expected);                       \
        if (expect_actual != expect_expected) {                                \
            pt_ops_fail(ops, __LINE__, #actual, expect_actual,                 \
                        expect_expected);                                      \
            return;                                                            \
        }                                                                      \
    } while (0)

static inline struct pt_page *pt_ops_page(struct pt_ops *ops, unsigned space,
                                          unsigned index)
{
    return &ops->model.page[space][index];
}

/* Spaces with something in the model. */
static inline unsigned pt_ops_spaces(const struct pt_ops *ops)
{
    return ops->is_kernel ? 1 : PT_SPACES;
}

/* The space whose pages can be reached now, or PT_OPS_NONE. */
static inline unsigned pt_ops_in_reach(const struct pt_ops *ops)
{
    return ops->is_kernel ? 0 : ops->loaded;
}

/* What the tables say where @attr was asked for: the kernel's are global. */
static inline struct pt_attr pt_ops_said(const struct pt_ops *ops,
                                         struct pt_attr attr)
{
    attr.flags |= ops->is_kernel ? PT_GLOBAL : 0;
    return attr;
}

/* A cursor over the job's range is open, this one's or the last one's. */
bool pt_ops_open(struct pt_ops *ops, const struct pt_job *job);
/* The same over two ranges. */
bool pt_ops_open_two(struct pt_ops *ops, const struct pt_job *job, vaddr_t to);
/* None is open, and all that was left to invalidate is. */
void pt_ops_close(struct pt_ops *ops);

/*
 * Compare what a call has said.
 * Return: whether it has taken effect. Where memory may fail, MM_ENOMEM is as
 * good as what was expected, and everything is looked at.
 */
bool pt_ops_took(struct pt_ops *ops, enum mm_status status,
                 enum mm_status expected);

/* A new owned frame has a word of its own, which is returned. */
uint64_t pt_ops_mark(struct pt_ops *ops, pfn_t frame);
/* It has the words of another. */
void pt_ops_copy_words(pfn_t from, pfn_t to);
uint64_t pt_ops_word(pfn_t frame);

/* Of a device: no RAM is there. Aligned to 1 GiB; 8 GiB from there on. */
pfn_t pt_ops_device(void);

/* Is there a block, and do enough frames stay for tables? */
bool pt_ops_has_frames(const struct pt_ops *ops, unsigned order);

/* Where does `first` or `extra` point? */
unsigned pt_ops_cell(const struct pt_ops *ops, unsigned position);

/* The same cell if it is a page, else one that is, if any is. */
unsigned pt_ops_fine(const struct pt_ops *ops, unsigned index);

/* Is what one entry of @level says around the cell all there? */
bool pt_ops_has_block(const struct pt_ops *ops, unsigned index, unsigned level);

bool pt_ops_load(struct pt_ops *ops, unsigned space);
/* The space ends and begins. */
void pt_ops_renew(struct pt_ops *ops, unsigned space);

/* The operations. */
void pt_ops_map(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_own(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_promise(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_protect(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_unmap(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_split(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_merge(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_wrong(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_move(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_copy(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_age(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_collapse(struct pt_ops *ops, const struct pt_job *job);
void pt_ops_fault(struct pt_ops *ops, const struct pt_job *job);

/*
 * Does @entry, found at @address, say what the cell does that begins @offset
 * before?
 */
void pt_ops_match(struct pt_ops *ops, const struct pt_entry *entry,
                  const struct pt_page *page, vaddr_t address, uint64_t offset);
/* Compare all that has changed since the last time. */
void pt_ops_look_at_every(struct pt_ops *ops);
/* Look at one cell of an open cursor: does it say what the model says? */
void pt_ops_look(struct pt_ops *ops, unsigned space, unsigned index);
/* An access to a cell of the space that is loaded. */
void pt_ops_access(struct pt_ops *ops, unsigned index, unsigned access);
/* A few cells in and around @span, with everything there is to see. */
void pt_ops_sample(struct pt_ops *ops, unsigned space, struct pt_span span);

#endif
