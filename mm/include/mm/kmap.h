/* SPDX-License-Identifier: MIT */
/* kmap: kernel memory that is contiguous in addresses, not in frames. */
#ifndef MM_KMAP_H
#define MM_KMAP_H

#include <mm/attr.h>
#include <mm/memmap.h>
#include <mm/types.h>

/*
 * Every block stands between guards: the page before and the page after it
 * are PT_GUARD promises, so that an overrun is a report with a name.
 */
enum kmap_flags {
    KMAP_EAGER = 0,     /* all frames now */
    KMAP_LAZY = 1 << 0, /* a zeroed frame at the first touch of each page */
    KMAP_ZERO = 1 << 1  /* eager, and zeroed */
};

struct kmap_stats {
    uint64_t blocks;
    uint64_t bytes;       /* of the blocks, without guards */
    uint64_t kept_pages;  /* of small blocks that were freed: kmap_keep() */
    uint64_t arena_bytes; /* size of the arena */
    uint64_t arena_free;  /* bytes of addresses */
};

/* What a block at an address is, for `explain` and fault reports. */
struct kmap_info {
    vaddr_t start;
    uint64_t bytes;
    const char *name;
    bool is_guard; /* the address is in a guard of the block */
};

/*
 * Manage [start, end) of kernel addresses, which pt_open() must accept as one
 * range. After kmalloc_init() and pt_adopt().
 * @map: where windows must not lead; kept by pointer.
 * Return: MM_OK; what pt_open() says of the range; MM_ENOMEM.
 */
MM_MUST_CHECK enum mm_status kmap_init(vaddr_t start, vaddr_t end,
                                       const struct memmap *map);

/*
 * @bytes is rounded up to pages. @name is kept by pointer.
 * Return: NULL if out of memory or addresses, or while another CPU is giving
 *         back all that is left of them; nothing is left behind.
 * Context: not from interrupts; may wait for other CPUs.
 */
MM_MUST_CHECK void *kmap_alloc(uint64_t bytes, unsigned flags,
                               const char *name);

/*
 * A window onto device memory. @start and @bytes need not be aligned.
 * Allowed are holes of the memory map and what the firmware keeps: reserved,
 * ACPI, the screen, bad RAM. All other RAM is out of bounds, in use or free:
 * page tables and code must not be written through a window.
 * Return: pointer to the byte @start; NULL for an empty or overflowing range,
 *         one that is out of bounds in any part, or lack of memory.
 * Cost: a search of the map; an entry for each page.
 */
MM_MUST_CHECK void *kmap_mmio(paddr_t start, uint64_t bytes,
                              enum pt_memory memory, const char *name);

/* A stack; returns its lowest byte (the top is at + bytes). */
MM_MUST_CHECK void *kmap_stack(uint64_t bytes, const char *name);

/*
 * Free what any of the above returned (NULL too). Any other pointer, and one
 * that was freed before, is a bug report that changes nothing.
 * Context: as kmap_alloc().
 */
void kmap_free(void *block);

/* Is @address one of kmap's, in a block or not? */
bool kmap_has(const void *address);

/*
 * Small blocks that were freed are kept, so that they are had again for a few
 * instructions. Their addresses cannot be touched, but the frames behind them,
 * and the flush of windows, wait until they are more than @pages a CPU: then
 * one flush serves all. With 0 each is flushed and let go of at once, as it is
 * where MM_DEBUG is on.
 * Context: nobody else uses kmap; what is kept already stays until a purge.
 */
void kmap_keep(unsigned pages);

/*
 * From now on frames that are kept go when memory is short. Once, after
 * kmap_init() and shrink_init().
 */
void kmap_join_shrinkers(void);

/*
 * Let go of all that is kept, on all CPUs.
 * Return: the number of frames. Context: as kmap_alloc().
 */
uint64_t kmap_purge(void);

/*
 * Which block (guards included) holds @address? For reports, also of faults
 * and from an NMI: false before kmap_init(), while this CPU is at work in the
 * arena, and if another one does not leave it for about a millisecond.
 * Cost: O(blocks).
 */
bool kmap_find(vaddr_t address, struct kmap_info *out);

void kmap_stats(struct kmap_stats *out);
/* The arena and the tables agree. Nobody else may change either meanwhile. */
bool kmap_check(void);

#endif
