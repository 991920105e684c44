/* SPDX-License-Identifier: MIT */
/* What other CPUs do while one copies pages, or waits for its flush. */
/*
 * At risk: a write that goes to a page after it was copied; a large page in
 * place of small ones that have changed meanwhile; a page that a space writes
 * to though another one shares it by now. One thread plays all CPUs: what the
 * others do happens while CPU 0 or 2 waits for them.
 */
#include "tests/host/open_scene.h"

#include <mm/fault.h>
#include "base/bits.h"
#include "tests/host/sim_cpus.h"

#define HERE GiB

static struct pt child;

/* @cpus CPUs that have the space loaded, and 2 MiB of promises in it. */
static void start_cpus(unsigned cpus, uint8_t tag)
{
    struct pt_attr attr = {PT_WRITE, PT_WB, tag};

    sim_boot_cpus(RAM, cpus, TLB_RANGES);
    CHECK_EQUAL(pt_init(&space), MM_OK);
    for (unsigned cpu = cpus; cpu-- > 0;) {
        sim_set_cpu(cpu);
        tlb_switch(&space.tlb);
    }
    open_range(HERE, 2 * MiB);
    CHECK_EQUAL(pt_promise(&cursor, HERE, 2 * MiB, PT_ZERO, attr, 0), MM_OK);
    CHECK_EQUAL(pt_split(&cursor, HERE), MM_OK);
    shut();
}

static void finish_cpus(unsigned cpus)
{
    sim_set_driver(NULL);
    for (unsigned cpu = 1; cpu < cpus; cpu++) {
        sim_set_cpu(cpu);
        sim_poll();
        tlb_switch(&pt_kernel.tlb);
    }
    sim_set_cpu(0);
    finish();
}

/* --- collapse ------------------------------------------------------------- */

static void (*do_meanwhile)(void);

/* CPU 0 waits for CPU 1, which does something first, once; and the reverse. */
static void play_other(void)
{
    void (*act)(void) = do_meanwhile;

    if (port_cpu() == 1) {
        sim_set_cpu(0);
        tlb_interrupt(); /* as CPU 0 does in its own wait */
        sim_set_cpu(1);
        return;
    }
    sim_set_cpu(1);
    do_meanwhile = NULL;
    if (act != NULL) {
        act();
    }
    sim_poll();
    sim_set_cpu(0);
}

static bool always(void *context, const struct pt_collapse *found)
{
    (void)context;
    (void)found;
    return true;
}

static enum mm_status collapse_while(void (*act)(void))
{
    static const struct sim_driver driver = {.relax = play_other};

    do_meanwhile = act;
    sim_set_driver(&driver);
    enum mm_status status = pt_collapse(&space, HERE, always, NULL);
    sim_set_driver(NULL);
    return status;
}

static void put_guard(void)
{
    CHECK_EQUAL(once_promise(&space, HERE + 9 * PAGE_BYTES, PAGE_BYTES,
                             PT_GUARD, pt_attr(PT_WRITE)),
                MM_OK);
}

static void fork_into(struct pt *copy)
{
    CHECK_EQUAL(pt_init(copy), MM_OK);
    CHECK_EQUAL(once_copy(&space, copy, HERE, 2 * MiB), MM_OK);
}

static void fork_now(void)
{
    fork_into(&child);
}

static void fork_and_guard(void)
{
    fork_now();
    put_guard();
}

static void write_now(void)
{
    CHECK(sim_write(HERE + 1, 5));
}

TEST(pt_races, what_changes_while_it_is_copied_stays_small)
{
    uint8_t value = 0;

    CHECK_HELPER(start_cpus(2, 0));
    CHECK(sim_write(HERE, 7));
    CHECK_EQUAL(collapse_while(put_guard), MM_EBUSY);
    CHECK_EQUAL(once_query(&space, HERE + 9 * PAGE_BYTES).promise, PT_GUARD);
    CHECK_EQUAL(once_query(&space, HERE).level, 0);
    open_range(HERE, 2 * MiB);
    CHECK_EQUAL(pt_promise(&cursor, HERE + 9 * PAGE_BYTES, PAGE_BYTES, PT_ZERO,
                           pt_attr(PT_WRITE), 0),
                MM_OK);
    shut();
    CHECK(sim_write(HERE, 7));
    CHECK_EQUAL(collapse_while(write_now), MM_EBUSY);
    CHECK(sim_read(HERE + 1, &value));
    CHECK_EQUAL(value, 5);
    CHECK(sim_read(HERE, &value));
    CHECK_EQUAL(value, 7);
    CHECK_HELPER(finish_cpus(2));
}

/* The copy of the space has the page, too: nobody may write to it as it is. */
TEST(pt_races, a_copy_of_the_space_meanwhile_keeps_its_pages)
{
    uint8_t value = 0;

    CHECK_HELPER(start_cpus(2, 0));
    CHECK(sim_write(HERE, 7));
    CHECK_EQUAL(collapse_while(fork_and_guard), MM_EBUSY);
    CHECK_EQUAL(once_query(&space, HERE).attr.flags & PT_WRITE, 0);
    CHECK(sim_write(HERE, 8));
    tlb_switch(&child.tlb);
    CHECK(sim_read(HERE, &value));
    CHECK_EQUAL(value, 7);
    tlb_switch(&space.tlb);
    pt_fini(&child);
    CHECK_HELPER(finish_cpus(2));
}

TEST(pt_races, shared_pages_are_not_collapsed)
{
    CHECK_HELPER(start_cpus(2, 1));
    space.shared_tags = 1;
    CHECK(sim_write(HERE, 7));
    CHECK_EQUAL(collapse_while(NULL), MM_ENOENT);
    CHECK_EQUAL(once_query(&space, HERE).attr.flags & PT_WRITE, PT_WRITE);
    CHECK_HELPER(finish_cpus(2));
}

/* --- copy on write -------------------------------------------------------- */

static uint8_t last;   /* that CPU 1 wrote */
static bool has_begun; /* CPU 2 has tried to write */

/*
 * CPU 0 has shared the page and waits for its flush; CPU 2 writes to it, and
 * gets a copy. CPU 1 writes whenever somebody waits for it, if it can without a
 * fault, and answers then.
 */
static void play_writers(void)
{
    unsigned me = port_cpu();
    paddr_t physical;

    sim_set_cpu(1);
    if (sim_translate(HERE + 1, WALK_WRITE, &physical) == WALK_ALLOWED) {
        *(uint8_t *)phys_to_virt(physical) = ++last;
    }
    if (!has_begun) {
        has_begun = true;
        sim_set_cpu(2);
        CHECK(sim_write(HERE + 2, 9));
    }
    sim_set_cpu(1);
    sim_poll();
    if (me == 2) {
        sim_set_cpu(0);
        tlb_interrupt(); /* as CPU 0 does in its own wait */
    }
    sim_set_cpu(me);
}

TEST(pt_races, no_write_is_lost_to_a_copy_before_its_flush)
{
    static const struct sim_driver driver = {.relax = play_writers};
    uint8_t value = 0;

    CHECK_HELPER(start_cpus(3, 0));
    sim_set_cpu(1);
    CHECK(sim_write(HERE + 1, last = 1));
    sim_set_cpu(0);
    has_begun = false;
    sim_set_driver(&driver);
    fork_now();
    sim_set_driver(NULL);
    CHECK(has_begun);
    CHECK(sim_read(HERE + 1, &value));
    CHECK_EQUAL(value, last);
    CHECK(sim_read(HERE + 2, &value));
    CHECK_EQUAL(value, 9);
    pt_fini(&child);
    CHECK_HELPER(finish_cpus(3));
}

/*
 * The first fork has taken the right to write away and waits for its flush;
 * what is done meanwhile must not rely on that flush.
 */
static struct pt second;

static void fork_again(void)
{
    paddr_t physical;

    fork_into(&second);
    sim_set_cpu(1);
    CHECK(sim_translate(HERE + 1, WALK_WRITE, &physical) != WALK_ALLOWED);
}

/* CPU 0 waits, CPU 2 does something, once, and CPU 1 answers both. */
static void play_second(void)
{
    void (*act)(void) = do_meanwhile;
    unsigned me = port_cpu();

    do_meanwhile = NULL;
    if (act != NULL) {
        sim_set_cpu(2);
        act();
    }
    sim_set_cpu(1);
    sim_poll();
    sim_set_cpu(me == 2 ? 0 : 2);
    tlb_interrupt(); /* as it does in a wait of its own */
    sim_set_cpu(me);
}

TEST(pt_races, of_two_forks_each_ends_the_writing)
{
    static const struct sim_driver driver = {.relax = play_second};

    CHECK_HELPER(start_cpus(3, 0));
    sim_set_cpu(1);
    CHECK(sim_write(HERE + 1, 1));
    sim_set_cpu(0);
    do_meanwhile = fork_again;
    sim_set_driver(&driver);
    fork_now();
    sim_set_driver(NULL);
    CHECK(do_meanwhile == NULL);
    pt_fini(&second);
    pt_fini(&child);
    CHECK_HELPER(finish_cpus(3));
}

/* Parked by a CPU that has not flushed yet, and not owned. */
static void unmap_parked(void)
{
    paddr_t physical;

    CHECK_EQUAL(once_unmap(&space, HERE, PAGE_BYTES), MM_OK);
    sim_set_cpu(1);
    CHECK(sim_translate(HERE, WALK_READ, &physical) != WALK_ALLOWED);
}

TEST(pt_races, what_is_parked_may_still_be_cached)
{
    static const struct sim_driver driver = {.relax = play_second};
    paddr_t physical;

    CHECK_HELPER(start_cpus(3, 0));
    CHECK_EQUAL(once_map(&space, HERE, pfn_of(DEVICE_PFN), PAGE_BYTES,
                         pt_attr(PT_WRITE)),
                MM_OK);
    sim_set_cpu(1);
    CHECK_EQUAL(sim_translate(HERE, WALK_READ, &physical), WALK_ALLOWED);
    sim_set_cpu(0);
    do_meanwhile = unmap_parked;
    sim_set_driver(&driver);
    CHECK_EQUAL(once_protect(&space, HERE, PAGE_BYTES, pt_attr(PT_NONE)),
                MM_OK);
    sim_set_driver(NULL);
    CHECK(do_meanwhile == NULL);
    CHECK_HELPER(finish_cpus(3));
}

/* What another CPU has just moved there goes; its old address was cached. */
static void unmap_moved(void)
{
    paddr_t physical;

    CHECK_EQUAL(once_unmap(&space, HERE + GiB, PAGE_BYTES), MM_OK);
    sim_set_cpu(1); /* the frame is gone */
    CHECK(sim_translate(HERE + 1, WALK_WRITE, &physical) != WALK_ALLOWED);
}

/* CVE-2018-18281. */
TEST(pt_races, what_was_moved_goes_with_its_old_address)
{
    static const struct sim_driver driver = {.relax = play_second};

    CHECK_HELPER(start_cpus(3, 0));
    sim_set_cpu(1);
    CHECK(sim_write(HERE + 1, 1));
    sim_set_cpu(0);
    CHECK_EQUAL(pt_open_two(&space, HERE, HERE + 2 * MiB, HERE + GiB,
                            HERE + GiB + 2 * MiB, &batch, &cursor),
                MM_OK);
    CHECK_EQUAL(pt_move(&cursor, HERE, HERE + GiB, PAGE_BYTES), MM_OK);
    pt_close(&cursor);
    sim_set_cpu(2);
    sim_set_driver(&driver);
    do_meanwhile = NULL;
    unmap_moved();
    sim_set_cpu(0);
    tlb_commit(&batch);
    sim_set_driver(NULL);
    CHECK_HELPER(finish_cpus(3));
}
