/* SPDX-License-Identifier: MIT */
/* pt_copy, pt_move, pt_age, pt_collapse, two ranges: one case each by hand. */
/*
 * At risk: a page that both spaces can write to; a frame that lost its second
 * holder; what lies beside a range that moved; a page written to while it is
 * copied into a large one. The model (test_pt_model.c) tries all of it at
 * random; here stands what each operation is for.
 */
#include "tests/host/open_scene.h"

#include <string.h>

#include "base/bits.h"

#define HERE  GiB
#define THERE (3 * GiB)

static void map_page(vaddr_t page, pfn_t pfn, unsigned flags)
{
    CHECK_EQUAL(once_map(&space, page, pfn, PAGE_BYTES,
                         pt_attr(flags | PT_OWNED | PT_USER)),
                MM_OK);
}

/* A new owned page of @space at @page, filled with @content. */
static pfn_t give_page(vaddr_t page, unsigned flags, int content)
{
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);

    memset(phys_to_virt(pfn_to_phys(pfn)), content, PAGE_BYTES);
    map_page(page, pfn, flags);
    return pfn;
}

static unsigned flags_at(struct pt *pt, vaddr_t address, pfn_t *out_pfn)
{
    struct pt_attr attr;

    *out_pfn = PFN_NONE;
    return sim_lookup(pt, address, out_pfn, &attr) ? attr.flags : ~0u;
}

TEST(pt_copy, both_sides_share_until_somebody_writes)
{
    struct pt child;
    pfn_t found;

    CHECK_HELPER(start());
    CHECK_EQUAL(pt_init(&child), MM_OK);
    pfn_t rw = give_page(HERE, PT_WRITE, 1);
    pfn_t ro = give_page(HERE + PAGE_BYTES, PT_READ, 2);
    open_range(HERE, 2 * MiB);
    CHECK_EQUAL(pt_promise(&cursor, HERE + MiB, MiB, PT_ZERO,
                           pt_attr(PT_USER | PT_WRITE), 0),
                MM_OK);
    CHECK_EQUAL(pt_copy(&cursor, &child, HERE, 2 * MiB), MM_OK);
    shut();
    CHECK_EQUAL(record_of(rw)->refs, 2);
    CHECK_EQUAL(record_of(ro)->refs, 2);
    CHECK_EQUAL(flags_at(&space, HERE, &found), PT_USER | PT_OWNED | PT_COW);
    CHECK_EQUAL(flags_at(&child, HERE, &found), PT_USER | PT_OWNED | PT_COW);
    CHECK_EQUAL(found.v, rw.v);
    CHECK_EQUAL(flags_at(&child, HERE + PAGE_BYTES, &found),
                PT_USER | PT_OWNED);
    CHECK_EQUAL(found.v, ro.v);
    pt_fini(&child);
    CHECK_EQUAL(record_of(rw)->refs, 1);
    CHECK_EQUAL(record_of(ro)->refs, 1);
    CHECK_EQUAL(once_unmap(&space, HERE, 2 * MiB), MM_OK);
    CHECK_HELPER(finish());
}

/* Read-only when it was copied; a right that comes later is one to copy. */
TEST(pt_copy, writing_allowed_later_means_a_copy)
{
    struct pt child;
    pfn_t found;

    CHECK_HELPER(start());
    CHECK_EQUAL(pt_init(&child), MM_OK);
    give_page(HERE, PT_READ, 1);
    open_range(HERE, PAGE_BYTES);
    CHECK_EQUAL(pt_copy(&cursor, &child, HERE, PAGE_BYTES), MM_OK);
    CHECK_EQUAL(
        pt_protect(&cursor, HERE, PAGE_BYTES, pt_attr(PT_USER | PT_WRITE)),
        MM_OK);
    shut();
    CHECK_EQUAL(flags_at(&space, HERE, &found), PT_USER | PT_OWNED | PT_COW);
    pt_fini(&child);
    CHECK_EQUAL(
        once_protect(&space, HERE, PAGE_BYTES, pt_attr(PT_USER | PT_WRITE)),
        MM_OK);
    CHECK_EQUAL(flags_at(&space, HERE, &found), PT_USER | PT_OWNED | PT_WRITE);
    CHECK_EQUAL(once_unmap(&space, HERE, PAGE_BYTES), MM_OK);
    CHECK_HELPER(finish());
}

/* Whatever table is missing: what there is of the copy goes, all of it. */
TEST(pt_copy, a_copy_without_memory_can_be_taken_down)
{
    struct pt child;

    CHECK_HELPER(start());
    give_page(HERE, PT_WRITE, 1);
    give_page(4 * MiB, PT_WRITE, 2);
    for (uint64_t k = 1; k <= 6; k++) {
        CHECK_EQUAL(pt_init(&child), MM_OK);
        open_range(MiB, 2 * GiB);
        frame_inject(k);
        enum mm_status status = pt_copy(&cursor, &child, MiB, 2 * GiB);
        frame_inject(0);
        shut();
        CHECK_EQUAL(status, k <= 5 ? MM_ENOMEM : MM_OK);
        pt_fini(&child);
    }
    CHECK_EQUAL(once_unmap(&space, MiB, 2 * GiB), MM_OK);
    CHECK_HELPER(finish());
}

/* Both name a frame by their inverse, which must be no RAM. */
TEST(pt_copy, frames_beyond_the_payloads_are_not_parked)
{
    static const struct pt_features wide = {4, 52, true, true, true};
    pfn_t beyond = pfn_of(PTE_PAYLOAD_END);

    CHECK_HELPER(start());
    struct pt_features before = pt_features;
    pt_setup(&wide);
    open_range(HERE, 2 * PAGE_BYTES);
    CHECK_EQUAL(pt_map(&cursor, HERE, beyond, PAGE_BYTES, pt_attr(PT_NONE)),
                MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, HERE, pfn_of(PTE_PAYLOAD_END - 1),
                       2 * PAGE_BYTES, pt_attr(PT_READ)),
                MM_OK);
    CHECK_EQUAL(pt_protect(&cursor, HERE, PAGE_BYTES, pt_attr(PT_NONE)), MM_OK);
    CHECK_EQUAL(pt_protect(&cursor, HERE, 2 * PAGE_BYTES, pt_attr(PT_NONE)),
                MM_EINVAL);
    shut();
    CHECK_EQUAL(once_unmap(&space, HERE, 2 * PAGE_BYTES), MM_OK);
    pt_setup(&before);
    CHECK_HELPER(finish());
}

/* Where the cache looks at the bits of physical addresses alone, at half. */
TEST(pt_copy, frames_that_l1tf_could_name_are_not_parked)
{
    static const struct pt_features server = {4, 46, true, true, true};
    pfn_t half = pfn_of(UINT64_C(1) << (46 - 1 - PAGE_SHIFT));

    CHECK_HELPER(start());
    struct pt_features before = pt_features;
    pt_quirks = PT_QUIRK_L1TF;
    pt_setup(&server);
    open_range(HERE, 2 * PAGE_BYTES);
    CHECK_EQUAL(pt_map(&cursor, HERE, half, PAGE_BYTES, pt_attr(PT_NONE)),
                MM_EINVAL);
    CHECK_EQUAL(pt_map(&cursor, HERE, pfn_of(half.v - 1), 2 * PAGE_BYTES,
                       pt_attr(PT_READ)),
                MM_OK);
    CHECK_EQUAL(pt_protect(&cursor, HERE, PAGE_BYTES, pt_attr(PT_NONE)), MM_OK);
    CHECK_EQUAL(pt_protect(&cursor, HERE, 2 * PAGE_BYTES, pt_attr(PT_NONE)),
                MM_EINVAL);
    CHECK_EQUAL(
        pt_promise(&cursor, HERE, PAGE_BYTES, PT_OBJECT, pt_attr(0), half.v),
        MM_EINVAL);
    shut();
    CHECK_EQUAL(once_unmap(&space, HERE, 2 * PAGE_BYTES), MM_OK);
    pt_quirks = 0;
    pt_setup(&before);
    CHECK_EQUAL(pt_payload_end, PTE_PAYLOAD_END);
    CHECK_HELPER(finish());
}

/* What the owner's tag calls shared is written to by both. */
TEST(pt_copy, shared_pages_stay_writable_on_both_sides)
{
    struct pt_attr attr = {PT_USER | PT_WRITE | PT_OWNED, PT_WB, 0x81};
    struct pt child;
    pfn_t found;

    CHECK_HELPER(start());
    space.shared_tags = 0x80;
    CHECK_EQUAL(pt_init(&child), MM_OK);
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    open_range(HERE, PAGE_BYTES);
    CHECK_EQUAL(pt_map(&cursor, HERE, pfn, PAGE_BYTES, attr), MM_OK);
    CHECK_EQUAL(pt_copy(&cursor, &child, HERE, PAGE_BYTES), MM_OK);
    CHECK_EQUAL(
        pt_protect(&cursor, HERE, PAGE_BYTES, pt_attr(PT_USER | PT_READ)),
        MM_OK);
    CHECK_EQUAL(
        pt_protect(&cursor, HERE, PAGE_BYTES, pt_attr(PT_USER | PT_WRITE)),
        MM_OK);
    shut();
    CHECK_EQUAL(record_of(pfn)->refs, 2);
    CHECK_EQUAL(flags_at(&space, HERE, &found), attr.flags);
    CHECK_EQUAL(flags_at(&child, HERE, &found), attr.flags);
    pt_fini(&child);
    CHECK_EQUAL(once_unmap(&space, HERE, PAGE_BYTES), MM_OK);
    CHECK_HELPER(finish());
}

TEST(pt_copy, a_large_leaf_is_shared_whole_and_cut_on_one_side)
{
    struct pt child;
    pfn_t found;
    vaddr_t reached;

    CHECK_HELPER(start());
    CHECK_EQUAL(pt_init(&child), MM_OK);
    pfn_t block = frame_alloc(9, FRAME_USER, FRAME_ANY);
    open_range(HERE, 4 * MiB);
    CHECK_EQUAL(pt_map(&cursor, HERE, block, 2 * MiB,
                       pt_attr(PT_USER | PT_OWNED | PT_WRITE)),
                MM_OK);
    CHECK_EQUAL(pt_copy(&cursor, &child, HERE, 4 * MiB), MM_OK);
    CHECK_EQUAL(pt_unmap(&cursor, HERE, MiB, &reached), MM_OK);
    shut();
    CHECK_EQUAL(record_of(block)->refs, 1 + 256);
    CHECK_EQUAL(flags_at(&child, HERE, &found), PT_USER | PT_OWNED | PT_COW);
    CHECK_EQUAL(flags_at(&space, HERE + MiB, &found),
                PT_USER | PT_OWNED | PT_COW);
    pt_fini(&child);
    CHECK_EQUAL(record_of(block)->refs, 256);
    CHECK_EQUAL(once_unmap(&space, HERE, 4 * MiB), MM_OK);
    CHECK_HELPER(finish());
}

TEST(pt_copy, a_move_takes_gaps_along_and_leaves_the_neighbours)
{
    pfn_t found;
    struct pt_entry entry;

    CHECK_HELPER(start());
    pfn_t first = give_page(HERE, PT_WRITE, 1);
    pfn_t third = give_page(HERE + 2 * PAGE_BYTES, PT_READ, 3);
    pfn_t beside = give_page(HERE + 3 * PAGE_BYTES, PT_READ, 4);
    CHECK_EQUAL(once_promise(&space, THERE, 2 * MiB, PT_ZERO, pt_attr(PT_USER)),
                MM_OK);
    CHECK_EQUAL(pt_open_two(&space, THERE, THERE + 2 * MiB, HERE, HERE + MiB,
                            &batch, &cursor),
                MM_OK);
    vaddr_t to = THERE + 5 * PAGE_BYTES;
    CHECK_EQUAL(pt_move(&cursor, HERE, to, 3 * PAGE_BYTES), MM_OK);
    pt_query(&cursor, to + PAGE_BYTES, &entry);
    CHECK_EQUAL(entry.state, PTE_ABSENT);
    pt_query(&cursor, to + 3 * PAGE_BYTES, &entry);
    CHECK_EQUAL(entry.state, PTE_PROMISE);
    shut();
    CHECK_EQUAL(flags_at(&space, to, &found), PT_USER | PT_OWNED | PT_WRITE);
    CHECK_EQUAL(found.v, first.v);
    CHECK_EQUAL(flags_at(&space, to + 2 * PAGE_BYTES, &found),
                PT_USER | PT_OWNED);
    CHECK_EQUAL(found.v, third.v);
    CHECK_EQUAL(flags_at(&space, HERE, &found), ~0u);
    flags_at(&space, HERE + 3 * PAGE_BYTES, &found);
    CHECK_EQUAL(found.v, beside.v);
    CHECK_EQUAL(once_unmap(&space, HERE, GiB), MM_OK);
    CHECK_EQUAL(once_unmap(&space, THERE, GiB), MM_OK);
    CHECK_HELPER(finish());
}

/* Have the processor cache what @page says. */
static void use_page(vaddr_t page)
{
    paddr_t physical;

    CHECK_EQUAL(sim_translate(page, WALK_WRITE | WALK_USER, &physical),
                WALK_ALLOWED);
}

/* The frame goes by a batch that began later: sim_watch.c sees that it may. */
TEST(pt_copy, what_was_parked_is_forgotten_by_whoever_commits_first)
{
    struct tlb_batch waiting;

    CHECK_HELPER(start());
    give_page(HERE, PT_WRITE, 1);
    give_page(HERE + PAGE_BYTES, PT_READ, 2); /* the table stays */
    CHECK_HELPER(use_page(HERE));
    CHECK_EQUAL(pt_open(&space, HERE, HERE + PAGE_BYTES, &waiting, &cursor),
                MM_OK);
    CHECK_EQUAL(pt_protect(&cursor, HERE, PAGE_BYTES, pt_attr(PT_NONE)), MM_OK);
    pt_close(&cursor);
    CHECK_EQUAL(once_unmap(&space, HERE, PAGE_BYTES), MM_OK);
    tlb_commit(&waiting);
    CHECK_EQUAL(once_unmap(&space, HERE, 2 * PAGE_BYTES), MM_OK);
    CHECK_HELPER(finish());
}

static void count_dirty(void *context, const struct pt_entry *entry)
{
    *(unsigned *)context += entry->dirty ? 1 : 0;
}

TEST(pt_copy, age_clears_what_it_reports)
{
    unsigned dirty = 0;

    CHECK_HELPER(start());
    for (unsigned i = 0; i < 4; i++) {
        give_page(HERE + i * PAGE_BYTES, PT_WRITE, 0);
    }
    open_range(HERE, 2 * MiB);
    CHECK_EQUAL(pt_age(&cursor, HERE, 2 * MiB, PT_AGE_ACCESSED | PT_AGE_DIRTY,
                       count_dirty, &dirty),
                4); /* leaves are made accessed and dirty */
    CHECK_EQUAL(dirty, 4);
    shut();
    open_range(HERE, 2 * MiB);
    CHECK_EQUAL(pt_age(&cursor, HERE, 2 * MiB, PT_AGE_ACCESSED | PT_AGE_DIRTY,
                       NULL, NULL),
                0);
    shut();
    CHECK_EQUAL(once_unmap(&space, HERE, 2 * MiB), MM_OK);
    CHECK_HELPER(finish());
}

static bool is_wanted(void *context, const struct pt_collapse *found)
{
    *(struct pt_collapse *)context = *found;
    return found->promised < 500;
}

TEST(pt_copy, small_pages_become_a_large_one_with_their_contents)
{
    struct pt_collapse found;
    struct pt_entry entry;
    struct tlb_stats before;
    struct tlb_stats after;

    CHECK_HELPER(start());
    CHECK_EQUAL(once_promise(&space, HERE, 2 * MiB, PT_ZERO,
                             pt_attr(PT_USER | PT_WRITE)),
                MM_OK);
    CHECK_EQUAL(pt_collapse(&space, HERE, is_wanted, &found), MM_ENOENT);
    for (unsigned i = 0; i < 20; i++) {
        if (i == 10) {
            CHECK_EQUAL(pt_collapse(&space, HERE, is_wanted, &found),
                        MM_ERANGE);
        }
        give_page(HERE + 2 * i * PAGE_BYTES, PT_WRITE, (int)i + 1);
    }
    tlb_stats(&before);
    CHECK_EQUAL(pt_collapse(&space, HERE, is_wanted, &found), MM_OK);
    tlb_stats(&after);
    CHECK_EQUAL(after.commits - before.commits, 2); /* frozen; replaced */
    CHECK_EQUAL(found.present, 20);
    CHECK_EQUAL(found.promised, 492);
    open_range(HERE, 2 * MiB);
    pt_query(&cursor, HERE, &entry);
    shut();
    CHECK_EQUAL(entry.level, 1);
    CHECK_EQUAL(entry.attr.flags, PT_USER | PT_WRITE | PT_OWNED);
    const char *content = phys_to_virt(pfn_to_phys(entry.pfn));
    for (unsigned i = 0; i < 512; i++) {
        char expected = i < 40 && i % 2 == 0 ? (char)(i / 2 + 1) : 0;

        CHECK_EQUAL(content[i * PAGE_BYTES], expected);
        CHECK_EQUAL(content[i * PAGE_BYTES + PAGE_BYTES - 1], expected);
    }
    CHECK_EQUAL(once_unmap(&space, HERE, 2 * MiB), MM_OK);
    CHECK_HELPER(finish());
}

TEST(pt_copy, two_ranges_must_not_overlap)
{
    CHECK_HELPER(start());
    CHECK_EQUAL(pt_open_two(&space, HERE, HERE + 2 * MiB, HERE + MiB,
                            HERE + 3 * MiB, &batch, &cursor),
                MM_EINVAL);
    CHECK_EQUAL(pt_open_two(&space, HERE, HERE + MiB, HERE + MiB,
                            HERE + 2 * MiB, &batch, &cursor),
                MM_OK);
    CHECK_EQUAL(pt_move(&cursor, HERE, HERE + PAGE_BYTES, 2 * PAGE_BYTES),
                MM_EINVAL);
    shut();
    CHECK_HELPER(finish());
}
