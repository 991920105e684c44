/* SPDX-License-Identifier: MIT */
/* frame: physical memory in blocks of 2^order frames. */
#ifndef MM_FRAME_H
#define MM_FRAME_H

#include <mm/memmap.h>
#include <mm/record.h>
#include <mm/types.h>

/* Wishes of an allocation, or-ed. */
enum frame_flags {
    FRAME_ANY = 0,
    FRAME_ZEROED = 1 << 0,   /* contents are zero */
    FRAME_BELOW_4G = 1 << 1, /* for devices with 32 address bits */
    FRAME_BELOW_16M = 1 << 2 /* for ISA DMA and start-up code of CPUs */
};

/* Zones, lowest first; frames are taken from the highest that will do. */
enum frame_zone { ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, FRAME_ZONES };

enum frame_state {
    FRAME_STATE_FREE,      /* in the shared structure */
    FRAME_STATE_CACHED,    /* free, in a CPU's array */
    FRAME_STATE_ALLOCATED, /* handed out (type, order, refs in its record) */
    FRAME_STATE_METADATA,  /* holds records or their tables; has no record */
    FRAME_STATE_RESERVED,  /* RAM that is not the allocator's (see memmap) */
    FRAME_STATE_NO_RAM
};

struct frame_stats {
    uint64_t managed;  /* frames that can be allocated, now or later */
    uint64_t free;     /* of those free, cached ones included */
    uint64_t cached;   /* of the free ones kept by CPUs or for metadata */
    uint64_t metadata; /* of the managed ones under records */
    uint64_t zone_managed[FRAME_ZONES];
    uint64_t zone_free[FRAME_ZONES];
    uint64_t by_type[FRAME_TYPES]; /* frames handed out, by frame_type */
    uint64_t allocs;               /* successful calls since start */
    uint64_t frees;
    uint64_t failures;        /* calls that found no memory */
    uint64_t refills;         /* times a CPU's array was filled */
    uint64_t set_aside_bytes; /* metadata reserved by frame_init() */
};

/* Bytes of storage frame_init() needs for the RAM in @map. */
uint64_t frame_metadata_bytes(const struct memmap *map);

/*
 * Take over all usable ranges of @map below 512 TiB (what lies above is left
 * alone, and named by port_log()), but frame 0, which an empty page-table
 * entry names. Touches one word a tree (16 MiB), not the RAM: bitfields come
 * to life on first use.
 * @storage: frame_metadata_bytes(map) bytes, 4 KiB-aligned, in the direct map.
 * @map: stays where it is and must not change any more, but by frame_add().
 * Context: once (tests: again), one CPU, after record_init().
 */
void frame_init(struct memmap *map, void *storage);

/*
 * Allocate 2^order contiguous frames, aligned to their size.
 * @order  0 .. MM_MAX_ORDER
 * @type   what for; not FRAME_NONE. Kept in the record with one reference.
 * Shape:  the record of the first frame says type, order and 1 reference, all
 *         else in it is 0. The records of the others are untouched.
 * Return: first frame; PFN_NONE if no zone allowed by @flags has such a block
 *         whose records are there or can be backed.
 * Context: any, also interrupts. Takes no lock of its own (backing may); waits
 *         only while another CPU wakes the same 16 MiB.
 * Cost:   order 0: some 30 instructions, a row of 64 frames each 64th time.
 *         Others: a few atomic operations.
 */
MM_MUST_CHECK pfn_t frame_alloc(unsigned order, enum frame_type type,
                                unsigned flags);

/*
 * Give back a block whose last reference the caller holds.
 * A wrong address, a wrong order or a block that is already free is reported
 * by port_bug() with the values, in every build, and changes nothing.
 * Whoever has marked records of frames inside the block unmarks them before.
 * Context: any. A frame that was mapped goes through tlb_batch_release().
 */
void frame_free(pfn_t pfn, unsigned order);

/*
 * One zeroed frame without a record, never freed: for the frames under the
 * record array and the tables that map it. PFN_NONE if there is none.
 */
MM_MUST_CHECK pfn_t frame_alloc_metadata(void);

/*
 * Debug builds: asked with what record_stamp() has left, before the frame is
 * handed out again. Set by tlb_init().
 */
extern void (*frame_check_reuse)(pfn_t pfn, uint64_t stamp); /* (C) */

/* One more holder. Overflow of the 32-bit count is a bug report. */
void frame_ref(pfn_t pfn);

/* One holder less; the block is freed with the last one. */
void frame_unref(pfn_t pfn);

/*
 * Make an allocated block of @order into 2^order blocks of order 0 with the
 * same type, one reference each and all else 0. Order 0 stays as it is.
 * Return: MM_OK; MM_EBUSY: the block has more than one holder; MM_EINVAL:
 *         there is no such block, which is reported by port_bug(). On failure
 *         nothing has changed.
 */
MM_MUST_CHECK enum mm_status frame_split(pfn_t pfn, unsigned order);

/*
 * The opposite, for 2^order sole-owned order-0 frames of one type in a row.
 * Return: MM_OK; MM_EINVAL: they are not that; nothing has changed.
 */
MM_MUST_CHECK enum mm_status frame_join(pfn_t pfn, unsigned order);

/*
 * Hand frames to the allocator that the map had kept back (boot page tables,
 * reclaimable ranges). [start, end) must lie in RAM of the map and not be
 * the allocator's yet; it becomes usable in the map.
 * Return: MM_OK; MM_EINVAL; MM_ENOMEM if the map's list is full. On failure
 *         nothing has changed.
 * Context: one CPU, before others start: the map is not locked.
 */
MM_MUST_CHECK enum mm_status frame_add(pfn_t start, pfn_t end);

/* Return all this CPU keeps, and what is kept for metadata, to the others. */
void frame_drain(void);

enum frame_state frame_state(pfn_t pfn);
void frame_stats(struct frame_stats *out);

/*
 * Free blocks per order as a buddy allocator would count them: each maximal
 * aligned free block once, for one zone. Walks the touched trees.
 */
void frame_free_blocks(enum frame_zone zone,
                       uint64_t out_count[MM_MAX_ORDER + 1]);

const char *frame_zone_name(enum frame_zone zone);

/* Counters equal to the bits, everywhere. Walks all touched trees. */
bool frame_check(void);

#if MM_INJECT
/* Let the @nth allocation from now on fail (1 = the next), 0 = none. */
void frame_inject(uint64_t nth);
/* Allocations tried since frame_inject(). */
uint64_t frame_inject_count(void);
#endif

#endif
