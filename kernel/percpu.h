/* SPDX-License-Identifier: MIT */
/* percpu: what each processor has for itself, found through GS. */
#ifndef KERNEL_PERCPU_H
#define KERNEL_PERCPU_H

#include <stdatomic.h>

#include <mm/slab.h>
#include <mm/types.h>
#include "kernel/cpu.h"
#include "kernel/gdt.h"
#include "kernel/image.h"
#include "kernel/trap.h"

/* "cpu 254 machine check stack" */
#define PERCPU_STACK_NAME_MAX 32

/* Where a processor has come to; smp_start.c has the rules. */
enum percpu_state {
    PERCPU_NONE,     /* nobody has asked for it */
    PERCPU_STARTING, /* it has been asked to come */
    PERCPU_JOINING,  /* it was in time; nobody takes that back */
    PERCPU_ONLINE,
    PERCPU_LEFT_OUT, /* it did not answer in time */
    PERCPU_LATE,     /* it came all the same, and has halted */
    PERCPU_REFUSED   /* it is not like the first, and has halted */
};

/* A function for a processor to run; kernel/smp.h. */
struct percpu_work {
    _Atomic bool is_busy; /* (A) taken by who asks, given back when done */
    _Atomic bool is_due;  /* (A) the next two are there */
    void (*function)(void *argument);
    void *argument;
};

/*
 * (C) constant once it runs; (P) its own, interrupts off; (A) atomic.
 * ap_entry.asm and mm_port.h know the first five by their offsets.
 */
struct percpu {
    struct percpu *self; /* (C) so that GS:0 is a pointer */
    uint32_t index;      /* (C) 0 is the one that started */
    uint32_t apic_id;    /* (C) */
    uint8_t heap[SLAB_CPU_BYTES] MM_ALIGNED(8); /* (P) slab_cpu_init() */
    vaddr_t stack_end[STACK_COUNT];             /* (C) */
    void *stack[STACK_COUNT]; /* (C) blocks of kmap; not of the first */
    char stack_name[STACK_COUNT][PERCPU_STACK_NAME_MAX]; /* (C) */
    struct gdt gdt;                                      /* (C) but for TR */

    uint64_t traps;          /* (P) taken so far, of all kinds */
    unsigned irq_depth;      /* (P) interrupt handlers at work: 0 or 1 */
    unsigned nmi_depth;      /* (P) handlers of NMI and #MC at work */
    struct trap_retry retry; /* (P) */
    bool is_drain_due;       /* (P) asked for while it printed; irq.c */

    _Atomic unsigned state;        /* (A) enum percpu_state */
    struct cpu_difference refusal; /* with PERCPU_REFUSED: what it has */

    uint32_t shortages;      /* (P) heard of; idle.c */
    _Atomic bool is_tidying; /* (A) at work in idle.c */

    struct percpu_work work;
    _Atomic bool is_nmi_expected; /* (A) the next one is no error */
    _Atomic uint64_t nmi_count;   /* (A) of those that were expected */
    _Atomic bool is_stopped;      /* (A) by another's last words */
    _Atomic bool is_still;        /* (A) by smp_freeze() */
    _Atomic bool is_asleep;       /* (A) and looks before it goes on */
    vaddr_t still_at;             /* (C) while either: its stack from there */
};
_Static_assert(offsetof(struct percpu, self) == 0, "percpu_this()");
_Static_assert(offsetof(struct percpu, index) == CPU_GS_INDEX, "mm_port.h");
_Static_assert(CPU_GS_INDEX == 8 && offsetof(struct percpu, heap) == 16,
               "MM_PORT_RESTARTS: mm/port.h");
_Static_assert(offsetof(struct percpu, stack_end) == 472, "ap_entry.asm");

/* Give the first processor its own. Before anything else in C. */
void percpu_init(void);

/* Make @cpu this processor's. GS must hold the null selector. */
static inline void percpu_load(struct percpu *cpu)
{
    cpu_wrmsr(MSR_GS_BASE, (uint64_t)(uintptr_t)cpu);
}

static inline struct percpu *percpu_this(void)
{
    return (struct percpu *)(uintptr_t)cpu_read_gs64(0);
}

/* That of processor @index; NULL if it has none. */
struct percpu *percpu_of(unsigned index);

/*
 * Make one for a further processor, its stacks between guard pages.
 * Return: NULL if memory is short.
 */
MM_MUST_CHECK struct percpu *percpu_create(unsigned index, uint32_t apic_id);

#endif
