/* SPDX-License-Identifier: MIT */
/* The smallest port: an ordinary process whose RAM is one mapping. */
#ifndef MY_PORT_H
#define MY_PORT_H

#include <mm/types.h>

extern unsigned char *my_ram; /* physical address 0 */

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

static inline void *phys_to_virt(paddr_t address)
{
    return my_ram + address.v;
}

static inline paddr_t virt_to_phys(const void *pointer)
{
    return paddr_of((uint64_t)((const unsigned char *)pointer - my_ram));
}

static inline void port_relax(void)
{
}

#endif
