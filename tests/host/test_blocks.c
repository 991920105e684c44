/* SPDX-License-Identifier: MIT */
/* Tests of blocks: waking trees, finding frames, hints and seats. */
/*
 * At risk: a free frame that no search finds, since a hint passes it by; a
 * tree read before it was filled, or filled twice; a frame handed out without
 * a record; start-up work that grows with the RAM. Provoked by one frame left
 * free at every kind of place, by storage full of rubbish, by backing that
 * fails, and by threads that wake the same trees.
 */
#include <mm/port.h>
#include <mm/record.h>
#include "base/bits.h"
#include "base/memory.h"
#include "frame/blocks.h"
#include "tests/host/players.h"
#include "tests/host/sim.h"

#define RAM          (64 * MiB)
#define RAM_FRAMES   (RAM / PAGE_BYTES)
#define STORE_BYTES  (16 * KiB)
#define FIRST_USABLE (1 * MiB / PAGE_BYTES)
/* sim_boot_map() puts an image below, the list of ranges at the very end. */
#define ABOVE_IMAGE (4 * MiB / PAGE_BYTES)
#define LIST_FRAMES 2

static MM_ALIGNED(64) char storage[STORE_BYTES];
static MM_ALIGNED(64) char backed_bits[64];
static struct blocks_zone zone;
static bool backing_fails;
static _Atomic unsigned backed; /* blocks */
static _Atomic unsigned asked;  /* calls, failures included */

static enum mm_status back(vaddr_t start, vaddr_t end)
{
    (void)start;
    (void)end;
    asked++;
    backed += backing_fails ? 0 : 1;
    return backing_fails ? MM_ENOMEM : MM_OK;
}

/* 64 MiB, one zone over all of it, storage full of @rubbish. */
static void start(int rubbish)
{
    sim_boot_map(RAM);
    /* No record is read or written here. */
    record_init((void *)(uintptr_t)0x10000000, back);
    CHECK(record_bytes(RAM_FRAMES) <= sizeof(backed_bits));
    record_cover(RAM_FRAMES, backed_bits);
    backing_fails = false;
    backed = 0;
    asked = 0;
    CHECK(trees_bytes(sim_map(), RAM_FRAMES) <= STORE_BYTES);
    memset(storage, rubbish, sizeof(storage));
    trees_init(sim_map(), RAM_FRAMES, storage);
    blocks_zone_init(&zone, 0, RAM_FRAMES);
}

static uint64_t usable(void)
{
    return trees_usable(0, RAM_FRAMES);
}

/* The zone is sound and has @free free frames. */
static void check_free(uint64_t free)
{
    uint64_t total = 0;

    for (uint32_t tree = zone.first; tree < zone.end; tree++) {
        uint64_t found;
        CHECK(trees_check(tree, &found));
        total += found;
    }
    CHECK_EQUAL(total, free);
}

/* The hints and what they lead to: a seat, a new one, any tree. */
static enum blocks_answer claim_once(struct blocks_zone *from,
                                     struct blocks_seat *seat,
                                     struct blocks_wish *wish)
{
    struct blocks_seat found = {0};
    enum blocks_answer answer = BLOCKS_NONE;

    if (seat != NULL && blocks_sits_in(seat, from)) {
        answer = blocks_claim_at(seat, wish);
    }
    if (answer != BLOCKS_NONE) {
        return answer;
    }
    answer = blocks_search(from, wish, &found);
    if (answer != BLOCKS_CLAIMED) {
        return answer == BLOCKS_NONE ? blocks_steal(from, wish) : answer;
    }
    if (seat == NULL) {
        blocks_leave(from, &found);
        return answer;
    }
    if (seat->tree != 0) {
        blocks_leave(from, seat);
    }
    *seat = found;
    return answer;
}

/* The same, with records: as frame_claim() does it. @seat: or NULL. */
static bool claim(struct blocks_zone *from, struct blocks_seat *seat,
                  struct blocks_wish *wish)
{
    enum blocks_answer answer = claim_once(from, seat, wish);

    while (answer == BLOCKS_UNBACKED) {
        wish->is_stuck = record_back_block(wish->pfn) != MM_OK;
        answer = claim_once(from, seat, wish);
    }
    return answer == BLOCKS_CLAIMED;
}

static bool release(pfn_t pfn, unsigned order)
{
    return blocks_release(&zone, NULL, pfn, order);
}

static pfn_t take(unsigned order)
{
    struct blocks_wish wish = {.order = order};

    if (!claim(&zone, NULL, &wish) &&
        blocks_steal_anywhere(&zone, &wish) != BLOCKS_CLAIMED) {
        return PFN_NONE;
    }
    return wish.pfn;
}

/* Seats tried before a kind of row is given up, as in frame_claim.c. */
#define SEATS_TRIED 4

/* A row of @kind at @seat, or at another; 0: there is none to be had. */
static uint64_t claim_row_of(enum blocks_kind kind, struct blocks_seat *seat,
                             pfn_t *out_first)
{
    struct blocks_wish wish = {0};
    struct blocks_seat found = {0};
    uint64_t mask;

    for (unsigned seats = 0; seats < SEATS_TRIED;) {
        enum blocks_answer answer = BLOCKS_NONE;
        if (blocks_sits_in(seat, &zone)) {
            answer = blocks_claim_row(seat, kind, &wish, &mask);
        }
        if (answer == BLOCKS_CLAIMED) {
            *out_first = wish.pfn;
            return mask;
        }
        if (answer == BLOCKS_UNBACKED) {
            wish.is_stuck = record_back_block(wish.pfn) != MM_OK;
            continue;
        }
        if (!blocks_find_seat(&zone, kind, &found)) {
            return 0;
        }
        if (seat->tree != 0) {
            blocks_leave(&zone, seat);
        }
        *seat = found;
        seats++;
    }
    return 0;
}

static uint64_t claim_row(struct blocks_seat *seat, pfn_t *out_first)
{
    uint64_t mask = claim_row_of(BLOCKS_PARTIAL, seat, out_first);

    return mask != 0 ? mask : claim_row_of(BLOCKS_WHOLE, seat, out_first);
}

static void leave(struct blocks_seat *seat)
{
    if (seat->tree != 0) {
        blocks_leave(&zone, seat);
    }
}

/* Take rows, then single frames until there are none; how many that were. */
static uint64_t take_all(void)
{
    struct blocks_seat seat = {0};
    uint64_t frames = 0;
    uint64_t mask;
    pfn_t first;

    while ((mask = claim_row(&seat, &first)) != 0) {
        frames += count_bits(mask);
    }
    leave(&seat);
    while (!pfn_is_none(take(0))) {
        frames++;
    }
    return frames;
}

TEST(blocks, usable_frames_are_those_of_the_map)
{
    CHECK_HELPER(start(0));
    CHECK_EQUAL(usable(), memmap_bytes(sim_map(), MEMMAP_USABLE) >> PAGE_SHIFT);
    CHECK_EQUAL(trees_usable(0, FIRST_USABLE), 0);
    CHECK_EQUAL(trees_usable(0, FIRST_USABLE + 1), 1);
    CHECK_EQUAL(trees_usable(FIRST_USABLE + 3, FIRST_USABLE + 3), 0);
    CHECK_EQUAL(trees_usable(RAM_FRAMES, UINT64_MAX >> PAGE_SHIFT), 0);
}

TEST(blocks, rubbish_in_the_storage_does_not_matter)
{
    static const int rubbish[] = {0x00, 0xff, 0xa5};

    for (unsigned i = 0; i < 3; i++) {
        CHECK_HELPER(start(rubbish[i]));
        CHECK_HELPER(check_free(usable()));
        CHECK_EQUAL(take_all(), usable());
        CHECK_HELPER(check_free(0));
    }
}

TEST(blocks, only_trees_that_are_needed_wake)
{
    CHECK_HELPER(start(0xa5));
    CHECK_EQUAL(take(0).v / TREE_FRAMES, RAM_FRAMES / TREE_FRAMES - 1);
    for (uint64_t tree = 0; tree < RAM_FRAMES / TREE_FRAMES - 1; tree++) {
        CHECK_EQUAL(trees_peek((uint32_t)tree), 0);
    }
    CHECK_HELPER(check_free(usable() - 1));
    CHECK_EQUAL(
        blocks_touch(pfn_of(TREE_FRAMES - 1), pfn_of(TREE_FRAMES + 1)).v,
        TREE_FRAMES + 1);
    CHECK(trees_peek(0) != 0 && trees_peek(1) != 0 && trees_peek(2) == 0);
    CHECK_HELPER(check_free(usable() - 1));
}

TEST(blocks, each_order_is_exhausted_and_comes_back)
{
    static pfn_t taken[RAM_FRAMES];

    for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
        uint64_t count = 0;

        CHECK_HELPER(start(0xa5));
        while (!pfn_is_none(taken[count] = take(order))) {
            CHECK(is_aligned(taken[count].v, UINT64_C(1) << order));
            count++;
        }
        /* Less than a block is lost at each place where the map breaks off. */
        CHECK((count << order) > usable() - (UINT64_C(4) << order));
        CHECK_HELPER(check_free(usable() - (count << order)));
        for (uint64_t i = 0; i < count; i++) {
            CHECK(release(taken[i], order));
        }
        CHECK_HELPER(check_free(usable()));
        CHECK(!pfn_is_none(take(MM_MAX_ORDER)));
    }
}

TEST(blocks, one_free_frame_is_found_wherever_it_is)
{
    struct test_random random;

    CHECK_HELPER(start(0));
    CHECK_EQUAL(take_all(), usable());
    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t span = RAM_FRAMES - LIST_FRAMES - ABOVE_IMAGE;
        pfn_t pfn = pfn_of(ABOVE_IMAGE + test_random_below(&random, span));
        if (i < 2) {
            pfn = pfn_of(i == 0 ? FIRST_USABLE : ABOVE_IMAGE + span - 1);
        }
        struct blocks_wish wish = {.order = 0};

        CHECK(release(pfn, 0));
        /* The hints alone lead there. */
        CHECK(claim(&zone, NULL, &wish));
        CHECK_EQUAL(wish.pfn.v, pfn.v);
        CHECK(!claim(&zone, NULL, &wish));
        CHECK(blocks_steal_anywhere(&zone, &wish) == BLOCKS_NONE);
    }
    CHECK_HELPER(check_free(0));
}

TEST(blocks, one_free_block_of_each_order_is_found)
{
    for (unsigned order = 1; order <= MM_MAX_ORDER; order++) {
        uint64_t place[] = {4 * TREE_FRAMES - 2048, TREE_FRAMES,
                            2 * TREE_FRAMES + 1024};

        CHECK_HELPER(start(0));
        CHECK_EQUAL(take_all(), usable());
        for (unsigned i = 0; i < 3; i++) {
            pfn_t pfn = pfn_of(place[i]);
            for (uint64_t k = 0; k < UINT64_C(1) << order; k++) {
                CHECK(pfn_is_none(take(order)));
                CHECK(release(pfn_add(pfn, k), 0));
            }
            struct blocks_wish wish = {.order = order};
            CHECK(claim(&zone, NULL, &wish)); /* by the hints */
            CHECK_EQUAL(wish.pfn.v, pfn.v);
            CHECK(pfn_is_none(take(0)));
        }
    }
}

TEST(blocks, the_lowest_memory_goes_last)
{
    struct blocks_seat seat = {0};
    uint64_t free = 0;
    pfn_t first;

    CHECK_HELPER(start(0));
    do {
        CHECK(claim_row(&seat, &first) != 0);
    } while (first.v >= TREE_FRAMES);
    /* Above there are crumbs at most, less than a row in each tree. */
    for (uint64_t block = TREE_BLOCKS; block < RAM_FRAMES / BLOCK_FRAMES;
         block++) {
        free += bitfield_free(block);
    }
    CHECK(free < (RAM_FRAMES / TREE_FRAMES - 1) * ROW_FRAMES);
}

TEST(blocks, cpus_sit_at_different_trees)
{
    struct blocks_seat seat[3] = {0};
    uint64_t frames = 0;
    pfn_t first;

    CHECK_HELPER(start(0));
    for (unsigned i = 0; i < 3; i++) {
        frames += count_bits(claim_row(&seat[i], &first));
        CHECK_EQUAL(first.v / TREE_FRAMES, RAM_FRAMES / TREE_FRAMES - 1 - i);
        CHECK_EQUAL(seat[i].tree, RAM_FRAMES / TREE_FRAMES - i);
    }
    /* Each stays until its tree is used up. */
    for (bool found = true; found;) {
        found = false;
        for (unsigned i = 0; i < 3; i++) {
            uint64_t mask = claim_row(&seat[i], &first);
            frames += count_bits(mask);
            found |= mask != 0;
        }
        CHECK(seat[0].tree != seat[1].tree && seat[1].tree != seat[2].tree &&
              seat[2].tree != seat[0].tree);
    }
    CHECK_HELPER(check_free(usable() - frames));
    /* Who has left a tree has left it to others. */
    for (uint32_t tree = 0; tree < RAM_FRAMES / TREE_FRAMES; tree++) {
        bool is_taken = false;
        for (unsigned i = 0; i < 3; i++) {
            is_taken |= seat[i].tree == tree + 1;
        }
        CHECK_EQUAL((trees_word[tree] & TREE_RESERVED) != 0, is_taken);
    }
    /* What is left is found, whoever sits there. */
    while (!pfn_is_none(take(0))) {
        frames++;
    }
    CHECK_EQUAL(frames, usable());
    CHECK_HELPER(check_free(0));
}

TEST(blocks, a_zone_keeps_to_its_trees)
{
    static struct blocks_zone high;

    CHECK_HELPER(start(0));
    blocks_zone_init(&zone, 0, TREE_FRAMES);
    blocks_zone_init(&high, TREE_FRAMES, UINT64_MAX >> PAGE_SHIFT);
    CHECK_EQUAL(take_all(), trees_usable(0, TREE_FRAMES));
    struct blocks_wish wish = {.order = 0};
    CHECK(claim(&high, NULL, &wish));
    CHECK(wish.pfn.v >= TREE_FRAMES);
    /* A zone above all RAM is empty and says so. */
    blocks_zone_init(&high, 1 << 20, UINT64_MAX >> PAGE_SHIFT);
    CHECK_EQUAL(high.end, high.first);
    CHECK(!claim(&high, NULL, &wish));
    CHECK(blocks_steal_anywhere(&high, &wish) == BLOCKS_NONE);
}

TEST(blocks, a_block_is_backed_once_before_its_first_frame_leaves)
{
    CHECK_HELPER(start(0));
    pfn_t pfn = take(0);
    CHECK_EQUAL(backed, 1);
    CHECK(record_exists(pfn));
    CHECK(!record_exists(pfn_of(pfn.v - BLOCK_FRAMES)));
    CHECK(!record_exists(pfn_of(RAM_FRAMES)));
    CHECK(!record_exists(PFN_NONE));
    (void)take(0);
    CHECK_EQUAL(backed, 1);
    pfn = take(MM_MAX_ORDER);
    CHECK_EQUAL(backed, 3);
    CHECK(record_exists(pfn));
    CHECK(record_exists(pfn_add(pfn, BLOCK_FRAMES)));
    /* Raw frames need none. */
    struct blocks_wish wish = {.order = MM_MAX_ORDER, .is_raw = true};
    CHECK(claim(&zone, NULL, &wish));
    CHECK_EQUAL(backed, 3);
}

TEST(blocks, when_backing_fails_backed_blocks_serve)
{
    CHECK_HELPER(start(0));
    backing_fails = true;
    CHECK(pfn_is_none(take(0)));
    CHECK_EQUAL(asked, 1); /* and not again for each block */
    CHECK_HELPER(check_free(usable()));
    /* One block somewhere in the lowest tree is backed, then no more. */
    backing_fails = false;
    blocks_zone_init(&zone, 0, TREE_FRAMES);
    uint64_t block = take(7).v / BLOCK_FRAMES;
    uint64_t left = bitfield_free(block);
    CHECK(left > 0);
    backing_fails = true;
    blocks_zone_init(&zone, 0, RAM_FRAMES);
    CHECK(pfn_is_none(take(9)));
    CHECK(pfn_is_none(take(10)));
    for (uint64_t i = 0; i < left; i++) {
        CHECK_EQUAL(take(0).v / BLOCK_FRAMES, block);
    }
    CHECK(pfn_is_none(take(0)));
    CHECK_HELPER(check_free(usable() - 128 - left));
}

TEST(blocks, half_of_an_order_10_block_is_not_backed_for_it)
{
    struct blocks_wish wish = {.order = MM_MAX_ORDER};

    CHECK_HELPER(start(0));
    blocks_zone_init(&zone, TREE_FRAMES, 2 * TREE_FRAMES);
    CHECK_EQUAL(blocks_touch(pfn_of(TREE_FRAMES), pfn_of(2 * TREE_FRAMES)).v,
                2 * TREE_FRAMES);
    for (uint64_t block = 1; block < TREE_FRAMES / BLOCK_FRAMES; block += 2) {
        CHECK_EQUAL(bitfield_take(TREE_FRAMES / BLOCK_FRAMES + block, 0, 0).v,
                    TREE_FRAMES + block * BLOCK_FRAMES);
    }
    CHECK(!claim(&zone, NULL, &wish));
    CHECK_EQUAL(asked, 0);
}

TEST(blocks, frame_0_is_never_handed_out)
{
    struct memmap_range range = {0, 16 * MiB, MEMMAP_USABLE, "", ""};
    struct memmap map = {&range, 1, 1, 0};

    CHECK_HELPER(start(0));
    trees_init(&map, TREE_FRAMES, storage);
    blocks_zone_init(&zone, 0, TREE_FRAMES);
    CHECK_EQUAL(trees_usable(0, TREE_FRAMES), TREE_FRAMES - 1);
    CHECK_EQUAL(take_all(), TREE_FRAMES - 1);
    CHECK(!blocks_is_free(pfn_of(0)));
}

/* What a buddy system would say of one flat array of free frames. */
static void count_flat(const uint8_t *is_free, uint64_t frames,
                       uint64_t count[MM_MAX_ORDER + 1])
{
    for (uint64_t pfn = 0; pfn < frames;) {
        unsigned best = MM_MAX_ORDER + 1;
        for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
            bool fits = is_aligned(pfn, UINT64_C(1) << order);
            for (uint64_t i = 0; fits && i < UINT64_C(1) << order; i++) {
                fits = is_free[pfn + i];
            }
            if (!fits) {
                break;
            }
            best = order;
        }
        if (best > MM_MAX_ORDER) {
            pfn++;
        } else {
            count[best]++;
            pfn += UINT64_C(1) << best;
        }
    }
}

TEST(blocks, free_blocks_are_counted_as_a_buddy_would)
{
    static uint8_t is_free[RAM_FRAMES];
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < 8; round++) {
        uint64_t count[MM_MAX_ORDER + 1] = {0};
        uint64_t expected[MM_MAX_ORDER + 1] = {0};

        CHECK_HELPER(start(0xa5));
        for (unsigned i = 0; i < round * 100; i++) {
            uint64_t order = test_random_below(&random, MM_MAX_ORDER + 1);
            (void)take((unsigned)(order * order / MM_MAX_ORDER));
        }
        blocks_count(&zone, count);
        for (uint64_t pfn = 0; pfn < RAM_FRAMES; pfn++) {
            is_free[pfn] = blocks_is_free(pfn_of(pfn));
        }
        count_flat(is_free, RAM_FRAMES, expected);
        for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
            CHECK_EQUAL(count[order], expected[order]);
        }
    }
}

/* --- threads ------------------------------------------------------------- */

static uint8_t owner[RAM_FRAMES]; /* plain: see test_bitfield.c */

static struct share {
    uint64_t frames;
    struct blocks_seat seat;
} share[PLAYERS];

static void sign(pfn_t pfn)
{
    unsigned cpu = player_me()->cpu;

    share[cpu].frames++;
    player_expect(owner[pfn.v] == 0);
    owner[pfn.v] = (uint8_t)(cpu + 1);
}

/* Take everything there is, row by row, and sign it. */
static void grab(void)
{
    struct blocks_seat *seat = &share[player_me()->cpu].seat;
    uint64_t mask;
    pfn_t pfn;

    while ((mask = claim_row(seat, &pfn)) != 0) {
        for (; mask != 0; mask &= mask - 1) {
            sign(pfn_add(pfn, lowest_bit(mask)));
        }
    }
    while (!pfn_is_none(pfn = take(0))) {
        sign(pfn);
    }
}

TEST(blocks, threads_wake_the_same_trees)
{
    for (unsigned round = 0; round < 20; round++) {
        uint64_t frames = 0;

        CHECK_HELPER(start(0xa5));
        memset(owner, 0, sizeof(owner));
        memset(share, 0, sizeof(share));
        CHECK_HELPER(players_run(PLAYERS, grab));
        for (unsigned i = 0; i < PLAYERS; i++) {
            frames += share[i].frames;
            leave(&share[i].seat);
        }
        /* Who loses a race for the last frames may give up too early. */
        frames += take_all();
        CHECK_EQUAL(frames, usable());
        CHECK_HELPER(check_free(0));
    }
}
