/* SPDX-License-Identifier: MIT */
/* smp: the other processors: found, started, given work. */
#ifndef KERNEL_SMP_H
#define KERNEL_SMP_H

#include <mm/types.h>

/* --- start-up ------------------------------------------------------------- */

/*
 * Count the processors: those ACPI names as enabled, at most cpus=N. What is
 * wrong with its tables is said in a sentence; then there is one.
 * Context: once, before anything asks port_cpu_count(), on the boot tables.
 */
void smp_find(void);

/*
 * Start them. One that does not answer, or is not like the first, is left
 * out, and so are those for which there is no memory: in a sentence each.
 * Context: once, after memory_init(), interrupts off.
 */
void smp_start(void);

/* Processors there may ever be: port_cpu_count(). Numbers lie below it. */
unsigned smp_possible(void);
/* Those at work now, and whether @cpu is one of them. */
unsigned smp_count(void);
bool smp_is_online(unsigned cpu);

/* --- work ----------------------------------------------------------------- */

/*
 * Let @cpu call @function, with interrupts on.
 * Return: MM_OK: it will; MM_EBUSY: it is at work; MM_EINVAL: it is not
 *         online, is the first one or the caller.
 * Context: any but NMI and machine check.
 */
MM_MUST_CHECK enum mm_status smp_run(unsigned cpu,
                                     void (*function)(void *argument),
                                     void *argument);

/* Has @cpu nothing to do? What its function has stored can be seen then. */
bool smp_is_done(unsigned cpu);

/*
 * Wait for that; interrupts come in meanwhile, also if they are off.
 * Context: where smp_may_wait(), outside of interrupt handlers.
 */
void smp_wait(unsigned cpu);

/*
 * Have @cpu, which may be the caller, call @function, and wait for its end.
 * Return: as smp_run(); nothing was called if it is not MM_OK.
 * Context: as smp_wait().
 */
MM_MUST_CHECK enum mm_status smp_call(unsigned cpu,
                                      void (*function)(void *argument),
                                      void *argument);

/* The first online processor that is not this one; smp_possible() if none. */
unsigned smp_first_other(void);

/*
 * May this processor wait for another one? Not in the handler of an NMI or a
 * machine check: what it has interrupted may be what the other waits for.
 */
bool smp_may_wait(void);

/* --- non-maskable interrupts ---------------------------------------------- */

/*
 * Send @cpu, which may be the caller, an NMI that it counts and forgets.
 * Return: MM_OK; MM_EBUSY: the last one has not arrived; MM_EINVAL: it is not
 *         online, or no local APIC is in use.
 */
MM_MUST_CHECK enum mm_status smp_send_nmi(unsigned cpu);
/* Of these, how many have arrived. */
uint64_t smp_nmi_count(unsigned cpu);

/* --- a world that stands still -------------------------------------------- */

/*
 * Have all others stand still with interrupts off, in code that had them on:
 * none of them holds a spinlock, or is in the middle of what needs them off.
 * Where each stands: percpu->still_at.
 * @out_irq: for smp_thaw().
 * Return: MM_OK, and interrupts are off; MM_EBUSY: one of them does not come,
 *         and nothing has changed.
 * Context: as smp_wait(), no lock held.
 */
MM_MUST_CHECK enum mm_status smp_freeze(uint64_t *out_irq);
void smp_thaw(uint64_t irq);

/* --- the end -------------------------------------------------------------- */

/* Stop the others for good, whatever they do: this one has last words. */
void smp_stop_others(void);
/* Be stopped. */
MM_NORETURN void smp_stop(void);

/* --- for the entries of the processors and of interrupts ------------------ */

struct percpu;

/* A processor comes out of ap_entry.asm, on its own stack. */
MM_NORETURN void smp_enter(struct percpu *cpu);
/* It has joined, and waits for work. */
MM_NORETURN void smp_idle(struct percpu *cpu);
/* True for an NMI that was expected. */
bool smp_take_nmi(void);
/* The interrupt that wakes has come: something may be wanted. */
void smp_take_wake(void);
/* From trap_entry.asm. */
void smp_take_tlb_interrupt(void);

#endif
