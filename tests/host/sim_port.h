/* SPDX-License-Identifier: MIT */
/* The second port: simulated RAM, processors and MMU that check the rules. */
#ifndef TESTS_HOST_SIM_PORT_H
#define TESTS_HOST_SIM_PORT_H

#if SIM_HIDES
#include <sanitizer/asan_interface.h>
#endif

#include <mm/types.h>

/* Where simulated physical address 0 lies in this process. */
extern char *sim_ram;

unsigned sim_cpu(void);
uint64_t sim_irq_save(void);
void sim_irq_restore(uint64_t state);
void sim_relax(void);

#if SIM_RESTARTS
#define MM_PORT_RESTARTS 1 /* sim_cpus.c loads GS */
#endif

static inline unsigned port_cpu(void)
{
    return sim_cpu();
}

static inline uint64_t port_irq_save(void)
{
    return sim_irq_save();
}

static inline void port_irq_restore(uint64_t state)
{
    sim_irq_restore(state);
}

static inline void *phys_to_virt(paddr_t address)
{
    return sim_ram + address.v;
}

static inline paddr_t virt_to_phys(const void *pointer)
{
    return paddr_of((uint64_t)((const char *)pointer - sim_ram));
}

static inline void port_relax(void)
{
    sim_relax();
}

/*
 * AddressSanitizer reports who touches a free object. Not in debug builds,
 * which look at free objects themselves.
 */
#if SIM_HIDES
#define MM_PORT_HIDES 1
static inline void port_hide(const void *start, uint64_t bytes)
{
    __asan_poison_memory_region(start, bytes);
}

static inline void port_show(const void *start, uint64_t bytes)
{
    __asan_unpoison_memory_region(start, bytes);
}
#endif

/* The simulated MMU watches every invalidation (sim_mmu.c). */
#define MM_PORT_MMU 1
uint64_t mmu_read_cr3(void);
void mmu_write_cr3(uint64_t cr3);
void mmu_enable_pcid(void);
void mmu_invlpg(vaddr_t address);
void mmu_invpcid(unsigned type, uint64_t pcid, vaddr_t address);
void mmu_flush_all(void);

#endif
