/* SPDX-License-Identifier: MIT */
/* steps: what is done to one word of the bitfields, each by one operation. */
/*
 * Idea    The whole protocol of bitfield.c is made of these; they are inline,
 *         because an allocation is little else.
 */
#ifndef MM_FRAME_STEPS_H
#define MM_FRAME_STEPS_H

#include "base/bits.h"
#include "frame/bitfield.h"

/* A quarter of a word of counts, see bitfield.c. */
#define COUNT_BITS  16
#define COUNT_FREE  UINT64_C(0x3ff)
#define COUNT_WHOLE UINT64_C(0x8000)
#define COUNT_MASK  UINT64_C(0xffff)

/* Bit 0 of each quarter: how some blocks of a word, or all, are named. */
#define QUAD_ALL  UINT64_C(0x0001000100010001)
#define QUAD_EVEN UINT64_C(0x0000000100000001)

extern _Atomic uint64_t *bitfield_counts; /* (A) four blocks a word */
extern _Atomic uint64_t *bitfield_rows;   /* (A) 64 frames a word */

/* --- counts -------------------------------------------------------------- */

static inline unsigned step_shift(uint64_t block)
{
    return (unsigned)(block % QUAD_BLOCKS) * COUNT_BITS;
}

/* The word of block @block and the others of its quad. */
static inline uint64_t step_counts(uint64_t block)
{
    return atomic_load_explicit(&bitfield_counts[block / QUAD_BLOCKS],
                                memory_order_relaxed);
}

static inline uint64_t step_count(uint64_t block)
{
    return (step_counts(block) >> step_shift(block)) & COUNT_MASK;
}

/* The count of a block as of some moment: a quarter of a word, read alone. */
static inline unsigned step_free_hint(uint64_t block)
{
    const uint16_t *count = (const uint16_t *)bitfield_counts + block;

    return (unsigned)(__atomic_load_n(count, __ATOMIC_RELAXED) & COUNT_FREE);
}

/* Name the block @block, and the next one for order 10, in their word. */
static inline uint64_t step_blocks(uint64_t block, unsigned order)
{
    uint64_t first = UINT64_C(1) << step_shift(block);

    return order > BLOCK_ORDER ? first | first << COUNT_BITS : first;
}

/* Those blocks of a word of counts that are free altogether. */
static inline uint64_t step_free_blocks(uint64_t counts)
{
    return counts >> BLOCK_ORDER & QUAD_ALL;
}

/*
 * Change what stands for the blocks @which of the quad with @block from @from
 * to @to in one step; false if it is not @from.
 */
static inline bool step_swap(uint64_t block, uint64_t which, uint64_t from,
                             uint64_t to)
{
    _Atomic uint64_t *word = &bitfield_counts[block / QUAD_BLOCKS];
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);

    do {
        if ((old & which * COUNT_MASK) != which * from) {
            return false;
        }
        /*
         * Acquire and release: what the last owner wrote is seen by the next,
         * who takes by this function or by step_take_count().
         */
    } while (!atomic_compare_exchange_weak_explicit(
        word, &old, (old & ~(which * COUNT_MASK)) | which * to,
        memory_order_acq_rel, memory_order_relaxed));
    return true;
}

/* Own @frames of the clear bits of a block, wherever they are. */
static inline bool step_take_count(uint64_t block, unsigned frames)
{
    _Atomic uint64_t *word = &bitfield_counts[block / QUAD_BLOCKS];
    uint64_t difference = (uint64_t)frames << step_shift(block);
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);

    do {
        if (((old >> step_shift(block)) & COUNT_FREE) < frames) {
            return false;
        }
        /* Acquire: pairs with step_give_count() and step_swap(). */
    } while (!atomic_compare_exchange_weak_explicit(
        word, &old, old - difference, memory_order_acquire,
        memory_order_relaxed));
    return true;
}

static inline void step_give_count(uint64_t block, unsigned frames)
{
    /* Release: pairs with step_take_count() and step_swap(). */
    (void)atomic_fetch_add_explicit(&bitfield_counts[block / QUAD_BLOCKS],
                                    (uint64_t)frames << step_shift(block),
                                    memory_order_release);
}

/* --- bits ---------------------------------------------------------------- */

/* How many bits are set in @mask, which is not 0; most often it is one. */
static inline unsigned step_frames(uint64_t mask)
{
    return MM_LIKELY((mask & (mask - 1)) == 0) ? 1 : count_bits(mask);
}

/* Bit 0 of each aligned run of 2^order bits. */
extern const uint64_t step_run_starts[ROW_ORDER + 1];

/* First bits of the aligned runs of 2^order bits (order 0..6) in @free. */
static inline uint64_t step_runs(uint64_t free, unsigned order)
{
    unsigned frames = 1u << order;

    for (unsigned shift = 1; shift < frames; shift *= 2) {
        free &= free >> shift;
    }
    return free & step_run_starts[order];
}

/* 2^order bits, order 0..6, from bit 0 on. */
static inline uint64_t step_run(unsigned order)
{
    return (UINT64_C(2) << ((1u << order) - 1)) - 1;
}

/* Take an aligned run of 2^order bits of one row; the bit, or ROW_FRAMES. */
static inline unsigned step_take_run(_Atomic uint64_t *row, unsigned order)
{
    uint64_t old = atomic_load_explicit(row, memory_order_relaxed);

    for (;;) {
        uint64_t runs = step_runs(~old, order);
        if (runs == 0) {
            return ROW_FRAMES;
        }
        unsigned bit = lowest_bit(runs);
        uint64_t run = step_run(order) << bit;
        /* Acquire: pairs with the release in step_clear_bits(). */
        if (atomic_compare_exchange_weak_explicit(row, &old, old | run,
                                                  memory_order_acquire,
                                                  memory_order_relaxed)) {
            return bit;
        }
    }
}

/* Clear @mask, all of which must be set; false and unchanged otherwise. */
static inline bool step_clear_bits(_Atomic uint64_t *row, uint64_t mask)
{
    uint64_t old = atomic_load_explicit(row, memory_order_relaxed);

    do {
        if ((old & mask) != mask) {
            return false;
        }
        /*
         * Release: pairs with the acquire of whoever takes these bits; he may
         * have come by his count before this block gets ours.
         */
    } while (!atomic_compare_exchange_weak_explicit(
        row, &old, old & ~mask, memory_order_release, memory_order_relaxed));
    return true;
}

#endif
