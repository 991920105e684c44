/* SPDX-License-Identifier: MIT */
/* unaligned: numbers of firmware's structures, wherever they stand. */
#ifndef KERNEL_LIB_UNALIGNED_H
#define KERNEL_LIB_UNALIGNED_H

#include <mm/types.h>
#include "base/memory.h"

/* Little-endian, as the processor. */
static inline uint32_t read32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint64_t read64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

#endif
