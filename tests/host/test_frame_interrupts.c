/* SPDX-License-Identifier: MIT */
/* Tests of frame and heap: interrupts that allocate and free. */
/*
 * At risk: a CPU's own structure that is left half changed with interrupts
 * on, room that was there before an interrupt and is not after it, a record
 * backed twice. Provoked by a handler that runs at both edges of every stretch
 * with interrupts off, and allocates and frees as the interrupted code does.
 */
#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "base/memory.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define HELD        500
#define STEPS       15000
#define DRAIN_EVERY 400
#define CHECK_EVERY 1000

/* What one side holds: frames, or memory of the heap. */
struct held {
    pfn_t pfn; /* PFN_NONE: no frames */
    unsigned order;
    uint8_t *block; /* NULL: no memory */
    uint64_t bytes;
};

/* One of the two that take turns: the interrupted and the handler. */
struct side {
    struct held held[HELD];
    struct test_random random;
    uint8_t sign; /* in the first and the last byte of all it holds */
    uint64_t errors;
};

static struct side outer;
static struct side inner;
static bool uses_heap;

static void side_init(struct side *side, uint8_t sign)
{
    memset(side, 0, sizeof(*side));
    side->sign = sign;
    test_random_init(&side->random, test_seed() + sign);
    for (unsigned i = 0; i < HELD; i++) {
        side->held[i].pfn = PFN_NONE;
    }
}

static void sign(struct side *side, uint8_t *start, uint64_t bytes)
{
    start[0] = side->sign;
    start[bytes - 1] = side->sign;
}

static void check_sign(struct side *side, const uint8_t *start, uint64_t bytes)
{
    side->errors += start[0] != side->sign || start[bytes - 1] != side->sign;
}

/* Allocate frames, or free those held. */
static void change_frames(struct side *side, struct held *held)
{
    uint64_t wide = test_random_below(&side->random, 8) == 0 ? 11 : 1;
    unsigned flags =
        test_random_below(&side->random, 8) == 0 ? FRAME_BELOW_16M : FRAME_ANY;

    if (!pfn_is_none(held->pfn)) {
        check_sign(side, phys_to_virt(pfn_to_phys(held->pfn)),
                   PAGE_BYTES << held->order);
        frame_free(held->pfn, held->order);
        held->pfn = PFN_NONE;
        return;
    }
    held->order = (unsigned)test_random_below(&side->random, wide);
    held->pfn = frame_alloc(held->order, FRAME_USER, flags);
    if (!pfn_is_none(held->pfn)) {
        sign(side, phys_to_virt(pfn_to_phys(held->pfn)),
             PAGE_BYTES << held->order);
    }
}

/* Allocate memory, give it another size, or free it. */
static void change_block(struct side *side, struct held *held)
{
    uint64_t wide = test_random_below(&side->random, 10) == 0 ? 20000 : 400;
    uint64_t bytes = 1 + test_random_below(&side->random, wide);

    if (held->block != NULL) {
        check_sign(side, held->block, held->bytes);
        if (test_random_below(&side->random, 4) != 0) {
            kfree(held->block);
            held->block = NULL;
            return;
        }
    }
    uint8_t *block = krealloc(held->block, bytes);
    if (block != NULL) {
        held->block = block;
        held->bytes = bytes;
        sign(side, block, bytes);
    }
}

static void change_one(struct side *side)
{
    struct held *held = &side->held[test_random_below(&side->random, HELD)];

    if (uses_heap && test_random_below(&side->random, 4) != 0) {
        change_block(side, held);
    } else {
        change_frames(side, held);
    }
}

static void free_held(struct side *side)
{
    for (unsigned i = 0; i < HELD; i++) {
        struct held *held = &side->held[i];
        if (!pfn_is_none(held->pfn)) {
            change_frames(side, held);
        }
        if (held->block != NULL) {
            check_sign(side, held->block, held->bytes);
            kfree(held->block);
            held->block = NULL;
        }
    }
}

/* Mostly a few changes; now and then many, or all that is held is freed. */
static void handle_interrupt(void)
{
    uint64_t kind = test_random_below(&inner.random, 120);

    if (kind == 0) {
        free_held(&inner);
    } else if (kind < 40) {
        uint64_t changes = kind < 4 ? 150 : kind % 4;
        while (changes-- > 0) {
            change_one(&inner);
        }
    }
}

static void check_all(void)
{
    CHECK(frame_check());
    if (uses_heap) {
        CHECK_HELPER(check_heap());
    }
}

static void drain_all(void)
{
    if (uses_heap) {
        slab_drain();
    }
    frame_drain();
}

/* Random work of both sides on a machine that has just started. */
static void take_turns(void)
{
    side_init(&outer, 0x11);
    side_init(&inner, 0x22);
    sim_set_interrupt(handle_interrupt);
    for (unsigned step = 0; step < STEPS; step++) {
        change_one(&outer);
        if (test_random_below(&outer.random, DRAIN_EVERY) == 0) {
            drain_all();
        }
        if (step % CHECK_EVERY == 0) {
            sim_set_interrupt(NULL);
            CHECK_HELPER(check_all());
            sim_set_interrupt(handle_interrupt);
        }
    }
    sim_set_interrupt(NULL);
    free_held(&outer);
    free_held(&inner);
    CHECK_EQUAL(outer.errors + inner.errors, 0);
    drain_all();
    CHECK_HELPER(check_all());
    CHECK_EQUAL(figures().by_type[FRAME_USER], 0);
    CHECK_EQUAL(figures().by_type[FRAME_LARGE], 0);
    CHECK_EQUAL(figures().cached, 0);
}

/* With room for all, and short of memory. */
TEST(frame, interrupts_allocate_frames)
{
    uses_heap = false;
    sim_boot_frames(64 * MiB);
    CHECK_HELPER(take_turns());
    sim_boot_frames(24 * MiB);
    CHECK_HELPER(take_turns());
    CHECK(figures().failures > 0);
}

/* --- at each moment in turn ---------------------------------------------- */

#define SINGLES 300
#define BURST   150 /* frees: more than the array has room for */
#define AFTER   40  /* and more, from where the interrupt came */

static pfn_t single[SINGLES];
static unsigned next_free;
static unsigned until_burst; /* interrupts */

static void free_burst(void)
{
    if (--until_burst > 0) {
        return;
    }
    sim_set_interrupt(NULL);
    while (next_free < BURST) {
        frame_free(single[next_free++], 0);
    }
}

/* An array that was empty a moment ago, and a row on its way to it. */
TEST(frame, a_refill_leaves_room_for_the_frees_to_come)
{
    unsigned moments = 0;

    do {
        moments++;
        sim_boot_frames(64 * MiB);
        for (unsigned i = 0; i < SINGLES; i++) {
            single[i] = frame_alloc(0, FRAME_USER, FRAME_ANY);
        }
        frame_drain();
        next_free = 0;
        until_burst = moments;
        sim_set_interrupt(free_burst);
        CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
        sim_set_interrupt(NULL);
        for (unsigned i = next_free; i < next_free + AFTER; i++) {
            frame_free(single[i], 0);
        }
        CHECK(frame_check());
    } while (next_free > 0);
    CHECK(moments > 4);
}

TEST(kmalloc, interrupts_allocate_memory)
{
    uses_heap = true;
    sim_boot_heap(64 * MiB);
    CHECK_HELPER(take_turns());
    sim_boot_heap(8 * MiB);
    CHECK_HELPER(take_turns());
    CHECK(figures().failures > 0);
}
