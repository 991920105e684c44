/* SPDX-License-Identifier: MIT */
/* The heap against a naive model of who holds which bytes. */
/*
 * At risk: two callers in the same bytes, contents lost, an object that is
 * counted twice or not at all, a failure that leaves a trace, frames that do
 * not come back. So random operations of all kinds and sizes run on three CPUs
 * beside a list of blocks (tests/shared/heap_ops.h), a million in one build and
 * others in the rest; and over a fixed set of sequences every allocation is
 * made to fail in turn.
 */
#include <stdio.h>

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include "tests/host/sim.h"
#include "tests/shared/figures.h"
#include "tests/shared/heap_ops.h"

#define RAM  (64 * MiB)
#define CPUS 3

#define OPERATIONS 20000
#ifdef __clang__
#define SEQUENCES  10
#define FIRST_SEED 200000
#elif !MM_DEBUG
#define SEQUENCES  10
#define FIRST_SEED 400000
#else
#define SEQUENCES  50
#define FIRST_SEED 0
#endif

#define COMPARE_EVERY 1000

/* Of these every allocation fails in turn. */
#define STARVED_OPERATIONS 120
#define STARVED_SEQUENCES  12

static uint8_t bytes[OPERATIONS * HEAP_OP_BYTES];
static struct heap_ops ops;

static void boot(void)
{
    sim_boot_frames_on(RAM, CPUS);
    if (slab_init() != MM_OK || kmalloc_init() != MM_OK) {
        test_fail(__FILE__, __LINE__, "the heap does not start");
    }
    heap_ops_init(&ops, CPUS, sim_set_cpu);
}

static void generate(uint64_t seed, size_t size)
{
    struct test_random random;

    test_random_init(&random, seed);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)test_random_next(&random);
    }
}

/* Sequence @seed, of @operations, from the boot to the last free. */
static void live(uint64_t seed, size_t operations)
{
    size_t done;
    bool is_right = heap_ops_run(&ops, bytes, operations * HEAP_OP_BYTES,
                                 COMPARE_EVERY, &done) &&
                    heap_ops_fini(&ops);

    sim_set_cpu(0);
    if (!is_right) {
        test_fail(__FILE__, __LINE__, "seed %llu, operation %llu: %s",
                  (unsigned long long)seed, (unsigned long long)done,
                  ops.reason);
    }
}

TEST(heap_model, random_operations_match_a_naive_model)
{
    uint64_t first = test_seed() * 1000003 + FIRST_SEED;
    uint64_t done[HEAP_OP_KINDS] = {0};

    for (unsigned i = 0; i < SEQUENCES; i++) {
        CHECK_HELPER(boot());
        generate(first + i, sizeof(bytes));
        CHECK_HELPER(live(first + i, OPERATIONS));
        CHECK(frame_check());
        for (unsigned kind = 0; kind < HEAP_OP_KINDS; kind++) {
            done[kind] += ops.done[kind];
        }
    }
    printf("# %u operations; of each kind:", SEQUENCES * OPERATIONS);
    for (unsigned kind = 0; kind < HEAP_OP_KINDS; kind++) {
        printf(" %llu", (unsigned long long)done[kind]);
    }
    printf("\n");
}

/* Each allocation of each sequence fails once: the heap goes on as before. */
TEST(heap_model, failed_allocations_leave_no_trace)
{
    uint64_t first = test_seed() * 1000003 + FIRST_SEED;
    uint64_t failures = 0;
    uint64_t tried;

    for (unsigned i = 0; i < STARVED_SEQUENCES; i++) {
        uint64_t nth = 1;
        generate(first + i, STARVED_OPERATIONS * HEAP_OP_BYTES);
        do {
            CHECK_HELPER(boot());
            ops.may_fail = true;
            frame_inject(nth);
            CHECK_HELPER(live(first + i, STARVED_OPERATIONS));
            tried = frame_inject_count();
            frame_inject(0);
            failures += ops.failures;
            nth++;
        } while (nth <= tried + 1);
    }
    CHECK(failures > 300);
    printf("# %llu calls without memory\n", (unsigned long long)failures);
}
