/* SPDX-License-Identifier: MIT */
/* frame: the guts, for the files of frame alone. */
#ifndef MM_FRAME_IMPL_H
#define MM_FRAME_IMPL_H

#include <mm/frame.h>
#include <mm/port.h>
#include "base/bits.h"
#include "frame/blocks.h"

/* --- a CPU ---------------------------------------------------------------- */

/* Room for two rows; and for what frame_zero_idle() clears ahead. */
#define ARRAY_FRAMES 128

/* Arrays are chosen by a flag of the allocation. */
enum frame_array { ARRAY_PLAIN, ARRAY_ZEROED, ARRAYS };
_Static_assert((int)FRAME_ZEROED == ARRAY_ZEROED, "the flag is the index");

/* Frames of a row, and blocks of a quad, that a CPU keeps. */
enum frame_part {
    PART_ROW,     /* single frames come from here */
    PART_ROW_NEW, /* where those that were freed wait, see frame_free() */
    PART_QUAD,    /* the same for blocks of order 9 */
    PART_QUAD_NEW,
    PARTS
};

struct frame_kept {
    pfn_t first;           /* (P) of the row or quad; or PFN_NONE */
    _Atomic uint64_t mask; /* (P) a bit a frame; or as step_blocks() has it */
};

#define QUAD_FRAMES (QUAD_BLOCKS * BLOCK_FRAMES)

/*
 * (P): changed by its CPU alone, with interrupts off. What is _Atomic others
 * read at any time, to see whether it is worth to ask; frame_look.c reads all,
 * for figures of some moment.
 */
struct frame_cpu {
    _Atomic uint32_t count[ARRAYS]; /* (P) frames in the arrays */
    uint32_t limit;             /* (P) frees stay here up to it; 0: ask first */
    _Atomic uint32_t is_asked;  /* (A) others want it to drain */
    _Atomic uint32_t in_hand;   /* (P) drains under way: frames in no list */
    _Atomic bool is_reclaiming; /* (A) began a call of the hook */
    pfn_t recent;               /* (P) the last block freed */
    _Atomic uint32_t recent_order;        /* (P) its order; 0: none */
    struct frame_kept part[PARTS];        /* (P) */
    struct blocks_seat seat[BLOCKS_USES]; /* (P) */
    pfn_t frame[ARRAYS][ARRAY_FRAMES];    /* (P) the last goes out next */
    uint64_t allocs[FRAME_TYPES];         /* (P) calls that succeeded */
    uint64_t frees[FRAME_TYPES];          /* (P) */
    int64_t extra[FRAME_TYPES];           /* (P) frames beyond one a call */
    _Atomic int64_t taken[FRAME_ZONES];   /* (P) claimed and not released */
    uint64_t metadata;                    /* (P) frames under records */
    uint64_t failures;                    /* (P) */
    uint64_t refills;                     /* (P) */
    uint64_t zeroed_misses;               /* (P) */
    uint64_t zeroed_filled;               /* (P) */
    uint64_t zeroed_lost;                 /* (P) given back */
    uint64_t drains;                      /* (P) */
    uint64_t reclaims;                    /* (P) */
} MM_ALIGNED(64);

extern struct frame_cpu *frame_cpu_of[MM_MAX_CPUS]; /* (C) */
extern unsigned frame_cpu_count;                    /* (C) */

/* This CPU's structure; interrupts are off. */
static inline struct frame_cpu *frame_this_cpu(void)
{
    return frame_cpu_of[port_cpu()];
}

static inline uint32_t frame_count(const struct frame_cpu *cpu,
                                   enum frame_array array)
{
    return atomic_load_explicit(&cpu->count[array], memory_order_relaxed);
}

static inline void frame_set_count(struct frame_cpu *cpu,
                                   enum frame_array array, uint32_t count)
{
    atomic_store_explicit(&cpu->count[array], count, memory_order_relaxed);
}

static inline uint64_t frame_mask(const struct frame_cpu *cpu,
                                  enum frame_part part)
{
    return atomic_load_explicit(&cpu->part[part].mask, memory_order_relaxed);
}

static inline void frame_set_mask(struct frame_cpu *cpu, enum frame_part part,
                                  uint64_t mask)
{
    atomic_store_explicit(&cpu->part[part].mask, mask, memory_order_relaxed);
}

static inline void frame_set_part(struct frame_cpu *cpu, enum frame_part part,
                                  pfn_t first, uint64_t mask)
{
    cpu->part[part].first = first;
    frame_set_mask(cpu, part, mask);
}

/* Is this the part that begins at frame @first? */
static inline bool frame_is_in_part(const struct frame_cpu *cpu,
                                    enum frame_part part, uint64_t first)
{
    return cpu->part[part].first.v == first;
}

static inline void frame_add_to_part(struct frame_cpu *cpu,
                                     enum frame_part part, uint64_t mask)
{
    frame_set_mask(cpu, part, frame_mask(cpu, part) | mask);
}

/* The frame, or the first one of the block, that bit @bit of a mask is for. */
static inline pfn_t frame_in_part(const struct frame_cpu *cpu,
                                  enum frame_part part, unsigned bit)
{
    return pfn_add(cpu->part[part].first,
                   part < PART_QUAD ? bit : bit / COUNT_BITS * BLOCK_FRAMES);
}

/* The lowest frame or block of a part is the CPU's no more. @mask: not 0. */
static inline pfn_t frame_pop_part(struct frame_cpu *cpu, enum frame_part part,
                                   uint64_t mask)
{
    frame_set_mask(cpu, part, mask & (mask - 1));
    return frame_in_part(cpu, part, lowest_bit(mask));
}

static inline uint64_t frame_mask_frames(enum frame_part part, uint64_t mask)
{
    if (mask == 0) {
        return 0;
    }
    return step_frames(mask) * (part < PART_QUAD ? 1 : BLOCK_FRAMES);
}

static inline unsigned frame_recent_order(const struct frame_cpu *cpu)
{
    return atomic_load_explicit(&cpu->recent_order, memory_order_relaxed);
}

static inline void frame_set_recent(struct frame_cpu *cpu, pfn_t pfn,
                                    unsigned order)
{
    cpu->recent = pfn;
    atomic_store_explicit(&cpu->recent_order, order, memory_order_relaxed);
}

static inline int64_t frame_taken(const struct frame_cpu *cpu,
                                  enum frame_zone zone)
{
    return atomic_load_explicit(&cpu->taken[zone], memory_order_relaxed);
}

/* @frames left the shared structure; negative: came back. */
static inline void frame_add_taken(struct frame_cpu *cpu, enum frame_zone zone,
                                   int64_t frames)
{
    atomic_store_explicit(&cpu->taken[zone], frame_taken(cpu, zone) + frames,
                          memory_order_relaxed);
}

/*
 * A frame of a block with so many free ones does not enter the array: it would
 * be handed out next, and the block would never be free altogether, while
 * others that are nearly used up are not filled. As many as a row has: what is
 * not sparse is not worth a refill. (With 128, 49.6 instead of 52.0 % of the
 * possible 2 MiB blocks are free at 75 % use; with 48 it is 52.0, too.)
 */
#define SPARSE_FRAMES ROW_FRAMES

/* Is a frame's block one that should become free altogether? */
static inline bool frame_is_sparse(pfn_t pfn)
{
    return step_free_hint(pfn.v / BLOCK_FRAMES) >= SPARSE_FRAMES;
}

/* --- zones ---------------------------------------------------------------- */

struct frame_zone_state {
    struct blocks_zone blocks;
    _Atomic uint64_t managed; /* (A) frames; frame_add() raises it */
};

extern struct frame_zone_state frame_zones[FRAME_ZONES];
extern enum frame_zone frame_top_zone; /* (C) highest that has trees */
extern struct memmap *frame_map;       /* (C) */
extern uint64_t frame_set_aside_bytes; /* (C) */

/* Frames from here on, 512 TiB, are left alone: see SPARE_ORDER. */
#define FRAMES_REACH (UINT64_C(1) << (32 + SPARE_ORDER))

#define ZONE_DMA_END   (16 * MiB / PAGE_BYTES)
#define ZONE_DMA32_END (4 * GiB / PAGE_BYTES)

static inline enum frame_zone frame_zone_of(pfn_t pfn)
{
    if (pfn.v >= ZONE_DMA32_END) {
        return ZONE_NORMAL;
    }
    return pfn.v >= ZONE_DMA_END ? ZONE_DMA32 : ZONE_DMA;
}

/* The highest zone that will do. */
static inline enum frame_zone frame_zone_for(unsigned flags)
{
    if (flags & FRAME_BELOW_16M) {
        return ZONE_DMA;
    }
    return flags & FRAME_BELOW_4G ? ZONE_DMA32 : ZONE_NORMAL;
}

static inline uint64_t frame_managed(enum frame_zone zone)
{
    return atomic_load_explicit(&frame_zones[zone].managed,
                                memory_order_relaxed);
}

/* --- from and to the shared structure (frame_claim.c) --------------------- */

/* How far a claim goes; see there. */
enum frame_effort { EFFORT_HINTS, EFFORT_ANYWHERE };

/*
 * Grant @wish from the zones up to @highest. Records are backed where they are
 * missing.
 */
MM_MUST_CHECK bool frame_claim_with(enum frame_effort effort,
                                    struct blocks_wish *wish,
                                    enum frame_zone highest);

/* Give this CPU a row of frames; not while anybody is short of them. */
bool frame_refill(void);

/*
 * Give this CPU the free blocks of a quad that have records. Return: false if
 * there are none at its seat or a new one, or if somebody is short.
 */
bool frame_refill_quad(void);

/* Use what waits to be given back as this CPU's row, if it is @least frames. */
bool frame_take_pending(unsigned least);

/* Give back; what is free already is reported. */
void frame_release(pfn_t pfn, unsigned order);
void frame_release_part(enum frame_part part, pfn_t first, uint64_t mask);
/* @count single frames in any order; those of one row go together. */
void frame_release_each(const pfn_t *frame, unsigned count);

/* Give back the @count oldest frames of an array, if it has so many. */
void frame_drain_array(enum frame_array array, unsigned count);

/* Give back a part; the last block freed. Context: interrupts off. */
void frame_drain_part(struct frame_cpu *cpu, enum frame_part part);
void frame_drain_recent(struct frame_cpu *cpu);

/* Give back all that this CPU keeps. Context: interrupts off. */
void frame_drain_cpu(void);

/* --- shortage (frame_short.c) --------------------------------------------- */

/*
 * Grant @wish from the zones that @flags allow, with all that can be done:
 * other CPUs' trees, what they keep, reclaim.
 */
MM_MUST_CHECK bool frame_claim(struct blocks_wish *wish, unsigned flags);

/* Frames of a zone that no CPU has taken; for a moment wrong by some. */
int64_t frame_left(enum frame_zone zone);

/* Have all CPUs give back what they keep. Context: as frame_alloc(). */
void frame_gather(void);

extern bool frame_is_watched;            /* (C) there are watermarks */
extern _Atomic uint32_t frame_shortages; /* (A) allocations in trouble */
extern _Atomic uint64_t frame_motion;    /* (A) frames came back meanwhile */

/* Calls of reclaim() in one allocation: each must have freed something. */
#define FRAME_RECLAIM_TRIES 8

/*
 * Ask the host for memory, if @flags allow it. Return: false if there is none
 * to be had that way.
 */
bool frame_ask_reclaim(uint64_t frames, unsigned flags);

/* Would too little be left after @frames more? */
bool frame_is_barred(uint64_t frames, unsigned flags);

/* May @frames go out of use? The marks can be kept after it. */
bool frame_can_lose(uint64_t frames);

/* Call wake() when the low mark is passed, not again before the high one. */
void frame_watch_marks(void);

/* Is anybody about to fail? Then keep nothing. */
static inline bool frame_is_short(void)
{
    return MM_UNLIKELY(
        atomic_load_explicit(&frame_shortages, memory_order_relaxed) != 0);
}

/* Frames came back: who is short looks again. */
static inline void frame_note_motion(void)
{
    if (frame_is_short()) {
        atomic_fetch_add_explicit(&frame_motion, 1, memory_order_relaxed);
    }
}

/* Changes if anything came back, or was claimed and given up. */
static inline uint64_t frame_motion_now(void)
{
    return atomic_load_explicit(&frame_motion, memory_order_relaxed) +
           atomic_load_explicit(&bitfield_undone, memory_order_relaxed);
}

/* Nobody has set marks or hooks (frame_init). */
void frame_forget_marks(void);

/* --- parts of an allocation ----------------------------------------------- */

/* frame_alloc() of one frame, as part of a larger request. */
pfn_t frame_alloc_one(enum frame_type type, unsigned flags);

/* frame_alloc() and frame_free() of more than one frame (frame_block.c). */
pfn_t frame_alloc_block(unsigned order, enum frame_type type, unsigned flags);
void frame_free_block(pfn_t pfn, unsigned order);

/* The next frame this CPU keeps, or PFN_NONE. Interrupts are off. */
static inline pfn_t frame_pop_here(struct frame_cpu *cpu,
                                   enum frame_array array)
{
    uint32_t count = frame_count(cpu, array);

    if (MM_LIKELY(count > 0)) {
        frame_set_count(cpu, array, count - 1);
        return cpu->frame[array][count - 1];
    }
    uint64_t mask = frame_mask(cpu, PART_ROW);
    if (array == ARRAY_PLAIN && mask != 0) {
        return frame_pop_part(cpu, PART_ROW, mask);
    }
    return PFN_NONE;
}

static inline void frame_count_failure(void)
{
    uint64_t irq = port_irq_save();

    frame_this_cpu()->failures++;
    port_irq_restore(irq);
}

/* @frames at @pfn left the shared structure; negative: came back. */
static inline void frame_count_taken(pfn_t pfn, int64_t frames)
{
    uint64_t irq = port_irq_save();

    frame_add_taken(frame_this_cpu(), frame_zone_of(pfn), frames);
    port_irq_restore(irq);
}

/* --- frames for metadata (frame_meta.c) ----------------------------------- */

/*
 * A run of 2^SPARE_ORDER frames kept for metadata: its number in the upper
 * half, which of its frames are left in the lower.
 */
extern _Atomic uint64_t frame_spare;
#define SPARE_ORDER 5

static inline uint32_t spare_mask(uint64_t spare)
{
    return (uint32_t)spare;
}

static inline pfn_t spare_run(uint64_t spare)
{
    return pfn_of(spare >> 32 << SPARE_ORDER);
}

/* Give back what is left of the run. */
void frame_release_spare(void);

/* --- failures on demand (frame_inject.c) ---------------------------------- */

#if MM_INJECT
/* The choke point: each allocation asks here whether it must fail. */
bool frame_must_fail(const char *site);
#endif

/* --- records -------------------------------------------------------------- */

/* Type and order; two bytes that the compiler reads in one load. */
static inline unsigned record_kind(const struct frame_record *record)
{
    return record->type | (unsigned)record->order << 8;
}

static inline uint32_t record_refs(const struct frame_record *record)
{
    return atomic_load_explicit(&record->refs, memory_order_relaxed);
}

/* Ask about the stamps of a block that is handed out, and remove them. */
void frame_check_stamps(pfn_t pfn, unsigned order);

/* The record of a frame that is not the first of a block in use is all 0. */
static inline void frame_begin_record(pfn_t pfn, unsigned order,
                                      enum frame_type type)
{
    struct frame_record *record = record_of(pfn);

    if (MM_DEBUG) {
        frame_check_stamps(pfn, order);
    }
    record->type = (uint8_t)type;
    if (!MM_IS_CONSTANT(order) || order != 0) { /* 0 it is already */
        record->order = (uint8_t)order;
    }
    /* Nobody else has a reason to look at it now. */
    atomic_store_explicit(&record->refs, 1, memory_order_relaxed);
}

static inline void frame_end_record(struct frame_record *record)
{
    bool is_stamped = MM_DEBUG && record_is_stamped(record);
    uint64_t stamp = is_stamped ? record->owner : 0;

    *record = (struct frame_record){.type = FRAME_NONE};
    if (is_stamped) {
        record_stamp(record, stamp);
    }
}

/* Type of the block of @order with one holder, or FRAME_NONE if it is none. */
static inline unsigned frame_sole_type(const struct frame_record *record,
                                       unsigned order)
{
    unsigned type = record_kind(record) - (order << 8);

    return type < FRAME_TYPES && record_refs(record) == 1 ? type : FRAME_NONE;
}

/* A block was handed out, or came back: what `allocs` and `frees` count. */
static inline void frame_count_alloc(struct frame_cpu *cpu, unsigned order,
                                     enum frame_type type)
{
    cpu->allocs[type]++;
    cpu->extra[type] += (INT64_C(1) << order) - 1;
}

static inline void frame_count_free(struct frame_cpu *cpu, unsigned order,
                                    enum frame_type type)
{
    cpu->frees[type]++;
    cpu->extra[type] -= (INT64_C(1) << order) - 1;
}

/* Make the frames a block that is in use: @pfn has left everything. */
void frame_hand_out(pfn_t pfn, unsigned order, enum frame_type type);

void frame_zero(pfn_t pfn, unsigned order);

/*
 * Debug builds ask the bits, too, whether a block that a record lets pass is
 * in use; others do when it leaves this CPU.
 */
static inline bool frame_is_free_by_bits(pfn_t pfn, unsigned order)
{
    if (!MM_DEBUG || !blocks_is_free(pfn)) {
        return false;
    }
    port_bug("frame: part of the block at 0x%lx, order %u, is free already",
             pfn_to_phys(pfn).v, order);
    return true;
}

/* Say what is wrong with @pfn as a block of @order; @what was called. */
void frame_report(const char *what, pfn_t pfn, unsigned order);

#endif
