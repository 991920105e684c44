/* SPDX-License-Identifier: MIT */
/* mmu: the instructions that load and invalidate translations. */
#ifndef MM_X86_64_MMU_H
#define MM_X86_64_MMU_H

#include <mm/port.h>

/*
 * CR3: the top table, the process-context identifier (PCID) that tags what is
 * cached, and whether what is cached under it stays.
 * Source: [SDM-3A 4.10.4.1 "Operations that Invalidate TLBs and
 *         Paging-Structure Caches"]
 */
#define MMU_CR3_PCID UINT64_C(0xfff)
#define MMU_CR3_KEEP (UINT64_C(1) << 63)

/* [SDM-2A INVPCID] */
enum mmu_invpcid {
    MMU_INVPCID_ADDRESS = 0,    /* one page of one PCID, unless global */
    MMU_INVPCID_CONTEXT = 1,    /* one PCID, but for global pages */
    MMU_INVPCID_ALL_GLOBAL = 2, /* everything */
    MMU_INVPCID_ALL = 3         /* all PCIDs, but for global pages */
};

/*
 * Only map/tlb_cpu.c calls these. A host that defines MM_PORT_MMU in its port
 * header brings its own.
 */
#ifndef MM_PORT_MMU

#define MMU_CR4_PGE   (UINT64_C(1) << 7)
#define MMU_CR4_PCIDE (UINT64_C(1) << 17)

/*
 * Forget one page of the current space, global or not, and all
 * paging-structure entries of the current PCID.
 * Source: [SDM-3A 4.10.4.1 "Operations that Invalidate TLBs and
 *         Paging-Structure Caches"]
 */
static inline void mmu_invlpg(vaddr_t address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static inline uint64_t mmu_read_cr3(void)
{
    uint64_t cr3;

    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    return cr3;
}

/*
 * Load the top table. Without MMU_CR3_KEEP everything cached under the PCID
 * is forgotten, but for global pages; without PCIDs, everything but these.
 */
static inline void mmu_write_cr3(uint64_t cr3)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(cr3) : "memory");
}

/* Only where CPUID shows INVPCID; @pcid below 4096. */
static inline void mmu_invpcid(enum mmu_invpcid type, uint64_t pcid,
                               vaddr_t address)
{
    struct {
        uint64_t pcid;
        uint64_t address;
    } descriptor = {pcid, address};

    __asm__ volatile("invpcid %1, %0"
                     :
                     : "r"((uint64_t)type), "m"(descriptor)
                     : "memory");
}

/*
 * Forget everything, global pages and all PCIDs too: CR4.PGE off and on; or,
 * where it is off, by loading CR3.
 */
static inline void mmu_flush_all(void)
{
    uint64_t cr4;

    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    if ((cr4 & MMU_CR4_PGE) == 0) {
        mmu_write_cr3(mmu_read_cr3());
        return;
    }
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 ^ MMU_CR4_PGE) : "memory");
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4) : "memory");
}

/*
 * Let CR3 carry PCIDs on this CPU. The one it carries now must be 0.
 * Source: [SDM-3A 4.10.1 "Process-Context Identifiers (PCIDs)"]
 */
static inline void mmu_enable_pcid(void)
{
    uint64_t cr4;

    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | MMU_CR4_PCIDE) : "memory");
}

#endif

#endif
