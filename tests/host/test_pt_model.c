/* SPDX-License-Identifier: MIT */
/* Page tables against a naive page-by-page model and the simulated MMU. */
/*
 * At risk: an operation on a range that says something else at one page of
 * it, or beside it; a large entry split or merged wrongly; a translation left
 * in a TLB; a table or frame lost or released early; a failure that leaves a
 * trace. So random operations of all kinds and sizes, up to 1 TiB, run on two
 * spaces beside an array that has one element for each page
 * (tests/shared/pt_ops.h), with a TLB that never forgets by itself, and every
 * allocation is made to fail. After each operation every address is compared.
 * A sequence that fails is made short and printed.
 */
#include "tests/shared/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/host/pt_shrink.h"
#include "tests/host/sim_pt.h"

/*
 * Operations in a sequence, and sequences: a million in one build, and others
 * in the rest. STEPS in the environment: so many times as much.
 */
#define OPERATIONS 5000
#ifdef __clang__
#define SEQUENCES  40
#define FIRST_SEED 200000
#elif !MM_DEBUG
#define SEQUENCES  40
#define FIRST_SEED 400000
#else
#define SEQUENCES  200
#define FIRST_SEED 0
#endif

/* Of these every allocation fails in turn. */
#define STARVED_OPERATIONS 60
#define STARVED_SEQUENCES  25

static uint8_t bytes[OPERATIONS * PT_OP_BYTES];

static unsigned times(void)
{
    const char *steps = getenv("STEPS");

    return steps != NULL ? (unsigned)strtoul(steps, NULL, 0) : 1;
}

static void add(struct pt_outcome *sum, const struct pt_outcome *one)
{
    sum->done += one->done;
    sum->failures += one->failures;
    for (unsigned i = 0; i < PT_OP_KINDS; i++) {
        sum->did[i] += one->did[i];
    }
}

/* Shorten what has failed, and say how to see it again. */
static void explain(struct pt_case one, const struct pt_outcome *outcome,
                    uint64_t seed)
{
    printf("# seed %llu: after %zu operations: %s\n", (unsigned long long)seed,
           outcome->done, outcome->reason);
    if (!one.is_starved && (outcome->done + 1) * PT_OP_BYTES < one.size) {
        struct pt_case begin = one;
        struct pt_outcome again;

        begin.size = (outcome->done + 1) * PT_OP_BYTES;
        if (!pt_case_passes(&begin, true, &again)) {
            one = begin;
        }
    }
    one.size = pt_case_shrink(&one, bytes);
    struct pt_outcome last;
    (void)pt_case_passes(&one, false, &last);
    printf("# %s\n", last.reason);
    pt_case_print(&one);
}

/* Sequence @seed, of @operations. */
static void try_seed(uint64_t seed, size_t operations, bool is_starved,
                     struct pt_outcome *sum)
{
    struct pt_case one = {.bytes = bytes,
                          .size = operations * PT_OP_BYTES,
                          .machine = (unsigned)(seed % SIM_PT_MACHINES),
                          .is_starved = is_starved};
    struct test_random random;
    struct pt_outcome outcome;

    test_random_init(&random, seed);
    pt_ops_generate(&random, bytes, one.size);
    bool is_right = pt_case_passes(&one, false, &outcome);
    if (!is_right) {
        explain(one, &outcome, seed);
    }
    CHECK(is_right);
    add(sum, &outcome);
}

static void try_seeds(unsigned count, size_t operations, bool is_starved,
                      struct pt_outcome *sum)
{
    uint64_t first = test_seed() * 1000003 + FIRST_SEED;

    printf("# seeds %llu to %llu\n", (unsigned long long)first,
           (unsigned long long)(first + count - 1));
    for (unsigned i = 0; i < count; i++) {
        CHECK_HELPER(try_seed(first + i, operations, is_starved, sum));
    }
}

/* --- what failed once ------------------------------------------------------
 */

static const struct {
    unsigned machine;
    bool is_starved;
    const char *text;
} failed_once[] = {
    /* a copy across what the other space has: a part of it is there then */
    {3, false,
     "404b87b0a43375e2"
     "16578dee5ae2ed97"
     "16db9f2b0c173987"},
    /* a page that is copied on write, without NX: never writable again */
    {2, false,
     "874b2bd33ec48088"
     "0da31c9f30c18b44"
     "96bb31bead0b1bbb"
     "bcbe77415f3b33c9"},
    /* moving a gap over a promise */
    {1, true,
     "aa9d5429dfa4d246"
     "73669b6d3d93ce23"},
    /* the last holder of a large block that is copied on write */
    {3, false,
     "e59ee0f70b337b1b"
     "f61ceb4545fc0cd5"
     "56002d67f1400808"
     "9c80421c709dc8b9"},
    /* pages of a block, one of them written to, become one again */
    {1, false,
     "7841580a6c0ba82b"
     "b72b84c862b42ac0"
     "2b56a744512b7460"
     "3d6d1e3b97658731"
     "eb8fc56ae755495a"
     "2a242f6b69f7a777"
     "fa165fe892e995fb"},
};

TEST(pt_model, what_failed_once_does_not_again)
{
    for (unsigned i = 0; i < sizeof(failed_once) / sizeof(failed_once[0]);
         i++) {
        struct pt_case one = {.bytes = bytes,
                              .machine = failed_once[i].machine,
                              .is_starved = failed_once[i].is_starved};
        struct pt_outcome outcome;

        one.size = pt_case_parse(failed_once[i].text, bytes, sizeof(bytes));
        bool is_right = pt_case_passes(&one, false, &outcome);
        if (!is_right) {
            printf("# %s\n", outcome.reason);
            pt_case_print(&one);
        }
        CHECK(is_right);
    }
}

/* --- random ones -----------------------------------------------------------
 */

static void print(const struct pt_outcome *sum)
{
    printf("# %zu operations; took effect:", sum->done);
    for (unsigned i = 0; i < PT_OP_KINDS; i++) {
        printf(" %llu", (unsigned long long)sum->did[i]);
    }
    printf("\n");
}

TEST(pt_model, random_operations_match_a_naive_model)
{
    struct pt_outcome sum = {0};

    CHECK_HELPER(try_seeds(SEQUENCES * times(), OPERATIONS, false, &sum));
    print(&sum);
}

/* Each allocation of each sequence fails once, and then nothing has changed. */
TEST(pt_model, failed_allocations_leave_no_trace)
{
    struct pt_outcome sum = {0};

    CHECK_HELPER(
        try_seeds(STARVED_SEQUENCES * times(), STARVED_OPERATIONS, true, &sum));
    CHECK(sum.failures > 300);
    printf("# %llu calls without memory\n", (unsigned long long)sum.failures);
}
