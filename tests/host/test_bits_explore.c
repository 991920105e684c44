/* SPDX-License-Identifier: MIT */
/* Tests of bitfield and trees: a few CPUs, in every order of their steps. */
/*
 * At risk: the protocol itself, below seats and arrays: a count that promises
 * bits that are not there, bits that two take, a give of which both or neither
 * say that it was theirs, the count of a tree that is lost between its word and
 * a seat. What is above it makes so many steps that orders must be bounded;
 * here two and three CPUs are tried without a bound.
 */
#include "tests/host/schedule_explore.h"

#include <stdio.h>
#include <string.h>

#include <mm/port.h>
#include "base/bits.h"
#include "frame/trees.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"

#define BLOCKS UINT64_C(4)
#define FRAMES (BLOCKS * BLOCK_FRAMES)
#define STEPS  3

enum step_kind {
    STEP_NONE,
    STEP_TAKE,    /* may find nothing only where there may be nothing */
    STEP_TAKE_AT, /* this block */
    STEP_TAKE_ROW,
    STEP_GIVE,       /* what the same CPU has taken last, or has from before */
    STEP_GIVE_TWICE, /* what another CPU gives as well: one of them does */
    STEP_SPLIT,
    STEP_JOIN
};

struct step {
    enum step_kind kind;
    unsigned order;
    uint64_t at; /* frame */
};

struct bits_scene {
    const char *name;
    unsigned cpus;
    unsigned preemptions;
    struct {
        uint64_t at;
        uint64_t frames;
    } free[4]; /* all else is taken */
    /* What a CPU has from before; order 9 or 10 as a whole. */
    struct {
        bool has;
        uint64_t at;
        unsigned order;
    } had[SCHEDULE_CPUS];
    struct step step[SCHEDULE_CPUS][STEPS];
};

/* What a CPU has: a block, or the frames @mask of a row. */
struct possession {
    pfn_t pfn; /* PFN_NONE: nothing */
    unsigned order;
    uint64_t mask;
};

static const struct bits_scene *scene;
static MM_ALIGNED(64) char storage[4096];
static struct possession has[SCHEDULE_CPUS];
static bool is_taken[FRAMES];
static unsigned gives; /* of those that must succeed once */

/* As before each run. */
static struct possession had[SCHEDULE_CPUS];
static bool was_taken[FRAMES];

/* --- who has what --------------------------------------------------------- */

static void change(uint64_t first, uint64_t frames, bool to)
{
    for (uint64_t i = first; i < first + frames; i++) {
        if (is_taken[i] == to) {
            schedule_fail("a frame was taken twice");
        }
        is_taken[i] = to;
    }
}

static void change_all(const struct possession *it, bool to)
{
    if (it->mask == 0) {
        change(it->pfn.v, UINT64_C(1) << it->order, to);
    }
    for (uint64_t rest = it->mask; rest != 0; rest &= rest - 1) {
        change(it->pfn.v + lowest_bit(rest), 1, to);
    }
}

static void receive(unsigned cpu, pfn_t pfn, unsigned order, uint64_t mask)
{
    has[cpu] = (struct possession){pfn, order, mask};
    if (!pfn_is_none(pfn)) {
        change_all(&has[cpu], true);
    }
}

/* --- steps ---------------------------------------------------------------- */

static void take_row(unsigned cpu, uint64_t block)
{
    pfn_t first;
    uint64_t mask = bitfield_take_row(block, &first);

    receive(cpu, mask != 0 ? first : PFN_NONE, 0, mask);
}

/* Blocks of order 9 and up are taken whole, others anywhere. */
static void take(unsigned cpu, const struct step *step)
{
    pfn_t pfn = PFN_NONE;

    for (uint64_t block = 0; block < BLOCKS && pfn_is_none(pfn); block++) {
        if (step->order <= BLOCK_ORDER || block % 2 == 0) {
            pfn = bitfield_take(block, step->order, 0);
        }
    }
    receive(cpu, pfn, step->order, 0);
}

static void take_at(unsigned cpu, const struct step *step)
{
    pfn_t pfn = pfn_of(step->at);

    receive(cpu, bitfield_take_at(pfn, step->order) ? pfn : PFN_NONE,
            step->order, 0);
}

static void give(unsigned cpu)
{
    struct possession it = has[cpu];

    if (pfn_is_none(it.pfn)) {
        return;
    }
    has[cpu].pfn = PFN_NONE;
    change_all(&it, false);
    if (it.mask != 0 ? !bitfield_give_row(it.pfn, it.mask)
                     : !bitfield_give(it.pfn, it.order)) {
        schedule_fail("what was taken is said to be free");
    }
}

static void give_twice(const struct step *step)
{
    if (bitfield_give(pfn_of(step->at), step->order)) {
        gives++;
        change(step->at, UINT64_C(1) << step->order, false);
    }
}

static void run(unsigned cpu)
{
    for (unsigned i = 0; i < STEPS; i++) {
        const struct step *step = &scene->step[cpu][i];
        bool has_some = !pfn_is_none(has[cpu].pfn);

        switch (step->kind) {
        case STEP_TAKE:
            take(cpu, step);
            break;
        case STEP_TAKE_AT:
            take_at(cpu, step);
            break;
        case STEP_TAKE_ROW:
            take_row(cpu, step->at / BLOCK_FRAMES);
            break;
        case STEP_GIVE:
            give(cpu);
            break;
        case STEP_GIVE_TWICE:
            give_twice(step);
            break;
        case STEP_SPLIT:
            if (has_some) {
                bitfield_split(has[cpu].pfn, step->order);
            }
            break;
        case STEP_JOIN:
            if (has_some) {
                bitfield_join(has[cpu].pfn, step->order);
            }
            break;
        default:
            break;
        }
    }
}

/* --- before and after a run ----------------------------------------------- */

static void begin(void)
{
    memcpy(has, had, sizeof(has));
    memcpy(is_taken, was_taken, sizeof(is_taken));
    gives = 0;
}

/* At rest the bits say what was taken, and the counts what the bits say. */
static const char *check(unsigned stopped)
{
    bool has_twice = scene->step[0][0].kind == STEP_GIVE_TWICE;

    (void)stopped;
    if (gives != (has_twice ? 1 : 0)) {
        return "a block was given back twice, or not at all";
    }
    for (uint64_t block = 0; block < BLOCKS; block++) {
        if (!bitfield_check(block)) {
            return "counts and bits contradict each other";
        }
    }
    for (uint64_t i = 0; i < FRAMES; i++) {
        bool is_whole = bitfield_is_whole(i / BLOCK_FRAMES);
        bool is_set =
            (bitfield_row(i / ROW_FRAMES) >> (i % ROW_FRAMES) & 1) != 0;
        if ((is_whole || is_set) != is_taken[i]) {
            return "a frame is lost, or free and in use";
        }
    }
    return NULL;
}

/* --- the machine ---------------------------------------------------------- */

static void take_before(unsigned cpu)
{
    pfn_t pfn = pfn_of(scene->had[cpu].at);
    unsigned order = scene->had[cpu].order;

    has[cpu] = (struct possession){PFN_NONE, 0, 0};
    if (scene->had[cpu].has) {
        CHECK(bitfield_take_at(pfn, order));
        receive(cpu, pfn, order, 0);
    }
}

static void prepare(void)
{
    uint64_t rows[BLOCKS * BLOCK_ROWS];

    sim_reset(0);
    sim_set_cpu_count(scene->cpus);
    memset(rows, 0xff, sizeof(rows));
    memset(is_taken, true, sizeof(is_taken));
    for (unsigned i = 0; i < 4; i++) {
        for (uint64_t k = 0; k < scene->free[i].frames; k++) {
            uint64_t frame = scene->free[i].at + k;
            rows[frame / ROW_FRAMES] &= ~(UINT64_C(1) << (frame % ROW_FRAMES));
            is_taken[frame] = false;
        }
    }
    CHECK(bitfield_bytes(BLOCKS) <= sizeof(storage));
    bitfield_init(BLOCKS, storage);
    (void)bitfield_fill(0, BLOCKS, rows);
    for (unsigned cpu = 0; cpu < scene->cpus; cpu++) {
        CHECK_HELPER(take_before(cpu));
    }
    memcpy(had, has, sizeof(had));
    memcpy(was_taken, is_taken, sizeof(was_taken));
}

static void bits_explore(const struct bits_scene *wanted)
{
    struct explored explored;

    scene = wanted;
    CHECK_HELPER(prepare());
    struct explore what = {.name = scene->name,
                           .cpus = scene->cpus,
                           .preemptions = scene->preemptions,
                           .begin = begin,
                           .run = run,
                           .check = check};
    CHECK(explore(&what, &explored) == NULL);
    CHECK(!explored.was_cut);
}

/* --- two CPUs ------------------------------------------------------------- */

/* One takes and gives, one gives and takes. */
TEST(bits, two_take_and_give)
{
    for (unsigned order = 0; order <= BLOCK_ORDER + 1; order++) {
        char name[80];
        uint64_t frames = UINT64_C(1) << order;
        bool is_pair = order > BLOCK_ORDER;
        struct bits_scene two = {
            .name = name,
            .cpus = 2,
            .preemptions = EXPLORE_ALL,
            .free = {{0, frames}, {is_pair ? 0 : 512, frames}},
            .had = {[1] = {true, is_pair ? 0 : 512, order}},
            .step = {{{STEP_TAKE, order, 0}, {STEP_GIVE, 0, 0}},
                     {{STEP_GIVE, 0, 0}, {STEP_TAKE, order, 0}}},
        };

        snprintf(name, sizeof(name), "bits: two take and give order %u", order);
        CHECK_HELPER(bits_explore(&two));
    }
}

/* It was theirs, both say. */
TEST(bits, of_two_gives_one_is_true)
{
    for (unsigned order = 0; order <= BLOCK_ORDER + 1; order++) {
        char name[80];
        struct bits_scene two = {
            .name = name,
            .cpus = 2,
            .preemptions = EXPLORE_ALL,
            .free = {{0, UINT64_C(1) << order}},
            .had = {{true, 0, order}},
            .step = {{{STEP_GIVE_TWICE, order, 0}},
                     {{STEP_GIVE_TWICE, order, 0}}},
        };

        snprintf(name, sizeof(name), "bits: two give order %u", order);
        CHECK_HELPER(bits_explore(&two));
    }
}

/* All of a row at once, while one frame of it goes and another comes. */
TEST(bits, rows_while_singles_come_and_go)
{
    struct bits_scene scenes[] = {
        {.name = "bits: a row, while one frame is taken and given",
         .step = {{{STEP_TAKE_ROW, 0, 0}, {STEP_GIVE, 0, 0}},
                  {{STEP_TAKE, 0, 0}, {STEP_GIVE, 0, 0}}}},
        {.name = "bits: a row, while one frame of it is given",
         .had = {[1] = {true, 1, 0}},
         .step = {{{STEP_TAKE_ROW, 0, 0}, {STEP_GIVE, 0, 0}},
                  {{STEP_GIVE, 0, 0}, {STEP_TAKE, 1, 0}}}},
        {.name = "bits: two want the same row",
         .step = {{{STEP_TAKE_ROW, 0, 0}, {STEP_GIVE, 0, 0}},
                  {{STEP_TAKE_ROW, 0, 0}, {STEP_GIVE, 0, 0}}}},
        {.name = "bits: this frame and no other, while any is wanted",
         .step = {{{STEP_TAKE_AT, 0, 2}, {STEP_GIVE, 0, 0}},
                  {{STEP_TAKE, 1, 0}, {STEP_GIVE, 0, 0}}}},
    };

    for (unsigned i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
        scenes[i].cpus = 2;
        scenes[i].preemptions = EXPLORE_ALL;
        scenes[i].free[0].frames = 4;
        CHECK_HELPER(bits_explore(&scenes[i]));
    }
}

/* The count of a block says that nobody is inside, or it is not 512. */
TEST(bits, a_block_is_taken_whole_by_one)
{
    struct bits_scene scenes[] = {
        {.name = "bits: 2 MiB, when its last frame is back",
         .had = {[1] = {true, 5, 0}},
         .step = {{{STEP_TAKE, 9, 0}, {STEP_GIVE, 0, 0}},
                  {{STEP_GIVE, 0, 0}, {STEP_TAKE, 0, 0}}}},
        {.name = "bits: 2 MiB are split, their last frame goes and comes",
         .had = {[1] = {true, 5, 0}},
         .step = {{{STEP_TAKE, 9, 0}, {STEP_SPLIT, 9, 0}, {STEP_JOIN, 9, 0}},
                  {{STEP_GIVE, 0, 0}, {STEP_TAKE, 3, 0}}}},
        {.name = "bits: 4 MiB, while half of them comes and goes",
         .had = {[1] = {true, 512, 9}},
         .step = {{{STEP_TAKE, 10, 0}, {STEP_GIVE, 0, 0}},
                  {{STEP_GIVE, 0, 0}, {STEP_TAKE, 9, 0}}}},
        {.name = "bits: 128 frames, when their last is back",
         .had = {[1] = {true, 5, 0}},
         .step = {{{STEP_TAKE_AT, 7, 0}, {STEP_GIVE, 0, 0}},
                  {{STEP_GIVE, 0, 0}, {STEP_TAKE, 6, 0}}}},
    };

    for (unsigned i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
        scenes[i].cpus = 2;
        scenes[i].preemptions = EXPLORE_ALL;
        scenes[i].free[0].frames = i == 2 ? FRAMES : BLOCK_FRAMES;
        CHECK_HELPER(bits_explore(&scenes[i]));
    }
}

/* --- three CPUs ----------------------------------------------------------- */

TEST(bits, three_take_and_give)
{
    static const unsigned orders[] = {0, 3, 6, 9};

    for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        char name[80];
        unsigned order = orders[i];
        struct bits_scene three = {
            .name = name,
            .cpus = 3,
            .preemptions = EXPLORE_ALL,
            .free = {{0, UINT64_C(1) << order}, {512, UINT64_C(1) << order}},
            .had = {[1] = {true, 512, order}},
            .step = {{{STEP_TAKE, order, 0}},
                     {{STEP_GIVE, 0, 0}},
                     {{STEP_TAKE, order, 0}}},
        };

        snprintf(name, sizeof(name), "bits: three take and give order %u",
                 order);
        CHECK_HELPER(bits_explore(&three));
    }
}
