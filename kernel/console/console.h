/* SPDX-License-Identifier: MIT */
/* console: one stream of text to log, serial port and screen; and input. */
#ifndef KERNEL_CONSOLE_CONSOLE_H
#define KERNEL_CONSOLE_CONSOLE_H

#include <stdarg.h>
#include <mm/types.h>

/* Serial port and log. First thing in C; the screen joins when it is known. */
void console_init(void);

/* Longest text one printk() can print; what is longer ends in "...". */
#define PRINTK_MAX 1024

/* printf to every output, and to the log. */
void printk(const char *format, ...) MM_PRINTF(1, 2);
void printk_list(const char *format, va_list arguments) MM_PRINTF(1, 0);

/* @length bytes of UTF-8 with the escape sequences of screen.h. */
void console_write(const char *text, size_t length);

/* The same without a trace in the log: for dmesg. */
void console_show(const char *text, size_t length);

/*
 * The next byte typed on serial or keyboard, or -1. Keys that are no
 * characters come as VT100 sequences from both: ESC [ A is up.
 */
int console_getchar_nonblocking(void);

/* Wait for it, asleep. Context: interrupts are turned on while it waits. */
int console_getchar(void);

/*
 * Lines of different CPUs do not mix: each write comes out in one piece, and
 * one behind another CPU's unfinished line begins a new one. For writes that
 * belong together: between these two, others wait. Nests.
 * Context: any; on a CPU that is interrupted while it prints, the interrupting
 * text comes out at once.
 */
bool console_enter(void);
void console_leave(bool is_outermost);
/* Does this CPU stand between the two? */
bool console_is_mine(void);

/* For last words: the others are stopped, also in the middle of a line. */
void console_take_over(void);

/* --- the log: the latest 64 KiB of everything printed --------------------- */

void log_write(const char *text, size_t length);
/* Hand the log to @write, oldest first, in at most two pieces. */
void log_read(void (*write)(const char *text, size_t length));

#endif
