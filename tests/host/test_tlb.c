/* SPDX-License-Identifier: MIT */
/* The batch: what it invalidates, and that nothing is released before. */
/*
 * At risk: the order of change, invalidate, release; a range that is merged
 * wrongly and leaves a page out; a ceiling that is a bool (banan-os); freed
 * tables without a flush of the paging-structure caches (Stellux#188). The
 * simulated TLB reports each of these; some of the tests put such a bug in, to
 * show that it does.
 */
#include "tests/host/tlb_scene.h"

#include <mm/port.h>
#include "x86_64/mmu.h"

/* What a flush of @pages leaves of @level costs; nothing was mapped there. */
static struct tlb_cost commit_range(uint64_t pages, unsigned level)
{
    struct tlb_cost before = cost_of(sim_mmu_counts());
    struct tlb_batch batch;

    tlb_batch_init(&batch, &space.tlb);
    for (uint64_t i = 0; i < pages; i++) {
        tlb_batch_range(&batch, BASE + i * pte_span(level),
                        BASE + (i + 1) * pte_span(level), level);
    }
    tlb_commit(&batch);
    return cost_since(before);
}

TEST(tlb, ceiling_turns_pages_into_one_flush)
{
    CHECK_HELPER(start());
    CHECK(tlb_ceiling > 1);
    CHECK_EQUAL(commit_range(1, 0).pages, 1);
    struct tlb_cost at = commit_range(tlb_ceiling, 0);
    CHECK_EQUAL(at.pages, tlb_ceiling);
    CHECK_EQUAL(at.flushes, 0);
    struct tlb_cost above = commit_range(tlb_ceiling + 1, 0);
    CHECK_EQUAL(above.pages, 0);
    CHECK_EQUAL(above.flushes, 1);
    /* A large page takes one INVLPG, not 512. */
    CHECK_EQUAL(commit_range(3, 1).pages, 3);
}

/* A part that is left out is not used, and what is left does the same. */
TEST(tlb, parts_can_be_left_out)
{
    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(1, sim_part_sets[i]));
        tlb_switch(&space.tlb);
        struct tlb_cost cost = commit_range(3, 0);
        CHECK_EQUAL(cost.pages, has_part(TLB_RANGES) ? 3 : 0);
        CHECK_EQUAL(cost.flushes, has_part(TLB_RANGES) ? 0 : 1);
        CHECK_HELPER(map_pages(&space, BASE, 3));
        CHECK_HELPER(touch_pages(BASE, 3));
        CHECK_HELPER(unmap_pages(&space, BASE, 3));
        tlb_flush_all();
        struct sim_mmu_counts counts = sim_mmu_counts();
        for (unsigned type = 0; type < 4; type++) {
            CHECK(has_part(TLB_INVPCID) || counts.invpcid[type] == 0);
        }
        CHECK_HELPER(finish());
        CHECK_EQUAL(sim_mmu_counts().kept > 0, has_part(TLB_PCID));
    }
}

TEST(tlb, scattered_ranges_are_kept_apart_or_flushed_whole)
{
    struct tlb_batch batch;

    CHECK_HELPER(start());
    struct tlb_cost before = cost_of(sim_mmu_counts());
    tlb_batch_init(&batch, &space.tlb);
    for (unsigned i = 0; i < TLB_BATCH_RANGES; i++) {
        vaddr_t at = BASE + i * 16 * PAGE_BYTES;
        tlb_batch_range(&batch, at, at + PAGE_BYTES, 0);
    }
    tlb_batch_range(&batch, BASE - PAGE_BYTES, BASE, 0); /* grows down */
    CHECK(!batch.whole);
    tlb_commit(&batch);
    CHECK_EQUAL(cost_since(before).pages, TLB_BATCH_RANGES + 1);
    CHECK_EQUAL(batch.range_count, 0);
    for (unsigned i = 0; i <= TLB_BATCH_RANGES; i++) {
        vaddr_t at = BASE + i * 16 * PAGE_BYTES;
        tlb_batch_range(&batch, at, at + PAGE_BYTES, 0);
    }
    CHECK(batch.whole);
    tlb_commit(&batch);
}

/* Every page of every range is forgotten, whatever lies between them. */
TEST(tlb, no_page_of_a_range_is_left_out)
{
    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        for (unsigned pages = 1; pages <= tlb_ceiling + 2; pages++) {
            CHECK_HELPER(start_cpus(1, sim_part_sets[i]));
            tlb_switch(&space.tlb);
            CHECK_HELPER(map_pages(&space, BASE, tlb_ceiling + 4));
            CHECK_HELPER(touch_pages(BASE, tlb_ceiling + 4));
            CHECK_HELPER(unmap_pages(&space, BASE + PAGE_BYTES, pages));
            CHECK_EQUAL(sim_stale(), 0);
        }
    }
}

TEST(tlb, ranges_of_two_sizes_are_kept_apart)
{
    struct tlb_batch batch;

    CHECK_HELPER(start());
    struct tlb_cost before = cost_of(sim_mmu_counts());
    tlb_batch_init(&batch, &space.tlb);
    tlb_batch_range(&batch, BASE, BASE + 2 * MiB, 1);
    tlb_batch_range(&batch, BASE + 2 * MiB, BASE + 2 * MiB + PAGE_BYTES, 0);
    CHECK_EQUAL(batch.range_count, 2);
    tlb_commit(&batch);
    CHECK_EQUAL(cost_since(before).pages, 2);
}

TEST(tlb, an_empty_batch_does_nothing)
{
    struct tlb_batch batch;

    CHECK_HELPER(start());
    uint64_t generation = atomic_load(&space.tlb.generation);
    struct tlb_cost before = cost_of(sim_mmu_counts());
    tlb_batch_init(&batch, &space.tlb);
    tlb_commit(&batch);
    CHECK_EQUAL(cost_since(before).pages + cost_since(before).flushes, 0);
    CHECK_EQUAL(atomic_load(&space.tlb.generation), generation);
}

TEST(tlb, a_space_nothing_is_cached_of_needs_no_invalidation)
{
    CHECK_HELPER(start_cpus(1, TLB_RANGES));
    tlb_switch(&space.tlb);
    tlb_switch(&pt_kernel.tlb);
    struct tlb_cost cost = commit_range(1, 0);
    CHECK_EQUAL(cost.pages + cost.flushes, 0);
}

/* --- what the simulation sees --------------------------------------------- */

/* W3: a frame let go while a TLB still has it. */
TEST(tlb, early_release_is_reported)
{
    paddr_t physical;

    CHECK_HELPER(start());
    CHECK_HELPER(map_pages(&space, BASE, 1));
    CHECK_EQUAL(sim_translate(BASE, WALK_WRITE, &physical), WALK_ALLOWED);
    frame_free(phys_to_pfn(physical), 0);
    CHECK_BUG("was released before");
    while (!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY))) {
        /* until its turn comes again */
    }
    CHECK_BUG("was handed out before");
}

/* The entry of the page at BASE. */
static pte_t *entry_of_base(void)
{
    struct walk walk;

    walk_address(space.root, BASE, &walk);
    pte_t *table = phys_to_virt(walk.step[3].table);
    return &table[walk.step[3].index];
}

/* W1, W2, W4: an entry changed behind the library's back. */
TEST(tlb, a_missing_invalidation_is_seen)
{
    struct tlb_batch batch;
    paddr_t physical;

    CHECK_HELPER(start());
    CHECK_HELPER(map_pages(&space, BASE, 1));
    CHECK_HELPER(touch_pages(BASE, 1));
    CHECK_EQUAL(sim_stale(), 0);
    entry_of_base()->v &= ~PTE_RW;
    CHECK_EQUAL(sim_stale(), 1);
    CHECK_EQUAL(sim_translate(BASE, WALK_WRITE, &physical), WALK_ALLOWED);
    CHECK_BUG("used a stale translation of 0x40000000");
    tlb_switch(&pt_kernel.tlb);
    CHECK_EQUAL(sim_stale(), 0); /* not usable */
    tlb_switch(&space.tlb);
    CHECK_BUG("a stale translation of 0x40000000");
    tlb_batch_init(&batch, &space.tlb);
    tlb_batch_range(&batch, BASE + PAGE_BYTES, BASE + 2 * PAGE_BYTES, 0);
    tlb_commit(&batch); /* of another page */
    CHECK_EQUAL(sim_stale(), 1);
    mmu_invlpg(BASE);
    CHECK_EQUAL(sim_stale(), 0);
    entry_of_base()->v |= PTE_RW;
    CHECK_HELPER(finish());
}

/* W1: between the change and the end of tlb_commit() both are right. */
TEST(tlb, what_is_being_changed_may_be_used)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    paddr_t physical;

    CHECK_HELPER(start());
    CHECK_HELPER(map_pages(&space, BASE, 2));
    CHECK_HELPER(touch_pages(BASE, 2));
    CHECK_EQUAL(pt_open(&space, BASE, BASE + GiB, &batch, &cursor), MM_OK);
    CHECK_EQUAL(pt_protect(&cursor, BASE, PAGE_BYTES, pt_attr(0)), MM_OK);
    pt_close(&cursor);
    CHECK_EQUAL(sim_translate(BASE, WALK_WRITE, &physical), WALK_ALLOWED);
    tlb_commit(&batch);
    CHECK_EQUAL(sim_translate(BASE, WALK_WRITE, &physical), WALK_READ_ONLY);
    CHECK_HELPER(finish());
}

/* --- tables --------------------------------------------------------------- */

TEST(tlb, freed_tables_leave_the_paging_structure_caches)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;

    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(1, sim_part_sets[i]));
        tlb_switch(&space.tlb);
        CHECK_HELPER(map_pages(&space, BASE, 1));
        CHECK_HELPER(touch_pages(BASE, 1));
        CHECK_EQUAL(atomic_load(&space.tables), 4);
        CHECK_EQUAL(pt_open(&space, BASE, BASE + GiB, &batch, &cursor), MM_OK);
        CHECK_EQUAL(pt_unmap(&cursor, BASE, GiB, &reached), MM_OK);
        pt_close(&cursor);
        CHECK(sim_stale() > 0); /* not yet */
        tlb_commit(&batch);
        CHECK_EQUAL(sim_stale(), 0);
        CHECK_EQUAL(atomic_load(&space.tables), 1);
    }
}

/* Tables without a present leaf: no range, but a flush is due all the same. */
TEST(tlb, tables_of_promises_are_flushed_too)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;

    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(1, sim_part_sets[i]));
        tlb_switch(&space.tlb);
        CHECK_EQUAL(once_promise(&space, BASE, PAGE_BYTES, PT_ZERO, pt_attr(0)),
                    MM_OK);
        sim_walk_ahead(BASE);
        CHECK_EQUAL(pt_open(&space, BASE, BASE + GiB, &batch, &cursor), MM_OK);
        CHECK_EQUAL(pt_unmap(&cursor, BASE, PAGE_BYTES, &reached), MM_OK);
        pt_close(&cursor);
        CHECK(batch.tables);
        tlb_commit(&batch);
        CHECK_EQUAL(sim_stale(), 0);
    }
}

/*
 * Every PCID has its own way to the kernel's tables: it must be forgotten
 * under those that are not current, too.
 */
TEST(tlb, tables_of_the_kernel_are_forgotten_under_every_pcid)
{
    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(1, sim_part_sets[i]));
        CHECK_HELPER(map_pages(&pt_kernel, KERNEL_PAGE, 1));
        tlb_switch(&space.tlb);
        CHECK_HELPER(touch_pages(KERNEL_PAGE, 1));
        tlb_switch(&pt_kernel.tlb);
        CHECK_HELPER(unmap_pages(&pt_kernel, KERNEL_PAGE, 1));
        CHECK_HELPER(release_kernel_table());
        tlb_switch(&space.tlb);
        CHECK_EQUAL(sim_stale(), 0);
        CHECK_HELPER(finish());
    }
}
