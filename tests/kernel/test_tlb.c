/* SPDX-License-Identifier: MIT */
/* tlb: every CPU forgets in time, and none is disturbed for nothing. */
#include "tests/shared/test.h"

#include <stdatomic.h>

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/pt.h>
#include "base/check.h"
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/smp.h"
#include "tests/kernel/crew.h"

/*
 * At risk: a CPU that goes on with a translation that was taken away, and so
 * reads what a frame holds for somebody else now; two CPUs that wait for each
 * other; an idle CPU that is woken for nothing. Provoked on the real MMU, by
 * all CPUs there are (one is enough for the tests to run): frames that are
 * released are reused at once, and each page says in every word which page it
 * is, so that a stale read is a wrong word. Debug builds ask the oracle, too.
 */

/* Of the lower half; page tables of its own, pages that ring 0 may use. */
#define USER_BASE UINT64_C(0x40000000)

static struct pt space[2];

static bool begin_spaces(void)
{
    return pt_init(&space[0]) == MM_OK && pt_init(&space[1]) == MM_OK;
}

static void end_spaces(void)
{
    tlb_switch(&pt_kernel.tlb);
    pt_fini(&space[0]);
    pt_fini(&space[1]);
}

static void load_space(void *argument)
{
    struct pt *pt = argument;

    tlb_switch(&pt->tlb);
}

static struct tlb_stats now(void)
{
    struct tlb_stats stats;

    tlb_stats(&stats);
    return stats;
}

/* --- one page, another CPU ------------------------------------------------ */

struct look {
    vaddr_t page;
    struct probe probe;
    bool is_read;
};

static void look_there(void *argument)
{
    struct look *look = argument;

    look->is_read = probe_read64((void *)look->page, &look->probe);
}

static struct look look_from(unsigned cpu, vaddr_t page)
{
    struct look look = {.page = page};
    enum mm_status status = smp_call(cpu, look_there, &look);

    ASSERT(status == MM_OK);
    return look;
}

TEST(tlb, another_cpu_sees_a_page_go)
{
    char *block = kmap_alloc(PAGE_BYTES, KMAP_LAZY, "tlb test");
    vaddr_t page = (vaddr_t)block;

    CHECK(block != NULL);
    if (crew_others() > 0) {
        unsigned cpu = smp_first_other();
        bool is_mapped = crew_map(&pt_kernel, page, 7);
        struct look before = look_from(cpu, page);
        bool is_unmapped = crew_unmap(&pt_kernel, page);
        struct look after = look_from(cpu, page);
        CHECK(is_mapped && is_unmapped);
        CHECK(before.is_read);
        CHECK_EQUAL(before.probe.value, 7);
        CHECK(!after.is_read);
    }
    kmap_free(block);
}

/* --- who is interrupted --------------------------------------------------- */

static _Atomic unsigned arrived;
static _Atomic bool may_leave;

/* Run the space, visibly, until told to leave. */
static void stay_in_space(void *argument)
{
    load_space(argument);
    atomic_fetch_add(&arrived, 1);
    while (!atomic_load(&may_leave)) {
        cpu_pause();
    }
    tlb_switch(&pt_kernel.tlb);
}

TEST(tlb, only_who_runs_the_space_is_interrupted)
{
    unsigned others = crew_others();
    unsigned runners = others > 0 ? 1 : 0;

    CHECK(begin_spaces());
    atomic_store(&arrived, 0);
    atomic_store(&may_leave, false);
    bool is_mapped = crew_map(&space[0], USER_BASE, 1) &&
                     crew_map(&space[0], USER_BASE + PAGE_BYTES, 2);
    if (runners > 0 &&
        smp_run(smp_first_other(), stay_in_space, &space[0]) == MM_OK) {
        while (atomic_load(&arrived) == 0) {
            cpu_pause();
        }
    }
    struct tlb_stats before = now();
    bool is_unmapped = crew_unmap(&space[0], USER_BASE);
    struct tlb_stats after = now();
    atomic_store(&may_leave, true);
    crew_wait();
    end_spaces();
    CHECK(is_mapped && is_unmapped);
    CHECK_EQUAL(after.interrupts - before.interrupts, runners);
    CHECK_EQUAL(after.served - before.served, runners);
}

/* All others idle with the space loaded. */
static void park_others(struct pt *pt)
{
    crew_start(load_space, pt);
    crew_park();
}

TEST(tlb, idle_cpus_are_left_alone)
{
    unsigned others = crew_others();
    bool is_lazy = (tlb_parts() & TLB_LAZY) != 0;

    CHECK(begin_spaces());
    bool done = crew_map(&space[0], USER_BASE, 1) &&
                crew_map(&space[0], USER_BASE + PAGE_BYTES, 2);
    park_others(&space[0]);
    struct tlb_stats before = now();
    done = crew_unmap(&space[0], USER_BASE) && done;
    struct tlb_stats after = now();
    /* The last page takes the tables along: nobody may keep a way to them. */
    done = crew_unmap(&space[0], USER_BASE + PAGE_BYTES) && done;
    struct tlb_stats tables = now();
    done = crew_map(&space[0], USER_BASE, 3) && done;
    done = crew_unmap(&space[0], USER_BASE) && done;
    struct tlb_stats again = now();
    end_spaces();
    CHECK(done);
    CHECK_EQUAL(after.interrupts - before.interrupts, is_lazy ? 0 : others);
    CHECK_EQUAL(after.spared - before.spared, is_lazy ? others : 0);
    CHECK_EQUAL(tables.interrupts - after.interrupts, others);
    CHECK_EQUAL(again.interrupts - tables.interrupts, 0);
}

/* --- what was missed is made up for ----------------------------------------
 */

struct visit {
    uint64_t value;
    bool is_read;
};

static void visit_space(void *argument)
{
    struct visit *visit = argument;
    struct probe probe;

    tlb_switch(&space[0].tlb);
    visit->is_read = probe_read64((void *)USER_BASE, &probe);
    visit->value = probe.value;
    tlb_switch(&pt_kernel.tlb);
}

TEST(tlb, a_cpu_that_comes_back_catches_up)
{
    struct visit first = {0, false};
    struct visit second = {0, false};

    CHECK(begin_spaces());
    bool done = crew_map(&space[0], USER_BASE, 11) &&
                crew_map(&space[0], USER_BASE + PAGE_BYTES, 0);
    unsigned cpu = crew_others() > 0 ? smp_first_other() : port_cpu();
    done = smp_call(cpu, visit_space, &first) == MM_OK && done;
    struct tlb_stats before = now();
    done = crew_unmap(&space[0], USER_BASE) && done;
    done = crew_map(&space[0], USER_BASE, 12) && done;
    struct tlb_stats after = now();
    done = smp_call(cpu, visit_space, &second) == MM_OK && done;
    end_spaces();
    CHECK(done && first.is_read && second.is_read);
    CHECK_EQUAL(first.value, 11);
    CHECK_EQUAL(second.value, 12);
    CHECK_EQUAL(after.interrupts, before.interrupts);
}

/* With PCIDs a space that nobody changed is still cached. */
TEST(tlb, a_switch_keeps_what_is_cached_with_pcids)
{
    bool has_pcid = (tlb_parts() & TLB_PCID) != 0;

    CHECK(begin_spaces());
    tlb_switch(&space[0].tlb);
    tlb_switch(&space[1].tlb);
    struct tlb_stats before = now();
    tlb_switch(&space[0].tlb);
    tlb_switch(&space[1].tlb);
    struct tlb_stats after = now();
    end_spaces();
    CHECK_EQUAL(after.switches - before.switches, 2);
    CHECK_EQUAL(after.kept - before.kept, has_pcid ? 2 : 0);
}

/* More spaces than a CPU has PCIDs for. */
TEST(tlb, pcids_are_used_again)
{
    enum { SPACES = 12 };
    static struct pt many[SPACES];
    bool done = true;
    unsigned wrong = 0;
    unsigned made = 0;

    for (; made < SPACES && pt_init(&many[made]) == MM_OK; made++) {
        done = crew_map(&many[made], USER_BASE, made) && done;
    }
    for (unsigned turn = 0; turn < 3 * SPACES; turn++) {
        unsigned which = turn * 5 % SPACES;
        struct probe probe;

        tlb_switch(&many[which].tlb);
        bool is_read = probe_read64((void *)USER_BASE, &probe);
        wrong += is_read && probe.value == which ? 0 : 1;
    }
    tlb_switch(&pt_kernel.tlb);
    for (unsigned i = 0; i < made; i++) {
        pt_fini(&many[i]);
    }
    CHECK(done);
    CHECK_EQUAL(made, SPACES);
    CHECK_EQUAL(wrong, 0);
}

/* Pages of a space that this CPU has cached, but does not run. */
TEST(tlb, a_space_is_changed_from_outside)
{
    unsigned wrong = 0;

    CHECK(begin_spaces());
    bool done = crew_map(&space[0], USER_BASE + PAGE_BYTES, 0);
    for (uint64_t turn = 1; turn <= 4; turn++) {
        struct visit visit = {0, false};

        done = crew_map(&space[0], USER_BASE, turn) && done;
        visit_space(&visit);
        wrong += visit.is_read && visit.value == turn ? 0 : 1;
        done = crew_unmap(&space[0], USER_BASE) && done;
    }
    end_spaces();
    CHECK(done);
    CHECK_EQUAL(wrong, 0);
}

/* --- two who wait for each other ------------------------------------------ */

/* Of all CPUs together: each needs a turn of all others to answer. */
#define SHOTS 400

static unsigned shots_of_each(void)
{
    return SHOTS / (crew_others() + 1) + 1;
}

/* Shoot with interrupts off: nobody is answered but from the waiting. */
static void shoot(void *argument)
{
    struct tlb_batch batch;
    unsigned shots = shots_of_each();

    for (unsigned i = 0; i < shots; i++) {
        uint64_t irq = cpu_irq_save();
        tlb_batch_init(&batch, &pt_kernel.tlb);
        tlb_batch_range(&batch, (vaddr_t)argument,
                        (vaddr_t)argument + PAGE_BYTES, 0);
        tlb_commit(&batch);
        cpu_irq_restore(irq);
    }
}

TEST(tlb, all_shoot_at_each_other_with_interrupts_off)
{
    void *block = kmap_alloc(PAGE_BYTES, KMAP_EAGER, "tlb test");

    CHECK(block != NULL);
    struct tlb_stats before = now();
    crew_run(shoot, block);
    struct tlb_stats after = now();
    uint64_t shots = (uint64_t)(crew_others() + 1) * shots_of_each();
    kmap_free(block);
    CHECK_EQUAL(after.commits - before.commits, shots);
    CHECK_EQUAL(after.served - before.served, shots * crew_others());
}

/* --- an NMI in between ---------------------------------------------------- */

static uint64_t nmis_of_all(void)
{
    uint64_t sum = 0;

    for (unsigned cpu = 0; cpu < smp_possible(); cpu++) {
        sum += smp_nmi_count(cpu);
    }
    return sum;
}

/* One to each other CPU; those that have not taken the last get none. */
static unsigned send_nmis(void)
{
    unsigned sent = 0;

    for (unsigned cpu = 0; cpu < smp_possible(); cpu++) {
        bool is_other = cpu != port_cpu() && smp_is_online(cpu);

        sent += is_other && smp_send_nmi(cpu) == MM_OK ? 1 : 0;
    }
    return sent;
}

TEST(tlb, nmis_do_not_disturb)
{
    enum { TIMES = 5 };
    void *block = kmap_alloc(PAGE_BYTES, KMAP_EAGER, "tlb test");
    uint64_t before = nmis_of_all();
    uint64_t sent = 0;

    CHECK(block != NULL);
    crew_start(shoot, block);
    for (unsigned i = 0; i < TIMES; i++) {
        sent += send_nmis();
        shoot(block);
    }
    crew_wait();
    kmap_free(block);
    CHECK(crew_others() == 0 || sent >= TIMES);
    CHECK_EQUAL(nmis_of_all() - before, sent);
}
