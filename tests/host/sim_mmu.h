/* SPDX-License-Identifier: MIT */
/* The simulated MMUs: they walk real tables and remember what a TLB would. */
#ifndef TESTS_HOST_SIM_MMU_H
#define TESTS_HOST_SIM_MMU_H

#include <mm/fault.h>
#include <mm/pt.h>

/*
 * Each CPU keeps every translation that an access makes, and every table it
 * came through, under the PCID that was current, until the library has them
 * invalidated there: these TLBs never forget by themselves, so that a missing
 * invalidation is always seen. What they do forget is exactly what
 * [SDM-3A 4.10.4.1 "Operations that Invalidate TLBs and Paging-Structure
 * Caches"] promises, and nothing of what it merely allows.
 *
 * Functions without a CPU number speak of the CPU this thread plays.
 */

/* Kernel addresses of the simulated machine. */
#define SIM_DIRECT UINT64_C(0xffff800000000000)
#define SIM_KMAP   UINT64_C(0xffffc00000000000)
#define SIM_RECORD UINT64_C(0xffffe00000000000)

void sim_mmu_reset(void);

/*
 * One byte through the TLB and the tables of the loaded space, with faults
 * handed to fault_handle() as the kernel does.
 * Return: false if the access ends in an error; sim_last_fault() says which.
 */
bool sim_read(vaddr_t address, uint8_t *out);
bool sim_write(vaddr_t address, uint8_t value);
bool sim_execute(vaddr_t address);
enum fault_result sim_last_fault(void);

/*
 * Translate without the fault handler: what would the CPU do now?
 * @access: enum walk_access. Fills the TLB if it succeeds.
 */
enum walk_verdict sim_translate(vaddr_t address, unsigned access, paddr_t *out);

/* Walk to @address as a CPU does on a guess: caches, but never faults. */
void sim_walk_ahead(vaddr_t address);

/* What the machine has switched on. */
void sim_set_rules(struct walk_rules rules);

/* What its CPUs have, of TLB_PCID and TLB_INVPCID. */
void sim_set_parts(unsigned parts);

/*
 * Compare what each CPU could use now (the current PCID's, and global ones;
 * of an idle CPU only the kernel's) with the tables.
 * Return: how many are stale (point elsewhere, or allow more).
 */
unsigned sim_stale(void);

/*
 * Translations and tables that CPUs could use now and that lie in
 * [start, start + frames).
 */
unsigned sim_cached(pfn_t start, uint64_t frames);

/* Have the rules of sim_watch.c reported by port_bug(); sim_boot() does. */
void sim_set_watching(bool on);

/*
 * This CPU descends through @table by software, without a lock: it must not
 * be released until the descent ends.
 */
void sim_note_descent(pfn_t table);
void sim_end_descent(void);

/* Invalidations the library made since sim_mmu_reset(). */
struct sim_mmu_counts {
    uint64_t pages;      /* INVLPG */
    uint64_t roots;      /* CR3 loads that forget */
    uint64_t kept;       /* CR3 loads that keep what the PCID has */
    uint64_t whole;      /* everything, by CR4.PGE */
    uint64_t invpcid[4]; /* by type */
};
struct sim_mmu_counts sim_mmu_counts(void); /* of all CPUs together */
struct sim_mmu_counts sim_mmu_counts_of(unsigned cpu);

#endif
