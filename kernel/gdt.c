/* SPDX-License-Identifier: MIT */
/* gdt: segments, and the task state that names the fault stacks. */
#include "kernel/gdt.h"

#include "kernel/cpu.h"
#include "kernel/image.h"
#include "kernel/percpu.h"

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

static void set_ist(struct tss *tss, enum gdt_ist ist, vaddr_t end)
{
    tss->ist[ist - 1][0] = (uint32_t)end;
    tss->ist[ist - 1][1] = (uint32_t)(end >> 32);
}

static void fill_tss(struct tss *tss, const vaddr_t *stack_end)
{
    *tss = (struct tss){.io_map = sizeof(*tss)};
    set_ist(tss, IST_DOUBLE_FAULT, stack_end[STACK_DOUBLE_FAULT]);
    set_ist(tss, IST_NMI, stack_end[STACK_NMI]);
    set_ist(tss, IST_MACHINE_CHECK, stack_end[STACK_MACHINE_CHECK]);
}

/*
 * LTR marks the TSS as busy, here and in no other table. Base and limit lie
 * in pieces. [SDM-3A 8.2.3 "TSS Descriptor in 64-bit mode"]
 */
static void fill_entries(struct gdt *gdt)
{
    uint64_t base = (uint64_t)(uintptr_t)&gdt->tss;
    uint64_t limit = sizeof(gdt->tss) - 1;

    gdt->entry[GDT_KERNEL_CODE / 8] =
        SEGMENT_COMMON | DESCRIPTOR_EXECUTABLE | DESCRIPTOR_LONG;
    gdt->entry[GDT_KERNEL_DATA / 8] = SEGMENT_COMMON;
    gdt->entry[GDT_TSS / 8] = DESCRIPTOR_PRESENT | DESCRIPTOR_TSS | limit |
                              (base & 0xffffff) << 16 |
                              (base >> 24 & 0xff) << 56;
    gdt->entry[GDT_TSS / 8 + 1] = base >> 32;
}

void gdt_init(struct gdt *gdt, const vaddr_t *stack_end)
{
    struct cpu_table table = {sizeof(gdt->entry) - 1,
                              (uint64_t)(uintptr_t)gdt->entry};

    fill_tss(&gdt->tss, stack_end);
    fill_entries(gdt);
    cpu_lgdt(&table);
    cpu_load_segments(GDT_KERNEL_CODE, GDT_KERNEL_DATA);
    cpu_ltr(GDT_TSS);
}

vaddr_t gdt_address(void)
{
    return (vaddr_t)percpu_this()->gdt.entry;
}

vaddr_t gdt_tss_address(void)
{
    return (vaddr_t)&percpu_this()->gdt.tss;
}
