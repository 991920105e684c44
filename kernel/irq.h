/* SPDX-License-Identifier: MIT */
/* irq: the two 8259 controllers and the timer, to wake a waiting CPU. */
#ifndef KERNEL_IRQ_H
#define KERNEL_IRQ_H

#include <stdatomic.h>

#include <mm/types.h>

/* The 16 lines arrive at these vectors. */
#define IRQ_VECTOR 32
#define IRQ_LINES  16

/* Ticks of the timer a second. */
#define IRQ_TIMER_HZ 100

/*
 * Move the lines away from the exceptions, mask all but timer, keyboard and
 * COM1, start the timer. Interrupts stay off: the kernel turns them on only
 * inside cpu_wait_for_interrupt().
 */
void irq_init(void);

/*
 * Let at least so much time pass, by the timer's counter: needs no interrupt.
 * A counter that stands still ends it late, but ends it.
 */
void irq_delay(unsigned microseconds);

/* Acknowledge; the devices themselves are polled by whoever waits. */
void irq_handle(unsigned vector);

/*
 * Called in each interrupt of the timer or by another CPU's APIC_VECTOR_WAKE,
 * unless this CPU has the console; NULL: nothing is. For tests.
 */
extern void (*_Atomic irq_also)(void); /* (A) */

/* Answer what could not be answered while this CPU had the console. */
void irq_catch_up(void);

/* Timer ticks since irq_init() that somebody has waited through. */
uint64_t irq_ticks(void);

#endif
