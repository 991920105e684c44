/* SPDX-License-Identifier: MIT */
/* The kernel's blocks: cut for what changes in them, and whole again after. */
/*
 * At risk: a direct map that gets smaller pages with each guard, and never
 * larger ones again; tables that are lost on the way; a block put together of
 * parts that differ; one that stays in the TLB; one that a CPU may not have
 * resized. Provoked by guards in leaves of each size, alone and side by side.
 */
#include "tests/host/space_scene.h"

#include "base/bits.h"

#define LARGE_RAM (3 * GiB)
#define BLOCK     (SIM_DIRECT + GiB) /* the first of 1 GiB that is all RAM */

static uint64_t tables;

static void start_kernel(const struct pt_features *features)
{
    sim_boot_with(LARGE_RAM, features);
    tables = atomic_load(&pt_kernel.tables);
}

static unsigned level_of(vaddr_t address)
{
    return pt_lookup(&pt_kernel, address).level;
}

static void set(vaddr_t start, uint64_t bytes, unsigned flags)
{
    CHECK_EQUAL(pt_protect_kernel(start, bytes, pt_attr(flags | PT_GLOBAL)),
                MM_OK);
}

static bool can(vaddr_t address, unsigned access)
{
    paddr_t physical;

    return sim_translate(address, access, &physical) == WALK_ALLOWED &&
           physical.v == address - SIM_DIRECT;
}

/* All as it was, and nothing lost. */
static void end_kernel(void)
{
    struct audit_verdict verdict;

    CHECK_EQUAL(atomic_load(&pt_kernel.tables), tables);
    CHECK(pt_audit(&pt_kernel, &verdict));
    CHECK_EQUAL(sim_stale(), 0);
    CHECK(frame_check());
}

static const struct pt_features all = {4, 40, true, true, true};
static const struct pt_features five = {5, 40, true, true, true};
static const struct pt_features no_1g = {4, 40, true, false, true};
static const struct pt_features no_nx = {4, 40, false, true, true};
static const struct pt_features *const machines[] = {&all, &five, &no_1g,
                                                     &no_nx};

static void guard_a_page(const struct pt_features *features)
{
    vaddr_t guard = BLOCK + 5 * MiB + PAGE_BYTES;

    CHECK_HELPER(start_kernel(features));
    unsigned level = level_of(guard);
    CHECK_EQUAL(level, features->has_1g ? 2 : 1);
    CHECK(can(guard, WALK_WRITE) && can(guard - 1, WALK_WRITE));
    CHECK_HELPER(set(guard, PAGE_BYTES, PT_NONE));
    CHECK_EQUAL(level_of(guard), 0);
    CHECK(!can(guard, WALK_READ));
    CHECK(can(guard - 1, WALK_WRITE) && can(guard + PAGE_BYTES, WALK_WRITE));
    CHECK_EQUAL(atomic_load(&pt_kernel.tables), tables + level);
    CHECK_HELPER(set(guard, PAGE_BYTES, PT_WRITE));
    CHECK_EQUAL(level_of(guard), level);
    CHECK(can(guard, WALK_WRITE));
    CHECK_HELPER(end_kernel());
}

TEST(size, a_guard_cuts_its_block_and_gives_it_back)
{
    for (size_t i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
        CHECK_HELPER(guard_a_page(machines[i]));
    }
}

/* At the ends of the block, beside each other, and far apart. */
TEST(size, the_last_guard_gives_the_block_back)
{
    static const unsigned pages[] = {0, 1, 2, 200, 510, 511, 512, 700};
    const unsigned count = sizeof(pages) / sizeof(pages[0]);

    CHECK_HELPER(start_kernel(&all));
    for (unsigned i = 0; i < count; i++) {
        CHECK_HELPER(set(BLOCK + pages[i] * PAGE_BYTES, PAGE_BYTES, PT_NONE));
    }
    for (unsigned i = 0; i < count; i++) {
        vaddr_t page = BLOCK + pages[i] * PAGE_BYTES;

        CHECK_HELPER(set(page, PAGE_BYTES, PT_WRITE));
        /* The first block is whole after its sixth, the second at the end. */
        CHECK_EQUAL(level_of(BLOCK), i + 1 == count ? 2 : i < 5 ? 0 : 1);
    }
    CHECK_HELPER(end_kernel());
}

/* What becomes alike by a change of its neighbour's rights, too. */
TEST(size, rights_that_meet_again_are_one_page)
{
    vaddr_t end = BLOCK + 6 * MiB;

    CHECK_HELPER(start_kernel(&all));
    CHECK_HELPER(set(BLOCK + MiB, 3 * MiB, 0));
    CHECK_EQUAL(level_of(BLOCK + MiB), 0);
    CHECK_EQUAL(level_of(BLOCK + 2 * MiB), 1); /* never cut */
    CHECK_HELPER(set(BLOCK, MiB, 0));
    CHECK_EQUAL(level_of(BLOCK), 1);
    CHECK(can(BLOCK, WALK_READ) && !can(BLOCK, WALK_WRITE));
    CHECK_HELPER(set(BLOCK + 3 * PAGE_BYTES, PAGE_BYTES, PT_WRITE));
    CHECK_HELPER(set(BLOCK + 4 * MiB - PAGE_BYTES, PAGE_BYTES, PT_WRITE));
    CHECK_EQUAL(level_of(BLOCK), 0);
    CHECK_HELPER(set(BLOCK, 6 * MiB, PT_WRITE)); /* every block on the way */
    CHECK_EQUAL(level_of(BLOCK), 2);
    CHECK(can(BLOCK, WALK_WRITE) && can(end, WALK_WRITE));
    CHECK_HELPER(end_kernel());
}

/* No part was cut into small pages: there is but one size to go up. */
TEST(size, large_parts_are_put_together_as_well)
{
    CHECK_HELPER(start_kernel(&all));
    CHECK_HELPER(set(BLOCK + 2 * MiB, 4 * MiB, 0));
    CHECK_EQUAL(level_of(BLOCK), 1);
    CHECK_HELPER(set(BLOCK + 2 * MiB, 2 * MiB, PT_WRITE));
    CHECK_EQUAL(level_of(BLOCK), 1);
    CHECK_HELPER(set(BLOCK + 4 * MiB, 2 * MiB, PT_WRITE));
    CHECK_EQUAL(level_of(BLOCK), 2);
    CHECK_HELPER(end_kernel());
}

TEST(size, what_could_not_be_cut_stays_whole)
{
    struct pt_attr none = pt_attr(PT_NONE | PT_GLOBAL);

    CHECK_HELPER(start_kernel(&all));
    for (unsigned k = 1; k <= 2; k++) { /* 1 GiB, then 2 MiB */
        frame_inject(k);
        CHECK_EQUAL(pt_protect_kernel(BLOCK + MiB, PAGE_BYTES, none),
                    MM_ENOMEM);
        frame_inject(0);
        CHECK_EQUAL(level_of(BLOCK), 2);
        CHECK(can(BLOCK + MiB, WALK_WRITE));
        CHECK_EQUAL(atomic_load(&pt_kernel.tables), tables);
    }
    CHECK_HELPER(end_kernel());
}

TEST(size, where_the_cpu_forbids_it_pieces_stay)
{
    CHECK_HELPER(start_kernel(&all));
    pt_quirks = PT_QUIRK_MULTIMATCH;
    CHECK_HELPER(set(BLOCK, PAGE_BYTES, PT_NONE));
    CHECK_HELPER(set(BLOCK, PAGE_BYTES, PT_WRITE));
    CHECK_EQUAL(level_of(BLOCK), 0);
    pt_quirks = PT_QUIRK_MULTIHIT; /* of code alone */
    CHECK_HELPER(set(BLOCK, PAGE_BYTES, PT_WRITE));
    CHECK_EQUAL(level_of(BLOCK), 2);
    pt_quirks = 0;
    CHECK_HELPER(end_kernel());
}

TEST(size, what_is_no_range_is_refused)
{
    struct pt_attr attr = pt_attr(PT_WRITE);
    struct pt_attr both = pt_attr(PT_WRITE | PT_EXEC);

    CHECK_HELPER(start_kernel(&all));
    CHECK_EQUAL(pt_protect_kernel(BLOCK, 0, attr), MM_EINVAL);
    CHECK_EQUAL(pt_protect_kernel(BLOCK + 1, PAGE_BYTES, attr), MM_EINVAL);
    CHECK_EQUAL(pt_protect_kernel(GiB, PAGE_BYTES, attr), MM_EINVAL);
    CHECK_EQUAL(pt_protect_kernel(BLOCK, PAGE_BYTES, both), MM_EINVAL);
    CHECK_EQUAL(level_of(BLOCK), 2);
    CHECK_HELPER(end_kernel());
}
