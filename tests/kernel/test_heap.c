/* SPDX-License-Identifier: MIT */
/* Tests of the heap with all CPUs at work, in interrupts, and to the end. */
/*
 * At risk: an object that two CPUs get, or a CPU and its own interrupt; one
 * that is lost when memory runs out in the middle of an exchange; a heap that
 * does not recover. Provoked by random operations beside a naive model on every
 * CPU (tests/shared/heap_ops.h), interrupted all the while by handlers that
 * allocate and free, with a check of everything in between; and by taking all
 * there is. "ops=N" on the command line says how many operations; `make soak`
 * runs 10,000,000.
 */
#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/mm.h>
#include <mm/port.h>
#include <mm/shrink.h>
#include "kernel/apic.h"
#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/irq.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"
#include "tests/kernel/crew.h"
#include "tests/kernel/hoard.h"
#include "tests/shared/figures.h"
#include "tests/shared/heap_ops.h"

#define OPS_DEFAULT 8000
#define CHECK_EVERY 100000 /* operations of all CPUs together */

/* With so much RAM for each CPU no operation finds nothing. */
#define ENOUGH_BYTES (16 * MiB)

/* An interrupt is sent to the next CPU with each of so many operations. */
#define OPS_AN_INTERRUPT 8

/* --- interrupts that allocate --------------------------------------------- */

#define BOXES     16
#define BOX_BYTES 500

struct parcel {
    uint64_t bytes;
    uint64_t sign;
};

/* Blocks that interrupts exchange with each other and with the main flow. */
static _Atomic(struct parcel *) box[BOXES];
static _Atomic uint64_t interrupts; /* that have allocated */
static _Atomic uint64_t errors;

static uint64_t *last_word(struct parcel *parcel)
{
    return (uint64_t *)parcel + parcel->bytes / sizeof(uint64_t) - 1;
}

static void open_parcel(struct parcel *parcel)
{
    if (parcel != NULL) {
        if (*last_word(parcel) != parcel->sign) {
            atomic_fetch_add(&errors, 1);
        }
        kfree(parcel);
    }
}

/* Put a block of any size into a box, and free what was in it. */
static void exchange(uint64_t number)
{
    uint64_t bytes = 32 + number * 61 % BOX_BYTES;
    struct parcel *parcel = kmalloc(bytes);

    if (parcel != NULL) {
        parcel->bytes = bytes;
        parcel->sign = number ^ (uintptr_t)parcel;
        *last_word(parcel) = parcel->sign;
    }
    open_parcel(atomic_exchange(&box[number % BOXES], parcel));
}

static void interrupted(void)
{
    exchange(atomic_fetch_add(&interrupts, 1));
}

static void begin_interrupts(void)
{
    errors = 0;
    interrupts = 0;
    atomic_store(&irq_also, interrupted);
}

static void do_nothing(void *argument)
{
    (void)argument;
}

/* Who has come to something else has left its handler; the next does nothing.
 */
static void end_interrupts(void)
{
    atomic_store(&irq_also, NULL);
    crew_run(do_nothing, NULL);
    for (unsigned i = 0; i < BOXES; i++) {
        open_parcel(atomic_exchange(&box[i], NULL));
    }
}

/* Interrupt the next CPU, or this one if it is alone. */
static void interrupt_next(void)
{
    unsigned next = port_cpu();

    do {
        next = (next + 1) % smp_possible();
    } while (!smp_is_online(next));
    if (apic_is_on()) {
        uint64_t irq = cpu_irq_save();
        apic_send(percpu_of(next)->apic_id, APIC_VECTOR_WAKE);
        cpu_irq_restore(irq);
    }
}

/* --- random operations on all CPUs ---------------------------------------- */

static struct {
    struct heap_ops *ops[MM_MAX_CPUS];
    struct test_random random[MM_MAX_CPUS];
    uint64_t share; /* operations of each CPU until all is checked */
} work;

static void operate(void *argument)
{
    unsigned cpu = port_cpu();
    struct heap_ops *ops = work.ops[cpu];

    (void)argument;
    for (uint64_t i = 0; i < work.share && !ops->has_failed; i++) {
        uint64_t word = test_random_next(&work.random[cpu]);
        (void)heap_ops_step(ops, (const uint8_t *)&word);
        if (i % OPS_AN_INTERRUPT == 0) {
            interrupt_next();
            exchange(word >> 8);
        }
    }
}

static void begin_one(void *argument)
{
    unsigned cpu = port_cpu();

    (void)argument;
    heap_ops_init(work.ops[cpu], 1, NULL);
    work.ops[cpu]->is_alone = false;
    work.ops[cpu]->may_fail =
        figures().managed * PAGE_BYTES < ENOUGH_BYTES * smp_possible();
    test_random_init(&work.random[cpu], test_seed() * MM_MAX_CPUS + cpu);
}

static void end_one(void *argument)
{
    (void)argument;
    (void)heap_ops_fini(work.ops[port_cpu()]);
}

/* Nobody works: every byte, slab and frame is as it must be. */
static void check_all(void)
{
    for (unsigned i = 0; i < smp_possible(); i++) {
        if (work.ops[i] != NULL &&
            (work.ops[i]->has_failed || !heap_ops_compare(work.ops[i]))) {
            test_fail(__FILE__, __LINE__, "CPU %u: %s", i, work.ops[i]->reason);
            return;
        }
    }
    CHECK_EQUAL(atomic_load(&errors), 0);
    CHECK(slab_check() && kmalloc_check() && frame_check());
}

static bool hire(void)
{
    bool has_all = true;

    for (unsigned i = 0; i < smp_possible(); i++) {
        work.ops[i] =
            smp_is_online(i) ? kmalloc(sizeof(struct heap_ops)) : NULL;
        has_all = has_all && (work.ops[i] != NULL || !smp_is_online(i));
    }
    return has_all;
}

static void dismiss(void)
{
    for (unsigned i = 0; i < smp_possible(); i++) {
        kfree(work.ops[i]);
    }
}

static void operate_and_check(uint64_t wanted)
{
    unsigned cpus = crew_others() + 1;
    uint64_t done = 0;

    while (done < wanted) {
        work.share =
            (wanted - done < CHECK_EVERY ? wanted - done : CHECK_EVERY) / cpus +
            1;
        begin_interrupts();
        crew_run(operate, NULL);
        uint64_t came = atomic_load(&interrupts);
        end_interrupts();
        done += work.share * cpus;
        CHECK(came > 0);
        CHECK_HELPER(check_all());
    }
    printk("# %lu operations of %u CPUs, checked each %u\n", done, cpus,
           CHECK_EVERY);
}

TEST(heap, all_cpus_and_their_interrupts_allocate)
{
    uint64_t wanted = cmdline_number("ops", OPS_DEFAULT);

    if (!hire()) {
        dismiss();
        return; /* a machine with less RAM than records of it */
    }
    crew_run(begin_one, NULL);
    operate_and_check(wanted);
    if (!test_has_failed()) {
        crew_run(end_one, NULL);
        check_all();
    }
    dismiss();
}

/* --- until there is nothing left ------------------------------------------ */

#define ROUNDS 3

/* More takes too long by the way. */
#define EXHAUSTED_BYTES (64 * MiB)

/* Blocks are chained by their first word; in the second is what they are. */
struct link {
    struct link *next;
    uint64_t bytes;
};

static struct link *chain[MM_MAX_CPUS];

static const uint64_t chain_bytes[] = {64 * KiB, 8 * KiB, 1000, 16};

/* All there is, large blocks first: the last ones fill the gaps. */
static void take_heap(void *argument)
{
    unsigned cpu = port_cpu();
    struct link *block;

    (void)argument;
    for (unsigned i = 0; i < sizeof(chain_bytes) / sizeof(chain_bytes[0]);
         i++) {
        while ((block = kmalloc(chain_bytes[i])) != NULL) {
            block->next = chain[cpu];
            block->bytes = chain_bytes[i];
            chain[cpu] = block;
        }
    }
}

/* What the next CPU has taken. */
static void free_heap(void *argument)
{
    struct link **first = &chain[(port_cpu() + 1) % smp_possible()];

    (void)argument;
    while (*first != NULL) {
        struct link *block = *first;
        *first = block->next;
        if (ksize(block) < block->bytes) {
            atomic_fetch_add(&errors, 1);
        }
        kfree(block);
    }
}

TEST(heap, exhausted_by_all_cpus_it_recovers)
{
    struct frame_stats before;

    if (smp_count() < smp_possible() || !hoard_is_wanted() ||
        figures().managed * PAGE_BYTES > EXHAUSTED_BYTES) {
        return;
    }
    slab_drain();
    note_frames(&before);
    errors = 0;
    for (unsigned round = 0; round < ROUNDS && !test_has_failed(); round++) {
        crew_run(take_heap, NULL);
        void *more = kmalloc(PAGE_BYTES);
        kfree(more);
        bool is_sound = slab_check() && kmalloc_check() && frame_check();
        crew_run(free_heap, NULL);
        CHECK(is_sound);
        CHECK_EQUAL(atomic_load(&errors), 0);
        (void)shrink_reclaim(UINT64_MAX);
        CHECK_HELPER(compare_frames(&before));
    }
}
