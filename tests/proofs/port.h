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

static inline void *phys_to_virt(paddr_t address)
{
    return (void *)(uintptr_t)address.v;
}

static inline paddr_t virt_to_phys(const void *pointer)
{
    return paddr_of((uintptr_t)pointer);
}

#endif
