/* SPDX-License-Identifier: MIT */
/* once: one change to tables, with a cursor and a batch of its own. */
#ifndef TESTS_SHARED_ONCE_H
#define TESTS_SHARED_ONCE_H

#include <mm/pt.h>
#include "base/bits.h"

struct once {
    struct tlb_batch batch;
    struct pt_cursor cursor;
};

static inline enum mm_status once_open(struct once *once, struct pt *pt,
                                       vaddr_t start, uint64_t bytes)
{
    return pt_open(pt, start, start + bytes, &once->batch, &once->cursor);
}

/* Hands on what the change came to. */
static inline enum mm_status once_shut(struct once *once, enum mm_status status)
{
    pt_close(&once->cursor);
    tlb_commit(&once->batch);
    return status;
}

/*
 * Return of all: what the change says, or pt_open() if nothing was opened.
 */
static inline enum mm_status once_map(struct pt *pt, vaddr_t start, pfn_t pfn,
                                      uint64_t bytes, struct pt_attr attr)
{
    struct once once;
    enum mm_status status = once_open(&once, pt, start, bytes);

    return status != MM_OK ? status
                           : once_shut(&once, pt_map(&once.cursor, start, pfn,
                                                     bytes, attr));
}

/* All of it, in as many batches as that takes. */
static inline enum mm_status once_unmap(struct pt *pt, vaddr_t start,
                                        uint64_t bytes)
{
    enum mm_status status = MM_OK;
    vaddr_t end = start + bytes;
    struct once once;

    while (status == MM_OK && start < end) {
        status = once_open(&once, pt, start, end - start);
        if (status == MM_OK) {
            status = once_shut(
                &once, pt_unmap(&once.cursor, start, end - start, &start));
        }
    }
    return status;
}

static inline enum mm_status once_protect(struct pt *pt, vaddr_t start,
                                          uint64_t bytes, struct pt_attr attr)
{
    struct once once;
    enum mm_status status = once_open(&once, pt, start, bytes);

    return status != MM_OK
               ? status
               : once_shut(&once, pt_protect(&once.cursor, start, bytes, attr));
}

static inline enum mm_status once_promise(struct pt *pt, vaddr_t start,
                                          uint64_t bytes,
                                          enum pt_promise promise,
                                          struct pt_attr attr)
{
    struct once once;
    enum mm_status status = once_open(&once, pt, start, bytes);

    return status != MM_OK
               ? status
               : once_shut(&once, pt_promise(&once.cursor, start, bytes,
                                             promise, attr, 0));
}

/* The same range in @copy. */
static inline enum mm_status once_copy(struct pt *pt, struct pt *copy,
                                       vaddr_t start, uint64_t bytes)
{
    struct once once;
    enum mm_status status = once_open(&once, pt, start, bytes);

    return status != MM_OK
               ? status
               : once_shut(&once, pt_copy(&once.cursor, copy, start, bytes));
}

/* What is said of the page of @address; damaged if it cannot be opened. */
static inline struct pt_entry once_query(struct pt *pt, vaddr_t address)
{
    vaddr_t page = align_down(address, PAGE_BYTES);
    struct pt_entry entry = {.state = PTE_DAMAGED};
    struct once once;

    if (once_open(&once, pt, page, PAGE_BYTES) == MM_OK) {
        pt_query(&once.cursor, page, &entry);
        (void)once_shut(&once, MM_OK);
    }
    return entry;
}

#endif
