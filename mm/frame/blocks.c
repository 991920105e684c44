/* SPDX-License-Identifier: MIT */
/* blocks: finding free frames in a zone, and giving them back. */
/*
 * Owns    the hints of zones; seats, which stand in their CPU's structure.
 * Idea    After LLFree [LLFree23]: each CPU sits at a tree of its own and
 *         takes from there until it is used up; others keep away. A new seat
 *         is the highest tree with plenty of free frames. Hints tell above
 *         which tree a search would find nothing, so that a big machine that
 *         is nearly full is not read through each time.
 * Picture
 *     zone   first                               hint         end
 *            |tree|tree|tree|tree|tree|tree|tree|full|full|full|
 *                 ^ sparse       ^ seat of CPU 1  <-- search goes down
 *
 * Locking None. A hint may lose a race and pass a free frame by: it is found
 *         by blocks_claim_anywhere(), and the next release mends the hint.
 * Cost    A search reads one word for each 16 MiB it passes and 16 bytes where
 *         it stops. Inside a tree, the densest block that will do is taken
 *         from, so that what is entirely free stays so.
 * Limits  A frame is found only if the records of its block are there or can
 *         be backed. To back them, frame_alloc_metadata() comes back here with
 *         a raw wish; a raw wish backs nothing, so that is all.
 */
#include "frame/blocks.h"

#include <mm/record.h>
#include "base/bits.h"
#include "base/check.h"

/*
 * A CPU that looks for a seat wants four rows, so that it does not have to
 * look again soon; what is sparser waits until nothing else is left.
 */
#define ROOMY_FRAMES 256

#define NO_BLOCK TREE_BLOCKS

void blocks_zone_init(struct blocks_zone *zone, uint64_t first_frame,
                      uint64_t end_frame)
{
    uint64_t end = div_round_up(min_u64(end_frame, trees_frames), TREE_FRAMES);

    ASSERT(is_aligned(first_frame, TREE_FRAMES));
    zone->first = (uint32_t)(first_frame / TREE_FRAMES);
    zone->end = (uint32_t)max_u64(end, zone->first);
    for (unsigned kind = 0; kind < BLOCKS_KINDS; kind++) {
        atomic_init(&zone->hint[kind], zone->end);
    }
}

/* --- claims -------------------------------------------------------------- */

/* Have the records of a block backed, unless that has failed before. */
static bool back_block(uint64_t block, struct blocks_wish *wish)
{
    pfn_t first = pfn_of(block * BLOCK_FRAMES);

    if (wish->is_raw || record_exists(first)) {
        return true;
    }
    if (wish->is_stuck || record_back_block(first) != MM_OK) {
        wish->is_stuck = true;
        return false;
    }
    return true;
}

/*
 * Densest block of a tree with at least @frames free, but none of @tried;
 * so that what is free altogether stays so. Index in the tree, or NO_BLOCK.
 */
static unsigned choose_block(uint32_t tree, unsigned tried, unsigned frames)
{
    unsigned best = NO_BLOCK;
    unsigned least = BLOCK_FRAMES + 1;

    for (unsigned i = 0; i < TREE_BLOCKS; i++) {
        unsigned free = bitfield_free(tree * TREE_BLOCKS + i);
        if ((tried >> i & 1) == 0 && free >= frames && free < least) {
            best = i;
            least = free;
        }
    }
    return best;
}

/* Frames a block should have for this wish to be tried there first. */
static unsigned wanted_frames(const struct blocks_wish *wish)
{
    if (wish->order == BLOCKS_ROW) {
        return ROW_FRAMES;
    }
    return (unsigned)min_u64(UINT64_C(1) << wish->order, BLOCK_FRAMES);
}

/*
 * Take from one block what is wished for, records included. Backing them may
 * take frames out of this very block, and so may other CPUs: the bitfield has
 * the last word.
 */
static bool claim_in_block(uint64_t block, struct blocks_wish *wish)
{
    if (wish->order > BLOCK_ORDER && wish->order != BLOCKS_ROW) {
        if (block % 2 != 0 || bitfield_free(block + 1) != BLOCK_FRAMES ||
            !back_block(block + 1, wish)) {
            return false;
        }
    }
    if (!back_block(block, wish)) {
        return false;
    }
    if (wish->order == BLOCKS_ROW) {
        wish->mask = bitfield_take_row(block, &wish->pfn);
        return wish->mask != 0;
    }
    wish->pfn = bitfield_take(block, wish->order);
    return !pfn_is_none(wish->pfn);
}

static unsigned wish_frames(const struct blocks_wish *wish)
{
    return wish->order == BLOCKS_ROW ? count_bits(wish->mask)
                                     : 1u << wish->order;
}

/* Take from one tree: its blocks in turn, densest first. */
static bool claim_in_tree(uint32_t tree, struct blocks_wish *wish)
{
    unsigned frames = wanted_frames(wish);
    unsigned tried = 0;

    for (unsigned i = 0; i < TREE_BLOCKS; i++) {
        unsigned block = choose_block(tree, tried, frames);
        if (block == NO_BLOCK && wish->order == BLOCKS_ROW) {
            block = choose_block(tree, tried, 1);
        }
        if (block == NO_BLOCK) {
            return false;
        }
        tried |= 1u << block;
        if (claim_in_block(tree * TREE_BLOCKS + block, wish)) {
            (void)trees_add(tree, -(int32_t)wish_frames(wish));
            return true;
        }
    }
    return false;
}

/* --- searches ------------------------------------------------------------ */

/* Scans of @kind begin at @tree or higher from now on. */
static void raise_hint(struct blocks_zone *zone, enum blocks_kind kind,
                       uint32_t tree)
{
    _Atomic uint32_t *hint = &zone->hint[kind];
    uint32_t old = atomic_load_explicit(hint, memory_order_relaxed);

    while (old <= tree && !atomic_compare_exchange_weak_explicit(
                              hint, &old, tree + 1, memory_order_relaxed,
                              memory_order_relaxed)) {
    }
}

/* Sit down at @tree (one more than its index; 0: nowhere), leave the other. */
static void change_seat(struct blocks_zone *zone, blocks_seat *seat,
                        uint32_t tree)
{
    uint32_t old = atomic_exchange_explicit(seat, tree, memory_order_relaxed);

    if (old == 0) {
        return;
    }
    uint32_t word = trees_leave(old - 1);
    if (old > zone->first && old <= zone->end &&
        tree_free(word) >= ROOMY_FRAMES) {
        raise_hint(zone, BLOCKS_ROOMY, old - 1);
    }
}

/* Does a tree have what the kind says? Wakes it if need be. */
static bool tree_fits(uint32_t tree, enum blocks_kind kind)
{
    uint32_t word = trees_touch(tree);

    switch (kind) {
    case BLOCKS_ROOMY:
        return tree_free(word) >= ROOMY_FRAMES && (word & TREE_RESERVED) == 0;
    case BLOCKS_WHOLE:
        return tree_free(word) >= (int32_t)BLOCK_FRAMES &&
               choose_block(tree, 0, BLOCK_FRAMES) != NO_BLOCK;
    default:
        return tree_free(word) > 0;
    }
}

/*
 * Try the trees of @zone below @from, highest first.
 * @out_edge: one more than the highest tree of the kind, or the lowest tree.
 * Return: the tree taken from, or zone->end.
 */
static uint32_t scan(const struct blocks_zone *zone, enum blocks_kind kind,
                     uint32_t from, struct blocks_wish *wish,
                     uint32_t *out_edge)
{
    uint32_t edge = zone->first;

    for (uint32_t tree = from; tree-- > zone->first;) {
        if (!tree_fits(tree, kind)) {
            continue;
        }
        edge = (uint32_t)max_u64(edge, tree + 1);
        if (claim_in_tree(tree, wish)) {
            *out_edge = edge;
            return tree;
        }
    }
    *out_edge = edge;
    return zone->end;
}

/* Scan from the hint and move it to where the kind begins. */
static uint32_t scan_from_hint(struct blocks_zone *zone, enum blocks_kind kind,
                               struct blocks_wish *wish)
{
    _Atomic uint32_t *hint = &zone->hint[kind];
    uint32_t from = atomic_load_explicit(hint, memory_order_relaxed);
    uint32_t edge;
    uint32_t tree = scan(zone, kind, from, wish, &edge);

    if (edge < from) {
        /* If somebody has moved it meanwhile, that is as good. */
        (void)atomic_compare_exchange_strong_explicit(
            hint, &from, edge, memory_order_relaxed, memory_order_relaxed);
    }
    return tree;
}

/* Take from the tree of this CPU's seat if that is in the zone. */
static bool claim_at_seat(struct blocks_zone *zone, blocks_seat *seat,
                          struct blocks_wish *wish)
{
    if (seat == NULL) {
        return false;
    }
    uint32_t tree = atomic_load_explicit(seat, memory_order_relaxed);
    if (tree <= zone->first || tree > zone->end) {
        return false;
    }
    /* Crumbs are not worth a refill while there is a better tree. */
    if (wish->order == BLOCKS_ROW &&
        tree_free(trees_touch(tree - 1)) < (int32_t)ROW_FRAMES) {
        return false;
    }
    return claim_in_tree(tree - 1, wish);
}

bool blocks_claim(struct blocks_zone *zone, blocks_seat *seat,
                  struct blocks_wish *wish)
{
    if (wish->order >= BLOCK_ORDER && wish->order != BLOCKS_ROW) {
        return scan_from_hint(zone, BLOCKS_WHOLE, wish) != zone->end;
    }
    if (claim_at_seat(zone, seat, wish)) {
        return true;
    }
    uint32_t tree = scan_from_hint(zone, BLOCKS_ROOMY, wish);
    if (tree == zone->end) {
        return scan_from_hint(zone, BLOCKS_ANY, wish) != zone->end;
    }
    if (seat != NULL && wish->order == BLOCKS_ROW) {
        /* If another CPU has sat down there meanwhile, stand for once. */
        bool is_mine = (trees_reserve(tree) & TREE_RESERVED) == 0;
        change_seat(zone, seat, is_mine ? tree + 1 : 0);
    }
    return true;
}

bool blocks_claim_anywhere(struct blocks_zone *zone, struct blocks_wish *wish)
{
    uint32_t edge;

    return scan(zone, BLOCKS_ANY, zone->end, wish, &edge) != zone->end;
}

/* --- releases ------------------------------------------------------------ */

/* After @frames of the tree with @pfn came back: its count, the hints. */
static void note_release(struct blocks_zone *zone, pfn_t pfn, uint64_t frames)
{
    uint32_t tree = (uint32_t)(pfn.v / TREE_FRAMES);
    uint32_t word = trees_add(tree, (int32_t)frames);

    raise_hint(zone, BLOCKS_ANY, tree);
    if (tree_free(word) >= ROOMY_FRAMES && (word & TREE_RESERVED) == 0) {
        raise_hint(zone, BLOCKS_ROOMY, tree);
    }
    if (bitfield_free(pfn.v / BLOCK_FRAMES) == BLOCK_FRAMES) {
        raise_hint(zone, BLOCKS_WHOLE, tree);
    }
}

bool blocks_release(struct blocks_zone *zone, pfn_t pfn, unsigned order)
{
    if (!bitfield_give(pfn, order)) {
        return false;
    }
    note_release(zone, pfn, UINT64_C(1) << order);
    return true;
}

bool blocks_release_row(struct blocks_zone *zone, pfn_t first, uint64_t mask)
{
    if (!bitfield_give_row(first, mask)) {
        return false;
    }
    note_release(zone, first, count_bits(mask));
    return true;
}

/* --- looking ------------------------------------------------------------- */

enum blocks_bit blocks_look(pfn_t pfn)
{
    ASSERT(pfn.v < trees_frames);
    (void)trees_touch((uint32_t)(pfn.v / TREE_FRAMES));
    if (bitfield_is_whole(pfn.v / BLOCK_FRAMES)) {
        return BLOCKS_IN_WHOLE;
    }
    uint64_t row = bitfield_row(pfn.v / ROW_FRAMES);
    return row >> (pfn.v % ROW_FRAMES) & 1 ? BLOCKS_TAKEN : BLOCKS_FREE;
}

void blocks_touch(pfn_t start, pfn_t end)
{
    for (uint64_t at = start.v; at < end.v;
         at = align_down(at, TREE_FRAMES) + TREE_FRAMES) {
        (void)trees_touch((uint32_t)(at / TREE_FRAMES));
    }
}

/* The runs inside one row that is not free altogether. */
static void count_row(uint64_t free, uint64_t count[MM_MAX_ORDER + 1])
{
    for (unsigned order = ROW_ORDER; order-- > 0;) {
        uint64_t runs = bitfield_runs(free, order);
        count[order] += count_bits(runs);
        free &= ~(runs * low_bits(1u << order));
    }
}

/* Are @row[0 .. count-1] all free? */
static bool rows_are_free(const uint64_t *row, unsigned count)
{
    uint64_t taken = 0;

    for (unsigned i = 0; i < count; i++) {
        taken |= row[i];
    }
    return taken == 0;
}

/* Largest aligned run of free rows at @index; its order, or ROW_ORDER - 1. */
static unsigned rows_order(const uint64_t row[TREE_ROWS], unsigned index)
{
    for (unsigned order = MM_MAX_ORDER; order >= ROW_ORDER; order--) {
        unsigned count = 1u << (order - ROW_ORDER);
        if (index % count == 0 && rows_are_free(&row[index], count)) {
            return order;
        }
    }
    return ROW_ORDER - 1;
}

void blocks_count(const struct blocks_zone *zone,
                  uint64_t count[MM_MAX_ORDER + 1])
{
    uint64_t row[TREE_ROWS];

    for (uint32_t tree = zone->first; tree < zone->end; tree++) {
        trees_read(tree, row);
        for (unsigned i = 0; i < TREE_ROWS;) {
            unsigned order = rows_order(row, i);
            if (order < ROW_ORDER) {
                count_row(~row[i], count);
                i++;
            } else {
                count[order]++;
                i += 1u << (order - ROW_ORDER);
            }
        }
    }
}

bool blocks_check(const struct blocks_zone *zone, uint64_t *out_free)
{
    *out_free = 0;
    for (uint32_t tree = zone->first; tree < zone->end; tree++) {
        uint64_t free;
        if (!trees_check(tree, &free)) {
            return false;
        }
        *out_free += free;
    }
    return true;
}
