/* SPDX-License-Identifier: MIT */
/* Small page tables of any content, and what they say, page by page. */
#ifndef TESTS_PROOFS_TABLES_H
#define TESTS_PROOFS_TABLES_H

/*
 * A tree of three levels, or two, whose tables have two entries. Frames are
 * names: the tables that are there at first have the numbers of a heap (the
 * root is 1, below n are 2n and 2n + 1), new ones those from PAGES up.
 */
#ifndef PROOF_LEVELS
#define PROOF_LEVELS 3
#endif
#define MM_TABLE_BITS 1
#define TOP           (PROOF_LEVELS - 1)
#define ROOT          1
#define PAGES         (1u << PROOF_LEVELS)
#define NEW_TABLES    4
#define TABLES        (PAGES + NEW_TABLES)
#define PROOF_FRAMES  TABLES

#include "tests/proofs/proof.h"

#include <mm/frame.h>
#include <mm/record.h>
#include "map/cursor.h"

uint64_t proof_memory[TABLES][PTE_TABLE_COUNT];

struct pt_features pt_features;
struct frame_record *record_base;
uint64_t record_frames;
_Atomic uint64_t *record_backed;

static struct frame_record proof_record[TABLES];
static bool is_free[TABLES];
static unsigned next_frame;
static unsigned released[TABLES]; /* how often the batch got it */
static bool is_failing;           /* an allocation has failed */

static struct pt proof_pt;
static struct tlb_batch proof_batch;
static struct pt_cursor cursor;

/* The CPU goes through a page, whose meaning is noted, and may write to it. */
static void cpu_uses_page(void);

/* --- what the cursor calls ------------------------------------------------ */

pfn_t frame_alloc(unsigned order, enum frame_type type, unsigned flags)
{
    PROVE(order == 0 && type == FRAME_TABLE && flags == FRAME_ZEROED,
          "a frame for a table");
    cpu_uses_page();
    if (nondet_bool()) {
        is_failing = true;
        return PFN_NONE;
    }
    PROVE(next_frame < TABLES, "no more than there can be");
    is_free[next_frame] = false;
    return pfn_of(next_frame++); /* all zero: a static variable */
}

static uint64_t split_pfn;
static bool is_shared;

enum mm_status frame_split(pfn_t pfn, unsigned order)
{
    PROVE(order > 0, "a block");
    cpu_uses_page();
    is_shared = nondet_bool();
    split_pfn = pfn.v;
    return is_shared ? MM_EBUSY : MM_OK;
}

void frame_ref_many(pfn_t pfn, uint32_t count)
{
    PROVE(is_shared && pfn.v == split_pfn && count == PTE_TABLE_COUNT - 1,
          "small leaves hold the block in place of the large one");
    is_shared = false;
}

static uint64_t flush_start;
static uint64_t flush_end;

void tlb_batch_range(struct tlb_batch *batch, vaddr_t start, vaddr_t end,
                     unsigned level)
{
    (void)batch;
    (void)level;
    flush_start = start;
    flush_end = end;
}

void tlb_batch_release_table(struct tlb_batch *batch, pfn_t table)
{
    (void)batch;
    released[table.v]++;
}

void table_wait(const struct frame_record *record, uint8_t ticket)
{
    (void)record;
    (void)ticket;
    PROVE(false, "who has locked a table does not wait for it");
}

/* --- any tables ----------------------------------------------------------- */

/*
 * One of each kind that is no table. The codec is proved for all numbers in
 * pte.c; here some frames, and what an owner says of them, are enough.
 */
static pte_t any_entry(unsigned level)
{
    uint64_t number = any_up_to(PAGES - 1) << level;
    struct pt_attr attr = pt_attr(nondet_bool() ? PT_OWNED : PT_COW);

    switch (any_up_to(5)) {
    case 0:
        return (pte_t){0};
    case 1:
        return pte_make_promise(PT_ZERO, attr, 0);
    case 2:
        return pte_make_promise(PT_OBJECT, attr, number);
    case 3:
        return pte_make_parked(pfn_of(number), attr);
    case 4:
        return level == 0 ? pte_make_swapped(number, attr) : (pte_t){0};
    default:
        return (pte_t){pte_make_leaf(level, pfn_of(number), attr).v &
                       ~(nondet_bool() ? PTE_D : PTE_A)};
    }
}

/* Fill table @n of @level, which is there or not; its parent is filled. */
static void any_table(unsigned n, unsigned level)
{
    unsigned count = 0;
    bool is_pinned = nondet_bool();

    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++) {
        pte_t pte = any_entry(level);

        if (level > 0 && nondet_bool()) {
            pte = pte_make_table(pfn_of(2 * n + i), true);
            is_free[2 * n + i] = is_free[n];
        } else if (level > 0) {
            is_free[2 * n + i] = true;
        }
        proof_memory[n][i] = pte.v;
        count += pte_is_absent(pte) ? 0 : 1;
    }
    if (n == ROOT || is_free[n]) {
        is_pinned = false;
    } else {
        ASSUME(count > 0 || is_pinned); /* I3 */
        /* What stays is hooked in what stays. */
        ASSUME(!is_pinned || n / 2 == ROOT ||
               (table_marks(pfn_of(n / 2)) & TABLE_PINNED) != 0);
    }
    proof_record[n].owner = 0;
    table_init_held(pfn_of(n), count | (is_pinned ? TABLE_PINNED : 0));
    proof_pt.tables += is_free[n] ? 0 : 1;
}

/* Any tables (I2, I3), held by a cursor that has been somewhere (I1). */
static void any_tables(void)
{
    pt_features.levels = PROOF_LEVELS;
    pt_features.physical_bits = 52;
    pt_features.has_nx = true;
    pt_features.has_1g = true;
    record_base = proof_record;
    proof_pt.root = pfn_of(ROOT);
    proof_pt.tables = 0;
    is_free[0] = false;
    is_free[ROOT] = false;
    for (unsigned n = 1; n < PAGES; n++) {
        any_table(n, TOP - highest_bit(n));
    }
    for (unsigned n = PAGES; n < TABLES; n++) {
        is_free[n] = true;
    }
    next_frame = PAGES;
    cursor.pt = &proof_pt;
    cursor.batch = &proof_batch;
    cursor.cover = TOP;
    cursor.level = TOP;
    cursor.path[TOP] = pfn_of(ROOT);
    cursor.at = any_up_to(PAGES - 1) << PAGE_SHIFT;
    cursor_seek(&cursor, any_up_to(PAGES - 1) << PAGE_SHIFT,
                (unsigned)any_up_to(TOP));
}

/* --- what they say -------------------------------------------------------- */

/* How far tables lead to @page, at most down to @level, and through which. */
static unsigned reach(unsigned page, unsigned level, uint64_t path[])
{
    unsigned at = TOP;

    path[TOP] = ROOT;
    while (at > level) {
        pte_t pte = {proof_memory[path[at]][page >> at & 1]};

        if (!pte_is_table(pte, at)) {
            break;
        }
        at--;
        path[at] = pte_table(pte).v;
    }
    return at;
}

/* What stands for @page, as a table of level 0 would have it. */

static uint64_t meaning(unsigned page)
{
    uint64_t path[PTE_LEVELS];
    unsigned level = reach(page, 0, path);
    pte_t pte = {proof_memory[path[level]][page >> level & 1]};

    while (level > 0) {
        level--;
        pte = pte_part(pte, level + 1, page >> level & 1);
    }
    return pte.v;
}

/* Of one page, which may be any. */
static unsigned noted_page;
static uint64_t noted;

static void note_meanings(void)
{
    noted_page = (unsigned)any_up_to(PAGES - 1);
    noted = meaning(noted_page);
}

static void cpu_uses_page(void)
{
    uint64_t path[PTE_LEVELS];
    unsigned level = reach(noted_page, 0, path);
    uint64_t *entry = &proof_memory[path[level]][noted_page >> level & 1];
    uint64_t bits = nondet_u64() & PTE_AD;

    if (pte_is_present((pte_t){*entry})) {
        *entry |= bits;
        noted |= bits;
    }
}

/* But for pages from @first to before @end. */
static void prove_meanings_but(unsigned first, unsigned end)
{
    PROVE((noted_page >= first && noted_page < end) ||
              meaning(noted_page) == noted,
          "addresses mean what they meant");
}

static void prove_meanings(void)
{
    prove_meanings_but(0, 0);
}

/* --- the invariants ------------------------------------------------------- */

static void prove_path(void)
{
    unsigned page = (unsigned)(cursor.at >> PAGE_SHIFT);
    uint64_t path[PTE_LEVELS];

    PROVE(reach(page, cursor.level, path) == cursor.level, "I1: the level");
    for (unsigned level = 0; level <= TOP; level++) {
        PROVE(level < cursor.level || cursor.path[level].v == path[level],
              "I1: the path");
    }
    PROVE(cursor.slot ==
              &table_at(pfn_of(path[cursor.level]))[page >> cursor.level & 1],
          "I1: the entry");
}

/* The table at the place of number @n in a heap, if there is one, or 0. */
static uint64_t table_at_place(unsigned n)
{
    unsigned depth = highest_bit(n);
    unsigned page = (n << (PROOF_LEVELS - depth)) & (PAGES - 1);
    uint64_t path[PTE_LEVELS];

    return reach(page, TOP - depth, path) == TOP - depth ? path[TOP - depth]
                                                         : 0;
}

/* What must hold of the table in any place, and of any two. */
static void prove_table(bool may_be_empty)
{
    unsigned n = (unsigned)any_up_to(PAGES - 2) + 1;
    unsigned other = (unsigned)any_up_to(PAGES - 2) + 1;
    uint64_t table = table_at_place(n);

    if (table == 0) {
        return;
    }
    const struct frame_record *record = &proof_record[table];
    unsigned count = (proof_memory[table][0] != 0 ? 1 : 0) +
                     (proof_memory[table][1] != 0 ? 1 : 0);
    PROVE(n == other || table_at_place(other) != table,
          "each table is in one place");
    PROVE(!is_free[table] && released[table] == 0, "and is not free");
    PROVE(table_count(pfn_of(table)) == count, "I2: its entries");
    PROVE((table_marks(pfn_of(table)) & TABLE_GONE) == 0, "it is hooked");
    PROVE(record->next == (uint8_t)(record->served + 1), "it is locked");
    PROVE(may_be_empty || n == ROOT || !table_is_spare(pfn_of(table)),
          "I3: it is not empty");
}

/* What must hold of any frame, and of all together. */
static void prove_frames(void)
{
    uint64_t frame = any_up_to(TABLES - 2) + 1;
    bool is_gone = (table_marks(pfn_of(frame)) & TABLE_GONE) != 0;
    bool is_found = false;
    uint64_t tables = 0;

    for (unsigned n = 1; n < PAGES; n++) {
        uint64_t table = table_at_place(n);

        is_found = is_found || table == frame;
        tables += table != 0 ? 1 : 0;
    }
    PROVE(proof_pt.tables == tables, "the number of tables");
    PROVE(is_found || is_free[frame] || (is_gone && released[frame] == 1),
          "no table is lost");
    PROVE(!is_gone || proof_record[frame].next == proof_record[frame].served,
          "what is unhooked is not locked");
}

static void prove_tables(bool may_be_empty)
{
    prove_table(may_be_empty);
    prove_frames();
}

#endif
