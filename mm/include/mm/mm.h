/* SPDX-License-Identifier: MIT */
/* mm: start-up order, sums over all modules, check everything. */
#ifndef MM_MM_H
#define MM_MM_H

#include <mm/audit.h>
#include <mm/memmap.h>
#include <mm/pt.h>
#include <mm/record.h>

/* A piece of the kernel image (one ELF segment) or another fixed mapping. */
struct mm_segment {
    const char *name; /* ".text" */
    vaddr_t start;
    uint64_t bytes; /* rounded up to pages */
    paddr_t physical;
    struct pt_attr attr;
};

/* What the host knows and wants. */
struct mm_config {
    /*
     * (C) Built; mm_init() carves from it. No RAM in it may lie above
     * direct_bytes (else MM_ERANGE): memmap_limits.physical_end must be at
     * most that, so that memmap_build() clips the rest.
     */
    struct memmap *map;
    struct pt_features features;
    unsigned quirks;     /* enum pt_quirk */
    unsigned tlb_parts;  /* enum tlb_parts that the CPUs have; see mm/tlb.h */
    uint64_t mapped_end; /* phys_to_virt() works below it now */
    const struct mm_segment *segment;
    size_t segment_count;
    const struct audit_need *need; /* checked before CR3 is loaded */
    size_t need_count;
    vaddr_t direct_start;  /* phys_to_virt(0) */
    uint64_t direct_bytes; /* most RAM the direct map may cover */
    /* The arena lies under one entry of 512 GiB (else MM_ERANGE). */
    vaddr_t kmap_start;
    vaddr_t kmap_end;
    vaddr_t record_start; /* 16 bytes a frame, under another entry than that */
    record_back_fn back;  /* backs records; NULL: the library maps them */
};

/* Where start-up has come to, for messages. */
enum mm_stage {
    MM_STAGE_NOTHING,
    MM_STAGE_TABLES, /* final tables built, checked and loaded */
    MM_STAGE_FRAMES,
    MM_STAGE_HEAP,
    MM_STAGE_MAPS, /* kmap; start-up is complete */
};

/*
 * Bring up everything in order: tables (direct map, image), pre-flight check,
 * CR3, frames, records, heap, arena. Other CPUs then load pt_kernel.root and
 * call tlb_cpu_online(), each for itself.
 * Return: MM_OK; else the first failure, after port_log() has said it in a
 *         sentence. Before MM_STAGE_TABLES the old tables are still loaded.
 * Context: once, one CPU, interrupts off, exceptions handled.
 */
MM_MUST_CHECK enum mm_status mm_init(const struct mm_config *config);

enum mm_stage mm_stage(void);

/* x_check() of every module and pt_audit() of the kernel's tables. */
bool mm_check(void);

#endif
