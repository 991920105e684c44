/* SPDX-License-Identifier: MIT */
/* gdt: segments, and the task state that names the fault stacks. */
#ifndef KERNEL_GDT_H
#define KERNEL_GDT_H

#include <mm/types.h>

/* Selectors. trap.c puts the first into every gate of the IDT. */
#define GDT_KERNEL_CODE 0x08
#define GDT_KERNEL_DATA 0x10
#define GDT_TSS         0x18

/* Numbers of the interrupt stacks in the TSS; 0 means no switch. */
enum gdt_ist { IST_NONE, IST_DOUBLE_FAULT, IST_NMI, IST_MACHINE_CHECK };

/* Load the final GDT and TSS. Once a processor; the boot GDT is free then. */
void gdt_init(void);

/* Where they lie, for the check before new tables are loaded. */
vaddr_t gdt_address(void);
vaddr_t gdt_tss_address(void);

#endif
