/* SPDX-License-Identifier: MIT */
/* Tests of frame: frames in a row, any number. */
/*
 * At risk: a run that is not one, or lies where it should not; a run that
 * exists and is not found; frames lost or handed out twice when a claim has to
 * be given up in the middle; a wrong length that is believed. Provoked by runs
 * of every length and alignment, by a single gap of just the right size at
 * each kind of place, by records that cannot be backed, and by an interrupt
 * that takes frames at each moment of the search.
 */
#include <mm/frame.h>

#include "base/bits.h"
#include "tests/host/frame_scene.h"

static pfn_t frame[SMALL_FRAMES];

/* It is blocks in a row, the largest possible ones, in use and with records. */
static void check_run(pfn_t first, uint64_t frames, uint64_t alignment)
{
    CHECK(!pfn_is_none(first));
    CHECK(is_aligned(first.v, alignment));
    for (uint64_t at = first.v; at < first.v + frames;) {
        unsigned order = order_in_run(at, first.v + frames);
        const struct frame_record *record = record_of(pfn_of(at));
        CHECK(record->type == FRAME_USER && record->order == order);
        CHECK(record->refs == 1 && record->entries == 0 && record->owner == 0);
        CHECK_EQUAL(frame_state(pfn_of(at)), FRAME_STATE_ALLOCATED);
        at += UINT64_C(1) << order;
        CHECK_EQUAL(frame_state(pfn_of(at - 1)), FRAME_STATE_ALLOCATED);
    }
}

TEST(frame, runs_of_any_length_and_alignment)
{
    static const uint64_t lengths[] = {1,    2,    3,    7,    8,    63,  64,
                                       65,   100,  511,  512,  513,  777, 1023,
                                       1024, 1025, 1536, 2047, 2050, 3333};

    sim_boot_frames(256 * MiB);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        for (uint64_t alignment = 1; alignment <= 2048; alignment *= 2) {
            uint64_t frames = lengths[i];
            pfn_t first =
                frame_alloc_run(frames, alignment, FRAME_USER, FRAME_ANY);
            CHECK_HELPER(check_run(first, frames, alignment));
            CHECK_EQUAL(figures().by_type[FRAME_USER], frames);
            CHECK(frame_check());
            /* A second one beside it. */
            pfn_t other = frame_alloc_run(5, 1, FRAME_USER, FRAME_ANY);
            CHECK_HELPER(check_run(other, 5, 1));
            CHECK(other.v + 5 <= first.v || other.v >= first.v + frames);
            frame_free_run(other, 5);
            frame_free_run(first, frames);
            CHECK_HELPER(check_all_free());
        }
    }
    frame_drain();
    CHECK_EQUAL(figures().cached, 0);
    CHECK_HELPER(check_all_free());
}

TEST(frame, runs_of_1_gib_and_more)
{
    const uint64_t gib = GiB / PAGE_BYTES;

    sim_boot_frames(8 * GiB);
    pfn_t one = frame_alloc_run(gib, gib, FRAME_USER, FRAME_ANY);
    CHECK_HELPER(check_run(one, gib, gib));
    pfn_t three = frame_alloc_run(3 * gib + 77, 512, FRAME_USER, FRAME_ANY);
    CHECK_HELPER(check_run(three, 3 * gib + 77, 512));
    CHECK(three.v >= one.v + gib || three.v + 3 * gib + 77 <= one.v);
    CHECK_EQUAL(figures().by_type[FRAME_USER], 4 * gib + 77);
    /* Of 5 GiB above 4 GiB these are 4, and below there are not 3 in a row. */
    uint64_t failures = figures().failures;
    CHECK(pfn_is_none(frame_alloc_run(3 * gib, 1, FRAME_USER, FRAME_ANY)));
    CHECK_EQUAL(figures().failures, failures + 1);
    pfn_t low = frame_alloc_run(gib + gib / 2, gib, FRAME_USER, FRAME_BELOW_4G);
    CHECK_HELPER(check_run(low, gib + gib / 2, gib));
    CHECK(low.v + gib + gib / 2 <= 4 * gib);
    CHECK(frame_check());
    frame_free_run(one, gib);
    frame_free_run(low, gib + gib / 2);
    frame_free_run(three, 3 * gib + 77);
    CHECK_HELPER(check_all_free());
}

TEST(frame, runs_that_cannot_be_are_refused)
{
    static const uint64_t sizes[][2] = {{SMALL_FRAMES, 1},
                                        {SMALL_FRAMES + 1, 1},
                                        {UINT64_MAX, 1},
                                        {UINT64_MAX >> 12, 4096},
                                        {1, SMALL_FRAMES},
                                        {1, UINT64_C(1) << 40},
                                        {1, UINT64_C(1) << 63},
                                        {UINT64_C(1) << 63, UINT64_C(1) << 63},
                                        {SMALL_FRAMES / 2 + 1, 4096}};

    for (size_t i = 0; i < COUNT(sizes); i++) {
        sim_boot_frames(SMALL_RAM);
        CHECK(pfn_is_none(
            frame_alloc_run(sizes[i][0], sizes[i][1], FRAME_USER, FRAME_ANY)));
        CHECK_EQUAL(figures().failures, 1);
        CHECK_EQUAL(figures().allocs, 0);
        CHECK_HELPER(check_all_free());
    }
    /* Low memory has 15 MiB, less the image. */
    CHECK(pfn_is_none(frame_alloc_run(15 * MiB / PAGE_BYTES, 1, FRAME_USER,
                                      FRAME_BELOW_16M)));
    pfn_t low = frame_alloc_run(1000, 16, FRAME_USER, FRAME_BELOW_16M);
    CHECK_HELPER(check_run(low, 1000, 16));
    CHECK(low.v + 1000 <= 16 * MiB / PAGE_BYTES);
}

TEST(frame, a_zeroed_run_is_zero)
{
    CHECK_HELPER(boot_dirty());
    pfn_t first = frame_alloc_run(1234, 1, FRAME_USER, FRAME_ZEROED);
    CHECK_HELPER(check_run(first, 1234, 1));
    for (uint64_t i = 0; i < 1234; i++) {
        CHECK(frames_are_zero(pfn_add(first, i), 1));
    }
}

/* --- what is in the way --------------------------------------------------- */

/* Take everything, then give back the @frames frames at @start. */
static void leave_gap(uint64_t start, uint64_t frames)
{
    sim_boot_frames(SMALL_RAM);
    (void)take_all(frame, 0, FRAME_ANY);
    for (uint64_t i = 0; i < frames; i++) {
        frame_free(pfn_of(start + i), 0);
    }
    frame_drain();
    CHECK_EQUAL(figures().free, frames);
}

TEST(frame, a_gap_of_just_the_right_size_is_found)
{
    /* Around the borders of a row, a block, a tree; none in metadata. */
    static const uint64_t gaps[][2] = {
        {6000, 1},   {6016, 64},  {6015, 66},   {6000, 200},  {6144, 512},
        {6143, 514}, {6100, 600}, {5632, 1024}, {6000, 1100}, {5121, 1023},
    };

    for (size_t i = 0; i < COUNT(gaps); i++) {
        uint64_t start = gaps[i][0];
        uint64_t frames = gaps[i][1];

        CHECK_HELPER(leave_gap(start, frames));
        CHECK(
            pfn_is_none(frame_alloc_run(frames + 1, 1, FRAME_USER, FRAME_ANY)));
        if (!is_aligned(start, 8192)) {
            CHECK(pfn_is_none(
                frame_alloc_run(frames, 8192, FRAME_USER, FRAME_ANY)));
        }
        CHECK_EQUAL(figures().free, frames);
        CHECK(frame_check());
        pfn_t first = frame_alloc_run(frames, 1, FRAME_USER, FRAME_ANY);
        CHECK_EQUAL(first.v, start);
        CHECK_HELPER(check_run(first, frames, 1));
        CHECK_EQUAL(figures().free, 0);
        frame_free_run(first, frames);
        CHECK_EQUAL(figures().free, frames);
        CHECK(frame_check());
    }
}

TEST(frame, what_other_cpus_keep_is_no_obstacle)
{
    sim_boot_frames_on(SMALL_RAM, 3);
    (void)take_all(frame, 0, FRAME_ANY);
    /* Eight frames in a row; each of three CPUs keeps some of them. */
    const uint64_t start = 6000;
    for (unsigned i = 0; i < 8; i++) {
        CHECK_HELPER(keep_on(i % 3, pfn_of(start + i)));
    }
    CHECK_EQUAL(figures().cached, 8);
    pfn_t first = frame_alloc_run(8, 8, FRAME_USER, FRAME_ANY);
    CHECK_EQUAL(first.v, start);
    CHECK_HELPER(check_run(first, 8, 8));
    CHECK_EQUAL(figures().cached, 0);
    CHECK_EQUAL(sim_interrupts(1), 1);
    CHECK_EQUAL(sim_interrupts(2), 1);
    CHECK(frame_check());
}

/* --- giving up in the middle ---------------------------------------------- */

TEST(frame, a_run_without_records_leaves_nothing_behind)
{
    sim_boot_frames(SMALL_RAM);
    sim_fail_record_backing(true);
    CHECK(pfn_is_none(frame_alloc_run(2000, 1, FRAME_USER, FRAME_ANY)));
    CHECK_EQUAL(figures().free, figures().managed);
    CHECK_HELPER(check_all_free());
    sim_fail_record_backing(false);
    pfn_t first = frame_alloc_run(2000, 1, FRAME_USER, FRAME_ANY);
    CHECK_HELPER(check_run(first, 2000, 1));
    CHECK(frame_check());
}

/* The records of the highest frames are there, those below cannot be had. */
TEST(frame, a_run_is_found_where_there_are_records)
{
    sim_boot_frames(SMALL_RAM);
    pfn_t block = frame_alloc(9, FRAME_USER, FRAME_ANY);
    frame_free(block, 9);
    sim_fail_record_backing(true);
    pfn_t first = frame_alloc_run(300, 1, FRAME_USER, FRAME_ANY);
    CHECK_HELPER(check_run(first, 300, 1));
    CHECK(frame_check());
}

TEST(frame, each_record_of_a_run_may_be_missing)
{
    uint64_t nth = 0;
    uint64_t failed;

    do {
        sim_boot_frames(SMALL_RAM);
        frame_inject(++nth);
        pfn_t first = frame_alloc_run(3000, 1, FRAME_USER, FRAME_ANY);
        failed = frame_inject_failed();
        frame_inject(0);
        CHECK(frame_check());
        CHECK(nth > 1 || pfn_is_none(first)); /* the call itself */
        if (pfn_is_none(first)) {
            CHECK_EQUAL(figures().by_type[FRAME_USER], 0);
            first = frame_alloc_run(3000, 1, FRAME_USER, FRAME_ANY);
        }
        CHECK_HELPER(check_run(first, 3000, 1));
        frame_free_run(first, 3000);
        CHECK_HELPER(check_all_free());
    } while (failed > 0);
    CHECK(nth > 10); /* two frames for each of six blocks */
}

#define STOLEN 6

static pfn_t stolen[STOLEN];
static unsigned stolen_order;
static unsigned until_theft; /* interrupts */

/* At one moment, frames disappear wherever the run may be looking. */
static void steal(void)
{
    if (--until_theft > 0) {
        return;
    }
    sim_set_interrupt(NULL);
    for (unsigned i = 0; i < STOLEN; i++) {
        stolen[i] = frame_alloc(stolen_order, FRAME_TABLE, FRAME_ANY);
    }
}

static bool is_stolen(uint64_t pfn)
{
    for (unsigned i = 0; i < STOLEN; i++) {
        if (pfn - stolen[i].v < UINT64_C(1) << stolen_order) {
            return true;
        }
    }
    return false;
}

static void run_against_thief(uint64_t frames, unsigned moment)
{
    sim_boot_frames(16 * MiB);
    for (unsigned i = 0; i < STOLEN; i++) {
        stolen[i] = PFN_NONE;
    }
    until_theft = moment;
    sim_set_interrupt(steal);
    pfn_t first = frame_alloc_run(frames, 1, FRAME_USER, FRAME_ANY);
    sim_set_interrupt(NULL);
    CHECK(frame_check());
    if (!pfn_is_none(first)) {
        CHECK_HELPER(check_run(first, frames, 1));
        for (uint64_t i = 0; i < frames; i++) {
            CHECK(!is_stolen(first.v + i));
        }
        frame_free_run(first, frames);
    }
    CHECK_EQUAL(figures().by_type[FRAME_USER], 0);
    for (unsigned i = 0; i < STOLEN; i++) {
        if (!pfn_is_none(stolen[i])) {
            frame_free(stolen[i], stolen_order);
        }
    }
    CHECK_HELPER(check_all_free());
}

TEST(frame, another_may_claim_inside_a_run_at_each_moment)
{
    static const unsigned orders[] = {0, 3, 9};

    for (size_t i = 0; i < COUNT(orders); i++) {
        unsigned moment = 0;

        stolen_order = orders[i];
        do {
            CHECK_HELPER(run_against_thief(1700, ++moment));
        } while (until_theft == 0);
        CHECK(moment > 20);
    }
}

/* --- giving back ---------------------------------------------------------- */

TEST(frame, a_run_is_freed_block_by_block)
{
    sim_boot_frames(SMALL_RAM);
    pfn_t first = frame_alloc_run(2777, 1, FRAME_USER, FRAME_ANY);
    uint64_t end = first.v + 2777;
    for (uint64_t at = first.v; at < end;) {
        unsigned order = order_in_run(at, end);
        frame_free(pfn_of(at), order);
        at += UINT64_C(1) << order;
    }
    CHECK_HELPER(check_all_free());
}

TEST(frame, a_run_is_freed_after_splits_and_joins)
{
    sim_boot_frames(SMALL_RAM);
    pfn_t first = frame_alloc_run(2048, 1024, FRAME_USER, FRAME_ANY);
    pfn_t last = pfn_add(first, 1024);
    CHECK_EQUAL(frame_split(first, 10), MM_OK);
    CHECK_EQUAL(frame_join(first, 4), MM_OK);
    CHECK_EQUAL(frame_join(pfn_add(first, 512), 9), MM_OK);
    CHECK_EQUAL(frame_split(last, 10), MM_OK);
    frame_free_run(first, 2048);
    CHECK(frame_check());
    CHECK_EQUAL(figures().by_type[FRAME_USER], 0);
    CHECK_EQUAL(figures().free, figures().managed - figures().metadata);
}

TEST(frame, a_run_of_a_wrong_length_is_reported_and_stays)
{
    /* A run of 1500 at a multiple of 1024: blocks of 1024, 256, 128, 64, ... */
    static const struct {
        uint64_t offset;
        uint64_t frames;
        const char *report;
    } wrong[] = {
        {0, 1501, "is free already"},
        {0, 1000, "is a user block of order 10"},
        {0, 1023, "is a user block of order 10"},
        {0, 1025, "is a user block of order 8"},
        {0, 1499, "is a user block of order 2"},
        {1, 1499, "is inside the user block"},
        {1024, 477, "is free already"},
        {0, UINT64_MAX, "frame_free_run"},
        {0, UINT64_MAX >> 12, "frame_free_run"},
    };

    sim_boot_frames(SMALL_RAM);
    pfn_t first = frame_alloc_run(1500, 1024, FRAME_USER, FRAME_ANY);
    CHECK_HELPER(check_run(first, 1500, 1024));
    frame_drain();
    for (size_t i = 0; i < COUNT(wrong); i++) {
        struct frame_stats before = figures();
        frame_free_run(pfn_add(first, wrong[i].offset), wrong[i].frames);
        CHECK_BUG(wrong[i].report);
        struct frame_stats after = figures();
        CHECK(memcmp(&before, &after, sizeof(before)) == 0);
        CHECK_HELPER(check_run(first, 1500, 1024));
        CHECK(frame_check());
    }
    frame_ref(first);
    frame_free_run(first, 1500);
    CHECK_BUG("with 2 holders");
    frame_unref(first);
    frame_free_run(PFN_NONE, 1);
    CHECK_BUG("frame_free_run");
    frame_free_run(pfn_of(SMALL_FRAMES), 8);
    CHECK_BUG("is not RAM");
    frame_free_run(first, 1500);
    CHECK_HELPER(check_all_free());
    frame_free_run(first, 1500);
    CHECK_BUG("is free already");
    CHECK_HELPER(check_all_free());
}
