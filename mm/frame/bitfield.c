/* SPDX-License-Identifier: MIT */
/* bitfield: the bits and the count of each block of 512 frames. */
/*
 * Owns    a bit a frame and a 16-bit word a block.
 * Idea    After LLFree [LLFree23]: no lists, so that free memory is never read
 *         or written; each change is one atomic operation on one word. The
 *         count of a block is the authority: who takes n from it owns n of its
 *         clear bits and then looks for them. The four blocks of a quad share
 *         a word, so that 4 MiB, or whatever of 8 MiB is free, are taken in
 *         one step as 2 MiB are.
 * Picture
 *     quad   |W| free 0..512, block 3 |..|W| free 0..512, block 0 |
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
#include "frame/steps.h"

#define CACHE_LINE UINT64_C(64)

_Atomic uint64_t bitfield_undone;  /* (A) */
_Atomic uint64_t *bitfield_counts; /* (A) four blocks a word */
_Atomic uint64_t *bitfield_rows;   /* (A) 64 frames a word */

static uint64_t count_bytes(uint64_t blocks)
{
    return align_up(blocks / QUAD_BLOCKS * sizeof(*bitfield_counts),
                    CACHE_LINE);
}

uint64_t bitfield_bytes(uint64_t blocks)
{
    return count_bytes(blocks) + blocks * BLOCK_ROWS * sizeof(*bitfield_rows);
}

void bitfield_init(uint64_t blocks, void *storage)
{
    ASSERT(is_aligned((uintptr_t)storage, CACHE_LINE) &&
           blocks % QUAD_BLOCKS == 0);
    bitfield_counts = storage;
    bitfield_rows = (void *)((char *)storage + count_bytes(blocks));
}

uint32_t bitfield_fill(uint64_t first, uint64_t blocks, const uint64_t *row)
{
    uint32_t total = 0;

    ASSERT(first % QUAD_BLOCKS == 0 && blocks % QUAD_BLOCKS == 0);
    for (uint64_t block = first; block < first + blocks; block += QUAD_BLOCKS) {
        uint64_t counts = 0;
        for (uint64_t i = 0; i < QUAD_BLOCKS * BLOCK_ROWS; i++) {
            uint64_t free = count_bits(~*row);
            atomic_init(&bitfield_rows[block * BLOCK_ROWS + i], *row++);
            counts += free << step_shift(i / BLOCK_ROWS);
            total += (uint32_t)free;
        }
        atomic_init(&bitfield_counts[block / QUAD_BLOCKS], counts);
    }
    return total;
}

uint64_t bitfield_row(uint64_t row)
{
    return atomic_load_explicit(&bitfield_rows[row], memory_order_relaxed);
}

unsigned bitfield_free(uint64_t block)
{
    return (unsigned)(step_count(block) & COUNT_FREE);
}

bool bitfield_is_whole(uint64_t block)
{
    return (step_count(block) & COUNT_WHOLE) != 0;
}

/* --- runs of rows --------------------------------------------------------- */

const uint64_t step_run_starts[ROW_ORDER + 1] = {
    UINT64_C(0xffffffffffffffff), UINT64_C(0x5555555555555555),
    UINT64_C(0x1111111111111111), UINT64_C(0x0101010101010101),
    UINT64_C(0x0001000100010001), UINT64_C(0x0000000100000001),
    UINT64_C(0x0000000000000001)};

uint64_t bitfield_runs(uint64_t free, unsigned order)
{
    return step_runs(free, order);
}

void bitfield_undo_count(uint64_t block, unsigned frames)
{
    step_give_count(block, frames);
    /* Release: who sees it sees the count. */
    atomic_fetch_add_explicit(&bitfield_undone, 1, memory_order_release);
}

/* --- bits ---------------------------------------------------------------- */

/* Take @count whole rows, or none. */
static bool take_rows(_Atomic uint64_t *row, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t old = 0;
        /* Acquire: pairs with the release in step_clear_bits(). */
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

/* --- whole blocks -------------------------------------------------------- */

/* step_swap() for the block of order 9 or 10 at @pfn. */
static bool swap_blocks(pfn_t pfn, unsigned order, uint64_t from, uint64_t to)
{
    uint64_t block = pfn.v / BLOCK_FRAMES;

    return step_swap(block, step_blocks(block, order), from, to);
}

/* --- taking -------------------------------------------------------------- */

/* 2^order frames, order 0..6, whose count has been taken. */
static pfn_t find_run(uint64_t block, unsigned order, unsigned first)
{
    for (unsigned i = 0; i < BLOCK_ROWS; i++) {
        uint64_t index = block * BLOCK_ROWS + (first + i) % BLOCK_ROWS;
        unsigned bit = step_take_run(&bitfield_rows[index], order);
        if (bit < ROW_FRAMES) {
            return pfn_of(index * ROW_FRAMES + bit);
        }
    }
    return PFN_NONE;
}

/* The same for orders 7 and 8: whole rows. */
static pfn_t find_rows(uint64_t block, unsigned order)
{
    unsigned step = 1u << (order - ROW_ORDER);

    for (unsigned i = 0; i < BLOCK_ROWS; i += step) {
        uint64_t index = block * BLOCK_ROWS + i;
        if (take_rows(&bitfield_rows[index], step)) {
            return pfn_of(index * ROW_FRAMES);
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
    if (wanted == 0 || !step_take_count(block, wanted)) {
        return 0;
    }
    /* Acquire: pairs with the release in step_clear_bits(). */
    uint64_t taken = mask & ~atomic_fetch_or_explicit(&bitfield_rows[row], mask,
                                                      memory_order_acquire);
    if (taken != mask) {
        bitfield_undo_count(block, wanted - count_bits(taken));
    }
    return taken;
}

pfn_t bitfield_take(uint64_t block, unsigned order, unsigned first)
{
    ASSERT(order <= BLOCK_ORDER || block % 2 == 0);
    if (order >= BLOCK_ORDER) {
        pfn_t whole = pfn_of(block * BLOCK_FRAMES);
        return swap_blocks(whole, order, BLOCK_FRAMES, COUNT_WHOLE) ? whole
                                                                    : PFN_NONE;
    }
    if (!step_take_count(block, 1u << order)) {
        return PFN_NONE;
    }
    pfn_t pfn = order <= ROW_ORDER ? find_run(block, order, first)
                                   : find_rows(block, order);
    if (pfn_is_none(pfn)) {
        bitfield_undo_count(block, 1u << order);
    }
    return pfn;
}

/* Set @mask, all of which must be clear; false and unchanged otherwise. */
static bool set_bits(_Atomic uint64_t *row, uint64_t mask)
{
    uint64_t old = atomic_load_explicit(row, memory_order_relaxed);

    do {
        if ((old & mask) != 0) {
            return false;
        }
        /* Acquire: pairs with the release in step_clear_bits(). */
    } while (!atomic_compare_exchange_weak_explicit(
        row, &old, old | mask, memory_order_acquire, memory_order_relaxed));
    return true;
}

bool bitfield_take_at(pfn_t pfn, unsigned order)
{
    uint64_t block = pfn.v / BLOCK_FRAMES;
    _Atomic uint64_t *row = &bitfield_rows[pfn.v / ROW_FRAMES];

    ASSERT(is_aligned(pfn.v, UINT64_C(1) << order));
    if (order >= BLOCK_ORDER) {
        return swap_blocks(pfn, order, BLOCK_FRAMES, COUNT_WHOLE);
    }
    if (!step_take_count(block, 1u << order)) {
        return false;
    }
    bool is_taken = order <= ROW_ORDER
                        ? set_bits(row, step_run(order) << (pfn.v % ROW_FRAMES))
                        : take_rows(row, 1u << (order - ROW_ORDER));
    if (!is_taken) {
        bitfield_undo_count(block, 1u << order);
    }
    return is_taken;
}

/* --- giving back --------------------------------------------------------- */

bool bitfield_give_row(pfn_t first, uint64_t mask)
{
    if (!step_clear_bits(&bitfield_rows[first.v / ROW_FRAMES], mask)) {
        return false;
    }
    step_give_count(first.v / BLOCK_FRAMES, count_bits(mask));
    return true;
}

/*
 * Orders 7 and 8: whole rows, looked at before the first is cleared. Of two
 * that give the same rows, the first row decides.
 */
static bool give_rows(pfn_t pfn, unsigned order)
{
    uint64_t row = pfn.v / ROW_FRAMES;
    uint64_t end = row + (UINT64_C(1) << (order - ROW_ORDER));
    unsigned given = ROW_FRAMES;

    for (uint64_t i = row; i < end; i++) {
        if (bitfield_row(i) != UINT64_MAX) {
            return false;
        }
    }
    if (!step_clear_bits(&bitfield_rows[row], UINT64_MAX)) {
        return false;
    }
    for (uint64_t i = row + 1; i < end; i++) {
        /* Release: as in step_clear_bits(). */
        given += count_bits(atomic_exchange_explicit(&bitfield_rows[i], 0,
                                                     memory_order_release));
    }
    step_give_count(pfn.v / BLOCK_FRAMES, given);
    return given == 1u << order;
}

bool bitfield_give(pfn_t pfn, unsigned order)
{
    ASSERT(is_aligned(pfn.v, UINT64_C(1) << order));
    if (order >= BLOCK_ORDER) {
        return swap_blocks(pfn, order, COUNT_WHOLE, BLOCK_FRAMES);
    }
    if (order > ROW_ORDER) {
        return give_rows(pfn, order);
    }
    unsigned bit = (unsigned)(pfn.v % ROW_FRAMES);
    return bitfield_give_row(pfn_of(pfn.v - bit), step_run(order) << bit);
}

/* Rows of the blocks of order 9 or 10 at @pfn, all bits alike. */
static void store_rows(pfn_t pfn, unsigned order, uint64_t bits)
{
    uint64_t first = pfn.v / ROW_FRAMES;

    for (uint64_t i = 0; i < UINT64_C(1) << (order - ROW_ORDER); i++) {
        atomic_store_explicit(&bitfield_rows[first + i], bits,
                              memory_order_release);
    }
}

void bitfield_split(pfn_t pfn, unsigned order)
{
    /* Bits before the mark: with neither, the frames would look free. */
    store_rows(pfn, order, UINT64_MAX);
    bool was_whole = swap_blocks(pfn, order, COUNT_WHOLE, 0);
    ASSERT(was_whole);
}

void bitfield_join(pfn_t pfn, unsigned order)
{
    bool was_split = swap_blocks(pfn, order, 0, COUNT_WHOLE);
    ASSERT(was_split);
    store_rows(pfn, order, 0);
}

bool bitfield_check(uint64_t block)
{
    uint64_t count = step_count(block);
    unsigned clear = 0;

    for (uint64_t i = block * BLOCK_ROWS; i < (block + 1) * BLOCK_ROWS; i++) {
        clear += count_bits(~bitfield_row(i));
    }
    if (count & COUNT_WHOLE) {
        CHECK_OR_FAIL(count == COUNT_WHOLE && clear == BLOCK_FRAMES,
                      "bitfield: I2: whole block %lu: word 0x%lx, %u clear",
                      block, count, clear);
        return true;
    }
    CHECK_OR_FAIL(count == clear, "bitfield: I1: block %lu counts %lu, has %u",
                  block, count, clear);
    return true;
}
