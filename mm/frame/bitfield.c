/* SPDX-License-Identifier: MIT */
/* bitfield: the bits and the count of each block of 512 frames. */
/*
 * Owns    a bit a frame and a 16-bit word a block.
 * Idea    After LLFree [LLFree23]: no lists, so that free memory is never read
 *         or written; each change is one atomic operation on one word. The
 *         count of a block is the authority: who takes n from it owns n of its
 *         clear bits and then looks for them. Two blocks share a word, so that
 *         4 MiB are taken in one step as 2 MiB are.
 * Picture
 *     pair   |W|  free 0..512, odd block  |W|  free 0..512, even block |
 *     row    64 bits, set = taken; 8 rows a block
 *     W      taken whole: the count is 0, the bits stay clear
 *
 * Invariants (at rest; under way the count is lower)
 *     I1 a block's count is the number of its clear bits,
 *     I2 or it is marked whole, counts 0 and has no bit set
 * Locking None. A taker lowers the count, then sets bits; a giver clears bits,
 *         then raises the count. So a count never promises a bit that is not
 *         there, and a count of 512 means that nobody is inside. Both words
 *         carry acquire and release: the bit a taker finds need not be the one
 *         whose giver raised the count he lowered.
 * Cost    A row: eight loads, one compare-and-swap, one exchange. Orders 9 and
 *         10: one compare-and-swap.
 */
#include "frame/bitfield.h"

#include <stdatomic.h>

#include "base/bits.h"
#include "base/check.h"

#define CACHE_LINE UINT64_C(64)

/* Half of a pair. */
#define HALF_BITS  16
#define HALF_COUNT UINT32_C(0x3ff)
#define HALF_WHOLE UINT32_C(0x8000)
#define HALF_MASK  UINT32_C(0xffff)

static _Atomic uint32_t *pairs; /* (A) two blocks a word */
static _Atomic uint64_t *rows;  /* (A) 64 frames a word */

static uint64_t pair_bytes(uint64_t blocks)
{
    return align_up(blocks / 2 * sizeof(*pairs), CACHE_LINE);
}

uint64_t bitfield_bytes(uint64_t blocks)
{
    return pair_bytes(blocks) + blocks * BLOCK_ROWS * sizeof(*rows);
}

void bitfield_init(uint64_t blocks, void *storage)
{
    ASSERT(is_aligned((uintptr_t)storage, CACHE_LINE) && blocks % 2 == 0);
    pairs = storage;
    rows = (void *)((char *)storage + pair_bytes(blocks));
}

uint32_t bitfield_fill(uint64_t first, uint64_t blocks, const uint64_t *row)
{
    uint32_t total = 0;

    ASSERT(first % 2 == 0 && blocks % 2 == 0);
    for (uint64_t block = first; block < first + blocks; block += 2) {
        uint32_t half[2] = {0, 0};
        for (uint64_t i = 0; i < 2 * BLOCK_ROWS; i++) {
            atomic_init(&rows[block * BLOCK_ROWS + i], *row);
            half[i / BLOCK_ROWS] += count_bits(~*row);
            row++;
        }
        atomic_init(&pairs[block / 2], half[0] | half[1] << HALF_BITS);
        total += half[0] + half[1];
    }
    return total;
}

uint64_t bitfield_row(uint64_t row)
{
    return atomic_load_explicit(&rows[row], memory_order_relaxed);
}

/* --- counts -------------------------------------------------------------- */

static unsigned half_shift(uint64_t block)
{
    return (unsigned)(block % 2) * HALF_BITS;
}

static uint32_t half_of(uint64_t block)
{
    uint32_t pair =
        atomic_load_explicit(&pairs[block / 2], memory_order_relaxed);

    return (pair >> half_shift(block)) & HALF_MASK;
}

unsigned bitfield_free(uint64_t block)
{
    return half_of(block) & HALF_COUNT;
}

bool bitfield_is_whole(uint64_t block)
{
    return (half_of(block) & HALF_WHOLE) != 0;
}

/*
 * Change the half words of block @block (and of the next one, for order 10)
 * from @from to @to in one step; false if they are not @from.
 */
static bool swap_halves(uint64_t block, unsigned order, uint32_t from,
                        uint32_t to)
{
    uint32_t mask = HALF_MASK << half_shift(block);

    if (order > BLOCK_ORDER) {
        mask = UINT32_MAX;
        from |= from << HALF_BITS;
        to |= to << HALF_BITS;
    } else {
        from <<= half_shift(block);
        to <<= half_shift(block);
    }
    uint32_t old =
        atomic_load_explicit(&pairs[block / 2], memory_order_relaxed);
    do {
        if ((old & mask) != from) {
            return false;
        }
        /*
         * Acquire and release: what the last owner wrote is seen by the next,
         * who takes by this function or by take_count().
         */
    } while (!atomic_compare_exchange_weak_explicit(
        &pairs[block / 2], &old, (old & ~mask) | to, memory_order_acq_rel,
        memory_order_relaxed));
    return true;
}

/* Own @frames of the clear bits of a block, wherever they are. */
static bool take_count(uint64_t block, unsigned frames)
{
    uint32_t difference = (uint32_t)frames << half_shift(block);
    uint32_t old =
        atomic_load_explicit(&pairs[block / 2], memory_order_relaxed);

    do {
        if (((old >> half_shift(block)) & HALF_COUNT) < frames) {
            return false;
        }
        /* Acquire: pairs with give_count() and swap_halves(). */
    } while (!atomic_compare_exchange_weak_explicit(
        &pairs[block / 2], &old, old - difference, memory_order_acquire,
        memory_order_relaxed));
    return true;
}

static void give_count(uint64_t block, unsigned frames)
{
    /* Release: pairs with take_count() and swap_halves(). */
    (void)atomic_fetch_add_explicit(&pairs[block / 2],
                                    (uint32_t)frames << half_shift(block),
                                    memory_order_release);
}

/* --- bits ---------------------------------------------------------------- */

/* Bit 0 of each aligned run of 2^order bits. */
static const uint64_t run_starts[] = {
    UINT64_C(0xffffffffffffffff), UINT64_C(0x5555555555555555),
    UINT64_C(0x1111111111111111), UINT64_C(0x0101010101010101),
    UINT64_C(0x0001000100010001), UINT64_C(0x0000000100000001),
    UINT64_C(0x0000000000000001)};

uint64_t bitfield_runs(uint64_t free, unsigned order)
{
    for (unsigned i = 0; i < order; i++) {
        free &= free >> (1u << i);
    }
    return free & run_starts[order];
}

/* Take an aligned run of 2^order bits of one row; the bit, or ROW_FRAMES. */
static unsigned take_run(_Atomic uint64_t *row, unsigned order)
{
    uint64_t old = atomic_load_explicit(row, memory_order_relaxed);

    for (;;) {
        uint64_t runs = bitfield_runs(~old, order);
        if (runs == 0) {
            return ROW_FRAMES;
        }
        unsigned bit = lowest_bit(runs);
        uint64_t run = low_bits(1u << order) << bit;
        /* Acquire: pairs with the release in clear_bits(). */
        if (atomic_compare_exchange_weak_explicit(row, &old, old | run,
                                                  memory_order_acquire,
                                                  memory_order_relaxed)) {
            return bit;
        }
    }
}

/* Take @count whole rows, or none. */
static bool take_rows(_Atomic uint64_t *row, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t old = 0;
        /* Acquire: pairs with the release in clear_bits(). */
        if (atomic_compare_exchange_strong_explicit(&row[i], &old, UINT64_MAX,
                                                    memory_order_acquire,
                                                    memory_order_relaxed)) {
            continue;
        }
        while (i-- > 0) {
            atomic_store_explicit(&row[i], 0, memory_order_release);
        }
        return false;
    }
    return true;
}

/* Clear @mask, all of which must be set; false and unchanged otherwise. */
static bool clear_bits(_Atomic uint64_t *row, uint64_t mask)
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

/* --- taking -------------------------------------------------------------- */

/* 2^order frames, order 0..8, whose count has been taken. */
static pfn_t find_run(uint64_t block, unsigned order)
{
    unsigned step = order > ROW_ORDER ? 1u << (order - ROW_ORDER) : 1;

    for (unsigned i = 0; i < BLOCK_ROWS; i += step) {
        uint64_t index = block * BLOCK_ROWS + i;
        unsigned bit = 0;
        if (order <= ROW_ORDER) {
            bit = take_run(&rows[index], order);
        } else if (!take_rows(&rows[index], step)) {
            bit = ROW_FRAMES;
        }
        if (bit < ROW_FRAMES) {
            return pfn_of(index * ROW_FRAMES + bit);
        }
    }
    return PFN_NONE;
}

/* The row of a block with most free frames; at once one that is all free. */
static uint64_t best_row(uint64_t block, uint64_t *out_mask)
{
    uint64_t best = block * BLOCK_ROWS;
    unsigned most = 0;

    *out_mask = 0;
    for (uint64_t i = best; i < (block + 1) * BLOCK_ROWS; i++) {
        uint64_t free = ~bitfield_row(i);
        unsigned count = count_bits(free);
        if (count > most) {
            most = count;
            best = i;
            *out_mask = free;
        }
        if (count == ROW_FRAMES) {
            break;
        }
    }
    return best;
}

uint64_t bitfield_take_row(uint64_t block, pfn_t *out_first)
{
    uint64_t mask;
    uint64_t row = best_row(block, &mask);
    unsigned wanted = count_bits(mask);

    *out_first = pfn_of(row * ROW_FRAMES);
    if (wanted == 0 || !take_count(block, wanted)) {
        return 0;
    }
    /* Acquire: pairs with the release in clear_bits(). */
    uint64_t taken = mask & ~atomic_fetch_or_explicit(&rows[row], mask,
                                                      memory_order_acquire);
    if (taken != mask) {
        give_count(block, wanted - count_bits(taken));
    }
    return taken;
}

pfn_t bitfield_take(uint64_t block, unsigned order)
{
    ASSERT(order <= BLOCK_ORDER || block % 2 == 0);
    if (order >= BLOCK_ORDER) {
        return swap_halves(block, order, BLOCK_FRAMES, HALF_WHOLE)
                   ? pfn_of(block * BLOCK_FRAMES)
                   : PFN_NONE;
    }
    if (!take_count(block, 1u << order)) {
        return PFN_NONE;
    }
    pfn_t pfn = find_run(block, order);
    if (pfn_is_none(pfn)) {
        give_count(block, 1u << order);
    }
    return pfn;
}

/* --- giving back --------------------------------------------------------- */

bool bitfield_give_row(pfn_t first, uint64_t mask)
{
    if (!clear_bits(&rows[first.v / ROW_FRAMES], mask)) {
        return false;
    }
    give_count(first.v / BLOCK_FRAMES, count_bits(mask));
    return true;
}

/* Orders 7 and 8: whole rows, looked at before the first is cleared. */
static bool give_rows(pfn_t pfn, unsigned order)
{
    uint64_t row = pfn.v / ROW_FRAMES;
    uint64_t end = row + (UINT64_C(1) << (order - ROW_ORDER));

    for (uint64_t i = row; i < end; i++) {
        if (bitfield_row(i) != UINT64_MAX) {
            return false;
        }
    }
    for (uint64_t i = row; i < end; i++) {
        /* Release: as in clear_bits(). */
        atomic_store_explicit(&rows[i], 0, memory_order_release);
    }
    give_count(pfn.v / BLOCK_FRAMES, 1u << order);
    return true;
}

bool bitfield_give(pfn_t pfn, unsigned order)
{
    ASSERT(is_aligned(pfn.v, UINT64_C(1) << order));
    if (order >= BLOCK_ORDER) {
        return swap_halves(pfn.v / BLOCK_FRAMES, order, HALF_WHOLE,
                           BLOCK_FRAMES);
    }
    if (order > ROW_ORDER) {
        return give_rows(pfn, order);
    }
    unsigned bit = (unsigned)(pfn.v % ROW_FRAMES);
    return bitfield_give_row(pfn_of(pfn.v - bit), low_bits(1u << order) << bit);
}

/* Rows of the blocks of order 9 or 10 at @pfn, all bits alike. */
static void store_rows(pfn_t pfn, unsigned order, uint64_t bits)
{
    uint64_t first = pfn.v / ROW_FRAMES;

    for (uint64_t i = 0; i < UINT64_C(1) << (order - ROW_ORDER); i++) {
        atomic_store_explicit(&rows[first + i], bits, memory_order_release);
    }
}

void bitfield_split(pfn_t pfn, unsigned order)
{
    /* Bits before the mark: with neither, the frames would look free. */
    store_rows(pfn, order, UINT64_MAX);
    bool was_whole = swap_halves(pfn.v / BLOCK_FRAMES, order, HALF_WHOLE, 0);
    ASSERT(was_whole);
}

void bitfield_join(pfn_t pfn, unsigned order)
{
    bool was_split = swap_halves(pfn.v / BLOCK_FRAMES, order, 0, HALF_WHOLE);
    ASSERT(was_split);
    store_rows(pfn, order, 0);
}

bool bitfield_check(uint64_t block)
{
    uint32_t half = half_of(block);
    unsigned clear = 0;

    for (uint64_t i = block * BLOCK_ROWS; i < (block + 1) * BLOCK_ROWS; i++) {
        clear += count_bits(~bitfield_row(i));
    }
    if (half & HALF_WHOLE) {
        CHECK_OR_FAIL(half == HALF_WHOLE && clear == BLOCK_FRAMES,
                      "bitfield: I2: whole block %lu: word 0x%x, %u clear",
                      block, half, clear);
        return true;
    }
    CHECK_OR_FAIL(half == clear, "bitfield: I1: block %lu counts %u, has %u",
                  block, half, clear);
    return true;
}
