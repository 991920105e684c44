/* SPDX-License-Identifier: MIT */
/* gdt: segments, and the task state that names the fault stacks. */
#include "kernel/gdt.h"

#include "kernel/cpu.h"
#include "kernel/image.h"

/*
 * In 64-bit mode a segment is little more than a privilege level: base and
 * limit are ignored. [SDM-3A 3.4.5 "Segment Descriptors"]
 */
#define DESCRIPTOR_PRESENT    (UINT64_C(1) << 47)
#define DESCRIPTOR_SEGMENT    (UINT64_C(1) << 44) /* code or data */
#define DESCRIPTOR_EXECUTABLE (UINT64_C(1) << 43)
#define DESCRIPTOR_WRITABLE   (UINT64_C(1) << 41) /* code: readable */
#define DESCRIPTOR_ACCESSED   (UINT64_C(1) << 40) /* else the CPU writes it */
#define DESCRIPTOR_LONG       (UINT64_C(1) << 53)
#define DESCRIPTOR_TSS        (UINT64_C(9) << 40) /* available 64-bit TSS */

#define SEGMENT_COMMON                                                         \
    (DESCRIPTOR_PRESENT | DESCRIPTOR_SEGMENT | DESCRIPTOR_WRITABLE |           \
     DESCRIPTOR_ACCESSED)

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

static struct tss tss;
static uint64_t gdt[5] = {
    [GDT_KERNEL_CODE / 8] =
        SEGMENT_COMMON | DESCRIPTOR_EXECUTABLE | DESCRIPTOR_LONG,
    [GDT_KERNEL_DATA / 8] = SEGMENT_COMMON,
    /* The TSS takes two places; gdt_init() knows its address. */
};

static void set_ist(enum gdt_ist ist, enum image_stack stack)
{
    vaddr_t end = image_stack_end(stack);

    tss.ist[ist - 1][0] = (uint32_t)end;
    tss.ist[ist - 1][1] = (uint32_t)(end >> 32);
}

/* Base and limit lie in pieces. [SDM-3A 8.2.3 "TSS Descriptor in 64-bit mode"]
 */
static void set_tss_descriptor(void)
{
    uint64_t base = (uint64_t)(uintptr_t)&tss;
    uint64_t limit = sizeof(tss) - 1;

    gdt[GDT_TSS / 8] = DESCRIPTOR_PRESENT | DESCRIPTOR_TSS | limit |
                       (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
    gdt[GDT_TSS / 8 + 1] = base >> 32;
}

void gdt_init(void)
{
    struct cpu_table table = {sizeof(gdt) - 1, (uint64_t)(uintptr_t)gdt};

    tss.io_map = sizeof(tss);
    set_ist(IST_DOUBLE_FAULT, STACK_DOUBLE_FAULT);
    set_ist(IST_NMI, STACK_NMI);
    set_ist(IST_MACHINE_CHECK, STACK_MACHINE_CHECK);
    set_tss_descriptor();
    cpu_lgdt(&table);
    cpu_load_segments(GDT_KERNEL_CODE, GDT_KERNEL_DATA);
    cpu_ltr(GDT_TSS);
}

vaddr_t gdt_address(void)
{
    return (vaddr_t)gdt;
}

vaddr_t gdt_tss_address(void)
{
    return (vaddr_t)&tss;
}
