/* SPDX-License-Identifier: MIT */
/* Tests of frame: when there are few left, and when there are none. */
/*
 * At risk: an allocation that fails while somewhere a frame is free; one that
 * waits for ever for a CPU that does not answer; a hook that is called from
 * inside itself, where it must not be, or without end; frames below the marks
 * that go to who must not have them. Provoked by machines with a single free
 * frame in each place where one can be, by a CPU with its interrupts off, and
 * by hooks that count, lie and allocate.
 */
#include <mm/frame.h>

#include "base/bits.h"
#include "base/lock.h"
#include "frame/frame_impl.h"
#include "tests/host/frame_scene.h"

#define CPUS 4

static pfn_t frame[SMALL_FRAMES];
static uint64_t taken; /* frames in frame[] */

/* @cpus CPUs, all frames in use, in frame[]. */
static void use_up(unsigned cpus)
{
    sim_boot_frames_on(SMALL_RAM, cpus);
    taken = take_all(frame, 0, FRAME_ANY);
    CHECK_EQUAL(figures().free, 0);
}

/* --- one frame left ------------------------------------------------------- */

/* This CPU gets @pfn, the only free frame, and nothing more. */
static void check_only(pfn_t pfn, unsigned flags)
{
    CHECK_EQUAL(figures().free, 1);
    CHECK_EQUAL(frame_alloc(0, FRAME_KERNEL, flags).v, pfn.v);
    CHECK(pfn_is_none(frame_alloc(0, FRAME_KERNEL, flags)));
    CHECK_EQUAL(figures().free, 0);
}

TEST(frame, a_frame_that_another_cpu_keeps_is_found)
{
    CHECK_HELPER(use_up(CPUS));
    for (unsigned i = 0; i < 200; i++) {
        unsigned cpu = i % CPUS;
        uint64_t sent = sim_interrupts(cpu);
        uint64_t drains = figures().drains;
        pfn_t pfn = frame[i * 37 % taken];

        CHECK_HELPER(keep_on(cpu, pfn));
        CHECK_EQUAL(sim_interrupts(cpu), sent);
        CHECK_HELPER(check_only(pfn, i % 3 == 0 ? FRAME_ZEROED : FRAME_ANY));
        /* Who keeps nothing is not asked. */
        CHECK_EQUAL(sim_interrupts(cpu), sent + (cpu != 0));
        CHECK_EQUAL(figures().drains, drains + (cpu != 0));
    }
    CHECK(frame_check());
}

TEST(frame, a_low_frame_that_another_cpu_keeps_is_found)
{
    CHECK_HELPER(use_up(CPUS));
    pfn_t low = frame[taken - 1];
    pfn_t high = frame[0];
    CHECK(low.v < 4096 && high.v >= 4096);
    CHECK_HELPER(keep_on(2, low));
    CHECK_HELPER(check_only(low, FRAME_BELOW_16M));
    /* It does not help that a high one is free. */
    CHECK_HELPER(keep_on(2, high));
    CHECK(pfn_is_none(frame_alloc(0, FRAME_KERNEL, FRAME_BELOW_16M)));
    CHECK_HELPER(check_only(high, FRAME_BELOW_4G));
    CHECK(frame_check());
}

TEST(frame, blocks_are_made_of_what_cpus_keep)
{
    for (unsigned order = 1; order <= 6; order++) {
        uint64_t frames = UINT64_C(1) << order;

        CHECK_HELPER(use_up(CPUS));
        for (unsigned i = 0; i < frames; i++) {
            CHECK_HELPER(keep_on(i % CPUS, pfn_of(6016 + i)));
        }
        CHECK_EQUAL(figures().cached, frames);
        CHECK_EQUAL(frame_alloc(order, FRAME_USER, FRAME_ANY).v, 6016);
        CHECK_EQUAL(figures().free, 0);
        CHECK(frame_check());
    }
}

/* CPU 3 begins a row. */
static void keep_row(void)
{
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
}

/* It has cleared some frames, and of its row nothing is left. */
static void keep_zeroed(void)
{
    while (figures().zeroed < 10) {
        CHECK(frame_zero_idle());
    }
    while (figures().cached > figures().zeroed + 32) {
        CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    }
    frame_release_spare();
    while (figures().cached > figures().zeroed) {
        CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    }
}

static void keep_block(void)
{
    frame_free(frame_alloc(3, FRAME_USER, FRAME_ANY), 3);
    frame_release_spare();
}

static void keep_large_block(void)
{
    frame_free(frame_alloc(9, FRAME_USER, FRAME_ANY), 9);
    frame_release_spare();
}

static void keep_spare(void)
{
    CHECK(!pfn_is_none(frame_alloc_metadata()));
}

TEST(frame, all_that_another_cpu_keeps_is_found)
{
    static void (*const keep[])(void) = {keep_row, keep_zeroed, keep_block,
                                         keep_large_block, keep_spare};

    for (size_t i = 0; i < COUNT(keep); i++) {
        sim_boot_frames_on(SMALL_RAM, CPUS);
        sim_set_cpu(3);
        CHECK_HELPER(keep[i]());
        sim_set_cpu(0);
        uint64_t used = figures().by_type[FRAME_USER];
        uint64_t count = take_all(frame, 0, FRAME_ANY);
        CHECK_EQUAL(count + used + figures().metadata, figures().managed);
        CHECK_EQUAL(figures().cached, 0);
        CHECK(frame_check());
    }
}

TEST(frame, one_free_frame_is_found_wherever_it_went)
{
    struct test_random random;

    /* Each CPU sits somewhere, and has used all up with the others. */
    sim_boot_frames_on(SMALL_RAM, CPUS);
    test_random_init(&random, test_seed());
    taken = 0;
    for (unsigned cpu = 0; taken < SMALL_FRAMES;
         cpu = (unsigned)test_random_below(&random, CPUS)) {
        sim_set_cpu(cpu);
        pfn_t pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
        if (pfn_is_none(pfn)) {
            break;
        }
        frame[taken++] = pfn;
    }
    sim_set_cpu(0);
    CHECK_EQUAL(figures().free, 0);
    for (unsigned i = 0; i < 3000; i++) {
        pfn_t pfn = frame[test_random_below(&random, taken)];
        sim_set_cpu((unsigned)test_random_below(&random, CPUS));
        frame_free(pfn, 0);
        sim_set_cpu((unsigned)test_random_below(&random, CPUS));
        CHECK_EQUAL(frame_alloc(0, FRAME_KERNEL, FRAME_ANY).v, pfn.v);
        sim_set_cpu((unsigned)test_random_below(&random, CPUS));
        CHECK(i % 16 != 0 ||
              pfn_is_none(frame_alloc(0, FRAME_KERNEL, FRAME_ANY)));
    }
    sim_set_cpu(0);
    CHECK(frame_check());
}

TEST(frame, a_shortage_that_is_over_leaves_no_trace)
{
    CHECK_HELPER(use_up(CPUS));
    for (unsigned cpu = 0; cpu < CPUS; cpu++) {
        sim_set_cpu(cpu);
        CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    }
    sim_set_cpu(0);
    free_all(frame, taken, 0);
    /* CPUs keep rows and frames again. */
    sim_set_cpu(1);
    frame_drain();
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    uint64_t cached = figures().cached;
    CHECK(cached > 32);
    CHECK_HELPER(keep_on(1, pfn));
    CHECK_EQUAL(figures().cached, cached + 1);
    CHECK_HELPER(check_all_free());
}

/* --- CPUs that do not answer ---------------------------------------------- */

#define IRQ_ON UINT64_C(0x1290) /* as sim_cpus.c has it */

static uint64_t turns;

static void count_turn(void)
{
    turns++;
}

static const struct sim_driver nobody_answers = {.relax = count_turn};

/* CPU 1 turns its interrupts off for good. */
static void silence(void)
{
    sim_set_cpu(1);
    (void)port_irq_save();
    sim_set_cpu(0);
    sim_set_driver(&nobody_answers);
    turns = 0;
}

static void end_silence(void)
{
    sim_set_driver(NULL);
    sim_set_cpu(1);
    port_irq_restore(IRQ_ON);
    sim_set_cpu(0);
}

TEST(frame, a_cpu_that_does_not_answer_is_not_waited_for_without_end)
{
    CHECK_HELPER(use_up(CPUS));
    CHECK_HELPER(keep_on(1, frame[5]));
    silence();
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(turns > 0);
    CHECK_EQUAL(figures().free, 1);
    CHECK_EQUAL(sim_interrupts(1), 1);
    /* Nor a second time. */
    uint64_t first = turns;
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(turns - first < first / 100);
    /* What the others keep is found all the same. */
    CHECK_HELPER(keep_on(0, frame[7]));
    CHECK_EQUAL(frame_alloc(0, FRAME_USER, FRAME_ANY).v, frame[7].v);
    CHECK(frame_check());
    end_silence();
    CHECK_EQUAL(figures().cached, 0); /* it has answered */
    CHECK_HELPER(check_only(frame[5], FRAME_ANY));
    /* From now on it is asked again. */
    CHECK_HELPER(keep_on(1, frame[5]));
    CHECK_HELPER(check_only(frame[5], FRAME_ANY));
    CHECK(frame_check());
}

/* CPU 1 waits for a lock: its interrupts are off, but it gives back. */
static void serve_on_1(void)
{
    sim_set_cpu(1);
    lock_serve();
    sim_set_cpu(0);
}

TEST(frame, who_waits_for_a_lock_gives_back)
{
    static const struct sim_driver waiting = {.relax = serve_on_1};

    CHECK_HELPER(use_up(CPUS));
    CHECK_HELPER(keep_on(1, frame[5]));
    silence();
    sim_set_driver(&waiting);
    CHECK_HELPER(check_only(frame[5], FRAME_ANY));
    end_silence();
    /* Nobody has asked: it keeps what it has. */
    CHECK_HELPER(keep_on(1, frame[5]));
    serve_on_1();
    CHECK_EQUAL(figures().cached, 1);
    CHECK(frame_check());
}

/* CPU 1 is short, too, and waits for this one while this one waits for it. */
TEST(frame, two_that_are_short_serve_each_other)
{
    CHECK_HELPER(use_up(2));
    CHECK_HELPER(keep_on(1, frame[5]));
    CHECK_HELPER(keep_on(0, frame[9]));
    sim_set_cpu(1);
    pfn_t one = frame_alloc(0, FRAME_USER, FRAME_ANY);
    pfn_t two = frame_alloc(0, FRAME_USER, FRAME_ANY);
    CHECK(one.v == frame[5].v && two.v == frame[9].v);
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    sim_set_cpu(0);
    CHECK(frame_check());
}

/* --- watermarks ----------------------------------------------------------- */

static struct {
    unsigned wakes;
    unsigned calls;
    unsigned depth;
    uint64_t wanted;    /* what the last call was asked for */
    uint64_t pretended; /* what it says it freed */
    uint64_t given;     /* frames of frame[] it really frees each time */
    bool allocates;     /* asks for memory itself */
    pfn_t got;
} hook;

static void wake(void)
{
    hook.wakes++;
}

static uint64_t reclaim(uint64_t frames)
{
    hook.calls++;
    hook.wanted = frames;
    if (hook.depth++ > 0) {
        test_fail(__FILE__, __LINE__, "the hook is called inside itself");
    }
    if (hook.allocates) {
        hook.got = frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM);
    }
    for (uint64_t i = 0; i < hook.given && taken > 0; i++) {
        frame_free(frame[--taken], 0);
    }
    hook.depth--;
    return hook.pretended;
}

static const struct frame_reclaim hooks = {.reclaim = reclaim, .wake = wake};

static void set_hooks(void)
{
    memset(&hook, 0, sizeof(hook));
    frame_set_reclaim(&hooks);
}

TEST(frame, watermarks_that_make_no_sense_are_refused)
{
    sim_boot_frames(SMALL_RAM);
    uint64_t all = figures().managed;
    const struct frame_watermarks wrong[] = {
        {1, 0, 0},
        {1, 0, 1},
        {0, 1, 0},
        {5, 4, 6},
        {4, 6, 5},
        {0, 0, all + 1},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX},
    };
    const struct frame_watermarks right[] = {
        {0, 0, all}, {all, all, all}, {1, 2, 3}, {7, 7, 7}, {0, 0, 0}};
    struct frame_watermarks marks;

    frame_watermarks(&marks);
    CHECK_EQUAL(marks.min + marks.low + marks.high, 0);
    for (size_t i = 0; i < COUNT(right); i++) {
        CHECK_EQUAL(frame_set_watermarks(&right[i]), MM_OK);
        for (size_t k = 0; k < COUNT(wrong); k++) {
            CHECK_EQUAL(frame_set_watermarks(&wrong[k]), MM_EINVAL);
        }
        frame_watermarks(&marks);
        CHECK(memcmp(&marks, &right[i], sizeof(marks)) == 0);
    }
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
}

TEST(frame, below_the_lowest_mark_only_the_reserve_allocates)
{
    static const struct frame_watermarks marks = {500, 500, 500};

    sim_boot_frames(SMALL_RAM);
    CHECK_EQUAL(frame_set_watermarks(&marks), MM_OK);
    uint64_t count = take_all(frame, 0, FRAME_ANY);
    uint64_t left = figures().free;
    CHECK_EQUAL(left, 500);
    CHECK_EQUAL(count + left + figures().metadata, figures().managed);
    CHECK(pfn_is_none(frame_alloc(3, FRAME_USER, FRAME_ANY)));
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_BELOW_16M)));
    pfn_t bulk[8];
    CHECK_EQUAL(frame_alloc_bulk(bulk, 8, FRAME_USER, FRAME_ANY), 0);
    CHECK_EQUAL(figures().free, left);
    CHECK(!frame_zero_idle());
    /* The reserve has no end but that of memory. */
    CHECK(!pfn_is_none(frame_alloc(3, FRAME_USER, FRAME_RESERVE)));
    count += take_all(frame + count, 0, FRAME_RESERVE);
    CHECK_EQUAL(figures().free, 0);
    CHECK(frame_check());
    /* And as soon as there is enough, everybody allocates. */
    free_all(frame, count, 0);
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(!pfn_is_none(frame_alloc(3, FRAME_USER, FRAME_ANY)));
    CHECK(frame_check());
}

TEST(frame, a_block_counts_with_all_its_frames)
{
    sim_boot_frames(SMALL_RAM);
    uint64_t count = take_all(frame, 10, FRAME_ANY);
    for (uint64_t i = 0; i < 3; i++) {
        frame_free(frame[--count], 10);
    }
    frame_drain();
    uint64_t min = figures().free - 700; /* one of order 9, none of order 10 */
    CHECK_EQUAL(frame_set_watermarks(&(struct frame_watermarks){min, min, min}),
                MM_OK);
    CHECK(pfn_is_none(frame_alloc(10, FRAME_USER, FRAME_ANY)));
    CHECK(!pfn_is_none(frame_alloc(9, FRAME_USER, FRAME_ANY)));
    CHECK(pfn_is_none(frame_alloc(9, FRAME_USER, FRAME_ANY)));
    CHECK(!pfn_is_none(frame_alloc(7, FRAME_USER, FRAME_ANY)));
    CHECK(!pfn_is_none(frame_alloc(10, FRAME_USER, FRAME_RESERVE)));
    CHECK(frame_check());
}

TEST(frame, what_cpus_keep_counts_for_the_marks)
{
    static const struct frame_watermarks marks = {100, 100, 100};

    CHECK_HELPER(use_up(2));
    for (unsigned i = 0; i < 101; i++) {
        CHECK_HELPER(keep_on(1, frame[i]));
    }
    CHECK_EQUAL(frame_set_watermarks(&marks), MM_OK);
    CHECK_EQUAL(figures().free, 101);
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK_EQUAL(figures().free, 100);
    CHECK(frame_check());
}

TEST(frame, wake_is_called_once_until_there_is_enough)
{
    static const struct frame_watermarks marks = {0, 1000, 2000};

    sim_boot_frames(SMALL_RAM);
    set_hooks();
    CHECK_EQUAL(frame_set_watermarks(&marks), MM_OK);
    for (unsigned round = 1; round <= 3; round++) {
        taken = 0;
        while (figures().free > 1064) {
            frame[taken++] = frame_alloc(0, FRAME_USER, FRAME_ANY);
        }
        CHECK_EQUAL(hook.wakes, round - 1);
        while (figures().free > 900) {
            frame[taken++] = frame_alloc(0, FRAME_USER, FRAME_ANY);
        }
        CHECK_EQUAL(hook.wakes, round);
        /* Up again, but not to the high mark: it is not called a second time,
         * however often the low one is passed. */
        for (unsigned swing = 0; swing < 3; swing++) {
            while (figures().free < 1800) {
                frame_free(frame[--taken], 0);
            }
            frame_drain();
            while (figures().free > 900) {
                frame[taken++] = frame_alloc(0, FRAME_USER, FRAME_ANY);
            }
        }
        CHECK_EQUAL(hook.wakes, round);
        free_all(frame, taken, 0);
        frame_drain();
        CHECK(figures().free > 2000);
    }
    CHECK_EQUAL(hook.calls, 0);
    CHECK(frame_check());
}

/* --- reclaim -------------------------------------------------------------- */

TEST(frame, reclaim_is_asked_only_by_who_may)
{
    CHECK_HELPER(use_up(1));
    set_hooks();
    hook.pretended = 4;
    hook.given = 4;
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_RESERVE)));
    CHECK(pfn_is_none(frame_alloc_metadata()));
    CHECK_EQUAL(hook.calls, 0);
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(hook.calls, 1);
    CHECK_EQUAL(hook.wanted, 1);
    CHECK_EQUAL(figures().reclaims, 1);
    /* What it freed beyond that is there for all. */
    for (unsigned i = 0; i < 3; i++) {
        CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    }
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK_EQUAL(hook.calls, 1);
    pfn_t zeroed = frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM | FRAME_ZEROED);
    CHECK(!pfn_is_none(zeroed) && frames_are_zero(zeroed, 1));
    CHECK_EQUAL(hook.calls, 2);
    CHECK(frame_check());
}

TEST(frame, reclaim_is_given_up)
{
    CHECK_HELPER(use_up(1));
    set_hooks();
    /* 0: there is nothing more to be had that way. */
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(hook.calls, 1);
    /* It says that it freed frames and did not. */
    hook.pretended = 1;
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK(hook.calls > 2 && hook.calls < 100);
    CHECK_EQUAL(figures().reclaims, hook.calls);
    /* A block needs more than one call. */
    hook.calls = 0;
    hook.given = 1;
    while (taken > 0 && !is_aligned(frame[taken - 1].v + 1, 8)) {
        taken--;
    }
    CHECK(!pfn_is_none(frame_alloc(2, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(hook.wanted, 4);
    CHECK(hook.calls == 4);
    CHECK(frame_check());
    /* No hook is no hook. */
    hook.calls = 0;
    frame_set_reclaim(NULL);
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(hook.calls, 0);
}

TEST(frame, reclaim_is_not_called_inside_itself)
{
    CHECK_HELPER(use_up(1));
    set_hooks();
    hook.allocates = true;
    hook.given = 1;
    hook.pretended = 1;
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(hook.calls, 1);
    CHECK(pfn_is_none(hook.got));
    /* It may be called again when it is over. */
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(hook.calls, 2);
    CHECK(frame_check());
}

TEST(frame, a_new_machine_has_neither_marks_nor_hooks)
{
    struct frame_watermarks marks = {5000, 5000, 5000};

    CHECK_HELPER(use_up(1));
    set_hooks();
    hook.pretended = 1;
    CHECK_EQUAL(frame_set_watermarks(&marks), MM_OK);
    CHECK_HELPER(use_up(1));
    frame_watermarks(&marks);
    CHECK_EQUAL(marks.min + marks.low + marks.high, 0);
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(hook.calls + hook.wakes, 0);
}

TEST(frame, reclaim_also_fills_up_to_the_lowest_mark)
{
    static const struct frame_watermarks marks = {100, 100, 100};

    CHECK_HELPER(use_up(1));
    set_hooks();
    CHECK_EQUAL(frame_set_watermarks(&marks), MM_OK);
    hook.pretended = 30;
    hook.given = 30;
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(hook.calls, 4);
    CHECK_EQUAL(figures().free, 4 * 30 - 1);
    CHECK(frame_check());
}
