/* SPDX-License-Identifier: MIT */
/* idle: what a processor does that has nothing to do, before it sleeps. */
/*
 * Locking  None. Who suspends raises `suspended` and then waits until nobody
 *          is at work; who works says so and then looks at `suspended`. Both
 *          are full barriers, so that one of the two sees the other.
 */
#include "kernel/idle.h"

#include <mm/frame.h>
#include <mm/slab.h>
#include "kernel/apic.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"

static _Atomic unsigned suspended; /* (A) calls of idle_suspend() open */
static _Atomic uint32_t shortages; /* (A) calls of idle_ask_for_memory() */

/* Has this processor not given back what was asked for last? */
static bool is_asked(const struct percpu *cpu)
{
    return cpu->shortages !=
           atomic_load_explicit(&shortages, memory_order_relaxed);
}

/*
 * Each processor drains what is its own: magazines cannot be reached from
 * another one.
 */
static bool give_back(struct percpu *cpu)
{
    if (!is_asked(cpu)) {
        return false;
    }
    cpu->shortages = atomic_load_explicit(&shortages, memory_order_relaxed);
    slab_drain();
    return true;
}

bool idle_work(void)
{
    struct percpu *cpu = percpu_this();
    bool has_worked = false;

    /* Pairs with idle_suspend(). */
    atomic_store_explicit(&cpu->is_tidying, true, memory_order_seq_cst);
    if (atomic_load_explicit(&suspended, memory_order_seq_cst) == 0) {
        cpu_irq_on();
        has_worked = give_back(cpu) || frame_zero_idle();
        cpu_irq_off();
        /* The interrupt that says so may have come just now. */
        has_worked = has_worked || is_asked(cpu);
    }
    /* Release: pairs with idle_suspend(); what was done is seen there. */
    atomic_store_explicit(&cpu->is_tidying, false, memory_order_release);
    return has_worked;
}

/* Interrupts are off. */
static void wake_others(void)
{
    for (unsigned i = 0; i < smp_possible() && apic_is_on(); i++) {
        if (i != percpu_this()->index && smp_is_online(i)) {
            apic_send(percpu_of(i)->apic_id, APIC_VECTOR_WAKE);
        }
    }
}

/* Who sleeps is woken; who works comes to it when it has nothing to do. */
void idle_ask_for_memory(void)
{
    uint64_t irq = cpu_irq_save();

    atomic_fetch_add_explicit(&shortages, 1, memory_order_relaxed);
    wake_others();
    cpu_irq_restore(irq);
}

static bool is_at_work(unsigned index)
{
    const struct percpu *cpu = percpu_of(index);

    return cpu != NULL && cpu != percpu_this() &&
           atomic_load_explicit(&cpu->is_tidying, memory_order_seq_cst);
}

void idle_suspend(void)
{
    uint64_t irq = cpu_irq_save();

    atomic_fetch_add_explicit(&suspended, 1, memory_order_seq_cst);
    for (unsigned i = 0; i < smp_possible(); i++) {
        while (is_at_work(i)) {
            cpu_irq_window();
        }
    }
    cpu_irq_restore(irq);
}

void idle_resume(void)
{
    uint64_t irq = cpu_irq_save();

    atomic_fetch_sub_explicit(&suspended, 1, memory_order_release);
    wake_others(); /* what was asked for meanwhile */
    cpu_irq_restore(irq);
}
