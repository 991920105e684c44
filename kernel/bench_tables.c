/* SPDX-License-Identifier: MIT */
/* bench_tables: what the tables of an address space cost. */
/*
 * Idea: a space that no CPU has loaded, so that what is counted is the tables'
 * part: opening, the change, closing, and the commit with what it releases.
 * Pages beside the ranges keep the tables in place, as neighbours do in a space
 * that is used.
 */
#include "kernel/bench_impl.h"

#include <mm/frame.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"

/* Where the ranges are, by what they are large as. */
#define PAGES_AT (1 * TiB)
#define BLOCK_AT (PAGES_AT + 4 * MiB)
#define GIB_AT   (2 * TiB)
#define TIB_AT   (4 * TiB)
#define FORK_AT  (8 * TiB)

#define MOST_PAGES 256
#define FORK_PAGES 16384

/* A space as libraries lie in it: small regions, far from each other. */
#define REGIONS      1000
#define REGION_BYTES (16 * KiB)
#define SPARSE_SHIFT 40 /* log2 of the range in which they lie */

static struct pt space;
static pfn_t frame[MOST_PAGES]; /* on their way into the tables */
static pfn_t block;             /* 2 MiB, never owned by the tables */

/* --- visits: true if they worked ------------------------------------------ */

struct visit {
    struct tlb_batch batch;
    struct pt_cursor cursor;
};

static bool enter(struct visit *visit, struct pt *pt, vaddr_t start,
                  uint64_t bytes)
{
    return pt_open(pt, start, start + bytes, &visit->batch, &visit->cursor) ==
           MM_OK;
}

static bool leave(struct visit *visit, enum mm_status status)
{
    pt_close(&visit->cursor);
    tlb_commit(&visit->batch);
    return status == MM_OK;
}

static bool promise(vaddr_t start, uint64_t bytes)
{
    struct visit visit;

    return enter(&visit, &space, start, bytes) &&
           leave(&visit, pt_promise(&visit.cursor, start, bytes, PT_ZERO,
                                    pt_attr(PT_WRITE | PT_OWNED), 0));
}

static bool unmap(struct pt *pt, vaddr_t start, uint64_t bytes)
{
    struct visit visit;
    vaddr_t reached;

    return enter(&visit, pt, start, bytes) &&
           leave(&visit, pt_unmap(&visit.cursor, start, bytes, &reached));
}

static bool protect(vaddr_t start, uint64_t bytes, unsigned flags)
{
    struct visit visit;

    return enter(&visit, &space, start, bytes) &&
           leave(&visit,
                 pt_protect(&visit.cursor, start, bytes, pt_attr(flags)));
}

/* New frames for @pages pages from @start on, at most MOST_PAGES. */
static bool map_owned(vaddr_t start, unsigned pages)
{
    struct visit visit;
    unsigned taken = frame_alloc_bulk(frame, pages, FRAME_USER, FRAME_ANY);
    bool success =
        taken == pages && enter(&visit, &space, start, pages * PAGE_BYTES) &&
        leave(&visit, pt_map_frames(&visit.cursor, start, frame, pages,
                                    pt_attr(PT_WRITE | PT_OWNED)));

    if (!success) {
        frame_free_bulk(frame, taken);
    }
    return success;
}

/* --- operations ----------------------------------------------------------- */

/* Where a range of 2^@shift bytes is promised. */
static vaddr_t place_of(unsigned shift)
{
    return shift < 30 ? PAGES_AT : shift < 40 ? GIB_AT : TIB_AT;
}

static bool do_promise(unsigned shift)
{
    return promise(place_of(shift), UINT64_C(1) << shift);
}

static bool undo_promise(unsigned shift)
{
    return unmap(&space, place_of(shift), UINT64_C(1) << shift);
}

static bool do_unmap(unsigned pages)
{
    return unmap(&space, PAGES_AT, pages * PAGE_BYTES);
}

/* Frames in a row that are not the tables'. */
static bool do_map(unsigned pages)
{
    struct visit visit;
    uint64_t bytes = pages * PAGE_BYTES;

    return enter(&visit, &space, PAGES_AT, bytes) &&
           leave(&visit, pt_map(&visit.cursor, PAGES_AT, block, bytes,
                                pt_attr(PT_WRITE)));
}

static bool renew(unsigned pages)
{
    return do_unmap(pages) && map_owned(PAGES_AT, pages);
}

static bool do_protect(unsigned pages)
{
    return protect(PAGES_AT, pages * PAGE_BYTES, PT_READ);
}

static bool do_split(unsigned argument)
{
    struct visit visit;

    (void)argument;
    return enter(&visit, &space, BLOCK_AT, pte_span(1)) &&
           leave(&visit, pt_split(&visit.cursor, BLOCK_AT));
}

/* It is small already before the first run. */
static bool undo_merge(unsigned argument)
{
    (void)do_split(argument);
    return true;
}

static bool do_merge(unsigned argument)
{
    struct visit visit;

    (void)argument;
    return enter(&visit, &space, BLOCK_AT, pte_span(1)) &&
           leave(&visit, pt_merge(&visit.cursor, BLOCK_AT, 1));
}

/* --- figures of their own ------------------------------------------------- */

static bool map_fork_pages(void)
{
    bool success = true;

    for (unsigned i = 0; success && i < FORK_PAGES; i += MOST_PAGES) {
        success = map_owned(FORK_AT + i * PAGE_BYTES, MOST_PAGES);
    }
    return success;
}

/* What one copy of FORK_PAGES pages takes that can be written, or 0. */
static uint64_t time_copy(void)
{
    uint64_t bytes = FORK_PAGES * PAGE_BYTES;
    struct visit visit;
    struct pt child;

    if (pt_init(&child) != MM_OK) {
        return 0;
    }
    uint64_t start = cpu_rdtsc();
    bool success =
        enter(&visit, &space, FORK_AT, bytes) &&
        leave(&visit, pt_copy(&visit.cursor, &child, FORK_AT, bytes));
    uint64_t taken = cpu_rdtsc() - start;

    pt_fini(&child);
    success = success && protect(FORK_AT, bytes, PT_WRITE);
    return success ? taken : 0;
}

/* Of a page: tables and all that goes with them are in it. */
static bool measure_copy(const char *name)
{
    uint64_t taken = 0;

    if (map_fork_pages()) {
        time_copy(); /* tables for the child are at hand then */
        taken = time_copy();
    }
    bench_print(name, taken / FORK_PAGES, cpu_clock_unit());
    return unmap(&space, FORK_AT, FORK_PAGES * PAGE_BYTES) && taken > 0;
}

/* Random places by Knuth's generator; those that meet become one. */
static bool promise_regions(struct pt *pt)
{
    uint64_t number = 1;
    bool success = true;

    for (unsigned i = 0; success && i < REGIONS; i++) {
        struct visit visit;
        number = number * UINT64_C(6364136223846793005) + 1;
        vaddr_t start =
            TIB_AT + align_down(number >> (64 - SPARSE_SHIFT), REGION_BYTES);
        success = enter(&visit, pt, start, REGION_BYTES) &&
                  leave(&visit, pt_promise(&visit.cursor, start, REGION_BYTES,
                                           PT_ZERO, pt_attr(PT_WRITE), 0));
    }
    return success;
}

static bool measure_sparse(const char *name)
{
    struct pt sparse;

    if (pt_init(&sparse) != MM_OK) {
        return false;
    }
    bool success = promise_regions(&sparse);
    bench_print(name, sparse.tables, "tables");
    pt_fini(&sparse);
    return success;
}

/* --- the list ------------------------------------------------------------- */

static const struct bench_subject subjects[] = {
    {"pt_promise_4k", undo_promise, do_promise, 12},
    {"pt_promise_1m", undo_promise, do_promise, 20},
    {"pt_promise_1g", undo_promise, do_promise, 30},
    {"pt_promise_1t", undo_promise, do_promise, 40},
    {"pt_map_1", do_unmap, do_map, 1},
    {"pt_map_16", do_unmap, do_map, 16},
    {"pt_map_256", do_unmap, do_map, 256},
    {"pt_unmap_1", renew, do_unmap, 1},
    {"pt_unmap_16", renew, do_unmap, 16},
    {"pt_unmap_256", renew, do_unmap, 256},
    {"pt_protect_256", renew, do_protect, 256},
    {"pt_split_2m", do_merge, do_split, 0},
    {"pt_merge_2m", undo_merge, do_merge, 0},
};

/* Neighbours, and a block that is split to begin with. */
static bool prepare(void)
{
    struct visit visit;

    block = frame_alloc(MM_TABLE_BITS, FRAME_KERNEL, FRAME_ANY);
    if (pfn_is_none(block) || pt_init(&space) != MM_OK) {
        return false;
    }
    return promise(PAGES_AT + MOST_PAGES * PAGE_BYTES, PAGE_BYTES) &&
           promise(GIB_AT + 2 * GiB, PAGE_BYTES) &&
           enter(&visit, &space, BLOCK_AT, pte_span(1)) &&
           leave(&visit, pt_map(&visit.cursor, BLOCK_AT, block, pte_span(1),
                                pt_attr(PT_WRITE))) &&
           do_split(0);
}

static void finish(void)
{
    if (!pfn_is_none(space.root)) {
        pt_fini(&space);
    }
    if (!pfn_is_none(block)) {
        frame_free(block, MM_TABLE_BITS);
    }
}

bool bench_tables(const char *pattern, unsigned *run)
{
    static const struct {
        const char *name;
        bool (*measure)(const char *name);
    } single[] = {{"pt_copy_page", measure_copy},
                  {"pt_sparse_1000", measure_sparse}};

    space.root = PFN_NONE;
    bool success = prepare() &&
                   bench_list(subjects, sizeof(subjects) / sizeof(subjects[0]),
                              bench_measure, pattern, run);
    for (size_t i = 0; success && i < sizeof(single) / sizeof(single[0]); i++) {
        if (bench_is_wanted(single[i].name, pattern)) {
            success = single[i].measure(single[i].name);
            ++*run;
        }
    }
    finish();
    return success;
}
