/* SPDX-License-Identifier: MIT */
/* access: touch kernel memory through the kernel's probes. */
#include "tests/shared/access.h"

#include "kernel/fixup.h"

void access_boot(void)
{
    /* It is running this. */
}

bool access_read(const void *address, uint8_t *out)
{
    struct probe probe;

    if (!probe_read8(address, &probe)) {
        return false;
    }
    *out = (uint8_t)probe.value;
    return true;
}

bool access_write(void *address, uint8_t value)
{
    struct probe probe;

    return probe_write8(address, value, &probe);
}
