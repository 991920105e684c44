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
#include <mm/port.h>

#define ROUNDS 6
#define BLOCK  UINT64_C(0x40000000)
#define PAGES  512u

static struct schedule_meeting meeting;

static unsigned below(unsigned limit)
{
    return (unsigned)schedule_below(limit);
}

/* Few pages, so that they meet: at both ends of the block. */
static vaddr_t some_page(void)
{
    return BLOCK + (below(2) ? below(3) : PAGES - 1 - below(3)) * PAGE_BYTES;
}

static void open_block(struct tlb_batch *batch, struct pt_cursor *out)
{
    if (pt_open(&scene_space[0], BLOCK, BLOCK + 2 * MiB, batch, out) != MM_OK) {
        schedule_fail("the block cannot be opened");
    }
}

/* The block is there, all of one kind; every other time in small pages. */
static void begin_round(void)
{
    struct pt_attr attr = pt_attr(PT_WRITE | PT_USER | PT_OWNED);
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;

    open_block(&batch, &cursor);
    enum mm_status status = pt_unmap(&cursor, BLOCK, 2 * MiB, &reached);
    scene_shut(&cursor, &batch);
    open_block(&batch, &cursor);
    pfn_t pfn = frame_alloc(MM_TABLE_BITS, FRAME_USER, FRAME_ANY);
    if (status == MM_OK && !pfn_is_none(pfn)) {
        status = pt_map(&cursor, BLOCK, pfn, 2 * MiB, attr);
    }
    if (status == MM_OK && below(2) == 0) {
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
    unsigned flags = below(2) ? PT_USER : PT_USER | PT_WRITE;
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;
    enum mm_status status = MM_OK;

    open_block(&batch, &cursor);
    switch (below(8)) {
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
        scene_touch(some_page(), below(2) ? WALK_WRITE : WALK_READ);
    }
}

static void run_rounds(unsigned cpu)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        schedule_note("set up");
        if (cpu == 0) {
            begin_round();
        }
        schedule_meet(&meeting);
        tlb_switch(below(2) ? &pt_kernel.tlb : &scene_space[0].tlb);
        touch_some();
        schedule_meet(&meeting);
        schedule_note("change");
        if (cpu != 0) {
            change();
        }
        schedule_note("touch");
        touch_some();
        schedule_meet(&meeting);
    }
    tlb_switch(&pt_kernel.tlb);
}

static void guess(void)
{
    sim_walk_ahead(some_page());
}

static void prepare(struct test_random *random)
{
    (void)random;
    schedule_meeting_init(&meeting, port_cpu_count());
}

TEST(tlb_schedule, sizes_change_on_random_walks)
{
    static const struct scene scene = {.strategy = SCHEDULE_WALK,
                                       .prepare = prepare,
                                       .run = run_rounds,
                                       .guess = guess};

    scene_run_many(&scene);
}

TEST(tlb_schedule, sizes_change_by_priorities)
{
    static const struct scene scene = {.strategy = SCHEDULE_PRIORITIES,
                                       .prepare = prepare,
                                       .run = run_rounds,
                                       .guess = guess};

    scene_run_many(&scene);
}
