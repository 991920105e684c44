/* SPDX-License-Identifier: MIT */
/* The words every module speaks: addresses, units, status. */
#ifndef MM_TYPES_H
#define MM_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mm/config.h>
#include "base/compiler.h"

#define KiB (UINT64_C(1) << 10)
#define MiB (UINT64_C(1) << 20)
#define GiB (UINT64_C(1) << 30)
#define TiB (UINT64_C(1) << 40)

#define PAGE_SHIFT 12
#define PAGE_BYTES (UINT64_C(1) << PAGE_SHIFT)

/*
 * What a fallible function returns. The values are the negative errno of the
 * same name on Linux, so that a system call can hand them on.
 */
enum mm_status {
    MM_OK = 0,
    MM_ENOENT = -2,
    MM_ENOMEM = -12,
    MM_EFAULT = -14,
    MM_EBUSY = -16,
    MM_EEXIST = -17,
    MM_EINVAL = -22,
    MM_ERANGE = -34,
};

/*
 * Addresses of different worlds are different types, so that mixing them does
 * not compile; the machine code is that of a plain integer.
 */
typedef struct {
    uint64_t v;
} paddr_t; /* physical byte address; never dereferenced */

typedef struct {
    uint64_t v;
} pfn_t; /* frame number: physical address >> PAGE_SHIFT */

typedef uintptr_t vaddr_t; /* virtual address used for arithmetic */

#define PFN_NONE ((pfn_t){UINT64_MAX})

static inline paddr_t paddr_of(uint64_t address)
{
    return (paddr_t){address};
}

static inline pfn_t pfn_of(uint64_t number)
{
    return (pfn_t){number};
}

static inline bool pfn_is_none(pfn_t pfn)
{
    return pfn.v == UINT64_MAX;
}

static inline bool pfn_equal(pfn_t a, pfn_t b)
{
    return a.v == b.v;
}

static inline pfn_t pfn_add(pfn_t pfn, uint64_t frames)
{
    return (pfn_t){pfn.v + frames};
}

static inline paddr_t pfn_to_phys(pfn_t pfn)
{
    return (paddr_t){pfn.v << PAGE_SHIFT};
}

static inline pfn_t phys_to_pfn(paddr_t address)
{
    return (pfn_t){address.v >> PAGE_SHIFT};
}

/* The name of a status, for messages: "MM_ENOMEM". */
static inline const char *mm_status_name(enum mm_status status)
{
    switch (status) {
    case MM_OK:
        return "MM_OK";
    case MM_ENOENT:
        return "MM_ENOENT";
    case MM_ENOMEM:
        return "MM_ENOMEM";
    case MM_EFAULT:
        return "MM_EFAULT";
    case MM_EBUSY:
        return "MM_EBUSY";
    case MM_EEXIST:
        return "MM_EEXIST";
    case MM_EINVAL:
        return "MM_EINVAL";
    case MM_ERANGE:
        return "MM_ERANGE";
    }
    return "unknown status";
}

#endif
