/* SPDX-License-Identifier: MIT */
/* trees: a word for each 16 MiB, which wakes when it is first needed. */
/*
 * Owns    the tree words, two bits for each tree that say whether it is awake,
 *         and a copy of the usable ranges of the map. A tree is 8 blocks; zones
 *         are whole trees.
 * Idea    After LLFree [LLFree23]: searches look at trees, not at blocks. And
 *         start-up must not depend on the RAM: not even the words are cleared,
 *         but the two bits. A tree sleeps until somebody needs it; who comes
 *         first draws its bitfields from the copy, which never changes,
 *         whatever happens to the map.
 *         How many frames a tree has is not counted: its two words of counts
 *         say so as fast, and a free would have one more word to change, which
 *         all CPUs share.
 * Picture
 *     |reserved|ready|
 *          2      1
 *
 *     The word and the bitfields of a tree that is not awake are rubbish.
 *
 * Locking None. A tree that another CPU just wakes is passed by, and waited for
 *         only by who finds nothing else or must have this very tree; for a
 *         while, and once.
 * Limits  The storage spans addresses 0 to the end of RAM, holes included. A
 *         CPU stopped while it wakes a tree keeps its 16 MiB from the others.
 *         They cannot help it: bits that are drawn over rubbish look like it,
 *         so a helper that is late could not tell that the tree is in use.
 */
#include "frame/trees.h"

#include <mm/port.h>
#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"

#define CACHE_LINE UINT64_C(64)

_Atomic uint32_t *trees_word;
uint64_t trees_frames;

/* What waking a tree takes, many times over. */
#ifdef FRAME_PATIENCE
#define FILLING_TURNS FRAME_PATIENCE
#else
#define FILLING_TURNS (UINT32_C(1) << 20)
#endif

/* Two bits a tree. */
enum tree_state {
    TREE_ASLEEP,
    TREE_WAKES,      /* by some CPU */
    TREE_WAKES_LATE, /* the same, and nobody waits for it any more */
    TREE_AWAKE       /* all bits: whoever wakes it need not know the rest */
};
#define STATE_BITS  2
#define STATE_MASK  UINT64_C(3)
#define STATE_TREES 32 /* in a word */

static _Atomic uint64_t *states; /* (A) */

/* Usable frames [start, end), sorted; without frame 0, see trees_usable(). */
struct span {
    uint64_t start;
    uint64_t end;
};
static struct span *spans; /* (C) */
static size_t span_count;  /* (C) */

static uint64_t tree_count(uint64_t frames)
{
    return div_round_up(frames, TREE_FRAMES);
}

static uint64_t word_bytes(uint64_t frames)
{
    return align_up(tree_count(frames) * sizeof(*trees_word), CACHE_LINE);
}

static uint64_t state_bytes(uint64_t frames)
{
    uint64_t words = div_round_up(tree_count(frames), STATE_TREES);

    return align_up(words * sizeof(*states), CACHE_LINE);
}

/*
 * The frames of range @index that can ever be handed out; false if there are
 * none. Frame 0 cannot: an entry of zero in a page table names it.
 */
static bool usable_span(const struct memmap *map, size_t index, uint64_t frames,
                        struct span *out)
{
    const struct memmap_range *range = &map->range[index];

    out->start = max_u64(range->start >> PAGE_SHIFT, 1);
    out->end = min_u64(range->end >> PAGE_SHIFT, frames);
    return range->type == MEMMAP_USABLE && out->start < out->end;
}

static uint64_t span_bytes(const struct memmap *map, uint64_t frames)
{
    size_t count = 0;
    struct span span;

    for (size_t i = 0; i < map->count; i++) {
        count += usable_span(map, i, frames, &span) ? 1 : 0;
    }
    /* One more: the place for all this may be carved out of one's middle. */
    return align_up((count + 1) * sizeof(*spans), CACHE_LINE);
}

uint64_t trees_bytes(const struct memmap *map, uint64_t frames)
{
    return span_bytes(map, frames) + state_bytes(frames) + word_bytes(frames) +
           bitfield_bytes(tree_count(frames) * TREE_BLOCKS);
}

void trees_init(const struct memmap *map, uint64_t frames, void *storage)
{
    char *rest = storage;

    ASSERT(is_aligned((uintptr_t)storage, CACHE_LINE));
    spans = storage;
    span_count = 0;
    for (size_t i = 0; i < map->count; i++) {
        struct span span;
        if (usable_span(map, i, frames, &span)) {
            spans[span_count++] = span;
        }
    }
    rest += align_up(span_count * sizeof(*spans), CACHE_LINE);
    trees_frames = frames;
    states = (void *)rest;
    memset(rest, 0, state_bytes(frames)); /* TREE_ASLEEP */
    rest += state_bytes(frames);
    trees_word = (void *)rest;
    rest += word_bytes(frames);
    bitfield_init(tree_count(frames) * TREE_BLOCKS, rest);
}

/* --- what the map said --------------------------------------------------- */

/* Index of the first span that ends above @frame, or span_count. */
static size_t first_span_above(uint64_t frame)
{
    size_t low = 0;
    size_t high = span_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spans[middle].end > frame) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* The part of span @index in [start, end); false if it lies above. */
static bool span_part(size_t index, uint64_t start, uint64_t end,
                      struct span *out)
{
    if (index >= span_count || spans[index].start >= end) {
        return false;
    }
    out->start = max_u64(spans[index].start, start);
    out->end = min_u64(spans[index].end, end);
    return true;
}

uint64_t trees_usable(uint64_t start, uint64_t end)
{
    uint64_t frames = 0;
    struct span part;

    for (size_t i = first_span_above(start); span_part(i, start, end, &part);
         i++) {
        frames += part.end - part.start;
    }
    return frames;
}

/* The bits of one row that lie in [start, end), counted from its first. */
static uint64_t row_mask(uint64_t start, uint64_t end)
{
    return low_bits((unsigned)end) & ~low_bits((unsigned)start);
}

/* The rows of an untouched tree, as the map had them. */
static void draw_tree(uint32_t tree, uint64_t out[TREE_ROWS])
{
    uint64_t first = tree * TREE_FRAMES;
    struct span part;

    memset(out, 0xff, TREE_ROWS * sizeof(out[0]));
    for (size_t i = first_span_above(first);
         span_part(i, first, first + TREE_FRAMES, &part); i++) {
        while (part.start < part.end) {
            uint64_t row = align_down(part.start, ROW_FRAMES);
            uint64_t end = min_u64(part.end, row + ROW_FRAMES);
            out[(row - first) / ROW_FRAMES] &=
                ~row_mask(part.start - row, end - row);
            part.start = end;
        }
    }
}

/* --- waking -------------------------------------------------------------- */

static inline unsigned state_shift(uint32_t tree)
{
    return tree % STATE_TREES * STATE_BITS;
}

static inline enum tree_state state_of(uint32_t tree)
{
    /* Acquire: pairs with the release in wake_tree(). */
    uint64_t word =
        atomic_load_explicit(&states[tree / STATE_TREES], memory_order_acquire);

    return (enum tree_state)(word >> state_shift(tree) & STATE_MASK);
}

/* From @from to @to; false if it is not @from. */
static bool change_state(uint32_t tree, enum tree_state from,
                         enum tree_state to)
{
    unsigned shift = state_shift(tree);
    _Atomic uint64_t *word = &states[tree / STATE_TREES];
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);

    do {
        if ((old >> shift & STATE_MASK) != (uint64_t)from) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(
        word, &old, old ^ (uint64_t)(from ^ to) << shift, memory_order_relaxed,
        memory_order_relaxed));
    return true;
}

/*
 * Bring a tree to life, with interrupts off: an interrupt that waited for its
 * own CPU would wait in vain. As trees_look().
 */
static MM_NOINLINE uint32_t wake_tree(uint32_t tree)
{
    uint64_t irq = port_irq_save();

    if (change_state(tree, TREE_ASLEEP, TREE_WAKES)) {
        uint64_t row[TREE_ROWS];
        draw_tree(tree, row);
        bitfield_fill(tree * TREE_BLOCKS, TREE_BLOCKS, row);
        atomic_store_explicit(&trees_word[tree], TREE_READY,
                              memory_order_relaxed);
        /* Release: pairs with the acquire in state_of(). */
        atomic_fetch_or_explicit(&states[tree / STATE_TREES],
                                 STATE_MASK << state_shift(tree),
                                 memory_order_release);
    }
    port_irq_restore(irq);
    return trees_peek(tree);
}

uint32_t trees_peek(uint32_t tree)
{
    enum tree_state state = state_of(tree);

    if (MM_LIKELY(state == TREE_AWAKE)) {
        return atomic_load_explicit(&trees_word[tree], memory_order_relaxed);
    }
    return state == TREE_ASLEEP ? 0 : TREE_FILLING;
}

uint32_t trees_look(uint32_t tree)
{
    uint32_t word = trees_peek(tree);

    return MM_LIKELY(word != 0) ? word : wake_tree(tree);
}

void trees_await(uint32_t first, uint32_t end)
{
    for (uint32_t tree = first; tree < end; tree++) {
        uint32_t turns = FILLING_TURNS;

        for (; turns > 0 && state_of(tree) == TREE_WAKES; turns--) {
            port_relax();
        }
        if (turns == 0) {
            /* Not again before it is awake. */
            (void)change_state(tree, TREE_WAKES, TREE_WAKES_LATE);
        }
    }
}

bool trees_touch(uint32_t tree)
{
    (void)trees_look(tree);
    trees_await(tree, tree + 1);
    return state_of(tree) == TREE_AWAKE;
}

void trees_read(uint32_t tree, uint64_t out[TREE_ROWS])
{
    if ((trees_peek(tree) & TREE_READY) == 0) {
        draw_tree(tree, out);
        return;
    }
    for (unsigned i = 0; i < TREE_ROWS; i++) {
        uint64_t index = tree * TREE_ROWS + i;
        bool is_whole = bitfield_is_whole(index / BLOCK_ROWS);
        out[i] = is_whole ? UINT64_MAX : bitfield_row(index);
    }
}

/* --- who sits there ------------------------------------------------------ */

/* Relaxed, here and below: it only keeps others at a distance. */
bool trees_reserve(uint32_t tree)
{
    uint32_t word = atomic_fetch_or_explicit(&trees_word[tree], TREE_RESERVED,
                                             memory_order_relaxed);

    return (word & TREE_RESERVED) == 0;
}

void trees_leave(uint32_t tree)
{
    uint32_t word =
        atomic_load_explicit(&trees_word[tree], memory_order_relaxed);

    ASSERT((word & TREE_RESERVED) != 0);
    /* Nobody else changes it as long as the flag is set. */
    atomic_store_explicit(&trees_word[tree], TREE_READY, memory_order_relaxed);
}

bool trees_check(uint32_t tree, uint64_t *out_free)
{
    uint64_t first = tree * TREE_BLOCKS;

    if ((trees_peek(tree) & TREE_READY) == 0) {
        *out_free = trees_usable(tree * TREE_FRAMES, (tree + 1) * TREE_FRAMES);
        return true;
    }
    *out_free = 0;
    for (uint64_t block = first; block < first + TREE_BLOCKS; block++) {
        if (!bitfield_check(block)) {
            return false;
        }
        *out_free += bitfield_free(block);
    }
    return true;
}
