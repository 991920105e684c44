/* SPDX-License-Identifier: MIT */
/* frame: the guts, for frame.c and for frame_look.c that reads them. */
#ifndef MM_FRAME_IMPL_H
#define MM_FRAME_IMPL_H

#include <mm/frame.h>
#include <mm/port.h>
#include "frame/blocks.h"

/* Room for two rows: a refill fits in while half of it is in use. */
#define ARRAY_FRAMES 128

struct frame_cpu {
    uint32_t count;               /* (P) frames in the array */
    int32_t until_bypass;         /* (P) frees until one passes it by */
    blocks_seat seat;             /* (A) see blocks.h */
    pfn_t frame[ARRAY_FRAMES];    /* (P) the last is the next to go out */
    uint64_t allocs[FRAME_TYPES]; /* (P) calls that succeeded */
    uint64_t frees[FRAME_TYPES];  /* (P) */
    int64_t extra[FRAME_TYPES];   /* (P) frames in use beyond one a call */
    int64_t taken[FRAME_ZONES];   /* (P) frames claimed and not released */
    uint64_t metadata;            /* (P) frames under records */
    uint64_t failures;            /* (P) */
    uint64_t refills;             /* (P) */
} MM_ALIGNED(64);

struct frame_zone_state {
    struct blocks_zone blocks;
    uint64_t managed; /* (I) frames; frame_add() raises it */
};

extern struct frame_cpu *frame_cpus;   /* (C) one a processor */
extern unsigned frame_cpu_count;       /* (C) */
extern struct memmap *frame_map;       /* (C) */
extern uint64_t frame_set_aside_bytes; /* (C) */
extern struct frame_zone_state frame_zones[FRAME_ZONES];

/*
 * A run of 2^SPARE_ORDER frames kept for metadata: its number in the upper
 * half, which of its frames are left in the lower.
 */
extern _Atomic uint64_t frame_spare;
#define SPARE_ORDER 5

/* Run numbers have 32 bits: frames from here on, 512 TiB, are left alone. */
#define FRAMES_REACH (UINT64_C(1) << (32 + SPARE_ORDER))

static inline uint32_t spare_mask(uint64_t spare)
{
    return (uint32_t)spare;
}

static inline pfn_t spare_run(uint64_t spare)
{
    return pfn_of(spare >> 32 << SPARE_ORDER);
}

#define ZONE_DMA_END   (16 * MiB / PAGE_BYTES)
#define ZONE_DMA32_END (4 * GiB / PAGE_BYTES)

static inline enum frame_zone frame_zone_of(pfn_t pfn)
{
    if (pfn.v >= ZONE_DMA32_END) {
        return ZONE_NORMAL;
    }
    return pfn.v >= ZONE_DMA_END ? ZONE_DMA32 : ZONE_DMA;
}

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

static inline void frame_begin_record(pfn_t pfn, unsigned order,
                                      enum frame_type type)
{
    if (MM_DEBUG) {
        frame_check_stamps(pfn, order);
    }
    /* As one: two stores. Nobody else has a reason to look at it now. */
    *record_of(pfn) = (struct frame_record){
        .refs = 1, .type = (uint8_t)type, .order = (uint8_t)order};
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

/* Say what is wrong with @pfn as a block of @order; @what was called. */
void frame_report(const char *what, pfn_t pfn, unsigned order);

#endif
