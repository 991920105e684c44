/* SPDX-License-Identifier: MIT */
/* Tests of what an allocation does last: runs and marks, reclaim, metadata. */
/*
 * At risk: runs that go below the lowest mark, since they do not come through
 * frame_claim(); memory that the last call of reclaim() freed and nobody tries
 * to get; frames that go aside for metadata while an allocation is about to
 * fail. Provoked by marks just above what is left, by a hook that frees one
 * frame a call, and by metadata taken at every moment of an allocation.
 */
#include <mm/frame.h>

#include "base/bits.h"
#include "frame/frame_impl.h"
#include "tests/host/frame_scene.h"

#define BLOCK    8 /* frames of order 3 */
#define FIRST    UINT64_C(6400)
#define LEAST    7000
#define RUN      2000
#define LONG_RUN 8000
#define KEPT     32
#define MOMENTS  400

static unsigned wakes;
static unsigned asks;

static void count_wake(void)
{
    wakes++;
}

static uint64_t count_ask(uint64_t frames)
{
    (void)frames;
    asks++;
    return 0;
}

TEST(frame, runs_heed_the_marks)
{
    static const struct frame_reclaim hooks = {count_ask, count_wake};
    static const struct frame_watermarks marks = {LEAST, LEAST + 100,
                                                  LEAST + 200};

    sim_boot_frames(SMALL_RAM);
    frame_set_reclaim(&hooks);
    wakes = 0;
    asks = 0;
    CHECK_EQUAL(frame_set_watermarks(&marks), MM_OK);
    CHECK(pfn_is_none(frame_alloc_run(RUN, 1, FRAME_USER, FRAME_ANY)));
    CHECK_EQUAL(asks, 0);
    CHECK(pfn_is_none(
        frame_alloc_run(LONG_RUN, 1, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(asks, 1);
    pfn_t run = frame_alloc_run(RUN, 1, FRAME_USER, FRAME_RESERVE);
    CHECK(!pfn_is_none(run));
    CHECK_EQUAL(wakes, 1);
    frame_free_run(run, RUN);
    CHECK_HELPER(check_all_free());
}

static unsigned freed;

static uint64_t free_one(uint64_t frames)
{
    (void)frames;
    if (freed < BLOCK) {
        frame_free(pfn_of(FIRST + freed), 0);
        freed++;
        return 1;
    }
    return 0;
}

TEST(frame, what_the_last_reclaim_freed_is_tried_for)
{
    static const struct frame_reclaim hooks = {free_one, NULL};
    static pfn_t frame[SMALL_FRAMES];

    sim_boot_frames(SMALL_RAM);
    (void)take_all(frame, 0, FRAME_ANY);
    freed = 0;
    frame_set_reclaim(&hooks);
    pfn_t block = frame_alloc(3, FRAME_USER, FRAME_MAY_RECLAIM);
    CHECK_EQUAL(block.v, FIRST);
    CHECK(frame_check());
}

/* Interrupts until metadata is taken, which sets a run of frames aside. */
static unsigned moments;

static void take_metadata(void)
{
    if (moments > 0 && --moments == 0) {
        pfn_t pfn = frame_alloc_metadata();
        (void)pfn; /* there may be none */
    }
}

TEST(frame, metadata_does_not_hide_the_last_frames)
{
    static pfn_t frame[SMALL_FRAMES];

    for (unsigned moment = 1; moment < MOMENTS; moment++) {
        sim_boot_frames_on(SMALL_RAM, 2);
        (void)take_all(frame, 0, FRAME_ANY);
        for (unsigned i = 0; i < KEPT; i++) {
            keep_on(1, pfn_of(FIRST - FIRST % KEPT + i));
        }
        moments = moment;
        sim_set_interrupt(take_metadata);
        pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
        sim_set_interrupt(NULL);
        CHECK(!pfn_is_none(pfn));
        if (moments > 0) {
            break; /* the allocation ended before */
        }
    }
}

/* --- ranges --------------------------------------------------------------- */

#define RANGE_FRAMES UINT64_C(512)

static enum mm_status remove_frames(uint64_t start, uint64_t end)
{
    return frame_remove(pfn_of(start), pfn_of(end), NULL);
}

static enum mm_status add_frames(uint64_t start, uint64_t end)
{
    return frame_add(pfn_of(start), pfn_of(end));
}

/* The lowest @min, and @low, counted from what is free after one range. */
static void boot_marked(int64_t min, int64_t low)
{
    static const struct frame_reclaim hooks = {.wake = count_wake};

    sim_boot_frames(SMALL_RAM);
    frame_set_reclaim(&hooks);
    frame_free(frame_alloc(3, FRAME_USER, FRAME_ANY), 3);
    frame_drain();
    wakes = 0;
    int64_t left = (int64_t)(figures().free - RANGE_FRAMES);
    struct frame_watermarks marks = {
        (uint64_t)(left + min), (uint64_t)(left + low), (uint64_t)(left + low)};
    CHECK_EQUAL(frame_set_watermarks(&marks), MM_OK);
}

TEST(frame, a_range_stays_if_too_little_would_be_left)
{
    CHECK_HELPER(boot_marked(1, 1));
    CHECK_EQUAL(remove_frames(6000, 6000 + RANGE_FRAMES), MM_ENOMEM);
    CHECK_HELPER(check_all_free());
    CHECK_EQUAL(wakes, 0);
    /* What this CPU keeps counts as free. */
    frame_free(frame_alloc(3, FRAME_USER, FRAME_RESERVE), 3);
    CHECK_EQUAL(remove_frames(6000, 6000 + RANGE_FRAMES - 1), MM_OK);
    CHECK(frame_check());
    CHECK_EQUAL(remove_frames(5000, 5001), MM_ENOMEM);
    CHECK_EQUAL(add_frames(6000, 6001), MM_OK);
    CHECK_EQUAL(remove_frames(5000, 5001), MM_OK);
    CHECK_EQUAL(wakes, 0);
    CHECK(frame_check());
}

TEST(frame, a_range_that_goes_below_the_low_mark_says_so)
{
    CHECK_HELPER(boot_marked(-100, 0));
    CHECK_EQUAL(remove_frames(6000, 6000 + RANGE_FRAMES), MM_OK);
    CHECK_EQUAL(wakes, 0);
    CHECK_EQUAL(remove_frames(5000, 5008),
                MM_ENOMEM); /* the high mark could not be reached any more */
    pfn_t pfn = frame_alloc_metadata();
    CHECK_EQUAL(wakes, 1);
    CHECK_EQUAL(add_frames(6000, 6000 + RANGE_FRAMES), MM_OK);
    /* There is enough: it is called again. */
    CHECK_EQUAL(remove_frames(6000, 6000 + RANGE_FRAMES), MM_OK);
    CHECK_EQUAL(wakes, 2);
    CHECK(!pfn_is_none(pfn));
    CHECK(frame_check());
}
