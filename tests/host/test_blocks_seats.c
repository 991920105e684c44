/* SPDX-License-Identifier: MIT */
/* Tests of blocks: CPUs at trees of their own. */
/*
 * At risk: two CPUs whose trees share a cache line, or a tree that is found by
 * nobody because somebody sits there or beside it; a quad of which more comes
 * back than was taken. Provoked by more CPUs than lines, by trees where all
 * that is free is at a seat, and by parts of a quad.
 */
#include <mm/port.h>
#include <mm/record.h>
#include "base/bits.h"
#include "base/memory.h"
#include "frame/blocks.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"

#define RAM         (256 * MiB)
#define RAM_FRAMES  (RAM / PAGE_BYTES)
#define TREES       ((unsigned)(RAM_FRAMES / TREE_FRAMES))
#define LINE_TREES  4 /* words of a quarter of a line: see blocks.c */
#define LINES       (TREES / LINE_TREES)
#define STORE_BYTES (64 * KiB)

static MM_ALIGNED(64) char storage[STORE_BYTES];
static MM_ALIGNED(64) char backed_bits[64];
static struct blocks_zone zone;

static enum mm_status back(vaddr_t start, vaddr_t end)
{
    (void)start;
    (void)end;
    return MM_OK;
}

static void start(unsigned cpus)
{
    sim_boot_map(RAM);
    sim_set_cpu_count(cpus);
    /* No record is read or written here. */
    record_init((void *)(uintptr_t)0x10000000, back);
    CHECK(record_bytes(RAM_FRAMES) <= sizeof(backed_bits));
    record_cover(RAM_FRAMES, backed_bits);
    CHECK(trees_bytes(sim_map(), RAM_FRAMES) <= STORE_BYTES);
    memset(storage, 0xa5, sizeof(storage));
    trees_init(sim_map(), RAM_FRAMES, storage);
    blocks_zone_init(&zone, 0, RAM_FRAMES);
    for (uint64_t block = 0; block < RAM_FRAMES / BLOCK_FRAMES; block++) {
        CHECK_EQUAL(record_back_block(pfn_of(block * BLOCK_FRAMES)), MM_OK);
    }
}

/* The tree of @seat is sound. */
static void check_tree(const struct blocks_seat *seat)
{
    uint64_t free;

    CHECK(trees_check(seat->tree - 1, &free));
}

TEST(blocks, cpus_sit_apart_as_long_as_there_is_room)
{
    struct blocks_seat seat[TREES] = {0};

    CHECK_HELPER(start(LINES));
    for (unsigned i = 0; i < TREES; i++) {
        CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat[i]));
        for (unsigned k = 0; k < i; k++) {
            uint32_t one = seat[i].tree - 1;
            uint32_t other = seat[k].tree - 1;
            CHECK(one != other);
            CHECK(i >= LINES || one / LINE_TREES != other / LINE_TREES);
        }
    }
    struct blocks_seat none = {0};
    CHECK(!blocks_find_seat(&zone, BLOCKS_WHOLE, &none));
    for (unsigned i = 0; i < TREES; i++) {
        CHECK_HELPER(check_tree(&seat[i]));
        blocks_leave(&zone, &seat[i]);
        CHECK_EQUAL(seat[i].tree, 0);
    }
    CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &none));
}

TEST(blocks, a_seat_is_left_alone_until_nothing_else_is_left)
{
    struct blocks_seat seat = {0};
    struct blocks_seat found = {0};
    struct blocks_wish wish = {.order = 3};

    CHECK_HELPER(start(1));
    blocks_zone_init(&zone, TREE_FRAMES, 3 * TREE_FRAMES);
    CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat));
    CHECK_EQUAL(blocks_search(&zone, &wish, &found), BLOCKS_CLAIMED);
    CHECK(found.tree != seat.tree);
    /* One CPU at each of both trees: a third one finds none. */
    struct blocks_seat none = {0};
    CHECK_EQUAL(blocks_search(&zone, &wish, &none), BLOCKS_NONE);
    wish.order = BLOCK_ORDER;
    CHECK_EQUAL(blocks_search(&zone, &wish, &none), BLOCKS_NONE);
    /* All that is free is counted at seats, and found nevertheless. */
    uint64_t frames = 2 * TREE_FRAMES - 8;
    for (unsigned order = BLOCK_ORDER + 1; order + 1 > 0; order--) {
        wish.order = order;
        while (blocks_steal(&zone, &wish) == BLOCKS_CLAIMED) {
            frames -= UINT64_C(1) << order;
        }
        CHECK_HELPER(check_tree(&seat));
        CHECK_HELPER(check_tree(&found));
    }
    CHECK_EQUAL(frames, 0);
}

TEST(blocks, a_tree_that_was_left_is_found_again)
{
    static const unsigned orders[] = {0, 3, BLOCK_ORDER, BLOCK_ORDER + 1};

    for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        struct blocks_wish wish = {.order = orders[i]};
        struct blocks_seat seat = {0};
        struct blocks_seat found = {0};

        CHECK_HELPER(start(1));
        blocks_zone_init(&zone, TREE_FRAMES, 2 * TREE_FRAMES);
        CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat));
        /* Each search finds nothing, and moves its hint down. */
        CHECK_EQUAL(blocks_search(&zone, &wish, &found), BLOCKS_NONE);
        CHECK(!blocks_find_seat(&zone, BLOCKS_WHOLE, &found));
        blocks_leave(&zone, &seat);
        CHECK_EQUAL(blocks_search(&zone, &wish, &found), BLOCKS_CLAIMED);
        CHECK_EQUAL(found.tree, 2);
        CHECK_HELPER(check_tree(&found));
    }
}

/* A CPU that goes on does not keep away from where it sat itself. */
TEST(blocks, a_line_is_used_up_by_who_sits_there)
{
    struct blocks_seat seat[2] = {0};

    CHECK_HELPER(start(2));
    CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat[0]));
    for (unsigned i = 1; i < LINE_TREES; i++) {
        seat[1].tree = seat[0].tree;
        CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat[1]));
        CHECK_EQUAL(seat[1].tree, seat[0].tree - 1);
        /* What is left is not wanted by it, and nobody looks there again. */
        while (blocks_claim_whole(&seat[0], BLOCK_ORDER).v != PFN_NONE.v) {
        }
        blocks_leave(&zone, &seat[0]);
        seat[0] = seat[1];
    }
}

/* Trees beside a seat are passed by, not forgotten. */
TEST(blocks, a_neighbour_that_leaves_has_others_come)
{
    struct blocks_seat seat[3] = {0};
    uint32_t top;

    CHECK_HELPER(start(3));
    CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat[0]));
    top = seat[0].tree;
    for (unsigned i = 1; i < 3; i++) {
        CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat[i]));
        CHECK(seat[i].tree + LINE_TREES <= seat[i - 1].tree);
    }
    while (blocks_claim_whole(&seat[0], BLOCK_ORDER).v != PFN_NONE.v) {
    }
    blocks_leave(&zone, &seat[0]);
    CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat[0]));
    CHECK_EQUAL(seat[0].tree, top - 1);
}

TEST(blocks, a_quad_goes_and_comes_at_once)
{
    struct blocks_seat seat[BLOCKS_USES] = {0};
    struct blocks_seat *large = &seat[BLOCKS_LARGE];
    pfn_t first;

    CHECK_HELPER(start(2));
    blocks_zone_init(&zone, TREE_FRAMES, 2 * TREE_FRAMES);
    CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, large));
    pfn_t tree = pfn_of((large->tree - 1) * TREE_FRAMES);
    /* Of the first quad, the second block is in use partly. */
    pfn_t single = pfn_add(tree, BLOCK_FRAMES + 5);
    CHECK(blocks_claim_block(single, 0));
    CHECK_EQUAL(blocks_claim_quad(large, &first), QUAD_ALL - 0x10000);
    CHECK_EQUAL(first.v, tree.v);
    CHECK_EQUAL(blocks_claim_quad(large, &first), QUAD_ALL);
    CHECK_EQUAL(first.v, tree.v + QUAD_BLOCKS * BLOCK_FRAMES);
    CHECK_EQUAL(blocks_claim_quad(large, &first), 0);
    /* A part of them, and none twice, nor what was not taken whole. */
    CHECK(blocks_release_quad(&zone, seat, tree, 0x100000001));
    CHECK(!blocks_release_quad(&zone, seat, tree, 0x1000000000001));
    CHECK(!blocks_release_quad(&zone, seat, tree, 0x1000000010000));
    CHECK(blocks_release_quad(&zone, NULL, tree, 0x1000000000000));
    CHECK(blocks_release(&zone, seat, single, 0));
    CHECK_EQUAL(blocks_claim_quad(large, &first), QUAD_ALL);
    CHECK_HELPER(check_tree(large));
}
