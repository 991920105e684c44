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

/* Half of a pair, see bitfield.c. */
#define HALF_BITS  16
#define HALF_COUNT UINT32_C(0x3ff)
#define HALF_WHOLE UINT32_C(0x8000)
#define HALF_MASK  UINT32_C(0xffff)

extern _Atomic uint32_t *bitfield_pairs; /* (A) two blocks a word */
extern _Atomic uint64_t *bitfield_rows;  /* (A) 64 frames a word */

/* --- counts -------------------------------------------------------------- */

static inline unsigned step_shift(uint64_t block)
{
    return (unsigned)(block % 2) * HALF_BITS;
}

static inline uint32_t step_half(uint64_t block)
{
    uint32_t pair =
        atomic_load_explicit(&bitfield_pairs[block / 2], memory_order_relaxed);

    return (pair >> step_shift(block)) & HALF_MASK;
}

/* The words of block @block, which is even, and of the next one. */
static inline uint32_t step_pair(uint64_t block)
{
    return atomic_load_explicit(&bitfield_pairs[block / 2],
                                memory_order_relaxed);
}

/* The count of a block as of some moment: half a word, read alone. */
static inline unsigned step_free_hint(uint64_t block)
{
    const uint16_t *half = (const uint16_t *)bitfield_pairs + block;

    return __atomic_load_n(half, __ATOMIC_RELAXED) & HALF_COUNT;
}

/*
 * Change the half words of block @block (and of the next one, for order 10)
 * from @from to @to in one step; false if they are not @from.
 */
static inline bool step_swap(uint64_t block, unsigned order, uint32_t from,
                             uint32_t to)
{
    uint32_t mask = HALF_MASK << step_shift(block);

    if (order > BLOCK_ORDER) {
        mask = UINT32_MAX;
        from |= from << HALF_BITS;
        to |= to << HALF_BITS;
    } else {
        from <<= step_shift(block);
        to <<= step_shift(block);
    }
    uint32_t old =
        atomic_load_explicit(&bitfield_pairs[block / 2], memory_order_relaxed);
    do {
        if ((old & mask) != from) {
            return false;
        }
        /*
         * Acquire and release: what the last owner wrote is seen by the next,
         * who takes by this function or by step_take_count().
         */
    } while (!atomic_compare_exchange_weak_explicit(
        &bitfield_pairs[block / 2], &old, (old & ~mask) | to,
        memory_order_acq_rel, memory_order_relaxed));
    return true;
}

/* Own @frames of the clear bits of a block, wherever they are. */
static inline bool step_take_count(uint64_t block, unsigned frames)
{
    uint32_t difference = (uint32_t)frames << step_shift(block);
    uint32_t old =
        atomic_load_explicit(&bitfield_pairs[block / 2], memory_order_relaxed);

    do {
        if (((old >> step_shift(block)) & HALF_COUNT) < frames) {
            return false;
        }
        /* Acquire: pairs with step_give_count() and step_swap(). */
    } while (!atomic_compare_exchange_weak_explicit(
        &bitfield_pairs[block / 2], &old, old - difference,
        memory_order_acquire, memory_order_relaxed));
    return true;
}

static inline void step_give_count(uint64_t block, unsigned frames)
{
    /* Release: pairs with step_take_count() and step_swap(). */
    (void)atomic_fetch_add_explicit(&bitfield_pairs[block / 2],
                                    (uint32_t)frames << step_shift(block),
                                    memory_order_release);
}

/* --- bits ---------------------------------------------------------------- */

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
