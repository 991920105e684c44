/* SPDX-License-Identifier: MIT */
/* The shootdown between real threads. */
/*
 * At risk: an order that the scheduler's model of memory does not try, and
 * that a real processor or compiler makes: an answer that is seen before what
 * it answers for is done. So threads play CPUs that change, use and leave two
 * spaces against each other. They write into every page they reach, and
 * whoever gets a frame writes all of it: under -fsanitize=thread, each frame
 * that comes back too early is a race.
 */
#include <sched.h>

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/port.h>
#include "base/memory.h"
#include "tests/host/players.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"
#include "tests/shared/once.h"

#define ACTIONS   6000
#define SPACES    2
#define PAGES     6
#define USER      UINT64_C(0x40000000)
#define KERNEL    (SIM_KMAP + 64 * GiB)
#define RAM_BYTES (64 * MiB)

/* What one thread has. */
static struct share {
    unsigned using; /* number of the space; SPACES: the kernel's */
    struct pt own;  /* that it begins and ends */
    uint64_t uses;  /* accesses that were allowed */
} share[PLAYERS];

static struct pt space[SPACES];

static struct share *mine(void)
{
    return &share[player_me()->cpu];
}

/* --- actions -------------------------------------------------------------- */

static vaddr_t page_at(const struct pt *pt, unsigned page)
{
    return (pt->is_kernel ? KERNEL : USER) + page * PAGE_BYTES;
}

static struct pt_attr attr_of(const struct pt *pt, unsigned flags)
{
    return pt_attr(PT_OWNED | flags | (pt->is_kernel ? 0 : PT_USER));
}

/* A space, or the kernel's pages. */
static struct pt *some_pt(void)
{
    unsigned number = player_below(2 * SPACES);

    return number < SPACES ? &space[number] : &pt_kernel;
}

static void map_page(struct pt *pt)
{
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);

    memset(phys_to_virt(pfn_to_phys(pfn)), 0x5a, PAGE_BYTES);
    if (once_map(pt, page_at(pt, player_below(PAGES)), pfn, PAGE_BYTES,
                 attr_of(pt, PT_WRITE)) != MM_OK) {
        frame_free(pfn, 0);
    }
}

static void unmap_from(struct pt *pt, unsigned first, unsigned count)
{
    player_expect(once_unmap(pt, page_at(pt, first), count * PAGE_BYTES) ==
                  MM_OK);
}

static void unmap_some(struct pt *pt)
{
    unsigned first = player_below(PAGES);

    unmap_from(pt, first, 1 + player_below(PAGES - first));
}

static void protect_page(struct pt *pt)
{
    unsigned flags = player_below(2) ? PT_WRITE : PT_READ;

    player_expect(once_protect(pt, page_at(pt, player_below(PAGES)), PAGE_BYTES,
                               attr_of(pt, flags)) == MM_OK);
}

/* Each CPU has a word of its own in every page. */
static void touch_page(const struct pt *pt)
{
    unsigned access = player_below(2) ? WALK_WRITE : WALK_READ;
    unsigned by = pt->is_kernel ? 0 : WALK_USER;
    vaddr_t address =
        page_at(pt, player_below(PAGES)) + player_me()->cpu * sizeof(uint64_t);
    paddr_t physical;

    if (sim_translate(address, access | by, &physical) == WALK_ALLOWED) {
        volatile uint64_t *word = phys_to_virt(physical);

        mine()->uses++;
        if (access == WALK_WRITE) {
            *word = player_me()->cpu;
        } else {
            (void)*word;
        }
    }
    sim_poll();
}

static void look_up(struct pt *pt)
{
    pfn_t pfn;
    struct pt_attr attr;
    uint64_t irq = port_irq_save();

    (void)sim_lookup(pt, page_at(pt, player_below(PAGES)), &pfn, &attr);
    port_irq_restore(irq);
}

static struct tlb_space *loadable(unsigned number)
{
    return number == SPACES ? &pt_kernel.tlb : &space[number].tlb;
}

static void switch_somewhere(void)
{
    mine()->using = player_below(SPACES + 1);
    tlb_switch(loadable(mine()->using));
}

static void idle(void)
{
    tlb_begin_lazy();
    for (unsigned turns = player_below(8); turns > 0; turns--) {
        sched_yield();
        sim_walk_ahead(page_at(some_pt(), player_below(PAGES)));
        sim_poll();
    }
    tlb_end_lazy();
    tlb_switch(loadable(mine()->using));
}

/* A space of its own, from beginning to end. */
static void begin_and_end(void)
{
    player_expect(pt_init(&mine()->own) == MM_OK);
    map_page(&mine()->own);
    tlb_switch(&mine()->own.tlb);
    for (unsigned i = 0; i < PAGES; i++) {
        touch_page(&mine()->own);
    }
    tlb_switch(loadable(mine()->using));
    pt_fini(&mine()->own);
}

static void act(void)
{
    struct pt *pt = some_pt();

    switch (player_below(16)) {
    case 0:
    case 1:
    case 2:
        map_page(pt);
        break;
    case 3:
    case 4:
        unmap_some(pt);
        break;
    case 5:
    case 6:
        protect_page(pt);
        break;
    case 7:
        look_up(pt);
        break;
    case 8:
    case 9:
        switch_somewhere();
        break;
    case 10:
        idle();
        break;
    case 11:
        begin_and_end();
        break;
    default:
        touch_page(pt);
        break;
    }
}

static void act_often(void)
{
    *mine() = (struct share){.using = SPACES};
    for (unsigned i = 0; i < ACTIONS; i++) {
        act();
        player_expect(!sim_irq_is_off());
    }
    tlb_switch(&pt_kernel.tlb);
}

/* --- the test ------------------------------------------------------------- */

static void end_all(uint64_t frames)
{
    struct audit_verdict verdict;

    CHECK_EQUAL(sim_stale(), 0);
    unmap_from(&pt_kernel, 0, PAGES);
    for (unsigned i = 0; i < SPACES; i++) {
        CHECK(pt_audit(&space[i], &verdict));
        pt_fini(&space[i]);
    }
    for (unsigned i = 0; i < PLAYERS; i++) {
        CHECK(share[i].uses > 0);
    }
    CHECK_EQUAL(frames_of_spaces(), frames);
    CHECK(frame_check());
}

TEST(tlb_threads, cpus_change_and_use_the_same_spaces)
{
    for (unsigned set = 0; set < SIM_PART_SETS; set++) {
        sim_boot_cpus(RAM_BYTES, PLAYERS, sim_part_sets[set]);
        uint64_t frames = frames_of_spaces();
        for (unsigned i = 0; i < SPACES; i++) {
            CHECK_EQUAL(pt_init(&space[i]), MM_OK);
        }
        CHECK_HELPER(players_run(PLAYERS, act_often));
        CHECK_HELPER(end_all(frames));
    }
}
