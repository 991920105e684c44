/* SPDX-License-Identifier: MIT */
/* access: touch kernel memory through the simulated MMU. */
#include "tests/shared/access.h"

#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"

#define RAM_BYTES (64 * MiB)

void access_boot(void)
{
    sim_boot(RAM_BYTES);
}

bool access_read(const void *address, uint8_t *out)
{
    return sim_read((vaddr_t)address, out);
}

bool access_write(void *address, uint8_t value)
{
    return sim_write((vaddr_t)address, value);
}
