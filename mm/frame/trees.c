/* SPDX-License-Identifier: MIT */
/* trees: a word for each 16 MiB, which wakes when it is first needed. */
/*
 * Owns    the tree words. A tree is 8 blocks; zones are whole trees.
 * Idea    After LLFree [LLFree23]: searches look at trees, not at blocks. And
 *         start-up must not depend on the RAM: only the words are cleared,
 *         4 bytes for each 16 MiB. A tree sleeps until somebody needs it; who
 *         comes first draws its bitfields from the memory map.
 * Picture
 *     |free frames, signed 16|      |reserved|ready|filling|
 *      31                  16            2       1       0
 *
 *     0: asleep, the bitfields are rubbish.
 *
 * Invariants (at rest)
 *     I1 the free frames of a tree are the sum over its blocks
 * Locking None. The count is changed after that of the block and may lag,
 *         even below zero: it guides searches and decides nothing.
 * Limits  The storage spans addresses 0 to the end of RAM, holes included.
 */
#include "frame/trees.h"

#include <mm/port.h>
#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"

#define CACHE_LINE UINT64_C(64)

#define TREE_FILLING    (UINT32_C(1) << 0)
#define TREE_READY      (UINT32_C(1) << 1)
#define TREE_FREE_SHIFT 16

_Atomic uint32_t *trees_word;
uint64_t trees_frames;

static const struct memmap *area; /* (C) what sleeping trees are drawn from */

static uint64_t tree_count(uint64_t frames)
{
    return div_round_up(frames, TREE_FRAMES);
}

static uint64_t word_bytes(uint64_t frames)
{
    return align_up(tree_count(frames) * sizeof(*trees_word), CACHE_LINE);
}

uint64_t trees_bytes(uint64_t frames)
{
    return word_bytes(frames) +
           bitfield_bytes(tree_count(frames) * TREE_BLOCKS);
}

void trees_init(const struct memmap *map, uint64_t frames, void *storage)
{
    ASSERT(is_aligned((uintptr_t)storage, CACHE_LINE));
    area = map;
    trees_frames = frames;
    trees_word = storage;
    memset(storage, 0, word_bytes(frames));
    bitfield_init(tree_count(frames) * TREE_BLOCKS,
                  (char *)storage + word_bytes(frames));
}

/* --- what the map says --------------------------------------------------- */

/*
 * The part of [start, end), frames, that range @index offers; false if there
 * can be none from this range on. Frame 0 is not offered: an entry of zero in
 * a page table names it.
 */
static bool usable_part(const struct memmap *map, size_t index, uint64_t start,
                        uint64_t end, uint64_t out[2])
{
    if (index >= map->count || map->range[index].start >= end << PAGE_SHIFT) {
        return false;
    }
    const struct memmap_range *range = &map->range[index];
    out[0] = max_u64(max_u64(range->start >> PAGE_SHIFT, start), 1);
    out[1] = min_u64(range->end >> PAGE_SHIFT, end);
    if (range->type != MEMMAP_USABLE || out[0] > out[1]) {
        out[1] = out[0];
    }
    return true;
}

uint64_t trees_usable(const struct memmap *map, uint64_t start, uint64_t end)
{
    uint64_t frames = 0;
    uint64_t part[2];

    for (size_t i = memmap_first_above(map, start << PAGE_SHIFT);
         usable_part(map, i, start, end, part); i++) {
        frames += part[1] - part[0];
    }
    return frames;
}

/* The bits of one row that lie in [start, end), counted from its first. */
static uint64_t row_mask(uint64_t start, uint64_t end)
{
    return low_bits((unsigned)end) & ~low_bits((unsigned)start);
}

/* The rows of an untouched tree, as the map has them. */
static void draw_tree(uint32_t tree, uint64_t out[TREE_ROWS])
{
    uint64_t first = tree * TREE_FRAMES;
    uint64_t part[2];

    memset(out, 0xff, TREE_ROWS * sizeof(out[0]));
    for (size_t i = memmap_first_above(area, first << PAGE_SHIFT);
         usable_part(area, i, first, first + TREE_FRAMES, part); i++) {
        while (part[0] < part[1]) {
            uint64_t row = part[0] & ~(ROW_FRAMES - 1);
            uint64_t end = min_u64(part[1], row + ROW_FRAMES);
            out[(row - first) / ROW_FRAMES] &=
                ~row_mask(part[0] - row, end - row);
            part[0] = end;
        }
    }
}

/* --- waking -------------------------------------------------------------- */

/*
 * Bring a tree to life, or wait for the CPU that does. It does so with
 * interrupts off: an interrupt that waited for its own CPU would wait forever.
 */
static MM_NOINLINE uint32_t wake_tree(uint32_t tree)
{
    uint32_t word = 0;
    uint64_t irq = port_irq_save();

    if (atomic_compare_exchange_strong_explicit(
            &trees_word[tree], &word, TREE_FILLING, memory_order_acquire,
            memory_order_acquire)) {
        uint64_t row[TREE_ROWS];
        draw_tree(tree, row);
        uint32_t free = bitfield_fill(tree * TREE_BLOCKS, TREE_BLOCKS, row);
        word = TREE_READY | free << TREE_FREE_SHIFT;
        /* Pairs with the acquire below and in trees_touch(). */
        atomic_store_explicit(&trees_word[tree], word, memory_order_release);
    }
    port_irq_restore(irq);
    while ((word & TREE_READY) == 0) {
        port_relax();
        word = atomic_load_explicit(&trees_word[tree], memory_order_acquire);
    }
    return word;
}

uint32_t trees_touch(uint32_t tree)
{
    /* Acquire: pairs with the release in wake_tree(). */
    uint32_t word =
        atomic_load_explicit(&trees_word[tree], memory_order_acquire);

    return MM_LIKELY(word & TREE_READY) ? word : wake_tree(tree);
}

void trees_read(uint32_t tree, uint64_t out[TREE_ROWS])
{
    /* Acquire: pairs with the release in wake_tree(). */
    uint32_t word =
        atomic_load_explicit(&trees_word[tree], memory_order_acquire);

    if ((word & TREE_READY) == 0) {
        draw_tree(tree, out);
        return;
    }
    for (unsigned i = 0; i < TREE_ROWS; i++) {
        uint64_t index = tree * TREE_ROWS + i;
        bool is_whole = bitfield_is_whole(index / BLOCK_ROWS);
        out[i] = is_whole ? UINT64_MAX : bitfield_row(index);
    }
}

/* --- changes of a word --------------------------------------------------- */

/* Relaxed, here and below: a guide for searches, see Locking. */
uint32_t trees_add(uint32_t tree, int32_t frames)
{
    uint32_t difference = (uint32_t)frames << TREE_FREE_SHIFT;

    return atomic_fetch_add_explicit(&trees_word[tree], difference,
                                     memory_order_relaxed) +
           difference;
}

uint32_t trees_reserve(uint32_t tree)
{
    return atomic_fetch_or_explicit(&trees_word[tree], TREE_RESERVED,
                                    memory_order_relaxed);
}

uint32_t trees_leave(uint32_t tree)
{
    return atomic_fetch_and_explicit(&trees_word[tree], ~TREE_RESERVED,
                                     memory_order_relaxed);
}

bool trees_check(uint32_t tree, uint64_t *out_free)
{
    uint32_t word =
        atomic_load_explicit(&trees_word[tree], memory_order_relaxed);
    uint64_t first = tree * TREE_BLOCKS;
    int32_t free = 0;

    if ((word & TREE_READY) == 0) {
        *out_free =
            trees_usable(area, tree * TREE_FRAMES, (tree + 1) * TREE_FRAMES);
        return true;
    }
    for (uint64_t block = first; block < first + TREE_BLOCKS; block++) {
        if (!bitfield_check(block)) {
            return false;
        }
        free += (int32_t)bitfield_free(block);
    }
    CHECK_OR_FAIL(free == tree_free(word),
                  "trees: I1: tree %u counts %d, has %d", tree, tree_free(word),
                  free);
    *out_free = (uint64_t)free;
    return true;
}
