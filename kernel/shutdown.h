/* SPDX-License-Identifier: MIT */
/* shutdown: the ways to end. */
#ifndef KERNEL_SHUTDOWN_H
#define KERNEL_SHUTDOWN_H

#include <mm/types.h>

/* Codes for QEMU's isa-debug-exit; its exit status is 2 * code + 1. */
enum shutdown_code { SHUTDOWN_PASSED = 0x10, SHUTDOWN_FAILED = 0x11 };

/* End QEMU with a status. Returns where there is no such device. */
void shutdown_debug_exit(enum shutdown_code code);

/* Turn the machine off, or say that it may be turned off. */
MM_NORETURN void shutdown_poweroff(void);

/* Start the machine again: keyboard controller, reset port, triple fault. */
MM_NORETURN void shutdown_reboot(void);

#endif
