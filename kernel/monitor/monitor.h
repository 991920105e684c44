/* SPDX-License-Identifier: MIT */
/* monitor: the prompt, on serial port and keyboard. */
#ifndef KERNEL_MONITOR_MONITOR_H
#define KERNEL_MONITOR_MONITOR_H

#include <mm/types.h>

/*
 * Run the commands in @text, which ';' separates, up to the first that fails.
 * Return: did all succeed?
 */
bool monitor_execute(const char *text);

/* Read commands and run them, for ever. */
MM_NORETURN void monitor_run(void);

#endif
