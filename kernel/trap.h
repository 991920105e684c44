/* SPDX-License-Identifier: MIT */
/* trap: exceptions and interrupts, and what is done about them. */
#ifndef KERNEL_TRAP_H
#define KERNEL_TRAP_H

#include <mm/types.h>
#include <mm/walk.h>

/* Vectors. [SDM-3A 6.3 "Sources of Interrupts"] */
enum trap_vector {
    TRAP_DIVIDE = 0,
    TRAP_DEBUG = 1,
    TRAP_NMI = 2,
    TRAP_BREAKPOINT = 3,
    TRAP_DOUBLE_FAULT = 8,
    TRAP_STACK = 12,
    TRAP_PROTECTION = 13,
    TRAP_PAGE = 14,
    TRAP_MACHINE_CHECK = 18,
    TRAP_EXCEPTIONS = 32, /* below: exceptions; from here: interrupts */
    TRAP_VECTORS = 256
};

/*
 * Everything of the interrupted code, saved once by trap_entry.asm and
 * restored from here: what a handler changes takes effect.
 */
struct trap_frame {
    uint64_t cr2; /* as it was at entry; means something for #PF */
    uint64_t r15;
    uint64_t r14;
    uint64_t r13;
    uint64_t r12;
    uint64_t r11;
    uint64_t r10;
    uint64_t r9;
    uint64_t r8;
    uint64_t rbp;
    uint64_t rdi;
    uint64_t rsi;
    uint64_t rdx;
    uint64_t rcx;
    uint64_t rbx;
    uint64_t rax;
    uint64_t vector;
    uint64_t error; /* 0 where the CPU pushes none */
    uint64_t rip;
    uint64_t cs;
    uint64_t rflags;
    uint64_t rsp;
    uint64_t ss;
};
_Static_assert(sizeof(struct trap_frame) == 23 * 8, "trap_entry.asm pushes");

/* Fill the IDT and load it on the first processor. After gdt_init(). */
void trap_init(void);

/* Load it on another one. */
void trap_load(void);

vaddr_t trap_idt_address(void);

/* "#PF page fault"; "interrupt" from vector 32 up. */
const char *trap_name(uint64_t vector);

/* How the processor judges accesses of code that runs with @rflags. */
struct walk_rules trap_rules(uint64_t rflags);

/*
 * So often an access that the tables allow is tried again, should nothing
 * have happened in between.
 */
#define TRAP_RETRIES 8

/* What a processor remembers for that. */
struct trap_retry {
    struct trap_frame last;
    unsigned count; /* tries of it */
    uint64_t trap;  /* number of the latest, among all traps here */
};

/*
 * From now on an NMI uses the stack that it finds, so that the next one does
 * not overwrite the report of the first.
 */
void trap_share_stack(void);

/* Called by trap_entry.asm only. */
void trap_dispatch(struct trap_frame *frame);

#endif
