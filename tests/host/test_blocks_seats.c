/* SPDX-License-Identifier: MIT */
/* Tests of blocks: CPUs at trees of their own. */
/*
 * At risk: two CPUs whose trees share a cache line, or a tree that is found by
 * nobody because somebody sits there; the parts of a tree's count, in its word
 * and at a seat, that drift apart. Provoked by more CPUs than lines, by trees
 * where all that is free is at a seat, and by frames that always leave by one
 * way and come back by the other.
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

    CHECK(trees_check(seat->tree - 1, seat->free, &free));
}

static int32_t word_free(const struct blocks_seat *seat)
{
    return tree_free(trees_word[seat->tree - 1]);
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
    struct blocks_seat none;
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
    CHECK_EQUAL(seat.free + word_free(&seat), 0);
    CHECK_EQUAL(found.free + word_free(&found), 0);
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

/* What a seat's own CPU does stays out of the word that all others read. */
TEST(blocks, a_seat_is_counted_by_its_cpu)
{
    struct blocks_seat seat[BLOCKS_USES] = {0};
    struct blocks_wish wish = {.order = 3};

    CHECK_HELPER(start(2));
    CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat[0]));
    int32_t all = seat[0].free;
    CHECK_EQUAL(word_free(&seat[0]), 0);
    CHECK_EQUAL(blocks_claim_at(&seat[0], &wish), BLOCKS_CLAIMED);
    CHECK_EQUAL(word_free(&seat[0]), 0);
    CHECK_EQUAL(seat[0].free, all - 8);
    CHECK(blocks_release(&zone, seat, wish.pfn, 3));
    CHECK_EQUAL(word_free(&seat[0]), 0);
    CHECK_EQUAL(seat[0].free, all);
    /* Another CPU's part. */
    CHECK_EQUAL(blocks_claim_at(&seat[0], &wish), BLOCKS_CLAIMED);
    CHECK(blocks_release(&zone, NULL, wish.pfn, 3));
    CHECK_EQUAL(word_free(&seat[0]), 8);
    CHECK_EQUAL(seat[0].free, all - 8);
    CHECK_HELPER(check_tree(&seat[0]));
    uint32_t tree = seat[0].tree - 1;
    blocks_leave(&zone, &seat[0]);
    CHECK_EQUAL(tree_free(trees_word[tree]), all);
}

TEST(blocks, the_parts_of_a_count_do_not_drift_apart)
{
    struct blocks_seat seat[BLOCKS_USES] = {0};
    struct blocks_wish wish = {.order = 0};

    /* More rounds than the word's part of the count has numbers. */
    CHECK_HELPER(start(2));
    blocks_zone_init(&zone, TREE_FRAMES, 2 * TREE_FRAMES);
    CHECK(blocks_find_seat(&zone, BLOCKS_WHOLE, &seat[0]));
    for (unsigned i = 0; i < 70000; i++) {
        CHECK_EQUAL(blocks_steal(&zone, &wish), BLOCKS_CLAIMED);
        CHECK(blocks_release(&zone, seat, wish.pfn, 0));
        if (i % 64 == 0) {
            CHECK_HELPER(check_tree(&seat[0]));
        }
    }
    for (unsigned i = 0; i < 70000; i++) {
        CHECK_EQUAL(blocks_claim_at(&seat[0], &wish), BLOCKS_CLAIMED);
        CHECK(blocks_release(&zone, NULL, wish.pfn, 0));
        if (i % 64 == 0) {
            CHECK_HELPER(check_tree(&seat[0]));
        }
    }
    CHECK_EQUAL(seat[0].free + word_free(&seat[0]), TREE_FRAMES);
}
