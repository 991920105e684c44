/* SPDX-License-Identifier: MIT */
/* guard_option: one heap object in how many is guarded. */
#ifndef KERNEL_GUARD_OPTION_H
#define KERNEL_GUARD_OPTION_H

/*
 * Turn guards on as guard=N or guard=off says; without the word as mm/guard.h
 * has it, where there is RAM enough. What cannot be done is said in a warning.
 * Context: after memory_init(), one CPU.
 */
void guard_option_start(void);

#endif
