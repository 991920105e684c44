/* SPDX-License-Identifier: MIT */
/* kernel: the two ends of start-up. */
#ifndef KERNEL_KERNEL_H
#define KERNEL_KERNEL_H

#include <mm/types.h>

#define KERNEL_NAME "Vellum"

/* Called by boot/start.asm with what the loader left in EAX and EBX. */
MM_NORETURN void kernel_main(uint32_t magic, uint64_t boot_information);

/* What runs once memory works: tests, commands, the monitor. */
MM_NORETURN void kernel_run(void);

/* Time stamp counter at the first line of C. */
extern uint64_t kernel_start_clock;
/* The same when memory works. */
extern uint64_t kernel_ready_clock;

#endif
