/* SPDX-License-Identifier: MIT */
/* smp: the other processors: found, started, given work. */
/*
 * Idea     The first processor runs the kernel. The others sleep, until one
 *          of them is handed a function; so memory is used by as many as
 *          tests and the monitor ask for, without a scheduler.
 *
 *          A processor has one place for work. Who wants it takes the place,
 *          puts the function in, and wakes the processor:
 *
 *            free --smp_run()--> busy --due--> it runs --done--> free
 *
 * Locking  None: the place is taken by exchange.
 */
#include "kernel/smp.h"

#include <mm/pt.h>
#include "base/check.h"
#include "kernel/apic.h"
#include "kernel/idle.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"

/* Turns to wait for the others before the last words are said anyway. */
#define STOP_PATIENCE 1000000

static unsigned state_of(const struct percpu *cpu)
{
    /* Acquire: pairs with the release in smp_enter(). */
    return atomic_load_explicit(&cpu->state, memory_order_acquire);
}

bool smp_is_online(unsigned index)
{
    const struct percpu *cpu = percpu_of(index);

    return cpu != NULL && state_of(cpu) == PERCPU_ONLINE;
}

unsigned smp_count(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < smp_possible(); i++) {
        count += smp_is_online(i) ? 1 : 0;
    }
    return count;
}

bool smp_may_wait(void)
{
    return percpu_this()->nmi_depth == 0;
}

/* --- work ----------------------------------------------------------------- */

enum mm_status smp_run(unsigned index, void (*function)(void *argument),
                       void *argument)
{
    ASSERT(smp_may_wait());
    if (index == 0 || index == percpu_this()->index || !smp_is_online(index)) {
        return MM_EINVAL;
    }
    struct percpu *cpu = percpu_of(index);
    struct percpu_work *work = &cpu->work;
    /* Acquire: pairs with the release when the last work was done. */
    if (atomic_exchange_explicit(&work->is_busy, true, memory_order_acquire)) {
        return MM_EBUSY;
    }
    work->function = function;
    work->argument = argument;
    uint64_t irq = cpu_irq_save();
    /* Release: pairs with the acquire in run_work(). */
    atomic_store_explicit(&work->is_due, true, memory_order_release);
    apic_send(cpu->apic_id, APIC_VECTOR_WAKE);
    cpu_irq_restore(irq);
    return MM_OK;
}

bool smp_is_done(unsigned index)
{
    const struct percpu *cpu = percpu_of(index);

    /* Acquire: pairs with the release in run_work(). */
    return cpu == NULL ||
           !atomic_load_explicit(&cpu->work.is_busy, memory_order_acquire);
}

void smp_wait(unsigned index)
{
    uint64_t irq = cpu_irq_save();

    ASSERT(smp_may_wait() && percpu_this()->irq_depth == 0);
    ASSERT(index != percpu_this()->index || smp_is_done(index));
    while (!smp_is_done(index)) {
        cpu_irq_window();
    }
    cpu_irq_restore(irq);
}

enum mm_status smp_call(unsigned index, void (*function)(void *argument),
                        void *argument)
{
    if (index == percpu_this()->index) {
        function(argument);
        return MM_OK;
    }
    enum mm_status status = smp_run(index, function, argument);
    if (status == MM_OK) {
        smp_wait(index);
    }
    return status;
}

unsigned smp_first_other(void)
{
    unsigned index = 0;

    while (index < smp_possible() &&
           (index == percpu_this()->index || !smp_is_online(index))) {
        index++;
    }
    return index;
}

static bool has_work(const struct percpu *cpu)
{
    /* Acquire: pairs with the release in smp_run(). */
    return atomic_load_explicit(&cpu->work.is_due, memory_order_acquire);
}

static void run_work(struct percpu_work *work)
{
    atomic_store_explicit(&work->is_due, false, memory_order_relaxed);
    cpu_irq_on();
    work->function(work->argument);
    cpu_irq_off();
    /* Release: what the function did is seen by who finds the place free. */
    atomic_store_explicit(&work->is_busy, false, memory_order_release);
}

/*
 * With interrupts off from the look at the work to the HLT, a wake-up in
 * between is not lost: cpu_wait_for_interrupt() takes it, and an NMI there
 * keeps it from sleeping (trap.c).
 */
MM_NORETURN void smp_idle(struct percpu *cpu)
{
    for (;;) {
        tlb_begin_lazy();
        while (!has_work(cpu)) {
            if (!idle_work() && !has_work(cpu)) {
                cpu_wait_for_interrupt();
            }
        }
        /* Whatever was left loaded is not what this work is for. */
        tlb_switch(&pt_kernel.tlb);
        run_work(&cpu->work);
    }
}

/* --- interrupts ----------------------------------------------------------- */

void smp_take_tlb_interrupt(void)
{
    struct percpu *cpu = percpu_this();

    ASSERT(cpu->irq_depth == 0);
    cpu->traps++;
    cpu->irq_depth++;
    tlb_interrupt();
    apic_end_interrupt();
    cpu->irq_depth--;
}

/*
 * One at a time, because the processor keeps no more than one that waits: a
 * second would be lost, and the next real one taken for it.
 */
enum mm_status smp_send_nmi(unsigned index)
{
    if (!apic_is_on() || !smp_is_online(index)) {
        return MM_EINVAL;
    }
    struct percpu *cpu = percpu_of(index);
    if (atomic_exchange_explicit(&cpu->is_nmi_expected, true,
                                 memory_order_relaxed)) {
        return MM_EBUSY;
    }
    uint64_t irq = cpu_irq_save();
    apic_send_nmi(cpu->apic_id);
    cpu_irq_restore(irq);
    return MM_OK;
}

uint64_t smp_nmi_count(unsigned index)
{
    const struct percpu *cpu = percpu_of(index);

    return cpu == NULL
               ? 0
               : atomic_load_explicit(&cpu->nmi_count, memory_order_relaxed);
}

bool smp_take_nmi(void)
{
    struct percpu *cpu = percpu_this();

    if (panic_is_active() && !panic_is_mine()) {
        smp_stop();
    }
    if (!atomic_load_explicit(&cpu->is_nmi_expected, memory_order_relaxed)) {
        return false;
    }
    /* Counted last: who sees the count may send the next. */
    atomic_store_explicit(&cpu->is_nmi_expected, false, memory_order_relaxed);
    atomic_fetch_add_explicit(&cpu->nmi_count, 1, memory_order_release);
    return true;
}

/* --- the end -------------------------------------------------------------- */

/* Has @cpu to be stopped, and is not yet? */
static bool is_running(const struct percpu *cpu)
{
    return cpu != NULL && cpu != percpu_this() &&
           (state_of(cpu) == PERCPU_ONLINE ||
            state_of(cpu) == PERCPU_JOINING) &&
           !atomic_load_explicit(&cpu->is_stopped, memory_order_relaxed);
}

static unsigned count_running(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < smp_possible(); i++) {
        count += is_running(percpu_of(i)) ? 1 : 0;
    }
    return count;
}

void smp_stop_others(void)
{
    if (!apic_is_on()) {
        return;
    }
    for (unsigned i = 0; i < smp_possible(); i++) {
        if (is_running(percpu_of(i))) {
            apic_send_nmi(percpu_of(i)->apic_id);
        }
    }
    for (unsigned i = 0; i < STOP_PATIENCE && count_running() > 0; i++) {
        cpu_pause();
    }
}

MM_NORETURN void smp_stop(void)
{
    atomic_store_explicit(&percpu_this()->is_stopped, true,
                          memory_order_relaxed);
    for (;;) {
        cpu_irq_off();
        cpu_halt();
    }
}
