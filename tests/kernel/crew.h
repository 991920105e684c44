/* SPDX-License-Identifier: MIT */
/* crew: the same function on every CPU at once, and a space they share. */
#ifndef TESTS_KERNEL_CREW_H
#define TESTS_KERNEL_CREW_H

#include <mm/pt.h>

/* CPUs that are online and not this one. */
unsigned crew_others(void);

/*
 * Run @work on all other CPUs, and on this one too, with interrupts on; wait
 * for all of them.
 */
void crew_run(void (*work)(void *), void *argument);

/* The same on the other CPUs alone, without waiting; crew_wait() does. */
void crew_start(void (*work)(void *), void *argument);
void crew_wait(void);

/* The same, and until the others are idle. */
void crew_park(void);

/* One page of @pt mapped to a new frame whose words are all @value. */
MM_MUST_CHECK bool crew_map(struct pt *pt, vaddr_t page, uint64_t value);

/* Nothing there; the frame goes when all CPUs have forgotten it. */
MM_MUST_CHECK bool crew_unmap(struct pt *pt, vaddr_t page);

MM_MUST_CHECK bool crew_protect(struct pt *pt, vaddr_t page, unsigned flags);

#endif
