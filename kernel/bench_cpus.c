/* SPDX-License-Identifier: MIT */
/* bench_cpus: what it costs to make other processors forget. */
/*
 * Idea: under -icount all CPUs take turns in one thread of QEMU, and RDTSC
 * counts the instructions of all. So the time from before to after a
 * tlb_commit() is the total: the initiator, the answer of the other CPU, and a
 * turn or two of both waiting. The answer alone is measured on the other CPU:
 * it keeps the interrupt waiting, reads the clock, lets it in, and reads the
 * clock again; nothing in between gives the turn away.
 *
 * Limits: one CPU active, all others idle.
 */
#include "kernel/bench_impl.h"

#include <stdatomic.h>

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "kernel/apic.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/smp.h"

#define RANGE      UINT64_C(0x40000000) /* in the lower half */
#define MOST_PAGES 256
#define ANSWERS    200

static struct {
    struct pt space[2];
    pfn_t frames;   /* MOST_PAGES in a row, mapped but not owned */
    vaddr_t kernel; /* one page of kernel addresses */
    unsigned other; /* the active CPU, or smp_possible() */
} scene;

static _Atomic bool is_there;
static _Atomic bool may_go;

/* --- operations ----------------------------------------------------------- */

/* A whole table more than what is unmapped: no table is emptied by it. */
static bool do_map(unsigned pages)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t end = RANGE + (MOST_PAGES + 1) * PAGE_BYTES;

    if (pt_open(&scene.space[0], RANGE, end, &batch, &cursor) != MM_OK) {
        return false;
    }
    enum mm_status status = pt_map(&cursor, RANGE, scene.frames,
                                   pages * PAGE_BYTES, pt_attr(PT_WRITE));
    pt_close(&cursor);
    tlb_commit(&batch);
    return status == MM_OK;
}

static bool do_unmap(unsigned pages)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t end = RANGE + pages * PAGE_BYTES;
    vaddr_t reached;

    if (pt_open(&scene.space[0], RANGE, end, &batch, &cursor) != MM_OK) {
        return false;
    }
    enum mm_status status = pt_unmap(&cursor, RANGE, end - RANGE, &reached);
    pt_close(&cursor);
    tlb_commit(&batch);
    return status == MM_OK;
}

static bool do_flush(unsigned pages)
{
    struct tlb_batch batch;

    tlb_batch_init(&batch, &pt_kernel.tlb);
    tlb_batch_range(&batch, scene.kernel, scene.kernel + pages * PAGE_BYTES, 0);
    tlb_commit(&batch);
    return true;
}

static bool do_switch(unsigned argument)
{
    (void)argument;
    tlb_switch(&scene.space[0].tlb);
    tlb_switch(&scene.space[1].tlb);
    return true;
}

/* --- the other CPU -------------------------------------------------------- */

/* Run the space, with interrupts on, and do nothing. */
static void stay(void *argument)
{
    (void)argument;
    tlb_switch(&scene.space[0].tlb);
    atomic_store(&is_there, true);
    while (!atomic_load(&may_go)) {
        cpu_pause();
    }
    atomic_store(&is_there, false);
}

static bool is_waiting(void)
{
    return apic_is_requested(APIC_VECTOR_TLB);
}

/* How long a request takes that has arrived already; the best of many. */
static void answer(void *argument)
{
    uint64_t *best = argument;

    for (unsigned i = 0; i < ANSWERS; i++) {
        cpu_irq_off();
        atomic_store(&is_there, true);
        while (!is_waiting()) {
            cpu_pause();
        }
        atomic_store(&is_there, false);
        uint64_t start = cpu_rdtsc();
        cpu_irq_window();
        uint64_t loaded = cpu_rdtsc();
        cpu_irq_window();
        uint64_t empty = cpu_rdtsc();
        *best = min_u64(*best, (loaded - start) - (empty - loaded));
    }
    atomic_store(&may_go, true);
    cpu_irq_on();
}

static void wait_for(_Atomic bool *flag)
{
    while (!atomic_load(flag)) {
        cpu_pause();
    }
}

static bool measure_answer(uint64_t *out)
{
    *out = UINT64_MAX;
    atomic_store(&is_there, false);
    atomic_store(&may_go, false);
    if (smp_run(scene.other, answer, out) != MM_OK) {
        return false;
    }
    while (!atomic_load(&may_go)) {
        if (atomic_load(&is_there)) {
            do_flush(1);
        }
        cpu_pause();
    }
    smp_wait(scene.other);
    return true;
}

/* --- the list ------------------------------------------------------------- */

/* With the other CPU running the space. */
static const struct bench_subject active[] = {
    {"shoot_kernel_1", NULL, do_flush, 1},
    {"shoot_unmap_1", do_map, do_unmap, 1},
    {"shoot_unmap_256", do_map, do_unmap, 256},
};

static bool measure_active(const char *pattern, unsigned *run)
{
    bool success = true;

    atomic_store(&is_there, false);
    atomic_store(&may_go, false);
    if (smp_run(scene.other, stay, NULL) != MM_OK) {
        return false;
    }
    wait_for(&is_there);
    for (size_t i = 0; i < sizeof(active) / sizeof(active[0]); i++) {
        if (bench_is_wanted(active[i].name, pattern)) {
            success = bench_measure(&active[i]) && success;
            ++*run;
        }
    }
    atomic_store(&may_go, true);
    smp_wait(scene.other);
    /* With more than two the turn may be given away in between. */
    if (smp_count() == 2 && bench_is_wanted("shoot_answer_1", pattern)) {
        uint64_t best;
        success = measure_answer(&best) && success;
        bench_print("shoot_answer_1", best, cpu_clock_unit());
        ++*run;
    }
    return success;
}

/* How many interrupts an unmap costs when all others idle in the space. */
static bool count_interrupts(void)
{
    struct tlb_stats before;
    struct tlb_stats after;
    bool success = do_map(1);

    tlb_stats(&before);
    success = do_unmap(1) && success;
    tlb_stats(&after);
    bench_print("shoot_unmap_idle", after.interrupts - before.interrupts,
                "interrupts");
    return success;
}

static void load_space(void *argument)
{
    (void)argument;
    tlb_switch(&scene.space[0].tlb);
}

static void wait_until_lazy(unsigned cpu)
{
    struct tlb_cpu_state state;

    do {
        cpu_pause();
        tlb_cpu_look(cpu, &state);
    } while (!state.is_lazy);
}

static bool measure_idle(void)
{
    for (unsigned i = 0; i < smp_possible(); i++) {
        if (i != port_cpu() && smp_is_online(i) &&
            smp_run(i, load_space, NULL) == MM_OK) {
            smp_wait(i);
            wait_until_lazy(i);
        }
    }
    return count_interrupts();
}

static bool prepare(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t last = RANGE + MOST_PAGES * PAGE_BYTES;

    scene.other = 0;
    while (scene.other < smp_possible() &&
           (scene.other == port_cpu() || !smp_is_online(scene.other))) {
        scene.other++;
    }
    scene.frames = frame_alloc(8, FRAME_KERNEL, FRAME_ANY);
    scene.kernel = (vaddr_t)kmap_alloc(PAGE_BYTES, KMAP_EAGER, "bench");
    if (pfn_is_none(scene.frames) || scene.kernel == 0 ||
        pt_init(&scene.space[0]) != MM_OK) {
        return false;
    }
    /* One page that stays keeps the tables. */
    if (pt_init(&scene.space[1]) != MM_OK ||
        pt_open(&scene.space[0], last, last + PAGE_BYTES, &batch, &cursor) !=
            MM_OK) {
        return false;
    }
    enum mm_status status =
        pt_map(&cursor, last, scene.frames, PAGE_BYTES, pt_attr(PT_READ));
    pt_close(&cursor);
    tlb_commit(&batch);
    return status == MM_OK;
}

static void finish(void)
{
    tlb_switch(&pt_kernel.tlb);
    if (!pfn_is_none(scene.space[0].root)) {
        pt_fini(&scene.space[0]);
    }
    if (!pfn_is_none(scene.space[1].root)) {
        pt_fini(&scene.space[1]);
    }
    kmap_free((void *)scene.kernel);
    if (!pfn_is_none(scene.frames)) {
        frame_free(scene.frames, 8);
    }
}

bool bench_cpus(const char *pattern, unsigned *out_run)
{
    static const struct bench_subject two_switches = {"space_switch_2", NULL,
                                                      do_switch, 0};
    scene.space[0].root = PFN_NONE;
    scene.space[1].root = PFN_NONE;
    bool success = prepare();

    *out_run = 0;
    if (!success) {
        printk("no memory for the measurements with other CPUs\n");
    } else if (scene.other < smp_possible()) {
        success = measure_active(pattern, out_run);
    }
    if (success && smp_count() > 1 &&
        bench_is_wanted("shoot_unmap_idle", pattern)) {
        success = measure_idle();
        ++*out_run;
    }
    if (success && bench_is_wanted(two_switches.name, pattern)) {
        success = bench_measure(&two_switches);
        ++*out_run;
    }
    finish();
    return success;
}
