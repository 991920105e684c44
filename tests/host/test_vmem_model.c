/* SPDX-License-Identifier: MIT */
/* Tests of vmem: random work against an array with one cell a quantum. */
#include <mm/vmem.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

/*
 * At risk: a range handed out twice, or refused though it is free or kept by a
 * CPU; neighbours that stay apart for good. Provoked by allocations of all
 * sizes and alignments in an arena that is mostly full and has a gap.
 */

#define QUANTUM   PAGE_BYTES
#define BASE      UINT64_C(0xffffc00000000000)
#define RAM_BYTES (16 * MiB)

static struct vmem arena;

#define CELLS 512 /* cells 200..219 are a gap nobody added */
#define GAP   200
#define AFTER 220
#define LIVE  64

static uint8_t cell[CELLS]; /* 1: not to be handed out */

static struct {
    uint64_t first; /* cell */
    uint64_t count; /* cells, 0: not in use */
} live[LIVE];

static bool is_run_free(uint64_t first, uint64_t count)
{
    if (first + count > CELLS) {
        return false;
    }
    for (uint64_t i = first; i < first + count; i++) {
        if (cell[i] != 0) {
            return false;
        }
    }
    return true;
}

static void mark(uint64_t first, uint64_t count, uint8_t value)
{
    for (uint64_t i = first; i < first + count; i++) {
        cell[i] = value;
    }
}

/* BASE is aligned to everything the model asks for. */
static bool model_has(uint64_t count, uint64_t alignment)
{
    for (uint64_t i = 0; i < CELLS; i += alignment) {
        if (is_run_free(i, count)) {
            return true;
        }
    }
    return false;
}

static void step_alloc(struct test_random *random, unsigned slot)
{
    uint64_t limit = UINT64_C(1) << test_random_below(random, 8);
    uint64_t count = 1 + test_random_below(random, limit);
    uint64_t alignment = UINT64_C(1) << test_random_below(random, 6);
    uint64_t address;

    enum mm_status status =
        vmem_alloc(&arena, count * QUANTUM, alignment * QUANTUM, &address);
    if (status != MM_OK) {
        CHECK_EQUAL(status, MM_ENOMEM);
        CHECK(!model_has(count, alignment));
        return;
    }
    uint64_t first = (address - BASE) / QUANTUM;
    CHECK(is_aligned(address, alignment * QUANTUM));
    CHECK(is_run_free(first, count));
    mark(first, count, 1);
    live[slot].first = first;
    live[slot].count = count;
}

static void step_free(unsigned slot)
{
    vmem_free(&arena, BASE + live[slot].first * QUANTUM,
              live[slot].count * QUANTUM);
    mark(live[slot].first, live[slot].count, 0);
    live[slot].count = 0;
}

static void step(struct test_random *random)
{
    unsigned slot = (unsigned)test_random_below(random, LIVE);

    if (live[slot].count != 0) {
        step_free(slot);
    } else {
        step_alloc(random, slot);
    }
}

/* @kept: quanta, for vmem_keep(), or 0. */
static void model_boot(unsigned kept)
{
    sim_boot_heap(RAM_BYTES);
    vmem_init(&arena, "model", QUANTUM);
    CHECK(kept == 0 || vmem_keep(&arena, kept) == MM_OK);
    CHECK(vmem_add(&arena, BASE + AFTER * QUANTUM, (CELLS - AFTER) * QUANTUM) ==
          MM_OK);
    CHECK(vmem_add(&arena, BASE, GAP * QUANTUM) == MM_OK);
    mark(0, CELLS, 0);
    mark(GAP, AFTER - GAP, 1);
    for (unsigned i = 0; i < LIVE; i++) {
        live[i].count = 0;
    }
}

static bool count_segment(void *context, const struct vmem_segment *segment)
{
    (void)segment;
    ++*(unsigned *)context;
    return true;
}

static void model_end(void)
{
    struct vmem_stats stats;
    unsigned segments = 0;

    for (unsigned i = 0; i < LIVE; i++) {
        if (live[i].count != 0) {
            step_free(i);
        }
    }
    vmem_drain(&arena);
    vmem_stats(&arena, &stats);
    CHECK(vmem_walk(&arena, count_segment, &segments));
    CHECK_EQUAL(segments, 2);
    CHECK_EQUAL(stats.allocated, 0);
    CHECK_EQUAL(stats.kept, 0);
    CHECK(vmem_check(&arena));
    vmem_fini(&arena);
}

static void agree(unsigned kept)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    CHECK_HELPER(model_boot(kept));
    for (unsigned i = 0; i < 20000; i++) {
        CHECK_HELPER(step(&random));
        CHECK(vmem_check(&arena));
    }
    CHECK_HELPER(model_end());
}

TEST(vmem_model, random_work_agrees_with_an_array)
{
    CHECK_HELPER(agree(0));
}

/* What is kept must be had before anything is refused. */
TEST(vmem_model, random_work_agrees_with_what_is_kept)
{
    CHECK_HELPER(agree(1));
    CHECK_HELPER(agree(16));
}
