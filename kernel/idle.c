/* SPDX-License-Identifier: MIT */
/* idle: what a processor does that has nothing to do, before it sleeps. */
/*
 * Idea     Memory may be short for long, and then each allocation that fails
 *          asks. So only those are woken that sleep and may have something to
 *          give: who gave it back and went to sleep at once has nothing, and
 *          who is awake looks by itself before it sleeps. What the heap keeps
 *          for a CPU changes only while that CPU works: interrupt handlers of
 *          this kernel allocate nothing.
 *
 * Locking  None. Who suspends raises `suspended` and then waits until nobody
 *          is at work; who works says so and then looks at `suspended`. Both
 *          are full barriers, so that one of the two sees the other. So it is
 *          with who asks, and then looks who may be woken, and who says that
 *          it may be woken, and then looks whether it is asked.
 */
#include "kernel/idle.h"

#include <mm/frame.h>
#include <mm/slab.h>
#include "kernel/apic.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"

static _Atomic unsigned suspended; /* (A) calls of idle_suspend() open */
static _Atomic uint32_t shortages; /* (A) calls of idle_ask_for_memory() */

/* (A) It sleeps, or is about to, and may have something to give. */
static _Atomic bool may_be_woken[MM_MAX_CPUS];

/* Has this processor not given back what was asked for last? */
static bool is_asked(const struct percpu *cpu)
{
    return cpu->shortages !=
           atomic_load_explicit(&shortages, memory_order_seq_cst);
}

static bool is_suspended(void)
{
    return atomic_load_explicit(&suspended, memory_order_seq_cst) != 0;
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
    _Atomic bool *may_wake = &may_be_woken[cpu->index];
    bool has_given = false;
    bool has_cleared = false;

    /* It has woken, and may have worked meanwhile. */
    atomic_store_explicit(may_wake, false, memory_order_relaxed);
    /* Pairs with idle_suspend(). */
    atomic_store_explicit(&cpu->is_tidying, true, memory_order_seq_cst);
    if (!is_suspended()) {
        cpu_irq_on();
        has_given = give_back(cpu);
        has_cleared = frame_zero_idle();
        cpu_irq_off();
    }
    /* Release: pairs with idle_suspend(); what was done is seen there. */
    atomic_store_explicit(&cpu->is_tidying, false, memory_order_release);
    /* Pairs with wake_others(): the interrupt may have come just now. */
    atomic_store_explicit(may_wake, !has_given && !has_cleared,
                          memory_order_seq_cst);
    return has_cleared || (is_asked(cpu) && !is_suspended());
}

/* Who may have something to give. Return: how many. Interrupts are off. */
static unsigned wake_others(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < smp_possible() && apic_is_on(); i++) {
        /* Pairs with idle_work(). */
        if (i != percpu_this()->index &&
            atomic_exchange_explicit(&may_be_woken[i], false,
                                     memory_order_seq_cst)) {
            apic_send(percpu_of(i)->apic_id, APIC_VECTOR_WAKE);
            count++;
        }
    }
    return count;
}

/* Who sleeps is woken; who works comes to it when it has nothing to do. */
unsigned idle_ask_for_memory(void)
{
    uint64_t irq = cpu_irq_save();

    atomic_fetch_add_explicit(&shortages, 1, memory_order_seq_cst);
    unsigned woken = wake_others();
    cpu_irq_restore(irq);
    return woken;
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

    atomic_fetch_sub_explicit(&suspended, 1, memory_order_seq_cst);
    (void)wake_others(); /* what was asked for meanwhile */
    cpu_irq_restore(irq);
}
