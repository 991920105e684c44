/* SPDX-License-Identifier: MIT */
/* panic: the last words, and the way the calls came. */
#ifndef KERNEL_PANIC_H
#define KERNEL_PANIC_H

#include <stdarg.h>
#include <mm/types.h>

struct trap_frame;

/* Say why, where, and stop. Ends QEMU with a failure after exit=debug. */
MM_NORETURN void panic(const char *format, ...) MM_PRINTF(1, 2);
MM_NORETURN void panic_list(const char *format, va_list arguments)
    MM_PRINTF(1, 0);

/* The machine cannot be used: one sentence, no blame on the code, stop. */
MM_NORETURN void give_up(const char *format, ...) MM_PRINTF(1, 2);

/* An exception nobody could resolve: report_exception(), then stop. */
MM_NORETURN void panic_exception(const struct trap_frame *frame);

/* Is the kernel saying its last words? Then: is it this CPU that says them? */
bool panic_is_active(void);
bool panic_is_mine(void);

/*
 * Print the calls that led to the frame @rbp points at, innermost first.
 * Reads by probes: a broken chain ends the list and nothing else.
 */
void panic_backtrace(uint64_t rbp);

/* The same from where an exception came, that place included. */
void panic_backtrace_trap(const struct trap_frame *frame);

#endif
