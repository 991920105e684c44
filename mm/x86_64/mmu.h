/* SPDX-License-Identifier: MIT */
/* mmu: the instructions that load and invalidate translations. */
#ifndef MM_X86_64_MMU_H
#define MM_X86_64_MMU_H

#include <mm/port.h>

/*
 * Only map/tlb.c calls these. A host that defines MM_PORT_MMU in its port
 * header brings its own.
 */
#ifndef MM_PORT_MMU

#define MMU_CR4_PGE (UINT64_C(1) << 7)

/*
 * Forget one page of the current space, global or not.
 * Source: [SDM-3A 4.10.4.1 "Operations that Invalidate TLBs and
 *         Paging-Structure Caches"]
 */
static inline void mmu_invlpg(vaddr_t address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

/* Physical address of the top table, with PCID bits off. */
static inline paddr_t mmu_read_root(void)
{
    uint64_t cr3;

    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    return paddr_of(cr3 & ~UINT64_C(0xfff));
}

/* Load the top table; forgets everything but global pages. */
static inline void mmu_write_root(paddr_t root)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(root.v) : "memory");
}

/* Forget everything, global pages too: CR4.PGE off and on. */
static inline void mmu_flush_all(void)
{
    uint64_t cr4;

    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    if ((cr4 & MMU_CR4_PGE) == 0) {
        mmu_write_root(mmu_read_root());
        return;
    }
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 ^ MMU_CR4_PGE) : "memory");
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4) : "memory");
}

#endif

#endif
