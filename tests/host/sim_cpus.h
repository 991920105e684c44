/* SPDX-License-Identifier: MIT */
/* sim_cpus: processors, their interrupts, and who lets them run. */
#ifndef TESTS_HOST_SIM_CPUS_H
#define TESTS_HOST_SIM_CPUS_H

#include <mm/types.h>

/*
 * Who lets the other CPUs run. Without a driver one thread plays them all: a
 * CPU that waits (port_relax()) lets the others take their interrupts, and
 * nothing else happens meanwhile. Real threads and the scheduler bring their
 * own; NULL members do nothing.
 */
struct sim_driver {
    void (*step)(void);                 /* other CPUs may do something now */
    void (*relax)(void);                /* this one waits for them */
    void (*serialize)(void);            /* its stores must be seen now */
    void (*look)(void);                 /* it is asked for interrupts */
    void (*complain)(const char *text); /* port_bug() or port_panic() */
};

/* NULL, as after sim_reset(): one thread plays all. */
void sim_set_driver(const struct sim_driver *driver);

/* The CPU this thread plays. */
void sim_set_cpu(unsigned cpu);
/* How many port_cpu_count() reports; sim_reset(): 1. */
void sim_set_cpu_count(unsigned count);
bool sim_irq_is_off(void);
/* The same of @cpu, if this thread plays it. */
bool sim_irq_is_off_on(unsigned cpu);
/* Is any CPU that this thread has played left with interrupts off? */
bool sim_any_irq_is_off(void);
void sim_cpus_reset(void);
/* All CPUs as between two programs: interrupts on, none pending. */
void sim_calm_cpus(void);

/*
 * An interrupt that comes whenever it can: @handler is called, itself with
 * interrupts off, just before they go off and as soon as they are on again.
 * NULL: none, as after sim_reset().
 */
void sim_set_interrupt(void (*handler)(void));

/* This CPU takes the interrupts that are pending, if it can. */
void sim_poll(void);
/* Is any pending for @cpu? */
bool sim_is_interrupted(unsigned cpu);
/* Interrupts sent to @cpu since sim_reset(). */
uint64_t sim_interrupts(unsigned cpu);

/* For the files of sim, between the single actions of a CPU. */
void sim_step(void);
void sim_serialize(void);
/* Let another thread run. */
void sim_yield(void);
/* Tell the driver, if there is one; it may not return. */
void sim_complain(const char *text);

#endif
