/* SPDX-License-Identifier: MIT */
/* Page tables by example: what is refused, shared, split and given back. */
/*
 * At risk: frames that leave a mapping past the batch; a large leaf that loses
 * its meaning when it is cut, or when memory ends in the middle of it; a
 * request that must be refused and is half done.
 */
#include "tests/host/open_scene.h"

#include "base/bits.h"
#include "tests/shared/figures.h"

#define WINDOW     GiB
#define WINDOW_END (2 * GiB)

static vaddr_t page_address(unsigned page)
{
    return WINDOW + page * PAGE_BYTES;
}

TEST(pt, owned_frames_go_back_through_the_batch)
{
    vaddr_t reached;
    paddr_t physical;

    CHECK_HELPER(start());
    uint64_t before = figures().free;
    CHECK_HELPER(open_range(WINDOW, GiB));
    for (unsigned i = 0; i < 100; i++) {
        pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
        CHECK_EQUAL(pt_map(&cursor, page_address(i), pfn, PAGE_BYTES,
                           pt_attr(PT_WRITE | PT_OWNED)),
                    MM_OK);
    }
    shut();
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQUAL(sim_translate(page_address(i), WALK_WRITE, &physical),
                    WALK_ALLOWED);
    }
    CHECK_HELPER(open_range(WINDOW, GiB));
    CHECK_EQUAL(pt_unmap(&cursor, WINDOW, 100 * PAGE_BYTES, &reached), MM_OK);
    CHECK_EQUAL(reached, WINDOW + 100 * PAGE_BYTES);
    pt_close(&cursor);
    CHECK(figures().free <= before - 100); /* not before the commit */
    tlb_commit(&batch);
    CHECK_EQUAL(figures().free, before);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_HELPER(finish());
}

/* Shared frames wait in a small array; a full one stops the unmap. */
TEST(pt, unmap_stops_when_the_batch_is_full_of_shared_frames)
{
    vaddr_t reached = WINDOW;
    unsigned rounds = 0;

    CHECK_HELPER(start());
    pfn_t shared = frame_alloc(0, FRAME_USER, FRAME_ZEROED);
    CHECK_HELPER(open_range(WINDOW, GiB));
    for (unsigned i = 0; i < 20; i++) {
        frame_ref(shared);
        CHECK_EQUAL(pt_map(&cursor, page_address(i), shared, PAGE_BYTES,
                           pt_attr(PT_OWNED)),
                    MM_OK);
    }
    shut();
    CHECK_EQUAL(atomic_load(&record_of(shared)->refs), 21);
    while (reached < page_address(20)) {
        CHECK_HELPER(open_range(reached, WINDOW_END - reached));
        CHECK_EQUAL(
            pt_unmap(&cursor, reached, page_address(20) - reached, &reached),
            MM_OK);
        shut();
        rounds++;
    }
    CHECK_EQUAL(rounds, (20 + TLB_BATCH_SHARED - 1) / TLB_BATCH_SHARED);
    CHECK_EQUAL(atomic_load(&record_of(shared)->refs), 1);
    frame_free(shared, 0);
    CHECK_HELPER(finish());
}

TEST(pt, a_terabyte_is_promised_in_a_handful_of_entries)
{
    struct pt_entry entry;
    vaddr_t begin = 2 * TiB;

    CHECK_HELPER(start());
    CHECK_HELPER(open_range(begin, TiB));
    CHECK_EQUAL(pt_promise(&cursor, begin, TiB, PT_ZERO,
                           pt_attr(PT_USER | PT_WRITE), 0),
                MM_OK);
    CHECK_EQUAL(atomic_load(&space.tables), 1);
    pt_query(&cursor, begin + GiB + 5 * PAGE_BYTES, &entry);
    CHECK_EQUAL(entry.state, PTE_PROMISE);
    CHECK_EQUAL(entry.level, 3);
    /* One page of it taken out of the middle costs a path of tables. */
    CHECK_EQUAL(pt_map(&cursor, begin + GiB, pfn_of(DEVICE_PFN), PAGE_BYTES,
                       pt_attr(PT_USER)),
                MM_OK);
    CHECK_EQUAL(atomic_load(&space.tables), 4);
    pt_query(&cursor, begin + GiB + PAGE_BYTES, &entry);
    CHECK_EQUAL(entry.state, PTE_PROMISE);
    CHECK_EQUAL(entry.level, 0);
    shut();
    CHECK_HELPER(finish());
}

TEST(pt, bad_requests_are_refused)
{
    pfn_t pfn = pfn_of(DEVICE_PFN);
    vaddr_t hole = UINT64_C(0x0000800000000000);

    CHECK_HELPER(start());
    CHECK_EQUAL(pt_open(&space, 0, PAGE_BYTES, &batch, &cursor), MM_EINVAL);
    CHECK_EQUAL(pt_open(&space, GiB, GiB, &batch, &cursor), MM_EINVAL);
    CHECK_EQUAL(pt_open(&space, GiB + 1, 2 * GiB, &batch, &cursor), MM_EINVAL);
    CHECK_EQUAL(pt_open(&space, hole, hole + GiB, &batch, &cursor), MM_EINVAL);
    CHECK_EQUAL(pt_open(&space, GiB, hole + GiB, &batch, &cursor), MM_EINVAL);
    CHECK_EQUAL(pt_open(&space, SIM_KMAP, SIM_KMAP + GiB, &batch, &cursor),
                MM_EINVAL);
    CHECK_EQUAL(pt_open(&pt_kernel, GiB, 2 * GiB, &batch, &cursor), MM_EINVAL);
    CHECK_EQUAL(pt_open(&pt_kernel, SIM_KMAP + TiB, SIM_KMAP + 2 * TiB, &batch,
                        &cursor),
                MM_ERANGE);
    CHECK_HELPER(open_range(GiB, GiB));
    CHECK_EQUAL(
        pt_map(&cursor, GiB, pfn, PAGE_BYTES, pt_attr(PT_WRITE | PT_EXEC)),
        MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, GiB, pfn, PAGE_BYTES, pt_attr(PT_GLOBAL)),
                MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, GiB, pfn, PAGE_BYTES, pt_attr(PT_FLAGS + 1)),
                MM_EINVAL);
    CHECK_EQUAL(pt_protect(&cursor, GiB, PAGE_BYTES, pt_attr(PT_FLAGS + 1)),
                MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, GiB, pfn, 0, pt_attr(0)), MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, GiB, pfn, GiB + PAGE_BYTES, pt_attr(0)),
                MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, GiB + 1, pfn, PAGE_BYTES, pt_attr(0)),
                MM_EINVAL);
    CHECK_EQUAL(
        pt_map(&cursor, GiB, pfn_of(UINT64_C(1) << 28), PAGE_BYTES, pt_attr(0)),
        MM_EINVAL); /* beyond 40 physical bits */
    CHECK_EQUAL(
        pt_protect(&cursor, GiB, PAGE_BYTES, pt_attr(PT_WRITE | PT_EXEC)),
        MM_EINVAL);
    CHECK_EQUAL(pt_promise(&cursor, GiB, PAGE_BYTES, PT_OBJECT, pt_attr(0),
                           UINT64_C(1) << 39),
                MM_EINVAL);
    shut();
    CHECK_EQUAL(atomic_load(&space.tables), 1);
    CHECK_HELPER(finish());
}

TEST(pt, split_and_merge_are_inverse)
{
    struct pt_entry entry;
    paddr_t physical;

    CHECK_HELPER(start());
    pfn_t block = frame_alloc(9, FRAME_USER, FRAME_ANY);
    CHECK_HELPER(open_range(GiB, GiB));
    CHECK_EQUAL(
        pt_map(&cursor, GiB, block, 2 * MiB, pt_attr(PT_WRITE | PT_OWNED)),
        MM_OK);
    pt_query(&cursor, GiB + MiB, &entry);
    CHECK_EQUAL(entry.level, 1);
    shut();
    CHECK_EQUAL(sim_translate(GiB + MiB, WALK_READ, &physical), WALK_ALLOWED);

    CHECK_HELPER(open_range(GiB, GiB));
    CHECK_EQUAL(pt_split(&cursor, GiB + MiB), MM_OK);
    CHECK_EQUAL(pt_split(&cursor, GiB + MiB), MM_ENOENT);
    pt_query(&cursor, GiB + MiB, &entry);
    CHECK_EQUAL(entry.level, 0);
    CHECK_EQUAL(entry.pfn.v, block.v + 256);
    CHECK_EQUAL(record_of(block)->order, 0);
    shut();
    CHECK_EQUAL(sim_stale(), 0);

    CHECK_HELPER(open_range(GiB, GiB));
    CHECK_EQUAL(pt_protect(&cursor, GiB, PAGE_BYTES, pt_attr(0)), MM_OK);
    CHECK_EQUAL(pt_merge(&cursor, GiB, 1), MM_EINVAL); /* not alike */
    CHECK_EQUAL(pt_protect(&cursor, GiB, PAGE_BYTES, pt_attr(PT_WRITE)), MM_OK);
    CHECK_EQUAL(pt_merge(&cursor, GiB, 1), MM_OK);
    pt_query(&cursor, GiB + MiB, &entry);
    CHECK_EQUAL(entry.level, 1);
    CHECK_EQUAL(record_of(block)->order, 9);
    shut();
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_HELPER(finish());
}

/* Law 3 at its hardest: memory ends in the middle of cutting a large leaf. */
TEST(pt, out_of_memory_while_splitting_changes_nothing)
{
    struct pt_entry entry;
    vaddr_t reached;

    CHECK_HELPER(start());
    CHECK_HELPER(open_range(GiB, GiB));
    CHECK_EQUAL(pt_map(&cursor, GiB, pfn_of(DEVICE_PFN), GiB, pt_attr(0)),
                MM_OK);
    CHECK_EQUAL(atomic_load(&space.tables), 2); /* one 1 GiB leaf */
    for (uint64_t k = 1; k <= 4; k++) {
        frame_inject(k);
        enum mm_status status =
            pt_unmap(&cursor, GiB + 3 * PAGE_BYTES, 512 * MiB, &reached);
        bool was_tried = frame_inject_count() >= k;
        frame_inject(0);
        if (!was_tried) {
            CHECK_EQUAL(status, MM_OK);
            break;
        }
        CHECK_EQUAL(status, MM_ENOMEM);
        for (vaddr_t at = GiB; at < 2 * GiB; at += 2 * MiB) {
            pt_query(&cursor, at + 3 * PAGE_BYTES, &entry);
            CHECK_EQUAL(entry.state, PTE_PRESENT);
            CHECK_EQUAL(entry.pfn.v +
                            ((at + 3 * PAGE_BYTES - entry.start) >> PAGE_SHIFT),
                        DEVICE_PFN +
                            ((at + 3 * PAGE_BYTES - GiB) >> PAGE_SHIFT));
        }
    }
    shut();
    CHECK_HELPER(finish());
}

TEST(pt, lookup_agrees_with_query)
{
    struct pt_attr attr;
    pfn_t pfn;

    CHECK_HELPER(start());
    CHECK(!sim_lookup(&space, GiB, &pfn, &attr));
    CHECK_HELPER(open_range(GiB, GiB));
    CHECK_EQUAL(
        pt_map(&cursor, GiB, pfn_of(DEVICE_PFN), 4 * MiB, pt_attr(PT_WRITE)),
        MM_OK);
    shut();
    CHECK(sim_lookup(&space, GiB + 3 * MiB, &pfn, &attr));
    CHECK_EQUAL(pfn.v, DEVICE_PFN + 768);
    CHECK_EQUAL(attr.flags, PT_WRITE);
    CHECK(!sim_lookup(&space, GiB + 4 * MiB, &pfn, &attr));
    CHECK_HELPER(finish());
}

/* peers' bug: second map of the same page, promise over a mapping. */
TEST(pt, nothing_present_is_ever_replaced)
{
    CHECK_HELPER(start());
    CHECK_HELPER(open_range(GiB, GiB));
    CHECK_EQUAL(pt_map(&cursor, GiB + PAGE_BYTES, pfn_of(DEVICE_PFN),
                       PAGE_BYTES, pt_attr(0)),
                MM_OK);
    CHECK_EQUAL(
        pt_map(&cursor, GiB, pfn_of(DEVICE_PFN + 512), 2 * MiB, pt_attr(0)),
        MM_EEXIST);
    CHECK_EQUAL(pt_promise(&cursor, GiB, GiB, PT_GUARD, pt_attr(0), 0),
                MM_EEXIST);
    shut();
    CHECK_HELPER(finish());
}

/* Tables of the kernel's half that start-up made are shared by all spaces. */
TEST(pt, pinned_tables_stay_when_they_are_empty)
{
    vaddr_t reached;

    CHECK_HELPER(start());
    for (unsigned round = 0; round < 2; round++) {
        CHECK_EQUAL(
            pt_open(&pt_kernel, SIM_KMAP, SIM_KMAP + GiB, &batch, &cursor),
            MM_OK);
        CHECK_EQUAL(pt_map(&cursor, SIM_KMAP, pfn_of(DEVICE_PFN), PAGE_BYTES,
                           pt_attr(PT_WRITE | PT_GLOBAL)),
                    MM_OK);
        CHECK_EQUAL(pt_unmap(&cursor, SIM_KMAP, GiB, &reached), MM_OK);
        shut();
    }
    CHECK_HELPER(finish());
}
