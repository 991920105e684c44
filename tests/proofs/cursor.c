/* SPDX-License-Identifier: MIT */
/* map/cursor.c: its invariants, and what addresses mean, for any tables. */
#include "tests/proofs/tables.h"

#include "map/cursor.c"
#include "map/scan.c"

void tlb_batch_release_tree(struct tlb_batch *batch, pfn_t table,
                            unsigned level)
{
    (void)batch;
    (void)level;
    released[table.v]++;
}

static vaddr_t any_address(void)
{
    return any_up_to(PAGES - 1) << PAGE_SHIFT;
}

static void prove_seek(void)
{
    vaddr_t address = any_address();
    unsigned level = (unsigned)any_up_to(TOP);
    uint64_t path[PTE_LEVELS];

    any_tables();
    unsigned reached = cursor_seek(&cursor, address, level);
    PROVE(cursor.at == address && cursor.level == reached, "it is there");
    PROVE(reached == reach((unsigned)(address >> PAGE_SHIFT), level, path),
          "as far down as tables lead");
    prove_path();
}

static void prove_swap(void)
{
    any_tables();
    note_meanings();
    unsigned first = (unsigned)(cursor.at >> pte_shift(cursor.level))
                     << cursor.level;
    pte_t was = cursor_entry(&cursor);
    pte_t entry = any_entry(cursor.level);

    ASSUME(!pte_is_table(was, cursor.level));
    pte_t old = cursor_swap(&cursor, entry);
    PROVE(old.v == was.v, "what was there");
    PROVE(cursor_entry(&cursor).v == entry.v, "the entry stands there");
    prove_meanings_but(first, first + (1u << cursor.level));
    prove_path();
    prove_tables(true);
}

static void prove_split(void)
{
    any_tables();
    note_meanings();
    pte_t entry = cursor_entry(&cursor);

    ASSUME(cursor.level > 0 && !pte_is_absent(entry) &&
           !pte_is_table(entry, cursor.level));
    enum mm_status status = cursor_split(&cursor);
    PROVE((status == MM_ENOMEM) == is_failing, "only memory may be short");
    PROVE(is_failing == !pte_is_table(cursor_entry(&cursor), cursor.level),
          "a table, or nothing");
    PROVE(!is_shared, "each leaf has a reference");
    PROVE(is_failing || !pte_is_present(entry) ||
              (flush_start <= cursor.at && cursor.at < flush_end &&
               flush_end - flush_start == pte_span(cursor.level)),
          "the large translation is forgotten");
    prove_meanings();
    prove_path();
    prove_tables(false);
}

static void prove_grow(void)
{
    vaddr_t address = any_address();
    unsigned level = (unsigned)any_up_to(TOP);

    any_tables();
    note_meanings();
    enum mm_status status = cursor_grow(&cursor, address, level);
    PROVE((status == MM_ENOMEM) == is_failing, "only memory may be short");
    PROVE(status != MM_OK || (cursor.level == level && cursor.at == address),
          "at the level asked for");
    prove_meanings();
    prove_path();
    prove_tables(true);
}

/* What a failure leaves is taken away again. */
static void prove_undo(void)
{
    vaddr_t address = any_address();

    any_tables();
    note_meanings();
    ASSUME(cursor_grow(&cursor, address, 0) == MM_ENOMEM);
    cursor_seek(&cursor, address, 0);
    cursor_prune(&cursor);
    prove_meanings();
    prove_path();
    prove_tables(false);
}

static void prove_cut(void)
{
    unsigned first = (unsigned)any_up_to(PAGES - 1);
    unsigned end = (unsigned)any_up_to(PAGES - 1) + 1;
    uint64_t path[PTE_LEVELS];

    ASSUME(first < end);
    any_tables();
    note_meanings();
    enum mm_status status =
        cursor_cut_ends(&cursor, (uint64_t)first << PAGE_SHIFT,
                        (uint64_t)(end - first) << PAGE_SHIFT);
    PROVE((status == MM_ENOMEM) == is_failing, "only memory may be short");
    unsigned level = reach(first, 0, path);
    PROVE(is_failing || first >> level << level == first ||
              proof_memory[path[level]][first >> level & 1] == 0,
          "no entry reaches across the start");
    level = reach(end - 1, 0, path);
    PROVE(is_failing || end >> level << level == end ||
              proof_memory[path[level]][(end - 1) >> level & 1] == 0,
          "no entry reaches across the end");
    prove_meanings();
    prove_path();
    prove_tables(false);
}

/* An entry goes, and what is empty without it. */
static void prove_prune(void)
{
    any_tables();
    note_meanings();
    unsigned first = (unsigned)(cursor.at >> pte_shift(cursor.level))
                     << cursor.level;
    unsigned level = cursor.level;

    ASSUME(!pte_is_table(cursor_entry(&cursor), level));
    cursor_swap(&cursor, (pte_t){0});
    cursor_prune(&cursor);
    prove_meanings_but(first, first + (1u << level));
    PROVE(meaning(first) == 0, "the entry is gone");
    PROVE(pte_is_absent(cursor_entry(&cursor)), "it stands at the gap");
    prove_path();
    prove_tables(false);
}

void harness(void)
{
    PROOF();
}
