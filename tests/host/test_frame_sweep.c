/* SPDX-License-Identifier: MIT */
/* Tests of frame: every allocation of a program made to fail, one by one. */
/*
 * At risk: a way back that forgets a frame. So a program that allocates in all
 * ways runs again and again, each time with another allocation that fails; the
 * rest of it goes on with what it has, and nothing is lost. The same on a
 * machine of 40 GiB whose runs are longer than 1 GiB.
 */
#include <mm/frame.h>

#include "tests/host/frame_model.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define STEPS 60
#define BULK  70
#define CPUS  2

struct got {
    pfn_t pfn[BULK];
    uint64_t count; /* of single frames; of a run: its frames */
    unsigned order;
    enum { BLOCK, SINGLES, RUN } kind;
};

static struct got got[STEPS];

/* Which depends on the step only. */
static void take(unsigned step, struct got *out)
{
    unsigned flags = step % 5 == 0 ? FRAME_ZEROED : FRAME_ANY;

    *out = (struct got){.order = step % (MM_MAX_ORDER + 1)};
    switch (step % 4) {
    case 0:
        out->kind = SINGLES;
        out->count = frame_alloc_bulk(out->pfn, BULK, FRAME_KERNEL, flags);
        break;
    case 1:
        out->kind = RUN;
        out->count = 1 + (uint64_t)step * 37;
        out->pfn[0] = frame_alloc_run(out->count, 8, FRAME_LARGE, FRAME_ANY);
        break;
    default:
        out->kind = BLOCK;
        out->pfn[0] = frame_alloc(out->order, FRAME_USER, flags);
        break;
    }
}

static void give(struct got *it)
{
    if (it->kind == SINGLES) {
        frame_free_bulk(it->pfn, (unsigned)it->count);
    } else if (pfn_is_none(it->pfn[0])) {
        return;
    } else if (it->kind == RUN) {
        frame_free_run(it->pfn[0], it->count);
    } else {
        frame_free(it->pfn[0], it->order);
    }
}

/* Some is given back on the way, by another CPU. */
static void run_program(void)
{
    for (unsigned step = 0; step < STEPS; step++) {
        sim_set_cpu(step % CPUS);
        take(step, &got[step]);
        if (step % 3 == 2) {
            sim_set_cpu((step + 1) % CPUS);
            give(&got[step]);
        }
    }
    for (unsigned step = 0; step < STEPS; step++) {
        if (step % 3 != 2) {
            give(&got[step]);
        }
    }
    sim_set_cpu(0);
}

static void check_nothing_is_lost(void)
{
    struct frame_stats stats = figures();

    CHECK(frame_check());
    CHECK_EQUAL(stats.free, stats.managed - stats.metadata);
    for (unsigned type = 1; type < FRAME_TYPES; type++) {
        CHECK_EQUAL(stats.by_type[type], 0);
    }
}

/* The @nth fails, or each @nth; how many allocations there were. */
static uint64_t run_with(struct frame_injection injection)
{
    sim_boot_frames_on(64 * MiB, CPUS);
    frame_inject_set(&injection);
    run_program();
    uint64_t tried = frame_inject_count();
    frame_inject_set(NULL);
    return tried;
}

TEST(frame_sweep, each_allocation_fails_once)
{
    uint64_t nth = 1;
    uint64_t tried;

    do {
        tried = run_with((struct frame_injection){.nth = nth});
        CHECK_HELPER(check_nothing_is_lost());
        nth++;
    } while (nth <= tried);
    CHECK(tried >= STEPS);
}

TEST(frame_sweep, every_nth_allocation_fails)
{
    for (uint64_t every = 1; every <= STEPS; every++) {
        (void)run_with((struct frame_injection){.every = every});
        CHECK_HELPER(check_nothing_is_lost());
    }
}

/* --- long runs ------------------------------------------------------------ */

#define HUGE_RAM  (40 * GiB)
#define HUGE_RUNS 60
#define GIB       (GiB / PAGE_BYTES)

static struct {
    uint64_t start;
    uint64_t frames; /* 0: none */
} runs[HUGE_RUNS];

static void change_run(unsigned number, struct test_random *random)
{
    uint64_t start = runs[number].start;
    uint64_t frames = runs[number].frames;

    if (frames != 0) {
        CHECK(model_change(start, start + frames, MODEL_USED, MODEL_FREE));
        frame_free_run(pfn_of(start), frames);
        runs[number].frames = 0;
        return;
    }
    frames = GIB / 2 + test_random_below(random, 2 * GIB);
    uint64_t alignment = UINT64_C(1) << test_random_below(random, 19);
    pfn_t first = frame_alloc_run(frames, alignment, FRAME_LARGE, FRAME_ANY);
    if (pfn_is_none(first)) {
        CHECK(!model_has_run(frames, alignment, FRAME_ANY));
        return;
    }
    CHECK_EQUAL(first.v % alignment, 0);
    CHECK(model_change(first.v, first.v + frames, MODEL_FREE, MODEL_USED));
    runs[number].start = first.v;
    runs[number].frames = frames;
}

/* Until there is no room any more, and on; the model has none either. */
TEST(frame_sweep, runs_of_gibibytes_fill_a_machine)
{
    struct test_random random;
    uint64_t used = 0;

    test_random_init(&random, test_seed());
    sim_boot_frames_on(HUGE_RAM, CPUS);
    uint64_t frames = memmap_ram_end(sim_map()) >> PAGE_SHIFT;
    for (uint64_t i = 0; i < frames; i += RECORD_BLOCK_FRAMES) {
        CHECK_EQUAL(record_back_block(pfn_of(i)), MM_OK);
    }
    model_init(frames);
    for (unsigned i = 0; i < HUGE_RUNS; i++) {
        runs[i].frames = 0;
    }
    for (unsigned step = 0; step < 4 * HUGE_RUNS; step++) {
        CHECK_HELPER(change_run((unsigned)test_random_below(&random, HUGE_RUNS),
                                &random));
        used = model_count(MODEL_USED) > used ? model_count(MODEL_USED) : used;
    }
    CHECK_EQUAL(figures().by_type[FRAME_LARGE], model_count(MODEL_USED));
    CHECK(frame_check());
    CHECK(used > frames / 2);
    for (unsigned i = 0; i < HUGE_RUNS; i++) {
        if (runs[i].frames != 0) {
            CHECK_HELPER(change_run(i, &random));
        }
    }
    CHECK_HELPER(check_nothing_is_lost());
}
