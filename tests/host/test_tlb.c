/* SPDX-License-Identifier: MIT */
/* The batch: what it invalidates, and that nothing is released before. */
/*
 * At risk: the order of change, invalidate, release; a range that is merged
 * wrongly and leaves a page out; a ceiling that is a bool (banan-os); freed
 * tables without a flush of the paging-structure caches (Stellux#188). The
 * simulated TLB reports each of these; two of the tests put such a bug in, to
 * show that it does.
 */
#include "tests/host/space_scene.h"

#include <mm/port.h>

#define BASE UINT64_C(0x40000000)

static struct sim_mmu_counts commit_range(uint64_t pages, unsigned level)
{
    struct sim_mmu_counts before = sim_mmu_counts();
    struct tlb_batch batch;

    tlb_batch_init(&batch, &space.tlb);
    for (uint64_t i = 0; i < pages; i++) {
        tlb_batch_range(&batch, BASE + i * pte_span(level),
                        BASE + (i + 1) * pte_span(level), level);
    }
    tlb_commit(&batch);
    struct sim_mmu_counts after = sim_mmu_counts();
    return (struct sim_mmu_counts){after.pages - before.pages,
                                   after.roots - before.roots,
                                   after.whole - before.whole};
}

TEST(tlb, ceiling_turns_pages_into_one_flush)
{
    CHECK_HELPER(start());
    CHECK_EQUAL(commit_range(1, 0).pages, 1);
    CHECK_EQUAL(commit_range(tlb_ceiling, 0).pages, tlb_ceiling);
    struct sim_mmu_counts counts = commit_range(tlb_ceiling + 1, 0);
    CHECK_EQUAL(counts.pages, 0);
    CHECK_EQUAL(counts.roots, 1);
    /* A large page takes one INVLPG, not 512. */
    CHECK_EQUAL(commit_range(3, 1).pages, 3);
}

TEST(tlb, scattered_ranges_are_kept_apart_or_flushed_whole)
{
    struct tlb_batch batch;
    struct sim_mmu_counts before;

    CHECK_HELPER(start());
    before = sim_mmu_counts();
    tlb_batch_init(&batch, &space.tlb);
    for (unsigned i = 0; i < TLB_BATCH_RANGES; i++) {
        vaddr_t at = BASE + i * 16 * PAGE_BYTES;
        tlb_batch_range(&batch, at, at + PAGE_BYTES, 0);
    }
    tlb_batch_range(&batch, BASE - PAGE_BYTES, BASE, 0); /* grows down */
    CHECK(!batch.whole);
    tlb_commit(&batch);
    CHECK_EQUAL(sim_mmu_counts().pages - before.pages, TLB_BATCH_RANGES + 1);
    CHECK_EQUAL(batch.range_count, 0);
    for (unsigned i = 0; i <= TLB_BATCH_RANGES; i++) {
        vaddr_t at = BASE + i * 16 * PAGE_BYTES;
        tlb_batch_range(&batch, at, at + PAGE_BYTES, 0);
    }
    CHECK(batch.whole);
    tlb_commit(&batch);
}

TEST(tlb, ranges_of_two_sizes_are_kept_apart)
{
    struct tlb_batch batch;
    struct sim_mmu_counts before;

    CHECK_HELPER(start());
    before = sim_mmu_counts();
    tlb_batch_init(&batch, &space.tlb);
    tlb_batch_range(&batch, BASE, BASE + 2 * MiB, 1);
    tlb_batch_range(&batch, BASE + 2 * MiB, BASE + 2 * MiB + PAGE_BYTES, 0);
    CHECK_EQUAL(batch.range_count, 2);
    tlb_commit(&batch);
    CHECK_EQUAL(sim_mmu_counts().pages - before.pages, 2);
}

TEST(tlb, an_empty_batch_does_nothing)
{
    struct tlb_batch batch;
    uint64_t generation = atomic_load(&space.tlb.generation);

    CHECK_HELPER(start());
    generation = atomic_load(&space.tlb.generation);
    struct sim_mmu_counts before = sim_mmu_counts();
    tlb_batch_init(&batch, &space.tlb);
    tlb_commit(&batch);
    CHECK_EQUAL(sim_mmu_counts().pages, before.pages);
    CHECK_EQUAL(atomic_load(&space.tlb.generation), generation);
}

TEST(tlb, a_space_that_is_not_loaded_needs_no_invalidation)
{
    struct sim_mmu_counts counts;

    CHECK_HELPER(start());
    tlb_switch(&pt_kernel.tlb);
    counts = commit_range(1, 0);
    CHECK_EQUAL(counts.pages + counts.roots + counts.whole, 0);
}

static vaddr_t map_one(pfn_t pfn)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    if (pt_open(&space, BASE, BASE + GiB, &batch, &cursor) != MM_OK) {
        return 0;
    }
    enum mm_status status =
        pt_map(&cursor, BASE, pfn, PAGE_BYTES, pt_attr(PT_WRITE | PT_OWNED));
    pt_close(&cursor);
    tlb_commit(&batch);
    return status == MM_OK ? BASE : 0;
}

/* The oracle itself: a frame let go while the TLB still has it. */
TEST(tlb, early_release_is_reported)
{
    paddr_t physical;
    struct tlb_batch batch;

    CHECK_HELPER(start());
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    CHECK(map_one(pfn) != 0);
    CHECK_EQUAL(sim_translate(BASE, WALK_WRITE, &physical), WALK_ALLOWED);
    frame_free(pfn, 0);
    tlb_batch_init(&batch, &space.tlb);
    tlb_batch_range(&batch, BASE, BASE + PAGE_BYTES, 0);
    tlb_commit(&batch);
    CHECK_BUG("was released before");
}

/* The oracle itself: an entry changed behind the library's back. */
TEST(tlb, a_missing_invalidation_is_seen)
{
    paddr_t physical;
    struct walk walk;

    CHECK_HELPER(start());
    CHECK(map_one(frame_alloc(0, FRAME_USER, FRAME_ANY)) != 0);
    CHECK_EQUAL(sim_translate(BASE, WALK_WRITE, &physical), WALK_ALLOWED);
    CHECK_EQUAL(sim_stale(), 0);
    walk_address(space.root, BASE, &walk);
    pte_t *table = phys_to_virt(walk.step[3].table);
    pte_t entry = table[walk.step[3].index];
    table[walk.step[3].index].v &= ~PTE_RW;
    CHECK_EQUAL(sim_stale(), 1);
    CHECK_EQUAL(sim_translate(BASE, WALK_WRITE, &physical), WALK_ALLOWED);
    table[walk.step[3].index] = entry;
}

TEST(tlb, freed_tables_leave_the_paging_structure_caches)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    paddr_t physical;
    vaddr_t reached;

    CHECK_HELPER(start());
    CHECK(map_one(frame_alloc(0, FRAME_USER, FRAME_ANY)) != 0);
    CHECK_EQUAL(sim_translate(BASE, WALK_READ, &physical), WALK_ALLOWED);
    CHECK_EQUAL(atomic_load(&space.tables), 4);
    CHECK_EQUAL(pt_open(&space, BASE, BASE + GiB, &batch, &cursor), MM_OK);
    CHECK_EQUAL(pt_unmap(&cursor, BASE, GiB, &reached), MM_OK);
    pt_close(&cursor);
    CHECK(sim_stale() > 0); /* not yet */
    tlb_commit(&batch);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_EQUAL(atomic_load(&space.tables), 1);
}

/* Tables without a present leaf: no range, but a flush is due all the same. */
TEST(tlb, tables_of_promises_are_flushed_too)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    paddr_t physical;
    vaddr_t reached;

    CHECK_HELPER(start());
    CHECK_EQUAL(pt_open(&space, BASE, BASE + GiB, &batch, &cursor), MM_OK);
    CHECK_EQUAL(pt_promise(&cursor, BASE, PAGE_BYTES, PT_ZERO, pt_attr(0), 0),
                MM_OK);
    pt_close(&cursor);
    tlb_commit(&batch);
    CHECK_EQUAL(sim_translate(BASE, WALK_READ, &physical), WALK_NOT_PRESENT);
    CHECK_EQUAL(pt_open(&space, BASE, BASE + GiB, &batch, &cursor), MM_OK);
    CHECK_EQUAL(pt_unmap(&cursor, BASE, PAGE_BYTES, &reached), MM_OK);
    pt_close(&cursor);
    CHECK(batch.tables);
    tlb_commit(&batch);
    CHECK_EQUAL(sim_stale(), 0);
}
