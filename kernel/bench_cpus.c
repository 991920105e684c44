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
    vaddr_t kernel; /* one page of kernel addresses */
    unsigned other; /* the active CPU, or smp_possible() */
} scene;

static _Atomic bool is_there;
static _Atomic bool may_go;

/* --- operations ----------------------------------------------------------- */

/* A new frame of its own for the page at @address. */
static bool map_page(struct pt_cursor *cursor, vaddr_t address)
{
    pfn_t frame = frame_alloc(0, FRAME_USER, FRAME_ANY);

    if (pfn_is_none(frame)) {
        return false;
    }
    if (pt_map(cursor, address, frame, PAGE_BYTES,
               pt_attr(PT_WRITE | PT_OWNED)) != MM_OK) {
        frame_free(frame, 0);
        return false;
    }
    return true;
}

static bool map_pages(vaddr_t start, unsigned pages)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t end = start + pages * PAGE_BYTES;
    bool success = true;

    if (pt_open(&scene.space[0], start, end, &batch, &cursor) != MM_OK) {
        return false;
    }
    for (vaddr_t page = start; success && page < end; page += PAGE_BYTES) {
        success = map_page(&cursor, page);
    }
    pt_close(&cursor);
    tlb_commit(&batch);
    return success;
}

static bool do_map(unsigned pages)
{
    return map_pages(RANGE, pages);
}

/* Frames and all; prepare() has left a page that keeps the tables. */

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

/* Of the page that is always there: its rights go and come in turn. */
static bool do_protect(unsigned pages)
{
    static unsigned flags = PT_READ;
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t start = RANGE + MOST_PAGES * PAGE_BYTES;
    vaddr_t end = start + pages * PAGE_BYTES;

    if (pt_open(&scene.space[0], start, end, &batch, &cursor) != MM_OK) {
        return false;
    }
    enum mm_status status =
        pt_protect(&cursor, start, end - start, pt_attr(flags));
    pt_close(&cursor);
    tlb_commit(&batch);
    flags ^= PT_WRITE;
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

    tlb_switch(&scene.space[0].tlb);
    for (unsigned i = 0; i < ANSWERS; i++) {
        cpu_irq_off();
        atomic_store(&is_there, true);
        while (!is_waiting()) {
            cpu_pause();
        }
        atomic_store(&is_there, false);
        uint64_t start = cpu_rdtsc();
        cpu_irq_gap();
        uint64_t loaded = cpu_rdtsc();
        cpu_irq_gap();
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

/* What the other CPU executes to answer @subject. */
static bool measure_answer(const struct bench_subject *subject)
{
    uint64_t best = UINT64_MAX;
    bool success = true;

    atomic_store(&is_there, false);
    atomic_store(&may_go, false);
    if (smp_run(scene.other, answer, &best) != MM_OK) {
        return false;
    }
    while (!atomic_load(&may_go)) {
        if (atomic_load(&is_there)) {
            success = (subject->before == NULL ||
                       subject->before(subject->argument)) &&
                      subject->operation(subject->argument) && success;
        }
        cpu_pause();
    }
    smp_wait(scene.other);
    bench_print(subject->name, best, cpu_clock_unit());
    return success;
}

/* --- the list ------------------------------------------------------------- */

/* With the other CPU running the space. */
static const struct bench_subject active[] = {
    {"shoot_kernel_1", NULL, do_flush, 1},
    {"shoot_protect_1", NULL, do_protect, 1},
    {"shoot_unmap_1", do_map, do_unmap, 1},
    {"shoot_unmap_256", do_map, do_unmap, 256},
};

/* Of these totals, what the other CPU does. */
static const struct bench_subject answered[] = {
    {"shoot_kernel_1_answer", NULL, do_flush, 1},
    {"shoot_protect_1_answer", NULL, do_protect, 1},
    {"shoot_unmap_1_answer", do_map, do_unmap, 1},
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
    for (size_t i = 0; i < sizeof(answered) / sizeof(answered[0]); i++) {
        if (smp_count() == 2 && bench_is_wanted(answered[i].name, pattern)) {
            success = measure_answer(&answered[i]) && success;
            ++*run;
        }
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
        if (i != port_cpu() && smp_call(i, load_space, NULL) == MM_OK) {
            wait_until_lazy(i);
        }
    }
    return count_interrupts();
}

static bool prepare(void)
{
    vaddr_t last = RANGE + MOST_PAGES * PAGE_BYTES;

    scene.other = smp_first_other();
    scene.kernel = (vaddr_t)kmap_alloc(PAGE_BYTES, KMAP_EAGER, "bench");
    return scene.kernel != 0 && pt_init(&scene.space[0]) == MM_OK &&
           pt_init(&scene.space[1]) == MM_OK && map_pages(last, 1);
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
}

bool bench_cpus(const char *pattern, unsigned *run)
{
    static const struct bench_subject two_switches = {"space_switch_2", NULL,
                                                      do_switch, 0};
    scene.space[0].root = PFN_NONE;
    scene.space[1].root = PFN_NONE;
    bool success = prepare();

    if (!success) {
        printk("no memory for the measurements with other CPUs\n");
    } else if (scene.other < smp_possible()) {
        success = measure_active(pattern, run);
    }
    if (success && smp_count() > 1 &&
        bench_is_wanted("shoot_unmap_idle", pattern)) {
        success = measure_idle();
        ++*run;
    }
    if (success && bench_is_wanted(two_switches.name, pattern)) {
        success = bench_measure(&two_switches);
        ++*run;
    }
    finish();
    return success;
}
