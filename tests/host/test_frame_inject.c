/* SPDX-License-Identifier: MIT */
/* Tests of frame: failures on demand. */
/*
 * At risk: a test that believes it has been everywhere, since the failure it
 * asked for never came, came elsewhere, or left a trace. Provoked by counting
 * calls of each kind by hand, from functions whose names are alike.
 */
#include <mm/frame.h>

#include "tests/host/frame_scene.h"

static pfn_t alloc_here(void)
{
    return frame_alloc(0, FRAME_USER, FRAME_ANY);
}

static pfn_t alloc_here_too(void)
{
    return frame_alloc(1, FRAME_USER, FRAME_ANY);
}

static unsigned alloc_many(pfn_t *out, unsigned count)
{
    return frame_alloc_bulk(out, count, FRAME_USER, FRAME_ANY);
}

static pfn_t alloc_in_a_row(uint64_t frames)
{
    return frame_alloc_run(frames, 1, FRAME_USER, FRAME_ANY);
}

/* So that no record has to be backed meanwhile: that would count as well. */
static void boot_with_records(void)
{
    static pfn_t frame[SMALL_FRAMES];

    sim_boot_frames(SMALL_RAM);
    free_all(frame, take_all(frame, 0, FRAME_ANY), 0);
    frame_drain();
}

TEST(frame, the_nth_allocation_fails_and_no_other)
{
    CHECK_HELPER(boot_with_records());
    for (uint64_t nth = 1; nth <= 12; nth++) {
        uint64_t failures = figures().failures;
        frame_inject(nth);
        for (uint64_t call = 1; call <= 12; call++) {
            CHECK_EQUAL(frame_inject_count(), call - 1);
            pfn_t pfn = alloc_here();
            CHECK_EQUAL(pfn_is_none(pfn), call == nth);
            CHECK_EQUAL(frame_inject_failed(), call >= nth);
        }
        CHECK_EQUAL(figures().failures, failures + 1);
    }
    frame_inject(0);
    CHECK_EQUAL(frame_inject_count(), 0);
    CHECK_EQUAL(frame_inject_failed(), 0);
    for (unsigned i = 0; i < 30; i++) {
        CHECK(!pfn_is_none(alloc_here()));
    }
    CHECK_EQUAL(frame_inject_count(), 30);
    CHECK(frame_check());
}

TEST(frame, every_nth_allocation_fails)
{
    CHECK_HELPER(boot_with_records());
    for (uint64_t every = 1; every <= 5; every++) {
        frame_inject_set(&(struct frame_injection){.every = every});
        for (uint64_t call = 1; call <= 23; call++) {
            CHECK_EQUAL(pfn_is_none(alloc_here()), call % every == 0);
        }
        CHECK_EQUAL(frame_inject_failed(), 23 / every);
    }
    /* With one more in between; where both fall together, it is one. */
    frame_inject_set(&(struct frame_injection){.nth = 4, .every = 3});
    for (uint64_t call = 1; call <= 12; call++) {
        CHECK_EQUAL(pfn_is_none(alloc_here()), call % 3 == 0 || call == 4);
    }
    frame_inject_set(&(struct frame_injection){.nth = 6, .every = 3});
    for (uint64_t call = 1; call <= 12; call++) {
        CHECK_EQUAL(pfn_is_none(alloc_here()), call % 3 == 0);
    }
    CHECK_EQUAL(frame_inject_failed(), 4);
    frame_inject_set(NULL);
    CHECK_EQUAL(frame_inject_failed() + frame_inject_count(), 0);
    CHECK(!pfn_is_none(alloc_here()));
    CHECK(frame_check());
}

TEST(frame, only_the_site_that_is_named_fails)
{
    /* The same name, but not the same string. */
    static const char name[] = {'a', 'l', 'l', 'o', 'c', '_',
                                'h', 'e', 'r', 'e', '\0'};

    CHECK_HELPER(boot_with_records());
    frame_inject_set(&(struct frame_injection){.nth = 2, .site = name});
    CHECK(!pfn_is_none(alloc_here_too()));
    CHECK(!pfn_is_none(alloc_here()));
    CHECK(!pfn_is_none(alloc_here_too()));
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(!pfn_is_none(alloc_in_a_row(77)));
    CHECK_EQUAL(frame_inject_count(), 1);
    CHECK(pfn_is_none(alloc_here()));
    CHECK(!pfn_is_none(alloc_here()));
    CHECK_EQUAL(frame_inject_count(), 3);
    CHECK_EQUAL(frame_inject_failed(), 1);
    frame_inject_set(
        &(struct frame_injection){.every = 1, .site = "alloc_here_too"});
    CHECK(!pfn_is_none(alloc_here()));
    CHECK(pfn_is_none(alloc_here_too()));
    CHECK(pfn_is_none(alloc_here_too()));
    /* Neither a part of a name nor none at all. */
    frame_inject_set(
        &(struct frame_injection){.every = 1, .site = "alloc_her"});
    CHECK(!pfn_is_none(alloc_here()));
    frame_inject_set(&(struct frame_injection){.every = 1, .site = ""});
    CHECK(!pfn_is_none(alloc_here()));
    CHECK_EQUAL(frame_inject_count(), 0);
    frame_inject_set(NULL);
    CHECK(frame_check());
}

TEST(frame, each_way_to_allocate_can_be_failed)
{
    pfn_t frame[100];

    CHECK_HELPER(boot_with_records());
    struct frame_stats before = figures();
    frame_inject_set(&(struct frame_injection){.every = 1});
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ZEROED)));
    CHECK(pfn_is_none(frame_alloc(10, FRAME_USER, FRAME_ANY)));
    CHECK(pfn_is_none(alloc_in_a_row(1000)));
    CHECK(pfn_is_none(frame_alloc_metadata()));
    CHECK_EQUAL(alloc_many(frame, 100), 0);
    CHECK_EQUAL(frame_inject_failed(), 6);
    struct frame_stats after = figures();
    CHECK_EQUAL(after.failures, before.failures + 6);
    CHECK_EQUAL(after.free, before.free);
    CHECK_EQUAL(after.metadata, before.metadata);
    CHECK_EQUAL(after.allocs, before.allocs);
    /* Many at once count once, and so does a run of many blocks. */
    frame_inject_set(NULL);
    CHECK_EQUAL(alloc_many(frame, 100), 100);
    CHECK_EQUAL(frame_inject_count(), 1);
    CHECK(!pfn_is_none(alloc_in_a_row(1000)));
    CHECK_EQUAL(frame_inject_count(), 2);
    frame_inject_set(
        &(struct frame_injection){.every = 1, .site = "alloc_in_a_row"});
    CHECK(pfn_is_none(alloc_in_a_row(3)));
    CHECK_EQUAL(alloc_many(frame, 2), 2);
    frame_inject_set(
        &(struct frame_injection){.every = 2, .site = "alloc_many"});
    CHECK_EQUAL(alloc_many(frame, 7), 7);
    CHECK_EQUAL(alloc_many(frame, 7), 0);
    CHECK(!pfn_is_none(alloc_in_a_row(3)));
    frame_inject_set(NULL);
    CHECK(frame_check());
}

/* Frames for records are the allocator's own and have its name. */
TEST(frame, records_are_a_site)
{
    sim_boot_frames(SMALL_RAM);
    frame_inject_set(
        &(struct frame_injection){.every = 1, .site = "frame_alloc_metadata"});
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(pfn_is_none(alloc_in_a_row(1000)));
    CHECK(frame_inject_failed() > 0);
    CHECK_EQUAL(frame_inject_failed(), frame_inject_count());
    frame_inject_set(NULL);
    CHECK_EQUAL(figures().free, figures().managed);
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(frame_check());
}
