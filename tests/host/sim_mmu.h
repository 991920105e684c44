/* SPDX-License-Identifier: MIT */
/* The simulated MMU: walks real tables, remembers what a TLB would. */
#ifndef TESTS_HOST_SIM_MMU_H
#define TESTS_HOST_SIM_MMU_H

#include <mm/fault.h>
#include <mm/pt.h>

/*
 * Every translation an access makes is kept, as is every table it came
 * through, until the library invalidates it: this TLB never forgets by
 * itself, so that a missing invalidation is always seen.
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

/*
 * Compare each cached translation with the tables.
 * Return: how many are stale (point elsewhere, or allow more).
 */
unsigned sim_stale(void);

/* Translations and tables cached now that lie in [start, start + frames). */
unsigned sim_cached(pfn_t start, uint64_t frames);

/*
 * Report, at each invalidation, frames and tables that were released while a
 * cached translation still led to them. sim_boot() turns it on.
 */
void sim_check_release(bool on);

/* Invalidations the library made since sim_mmu_reset(). */
struct sim_mmu_counts {
    uint64_t pages;
    uint64_t roots;
    uint64_t whole;
};
struct sim_mmu_counts sim_mmu_counts(void);

#endif
