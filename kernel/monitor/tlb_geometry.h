/* SPDX-License-Identifier: MIT */
/* tlb_geometry: what CPUID says about the TLBs. Pure. */
#ifndef KERNEL_MONITOR_TLB_GEOMETRY_H
#define KERNEL_MONITOR_TLB_GEOMETRY_H

#include <mm/types.h>

/* Page sizes a TLB may hold, or-ed. */
enum tlb_pages {
    TLB_4K = 1 << 0,
    TLB_2M = 1 << 1,
    TLB_4M = 1 << 2,
    TLB_1G = 1 << 3
};

enum tlb_kind { TLB_DATA, TLB_INSTRUCTION, TLB_UNIFIED };

#define TLB_FULLY UINT32_MAX /* ways of a fully associative TLB */

struct tlb_geometry {
    unsigned level; /* 1 or 2 */
    enum tlb_kind kind;
    unsigned pages; /* enum tlb_pages */
    unsigned entries;
    unsigned ways; /* 0: not said */
};

/* Registers of a CPUID leaf. */
struct tlb_leaf {
    uint32_t eax;
    uint32_t ebx;
    uint32_t ecx;
    uint32_t edx;
};

/* The processor, or a test's table. Zeroes for a leaf it does not have. */
typedef struct tlb_leaf (*tlb_leaf_fn)(uint32_t leaf, uint32_t subleaf);

#define TLB_GEOMETRY_MAX 24

/*
 * Collect all TLBs from leaf 2 (Intel's descriptors; 0xff or 0xfe refer to
 * leaf 0x18), leaf 0x18, and AMD's 0x80000005, 0x80000006 and 0x80000019.
 * Return: how many of @out are filled; 0 if the processor does not say.
 * Source: [SDM-2A CPUID, "INPUT EAX = 02H" and "18H"], [APM-3 E.4]
 */
unsigned tlb_geometry(tlb_leaf_fn read, struct tlb_geometry *out);

#endif
