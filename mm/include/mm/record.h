/* SPDX-License-Identifier: MIT */
/* record: what is known of a frame beside whether it is free. */
#ifndef MM_RECORD_H
#define MM_RECORD_H

#include <stdatomic.h>
#include <stddef.h>

#include <mm/types.h>

/*
 * What a frame is used for. A record of type FRAME_NONE belongs to a frame
 * that is free, or inside a larger block, or the allocator's own.
 */
enum frame_type {
    FRAME_NONE,
    FRAME_KERNEL, /* anything without a closer word */
    FRAME_TABLE,  /* page table; entries and lock in use: map/table.h */
    FRAME_SLAB,   /* owner: struct slab */
    FRAME_LARGE,  /* kmalloc block larger than the largest size class */
    FRAME_KMAP,   /* behind a kmap block */
    FRAME_USER,   /* behind a user page */
    FRAME_GUARD,  /* of the pool of guarded heap objects */
    FRAME_TYPES
};

/* order of a record that is not the first of its block. */
#define RECORD_TAIL 0xffu

/*
 * 16 bytes a frame, in a virtual array that is backed block by block when the
 * first frame of a block is handed out. So: the record of an allocated frame
 * is always there; that of a free frame must be asked for.
 */
struct frame_record {
    _Atomic uint32_t refs;    /* (A) holders of the frame; 0 = free */
    uint8_t type;             /* enum frame_type; set by who owns the frame */
    uint8_t order;            /* log2 frames of the block, or RECORD_TAIL */
    _Atomic uint16_t entries; /* table pages: how many, and what they are; */
                              /* slabs: number of the size class, or 0 */
    union {
        uint64_t owner; /* by type: pointer, or a number */
        struct {
            _Atomic uint8_t next;   /* (A) table pages: ticket to be drawn, */
            _Atomic uint8_t served; /* (A) and the one that holds the lock */
            uint16_t link_high;     /* next frame in a batch: what is chained */
            uint32_t link_low;      /* may still be waited for as a table */
        };
    };
};
_Static_assert(sizeof(struct frame_record) == 16, "16 bytes a frame");

/*
 * In `entries` of a free frame, debug builds: `owner` says which invalidation
 * made the frame unreachable (see mm/map/tlb.c).
 */
#define RECORD_STAMPED (UINT16_MAX - 1)

/* Frames whose records are backed together: those of a 2 MiB block. */
#define RECORD_BLOCK_FRAMES UINT64_C(512)

/* (C) The virtual array, indexed by frame number. */
extern struct frame_record *record_base;
extern uint64_t record_frames;          /* (C) frames it covers */
extern _Atomic uint64_t *record_backed; /* (A) a bit a block: backed */

/* The record of a frame that is allocated; one addition. */
static inline struct frame_record *record_of(pfn_t pfn)
{
    return &record_base[pfn.v];
}

/*
 * Who finds this type without a lock finds what was written before it, too, and
 * while he finds the one before, what is written from now on is not there yet.
 */
static inline void record_set_type(struct frame_record *record, uint8_t type)
{
    __atomic_store_n(&record->type, type, __ATOMIC_SEQ_CST);
}

/*
 * The type, and from bit 16 on `entries`, of one moment: of a frame that is
 * somebody else's by the next one, too.
 */
static inline uint32_t record_what(const struct frame_record *record)
{
    return __atomic_load_n((const uint32_t *)(const void *)&record->type,
                           __ATOMIC_RELAXED);
}
_Static_assert(offsetof(struct frame_record, type) % 4 == 0 &&
                   offsetof(struct frame_record, entries) ==
                       offsetof(struct frame_record, type) + 2,
               "record_what()");

/* The next of a chain of blocks; it leaves the lock of a table alone. */
static inline pfn_t record_link(const struct frame_record *record)
{
    return pfn_of(((uint64_t)record->link_high << 32) | record->link_low);
}

static inline void record_set_link(struct frame_record *record, pfn_t next)
{
    record->link_high = (uint16_t)(next.v >> 32);
    record->link_low = (uint32_t)next.v;
}

/* Keep @stamp (0: none) until the frame is handed out again. */
static inline void record_stamp(struct frame_record *record, uint64_t stamp)
{
    record->owner = stamp;
    atomic_store_explicit(&record->entries, stamp != 0 ? RECORD_STAMPED : 0,
                          memory_order_relaxed);
}

static inline bool record_is_stamped(const struct frame_record *record)
{
    return atomic_load_explicit(&record->entries, memory_order_relaxed) ==
           RECORD_STAMPED;
}

/*
 * Can the record of @pfn be read? Any number is allowed, so that a wild
 * pointer can be looked at before its record is.
 */
static inline bool record_exists(pfn_t pfn)
{
    uint64_t block = pfn.v / RECORD_BLOCK_FRAMES;

    if (MM_UNLIKELY(pfn.v >= record_frames)) {
        return false;
    }
    /* Acquire: pairs with the release in record_back_block(). */
    uint64_t word =
        atomic_load_explicit(&record_backed[block / 64], memory_order_acquire);
    return ((word >> (block % 64)) & 1) != 0;
}

/*
 * Make [start, end) of the record array memory that reads as zero; the pages
 * are those of the array, 4 KiB-aligned. Idempotent: parts may be backed, and
 * may be in use; two CPUs may ask for the same pages at the same moment. Takes
 * its frames from frame_alloc_metadata(), and gives back by
 * frame_free_metadata() what another CPU was faster with. A lock would let a
 * CPU that is stopped hold up all others; if there must be one, then none that
 * is held by anybody who calls frame_alloc().
 * Return: MM_OK; MM_ENOMEM: some pages may be backed, none is lost.
 */
typedef enum mm_status (*record_back_fn)(vaddr_t start, vaddr_t end);

/* @base: 4 KiB-aligned virtual address with room for 16 bytes a frame. */
void record_init(void *base, record_back_fn back);

/* Bytes record_cover() needs, a multiple of 64. */
uint64_t record_bytes(uint64_t frames);

/* The array covers @frames frames, none backed. @storage: record_bytes(). */
void record_cover(uint64_t frames, void *storage);

/*
 * Have the records of the block that holds @pfn backed, if they are not.
 * Context: called by blocks.c before a frame leaves the shared structure.
 */
MM_MUST_CHECK enum mm_status record_back_block(pfn_t pfn);

/* "table", "slab", ...: the word `page` prints. */
const char *frame_type_name(enum frame_type type);

#endif
