/* SPDX-License-Identifier: MIT */
/* image: where linker.ld has put the parts of the kernel. */
#ifndef KERNEL_IMAGE_H
#define KERNEL_IMAGE_H

#include <mm/types.h>
#include "kernel/layout.h"

/* Only the addresses of these mean something. */
extern char boot_reclaim_start[]; /* physical: of use until the final tables */
extern char boot_reclaim_end[];
extern char image_start[];
extern char text_start[];
extern char text_end[];
extern char rodata_start[];
extern char rodata_end[];
extern char data_start[];
extern char data_end[];
extern char stacks_start[];
extern char stacks_end[];
extern char symbols_start[];
extern char symbols_end[];
extern char image_end[];

/* Stacks of this processor; below each lies a page that is never mapped. */
enum image_stack {
    STACK_KERNEL,
    STACK_DOUBLE_FAULT, /* #DF, NMI and #MC may come when RSP is bad */
    STACK_NMI,
    STACK_MACHINE_CHECK,
    STACK_COUNT
};
#define STACK_BYTES (32 * KiB) /* linker.ld has the same value */

static inline const char *image_stack_name(enum image_stack stack)
{
    static const char *const name[STACK_COUNT] = {
        "kernel stack", "double fault stack", "NMI stack",
        "machine check stack"};

    return name[stack];
}

/* Lowest byte of a stack, its guard page not counted. */
static inline vaddr_t image_stack_start(enum image_stack stack)
{
    return (vaddr_t)stacks_start + PAGE_BYTES +
           (unsigned)stack * (PAGE_BYTES + STACK_BYTES);
}

static inline vaddr_t image_stack_end(enum image_stack stack)
{
    return image_stack_start(stack) + STACK_BYTES;
}

/* Does @address lie in one of the guard pages? */
static inline bool image_is_stack_guard(vaddr_t address)
{
    vaddr_t start = (vaddr_t)stacks_start;

    return address >= start && address < (vaddr_t)stacks_end &&
           (address - start) % (PAGE_BYTES + STACK_BYTES) < PAGE_BYTES;
}

static inline bool image_has_code(vaddr_t address)
{
    return address >= (vaddr_t)text_start && address < (vaddr_t)text_end;
}

static inline uint64_t image_physical(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer - LAYOUT_IMAGE;
}

#endif
