/* SPDX-License-Identifier: MIT */
/* memmap: from the firmware's claims to a sorted list with reasons. */
#ifndef MM_MEMMAP_H
#define MM_MEMMAP_H

#include <mm/types.h>

/*
 * What a range of physical addresses is, in ascending order of precedence:
 * where claims overlap, the later type wins; of equal types the later claim.
 */
enum memmap_type {
    MEMMAP_HOLE,        /* nothing was said about it; never in the list */
    MEMMAP_USABLE,      /* RAM, free */
    MEMMAP_RECLAIM,     /* RAM, free once boot (or ACPI) has been read */
    MEMMAP_ACPI,        /* RAM with ACPI tables, or NVS the firmware needs */
    MEMMAP_KERNEL,      /* RAM in use: image, modules, metadata (see owner) */
    MEMMAP_OFFLINE,     /* RAM taken out of use; of no claim */
    MEMMAP_FRAMEBUFFER, /* the screen */
    MEMMAP_RESERVED,    /* the firmware says: do not touch */
    MEMMAP_BAD,         /* RAM that does not hold data */
    MEMMAP_TYPES
};

/* One thing somebody says about physical memory; any bytes, any order. */
struct memmap_claim {
    uint64_t start;  /* physical byte address */
    uint64_t length; /* bytes; start + length may overflow: it is clipped */
    enum memmap_type type;
    const char
        *reason;       /* why: "firmware: type 4 (ACPI NVS)"; kept by pointer */
    const char *owner; /* who: "module initrd.img", or "" */
};

/*
 * Where claims come from. The list is read several times by index, in place,
 * so that no copy of unknown length is needed before there is memory.
 */
struct memmap_source {
    /* Fill @out with claim @index; false when there are no more. */
    bool (*claim)(const void *context, size_t index, struct memmap_claim *out);
    const void *context;
};

/* [start, end) of one type; page-aligned; sorted and disjoint in the list. */
struct memmap_range {
    uint64_t start;
    uint64_t end;
    enum memmap_type type;
    const char *reason;
    const char *owner;
};

struct memmap {
    struct memmap_range *range; /* (C) carved out of the RAM it describes */
    size_t count;               /* (I) ranges in use */
    size_t capacity;            /* (C) ranges there is room for */
    size_t clipped;             /* (C) claims that had to be corrected */
};

/* What the machine can address and what is reachable while building. */
struct memmap_limits {
    uint64_t physical_end; /* RAM at or above it is clipped (MAXPHYADDR) */
    uint64_t mapped_end;   /* phys_to_virt() works below it now */
};

/*
 * Build the list from all claims of @source and place its storage in usable
 * RAM below limits->mapped_end that no claim of another type touches.
 * Usable ranges shrink to whole pages, all others grow to whole pages.
 * Corrected claims (overflow, zero length, out of reach) are named by
 * port_log() with their index and values; nothing is dropped silently.
 * Return: MM_OK; MM_ENOENT if no claim gives one usable page;
 *         MM_ENOMEM if no usable range has room for the list.
 * Cost: O(claims * ranges) moves, no allocation.
 */
MM_MUST_CHECK enum mm_status memmap_build(const struct memmap_source *source,
                                          const struct memmap_limits *limits,
                                          struct memmap *out_map);

/*
 * Take @bytes (not 0; rounded up to pages) of usable RAM for good, highest
 * address first below @below, aligned to @alignment bytes (a power of two >= 4
 * KiB). The range changes to MEMMAP_KERNEL with @owner. Return: MM_OK;
 * MM_ENOMEM, and nothing has changed. Context: before frame_init() has been
 * given the map; one CPU.
 */
MM_MUST_CHECK enum mm_status memmap_carve(struct memmap *map, uint64_t bytes,
                                          uint64_t alignment, uint64_t below,
                                          const char *owner, paddr_t *out);

/*
 * Make [start, end) usable: RAM that the map had kept back. For frame_add().
 * Return: MM_OK; MM_EINVAL if it is unaligned, empty, not RAM or usable
 *         already in any part; MM_ENOMEM if the list is full. On failure
 *         nothing has changed.
 */
MM_MUST_CHECK enum mm_status memmap_release(struct memmap *map, paddr_t start,
                                            paddr_t end);

/*
 * The opposite, for frame_remove(): usable RAM becomes offline.
 * Return: MM_OK; MM_EINVAL if it is unaligned, empty, or not usable in any
 *         part; MM_ENOMEM if the list is full. On failure nothing has changed.
 */
MM_MUST_CHECK enum mm_status memmap_retire(struct memmap *map, paddr_t start,
                                           paddr_t end);

/* The range that holds @address, or NULL for a hole. O(log ranges). */
const struct memmap_range *memmap_find(const struct memmap *map,
                                       paddr_t address);

/* Index of the first range that ends above @address, or map->count. */
size_t memmap_first_above(const struct memmap *map, uint64_t address);

/* Bytes of all ranges of @type. */
uint64_t memmap_bytes(const struct memmap *map, enum memmap_type type);

/* End of the highest range that is RAM (see memmap_is_ram), or 0. */
uint64_t memmap_ram_end(const struct memmap *map);

/* Does a range of this type hold data like RAM (direct map, 4 KiB frames)? */
bool memmap_is_ram(enum memmap_type type);

/* "usable", "reclaimable", "ACPI", "kernel", ... */
const char *memmap_type_name(enum memmap_type type);

/* Invariants: sorted, disjoint, aligned, no hole entries, equal runs merged. */
bool memmap_check(const struct memmap *map);

#endif
