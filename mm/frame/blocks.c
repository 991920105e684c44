/* SPDX-License-Identifier: MIT */
/* blocks: finding free frames in a zone, and giving them back. */
/*
 * Owns    the hints of zones; what a seat means. Seats stand in their CPU's
 *         structure.
 * Idea    After LLFree [LLFree23]: each CPU sits at trees of its own, one for
 *         small blocks and one for large ones, and takes from there until they
 *         are used up; others keep away, until they find nothing else. A new
 *         seat is the highest tree with plenty of free frames, first among
 *         those whose counts share no cache line with another seat. Hints tell
 *         above which tree a search would find nothing, so that a big machine
 *         that is nearly full is not read through each time.
 * Picture
 *     zone   first                               hint         end
 *            |tree|tree|tree|tree|tree|tree|tree|full|full|full|
 *                 ^ sparse       ^ seat of CPU 1  <-- search goes down
 *
 * Locking None. A hint may lose a race and pass a free frame by: it is found
 *         by blocks_steal_anywhere(), and the next release mends the hint.
 * Cost    A search reads a word and 16 bytes of counts for each 16 MiB it
 *         passes. Inside a tree, the densest block that will do is taken
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
        /* Trees that sleep are not in use partly. */
        uint32_t hint = kind == BLOCKS_PARTIAL ? zone->first : zone->end;
        atomic_init(&zone->hint[kind], hint);
        atomic_init(&zone->apart[kind], hint);
    }
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

    if (is_large(wish) && !blocks_tree_has(tree, BLOCKS_WHOLE)) {
        return BLOCKS_NONE;
    }
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
    return *out_mask != 0 ? BLOCKS_CLAIMED : BLOCKS_NONE;
}

static inline void raise(_Atomic uint32_t *hint, uint32_t tree)
{
    uint32_t old = atomic_load_explicit(hint, memory_order_relaxed);

    while (old <= tree && !atomic_compare_exchange_weak_explicit(
                              hint, &old, tree + 1, memory_order_relaxed,
                              memory_order_relaxed)) {
    }
}

/* Searches for @kind begin at @tree or higher from now on. */
static inline void raise_hint(struct blocks_zone *zone, enum blocks_kind kind,
                              uint32_t tree)
{
    raise(&zone->hint[kind], tree);
    if (kind != BLOCKS_ANY) {
        raise(&zone->apart[kind], tree);
    }
}

/* The lowest tree of @zone whose counts share a line with those of @tree. */
static uint32_t first_of_line(const struct blocks_zone *zone, uint32_t tree)
{
    return (uint32_t)max_u64(align_down(tree, LINE_TREES), zone->first);
}

/* Say what kinds a tree is of. */
static void raise_hints(struct blocks_zone *zone, uint32_t tree)
{
    for (unsigned kind = 0; kind < BLOCKS_KINDS; kind++) {
        if (blocks_tree_has(tree, (enum blocks_kind)kind)) {
            raise_hint(zone, (enum blocks_kind)kind, tree);
        }
    }
}

void blocks_leave(struct blocks_zone *zone, struct blocks_seat *seat)
{
    uint32_t tree = seat->tree - 1;

    ASSERT(blocks_sits_in(seat, zone));
    trees_leave(tree);
    seat->tree = 0;
    /* Those beside it have stood apart, too, from now on. */
    uint32_t end = (uint32_t)align_down(tree, LINE_TREES) + LINE_TREES;
    for (tree = first_of_line(zone, tree); tree < end && tree < zone->end;
         tree++) {
        if ((trees_peek(tree) & TREE_READY) != 0) {
            raise_hints(zone, tree);
        }
    }
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

    return (is_open || kind == BLOCKS_ANY) && blocks_tree_has(tree, kind);
}

/*
 * Does another CPU sit at one of the trees whose counts share a line with this?
 * @own: index plus one of the tree that this CPU will leave.
 */
static bool has_neighbour(const struct blocks_zone *zone, uint32_t tree,
                          uint32_t own)
{
    uint32_t end = (uint32_t)align_down(tree, LINE_TREES) + LINE_TREES;

    for (uint32_t i = first_of_line(zone, tree); i < end && i < zone->end;
         i++) {
        if (i + 1 != own && (trees_peek(i) & TREE_RESERVED) != 0) {
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
    if (!trees_reserve(tree)) {
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
    uint32_t own;             /* see has_neighbour() */
};

static enum blocks_answer take_from(const struct search *search, uint32_t tree)
{
    return search->seat != NULL
               ? try_tree(search->zone, tree, search->wish, search->seat)
               : claim_in_tree(tree, search->wish);
}

/* Does a tree, with @word, have what is looked for? */
static bool suits(const struct search *search, uint32_t tree, uint32_t word)
{
    return tree_fits(tree, word, search->kind) &&
           !(search->is_choosy &&
             has_neighbour(search->zone, tree, search->own));
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

        if (is_waking || suits(search, tree, word)) {
            *out_edge = (uint32_t)max_u64(*out_edge, tree + 1);
            answer = is_waking ? BLOCKS_NONE : take_from(search, tree);
        }
    }
    return answer;
}

/* Scan from the hint and move it to where the kind begins. */
static enum blocks_answer scan_from_hint(const struct search *search)
{
    _Atomic uint32_t *hint = search->is_choosy
                                 ? &search->zone->apart[search->kind]
                                 : &search->zone->hint[search->kind];
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
    search.own = search.seat->tree;
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

/* Frames came back to the block at @pfn, in a tree where this CPU sits not. */
static inline void note_release(struct blocks_zone *zone, pfn_t pfn)
{
    uint32_t tree = (uint32_t)(pfn.v / TREE_FRAMES);
    unsigned free = step_free_hint(pfn.v / BLOCK_FRAMES);
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
        own->row = pfn.v / ROW_FRAMES;
    } else {
        note_release(zone, pfn);
    }
    return true;
}

bool blocks_release_quad(struct blocks_zone *zone, struct blocks_seat *seat,
                         pfn_t first, uint64_t which)
{
    if (!step_swap(first.v / BLOCK_FRAMES, which, COUNT_WHOLE, BLOCK_FRAMES)) {
        return false;
    }
    if (seat_at(seat, first) == NULL) {
        uint64_t block = lowest_bit(which) / COUNT_BITS;
        note_release(zone, pfn_add(first, block * BLOCK_FRAMES));
    }
    return true;
}

bool blocks_release_row(struct blocks_zone *zone, struct blocks_seat *seat,
                        pfn_t first, uint64_t mask)
{
    if (!step_clear_bits(&bitfield_rows[first.v / ROW_FRAMES], mask)) {
        return false;
    }
    step_give_count(first.v / BLOCK_FRAMES, step_frames(mask));
    if (seat_at(seat, first) == NULL) {
        note_release(zone, first);
    }
    return true;
}
