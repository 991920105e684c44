/* SPDX-License-Identifier: MIT */
/* idle: what a processor does that has nothing to do, before it sleeps. */
#ifndef KERNEL_IDLE_H
#define KERNEL_IDLE_H

#include <mm/types.h>

/*
 * Do a little that saves others time later: clear a frame, or give back what
 * the heap keeps if memory is low.
 * Return: false if there is nothing to do: then it is time to sleep.
 * Context: an idle loop, interrupts off; they come in meanwhile, so look for
 *          work before sleeping.
 */
bool idle_work(void);

/*
 * Have every processor give back what the heap keeps, when it is idle.
 * Return: how many had to be woken for it.
 * Context: any, also interrupts.
 */
unsigned idle_ask_for_memory(void);

/*
 * From here on to idle_resume() no processor does such work: then figures can
 * be compared. Nests.
 * Context: where smp_may_wait(), outside of interrupt handlers.
 */
void idle_suspend(void);
void idle_resume(void);

#endif
