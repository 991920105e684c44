/* SPDX-License-Identifier: MIT */
/* Holders of frames, and frames that are free: crimes that the audit must see.
 */
/*
 * At risk: a frame that is handed out again while a window or a space still
 * leads to it; a holder too few, which is a use after free to come, or too
 * many, which is a leak; a table nobody leads to. Provoked by committing each
 * behind the tables' back, in the kernel's tables and in one space of several,
 * owned or not, of both sizes, and by looking through as little memory as one
 * counter.
 */
#include "tests/host/open_scene.h"

#define HERE   GiB
#define WINDOW (SIM_KMAP + GiB)

static struct pt child;

/* A page of its own for @address. */
static pfn_t own_page(struct pt *pt, vaddr_t address)
{
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);

    enum mm_status status =
        once_map(pt, address, pfn, PAGE_BYTES, pt_attr(PT_WRITE | PT_OWNED));
    return status == MM_OK ? pfn : PFN_NONE;
}

/* Entries that lead to free frames; all if the verdict does not say so. */
static uint64_t freed_in(const struct pt *pt)
{
    struct audit_verdict verdict;
    bool is_clean = pt_audit(pt, &verdict);

    return is_clean == (verdict.freed_frames == 0) ? verdict.freed_frames
                                                   : UINT64_MAX;
}

/* --- free frames ---------------------------------------------------------- */

TEST(holders, a_window_on_a_free_frame_is_found)
{
    sim_boot(RAM);
    pfn_t pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    CHECK_EQUAL(
        once_map(&pt_kernel, WINDOW, pfn, PAGE_BYTES, pt_attr(PT_WRITE)),
        MM_OK);
    CHECK_EQUAL(freed_in(&pt_kernel), 0);
    frame_free(pfn, 0);
    CHECK_EQUAL(freed_in(&pt_kernel), 1);
    CHECK_EQUAL(once_unmap(&pt_kernel, WINDOW, PAGE_BYTES), MM_OK);
    CHECK_EQUAL(freed_in(&pt_kernel), 0); /* the direct map has all of them */
}

TEST(holders, one_free_frame_in_a_large_leaf_is_found)
{
    CHECK_HELPER(start());
    pfn_t pfn = frame_alloc(9, FRAME_KERNEL, FRAME_ANY);
    CHECK_EQUAL(once_map(&space, HERE, pfn, 2 * MiB, pt_attr(PT_NONE)),
                MM_OK); /* parked */
    CHECK_EQUAL(frame_split(pfn, 9), MM_OK);
    CHECK_EQUAL(freed_in(&space), 0);
    frame_free(pfn_add(pfn, 511), 0);
    CHECK_EQUAL(freed_in(&space), 1);
    CHECK_EQUAL(freed_in(&pt_kernel), 0);
    CHECK_EQUAL(once_unmap(&space, HERE, 2 * MiB), MM_OK);
    CHECK_HELPER(finish());
    for (unsigned i = 0; i < 511; i++) {
        frame_free(pfn_add(pfn, i), 0);
    }
}

TEST(holders, an_owned_frame_that_is_free_is_found)
{
    CHECK_HELPER(start());
    pfn_t pfn = own_page(&space, HERE);
    CHECK_EQUAL(freed_in(&space), 0);
    frame_free(pfn, 0);
    CHECK_EQUAL(freed_in(&space), 1);
    CHECK_EQUAL(frame_alloc(0, FRAME_USER, FRAME_ANY).v, pfn.v);
    CHECK_HELPER(finish());
}

/* --- counts --------------------------------------------------------------- */

static uint32_t room[2048];

/* What is found, with room for @count frames at once. */
static struct audit_holders look_in(size_t count)
{
    struct audit_holders out;
    bool is_clean = audit_holders(room, count, &out);

    if (is_clean != (out.missing + out.extra + out.lost_tables == 0)) {
        test_fail(__FILE__, __LINE__, "the verdict is not what was counted");
    }
    return out;
}

static void expect(uint64_t missing, uint64_t extra, uint64_t tables)
{
    static const size_t rooms[] = {1, 7, 2048};

    for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
        struct audit_holders out = look_in(rooms[i]);

        CHECK_EQUAL(out.missing, missing);
        CHECK_EQUAL(out.extra, extra);
        CHECK_EQUAL(out.lost_tables, tables);
    }
}

/* One owner after the other is a crime, in any space. */
TEST(holders, a_holder_too_few_or_too_many_is_found)
{
    CHECK_HELPER(start());
    pfn_t pfn = own_page(&space, HERE);
    pfn_t far = own_page(&space, 100 * GiB);
    CHECK_EQUAL(pt_init(&child), MM_OK);
    CHECK_HELPER(expect(0, 0, 0));
    frame_ref(pfn);
    CHECK_HELPER(expect(0, 1, 0));
    CHECK_EQUAL(look_in(7).first.v, pfn.v);
    CHECK_EQUAL(once_map(&child, HERE, pfn, PAGE_BYTES, pt_attr(PT_OWNED)),
                MM_OK); /* takes it */
    CHECK_HELPER(expect(0, 0, 0));
    CHECK_EQUAL(look_in(7).entries, 3);
    frame_unref(pfn);
    CHECK_HELPER(expect(1, 0, 0));
    frame_ref(far);
    CHECK_HELPER(expect(1, 1, 0));
    frame_ref(pfn);
    frame_unref(far);
    CHECK_HELPER(expect(0, 0, 0));
    pt_fini(&child);
    CHECK_HELPER(expect(0, 0, 0));
    CHECK_HELPER(finish());
}

TEST(holders, a_block_that_is_shared_and_cut_has_a_holder_a_page)
{
    CHECK_HELPER(start());
    pfn_t pfn = frame_alloc(9, FRAME_USER, FRAME_ANY);
    CHECK_EQUAL(
        once_map(&space, HERE, pfn, 2 * MiB, pt_attr(PT_WRITE | PT_OWNED)),
        MM_OK);
    CHECK_EQUAL(pt_init(&child), MM_OK);
    CHECK_EQUAL(once_copy(&space, &child, HERE, 2 * MiB), MM_OK);
    CHECK_HELPER(expect(0, 0, 0));
    CHECK_EQUAL(once_unmap(&child, HERE, PAGE_BYTES), MM_OK);
    CHECK_EQUAL(look_in(2048).entries, 1 + 511);
    CHECK_HELPER(expect(0, 0, 0));
    atomic_fetch_sub(&record_of(pfn)->refs, 1);
    CHECK_HELPER(expect(1, 0, 0));
    atomic_fetch_add(&record_of(pfn)->refs, 1);
    pt_fini(&child);
    CHECK_HELPER(finish());
}

TEST(holders, a_table_without_a_way_to_it_is_found)
{
    CHECK_HELPER(start());
    (void)own_page(&space, HERE);
    CHECK_HELPER(expect(0, 0, 0));
    pfn_t table = frame_alloc(0, FRAME_TABLE, FRAME_ZEROED);
    CHECK_HELPER(expect(0, 0, 1));
    frame_free(table, 0);
    CHECK_HELPER(expect(0, 0, 0));
    CHECK_HELPER(finish());
}

/* The count of entries in a record, of the table over HERE. */
TEST(holders, a_table_that_counts_wrongly_is_found)
{
    struct audit_verdict verdict;
    struct walk walk;

    CHECK_HELPER(start());
    (void)own_page(&space, HERE);
    walk_address(space.root, HERE, &walk);
    struct frame_record *record =
        record_of(phys_to_pfn(walk.step[walk.count - 1].table));
    for (unsigned i = 0; i < 2; i++) {
        uint16_t right = atomic_load(&record->entries);

        atomic_store(&record->entries, (uint16_t)(i == 0 ? right + 1 : 0));
        CHECK(!pt_audit(&space, &verdict));
        CHECK_EQUAL(verdict.wrong_counts, 1);
        CHECK_EQUAL(verdict.empty_tables, 0);
        atomic_store(&record->entries, right);
    }
    atomic_fetch_add(&space.tables, 1);
    CHECK(!pt_audit(&space, &verdict));
    CHECK_EQUAL(verdict.lost_tables, 1);
    atomic_fetch_sub(&space.tables, 1);
    CHECK_HELPER(finish());
}

/* --- the list of spaces --------------------------------------------------- */

static unsigned spaces(void)
{
    unsigned count = 0;

    for (struct pt *pt = pt_next(NULL); pt != NULL; pt = pt_next(pt)) {
        count++;
    }
    return count;
}

TEST(holders, spaces_come_and_go_in_any_order)
{
    static struct pt many[5];
    static const unsigned order[] = {2, 0, 4, 3, 1};

    sim_boot(RAM);
    CHECK_EQUAL(spaces(), 0);
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQUAL(pt_init(&many[i]), MM_OK);
        CHECK_EQUAL(spaces(), i + 1);
    }
    for (unsigned i = 0; i < 5; i++) {
        pt_fini(&many[order[i]]);
        CHECK_EQUAL(spaces(), 4 - i);
    }
}
