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

#include <mm/frame.h>
#include <mm/pt.h>
#include "base/check.h"
#include "kernel/apic.h"
#include "kernel/idle.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"

/* Turns to wait for the others before the last words are said anyway. */
#define STOP_PATIENCE 1000000

/* The same for others to stand still: one may be working, interrupts off. */
#define FREEZE_PATIENCE 10000000

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

static _Atomic bool is_frozen; /* (A) all others are to stand still */

/*
 * Who sleeps stands still as well, if it looks when it wakes whether it may go
 * on: so nobody has to be woken to stand still.
 */
static void sleep(struct percpu *cpu)
{
    cpu->still_at = cpu_read_rbp();
    /* Pairs with smp_freeze(): it sees this, or is seen below. */
    atomic_store_explicit(&cpu->is_asleep, true, memory_order_seq_cst);
    cpu_wait_for_interrupt();
    atomic_store_explicit(&cpu->is_asleep, false, memory_order_seq_cst);
    while (atomic_load_explicit(&is_frozen, memory_order_seq_cst)) {
        cpu_irq_window(); /* to stand still for the next who wants it */
    }
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
                sleep(cpu);
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

/* --- a world that stands still -------------------------------------------- */

static _Atomic bool is_freezing; /* (A) taken by who wants the others still */

static bool is_still(const struct percpu *cpu)
{
    /* Acquire: pairs with the releases in smp_take_wake(). */
    return atomic_load_explicit(&cpu->is_still, memory_order_acquire);
}

static bool is_asleep(const struct percpu *cpu)
{
    /* Pairs with sleep(). */
    return atomic_load_explicit(&cpu->is_asleep, memory_order_seq_cst);
}

/*
 * Everything of the interrupted code lies above this frame. Who stands still
 * answers others: one that does not yet may wait for that, interrupts off.
 */
void smp_take_wake(void)
{
    struct percpu *cpu = percpu_this();

    if (!atomic_load_explicit(&is_frozen, memory_order_acquire)) {
        return;
    }
    cpu->still_at = cpu_read_rbp();
    atomic_store_explicit(&cpu->is_still, true, memory_order_release);
    /* Acquire: pairs with the release in smp_thaw(). */
    while (atomic_load_explicit(&is_frozen, memory_order_acquire)) {
        tlb_interrupt();
        frame_interrupt();
        cpu_pause();
    }
    atomic_store_explicit(&cpu->is_still, false, memory_order_release);
}

static bool is_other(unsigned index)
{
    return index != percpu_this()->index && smp_is_online(index);
}

/* Those of the others that go on. */
static unsigned count_moving(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < smp_possible(); i++) {
        const struct percpu *cpu = percpu_of(i);
        count += is_other(i) && !is_still(cpu) && !is_asleep(cpu) ? 1 : 0;
    }
    return count;
}

enum mm_status smp_freeze(uint64_t *out_irq)
{
    uint64_t irq = cpu_irq_save();

    ASSERT(smp_may_wait() && percpu_this()->irq_depth == 0);
    /* Acquire: pairs with the release in smp_thaw(). */
    while (atomic_exchange_explicit(&is_freezing, true, memory_order_acquire)) {
        cpu_irq_window(); /* to stand still for the other one */
    }
    /* Pairs with smp_take_wake() and sleep(). */
    atomic_store_explicit(&is_frozen, true, memory_order_seq_cst);
    for (unsigned i = 0; i < smp_possible(); i++) {
        if (is_other(i) && !is_asleep(percpu_of(i))) {
            apic_send(percpu_of(i)->apic_id, APIC_VECTOR_WAKE);
        }
    }
    for (unsigned i = 0; i < FREEZE_PATIENCE && count_moving() > 0; i++) {
        cpu_irq_window();
    }
    if (count_moving() > 0) {
        smp_thaw(irq);
        return MM_EBUSY;
    }
    *out_irq = irq;
    return MM_OK;
}

void smp_thaw(uint64_t irq)
{
    /* Release: what was changed meanwhile is seen there. */
    atomic_store_explicit(&is_frozen, false, memory_order_release);
    for (unsigned i = 0; i < smp_possible(); i++) {
        /* Until then it would be taken for one that stands still again. */
        while (is_other(i) && is_still(percpu_of(i))) {
            cpu_pause();
        }
    }
    atomic_store_explicit(&is_freezing, false, memory_order_release);
    cpu_irq_restore(irq);
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
