/* SPDX-License-Identifier: MIT */
/* Large pages cut and joined while other CPUs use them and take them away. */
/*
 * At risk: translations of two sizes for one address. Where a table becomes
 * one large page, small translations are still cached; a batch that takes the
 * large page away invalidates one address of it, and may be done before the
 * one that has joined it. So each round begins with 2 MiB, in one page or in
 * 512, that some CPUs have cached; then some cut, join and take away while
 * those touch it again.
 */
#include "tests/host/schedule_scene.h"

#include <mm/frame.h>

#define ROUNDS 6
#define BLOCK  UINT64_C(0x40000000)
#define PAGES  512u

/* Few pages, so that they meet: at both ends of the block. */
static vaddr_t some_page(void)
{
    unsigned page =
        schedule_below(2) ? schedule_below(3) : PAGES - 1 - schedule_below(3);

    return BLOCK + page * PAGE_BYTES;
}

/* The block is there, all of one kind; every other time in small pages. */
static void begin_round(void)
{
    struct pt_attr attr = pt_attr(PT_WRITE | PT_USER | PT_OWNED);
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;

    scene_open_at(&scene_space[0], BLOCK, 2 * MiB, &batch, &cursor);
    enum mm_status status = pt_unmap(&cursor, BLOCK, 2 * MiB, &reached);
    scene_shut(&cursor, &batch);
    scene_open_at(&scene_space[0], BLOCK, 2 * MiB, &batch, &cursor);
    pfn_t pfn = frame_alloc(MM_TABLE_BITS, FRAME_USER, FRAME_ANY);
    if (status == MM_OK && !pfn_is_none(pfn)) {
        status = pt_map(&cursor, BLOCK, pfn, 2 * MiB, attr);
    }
    if (status == MM_OK && schedule_below(2) == 0) {
        status = pt_split(&cursor, BLOCK);
    }
    scene_shut(&cursor, &batch);
    if (status != MM_OK || pfn_is_none(pfn)) {
        schedule_fail("the block cannot be made");
    }
}

/* What others have done before decides whether it can be done. */
static void change(void)
{
    unsigned flags = schedule_below(2) ? PT_USER : PT_USER | PT_WRITE;
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;
    enum mm_status status = MM_OK;

    scene_open_at(&scene_space[0], BLOCK, 2 * MiB, &batch, &cursor);
    switch (schedule_below(8)) {
    case 0:
        status = pt_split(&cursor, some_page());
        break;
    case 1:
    case 2:
    case 3:
        status = pt_merge(&cursor, BLOCK, 1);
        break;
    case 4:
    case 5:
        status = pt_unmap(&cursor, BLOCK, 2 * MiB, &reached);
        break;
    case 6:
        status = pt_unmap(&cursor, some_page(), PAGE_BYTES, &reached);
        break;
    default:
        status = pt_protect(&cursor, BLOCK, 2 * MiB, pt_attr(flags));
        break;
    }
    scene_shut(&cursor, &batch);
    if (status != MM_OK && status != MM_ENOENT && status != MM_EINVAL) {
        schedule_fail("the block cannot be changed");
    }
}

static void touch_some(void)
{
    for (unsigned i = 0; i < 3; i++) {
        scene_touch(some_page(), schedule_below(2) ? WALK_WRITE : WALK_READ);
    }
}

static void run_rounds(unsigned cpu)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        schedule_note("set up");
        if (cpu == 0) {
            begin_round();
        }
        scene_meet();
        tlb_switch(schedule_below(2) ? &pt_kernel.tlb : &scene_space[0].tlb);
        touch_some();
        scene_meet();
        schedule_note("change");
        if (cpu != 0) {
            change();
        }
        schedule_note("touch");
        touch_some();
        scene_meet();
    }
    tlb_switch(&pt_kernel.tlb);
}

static void guess(void)
{
    sim_walk_ahead(some_page());
}

static const struct scene scene = {.run = run_rounds, .guess = guess};

TEST(tlb_schedule, sizes_change_on_random_walks)
{
    scene_run_many(SCHEDULE_WALK, &scene);
}

TEST(tlb_schedule, sizes_change_by_priorities)
{
    scene_run_many(SCHEDULE_PRIORITIES, &scene);
}
