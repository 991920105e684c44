/* SPDX-License-Identifier: MIT */
/* blocks: finding free frames in a zone, and giving them back. */
/*
 * Owns    the hints of zones; what a seat means. Seats stand in their CPU's
 *         structure.
 * Idea    After LLFree [LLFree23]: each CPU sits at trees of its own, one for
 *         small blocks and one for large ones, and takes from there until they
 *         are used up; others keep away, until they find nothing else. The
 *         count of such a tree moves into the seat, so that its CPU changes no
 *         word that others read, but the block's own. A new seat is the
 *         highest tree with plenty of free frames. Hints tell above which tree
 *         a search would find nothing, so that a big machine that is nearly
 *         full is not read through each time.
 * Picture
 *     zone   first                               hint         end
 *            |tree|tree|tree|tree|tree|tree|tree|full|full|full|
 *                 ^ sparse       ^ seat of CPU 1  <-- search goes down
 *
 * Locking None. A hint may lose a race and pass a free frame by: it is found
 *         by blocks_steal_anywhere(), and the next release mends the hint.
 * Cost    A search reads one word for each 16 MiB it passes and 16 bytes where
 *         it stops. Inside a tree, the densest block that will do is taken
 *         from, so that what is entirely free stays so.
 * Limits  A frame is found only if the records of its block are there or can
 *         be backed. A claim never backs them itself: that allocates frames,
 *         which would come back to the seat it is just changing.
 */
#include "frame/blocks.h"

#include <mm/record.h>
#include "base/bits.h"
#include "base/check.h"

/* A block that has fewer is not worth a seat, nor a refill. */
#define PARTIAL_FRAMES ROW_FRAMES

/*
 * Trees a search for one in use partly goes through at once, so that it costs
 * the same in a machine of any size. It goes on below next time.
 */
#define PARTIAL_SPAN 64

/* Rows come from the same block until it has fewer. */
#define USED_UP_FRAMES 8

/* Trees whose counts share a cache line; CPUs sit in different ones. */
#define LINE_TREES 4

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
    /* Trees that sleep are not in use partly. */
    atomic_init(&zone->hint[BLOCKS_PARTIAL], zone->first);
}

/* --- claims in one tree --------------------------------------------------- */

static uint64_t wish_frames(const struct blocks_wish *wish)
{
    return UINT64_C(1) << wish->order;
}

static bool is_large(const struct blocks_wish *wish)
{
    return blocks_use_of(wish->order) == BLOCKS_LARGE;
}

/* May frames of this block be handed out as they are? */
static inline bool has_records(uint64_t block, const struct blocks_wish *wish)
{
    return wish->is_raw || record_exists(pfn_of(block * BLOCK_FRAMES));
}

/* The records of @block are missing: ask for them, or pass it by. */
static enum blocks_answer want_records(uint64_t block, struct blocks_wish *wish)
{
    if (wish->is_stuck) {
        return BLOCKS_NONE;
    }
    wish->pfn = pfn_of(block * BLOCK_FRAMES);
    return BLOCKS_UNBACKED;
}

/*
 * Take from one block what is wished for. Other CPUs may take, too: the
 * bitfield has the last word.
 * @first: row of the block to begin with.
 */
static enum blocks_answer claim_in_block(uint64_t block, unsigned first,
                                         struct blocks_wish *wish)
{
    if (wish->order == BLOCK_ORDER + 1) {
        if (block % 2 != 0 || bitfield_free(block) != BLOCK_FRAMES ||
            bitfield_free(block + 1) != BLOCK_FRAMES) {
            return BLOCKS_NONE;
        }
        if (!has_records(block + 1, wish)) {
            return want_records(block + 1, wish);
        }
    }
    if (!has_records(block, wish)) {
        return want_records(block, wish);
    }
    wish->pfn = bitfield_take(block, wish->order, first);
    return pfn_is_none(wish->pfn) ? BLOCKS_NONE : BLOCKS_CLAIMED;
}

/*
 * Densest block of a tree with @frames to @most frames free, but none of
 * @tried; so that what is free altogether stays so. Index, or NO_BLOCK.
 */
static unsigned choose_block(uint32_t tree, unsigned tried, unsigned frames,
                             unsigned most)
{
    unsigned best = NO_BLOCK;
    unsigned least = most + 1;

    for (unsigned i = 0; i < TREE_BLOCKS; i++) {
        unsigned free = bitfield_free(tree * TREE_BLOCKS + i);
        if ((tried >> i & 1) == 0 && free >= frames && free < least) {
            best = i;
            least = free;
        }
    }
    return best;
}

/* A block of a tree that is free altogether, or NO_BLOCK. */
static unsigned choose_whole(uint32_t tree)
{
    return choose_block(tree, 0, BLOCK_FRAMES, BLOCK_FRAMES);
}

static unsigned choose_partial(uint32_t tree)
{
    return choose_block(tree, 0, PARTIAL_FRAMES, BLOCK_FRAMES - 1);
}

/* Take from one tree: its blocks in turn, densest first. */
static enum blocks_answer claim_in_tree(uint32_t tree, struct blocks_wish *wish)
{
    unsigned frames = (unsigned)min_u64(wish_frames(wish), BLOCK_FRAMES);
    enum blocks_answer answer = BLOCKS_NONE;
    unsigned tried = 0;

    for (unsigned i = 0; i < TREE_BLOCKS && answer == BLOCKS_NONE; i++) {
        unsigned block = choose_block(tree, tried, frames, BLOCK_FRAMES);
        if (block == NO_BLOCK) {
            break;
        }
        tried |= 1u << block;
        answer = claim_in_block(tree * TREE_BLOCKS + block, 0, wish);
    }
    return answer;
}

/* --- seats ---------------------------------------------------------------- */

/*
 * What others have given back or stolen stands in the tree's word, which has
 * room for so much only: take it over before this CPU's own part runs away.
 */
static void balance(struct blocks_seat *seat)
{
    if (MM_UNLIKELY(seat->free < 0 || seat->free > (int32_t)TREE_FRAMES)) {
        seat->free += trees_collect(seat->tree - 1);
    }
}

/* Begin here next time, but where there are no records. */
static void sit_near(struct blocks_seat *seat, const struct blocks_wish *wish)
{
    seat->row = wish->is_raw ? BLOCKS_NO_ROW : wish->pfn.v / ROW_FRAMES;
}

enum blocks_answer blocks_claim_at(struct blocks_seat *seat,
                                   struct blocks_wish *wish)
{
    uint64_t block = seat->row / BLOCK_ROWS;
    enum blocks_answer answer = BLOCKS_NONE;

    if (seat->row != BLOCKS_NO_ROW) {
        block -= wish->order == BLOCK_ORDER + 1 ? block % 2 : 0;
        answer =
            claim_in_block(block, (unsigned)(seat->row % BLOCK_ROWS), wish);
    }
    if (answer == BLOCKS_NONE) {
        answer = claim_in_tree(seat->tree - 1, wish);
    }
    if (answer == BLOCKS_CLAIMED) {
        seat->free -= (int32_t)wish_frames(wish);
        balance(seat);
        sit_near(seat, wish);
    }
    return answer;
}

enum blocks_answer blocks_claim_row(struct blocks_seat *seat,
                                    enum blocks_kind kind,
                                    struct blocks_wish *wish,
                                    uint64_t *out_mask)
{
    uint32_t tree = seat->tree - 1;
    unsigned index = seat->block;
    unsigned free = bitfield_free(tree * TREE_BLOCKS + index);

    if (free < USED_UP_FRAMES || free == BLOCK_FRAMES) {
        index =
            kind == BLOCKS_WHOLE ? choose_whole(tree) : choose_partial(tree);
    }
    if (index == NO_BLOCK) {
        return BLOCKS_NONE;
    }
    uint64_t block = tree * TREE_BLOCKS + index;
    if (!has_records(block, wish)) {
        return want_records(block, wish);
    }
    *out_mask = bitfield_take_row(block, &wish->pfn);
    seat->block = index;
    seat->free -= (int32_t)count_bits(*out_mask);
    balance(seat);
    return *out_mask != 0 ? BLOCKS_CLAIMED : BLOCKS_NONE;
}

/* Searches for @kind begin at @tree or higher from now on. */
static inline void raise_hint(struct blocks_zone *zone, enum blocks_kind kind,
                              uint32_t tree)
{
    _Atomic uint32_t *hint = &zone->hint[kind];
    uint32_t old = atomic_load_explicit(hint, memory_order_relaxed);

    while (old <= tree && !atomic_compare_exchange_weak_explicit(
                              hint, &old, tree + 1, memory_order_relaxed,
                              memory_order_relaxed)) {
    }
}

/* Say what kinds a tree is of, with @free frames by its word. */
static void raise_hints(struct blocks_zone *zone, uint32_t tree, int32_t free)
{
    if (free > 0) {
        raise_hint(zone, BLOCKS_ANY, tree);
    }
    if (free >= (int32_t)PARTIAL_FRAMES && choose_partial(tree) != NO_BLOCK) {
        raise_hint(zone, BLOCKS_PARTIAL, tree);
    }
    if (free >= (int32_t)BLOCK_FRAMES && choose_whole(tree) != NO_BLOCK) {
        raise_hint(zone, BLOCKS_WHOLE, tree);
    }
}

void blocks_leave(struct blocks_zone *zone, struct blocks_seat *seat)
{
    uint32_t tree = seat->tree - 1;
    int32_t free = seat->free + trees_collect(tree);

    ASSERT(blocks_sits_in(seat, zone));
    trees_leave(tree, free);
    seat->tree = 0;
    raise_hints(zone, tree, free);
}

/* --- searches ------------------------------------------------------------ */

/* The word of a tree. One that sleeps is not in use partly: it sleeps on. */
static inline uint32_t look(uint32_t tree, enum blocks_kind kind)
{
    return kind == BLOCKS_PARTIAL ? trees_peek(tree) : trees_look(tree);
}

/* Does a tree, with @word, have what the kind says? */
static bool tree_fits(uint32_t tree, uint32_t word, enum blocks_kind kind)
{
    bool is_open = (word & (TREE_READY | TREE_RESERVED)) == TREE_READY;

    switch (kind) {
    case BLOCKS_PARTIAL:
        return is_open && tree_free(word) >= (int32_t)PARTIAL_FRAMES &&
               choose_partial(tree) != NO_BLOCK;
    case BLOCKS_WHOLE:
        return is_open && tree_free(word) >= (int32_t)BLOCK_FRAMES &&
               choose_whole(tree) != NO_BLOCK;
    default:
        /* What a seat has counts itself stands in the blocks only. */
        return tree_free(word) > 0 ||
               ((word & TREE_RESERVED) != 0 &&
                choose_block(tree, 0, 1, BLOCK_FRAMES) != NO_BLOCK);
    }
}

/* Does a CPU sit at one of the trees whose counts share a line with this? */
static bool has_neighbour(const struct blocks_zone *zone, uint32_t tree)
{
    uint32_t first = (uint32_t)align_down(tree, LINE_TREES);

    for (uint32_t i = first; i < first + LINE_TREES; i++) {
        if (i >= zone->first && i < zone->end &&
            (trees_peek(i) & TREE_RESERVED) != 0) {
            return true;
        }
    }
    return false;
}

/* Reserve a tree and take from it, if @wish; out again if that fails. */
static enum blocks_answer try_tree(struct blocks_zone *zone, uint32_t tree,
                                   struct blocks_wish *wish,
                                   struct blocks_seat *seat)
{
    if (!trees_reserve(tree, &seat->free)) {
        return BLOCKS_NONE;
    }
    seat->tree = tree + 1;
    seat->row = BLOCKS_NO_ROW;
    seat->block = 0;
    if (wish == NULL) {
        return BLOCKS_CLAIMED;
    }
    enum blocks_answer answer = claim_in_tree(tree, wish);
    if (answer == BLOCKS_CLAIMED) {
        seat->free -= (int32_t)wish_frames(wish);
        sit_near(seat, wish);
    } else {
        blocks_leave(zone, seat);
    }
    return answer;
}

/* What to look for, and how. */
struct search {
    struct blocks_zone *zone;
    enum blocks_kind kind;
    struct blocks_wish *wish; /* NULL: sit down only */
    struct blocks_seat *seat; /* sit down where it is found; NULL: take only */
    bool is_choosy;           /* not beside other CPUs */
};

static enum blocks_answer take_from(const struct search *search, uint32_t tree)
{
    if (search->seat != NULL) {
        return search->is_choosy && has_neighbour(search->zone, tree)
                   ? BLOCKS_NONE
                   : try_tree(search->zone, tree, search->wish, search->seat);
    }
    enum blocks_answer answer = claim_in_tree(tree, search->wish);
    if (answer == BLOCKS_CLAIMED) {
        (void)trees_add(tree, -(int32_t)wish_frames(search->wish));
    }
    return answer;
}

/* The lowest tree that a search below @from looks at. */
static uint32_t lowest_tree(const struct search *search, uint32_t from)
{
    uint32_t first = search->zone->first;

    return search->kind == BLOCKS_PARTIAL && from - first > PARTIAL_SPAN
               ? from - PARTIAL_SPAN
               : first;
}

/*
 * Try the trees below @from, highest first.
 * @out_edge: one more than the highest tree of the kind, or the lowest tree
 *            that was looked at.
 */
static enum blocks_answer scan(const struct search *search, uint32_t from,
                               uint32_t *out_edge)
{
    enum blocks_answer answer = BLOCKS_NONE;
    uint32_t lowest = lowest_tree(search, from);

    *out_edge = lowest;
    for (uint32_t tree = from; answer == BLOCKS_NONE && tree-- > lowest;) {
        uint32_t word = look(tree, search->kind);
        bool is_waking = word == TREE_FILLING;

        if (is_waking || tree_fits(tree, word, search->kind)) {
            *out_edge = (uint32_t)max_u64(*out_edge, tree + 1);
            answer = is_waking ? BLOCKS_NONE : take_from(search, tree);
        }
    }
    return answer;
}

/* Scan from the hint and move it to where the kind begins. */
static enum blocks_answer scan_from_hint(const struct search *search)
{
    _Atomic uint32_t *hint = &search->zone->hint[search->kind];
    uint32_t from = atomic_load_explicit(hint, memory_order_relaxed);
    uint32_t edge;
    enum blocks_answer answer = scan(search, from, &edge);

    if (edge < from) {
        /* If somebody has moved it meanwhile, that is as good. */
        (void)atomic_compare_exchange_strong_explicit(
            hint, &from, edge, memory_order_relaxed, memory_order_relaxed);
    }
    return answer;
}

static enum blocks_answer search_for_seat(struct search search)
{
    search.is_choosy = port_cpu_count() > 1;
    enum blocks_answer answer = scan_from_hint(&search);
    if (answer == BLOCKS_NONE && search.is_choosy) {
        search.is_choosy = false;
        answer = scan_from_hint(&search);
    }
    return answer;
}

enum blocks_answer blocks_search(struct blocks_zone *zone,
                                 struct blocks_wish *wish,
                                 struct blocks_seat *out_seat)
{
    struct search search = {
        .zone = zone, .kind = BLOCKS_PARTIAL, .wish = wish, .seat = out_seat};
    enum blocks_answer answer = BLOCKS_NONE;

    if (!is_large(wish)) {
        answer = search_for_seat(search);
    }
    if (answer == BLOCKS_NONE) {
        search.kind = BLOCKS_WHOLE;
        answer = search_for_seat(search);
    }
    return answer;
}

bool blocks_find_seat(struct blocks_zone *zone, enum blocks_kind kind,
                      struct blocks_seat *out_seat)
{
    return search_for_seat((struct search){
               .zone = zone,
               .kind = kind,
               .seat = out_seat,
           }) == BLOCKS_CLAIMED;
}

enum blocks_answer blocks_steal(struct blocks_zone *zone,
                                struct blocks_wish *wish)
{
    struct search search = {.zone = zone, .kind = BLOCKS_ANY, .wish = wish};

    return scan_from_hint(&search);
}

enum blocks_answer blocks_steal_anywhere(struct blocks_zone *zone,
                                         struct blocks_wish *wish)
{
    struct search search = {.zone = zone, .kind = BLOCKS_ANY, .wish = wish};
    uint32_t edge;

    trees_await(zone->first, zone->end);
    return scan(&search, zone->end, &edge);
}

/* --- releases ------------------------------------------------------------ */

/* The seat of this CPU at the tree with @pfn, or NULL. */
static inline struct blocks_seat *seat_at(struct blocks_seat *seat, pfn_t pfn)
{
    uint32_t tree = (uint32_t)(pfn.v / TREE_FRAMES) + 1;

    if (seat == NULL) {
        return NULL;
    }
    if (seat[BLOCKS_SMALL].tree == tree) {
        return &seat[BLOCKS_SMALL];
    }
    return seat[BLOCKS_LARGE].tree == tree ? &seat[BLOCKS_LARGE] : NULL;
}

/* @frames came back to a tree where this CPU does not sit: count and hints. */
static inline void note_release(struct blocks_zone *zone, pfn_t pfn,
                                unsigned frames)
{
    uint32_t tree = (uint32_t)(pfn.v / TREE_FRAMES);
    unsigned free = step_free_hint(pfn.v / BLOCK_FRAMES);

    (void)trees_add(tree, (int32_t)frames);
    /* Where somebody sits, blocks_leave() will say so again. */
    raise_hint(zone, BLOCKS_ANY, tree);
    if (free >= PARTIAL_FRAMES) {
        raise_hint(zone, free == BLOCK_FRAMES ? BLOCKS_WHOLE : BLOCKS_PARTIAL,
                   tree);
    }
}

bool blocks_release(struct blocks_zone *zone, struct blocks_seat *seat,
                    pfn_t pfn, unsigned order)
{
    if (!bitfield_give(pfn, order)) {
        return false;
    }
    struct blocks_seat *own = seat_at(seat, pfn);
    if (own != NULL) {
        own->free += INT32_C(1) << order;
        own->row = pfn.v / ROW_FRAMES;
        balance(own);
    } else {
        note_release(zone, pfn, 1u << order);
    }
    return true;
}

bool blocks_release_row(struct blocks_zone *zone, struct blocks_seat *seat,
                        pfn_t first, uint64_t mask)
{
    unsigned frames = (mask & (mask - 1)) == 0 ? 1 : count_bits(mask);

    if (!step_clear_bits(&bitfield_rows[first.v / ROW_FRAMES], mask)) {
        return false;
    }
    step_give_count(first.v / BLOCK_FRAMES, frames);
    struct blocks_seat *own = seat_at(seat, first);
    if (own != NULL) {
        own->free += (int32_t)frames;
        balance(own);
    } else {
        note_release(zone, first, frames);
    }
    return true;
}
