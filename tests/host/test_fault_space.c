/* SPDX-License-Identifier: MIT */
/* Faults in a space of its own: large pages, copies, no access. */
/*
 * At risk: a large page where it must not be, or a promise lost when there is
 * no block; a write that reaches somebody else's page; a copy of the wrong
 * bytes, or of 2 MiB for one page.
 */
#include "tests/host/open_scene.h"

#include <string.h>

#include <mm/fault.h>
#include "base/bits.h"
#include "tests/shared/figures.h"

#define HERE GiB

static void promise(vaddr_t from, uint64_t bytes, unsigned flags)
{
    CHECK_EQUAL(once_promise(&space, from, bytes, PT_ZERO, pt_attr(flags)),
                MM_OK);
}

TEST(fault_space, a_large_promise_is_kept_by_a_large_page)
{
    uint8_t value = 1;

    CHECK_HELPER(start());
    promise(HERE, 4 * MiB, PT_WRITE);
    CHECK(sim_write(HERE + MiB, 7));
    CHECK_EQUAL(once_query(&space, HERE).level, 1);
    CHECK_EQUAL(once_query(&space, HERE).state, PTE_PRESENT);
    CHECK_EQUAL(once_query(&space, HERE + 2 * MiB).state, PTE_PROMISE);
    CHECK(sim_read(HERE, &value));
    CHECK_EQUAL(value, 0);
    CHECK_HELPER(finish());
}

TEST(fault_space, a_small_promise_or_no_block_means_a_small_page)
{
    CHECK_HELPER(start());
    promise(HERE + PAGE_BYTES, 3 * MiB, PT_WRITE);
    CHECK(sim_write(HERE + PAGE_BYTES, 7));
    CHECK_EQUAL(once_query(&space, HERE + PAGE_BYTES).level, 0);
    promise(HERE + GiB, 2 * MiB, PT_WRITE);
    frame_inject(1);
    CHECK(sim_write(HERE + GiB, 7)); /* the block fails, the page does not */
    frame_inject(0);
    CHECK_EQUAL(once_query(&space, HERE + GiB).level, 0);
    CHECK_EQUAL(once_query(&space, HERE + GiB + PAGE_BYTES).state, PTE_PROMISE);
    CHECK_HELPER(finish());
}

TEST(fault_space, quirks_of_the_cpu_keep_pages_small)
{
    CHECK_HELPER(start());
    pt_quirks = PT_QUIRK_MULTIHIT;
    promise(HERE, 2 * MiB, PT_WRITE);
    CHECK(sim_write(HERE, 7));
    CHECK_EQUAL(once_query(&space, HERE).level, 1); /* it is no code */
    promise(HERE + GiB, 2 * MiB, PT_EXEC);
    CHECK(sim_execute(HERE + GiB));
    CHECK_EQUAL(once_query(&space, HERE + GiB).level, 0);
    pt_features.has_nx = false;
    CHECK(!pt_may_resize(PT_WRITE)); /* all is code */
    pt_features.has_nx = true;
    pt_quirks = PT_QUIRK_MULTIMATCH;
    promise(HERE + 2 * GiB, 2 * MiB, PT_WRITE);
    CHECK(sim_write(HERE + 2 * GiB, 7));
    CHECK_EQUAL(once_query(&space, HERE + 2 * GiB).level, 0);
    pt_quirks = 0;
    CHECK_HELPER(finish());
}

/* @child has what @space has. */
static void fork_into(struct pt *child, uint64_t bytes)
{
    CHECK_EQUAL(pt_init(child), MM_OK);
    CHECK_EQUAL(once_copy(&space, child, HERE, bytes), MM_OK);
}

TEST(fault_space, a_write_copies_one_page_of_a_shared_large_one)
{
    struct pt child;
    uint8_t value = 0;

    CHECK_HELPER(start());
    promise(HERE, 2 * MiB, PT_WRITE);
    CHECK(sim_write(HERE + 5, 7));
    CHECK(sim_write(HERE + PAGE_BYTES, 8));
    CHECK_HELPER(fork_into(&child, 2 * MiB));
    uint64_t unshared = faults_of(FAULT_UNSHARED);
    CHECK(sim_write(HERE + 6, 9));
    CHECK_EQUAL(faults_of(FAULT_UNSHARED), unshared + 1);
    CHECK(sim_read(HERE + 5, &value));
    CHECK_EQUAL(value, 7);
    CHECK_EQUAL(once_query(&space, HERE).attr.flags, PT_WRITE | PT_OWNED);
    CHECK_EQUAL(once_query(&space, HERE + PAGE_BYTES).attr.flags,
                PT_COW | PT_OWNED);
    tlb_switch(&child.tlb);
    CHECK(sim_read(HERE + 6, &value));
    CHECK_EQUAL(value, 0);
    CHECK(sim_read(HERE + PAGE_BYTES, &value));
    CHECK_EQUAL(value, 8);
    tlb_switch(&space.tlb);
    pt_fini(&child);
    CHECK_HELPER(finish());
}

TEST(fault_space, the_last_holder_takes_all_of_it_back)
{
    struct pt child;

    CHECK_HELPER(start());
    promise(HERE, 2 * MiB, PT_WRITE);
    CHECK(sim_write(HERE, 7));
    CHECK_HELPER(fork_into(&child, 2 * MiB));
    pt_fini(&child);
    pfn_t before = once_query(&space, HERE).pfn;
    CHECK(sim_write(HERE + MiB, 8));
    CHECK_EQUAL(once_query(&space, HERE).level, 1);
    CHECK_EQUAL(once_query(&space, HERE).pfn.v, before.v);
    CHECK_EQUAL(once_query(&space, HERE).attr.flags, PT_WRITE | PT_OWNED);
    CHECK_HELPER(finish());
}

/* A copy that has no frame, or no table, leaves all as it was. */
TEST(fault_space, a_copy_without_memory_is_an_error_and_changes_nothing)
{
    struct pt child;
    uint8_t value = 0;

    CHECK_HELPER(start());
    promise(HERE, 2 * MiB, PT_WRITE);
    CHECK(sim_write(HERE, 7));
    CHECK_HELPER(fork_into(&child, 2 * MiB));
    for (unsigned k = 1; k <= 2; k++) {
        frame_inject(k);
        CHECK(!sim_write(HERE, 8));
        frame_inject(0);
        CHECK_EQUAL(sim_last_fault(), FAULT_NO_MEMORY);
        CHECK(sim_read(HERE, &value));
        CHECK_EQUAL(value, 7);
    }
    CHECK(sim_write(HERE, 8));
    pt_fini(&child);
    CHECK_HELPER(finish());
}

TEST(fault_space, what_nobody_may_access_is_named)
{
    uint8_t value = 0;

    CHECK_HELPER(start());
    promise(HERE, PAGE_BYTES, PT_NONE);
    CHECK(!sim_read(HERE, &value));
    CHECK_EQUAL(sim_last_fault(), FAULT_NO_ACCESS);
    promise(HERE + PAGE_BYTES, PAGE_BYTES, PT_WRITE);
    CHECK(sim_write(HERE + PAGE_BYTES, 7));
    CHECK_EQUAL(
        once_protect(&space, HERE + PAGE_BYTES, PAGE_BYTES, pt_attr(PT_NONE)),
        MM_OK);
    CHECK(!sim_read(HERE + PAGE_BYTES, &value));
    CHECK_EQUAL(sim_last_fault(), FAULT_NO_ACCESS);
    CHECK_EQUAL(
        once_protect(&space, HERE + PAGE_BYTES, PAGE_BYTES, pt_attr(PT_READ)),
        MM_OK);
    CHECK(sim_read(HERE + PAGE_BYTES, &value));
    CHECK_EQUAL(value, 7);
    CHECK_HELPER(finish());
}
