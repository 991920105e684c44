/* SPDX-License-Identifier: MIT */
/* Tests of frame: a few CPUs, in every order of their steps. */
/*
 * At risk: the two steps between a count and its bits, between a word that was
 * read and its swap. Chance finds what takes many tries at the right places;
 * here each order is tried, on machines that are nearly full.
 */
#include "tests/host/schedule_frames.h"

#include <stdio.h>

#include "tests/shared/test.h"

#define END           ((struct place){0, FRAMES_END})
#define ALLOC(b, o)   ((struct act){ACT_ALLOC, b, o})
#define TRY(b, o)     ((struct act){ACT_TRY, b, o})
#define FREE(b)       ((struct act){ACT_FREE, b, 0})
#define VAIN(b, o)    ((struct act){ACT_VAIN, b, o})
#define FREE_TWICE(b) ((struct act){ACT_FREE_TWICE, b, 0})
#define SPLIT(b)      ((struct act){ACT_SPLIT, b, 0})
#define JOIN(b)       ((struct act){ACT_JOIN, b, 0})
#define DRAIN         ((struct act){ACT_DRAIN, 0, 0})

#define REF(b)        ((struct act){ACT_REF, b, 0})
#define UNREF(b)      ((struct act){ACT_UNREF, b, 0})
#define BULK(b, n)    ((struct act){ACT_BULK, b, n})
#define RUN(b, n)     ((struct act){ACT_RUN, b, n})
#define TRY_RUN(b, n) ((struct act){ACT_TRY_RUN, b, n})
#define LOOK          ((struct act){ACT_LOOK, 0, 0})

/* From FRAMES_BASE: a frame of ZONE_DMA. */
#define LOW (UINT64_C(0) - FRAMES_TREE - 64)

/* All orders where there are few steps; else those with two preemptions. */
static unsigned bound_of(unsigned order)
{
    return order <= 5 ? EXPLORE_ALL : 2;
}

TEST(frame, two_take_singles_in_every_order)
{
    struct frames_scene scene = {
        .name = "two take singles of 16",
        .cpus = 2,
        .preemptions = EXPLORE_ALL,
        .free = {{0, 4}, END},
        .block = {END},
        .act = {{TRY(6, 0)}, {TRY(7, 0)}},
    };

    CHECK_HELPER(frames_explore(&scene));
}

TEST(frame, two_take_and_free_a_block_in_every_order)
{
    for (unsigned order = 3; order <= 10; order++) {
        char name[80];
        struct frames_scene scene = {
            .name = name,
            .cpus = 2,
            .preemptions = bound_of(order),
            .free = {{0, order}, END},
            .block = {{2048, order}, END},
            .act = {{TRY(6, order), FREE(6), DRAIN},
                    {FREE(0), DRAIN, TRY(7, order)}},
        };

        snprintf(name, sizeof(name), "take and free order %u", order);
        CHECK_HELPER(frames_explore(&scene));
    }
}

TEST(frame, three_take_and_free_blocks)
{
    static const unsigned orders[] = {0, 3, 9};

    for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        char name[80];
        unsigned order = orders[i];
        struct frames_scene scene = {
            .name = name,
            .cpus = 3,
            .preemptions = 1,
            .free = {{0, order}, END},
            .block = {{2048, order}, {1024, order}, END},
            .act = {{TRY(6, order), FREE(6), DRAIN},
                    {FREE(0), DRAIN, TRY(7, order)},
                    {FREE(1), TRY(5, order)}},
        };

        snprintf(name, sizeof(name), "three take and free order %u", order);
        CHECK_HELPER(frames_explore(&scene));
    }
}

/* At the latest when both give back what they keep. */
TEST(frame, of_two_frees_one_is_reported)
{
    static const unsigned orders[] = {3, 6, 7, 8, 9, 10, 0};

    for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        char name[80];
        struct frames_scene scene = {
            .name = name,
            .cpus = 2,
            .preemptions = orders[i] == 0 || orders[i] == 7 ? 2 : 1,
            .free = {END},
            .block = {{0, orders[i]}, END},
            .act = {{FREE_TWICE(0), DRAIN}, {FREE_TWICE(0), DRAIN}},
            .reports = 1,
        };

        snprintf(name, sizeof(name), "two frees of order %u", orders[i]);
        CHECK_HELPER(frames_explore(&scene));
    }
}

TEST(frame, split_and_join_against_others)
{
    struct frames_scene scene = {
        .name = "split order 9 while its pair is freed and taken",
        .cpus = 2,
        .preemptions = 2,
        .free = {END},
        .block = {{0, 9}, {512, 9}, END},
        .act = {{SPLIT(0), JOIN(0), FREE(0), DRAIN},
                {FREE(1), DRAIN, TRY(6, 9), FREE(6), DRAIN}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.preemptions = 1; /* each run goes through 1024 records */
    scene.name = "split order 10 while singles come and go";
    scene.block[0] = (struct place){0, 10};
    scene.block[1] = (struct place){2048, 3};
    scene.block[2] = END;
    CHECK_HELPER(frames_explore(&scene));
}

TEST(frame, a_tree_wakes_for_two_at_once)
{
    struct frames_scene scene = {
        .name = "two wake a tree",
        .cpus = 2,
        .preemptions = 1,
        .is_asleep = true,
        .act = {{ALLOC(6, 0)}, {ALLOC(7, 0)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.name = "two wake a tree, one for 4 MiB";
    scene.act[1][0].order = 10;
    CHECK_HELPER(frames_explore(&scene));
}

TEST(frame, a_cpu_that_stops_holds_nobody_up)
{
    static const unsigned orders[] = {3, 6, 7, 8, 9, 10, 0};

    for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        char name[80];
        unsigned order = orders[i];
        struct frames_scene scene = {
            .name = name,
            .cpus = 2,
            .preemptions = 1,
            .stoppable = 1,
            .free = {{0, 10}, {2048, 10}, END},
            .block = {{1024, order}, {3072, order}, END},
            .act = {{TRY(6, order), FREE(6), FREE(0), DRAIN},
                    {ALLOC(7, order), FREE(1), FREE(7), DRAIN, ALLOC(5, 0)}},
        };

        snprintf(name, sizeof(name), "order %u, the first may stop", order);
        CHECK_HELPER(frames_explore(&scene));
    }
}

/* --- what CPUs keep ------------------------------------------------------- */

/* The first frame that a CPU frees passes its array by; not the next ones. */
#define WARM_UP(b) FREE(b), ALLOC(5, 0)

/* CPU 1 keeps a frame it has freed; CPU 0 finds nothing else. */
TEST(frame, what_another_cpu_keeps_is_found)
{
    struct frames_scene scene = {
        .name = "a frame in the array of an idle CPU",
        .cpus = 2,
        .preemptions = EXPLORE_ALL,
        .free = {END},
        .block = {{0, 0}, {64, 0}, {128, 0}, END},
        .before = {{{0}}, {WARM_UP(0), FREE(1)}},
        .act = {{ALLOC(6, 0)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.preemptions = 2;
    scene.name = "a frame in the array of a CPU that frees another";
    scene.act[1][0] = FREE(2);
    CHECK_HELPER(frames_explore(&scene));
    scene.name = "a frame in the array of a CPU that wants it, too";
    scene.act[0][0].kind = ACT_TRY;
    scene.act[1][0] = TRY(7, 0);
    CHECK_HELPER(frames_explore(&scene));
    scene.name = "the same, and it gives it back";
    scene.act[1][1] = FREE(7);
    CHECK_HELPER(frames_explore(&scene));
}

/* A row of 16, of which each keeps what the other needs. */
TEST(frame, two_that_are_short_do_not_wait_for_each_other)
{
    struct frames_scene scene = {
        .name = "both want 8 frames, each keeps four",
        .cpus = 2,
        .preemptions = 2,
        .free = {END},
        .block = {{0, 2}, {4, 2}, {64, 0}, END},
        .before = {{FREE(0)}, {FREE(1)}},
        .act = {{TRY(6, 3)}, {TRY(7, 3)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.name = "a row of four, wanted by two that want more";
    scene.free[0] = (struct place){256, 2};
    scene.free[1] = END;
    scene.before[0][0] = (struct act){0};
    scene.before[1][0] = ALLOC(4, 0);
    scene.act[0][0] = TRY(6, 0);
    scene.act[0][1] = TRY(3, 0);
    scene.act[1][0] = TRY(7, 1);
    CHECK_HELPER(frames_explore(&scene));
}

/* There is one frame at any time: the third takes one, the second frees one. */
TEST(frame, a_frame_that_moves_is_found)
{
    struct frames_scene scene = {
        .name = "one is free, one is freed, two are wanted",
        .cpus = 3,
        .preemptions = 1,
        .free = {{0, 0}, END},
        .block = {{64, 0}, {128, 0}, END},
        .before = {{{0}}, {WARM_UP(1)}},
        .act = {{TRY(6, 0)}, {FREE(0)}, {TRY(7, 0)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.name = "one is kept, one is freed and kept, two are wanted";
    scene.free[0].order = FRAMES_END;
    scene.block[2] = (struct place){192, 0};
    scene.block[3] = (struct place){256, 0};
    scene.block[4] = END;
    scene.before[2][0] = FREE(2);
    scene.before[2][1] = ALLOC(4, 0);
    scene.before[2][2] = FREE(3);
    CHECK_HELPER(frames_explore(&scene));
}

/* CPU 0 has searched the high zone when there is a frame, and the low one
 * when there is none any more. */
TEST(frame, a_frame_that_is_freed_behind_a_search_is_found)
{
    struct frames_scene scene = {
        .name = "one is taken before a search comes, one is freed behind it",
        .cpus = 3,
        .preemptions = 1,
        .free = {{LOW, 0}, END},
        .block = {{FRAMES_TREE, 0}, {FRAMES_TREE + 64, 0}, END},
        .before = {{{0}}, {WARM_UP(1)}},
        .act = {{TRY(6, 0)}, {FREE(0)}, {{ACT_TRY_LOW, 7, 0}}},
    };

    CHECK_HELPER(frames_explore(&scene));
}

/* What it has hidden from a search is in sight when that comes again. */
TEST(frame, a_claim_that_was_given_up_is_noticed)
{
    struct frames_scene scene = {
        .name = "8 frames in a row are given up behind a search for one",
        .cpus = 2,
        .preemptions = 2,
        .free = {{0, 0},
                 {2, 0},
                 {4, 0},
                 {6, 0},
                 {8, 0},
                 {10, 0},
                 {12, 0},
                 {14, 0},
                 END},
        .block = {END},
        .act = {{TRY(6, 0)}, {{ACT_VAIN_AT, 7, 3}}},
    };

    CHECK_HELPER(frames_explore(&scene));
}

/* Eight frames, no two of them side by side: counts are lowered in vain. */
TEST(frame, a_claim_that_fails_takes_nothing_away)
{
    struct frames_scene scene = {
        .name = "8 frames in a row are not found, single ones are",
        .cpus = 2,
        .preemptions = 1,
        .free = {{0, 0},
                 {2, 0},
                 {4, 0},
                 {6, 0},
                 {8, 0},
                 {10, 0},
                 {12, 0},
                 {14, 0},
                 END},
        .block = {END},
        .act = {{TRY(6, 0)}, {VAIN(7, 3)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.name = "128 frames in a row are not found, single ones are";
    scene.free[0] = (struct place){0, 6};
    for (unsigned i = 0; i < 6; i++) {
        scene.free[1 + i] = (struct place){64 + (1u << i), i};
    }
    scene.free[7] = END;
    scene.act[1][0] = VAIN(7, 7);
    CHECK_HELPER(frames_explore(&scene));
}

/* All of a block but one frame; it can be had when that is back. */
TEST(frame, a_block_is_whole_when_its_last_frame_is_back)
{
    struct frames_scene scene = {
        .name = "2 MiB are split as soon as the last frame is back",
        .cpus = 2,
        .preemptions = 2,
        .free = {{1, 0},
                 {2, 1},
                 {4, 2},
                 {8, 3},
                 {16, 4},
                 {32, 5},
                 {64, 6},
                 {128, 7},
                 {256, 8},
                 END},
        .block = {{0, 0}, END},
        .act = {{FREE(0), DRAIN}, {TRY(6, 9), SPLIT(6)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.name = "the same, taken as 128 frames";
    scene.act[1][0] = TRY(6, 7);
    scene.act[1][1] = FREE(6);
    CHECK_HELPER(frames_explore(&scene));
}

/* CPU 0 sits at the tree that CPU 1 frees into and steals from. */
TEST(frame, seats_come_and_go_while_others_free_there)
{
    struct frames_scene scene = {
        .name = "a CPU sits down where another frees",
        .cpus = 2,
        .preemptions = EXPLORE_ALL,
        .free = {{0, 9}, END},
        .block = {{512, 3}, {520, 3}, END},
        .act = {{TRY(6, 3), TRY(5, 0)}, {FREE(0), FREE(1)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.preemptions = 2;
    scene.name = "two that want the same seat";
    scene.act[1][0] = TRY(7, 3);
    scene.act[1][1] = FREE(7);
    scene.act[1][2] = FREE(0);
    CHECK_HELPER(frames_explore(&scene));
    scene.name = "2 MiB and singles from the same tree";
    scene.preemptions = 1;
    scene.act[1][0] = TRY(7, 9);
    CHECK_HELPER(frames_explore(&scene));
}
TEST(frame, a_cpu_that_stops_in_a_tree_holds_nobody_up)
{
    struct frames_scene scene = {
        .name = "two wake a tree, the first may stop",
        .cpus = 2,
        .preemptions = 0,
        .stoppable = 1,
        .is_asleep = true,
        .act = {{ALLOC(6, 0)}, {ALLOC(7, 0)}},
    };

    CHECK_HELPER(frames_explore(&scene));
}

/* --- many at once, and holders -------------------------------------------- */

TEST(frame, bulks_take_what_there_is)
{
    struct frames_scene scene = {
        .name = "two want three of four single frames at once",
        .cpus = 2,
        .preemptions = 1,
        .free = {{0, 2}, END},
        .block = {END},
        .act = {{BULK(6, 3), FREE(6)}, {BULK(7, 3)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.name = "a bulk is freed where another CPU sits";
    scene.act[1][0] = TRY(7, 1);
    scene.act[1][1] = BULK(5, 2);
    CHECK_HELPER(frames_explore(&scene));
}

TEST(frame, runs_take_their_places)
{
    struct frames_scene scene = {
        .name = "two runs, and room for both",
        .cpus = 2,
        .preemptions = 2,
        .free = {{0, 2}, {4, 2}, END},
        .block = {END},
        .act = {{RUN(6, 3), FREE(6)}, {RUN(7, 3)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.name = "a run, while a frame of its place is taken";
    scene.act[1][0] = TRY(7, 0);
    scene.act[0][0] = TRY_RUN(6, 7);
    CHECK_HELPER(frames_explore(&scene));
    scene.name = "a run of three blocks, while two frames come and go";
    scene.preemptions = 1;
    scene.act[1][1] = FREE(7);
    scene.act[1][2] = BULK(5, 2);
    CHECK_HELPER(frames_explore(&scene));
}

TEST(frame, the_last_holder_frees)
{
    struct frames_scene scene = {
        .name = "two holders, one of which has two",
        .cpus = 2,
        .preemptions = EXPLORE_ALL,
        .are_shared = true,
        .free = {END},
        .block = {{0, 3}, END},
        .before = {{REF(0)}},
        .act = {{REF(0), UNREF(0), UNREF(0)}, {UNREF(0)}},
    };

    CHECK_HELPER(frames_explore(&scene));
    scene.name = "three holders";
    scene.cpus = 3;
    scene.before[1][0] = REF(0);
    scene.act[0][0] = UNREF(0);
    scene.act[0][1] = (struct act){0};
    scene.act[0][2] = (struct act){0};
    scene.act[2][0] = UNREF(0);
    CHECK_HELPER(frames_explore(&scene));
}

/*
 * A search passes a tree by that another CPU wakes, and must come upon it next
 * time: the zone below is for those who must have it.
 */
static const char *take_high(void)
{
    const unsigned order = 9;
    uint64_t count[MM_MAX_ORDER + 1];

    frame_free_blocks(ZONE_DMA32, count);
    pfn_t pfn = frame_alloc(order, FRAME_USER, FRAME_ANY);
    if (pfn.v < FRAMES_TREE && count[order] + count[MM_MAX_ORDER] > 0) {
        return "a tree that was passed by is forgotten";
    }
    return NULL;
}

TEST(frame, a_tree_that_wakes_is_not_forgotten)
{
    struct frames_scene scene = {
        .name = "2 MiB are wanted while another wakes the only high tree",
        .cpus = 2,
        .preemptions = 2,
        .ram = 2 * FRAMES_TREE * PAGE_BYTES,
        .is_asleep = true,
        .act = {{LOOK}, {ALLOC(7, 9)}},
        .check = take_high,
    };

    CHECK_HELPER(frames_explore(&scene));
}
