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

/* [SDM-3A 8.7 "Task Management in 64-bit Mode"]; 32-bit words throughout. */
struct tss {
    uint32_t reserved0;
    uint32_t rsp[3][2]; /* low, high */
    uint32_t reserved1[2];
    uint32_t ist[7][2];
    uint32_t reserved2[2];
    uint16_t reserved3;
    uint16_t io_map; /* offset; at the limit = no map */
};
_Static_assert(sizeof(struct tss) == 104, "64-bit task state segment");

/* Null, code, data, and the TSS, which takes two places. */
#define GDT_ENTRIES 5

/* What each processor has for itself. */
struct gdt {
    uint64_t entry[GDT_ENTRIES];
    struct tss tss;
};

/*
 * Fill and load this processor's GDT and TSS. Once a processor; the GDT that
 * it came with is free then.
 * @stack_end: by enum image_stack
 */
void gdt_init(struct gdt *gdt, const vaddr_t *stack_end);

/* Where those of this processor lie. */
vaddr_t gdt_address(void);
vaddr_t gdt_tss_address(void);

#endif
