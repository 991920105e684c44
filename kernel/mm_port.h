/* SPDX-License-Identifier: MIT */
/* mm_port: the hot hooks of mm/port.h for this kernel. */
#ifndef KERNEL_MM_PORT_H
#define KERNEL_MM_PORT_H

#include <mm/types.h>
#include "kernel/cpu.h"
#include "kernel/layout.h"

/* percpu.h keeps the number there, and trap.c begins sequences anew. */
#define MM_PORT_RESTARTS 1
#define MM_PORT_PEEKS    1

static inline unsigned port_cpu(void)
{
    return cpu_gs_index();
}

static inline uint64_t port_irq_save(void)
{
    return cpu_irq_save();
}

static inline void port_irq_restore(uint64_t state)
{
    cpu_irq_restore(state);
}

static inline void port_relax(void)
{
    cpu_pause();
}

static inline uint32_t port_peek(const uint32_t *at)
{
    return cpu_peek32(at);
}

static inline void *phys_to_virt(paddr_t address)
{
    return (void *)(uintptr_t)(LAYOUT_DIRECT + address.v);
}

static inline paddr_t virt_to_phys(const void *pointer)
{
    return paddr_of((uint64_t)(uintptr_t)pointer - LAYOUT_DIRECT);
}

#endif
