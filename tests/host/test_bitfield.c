/* SPDX-License-Identifier: MIT */
/* Tests of bitfield: the atoms that every frame comes from. */
/*
 * At risk: two owners of one frame; a frame lost between count and bits; a
 * block taken whole while somebody is inside. Provoked for every order at
 * every place of a block, against a model with one byte a frame, and by
 * threads that sign each frame they hold.
 */
#include <stdatomic.h>

#include "base/bits.h"
#include "base/memory.h"
#include "frame/bitfield.h"
#include "tests/host/players.h"
#include "tests/host/sim.h"

#define BLOCKS      UINT64_C(4)
#define FRAMES      (BLOCKS * BLOCK_FRAMES)
#define ALL_ROWS    (BLOCKS * BLOCK_ROWS)
#define STORE_BYTES 4096
#define MAX_ORDER   10

static MM_ALIGNED(64) char storage[STORE_BYTES];

/* All blocks with the same row everywhere; set bits are taken. */
static void fill(uint64_t row)
{
    uint64_t rows[ALL_ROWS];

    CHECK(bitfield_bytes(BLOCKS) <= STORE_BYTES);
    memset(storage, 0xa5, sizeof(storage));
    for (unsigned i = 0; i < ALL_ROWS; i++) {
        rows[i] = row;
    }
    bitfield_init(BLOCKS, storage);
    CHECK_EQUAL(bitfield_fill(0, BLOCKS, rows), ALL_ROWS * count_bits(~row));
}

static void check_all(void)
{
    for (uint64_t block = 0; block < BLOCKS; block++) {
        CHECK(bitfield_check(block));
    }
}

static uint64_t free_frames(void)
{
    uint64_t free = 0;

    for (uint64_t block = 0; block < BLOCKS; block++) {
        free += bitfield_free(block);
    }
    return free;
}

TEST(bitfield, every_order_fills_a_block_exactly)
{
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        uint64_t frames = UINT64_C(1) << order;
        uint8_t seen[FRAMES] = {0};

        CHECK_HELPER(fill(0));
        for (uint64_t block = 0; block < BLOCKS; block++) {
            if (order == MAX_ORDER && block % 2 != 0) {
                continue;
            }
            for (;;) {
                pfn_t pfn = bitfield_take(block, order, 0);
                if (pfn_is_none(pfn)) {
                    break;
                }
                CHECK(is_aligned(pfn.v, frames));
                for (uint64_t i = 0; i < frames; i++) {
                    CHECK_EQUAL(seen[pfn.v + i]++, 0);
                }
            }
        }
        for (uint64_t i = 0; i < FRAMES; i++) {
            CHECK_EQUAL(seen[i], 1);
        }
        CHECK_EQUAL(free_frames(), 0);
        CHECK_HELPER(check_all());
        for (uint64_t pfn = 0; pfn < FRAMES; pfn += frames) {
            CHECK(bitfield_give(pfn_of(pfn), order));
            CHECK(!bitfield_give(pfn_of(pfn), order));
        }
        CHECK_EQUAL(free_frames(), FRAMES);
        CHECK_HELPER(check_all());
    }
}

TEST(bitfield, one_taken_frame_bars_every_run_around_it)
{
    for (uint64_t taken = 0; taken < BLOCK_FRAMES; taken += 37) {
        for (unsigned order = 0; order < BLOCK_ORDER; order++) {
            unsigned runs = 0;

            CHECK_HELPER(fill(0));
            /* Take all, give back all but one. */
            for (uint64_t i = 0; i < BLOCK_FRAMES; i++) {
                CHECK(!pfn_is_none(bitfield_take(0, 0, 0)));
            }
            for (uint64_t i = 0; i < BLOCK_FRAMES; i++) {
                CHECK(i == taken || bitfield_give(pfn_of(i), 0));
            }
            CHECK(pfn_is_none(bitfield_take(0, BLOCK_ORDER, 0)));
            CHECK(pfn_is_none(bitfield_take(0, MAX_ORDER, 0)));
            while (!pfn_is_none(bitfield_take(0, order, 0))) {
                runs++;
            }
            CHECK_EQUAL(runs, (BLOCK_FRAMES >> order) - 1);
            CHECK_HELPER(check_all());
        }
    }
}

TEST(bitfield, order_10_needs_both_blocks)
{
    CHECK_HELPER(fill(0));
    pfn_t odd = bitfield_take(1, 0, 0);
    CHECK(pfn_is_none(bitfield_take(0, MAX_ORDER, 0)));
    CHECK(bitfield_give(odd, 0));
    pfn_t even = bitfield_take(0, BLOCK_ORDER, 0);
    CHECK(pfn_is_none(bitfield_take(0, MAX_ORDER, 0)));
    CHECK_EQUAL(bitfield_free(1), BLOCK_FRAMES);
    CHECK(bitfield_give(even, BLOCK_ORDER));
    CHECK_EQUAL(bitfield_take(0, MAX_ORDER, 0).v, 0);
    CHECK(bitfield_is_whole(0) && bitfield_is_whole(1));
    CHECK(!bitfield_is_whole(2));
    CHECK(pfn_is_none(bitfield_take(1, 0, 0)));
    CHECK_HELPER(check_all());
}

TEST(bitfield, a_row_is_taken_at_once_and_the_fullest_first)
{
    pfn_t first;

    CHECK_HELPER(fill(UINT64_C(0xffff0000ffff0000)));
    CHECK_EQUAL(bitfield_take_row(2, &first), UINT64_C(0x0000ffff0000ffff));
    CHECK_EQUAL(first.v, 2 * BLOCK_FRAMES);
    /* Three more free frames in row 5 of block 2: now it is the best. */
    CHECK(bitfield_give_row(pfn_of(2 * BLOCK_FRAMES + 5 * ROW_FRAMES),
                            UINT64_C(7) << 16));
    CHECK_EQUAL(bitfield_take_row(2, &first), UINT64_C(0x0000ffff0007ffff));
    CHECK_EQUAL(first.v, 2 * BLOCK_FRAMES + 5 * ROW_FRAMES);
    for (unsigned rows = 2; rows < BLOCK_ROWS; rows++) {
        CHECK(bitfield_take_row(2, &first) != 0);
    }
    CHECK_EQUAL(bitfield_take_row(2, &first), 0);
    CHECK_EQUAL(bitfield_free(2), 0);
    CHECK_HELPER(check_all());
}

TEST(bitfield, what_is_free_in_part_is_not_given_back)
{
    CHECK_HELPER(fill(0));
    for (unsigned order = 1; order < BLOCK_ORDER; order++) {
        pfn_t pfn = bitfield_take(3, order, 0);
        uint64_t last = pfn.v + (UINT64_C(1) << order) - 1;
        CHECK(bitfield_give(pfn_of(last), 0));
        unsigned free = bitfield_free(3);
        CHECK(!bitfield_give(pfn, order));
        CHECK(!bitfield_give(pfn_of(last), 0));
        CHECK_EQUAL(bitfield_free(3), free);
        CHECK_HELPER(check_all());
        CHECK_HELPER(fill(0));
    }
    /* The inside of a whole block is nobody's to give. */
    pfn_t whole = bitfield_take(0, BLOCK_ORDER, 0);
    CHECK(!bitfield_give(whole, 0));
    CHECK(!bitfield_give(whole, 8));
    CHECK(!bitfield_give(whole, MAX_ORDER));
    CHECK_HELPER(check_all());
}

TEST(bitfield, a_run_is_sought_from_the_row_that_is_named)
{
    for (unsigned order = 0; order <= 6; order++) {
        for (unsigned first = 0; first < BLOCK_ROWS; first++) {
            CHECK_HELPER(fill(0));
            CHECK_EQUAL(bitfield_take(1, order, first).v,
                        BLOCK_FRAMES + first * ROW_FRAMES);
            /* It is a hint: what lies before is found as well. */
            for (uint64_t i = 1; i < BLOCK_FRAMES >> order; i++) {
                CHECK(!pfn_is_none(bitfield_take(1, order, first)));
            }
            CHECK(pfn_is_none(bitfield_take(1, order, first)));
            CHECK_HELPER(check_all());
        }
    }
}

TEST(bitfield, a_run_is_taken_at_its_place_or_not_at_all)
{
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        uint64_t frames = UINT64_C(1) << order;

        for (uint64_t pfn = 0; pfn < FRAMES; pfn += max_u64(frames, 61)) {
            pfn_t at = pfn_of(align_down(pfn, frames));

            CHECK_HELPER(fill(0));
            CHECK(bitfield_take_at(at, order));
            CHECK_EQUAL(free_frames(), FRAMES - frames);
            CHECK(!bitfield_take_at(at, order));
            CHECK(!bitfield_take_at(pfn_add(at, frames - 1), 0));
            CHECK_EQUAL(free_frames(), FRAMES - frames);
            CHECK(bitfield_give(at, order));
            /* One frame inside is in use: first, last, or between. */
            for (uint64_t i = 0; i < frames; i += max_u64(1, frames / 2 - 1)) {
                CHECK(bitfield_take_at(pfn_add(at, i), 0));
                CHECK(!bitfield_take_at(at, order));
                CHECK_EQUAL(free_frames(), FRAMES - 1);
                CHECK_HELPER(check_all());
                CHECK(bitfield_give(pfn_add(at, i), 0));
            }
            CHECK(bitfield_take_at(at, order));
            CHECK_HELPER(check_all());
        }
    }
}

TEST(bitfield, whole_blocks_split_and_join)
{
    for (unsigned order = BLOCK_ORDER; order <= MAX_ORDER; order++) {
        CHECK_HELPER(fill(0));
        pfn_t pfn = bitfield_take(2, order, 0);
        bitfield_split(pfn, order);
        CHECK(!bitfield_is_whole(2));
        CHECK_EQUAL(bitfield_free(2), 0);
        CHECK(pfn_is_none(bitfield_take(2, 0, 0)));
        CHECK_HELPER(check_all());
        bitfield_join(pfn, order);
        CHECK(bitfield_is_whole(2));
        CHECK_HELPER(check_all());
        bitfield_split(pfn, order);
        for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
            CHECK(bitfield_give(pfn_add(pfn, i), 0));
        }
        CHECK_EQUAL(free_frames(), FRAMES);
        CHECK_HELPER(check_all());
    }
}

/* Do the 2^order frames at @pfn all have @value? */
static bool model_is(const uint8_t *model, uint64_t pfn, unsigned order,
                     uint8_t value)
{
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        if (model[pfn + i] != value) {
            return false;
        }
    }
    return true;
}

static bool model_has_run(const uint8_t *model, uint64_t block, unsigned order)
{
    uint64_t frames = UINT64_C(1) << order;
    uint64_t end = (block + 1) * BLOCK_FRAMES + (order == MAX_ORDER ? 512 : 0);

    for (uint64_t pfn = block * BLOCK_FRAMES; pfn < end; pfn += frames) {
        if (model_is(model, pfn, order, 0)) {
            return true;
        }
    }
    return false;
}

#define MODEL_STEPS 20000

TEST(bitfield, random_steps_match_the_model)
{
    /* 0 free, otherwise 1 + the order of the block the frame is in. */
    static uint8_t model[FRAMES];
    struct test_random random;

    test_random_init(&random, test_seed());
    memset(model, 0, sizeof(model));
    CHECK_HELPER(fill(0));
    for (unsigned step = 0; step < MODEL_STEPS; step++) {
        unsigned order = (unsigned)test_random_below(&random, MAX_ORDER + 1);
        uint64_t frames = UINT64_C(1) << order;
        uint64_t pfn = test_random_below(&random, FRAMES) & ~(frames - 1);
        uint64_t block = pfn / BLOCK_FRAMES;

        if (model[pfn] == order + 1) {
            CHECK(bitfield_give(pfn_of(pfn), order));
            memset(&model[pfn], 0, frames);
        } else if (step % 2 == 0) {
            bool is_free = model_is(model, pfn, order, 0);
            CHECK_EQUAL(bitfield_take_at(pfn_of(pfn), order), is_free);
            if (is_free) {
                memset(&model[pfn], (int)order + 1, frames);
            }
        } else if (model_has_run(model, block, order)) {
            pfn_t taken = bitfield_take(block, order, 0);
            CHECK(!pfn_is_none(taken));
            CHECK(model_is(model, taken.v, order, 0));
            memset(&model[taken.v], (int)order + 1, frames);
        } else {
            CHECK(pfn_is_none(bitfield_take(block, order, 0)));
        }
        CHECK_HELPER(check_all());
    }
}

/*
 * Threads: whoever takes a frame signs it and wipes the signature before it
 * goes back. A signature that is there already is a frame with two owners.
 * Signatures are plain bytes: under -fsanitize=thread, a missing acquire or
 * release in bitfield.c is a report.
 */
#define STEPS 20000
#define HELD  24

static uint8_t owner[FRAMES];

static void sign(pfn_t pfn, uint64_t frames, unsigned from, unsigned to)
{
    for (uint64_t i = 0; i < frames; i++) {
        player_expect(owner[pfn.v + i] == from);
        owner[pfn.v + i] = (uint8_t)to;
    }
}

static void take_or_give_row(uint64_t block, unsigned name)
{
    pfn_t first;
    uint64_t mask = bitfield_take_row(block, &first);

    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
        sign(pfn_add(first, lowest_bit(rest)), 1, 0, name);
    }
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
        sign(pfn_add(first, lowest_bit(rest)), 1, name, 0);
    }
    player_expect(mask == 0 || bitfield_give_row(first, mask));
}

static void work(void)
{
    unsigned name = player_me()->cpu + 1;
    pfn_t held[HELD];
    unsigned order[HELD];

    for (unsigned i = 0; i < HELD; i++) {
        held[i] = PFN_NONE;
    }
    for (unsigned step = 0; step < STEPS + HELD; step++) {
        unsigned i = step % HELD;
        uint64_t block = player_below(BLOCKS);
        if (!pfn_is_none(held[i])) {
            sign(held[i], UINT64_C(1) << order[i], name, 0);
            player_expect(bitfield_give(held[i], order[i]));
            held[i] = PFN_NONE;
        }
        if (step >= STEPS) {
            continue;
        }
        order[i] = player_below(MAX_ORDER + 1);
        if (order[i] == MAX_ORDER) {
            block &= ~UINT64_C(1);
        }
        if (order[i] >= 7 && player_below(8) != 0) {
            take_or_give_row(block, name);
            continue;
        }
        held[i] = bitfield_take(block, order[i], step % BLOCK_ROWS);
        if (pfn_is_none(held[i]) && order[i] <= 6 &&
            bitfield_take_at(pfn_of(block * BLOCK_FRAMES), order[i])) {
            held[i] = pfn_of(block * BLOCK_FRAMES);
        }
        if (!pfn_is_none(held[i])) {
            sign(held[i], UINT64_C(1) << order[i], 0, name);
        }
    }
}

TEST(bitfield, threads_never_share_a_frame)
{
    CHECK_HELPER(fill(0));
    memset(owner, 0, sizeof(owner));
    CHECK_HELPER(players_run(PLAYERS, work));
    CHECK_EQUAL(free_frames(), FRAMES);
    CHECK_HELPER(check_all());
}
