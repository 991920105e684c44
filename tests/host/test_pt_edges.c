/* SPDX-License-Identifier: MIT */
/* Page tables at their edges: misuse, five levels, pinned tables, batches. */
/*
 * At risk: what a model of ordinary pages never does. A block with two
 * holders that would have to be cut; one reference that two mappings claim;
 * ranges that touch the end of the lock, of the half, of the payload; tables
 * of start-up that must stay; entries no part of the library has written.
 */
#include "tests/host/open_scene.h"

#include <mm/fault.h>
#include <mm/port.h>
#include "base/bits.h"

#define WINDOW     GiB
#define WINDOW_END (2 * GiB)
#define IMAGE      UINT64_C(0xffffffff80000000)

static const struct pt_features five = {5, 40, true, true, true};

static void open_it(void)
{
    open_range(WINDOW, WINDOW_END - WINDOW);
}

/* --- owned blocks --------------------------------------------------------- */

/* Each small leaf holds a reference then; the last one lets the block go. */
TEST(pt_edges, a_large_block_with_two_holders_is_cut_and_stays_one)
{
    vaddr_t reached;
    pfn_t out;
    struct pt_attr attr;

    CHECK_HELPER(start());
    pfn_t pfn = frame_alloc(9, FRAME_USER, FRAME_ANY);
    CHECK_HELPER(open_it());
    CHECK_EQUAL(
        pt_map(&cursor, WINDOW, pfn, 2 * MiB, pt_attr(PT_WRITE | PT_OWNED)),
        MM_OK);
    frame_ref(pfn);
    CHECK_EQUAL(pt_unmap(&cursor, WINDOW, PAGE_BYTES, &reached), MM_OK);
    shut();
    CHECK_EQUAL(atomic_load(&record_of(pfn)->refs), 512);
    CHECK_EQUAL(record_of(pfn)->order, 9);
    CHECK(sim_lookup(&space, WINDOW + PAGE_BYTES, &out, &attr));
    CHECK_EQUAL(out.v, pfn.v + 1);
    CHECK_HELPER(open_it());
    CHECK_EQUAL(
        pt_unmap(&cursor, WINDOW + PAGE_BYTES, 511 * PAGE_BYTES, &reached),
        MM_OK);
    CHECK_EQUAL(reached, WINDOW + 2 * MiB);
    shut();
    CHECK_EQUAL(atomic_load(&record_of(pfn)->refs), 1);
    frame_unref(pfn);
    CHECK_HELPER(finish());
}

TEST(pt_edges, one_reference_serves_one_mapping)
{
    vaddr_t reached;

    CHECK_HELPER(start());
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    CHECK_HELPER(open_it());
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQUAL(pt_map(&cursor, WINDOW + i * PAGE_BYTES, pfn, PAGE_BYTES,
                           pt_attr(PT_OWNED)),
                    MM_OK);
    }
    CHECK_EQUAL(pt_unmap(&cursor, WINDOW, 2 * PAGE_BYTES, &reached), MM_OK);
    shut();
    CHECK_BUG("is released twice");
    CHECK_HELPER(finish());
}

TEST(pt_edges, only_whole_blocks_are_owned)
{
    CHECK_HELPER(start());
    pfn_t large = frame_alloc(9, FRAME_USER, FRAME_ANY);
    pfn_t four = frame_alloc(2, FRAME_USER, FRAME_ANY);
    struct pt_attr own = pt_attr(PT_OWNED);
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_map(&cursor, WINDOW + PAGE_BYTES, large, 2 * MiB, own),
                MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, WINDOW, large, MiB, own), MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, WINDOW, pfn_add(large, 1), PAGE_BYTES, own),
                MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, WINDOW, four, 4 * PAGE_BYTES, own), MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, WINDOW, pfn_of(DEVICE_PFN), PAGE_BYTES, own),
                MM_EINVAL);
    CHECK_EQUAL(atomic_load(&space.tables), 1);
    shut();
    frame_free(large, 9);
    frame_free(four, 2);
    CHECK_HELPER(finish());
}

/* Neighbouring blocks stay two leaves where the CPU has larger ones. */
TEST(pt_edges, owned_blocks_are_not_mapped_as_one)
{
    struct pt_entry entry;

    CHECK_HELPER(start());
    pfn_t block = frame_alloc(10, FRAME_USER, FRAME_ANY);
    CHECK_EQUAL(frame_split(block, 10), MM_OK);
    CHECK_EQUAL(frame_join(block, 9), MM_OK);
    CHECK_EQUAL(frame_join(pfn_add(block, 512), 9), MM_OK);
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_map(&cursor, WINDOW, block, 4 * MiB, pt_attr(PT_OWNED)),
                MM_OK);
    pt_query(&cursor, WINDOW + 3 * MiB, &entry);
    CHECK_EQUAL(entry.level, 1);
    CHECK_EQUAL(entry.pfn.v, block.v + 512);
    shut();
    CHECK_HELPER(finish());
}

/* --- merging -------------------------------------------------------------- */

TEST(pt_edges, merge_stays_inside_the_range)
{
    vaddr_t at = WINDOW + 64 * MiB;

    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_promise(&cursor, at, 2 * MiB, PT_ZERO, pt_attr(0), 0),
                MM_OK);
    CHECK_EQUAL(pt_split(&cursor, at), MM_OK);
    shut();
    CHECK_EQUAL(pt_open(&space, WINDOW, WINDOW + 2 * MiB, &batch, &cursor),
                MM_OK);
    CHECK_EQUAL(pt_merge(&cursor, at, 1), MM_EINVAL);
    shut();
    CHECK_EQUAL(pt_open(&space, at, at + MiB, &batch, &cursor), MM_OK);
    CHECK_EQUAL(pt_merge(&cursor, at, 1), MM_EINVAL); /* half of it */
    shut();
    CHECK_HELPER(finish());
}

TEST(pt_edges, merge_follows_what_counts_up)
{
    struct pt_entry entry;

    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_merge(&cursor, WINDOW, 1), MM_ENOENT);
    CHECK_EQUAL(
        pt_promise(&cursor, WINDOW, 2 * MiB, PT_OBJECT, pt_attr(0), 1000),
        MM_OK);
    CHECK_EQUAL(pt_split(&cursor, WINDOW), MM_OK);
    pt_query(&cursor, WINDOW + 7 * PAGE_BYTES, &entry);
    CHECK_EQUAL(entry.payload, 1007);
    CHECK_EQUAL(pt_merge(&cursor, WINDOW, 1), MM_OK);
    pt_query(&cursor, WINDOW + 7 * PAGE_BYTES, &entry);
    CHECK_EQUAL(entry.level, 1);
    CHECK_EQUAL(entry.payload, 1000);
    CHECK_EQUAL(pt_split(&cursor, WINDOW), MM_OK);
    CHECK_EQUAL(pt_unmap(&cursor, WINDOW, PAGE_BYTES, &entry.start), MM_OK);
    CHECK_EQUAL(
        pt_promise(&cursor, WINDOW, PAGE_BYTES, PT_OBJECT, pt_attr(0), 999),
        MM_OK);
    CHECK_EQUAL(pt_merge(&cursor, WINDOW, 1), MM_EINVAL); /* a step is wrong */
    shut();
    CHECK_HELPER(finish());
}

TEST(pt_edges, no_leaf_is_merged_that_the_cpu_lacks)
{
    static const struct pt_features small = {4, 40, true, false, true};

    sim_boot_with(RAM, &small);
    CHECK_HELPER(start_space());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_map(&cursor, WINDOW, pfn_of(DEVICE_PFN), GiB, pt_attr(0)),
                MM_OK);
    CHECK_EQUAL(pt_merge(&cursor, WINDOW, 2), MM_EINVAL);
    shut();
    CHECK_HELPER(finish());
}

/* All 512 small translations go, also when the batch has other ranges. */
TEST(pt_edges, a_merge_forgets_the_small_translations)
{
    paddr_t physical;
    vaddr_t reached;

    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(
        pt_map(&cursor, WINDOW, pfn_of(DEVICE_PFN), 4 * MiB, pt_attr(0)),
        MM_OK);
    CHECK_EQUAL(pt_split(&cursor, WINDOW), MM_OK);
    shut();
    for (vaddr_t at = WINDOW; at < WINDOW + 2 * MiB; at += PAGE_BYTES) {
        CHECK_EQUAL(sim_translate(at, WALK_READ, &physical), WALK_ALLOWED);
    }
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_merge(&cursor, WINDOW, 1), MM_OK);
    CHECK_EQUAL(pt_unmap(&cursor, WINDOW + 2 * MiB, 2 * MiB, &reached), MM_OK);
    shut();
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_HELPER(finish());
}

/* --- tables of start-up ----------------------------------------------------
 */

TEST(pt_edges, a_refused_merge_changes_no_record)
{
    vaddr_t reached;

    sim_boot(RAM);
    pfn_t pfn = frame_alloc(9, FRAME_KERNEL, FRAME_ANY);
    CHECK_EQUAL(frame_split(pfn, 9), MM_OK);
    CHECK_EQUAL(pt_open(&pt_kernel, IMAGE, IMAGE + 2 * MiB, &batch, &cursor),
                MM_OK);
    CHECK_EQUAL(pt_unmap(&cursor, IMAGE, 2 * MiB, &reached), MM_OK);
    CHECK_EQUAL(
        pt_map(&cursor, IMAGE, pfn, 2 * MiB, pt_attr(PT_OWNED | PT_WRITE)),
        MM_OK);
    CHECK_EQUAL(pt_merge(&cursor, IMAGE, 1), MM_EINVAL); /* pinned */
    CHECK_EQUAL(record_of(pfn)->order, 0);
    CHECK_EQUAL(pt_unmap(&cursor, IMAGE, 2 * MiB, &reached), MM_OK);
    shut();
}

/* What would replace the table goes into it instead. */
TEST(pt_edges, an_emptied_start_up_table_is_filled_not_replaced)
{
    struct pt_entry entry;
    vaddr_t reached;

    sim_boot(RAM);
    CHECK_EQUAL(pt_open(&pt_kernel, IMAGE, IMAGE + 2 * MiB, &batch, &cursor),
                MM_OK);
    CHECK_EQUAL(pt_unmap(&cursor, IMAGE, 2 * MiB, &reached), MM_OK);
    CHECK_EQUAL(pt_promise(&cursor, IMAGE, 2 * MiB, PT_GUARD, pt_attr(0), 0),
                MM_OK);
    pt_query(&cursor, IMAGE + MiB, &entry);
    CHECK_EQUAL(entry.level, 0);
    CHECK_EQUAL(pt_unmap(&cursor, IMAGE, 2 * MiB, &reached), MM_OK);
    pfn_t block = frame_alloc(9, FRAME_KERNEL, FRAME_ANY);
    CHECK_EQUAL(
        pt_map(&cursor, IMAGE, block, 2 * MiB, pt_attr(PT_OWNED | PT_WRITE)),
        MM_EEXIST); /* the block cannot go in whole */
    shut();
    frame_free(block, 9);
}

static pfn_t metadata_table(void *context)
{
    (void)context;
    return frame_alloc_metadata();
}

TEST(pt_edges, adoption_reaches_every_table_at_five_levels)
{
    static struct pt adopted;

    sim_boot_with(RAM, &five);
    pfn_t root = frame_alloc_metadata();
    CHECK_EQUAL(pt_install(root, GiB, pfn_of(DEVICE_PFN), PAGE_BYTES,
                           pt_attr(0), metadata_table, NULL),
                MM_OK);
    CHECK_EQUAL(pt_install(root, GiB, pfn_of(DEVICE_PFN), PAGE_BYTES,
                           pt_attr(0), metadata_table, NULL),
                MM_EEXIST);
    CHECK_EQUAL(pt_adopt(&adopted, root, false), MM_OK);
    CHECK_EQUAL(atomic_load(&adopted.tables), 5);
}

/* --- ranges ----------------------------------------------------------------
 */

TEST(pt_edges, a_space_of_five_levels_works_to_its_end)
{
    vaddr_t end = UINT64_C(1) << 56;
    vaddr_t reached;

    sim_boot_with(RAM, &five);
    CHECK_HELPER(start_space());
    CHECK_EQUAL(pt_open(&space, PAGE_BYTES, end, &batch, &cursor), MM_OK);
    CHECK_EQUAL(pt_promise(&cursor, PAGE_BYTES, end - PAGE_BYTES, PT_ZERO,
                           pt_attr(PT_USER), 0),
                MM_OK);
    CHECK_EQUAL(pt_unmap(&cursor, end - PAGE_BYTES, PAGE_BYTES, &reached),
                MM_OK);
    shut();
    CHECK_HELPER(finish());
}

TEST(pt_edges, ranges_that_open)
{
    static const struct {
        vaddr_t start;
        vaddr_t end;
        bool of_kernel;
        enum mm_status status;
    } table[] = {
        {PAGE_BYTES, UINT64_C(0x800000000000), false, MM_OK},
        {PAGE_BYTES, UINT64_C(0x800000001000), false, MM_EINVAL},
        {GiB, SIM_DIRECT + GiB, false, MM_EINVAL},
        {GiB, 2 * GiB + 1, false, MM_EINVAL},
        {SIM_KMAP, SIM_KMAP + 512 * GiB, true, MM_OK},
        {SIM_KMAP, SIM_KMAP + 512 * GiB + PAGE_BYTES, true, MM_ERANGE},
        {SIM_KMAP - PAGE_BYTES, SIM_KMAP + GiB, true, MM_ERANGE},
        {GiB, SIM_DIRECT + GiB, true, MM_EINVAL},
        {UINT64_C(0xffffffff80000000), UINT64_C(0xfffffffffffff000), true,
         MM_OK},
    };

    CHECK_HELPER(start());
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct pt *pt = table[i].of_kernel ? &pt_kernel : &space;
        enum mm_status status =
            pt_open(pt, table[i].start, table[i].end, &batch, &cursor);

        CHECK_EQUAL(status, table[i].status);
        if (status == MM_OK) {
            shut();
        }
    }
    CHECK_HELPER(finish());
}

TEST(pt_edges, the_last_frame_and_the_last_payload)
{
    pfn_t last = pfn_of((UINT64_C(1) << 28) - 1); /* 40 bits */
    uint64_t payload = (UINT64_C(1) << 39) - 1;

    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_map(&cursor, WINDOW, last, 2 * PAGE_BYTES, pt_attr(0)),
                MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, WINDOW, last, PAGE_BYTES, pt_attr(0)), MM_OK);
    CHECK_EQUAL(pt_promise(&cursor, WINDOW + MiB, 2 * PAGE_BYTES, PT_OBJECT,
                           pt_attr(0), payload),
                MM_EINVAL);
    CHECK_EQUAL(pt_promise(&cursor, WINDOW + MiB, PAGE_BYTES, PT_OBJECT,
                           pt_attr(0), payload),
                MM_OK);
    shut();
    CHECK_HELPER(finish());
}

TEST(pt_edges, memory_types_are_kept_in_every_state)
{
    struct pt_attr wp = {PT_WRITE, PT_WP, 0};
    struct pt_entry entry;

    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_promise(&cursor, WINDOW, PAGE_BYTES, PT_ZERO, wp, 0), MM_OK);
    pt_query(&cursor, WINDOW, &entry);
    CHECK(pt_attr_equal(entry.attr, wp));
    for (unsigned level = 0; level < 2; level++) {
        vaddr_t at = WINDOW + (level + 1) * 4 * MiB;
        uint64_t bytes = pte_span(level);

        CHECK_EQUAL(pt_map(&cursor, at, pfn_of(DEVICE_PFN), bytes, wp), MM_OK);
        pt_query(&cursor, at, &entry);
        CHECK_EQUAL(entry.level, level);
        CHECK_EQUAL(entry.attr.memory, PT_WP);
        CHECK_EQUAL(pt_protect(&cursor, at, bytes, pt_attr(0)), MM_OK);
        pt_query(&cursor, at, &entry);
        CHECK_EQUAL(entry.attr.memory, PT_WB);
        CHECK_EQUAL(entry.pfn.v, DEVICE_PFN);
        CHECK_EQUAL(pt_protect(&cursor, at, bytes, wp), MM_OK);
        pt_query(&cursor, at, &entry);
        CHECK_EQUAL(entry.attr.memory, PT_WP);
        CHECK_EQUAL(entry.pfn.v, DEVICE_PFN);
    }
    shut();
    CHECK_HELPER(finish());
}

/* The raw slot of the last step on the way to @address. */
static pte_t *slot_of(const struct pt *pt, vaddr_t address)
{
    struct walk walk;

    walk_address(pt->root, address, &walk);
    const struct walk_step *last = &walk.step[walk.count - 1];
    return (pte_t *)phys_to_virt(last->table) + last->index;
}

/* Park the leaf at @at and take it back: it is what it was. */
static void park_and_back(vaddr_t at, uint64_t bytes, uint64_t accessed_dirty)
{
    struct pt_attr none = {PT_NONE, PT_WT, 0};
    pte_t *slot = slot_of(&space, at);
    struct pt_entry entry;

    slot->v = (slot->v & ~PTE_AD) | accessed_dirty;
    pte_t leaf = *slot;
    CHECK_EQUAL(pt_protect(&cursor, at, bytes, none), MM_OK);
    pt_query(&cursor, at, &entry);
    CHECK_EQUAL(entry.state, PTE_PARKED);
    CHECK_EQUAL(entry.bytes, bytes);
    CHECK_EQUAL(entry.pfn.v, DEVICE_PFN);
    CHECK_EQUAL(entry.attr.flags, PT_NONE);
    CHECK_EQUAL(entry.attr.memory, PT_WT);
    CHECK_EQUAL(entry.accessed, (accessed_dirty & PTE_A) != 0);
    CHECK_EQUAL(entry.dirty, (accessed_dirty & PTE_D) != 0);
    CHECK_EQUAL(pt_protect(&cursor, at, bytes, pt_attr(PT_WRITE)), MM_OK);
    CHECK_EQUAL(slot->v, leaf.v);
}

TEST(pt_edges, no_access_parks_a_leaf)
{
    static const uint64_t bits[] = {0, PTE_A, PTE_D, PTE_AD};
    struct pt_entry entry;

    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    for (unsigned level = 0; level < 2; level++) {
        vaddr_t at = WINDOW + (level + 1) * 4 * MiB;
        struct pt_attr attr = {PT_WRITE, PT_WB, 0xa5};

        CHECK_EQUAL(
            pt_map(&cursor, at, pfn_of(DEVICE_PFN), pte_span(level), attr),
            MM_OK);
        for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
            CHECK_HELPER(park_and_back(at, pte_span(level), bits[i]));
        }
    }
    CHECK_EQUAL(pt_map(&cursor, WINDOW, pfn_of(DEVICE_PFN), 2 * PAGE_BYTES,
                       pt_attr(PT_NONE)),
                MM_OK);
    pt_query(&cursor, WINDOW + PAGE_BYTES, &entry);
    CHECK_EQUAL(entry.state, PTE_PARKED);
    CHECK_EQUAL(entry.pfn.v, DEVICE_PFN + 1);
    CHECK_EQUAL(
        pt_protect(&cursor, WINDOW, PAGE_BYTES, pt_attr(PT_NONE | PT_WRITE)),
        MM_EINVAL);
    CHECK_EQUAL(
        pt_protect(&cursor, WINDOW, PAGE_BYTES, pt_attr(PT_NONE | PT_EXEC)),
        MM_EINVAL);
    shut();
    CHECK_HELPER(finish());
}

TEST(pt_edges, copied_on_write_stays_read_only)
{
    struct pt_entry entry;

    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_map(&cursor, WINDOW, pfn_of(DEVICE_PFN), PAGE_BYTES,
                       pt_attr(PT_WRITE | PT_COW)),
                MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, WINDOW, pfn_of(DEVICE_PFN), PAGE_BYTES,
                       pt_attr(PT_COW)),
                MM_OK);
    CHECK_EQUAL(pt_protect(&cursor, WINDOW, PAGE_BYTES, pt_attr(PT_WRITE)),
                MM_OK);
    pt_query(&cursor, WINDOW, &entry);
    CHECK_EQUAL(entry.attr.flags, PT_COW);
    shut();
    CHECK_HELPER(finish());
}

TEST(pt_edges, swapped_and_parked_entries_are_in_the_way)
{
    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(
        pt_promise(&cursor, WINDOW, 2 * PAGE_BYTES, PT_ZERO, pt_attr(0), 0),
        MM_OK);
    pte_t *slot = slot_of(&space, WINDOW);
    pte_t promise = *slot;
    *slot = pte_make_swapped(77, pt_attr(0));
    CHECK_EQUAL(
        pt_promise(&cursor, WINDOW, 2 * PAGE_BYTES, PT_GUARD, pt_attr(0), 0),
        MM_EEXIST);
    *slot = pte_make_parked(pfn_of(DEVICE_PFN), pt_attr(0));
    CHECK_EQUAL(
        pt_map(&cursor, WINDOW, pfn_of(DEVICE_PFN), PAGE_BYTES, pt_attr(0)),
        MM_EEXIST);
    *slot = promise;
    shut();
    CHECK_HELPER(finish());
}

TEST(pt_edges, a_damaged_entry_is_no_promise)
{
    struct fault fault = {.address = WINDOW};
    struct audit_verdict verdict;
    struct walk walk;

    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_promise(&cursor, WINDOW, PAGE_BYTES, PT_ZERO, pt_attr(0), 0),
                MM_OK);
    shut();
    pte_t *slot = slot_of(&space, WINDOW);
    pte_t promise = *slot;
    for (unsigned i = 0; i < 2; i++) {
        slot->v = i == 0 ? UINT64_C(0xe0) : UINT64_C(0x1000);
        CHECK_EQUAL(pte_state(*slot, 0), PTE_DAMAGED);
        walk_address(space.root, WINDOW, &walk);
        CHECK_EQUAL(fault_judge(&fault, &walk), FAULT_NOT_MAPPED);
        CHECK(!pt_audit(&space, &verdict));
        CHECK_EQUAL(verdict.damaged, 1);
    }
    *slot = promise;
    CHECK_HELPER(finish());
}

TEST(pt_edges, lookup_refuses_what_is_not_canonical)
{
    struct pt_attr attr;
    pfn_t pfn;

    sim_boot(RAM);
    vaddr_t address = SIM_DIRECT + 4 * MiB;
    CHECK(sim_lookup(&pt_kernel, address, &pfn, &attr));
    CHECK(!sim_lookup(&pt_kernel, address ^ (UINT64_C(1) << 60), &pfn, &attr));
}

/* --- invalidation and audit -------------------------------------------------
 */

/* Kernel addresses are cached whichever space is loaded. */
TEST(pt_edges, kernel_pages_are_invalidated_under_any_space)
{
    vaddr_t at = SIM_KMAP + GiB;
    paddr_t physical;

    CHECK_HELPER(start());
    CHECK_EQUAL(pt_open(&pt_kernel, at, at + MiB, &batch, &cursor), MM_OK);
    CHECK_EQUAL(pt_map(&cursor, at, pfn_of(DEVICE_PFN), PAGE_BYTES,
                       pt_attr(PT_WRITE | PT_GLOBAL)),
                MM_OK);
    shut();
    CHECK_EQUAL(sim_translate(at, WALK_WRITE, &physical), WALK_ALLOWED);
    CHECK_EQUAL(once_unmap(&pt_kernel, at, MiB), MM_OK);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_HELPER(finish());
}

/* A CPU may walk ahead of the program and keep the tables it came through. */
TEST(pt_edges, tables_seen_ahead_are_forgotten)
{
    CHECK_HELPER(start());
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_promise(&cursor, WINDOW, PAGE_BYTES, PT_ZERO, pt_attr(0), 0),
                MM_OK);
    shut();
    sim_walk_ahead(WINDOW);
    CHECK_HELPER(open_it());
    CHECK_EQUAL(pt_promise(&cursor, WINDOW, 2 * MiB, PT_GUARD, pt_attr(0), 0),
                MM_OK); /* replaces the table */
    shut();
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_HELPER(finish());
}

static bool ends_below(void *context, const struct audit_run *run)
{
    vaddr_t end = *(const vaddr_t *)context;

    if (run->start >= end || run->bytes > end - run->start) {
        test_fail(__FILE__, __LINE__, "run at 0x%lx", run->start);
    }
    return !test_has_failed();
}

TEST(pt_edges, runs_end_at_the_end_of_the_range)
{
    vaddr_t end = SIM_DIRECT + 3 * MiB;

    sim_boot(RAM);
    audit_runs(&pt_kernel, 0, end, ends_below, &end);
    CHECK(!test_has_failed());
}
