/* SPDX-License-Identifier: MIT */
/* The port of the proofs: there is no machine. */
#ifndef TESTS_PROOFS_PORT_H
#define TESTS_PROOFS_PORT_H

#include <mm/types.h>

static inline unsigned port_cpu(void)
{
    return 0;
}

static inline uint64_t port_irq_save(void)
{
    return 0;
}

static inline void port_irq_restore(uint64_t state)
{
    (void)state;
}

static inline void port_relax(void)
{
}

/*
 * CBMC knows nothing of what a pointer made of a number points to: page tables
 * are an array, of which PROOF_FRAMES says the size.
 */
#ifdef PROOF_FRAMES
extern uint64_t proof_memory[PROOF_FRAMES][1u << MM_TABLE_BITS];

static inline void *phys_to_virt(paddr_t address)
{
    return proof_memory[address.v >> PAGE_SHIFT];
}
#else
static inline void *phys_to_virt(paddr_t address)
{
    return (void *)(uintptr_t)address.v;
}
#endif

static inline paddr_t virt_to_phys(const void *pointer)
{
    return paddr_of((uintptr_t)pointer);
}

#endif
