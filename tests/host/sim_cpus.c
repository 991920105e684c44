/* SPDX-License-Identifier: MIT */
/* sim_cpus: processors, their interrupts, and who lets them run. */
/*
 * At risk: interrupts that do not nest, an interrupt that is lost or comes
 * while it must not, a CPU that waits for itself.
 */
#include "tests/host/sim_cpus.h"

#include <asm/prctl.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <mm/config.h>
#include <mm/frame.h>
#include <mm/port.h>
#include <mm/shrink.h>
#include <mm/slab.h>
#include <mm/tlb.h>
#include "base/lock.h"

/* Turns in which nothing happens until waiting is called hopeless. */
#define PATIENCE 3000000u

static const struct sim_driver *driver;
static void (*interrupt)(void);
static unsigned cpu_count = 1;

/* What one CPU can be interrupted for by another. */
enum kind { KIND_TLB, KIND_FRAME, KINDS };

static void give_back(void)
{
    frame_interrupt();
    shrink_interrupt();
}

static void (*const handler_of[KINDS])(void) = {
    [KIND_TLB] = tlb_interrupt, [KIND_FRAME] = give_back};

static _Atomic bool is_pending[KINDS][MM_MAX_CPUS];
static _Atomic uint64_t sent[MM_MAX_CPUS];

/* A thread plays one CPU, or all; of each it knows whether they are off. */
static _Thread_local unsigned this_cpu;
static _Thread_local bool irq_is_off[MM_MAX_CPUS];
static _Thread_local unsigned idle_turns;

#if SIM_RESTARTS
/* What a CPU finds from GS on: mm/port.h. */
static struct {
    uint64_t unused;
    uint32_t number;
    uint64_t heap[SLAB_CPU_BYTES / sizeof(uint64_t)];
} at_gs[MM_MAX_CPUS];

static void become(unsigned cpu)
{
    this_cpu = cpu;
    syscall(SYS_arch_prctl, ARCH_SET_GS, &at_gs[cpu]);
}

static void make_cpus(void)
{
    for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
        at_gs[i].number = i;
        slab_cpu_init(i, at_gs[i].heap);
    }
}
#else
static void become(unsigned cpu)
{
    this_cpu = cpu;
}

static void make_cpus(void)
{
}
#endif

void sim_calm_cpus(void)
{
    become(0);
    idle_turns = 0;
    memset(irq_is_off, 0, sizeof(irq_is_off));
    for (unsigned kind = 0; kind < KINDS; kind++) {
        for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
            atomic_store(&is_pending[kind][i], false);
        }
    }
}

/* Until frame_init() there is nothing to give back. */
static void serve_nobody(void)
{
}

void sim_cpus_reset(void)
{
    lock_serve = serve_nobody;
    driver = NULL;
    interrupt = NULL;
    cpu_count = 1;
    make_cpus();
    sim_calm_cpus();
    for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
        atomic_store(&sent[i], 0);
    }
}

void sim_set_driver(const struct sim_driver *new_driver)
{
    driver = new_driver;
}

unsigned sim_cpu(void)
{
    return this_cpu;
}

void sim_set_cpu(unsigned cpu)
{
    become(cpu);
}

void sim_set_cpu_count(unsigned count)
{
    cpu_count = count;
}

unsigned port_cpu_count(void)
{
    return cpu_count;
}

bool sim_irq_is_off(void)
{
    return irq_is_off[this_cpu];
}

bool sim_irq_is_off_on(unsigned cpu)
{
    return irq_is_off[cpu];
}

bool sim_any_irq_is_off(void)
{
    return memchr(irq_is_off, true, sizeof(irq_is_off)) != NULL;
}

void sim_set_interrupt(void (*handler)(void))
{
    interrupt = handler;
}

void sim_step(void)
{
    if (driver != NULL && driver->step != NULL) {
        driver->step();
    }
}

void sim_serialize(void)
{
    if (driver != NULL && driver->serialize != NULL) {
        driver->serialize();
    }
}

void sim_complain(const char *text)
{
    if (driver != NULL && driver->complain != NULL) {
        driver->complain(text);
    }
}

void sim_yield(void)
{
    sched_yield();
}

/* --- interrupts ----------------------------------------------------------- */

static void send(enum kind kind, unsigned cpu)
{
    if (!sim_irq_is_off()) {
        port_bug("interrupt sent with interrupts on");
    }
    if (cpu >= cpu_count || cpu == this_cpu) {
        port_bug("CPU %u sent an interrupt to CPU %u", this_cpu, cpu);
        return;
    }
    atomic_fetch_add(&sent[cpu], 1);
    sim_step();
    atomic_store(&is_pending[kind][cpu], true);
}

void port_send_tlb_interrupt(unsigned cpu)
{
    send(KIND_TLB, cpu);
}

void port_send_frame_interrupt(unsigned cpu)
{
    send(KIND_FRAME, cpu);
}

bool sim_is_interrupted(unsigned cpu)
{
    return atomic_load(&is_pending[KIND_TLB][cpu]) ||
           atomic_load(&is_pending[KIND_FRAME][cpu]);
}

uint64_t sim_interrupts(unsigned cpu)
{
    return atomic_load(&sent[cpu]);
}

/* What comes with interrupts on runs with them off. */
static void handle(void (*handler)(void))
{
    sim_serialize();
    irq_is_off[this_cpu] = true;
    handler();
    irq_is_off[this_cpu] = false;
    idle_turns = 0;
}

void sim_poll(void)
{
    if (irq_is_off[this_cpu]) {
        return;
    }
    if (driver != NULL && driver->look != NULL) {
        driver->look();
    }
    for (unsigned kind = 0; kind < KINDS; kind++) {
        if (atomic_load(&is_pending[kind][this_cpu]) &&
            atomic_exchange(&is_pending[kind][this_cpu], false)) {
            handle(handler_of[kind]);
        }
    }
}

/* Interrupts are on for a moment: what is pending comes. */
static void take_interrupts(void)
{
    if (interrupt != NULL && !irq_is_off[this_cpu]) {
        handle(interrupt);
    }
    sim_poll();
}

/* The state is a word no other value is mistaken for. */
#define SIM_IRQ_ON  UINT64_C(0x1290)
#define SIM_IRQ_OFF UINT64_C(0x0ff0)

uint64_t sim_irq_save(void)
{
    take_interrupts();
    uint64_t state = irq_is_off[this_cpu] ? SIM_IRQ_OFF : SIM_IRQ_ON;

    irq_is_off[this_cpu] = true;
    return state;
}

void sim_irq_restore(uint64_t state)
{
    if (state != SIM_IRQ_ON && state != SIM_IRQ_OFF) {
        port_panic("interrupt state 0x%lx was never saved", state);
    }
    if (!irq_is_off[this_cpu]) {
        port_panic("interrupts restored while they are on");
    }
    irq_is_off[this_cpu] = state == SIM_IRQ_OFF;
    idle_turns = 0;
    take_interrupts();
}

/* The CPUs that this thread plays as well answer, if their interrupts are on.
 */
static void play_others(void)
{
    unsigned me = this_cpu;

    for (unsigned cpu = 0; cpu < cpu_count; cpu++) {
        become(cpu);
        sim_poll();
    }
    become(me);
}

void sim_relax(void)
{
    if (++idle_turns == PATIENCE) {
        port_panic("CPU %u waits for ever", this_cpu);
    }
    if (driver == NULL) {
        play_others();
        sim_yield();
    } else if (driver->relax != NULL) {
        driver->relax();
    }
}
