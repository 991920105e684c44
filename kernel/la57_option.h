/* SPDX-License-Identifier: MIT */
/* la57_option: what came of la57= on the command line. */
#ifndef KERNEL_LA57_OPTION_H
#define KERNEL_LA57_OPTION_H

#include <mm/types.h>

/*
 * Does @word (NULL: there is none) ask for 5 levels where the processor has
 * them? on and auto do; boot/levels.asm has read the same words.
 */
bool la57_option_wants_five(const char *word);

/*
 * Say in a warning what the command line asked for and did not get: 5 levels
 * from a processor without them, or a word that is none of on, off and auto.
 * Context: after cpu_detect() and cmdline_init().
 */
void la57_option_check(void);

#endif
