/* SPDX-License-Identifier: MIT */
/* Tests of frame: how far a search goes, and what others may do meanwhile. */
/*
 * At risk: a frame that goes where a search has just been, and is given up for
 * lost; CPUs that keep frames again while another is short of them; requests to
 * others where looking further would have done; seats that are left for
 * nothing. Provoked at each moment of a search at which another CPU can come,
 * and by frames that no hint leads to.
 */
#include <mm/frame.h>

#include "frame/frame_impl.h"
#include "tests/host/frame_scene.h"

#define CPUS    4
#define MOMENTS 400
#define LOW_END UINT64_C(4096) /* of ZONE_DMA: one tree */
#define BLOCK   pfn_of(5120)   /* aligned, far from the ends */

static pfn_t frame[SMALL_FRAMES];
static uint64_t taken; /* frames in frame[], the lowest last */

/* All frames are in use, singly, in frame[]; CPU 0 keeps nothing. */
static void use_up(void)
{
    sim_boot_frames_on(SMALL_RAM, CPUS);
    taken = take_all(frame, 0, FRAME_ANY);
    CHECK_EQUAL(figures().free, 0);
    CHECK(frame[0].v >= LOW_END && frame[taken - 1].v < LOW_END);
}

/* --- while another is short ----------------------------------------------- */

static void free_one_of(unsigned cpu, pfn_t pfn, bool is_bulk)
{
    sim_set_cpu(cpu);
    if (is_bulk) {
        frame_free_bulk(&pfn, 1);
    } else {
        frame_free(pfn, 0);
    }
    sim_set_cpu(0);
}

/* Moments until a high frame comes back and a low one goes. */
static unsigned moments;
static bool is_bulk;

static void move_frame(void)
{
    if (moments == 0 || --moments > 0) {
        return;
    }
    free_one_of(1, frame[0], is_bulk);
    sim_set_cpu(3);
    pfn_t low = frame_alloc(0, FRAME_USER, FRAME_BELOW_16M);
    sim_set_cpu(0);
    (void)low; /* if the search has not got it before */
}

/* Return: false if the search ended before the moment came. */
static bool search_at(unsigned moment)
{
    sim_set_interrupt(move_frame);
    moments = moment;
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    sim_set_interrupt(NULL);
    if (pfn_is_none(pfn)) {
        test_fail(__FILE__, __LINE__, "moment %u: nothing was found", moment);
    }
    return moments == 0;
}

/*
 * CPU 2 keeps a low frame, which is asked for and comes back. CPU 1 frees a
 * high one and keeps nothing: that something moves is all the search can know.
 */
TEST(frame, a_frame_that_moves_behind_a_search_is_found)
{
    for (unsigned way = 0; way < 2; way++) {
        bool has_come = true;

        is_bulk = way == 1;
        for (unsigned moment = 1; has_come; moment++) {
            CHECK(moment < MOMENTS);
            CHECK_HELPER(use_up());
            CHECK_HELPER(keep_on(2, frame[taken - 1]));
            CHECK_HELPER(has_come = search_at(moment));
            CHECK(frame_check());
        }
    }
}

/* What CPU 1 does when CPU 0 waits for it, having given back all it kept. */
static void (*do_meanwhile)(void);
static bool was_done;
static uint64_t kept_meanwhile;

/* Not 0: something. */
static uint64_t kept_by(unsigned cpu)
{
    const struct frame_cpu *it = frame_cpu_of[cpu];
    uint64_t kept = frame_count(it, ARRAY_PLAIN) |
                    frame_count(it, ARRAY_ZEROED) | frame_recent_order(it);

    for (unsigned part = 0; part < PARTS; part++) {
        kept |= frame_mask(it, (enum frame_part)part);
    }
    return kept;
}

static void play_1(void)
{
    sim_set_cpu(1);
    sim_poll();
    if (!was_done) {
        was_done = true;
        do_meanwhile();
        kept_meanwhile = kept_by(1);
    }
    sim_set_cpu(0);
}

static void free_frames(void)
{
    for (unsigned i = 1; i < 10; i++) {
        frame_free(frame[i], 0);
    }
}

static void free_frames_at_once(void)
{
    frame_free_bulk(&frame[1], 9);
}

static void free_block(void)
{
    frame_free(BLOCK, 3);
}

/* There is enough for a row, and for one that is cleared ahead. */
static void free_and_take(void)
{
    for (unsigned i = 1; i < 200; i++) {
        frame_free(frame[i], 0);
    }
    frame[1] = frame_alloc(0, FRAME_USER, FRAME_ANY);
    CHECK(!pfn_is_none(frame[1]));
    CHECK(!frame_zero_idle());
}

TEST(frame, nobody_keeps_frames_while_another_is_short)
{
    static void (*const acts[])(void) = {free_frames, free_frames_at_once,
                                         free_block, free_and_take};
    static const struct sim_driver waits = {.relax = play_1};

    for (size_t i = 0; i < COUNT(acts); i++) {
        CHECK_HELPER(use_up());
        CHECK_EQUAL(frame_join(BLOCK, 3), MM_OK);
        CHECK_HELPER(keep_on(1, frame[0]));
        do_meanwhile = acts[i];
        was_done = false;
        kept_meanwhile = 0;
        sim_set_driver(&waits);
        pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
        sim_set_driver(NULL);
        CHECK(was_done && !pfn_is_none(pfn));
        CHECK_EQUAL(kept_meanwhile, 0);
        CHECK(frame_check());
    }
}

/* --- where no hint leads -------------------------------------------------- */

/*
 * CPU 1 has used all up and sits at the low tree, past which all hints have
 * moved. What it gives back there it does not tell: that is for when it leaves.
 */
static void use_up_on_1(void)
{
    sim_boot_frames_on(SMALL_RAM, CPUS);
    sim_set_cpu(1);
    taken = take_all(frame, 0, FRAME_ANY);
    sim_set_cpu(0);
    /* CPU 0 searches in vain, too. */
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(trees_peek(0) & TREE_RESERVED);
}

TEST(frame, what_no_hint_leads_to_is_found_without_asking)
{
    CHECK_HELPER(use_up_on_1());
    sim_set_cpu(1);
    frame_free(frame[taken - 1], 0);
    frame_drain();
    CHECK_HELPER(keep_on(1, frame[0]));
    uint64_t sent = sim_interrupts(1);
    CHECK_EQUAL(frame_alloc(0, FRAME_USER, FRAME_ANY).v, frame[taken - 1].v);
    CHECK_EQUAL(sim_interrupts(1), sent);
    CHECK(frame_check());
}

TEST(frame, what_comes_back_where_no_hint_leads_is_found)
{
    CHECK_HELPER(use_up_on_1());
    CHECK_HELPER(keep_on(1, frame[taken - 1]));
    CHECK_EQUAL(frame_alloc(0, FRAME_USER, FRAME_ANY).v, frame[taken - 1].v);
    CHECK(frame_check());
}

/* --- seats ---------------------------------------------------------------- */

/* Who needs a low frame goes on where it sat, and keeps nobody away below. */
TEST(frame, a_low_wish_takes_no_seat)
{
    for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
        sim_boot_frames_on(SMALL_RAM, CPUS);
        CHECK(!pfn_is_none(frame_alloc(3, FRAME_USER, FRAME_ANY)));
        CHECK(!pfn_is_none(frame_alloc(9, FRAME_USER, FRAME_ANY)));
        struct blocks_seat small = frame_cpu_of[0]->seat[BLOCKS_SMALL];
        struct blocks_seat large = frame_cpu_of[0]->seat[BLOCKS_LARGE];
        pfn_t low = frame_alloc(order, FRAME_USER, FRAME_BELOW_16M);
        CHECK(low.v < LOW_END);
        CHECK_EQUAL(trees_peek(0) & TREE_RESERVED, 0);
        CHECK_EQUAL(frame_cpu_of[0]->seat[BLOCKS_SMALL].tree, small.tree);
        CHECK_EQUAL(frame_cpu_of[0]->seat[BLOCKS_LARGE].tree, large.tree);
        CHECK(frame_check());
    }
}
