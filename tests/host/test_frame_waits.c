/* SPDX-License-Identifier: MIT */
/* Tests of frame: CPUs that wait for frames, and for each other. */
/*
 * At risk: two CPUs with their interrupts off that wait for each other until
 * their patience ends: the wait is bounded, so nothing fails, but takes
 * millions of turns. Provoked by CPUs that are played in each other's waits,
 * turn by turn.
 */
#include <mm/frame.h>

#include "base/lock.h"
#include "tests/host/frame_scene.h"

#define IRQ_ON UINT64_C(0x1290) /* as sim_cpus.c has it */
#define CPUS   3

static pfn_t frame[SMALL_FRAMES];
static uint64_t turns; /* of all waits */

/*
 * All have their interrupts off. CPU 1 waits for what CPUs 0 and 2 keep; in its
 * first turn CPU 0 uses that up, is short itself and waits for CPU 2, which
 * answers in CPU 0's first turn. By then CPU 0 has answered CPU 1.
 */
static pfn_t got[2];

static void play_the_others(void)
{
    turns++;
    if (turns == 1) {
        sim_set_cpu(0);
        got[0] = frame_alloc(0, FRAME_USER, FRAME_ANY);
        got[1] = frame_alloc(0, FRAME_USER, FRAME_ANY);
        sim_set_cpu(1);
    } else if (turns == 2) {
        CHECK_EQUAL(port_cpu(), 0);
        sim_set_cpu(2);
        lock_serve();
        sim_set_cpu(0);
    }
}

TEST(frame, who_waits_for_frames_answers_others)
{
    static const struct sim_driver waiting = {.relax = play_the_others};

    sim_boot_frames_on(SMALL_RAM, CPUS);
    (void)take_all(frame, 0, FRAME_ANY);
    CHECK_HELPER(keep_on(0, frame[5]));
    CHECK_HELPER(keep_on(2, frame[7]));
    for (unsigned cpu = 0; cpu < CPUS; cpu++) {
        sim_set_cpu(cpu);
        (void)port_irq_save();
    }
    sim_set_driver(&waiting);
    turns = 0;
    sim_set_cpu(1);
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK_EQUAL(got[0].v, frame[5].v);
    CHECK_EQUAL(got[1].v, frame[7].v);
    CHECK(turns < 10);
    sim_set_driver(NULL);
    for (unsigned cpu = CPUS; cpu-- > 0;) {
        sim_set_cpu(cpu);
        port_irq_restore(IRQ_ON);
    }
    CHECK(frame_check());
}
