/* SPDX-License-Identifier: MIT */
/* Several CPUs: who is interrupted, who is spared, who catches up later. */
/*
 * At risk: a CPU that is left out (Vinix, menix, LK and Unikraft leave out
 * all), one that is disturbed for nothing, an interrupt for each page (Toaru),
 * a CPU that comes back to a space and finds there what was taken away
 * meanwhile, a PCID that two spaces share. One thread plays all CPUs, so that
 * each interrupt can be counted.
 */
#include "tests/host/tlb_scene.h"

#include <string.h>

#include <mm/port.h>

/* More than one word of a set of CPUs. */
#define MANY_CPUS 70

/* Interrupts each CPU has had before. */
static uint64_t before[MANY_CPUS];

static void count_interrupts(void)
{
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        before[cpu] = sim_interrupts(cpu);
    }
}

static uint64_t interrupts_of(unsigned cpu)
{
    return sim_interrupts(cpu) - before[cpu];
}

static uint64_t all_interrupts(void)
{
    uint64_t sum = 0;

    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        sum += interrupts_of(cpu);
    }
    return sum;
}

/* --- exactly who must know ------------------------------------------------ */

/* All sorts of CPUs have it loaded: also none, also CPU 0 itself. */
static bool is_chosen(unsigned round, unsigned cpu)
{
    return (cpu * 7 + round) % (round + 2) == 1;
}

static void load_on_chosen(unsigned round)
{
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        load_on(cpu, is_chosen(round, cpu) ? &space : &pt_kernel);
    }
}

static void check_round(unsigned round)
{
    CHECK_HELPER(map_pages(&space, BASE, 8));
    load_on_chosen(round);
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        sim_set_cpu(cpu);
        if (is_chosen(round, cpu)) {
            CHECK_HELPER(touch_pages(BASE, 8));
        }
    }
    sim_set_cpu(0);
    count_interrupts();
    CHECK_HELPER(unmap_pages(&space, BASE, 8));
    CHECK_EQUAL(sim_stale(), 0);
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        CHECK_EQUAL(interrupts_of(cpu), cpu > 0 && is_chosen(round, cpu));
    }
}

TEST(tlb_cpus, who_has_it_loaded_is_interrupted_once)
{
    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(MANY_CPUS, sim_part_sets[i]));
        for (unsigned round = 0; round < 6; round++) {
            CHECK_HELPER(check_round(round));
        }
        CHECK_HELPER(finish_cpus());
    }
}

/* However many pages, and however far apart. */
TEST(tlb_cpus, one_interrupt_for_a_whole_batch)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;

    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(3, sim_part_sets[i]));
        load_on(1, &space);
        load_on(2, &space);
        CHECK_HELPER(map_pages(&space, BASE, 256));
        count_interrupts();
        CHECK_HELPER(unmap_pages(&space, BASE, 256));
        CHECK_EQUAL(all_interrupts(), 2);
        CHECK_HELPER(map_pages(&space, BASE, 24));
        count_interrupts();
        CHECK_EQUAL(pt_open(&space, BASE, BASE + GiB, &batch, &cursor), MM_OK);
        for (unsigned page = 0; page < 24; page += 2) {
            CHECK_EQUAL(pt_unmap(&cursor, BASE + page * PAGE_BYTES, PAGE_BYTES,
                                 &reached),
                        MM_OK);
        }
        pt_close(&cursor);
        tlb_commit(&batch);
        CHECK_EQUAL(all_interrupts(), 2);
        CHECK_HELPER(finish_cpus());
    }
}

/* The kernel's pages concern everybody, but CPUs that have not started. */
TEST(tlb_cpus, all_that_run_are_interrupted_for_the_kernel)
{
    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(4, sim_part_sets[i]));
        sim_set_cpu_count(5); /* CPU 4 is late */
        load_on(1, &space);
        sim_set_cpu(2);
        tlb_begin_lazy();
        sim_set_cpu(0);
        CHECK_HELPER(map_pages(&pt_kernel, KERNEL_PAGE, 2));
        for (unsigned cpu = 0; cpu < 4; cpu++) {
            sim_set_cpu(cpu);
            CHECK_HELPER(touch_pages(KERNEL_PAGE, 2));
        }
        sim_set_cpu(0);
        count_interrupts();
        CHECK_HELPER(unmap_pages(&pt_kernel, KERNEL_PAGE, 2));
        CHECK_EQUAL(sim_stale(), 0);
        for (unsigned cpu = 0; cpu < 5; cpu++) {
            CHECK_EQUAL(interrupts_of(cpu), cpu >= 1 && cpu <= 3);
        }
        sim_set_cpu(2);
        tlb_end_lazy();
        sim_set_cpu_count(4);
        CHECK_HELPER(finish_cpus());
    }
}

/* --- two sizes ------------------------------------------------------------ */

/* One owned block of 2 MiB at BASE, in small pages of which three are known. */
static void start_block(unsigned parts)
{
    struct pt_attr attr = pt_attr(PT_WRITE | PT_OWNED);
    struct tlb_batch batch;
    struct pt_cursor cursor;

    CHECK_HELPER(start_cpus(3, parts));
    pfn_t pfn = frame_alloc(MM_TABLE_BITS, FRAME_USER, FRAME_ANY);
    CHECK_EQUAL(pt_open(&space, BASE, BASE + 2 * MiB, &batch, &cursor), MM_OK);
    CHECK_EQUAL(pt_map(&cursor, BASE, pfn, 2 * MiB, attr), MM_OK);
    CHECK_EQUAL(pt_split(&cursor, BASE), MM_OK);
    pt_close(&cursor);
    tlb_commit(&batch);
    load_on(1, &space);
    sim_set_cpu(1);
    CHECK_HELPER(touch_pages(BASE, 3));
    sim_set_cpu(0);
}

/*
 * CPU 0 has joined a table to a large page, but not invalidated the small
 * ones, when CPU 2 is done with changing that large page: by then CPU 1 must
 * know nothing of the small ones any more.
 */
static void overtake_a_join(enum mm_status (*change)(struct pt_cursor *cursor))
{
    struct tlb_batch joined;
    struct tlb_batch batch;
    struct pt_cursor cursor;

    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_block(sim_part_sets[i]));
        CHECK_EQUAL(pt_open(&space, BASE, BASE + 2 * MiB, &joined, &cursor),
                    MM_OK);
        CHECK_EQUAL(pt_merge(&cursor, BASE, 1), MM_OK);
        pt_close(&cursor);
        sim_set_cpu(2);
        CHECK_EQUAL(pt_open(&space, BASE, BASE + 2 * MiB, &batch, &cursor),
                    MM_OK);
        CHECK_EQUAL(change(&cursor), MM_OK);
        pt_close(&cursor);
        tlb_commit(&batch);
        sim_set_cpu(0);
        tlb_commit(&joined);
        CHECK_EQUAL(sim_stale(), 0);
        CHECK_HELPER(finish_cpus());
    }
}

static enum mm_status unmap_block(struct pt_cursor *cursor)
{
    vaddr_t reached;

    return pt_unmap(cursor, BASE, 2 * MiB, &reached);
}

static enum mm_status protect_block(struct pt_cursor *cursor)
{
    return pt_protect(cursor, BASE, 2 * MiB, pt_attr(PT_READ));
}

TEST(tlb_cpus, a_large_page_goes_before_its_parts_are_forgotten)
{
    overtake_a_join(unmap_block);
}

TEST(tlb_cpus, a_large_page_is_protected_before_its_parts_are_forgotten)
{
    overtake_a_join(protect_block);
}

/* --- idle CPUs ------------------------------------------------------------ */

#define IDLERS 8

/* All eight have the space loaded and the page cached, all but CPU 0 idle. */
static void start_idlers(unsigned parts)
{
    CHECK_HELPER(start_cpus(IDLERS, parts));
    CHECK_HELPER(map_pages(&space, BASE, 2));
    for (unsigned cpu = 0; cpu < IDLERS; cpu++) {
        load_on(cpu, &space);
        sim_set_cpu(cpu);
        CHECK_HELPER(touch_pages(BASE, 2));
        if (cpu > 0) {
            tlb_begin_lazy();
        }
    }
    sim_set_cpu(0);
    count_interrupts();
}

static void wake_idlers(void)
{
    for (unsigned cpu = 1; cpu < IDLERS; cpu++) {
        sim_set_cpu(cpu);
        tlb_end_lazy();
        tlb_switch(&space.tlb);
    }
    sim_set_cpu(0);
}

TEST(tlb_cpus, idle_cpus_are_spared_and_catch_up)
{
    struct tlb_stats stats;
    paddr_t physical;

    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_idlers(sim_part_sets[i]));
        CHECK_HELPER(unmap_pages(&space, BASE, 1)); /* its table stays */
        uint64_t spared = has_part(TLB_LAZY) ? IDLERS - 1 : 0;
        CHECK_EQUAL(all_interrupts(), IDLERS - 1 - spared);
        tlb_stats(&stats);
        CHECK_EQUAL(stats.spared, spared);
        wake_idlers();
        CHECK_EQUAL(sim_stale(), 0);
        for (unsigned cpu = 1; cpu < IDLERS; cpu++) {
            sim_set_cpu(cpu);
            CHECK_EQUAL(sim_translate(BASE, WALK_READ, &physical),
                        WALK_NOT_PRESENT);
            CHECK_HELPER(touch_pages(BASE + PAGE_BYTES, 1));
        }
        sim_set_cpu(0);
        CHECK_HELPER(finish_cpus());
    }
}

/*
 * They may walk on a guess, through tables that go: so they are interrupted
 * after all, leave the space, and are not interrupted again.
 */
TEST(tlb_cpus, freed_tables_reach_idle_cpus_once)
{
    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_idlers(sim_part_sets[i]));
        CHECK_HELPER(unmap_pages(&space, BASE, 2));
        CHECK_EQUAL(all_interrupts(), IDLERS - 1);
        CHECK_EQUAL(sim_stale(), 0);
        CHECK_HELPER(map_pages(&space, BASE, 1));
        for (unsigned cpu = 1; cpu < IDLERS; cpu++) {
            sim_set_cpu(cpu);
            sim_walk_ahead(BASE);
        }
        sim_set_cpu(0);
        count_interrupts();
        CHECK_HELPER(unmap_pages(&space, BASE, 1));
        CHECK_EQUAL(all_interrupts(), 0);
        wake_idlers();
        CHECK_HELPER(finish_cpus());
    }
}

/* An idle CPU that uses its space is a bug of the host; W5. */
TEST(tlb_cpus, an_idle_cpu_that_uses_its_space_is_reported)
{
    paddr_t physical;

    CHECK_HELPER(start_idlers(SIM_ALL_PARTS));
    sim_set_cpu(3);
    CHECK_EQUAL(sim_translate(BASE, WALK_READ, &physical), WALK_ALLOWED);
    CHECK_BUG("CPU 3 is idle, but uses 0x40000000");
}

/* --- CPUs that were away -------------------------------------------------- */

/* Nobody is interrupted for a space that nobody runs. */
TEST(tlb_cpus, who_was_away_catches_up)
{
    paddr_t physical;

    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(2, sim_part_sets[i]));
        CHECK_HELPER(map_pages(&space, BASE, 2));
        load_on(1, &space);
        sim_set_cpu(1);
        CHECK_HELPER(touch_pages(BASE, 2));
        load_on(1, &pt_kernel);
        count_interrupts();
        CHECK_HELPER(unmap_pages(&space, BASE, 1));
        CHECK_EQUAL(all_interrupts(), 0);
        load_on(1, &space);
        CHECK_EQUAL(sim_stale(), 0);
        sim_set_cpu(1);
        CHECK_EQUAL(sim_translate(BASE, WALK_READ, &physical),
                    WALK_NOT_PRESENT);
        sim_set_cpu(0);
        CHECK_HELPER(finish_cpus());
    }
}

/* What nobody has flushed is still there. */
TEST(tlb_cpus, a_pcid_keeps_what_is_up_to_date)
{
    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(2, sim_part_sets[i]));
        CHECK_HELPER(map_pages(&space, BASE, 1));
        tlb_switch(&space.tlb);
        CHECK_HELPER(touch_pages(BASE, 1));
        pfn_t pfn;
        struct pt_attr attr;
        uint64_t irq = port_irq_save();
        CHECK(sim_lookup(&space, BASE, &pfn, &attr));
        port_irq_restore(irq);
        tlb_switch(&pt_kernel.tlb);
        CHECK_EQUAL(sim_cached(pfn, 1), 0); /* not usable */
        tlb_switch(&space.tlb);
        CHECK_EQUAL(sim_cached(pfn, 1), has_part(TLB_PCID) ? 1 : 0);
        tlb_switch(&pt_kernel.tlb);
        CHECK_HELPER(finish_cpus());
    }
}

/* --- PCIDs ---------------------------------------------------------------- */

/* More spaces than a CPU has PCIDs in use. */
#define MANY_SPACES 12

static struct pt many[MANY_SPACES];
static paddr_t frame_of[MANY_SPACES];

/* The same page of each is another frame; all have one word of their own. */
static void start_many(unsigned parts)
{
    CHECK_HELPER(start_cpus(2, parts));
    for (unsigned i = 0; i < MANY_SPACES; i++) {
        CHECK_EQUAL(pt_init(&many[i]), MM_OK);
        CHECK_HELPER(map_pages(&many[i], BASE, 1));
        tlb_switch(&many[i].tlb);
        CHECK_EQUAL(sim_translate(BASE, WALK_WRITE, &frame_of[i]),
                    WALK_ALLOWED);
    }
}

static void finish_many(void)
{
    load_on(0, &pt_kernel);
    for (unsigned i = 0; i < MANY_SPACES; i++) {
        pt_fini(&many[i]);
    }
    CHECK_HELPER(finish_cpus());
}

static void visit_space(unsigned i)
{
    paddr_t physical;

    tlb_switch(&many[i].tlb);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_EQUAL(sim_translate(BASE, WALK_WRITE, &physical), WALK_ALLOWED);
    CHECK_EQUAL(physical.v, frame_of[i].v);
}

TEST(tlb_cpus, pcids_are_reused_for_other_spaces)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned set = 0; set < SIM_PART_SETS; set++) {
        CHECK_HELPER(start_many(sim_part_sets[set]));
        for (unsigned i = 0; i < 3 * MANY_SPACES; i++) {
            CHECK_HELPER(visit_space(i % MANY_SPACES));
        }
        /* Nobody comes back before its PCID was taken. */
        CHECK_EQUAL(sim_mmu_counts().kept, 0);
        for (unsigned i = 0; i < 20 * MANY_SPACES; i++) {
            CHECK_HELPER(
                visit_space((unsigned)test_random_below(&random, MANY_SPACES)));
        }
        CHECK_EQUAL(sim_mmu_counts().kept > 0, has_part(TLB_PCID));
        CHECK_HELPER(finish_many());
    }
}

/* A space that ends leaves its PCID to one that must find nothing there. */
TEST(tlb_cpus, nothing_is_left_of_a_space_that_ended)
{
    paddr_t physical;

    for (unsigned set = 0; set < SIM_PART_SETS; set++) {
        CHECK_HELPER(start_many(sim_part_sets[set]));
        for (unsigned i = 0; i < 3 * MANY_SPACES; i++) {
            unsigned number = i % MANY_SPACES;

            tlb_switch(&pt_kernel.tlb);
            pt_fini(&many[number]);
            CHECK_EQUAL(pt_init(&many[number]), MM_OK);
            tlb_switch(&many[number].tlb);
            CHECK_EQUAL(sim_translate(BASE, WALK_READ, &physical),
                        WALK_NOT_PRESENT);
            tlb_switch(&many[(number + 1) % MANY_SPACES].tlb);
        }
        CHECK_HELPER(finish_many());
    }
}

/* Each has its use: a page, a space, everything, and all ways to a table. */
TEST(tlb_cpus, all_types_of_invpcid_are_used)
{
    CHECK_HELPER(start_cpus(1, SIM_ALL_PARTS));
    CHECK_HELPER(map_pages(&space, BASE, 2 * tlb_ceiling));
    tlb_switch(&space.tlb);
    CHECK_HELPER(touch_pages(BASE, 2 * tlb_ceiling));
    CHECK_HELPER(map_pages(&pt_kernel, KERNEL_PAGE, 1));
    CHECK_HELPER(touch_pages(KERNEL_PAGE, 1));
    struct sim_mmu_counts start = sim_mmu_counts();
    tlb_switch(&pt_kernel.tlb);
    CHECK_HELPER(unmap_pages(&space, BASE, 1));
    CHECK_EQUAL(sim_mmu_counts().invpcid[0], start.invpcid[0] + 1);
    CHECK_HELPER(unmap_pages(&space, BASE, tlb_ceiling + 2));
    CHECK_EQUAL(sim_mmu_counts().invpcid[1], start.invpcid[1] + 1);
    CHECK_HELPER(unmap_pages(&pt_kernel, KERNEL_PAGE, 1));
    CHECK_HELPER(release_kernel_table());
    CHECK_EQUAL(sim_mmu_counts().invpcid[3], start.invpcid[3] + 1);
    tlb_flush_all();
    CHECK_EQUAL(sim_mmu_counts().invpcid[2], start.invpcid[2] + 1);
    CHECK_HELPER(finish());
}

/* --- visits and ends ------------------------------------------------------ */

static struct {
    bool is_visit;
    uint64_t irq;
    unsigned turns; /* that CPU 0 has waited */
} visit;

/* CPU 1 ends its visit after a while; before, it cannot be interrupted. */
static void end_visit_late(void)
{
    if (++visit.turns == 100) {
        sim_set_cpu(1);
        sim_end_descent();
        tlb_end_visit(&space.tlb, visit.is_visit);
        port_irq_restore(visit.irq);
        sim_set_cpu(0);
    }
}

/* Tables stay while somebody looks into them who has not loaded them. */
TEST(tlb_cpus, tables_are_not_released_under_a_visitor)
{
    static const struct sim_driver driver = {.relax = end_visit_late};
    struct walk walk;

    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(2, sim_part_sets[i]));
        CHECK_HELPER(map_pages(&space, BASE, 1));
        walk_address(space.root, BASE, &walk);
        sim_set_cpu(1);
        visit.turns = 0;
        visit.irq = port_irq_save();
        visit.is_visit = tlb_begin_visit(&space.tlb);
        sim_note_descent(phys_to_pfn(walk.step[3].table));
        sim_set_cpu(0);
        sim_set_driver(&driver);
        CHECK_HELPER(unmap_pages(&space, BASE, 1));
        sim_set_driver(NULL);
        CHECK_EQUAL(visit.turns, 100);
        CHECK_EQUAL(atomic_load(&space.tables), 1);
        CHECK_HELPER(finish_cpus());
    }
}

TEST(tlb_cpus, idle_cpus_let_go_of_a_space_that_ends)
{
    struct tlb_cpu_state state;

    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_idlers(sim_part_sets[i]));
        uint64_t id = space.tlb.id;
        load_on(0, &pt_kernel);
        pt_fini(&space);
        for (unsigned cpu = 1; cpu < IDLERS; cpu++) {
            CHECK_EQUAL(interrupts_of(cpu), 1);
            tlb_cpu_look(cpu, &state);
            CHECK(state.is_online && state.space != id);
            sim_set_cpu(cpu);
            tlb_end_lazy();
        }
        sim_set_cpu(0);
        CHECK_EQUAL(sim_stale(), 0);
        CHECK(frame_check());
    }
}

static void end_space(void)
{
    pt_fini(&space);
}

TEST(tlb_cpus, a_space_that_is_run_cannot_end)
{
    for (unsigned i = 0; i < SIM_PART_SETS; i++) {
        CHECK_HELPER(start_cpus(3, sim_part_sets[i]));
        load_on(2, &space);
        CHECK(sim_panics(end_space, "CPU 2 still runs space"));
        CHECK_HELPER(finish_cpus());
    }
}

/* --- what is said --------------------------------------------------------- */

TEST(tlb_cpus, statistics_say_who_did_what)
{
    struct tlb_stats stats;
    struct tlb_stats old;
    struct tlb_cpu_state state;

    CHECK_HELPER(start_cpus(3, SIM_ALL_PARTS));
    CHECK_HELPER(map_pages(&space, BASE, 3));
    load_on(1, &space);
    load_on(2, &space);
    tlb_cpu_stats(0, &old);
    CHECK_HELPER(unmap_pages(&space, BASE, 2));
    tlb_cpu_stats(0, &stats);
    CHECK_EQUAL(stats.commits - old.commits, 1);
    CHECK_EQUAL(stats.interrupts - old.interrupts, 2);
    CHECK_EQUAL(stats.released - old.released, 2);
    tlb_cpu_stats(1, &stats);
    CHECK_EQUAL(stats.switches, 1);
    CHECK_EQUAL(stats.served, 1);
    CHECK_EQUAL(stats.pages, 2);
    CHECK_EQUAL(stats.commits, 0);
    tlb_cpu_look(2, &state);
    CHECK_EQUAL(state.space, space.tlb.id);
    CHECK_EQUAL(state.generation, 1);
    CHECK(!state.is_lazy && state.is_online && state.pcid != 0);
    CHECK_HELPER(finish_cpus());
}
