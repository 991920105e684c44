/* SPDX-License-Identifier: MIT */
/* serial: COM1, a 16550 at 115200 8N1, polled. */
#ifndef KERNEL_CONSOLE_SERIAL_H
#define KERNEL_CONSOLE_SERIAL_H

#include <mm/types.h>

/* Find and set up the port. Without one, the others do nothing. */
void serial_init(void);
bool serial_is_present(void);

/* LF goes out as CR LF. */
void serial_write(const char *text, size_t length);

/* The next byte received, or -1. */
int serial_read(void);

#endif
