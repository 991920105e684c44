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
    FRAME_ZEROED = 1 << 0,      /* contents are zero */
    FRAME_BELOW_4G = 1 << 1,    /* for devices with 32 address bits */
    FRAME_BELOW_16M = 1 << 2,   /* for ISA DMA and start-up code of CPUs */
    FRAME_MAY_RECLAIM = 1 << 3, /* no lock is held: the hook may be asked */
    FRAME_RESERVE = 1 << 4      /* may go below the lowest watermark */
};

/* Zones, lowest first; frames are taken from the highest that will do. */
enum frame_zone { ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, FRAME_ZONES };

enum frame_state {
    FRAME_STATE_FREE,      /* in the shared structure */
    FRAME_STATE_CACHED,    /* free, in a CPU's array */
    FRAME_STATE_ALLOCATED, /* handed out (type, order, refs in its record) */
    FRAME_STATE_METADATA,  /* holds records or their tables; has no record */
    FRAME_STATE_RESERVED,  /* RAM that is not the allocator's (see memmap) */
    FRAME_STATE_OFFLINE,   /* taken out by frame_remove() */
    FRAME_STATE_NO_RAM
};

struct frame_stats {
    uint64_t managed;  /* frames that can be allocated, now or later */
    uint64_t free;     /* of those free, cached ones included */
    uint64_t cached;   /* of the free ones kept by CPUs or for metadata */
    uint64_t zeroed;   /* of the cached ones known to be zero */
    uint64_t metadata; /* of the managed ones under records */
    uint64_t zone_managed[FRAME_ZONES];
    uint64_t zone_free[FRAME_ZONES];
    uint64_t by_type[FRAME_TYPES]; /* frames handed out, by frame_type */
    uint64_t allocs;               /* successful calls since start */
    uint64_t frees;
    uint64_t failures;        /* calls that found no memory */
    uint64_t refills;         /* times a CPU took a row of frames */
    uint64_t zeroed_hits;     /* FRAME_ZEROED frames that were ready */
    uint64_t zeroed_misses;   /* cleared while the caller waited */
    uint64_t zeroed_filled;   /* cleared by frame_zero_idle() */
    uint64_t drains;          /* times other CPUs were asked to drain */
    uint64_t reclaims;        /* times the reclaim hook was asked */
    uint64_t set_aside_bytes; /* metadata reserved by frame_init() */
};

/* Bytes of storage frame_init() needs for the RAM in @map. */
uint64_t frame_metadata_bytes(const struct memmap *map);

/*
 * Take over all usable ranges of @map below 512 TiB (what lies above is left
 * alone, and named by port_log()), but frame 0, which an empty page-table
 * entry names. Touches a bit for each 2 MiB, not the RAM: tree words and
 * bitfields come to life on first use.
 * @storage: frame_metadata_bytes(map) bytes, 4 KiB-aligned, in the direct map.
 * @map: stays where it is and must not change any more, but by
 *       frame_add() and frame_remove().
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
 * Context: any, also interrupts. Takes no lock of its own (backing may). Before
 *         it fails it takes what other CPUs have reserved, and waits until
 *         they have given back what they keep; see docs/locking.md.
 * Cost:   order 0: some 30 instructions, a row of 64 frames each 64th time.
 *         Others: a few atomic operations.
 */
MM_MUST_CHECK pfn_t frame_alloc(unsigned order, enum frame_type type,
                                unsigned flags);

/*
 * Allocate up to @count single frames, as frame_alloc() of order 0 does each.
 * @out    PFNs; what lies beyond the number returned is not written
 * Return: frames in @out; fewer than @count only if memory is short.
 * Context, Cost: as frame_alloc(); some 20 instructions a frame.
 */
MM_MUST_CHECK unsigned frame_alloc_bulk(pfn_t *out, unsigned count,
                                        enum frame_type type, unsigned flags);

/*
 * Allocate @frames frames in a row, any number: 262,144 are 1 GiB. They come
 * as blocks in a row, the largest that alignment and MM_MAX_ORDER allow, each
 * with a record of its own: the run may be given back as a whole or block by
 * block, and has no holders as a whole.
 * @frames    not 0
 * @alignment frames; a power of two
 * Return: first frame; PFN_NONE if no zone allowed by @flags has such a run.
 * Cost:   reads the counts of all blocks of the zones, at worst.
 */
MM_MUST_CHECK pfn_t frame_alloc_run(uint64_t frames, uint64_t alignment,
                                    enum frame_type type, unsigned flags);

/*
 * Give back a block whose last reference the caller holds.
 * A wrong address, a wrong order or a block that is already free is reported
 * by port_bug() with the values, in every build, and changes nothing.
 * Whoever has marked records of frames inside the block unmarks them before.
 * Context: any. A frame that was mapped goes through tlb_batch_release().
 */
void frame_free(pfn_t pfn, unsigned order);

/*
 * The same for a block of more than one frame, by the record of its first one,
 * which the caller has looked at: no other frame's has a type.
 */
void frame_free_record(struct frame_record *record);

/* frame_free() of each of @count single frames. */
void frame_free_bulk(const pfn_t *frames, unsigned count);

/*
 * The same for @count single frames in a row. They go straight to the others,
 * a row of 64 at once.
 */
void frame_free_row(pfn_t first, unsigned count);

/*
 * Give back [first, first + frames): blocks in a row that begin and end there,
 * as frame_alloc_run() has them or split or joined since. If one is not so, the
 * first is reported as by frame_free(), and all of them stay.
 */
void frame_free_run(pfn_t first, uint64_t frames);

/*
 * One zeroed frame without a record, never freed once it is in use: for the
 * frames under the record array and the tables that map it. PFN_NONE if there
 * is none.
 */
MM_MUST_CHECK pfn_t frame_alloc_metadata(void);

/* Give such a frame back, of which nothing has come: nobody has found it. */
void frame_free_metadata(pfn_t pfn);

/*
 * Debug builds: asked with what record_stamp() has left, before the frame is
 * handed out again. Set by tlb_init().
 */
extern void (*frame_check_reuse)(pfn_t pfn, uint64_t stamp); /* (C) */

/* One more holder. Overflow of the 32-bit count is a bug report. */
void frame_ref(pfn_t pfn);
void frame_ref_many(pfn_t pfn, uint32_t count);

/*
 * Has the block that @pfn is a frame of one holder alone? Frames that are not
 * the first of a block stand in one of 2 MiB. Acquire: who was alone before
 * has written all it wrote.
 */
bool frame_is_sole(pfn_t pfn);

/* The first frame of that block. */
pfn_t frame_head(pfn_t pfn);

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
 * The block at @pfn, which its caller holds alone, is used for @type from now
 * on; what else its record says of it stands before.
 */
void frame_set_type(pfn_t pfn, enum frame_type type);

/*
 * Hand frames to the allocator that the map had kept back (boot page tables,
 * reclaimable ranges) or that frame_remove() has taken out. [start, end) must
 * lie in RAM of the map and not be the allocator's yet; it becomes usable.
 * Return: MM_OK; MM_EINVAL; MM_ENOMEM if the map's list is full; MM_EBUSY if
 *         another CPU has begun to use a tree of 16 MiB there for the first
 *         time, and does not get on with it: it was waited for. On failure
 *         nothing has changed.
 * Context: ordinary code; other CPUs may allocate and free meanwhile.
 */
MM_MUST_CHECK enum mm_status frame_add(pfn_t start, pfn_t end);

/*
 * Take [start, end), all of it the allocator's, out of use: frames that go
 * bad, memory that leaves the machine. In the map it is offline from then on.
 * Frames that CPUs keep are asked for first.
 * @out_busy  the first frame in use, with MM_EBUSY; or NULL
 * Return: MM_OK; MM_EINVAL; MM_EBUSY: a frame is in use, or was for a moment,
 *         or cannot be told, as for frame_add(); MM_ENOMEM if the map's list
 *         is full, if fewer frames than the lowest watermark would be left
 *         free, or if the high one would be out of reach. On failure nothing
 *         has changed. Below the low mark it succeeds, and wake() is called.
 * Context: as frame_add(), and no lock is held.
 */
MM_MUST_CHECK enum mm_status frame_remove(pfn_t start, pfn_t end,
                                          pfn_t *out_busy);

/* --- what a CPU keeps for itself ------------------------------------------ */

/* Return all this CPU keeps, and what is kept for metadata, to the others. */
void frame_drain(void);

/*
 * What port_send_frame_interrupt() asks for: this CPU gives back what it
 * keeps, if another one is short of it.
 * Context: interrupts off; not from NMI or machine check. Takes no lock.
 */
void frame_interrupt(void);

/*
 * Clear one frame for this CPU's array of zeroed ones.
 * Return: false if there is nothing to do: the array is full, or no frame is
 *         at hand without taking it from others.
 * Context: an idle loop; interrupts are off while 4 KiB are cleared.
 */
bool frame_zero_idle(void);

/* --- shortage ------------------------------------------------------------- */

/*
 * Frames free in all zones at which something is done about it. All 0 from
 * frame_init() on: then an allocation fails only when there is nothing left.
 */
struct frame_watermarks {
    uint64_t min;  /* below it only FRAME_RESERVE allocates */
    uint64_t low;  /* below it wake() is called, once */
    uint64_t high; /* from here on it may be called again */
};

/* The host's ways to get memory back; either may be NULL. */
struct frame_reclaim {
    /*
     * Free memory for @frames frames, if possible. Return: how many were
     * freed; 0: do not try again. Called from allocations that say
     * FRAME_MAY_RECLAIM, in their context; never from inside itself, if it
     * stays on its CPU.
     */
    uint64_t (*reclaim)(uint64_t frames);
    /* Have somebody reclaim soon. Context: any, interrupts may be off. */
    void (*wake)(void);
};

/*
 * Return: MM_OK; MM_EINVAL unless min <= low <= high <= managed frames.
 * Context: one CPU at a time; allocations under way may still see the old ones.
 */
MM_MUST_CHECK enum mm_status frame_set_watermarks(
    const struct frame_watermarks *marks);
void frame_watermarks(struct frame_watermarks *out);

/* @hooks: stay where they are; NULL: none. Context: while nobody allocates. */
void frame_set_reclaim(const struct frame_reclaim *hooks);

/* --- looking -------------------------------------------------------------- */

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

/* --- failures on demand --------------------------------------------------- */

#if MM_INJECT
/*
 * Which allocations fail, of those that are asked for by function @site (NULL:
 * by any), counted from frame_inject_set() on: number @nth (0: none), and
 * each number that @every divides (0: none). frame_alloc(), _bulk (once a
 * call), _run and _metadata count.
 */
struct frame_injection {
    uint64_t nth;
    uint64_t every;
    const char *site; /* stays where it is */
};

/* NULL: none fails. */
void frame_inject_set(const struct frame_injection *injection);
/* Let the @nth allocation from now on fail (1 = the next), 0 = none. */
void frame_inject(uint64_t nth);
/* Allocations of the site tried since then. */
uint64_t frame_inject_count(void);
/* Of those, how many were made to fail. */
uint64_t frame_inject_failed(void);

/* Who asks is part of the call. */
pfn_t frame_alloc_at(const char *site, unsigned order, enum frame_type type,
                     unsigned flags);
unsigned frame_alloc_bulk_at(const char *site, pfn_t *out, unsigned count,
                             enum frame_type type, unsigned flags);
pfn_t frame_alloc_run_at(const char *site, uint64_t frames, uint64_t alignment,
                         enum frame_type type, unsigned flags);
#define frame_alloc(...)      frame_alloc_at(__func__, __VA_ARGS__)
#define frame_alloc_bulk(...) frame_alloc_bulk_at(__func__, __VA_ARGS__)
#define frame_alloc_run(...)  frame_alloc_run_at(__func__, __VA_ARGS__)
#endif

#endif
