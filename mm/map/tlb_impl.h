/* SPDX-License-Identifier: MIT */
/* tlb: what each CPU has cached and is asked, for the files of tlb alone. */
#ifndef MM_MAP_TLB_IMPL_H
#define MM_MAP_TLB_IMPL_H

#include <mm/port.h>
#include <mm/tlb.h>

/*
 * What is cached under each PCID: slot and PCID have the same number. Slot 0
 * is the kernel's: its translations are global and count in every slot.
 * Without PCIDs there is one more, for the space that CR3 holds.
 */
#define TLB_SLOTS       8
#define TLB_KERNEL_SLOT 0
#define TLB_NO_SLOT     TLB_SLOTS

struct tlb_slot {
    _Atomic uint64_t id;         /* (P) space cached here; 0: none */
    _Atomic uint64_t generation; /* (P) its last flush that was made here */
};

/* What one CPU asks of others; one at a time, since it waits for the end. */
struct tlb_request {
    const struct tlb_batch *batch;
    uint64_t generation;       /* of the flush that the batch is */
    _Atomic uint32_t awaiting; /* (A) answers that are still to come */
};

/* The fields of struct tlb_stats, which others may read at any time. */
struct tlb_counters {
    _Atomic uint64_t commits;
    _Atomic uint64_t pages;
    _Atomic uint64_t whole;
    _Atomic uint64_t switches;
    _Atomic uint64_t kept;
    _Atomic uint64_t released;
    _Atomic uint64_t interrupts;
    _Atomic uint64_t spared;
    _Atomic uint64_t served;
    _Atomic uint64_t overtaken;
    _Atomic uint64_t caught_up;
};

/* (P) is written by this CPU alone, interrupts off; others may read it. */
struct tlb_cpu {
    _Atomic(struct tlb_space *) loaded; /* (P) what CR3 holds */
    _Atomic uint64_t usable;            /* (P) tlb_stamp() of the space whose
                                          entries may be used now; 0: none */
    _Atomic bool is_lazy;               /* (P) only the kernel's are used */
    _Atomic bool is_online;             /* (P) */
    bool is_visiting;                   /* (P) */
    _Atomic bool is_late;               /* (A) with tlb_begin_flush() */
    _Atomic unsigned current;           /* (P) slot of `loaded` */
    unsigned victim;                    /* (P) slot that was taken last */
    struct tlb_slot slot[TLB_SLOTS];
    struct tlb_request request;
    struct cpu_set inbox; /* (A) CPUs whose request waits for this one */
    struct tlb_counters count;
} MM_ALIGNED(64);

extern struct tlb_cpu tlb_cpu[MM_MAX_CPUS];
extern struct tlb_space *tlb_kernel; /* (C) */
extern unsigned tlb_parts_in_use;    /* (C) */
extern unsigned tlb_words;           /* (C) of a cpu_set that are in use */

static inline struct tlb_cpu *tlb_this_cpu(void)
{
    return &tlb_cpu[port_cpu()];
}

static inline bool tlb_has(enum tlb_parts part)
{
    return (tlb_parts_in_use & part) != 0;
}

/* One writer, so no locked instruction. */
static inline void tlb_add(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(
        counter, atomic_load_explicit(counter, memory_order_relaxed) + more,
        memory_order_relaxed);
}

/*
 * Have flush @generation of the batch's space, and all before it, made on
 * this CPU, if it has anything of the space cached that it could use.
 * Context: interrupts off.
 */
void tlb_apply(struct tlb_cpu *cpu, const struct tlb_batch *batch,
               uint64_t generation);

/*
 * Make the flush that @batch is, on this CPU and on all others that must have
 * it. Return: its generation.
 */
uint64_t tlb_shoot(struct tlb_batch *batch);

/* See record.h: has every CPU passed the flush that @stamp names? */
void tlb_check_reuse(pfn_t pfn, uint64_t stamp);

/* Flush @generation of @space, as it is kept in the record of a free frame. */
static inline uint64_t tlb_stamp(const struct tlb_space *space,
                                 uint64_t generation)
{
    return (space->id << 32) | (uint32_t)generation;
}

#endif
