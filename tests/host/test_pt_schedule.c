/* SPDX-License-Identifier: MIT */
/* Cursors that meet, and a collapse while others write, under the scheduler. */
/*
 * At risk: a table that one cursor lets go of while it still has to read there
 * which tables below it has locked. Another one hooks a table meanwhile, which
 * is then unlocked in its owner's place. So a page elsewhere keeps the table
 * of level 1; some open a range that reaches beyond it, others let one page in
 * it come and go, and the table of level 0 for it.
 * And: what is written to a page while it is copied into a large one.
 */
#include "tests/host/schedule_scene.h"

#include <string.h>

#include <mm/frame.h>
#include <mm/port.h>
#include "tests/host/sim.h"

#define ROUNDS 16
#define BLOCK  UINT64_C(0x40000000)

/* In the same table of level 1 as the first of the scene's pages. */
#define KEEPER (SCENE_USER - 4 * MiB)

/* --- in the middle -------------------------------------------------------- */

static enum mm_status map_page(struct pt_cursor *cursor, vaddr_t page)
{
    return pt_map(cursor, page, frame_alloc(0, FRAME_USER, FRAME_ANY),
                  PAGE_BYTES, pt_attr(PT_USER | PT_OWNED));
}

/* Map the page if it is not there, else take it away. */
static void toggle(vaddr_t page)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct pt_entry entry;
    vaddr_t reached;

    scene_open_at(&scene_space[0], page, PAGE_BYTES, &batch, &cursor);
    pt_query(&cursor, page, &entry);
    enum mm_status status = entry.state == PTE_ABSENT
                                ? map_page(&cursor, page)
                                : pt_unmap(&cursor, page, PAGE_BYTES, &reached);
    scene_shut(&cursor, &batch);
    if (status != MM_OK) {
        schedule_fail("a page cannot be changed");
    }
}

static void reach_across(void)
{
    struct scene_place place = scene_place(&scene_space[0]);
    struct tlb_batch batch;
    struct pt_cursor cursor;

    scene_open(&place, &batch, &cursor);
    scene_shut(&cursor, &batch);
}

static void run_rounds(unsigned cpu)
{
    (void)cpu;
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (schedule_below(2) != 0) {
            reach_across();
        } else {
            toggle(SCENE_USER);
        }
    }
}

static void prepare(struct test_random *random)
{
    (void)random;
    toggle(KEEPER);
}

static const struct scene middle = {.prepare = prepare, .run = run_rounds};

TEST(pt_schedule, cursors_meet_in_the_middle_on_random_walks)
{
    scene_run_many(SCHEDULE_WALK, &middle);
}

TEST(pt_schedule, cursors_meet_in_the_middle_by_priorities)
{
    scene_run_many(SCHEDULE_PRIORITIES, &middle);
}

/* --- written to meanwhile ------------------------------------------------- */

static bool is_over;
static uint64_t written[SCHEDULE_CPUS]; /* by each CPU, to a word of its own */

/* Add one to the CPU's word in the first page, if it may be written. */
static void write_word(unsigned cpu)
{
    vaddr_t address = BLOCK + cpu * sizeof(uint64_t);
    paddr_t physical;

    if (sim_translate(address, WALK_WRITE | WALK_USER, &physical) ==
        WALK_ALLOWED) {
        *(uint64_t *)phys_to_virt(physical) += 1;
        written[cpu]++;
    }
    sim_poll();
}

static bool want(void *context, const struct pt_collapse *found)
{
    (void)context;
    return found->present == 1;
}

static void collapse(void)
{
    enum mm_status status = pt_collapse(&scene_space[0], BLOCK, want, NULL);

    if (status != MM_OK && status != MM_ERANGE) {
        schedule_fail("nobody changes the pages, and they stay small");
    }
}

static void compare_words(void)
{
    uint64_t irq = port_irq_save();
    struct pt_leaf leaf = pt_lookup(&scene_space[0], BLOCK);
    const uint64_t *word =
        phys_to_virt(pfn_to_phys(pte_pfn(leaf.entry, leaf.level)));

    port_irq_restore(irq);
    if (memcmp(word, written, sizeof(written)) != 0) {
        schedule_fail("what was written is lost");
    }
}

/* CPU 0 collapses; the others write until it has. */
static void run_collapse(unsigned cpu)
{
    tlb_switch(&scene_space[0].tlb);
    write_word(cpu);
    scene_meet();
    if (cpu == 0) {
        collapse();
        is_over = true;
    }
    while (!is_over) {
        write_word(cpu);
        schedule_wait();
    }
    scene_meet();
    if (cpu == 0) {
        compare_words();
    }
    tlb_switch(&pt_kernel.tlb);
}

/* One page that can be written, and the promise of 511 more. */
static void prepare_block(struct test_random *random)
{
    struct pt_attr attr = pt_attr(PT_USER | PT_WRITE);
    struct tlb_batch batch;
    struct pt_cursor cursor;
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ZEROED);

    (void)random;
    CHECK_EQUAL(
        pt_open(&scene_space[0], BLOCK, BLOCK + 2 * MiB, &batch, &cursor),
        MM_OK);
    CHECK_EQUAL(pt_promise(&cursor, BLOCK, 2 * MiB, PT_ZERO, attr, 0), MM_OK);
    attr.flags |= PT_OWNED;
    CHECK_EQUAL(pt_map(&cursor, BLOCK, pfn, PAGE_BYTES, attr), MM_OK);
    scene_shut(&cursor, &batch);
    memset(written, 0, sizeof(written));
    is_over = false;
}

TEST(pt_schedule, what_is_written_during_a_collapse_stays)
{
    static const struct scene scene = {.prepare = prepare_block,
                                       .run = run_collapse};

    scene_run_many(SCHEDULE_WALK, &scene);
}
