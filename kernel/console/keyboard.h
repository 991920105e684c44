/* SPDX-License-Identifier: MIT */
/* keyboard: a PS/2 keyboard, polled; keys come as bytes of a terminal. */
#ifndef KERNEL_CONSOLE_KEYBOARD_H
#define KERNEL_CONSOLE_KEYBOARD_H

/* The next byte, or -1: ASCII, control codes, VT100 sequences. */
int keyboard_read(void);

#endif
