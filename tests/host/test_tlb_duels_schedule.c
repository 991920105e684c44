/* SPDX-License-Identifier: MIT */
/* The shootdown where its windows are narrow: all CPUs meet, then collide. */
/*
 * At risk: the few instructions between which a switch, or the end of idling,
 * must not let a flush slip through. Random programs come there with something
 * at stake once in a million steps. So here each round puts two pages into
 * every TLB, has each CPU take a stance, and lets some take a page away while
 * the others come back for it.
 */
#include "tests/host/schedule_scene.h"

#include <mm/frame.h>
#include <mm/port.h>
#include "tests/host/sim.h"

#define ROUNDS 12
#define PAGES  2

enum stance {
    RUNNING, /* has the space loaded */
    LAZY,    /* has it loaded, and idles */
    AWAY,    /* has had it loaded, and knows its PCID */
    STANCES
};

/* Of the round: */
static struct scene_place place;
static unsigned attacker; /* who attacks in any case */

/* @page of the round is there, and can be written. */
static void set_page(struct pt_cursor *cursor, vaddr_t page)
{
    struct pt_attr attr = scene_attr(&place, PT_WRITE);
    struct pt_entry entry;
    enum mm_status status;

    pt_query(cursor, page, &entry);
    if (entry.state == PTE_PRESENT) {
        status = pt_protect(cursor, page, PAGE_BYTES, attr);
    } else {
        status = pt_map(cursor, page, frame_alloc(0, FRAME_USER, FRAME_ANY),
                        PAGE_BYTES, attr);
    }
    if (status != MM_OK) {
        schedule_fail("a page cannot be set");
    }
}

static void begin_round(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    place = scene_place(schedule_below(4) == 0 ? &pt_kernel : &scene_space[0]);
    attacker = schedule_below(port_cpu_count());
    scene_open(&place, &batch, &cursor);
    for (unsigned i = 0; i < PAGES; i++) {
        set_page(&cursor, scene_page(&place, i));
    }
    scene_shut(&cursor, &batch);
}

static void touch_all(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        scene_touch(scene_page(&place, i), WALK_WRITE);
    }
}

static enum stance take_stance(void)
{
    enum stance stance = (enum stance)schedule_below(STANCES);

    tlb_switch(&scene_space[0].tlb);
    touch_all();
    if (stance == LAZY) {
        tlb_begin_lazy();
    } else if (stance == AWAY) {
        tlb_switch(schedule_below(2) ? &pt_kernel.tlb : &scene_space[1].tlb);
    }
    return stance;
}

/* Take a page away, or both, or the right to write to one. */
static void attack(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t page = scene_page(&place, schedule_below(PAGES));
    vaddr_t reached;
    enum mm_status status;

    scene_open(&place, &batch, &cursor);
    switch (schedule_below(4)) {
    case 0:
        status = pt_unmap(&cursor, page, PAGE_BYTES, &reached);
        break;
    case 1:
        status = pt_unmap(&cursor, place.base, PAGES * PAGE_BYTES, &reached);
        break;
    default:
        status =
            pt_protect(&cursor, page, PAGE_BYTES, scene_attr(&place, PT_READ));
        break;
    }
    scene_shut(&cursor, &batch);
    if (status != MM_OK) {
        schedule_fail("a page cannot be attacked");
    }
}

/* Out of its stance and back to the page. */
static void come_back(enum stance stance)
{
    if (stance == LAZY) {
        tlb_end_lazy();
    } else if (stance == RUNNING && schedule_below(2)) {
        tlb_switch(&pt_kernel.tlb);
    }
    tlb_switch(&scene_space[0].tlb);
    touch_all();
}

static void run_rounds(unsigned cpu)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        schedule_note("set up");
        if (cpu == 0) {
            begin_round();
        }
        scene_meet();
        enum stance stance = take_stance();
        scene_meet();
        if (cpu == attacker || schedule_below(3) == 0) {
            schedule_note("attack");
            attack();
        }
        schedule_note("come back");
        come_back(stance);
        if (sim_irq_is_off()) {
            schedule_fail("interrupts are off after a round");
        }
        scene_meet();
    }
    tlb_switch(&pt_kernel.tlb);
}

static void guess(void)
{
    sim_walk_ahead(scene_page(&place, schedule_below(PAGES)));
}

static void prepare(struct test_random *random)
{
    (void)random;
    place = scene_place(&pt_kernel);
}

static const struct scene scene = {
    .prepare = prepare, .run = run_rounds, .guess = guess};

TEST(tlb_schedule, duels_end_well_on_random_walks)
{
    scene_run_many(SCHEDULE_WALK, &scene);
}

TEST(tlb_schedule, duels_end_well_by_priorities)
{
    scene_run_many(SCHEDULE_PRIORITIES, &scene);
}
