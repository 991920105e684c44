/* SPDX-License-Identifier: MIT */
/* pt model: what page tables must say, kept naively, an entry a page. */
#ifndef TESTS_SHARED_PT_MODEL_H
#define TESTS_SHARED_PT_MODEL_H

#include <mm/pt.h>

/*
 * Two spaces at the same addresses. Where it matters each page is a cell of
 * its own; in between there are few cells of many pages, which are never cut,
 * so that ranges of 1 TiB can be spoken of.
 */
#define PT_SPACES   2
#define PT_SEGMENTS 24

/* Cells of one size in a row. */
struct pt_segment {
    uint64_t bytes; /* of each: a multiple of 4 KiB; 0: no more segments */
    unsigned count;
};

struct pt_layout {
    vaddr_t start;
    struct pt_segment segment[PT_SEGMENTS];
};

/*
 * 1.5 TiB around @base + 1 TiB, which is aligned: single pages at the ends of
 * the last GiB before it and the first one after it, and on to 2 TiB.
 */
struct pt_layout pt_layout_large(vaddr_t base);

/* 40 pages before that TiB and as many behind it: where memory is short. */
struct pt_layout pt_layout_small(vaddr_t base);

/*
 * 256 GiB in the middle of the 512 GiB at @base, which has one entry of a top
 * table: for the kernel's tables.
 */
struct pt_layout pt_layout_kernel(vaddr_t base);

struct pt_cell {
    vaddr_t start;
    uint64_t bytes;
};

/* What one cell of a space says. */
struct pt_page {
    uint64_t number; /* frame of its first page, or payload */
    uint64_t word;   /* the first in that frame, if it is owned */
    struct pt_attr attr;
    uint8_t state;   /* enum pte_state, but neither swapped nor table */
    uint8_t promise; /* enum pt_promise */
    bool is_dirty;   /* it was written to since D was cleared */
};

/* Cells in a row. */
struct pt_span {
    unsigned first;
    unsigned count;
};

struct pt_model {
    unsigned cells;
    unsigned edges; /* first cells of segments */
    unsigned edge[PT_SEGMENTS];
    struct pt_cell *cell;
    struct pt_page *page[PT_SPACES];
    uint64_t *seen[PT_SPACES]; /* for who compares: a number a cell */
};

unsigned pt_layout_cells(const struct pt_layout *layout);
/* Memory that a model of @layout needs. */
size_t pt_model_bytes(const struct pt_layout *layout);
/* Gaps everywhere. @memory stays the model's. */
void pt_model_init(struct pt_model *model, const struct pt_layout *layout,
                   void *memory);

vaddr_t pt_model_start(const struct pt_model *model, struct pt_span span);
uint64_t pt_model_bytes_of(const struct pt_model *model, struct pt_span span);
/* The cells that lie in the aligned block of @bytes around cell @index. */
struct pt_span pt_model_block(const struct pt_model *model, unsigned index,
                              uint64_t bytes);
/* The same by address; no cells if there are none. */
struct pt_span pt_model_find(const struct pt_model *model, vaddr_t start,
                             uint64_t bytes);

/* Does the number of what the page says count up from page to page? */
bool pt_page_counts(const struct pt_page *page);
bool pt_page_has_frame(const struct pt_page *page);

/* First frame of the block that an owned page is part of. */
pfn_t pt_page_block(const struct pt_page *page);
/* Has that block another holder? What the records say is checked elsewhere. */
bool pt_page_is_shared(const struct pt_page *page);

/* The whole span says what @page says of its first page. */
void pt_model_set(struct pt_model *model, unsigned space, struct pt_span span,
                  struct pt_page page);
bool pt_model_has_frames(const struct pt_model *model, unsigned space,
                         struct pt_span span);
bool pt_model_is_gap(const struct pt_model *model, unsigned space,
                     struct pt_span span);
bool pt_model_owns(const struct pt_model *model, unsigned space,
                   struct pt_span span);
/* Without NX every page that is present can be executed. */
bool pt_attr_alike(struct pt_attr a, struct pt_attr b);
/* Would one entry say all of it? */
bool pt_model_is_alike(const struct pt_model *model, unsigned space,
                       struct pt_span span);

void pt_model_protect(struct pt_model *model, unsigned space,
                      struct pt_span span, struct pt_attr attr);
/* The cells of both are alike in size. */
void pt_model_move(struct pt_model *model, unsigned space, struct pt_span from,
                   unsigned to);
/* Into the other space. */
void pt_model_copy(struct pt_model *model, unsigned space, struct pt_span span);
/* @word was written to @frame: all cells that show it. */
void pt_model_write(struct pt_model *model, uint64_t frame, uint64_t word);

/* What an access must come to. @access: enum walk_access. */
enum walk_verdict pt_page_verdict(const struct pt_page *page, unsigned access,
                                  const struct walk_rules *rules);

#endif
