/* SPDX-License-Identifier: MIT */
/* Tests of frame: random work against a model that has a byte a frame. */
/*
 * At risk: whatever nobody has thought of. So all operations come in random
 * order on machines of several sizes, with several CPUs that one thread plays;
 * each result is one that the model allows, a failure only where the model has
 * nothing either, and now and then every frame is compared.
 */
#include <mm/frame.h>

#include <stdio.h>
#include <stdlib.h>

#include <mm/port.h>
#include <mm/record.h>
#include "base/bits.h"
#include "base/memory.h"
#include "tests/host/frame_model.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define HELD    3000 /* blocks */
#define RUNS    12
#define RANGES  6 /* taken out of use */
#define BULK    300
#define UNKNOWN 0xa5 /* what frames are full of that nobody has cleared */

struct machine {
    const char *name;
    uint64_t ram_bytes;
    unsigned cpus;
    unsigned steps;
    unsigned compare_every; /* steps */
    uint64_t stride;        /* of comparisons: each so many frames */
    uint64_t longest_run;   /* frames */
    bool has_all_records;   /* from the start: then failures can be judged */
};

struct held {
    pfn_t pfn;
    unsigned order;
    unsigned refs;
    enum frame_type type;
};

struct range {
    uint64_t start;
    uint64_t end; /* 0: none */
};

static const struct machine *machine;
static struct test_random random_of;
static struct held held[HELD];
static unsigned held_count;
static struct range runs[RUNS];
static struct range offline[RANGES];
static uint64_t in_use[FRAME_TYPES];
static uint64_t failures;

static uint64_t below(uint64_t limit)
{
    return test_random_below(&random_of, limit);
}

/* --- what is held --------------------------------------------------------- */

static uint8_t *byte_of(uint64_t frame)
{
    return phys_to_virt(pfn_to_phys(pfn_of(frame)));
}

/* Frames come back full of rubbish: of large blocks, some. */
static void make_dirty(uint64_t start, uint64_t end)
{
    for (uint64_t i = start; i < end; i += 1 + (end - start) / 32) {
        memset(byte_of(i), UNKNOWN, PAGE_BYTES);
    }
}

static bool is_zero(uint64_t start, uint64_t end)
{
    for (uint64_t i = start; i < end; i += 1 + (end - start) / 64) {
        if (!frames_are_zero(pfn_of(i), 1)) {
            return false;
        }
    }
    return true;
}

static void check_record(pfn_t pfn, unsigned order, enum frame_type type)
{
    const struct frame_record *record = record_of(pfn);

    CHECK(record_exists(pfn));
    CHECK_EQUAL(record->type, type);
    CHECK_EQUAL(record->order, order);
    CHECK_EQUAL(atomic_load(&record->refs), 1);
}

/* A block was handed out: is it free, allowed, aligned, and said to be so? */
static void receive(pfn_t pfn, unsigned order, enum frame_type type,
                    unsigned flags)
{
    uint64_t end = pfn.v + (UINT64_C(1) << order);

    CHECK(is_aligned(pfn.v, UINT64_C(1) << order));
    CHECK(end <= model_limit(flags));
    CHECK(model_change(pfn.v, end, MODEL_FREE, MODEL_USED));
    CHECK_HELPER(check_record(pfn, order, type));
    CHECK((flags & FRAME_ZEROED) == 0 || is_zero(pfn.v, end));
    in_use[type] += end - pfn.v;
}

static void hold(pfn_t pfn, unsigned order, enum frame_type type)
{
    held[held_count++] = (struct held){pfn, order, 1, type};
}

static void forget(uint64_t start, uint64_t end, enum frame_type type)
{
    make_dirty(start, end);
    CHECK(model_change(start, end, MODEL_USED, MODEL_FREE));
    in_use[type] -= end - start;
}

/* Nothing was found: neither does the model find anything. */
static void check_failure(uint64_t frames, uint64_t alignment, unsigned flags)
{
    failures++;
    if (machine->has_all_records) {
        CHECK(!model_has_run(frames, alignment, flags));
    }
}

/* --- operations ----------------------------------------------------------- */

static unsigned any_flags(void)
{
    static const unsigned flags[] = {FRAME_ZEROED, FRAME_BELOW_4G,
                                     FRAME_BELOW_16M,
                                     FRAME_BELOW_4G | FRAME_ZEROED};

    return below(3) == 0 ? flags[below(4)] : FRAME_ANY;
}

static enum frame_type any_type(void)
{
    return (enum frame_type)(1 + below(FRAME_TYPES - 1));
}

static void alloc_block(void)
{
    unsigned order = below(3) == 0 ? (unsigned)below(MM_MAX_ORDER + 1) : 0;
    unsigned flags = any_flags();
    enum frame_type type = any_type();

    if (held_count == HELD) {
        return;
    }
    pfn_t pfn = frame_alloc(order, type, flags);
    if (pfn_is_none(pfn)) {
        CHECK_HELPER(
            check_failure(UINT64_C(1) << order, UINT64_C(1) << order, flags));
        return;
    }
    CHECK_HELPER(receive(pfn, order, type, flags));
    hold(pfn, order, type);
}

static void free_one(struct held *block)
{
    struct held it = *block;

    *block = held[--held_count];
    CHECK_HELPER(
        forget(it.pfn.v, it.pfn.v + (UINT64_C(1) << it.order), it.type));
    for (; it.refs > 1; it.refs--) {
        frame_unref(it.pfn);
    }
    if (below(4) == 0) {
        frame_unref(it.pfn);
    } else {
        frame_free(it.pfn, it.order);
    }
}

static void free_any(void)
{
    if (held_count > 0) {
        CHECK_HELPER(free_one(&held[below(held_count)]));
    }
}

/* Many at once, that memory may run out and be all free again. */
static void free_many(void)
{
    for (uint64_t i = below(held_count + 1); i > 0; i--) {
        CHECK_HELPER(free_any());
    }
}

static void alloc_bulk(void)
{
    pfn_t frame[BULK + 1];
    unsigned wanted = (unsigned)below(min_u64(BULK, HELD - held_count) + 1);
    unsigned flags = any_flags();
    enum frame_type type = any_type();

    frame[wanted] = pfn_of(UNKNOWN);
    unsigned count = frame_alloc_bulk(frame, wanted, type, flags);
    CHECK(count <= wanted);
    CHECK_EQUAL(frame[wanted].v, UNKNOWN);
    for (unsigned i = 0; i < count; i++) {
        CHECK_HELPER(receive(frame[i], 0, type, flags));
        hold(frame[i], 0, type);
    }
    if (count < wanted) {
        CHECK_HELPER(check_failure(1, 1, flags));
    }
}

static void free_bulk(void)
{
    pfn_t frame[BULK];
    unsigned count = 0;
    unsigned wanted = (unsigned)below(BULK);

    for (unsigned i = held_count; i-- > 0 && count < wanted;) {
        if (held[i].order != 0 || held[i].refs != 1) {
            continue;
        }
        frame[count++] = held[i].pfn;
        CHECK_HELPER(forget(held[i].pfn.v, held[i].pfn.v + 1, held[i].type));
        held[i] = held[--held_count];
    }
    frame_free_bulk(frame, count);
}

static void alloc_run(struct range *run)
{
    uint64_t frames = 1 + below(UINT64_C(1) << below(19));
    uint64_t alignment = UINT64_C(1) << below(14);
    unsigned flags = any_flags();

    frames = min_u64(frames, machine->longest_run);
    pfn_t first = frame_alloc_run(frames, alignment, FRAME_LARGE, flags);
    if (pfn_is_none(first)) {
        CHECK_HELPER(check_failure(frames, alignment, flags));
        return;
    }
    CHECK(is_aligned(first.v, alignment));
    *run = (struct range){first.v, first.v + frames};
    for (uint64_t at = run->start; at < run->end;) {
        unsigned order = order_in_run(at, run->end);
        CHECK_HELPER(receive(pfn_of(at), order, FRAME_LARGE, flags));
        at += UINT64_C(1) << order;
    }
}

/* As a whole, or block by block. */
static void free_run(struct range *run)
{
    CHECK_HELPER(forget(run->start, run->end, FRAME_LARGE));
    if (below(2) == 0) {
        frame_free_run(pfn_of(run->start), run->end - run->start);
    } else {
        for (uint64_t at = run->start; at < run->end;) {
            unsigned order = order_in_run(at, run->end);
            frame_free(pfn_of(at), order);
            at += UINT64_C(1) << order;
        }
    }
    *run = (struct range){0, 0};
}

static void alloc_or_free_run(void)
{
    struct range *run = &runs[below(RUNS)];

    if (run->end != 0) {
        CHECK_HELPER(free_run(run));
    } else {
        CHECK_HELPER(alloc_run(run));
    }
}

/* Into single frames, some of which go, or all of which become one again. */
static void split(void)
{
    struct held *block = &held[below(held_count + 1)];

    if (block == &held[held_count] || block->refs != 1) {
        return;
    }
    struct held it = *block;
    uint64_t frames = UINT64_C(1) << it.order;
    CHECK_EQUAL(frame_split(it.pfn, it.order), MM_OK);
    CHECK_HELPER(check_record(it.pfn, 0, it.type));
    if (held_count + frames > HELD || below(3) == 0) {
        CHECK_EQUAL(frame_join(it.pfn, it.order), MM_OK);
        CHECK_HELPER(check_record(it.pfn, it.order, it.type));
        return;
    }
    *block = held[--held_count];
    for (uint64_t i = 0; i < frames; i++) {
        hold(pfn_add(it.pfn, i), 0, it.type);
    }
}

static void add_holder(void)
{
    if (held_count > 0) {
        struct held *block = &held[below(held_count)];
        frame_ref(block->pfn);
        block->refs++;
        if (block->order > 0) {
            CHECK_EQUAL(frame_split(block->pfn, block->order), MM_EBUSY);
        }
    }
}

/* What has no frame that is in use can be taken out. */
static void remove_range(struct range *range)
{
    uint64_t start = below(machine->ram_bytes / PAGE_BYTES);
    uint64_t end = start + 1 + below(UINT64_C(1) << below(12));
    pfn_t busy = PFN_NONE;
    bool is_free = model_is_all(start, end, MODEL_FREE);
    enum mm_status status = frame_remove(pfn_of(start), pfn_of(end), &busy);

    if (status == MM_OK) {
        CHECK(model_change(start, end, MODEL_FREE, MODEL_OFFLINE));
        *range = (struct range){start, end};
    } else if (status == MM_EBUSY) {
        CHECK(!machine->has_all_records || !is_free);
        CHECK(busy.v >= start && busy.v < end);
        CHECK(!machine->has_all_records || model_look(busy.v) != MODEL_FREE);
    } else {
        CHECK(status == MM_ENOMEM || !is_free);
    }
}

static void remove_or_add(void)
{
    struct range *range = &offline[below(RANGES)];

    if (range->end == 0) {
        CHECK_HELPER(remove_range(range));
        return;
    }
    CHECK_EQUAL(frame_remove(pfn_of(range->start), pfn_of(range->end), NULL),
                MM_EINVAL);
    CHECK_EQUAL(frame_add(pfn_of(range->start), pfn_of(range->end)), MM_OK);
    CHECK(model_change(range->start, range->end, MODEL_OFFLINE, MODEL_FREE));
    *range = (struct range){0, 0};
}

/* What is free already, or was never handed out, is reported and stays. */
static void misuse(void)
{
    uint64_t frame = below(machine->ram_bytes / PAGE_BYTES);

    if (model_look(frame) == MODEL_USED) {
        return;
    }
    frame_free(pfn_of(frame), 0);
    CHECK_BUG("frame_free");
}

static void fail_next(void)
{
    uint64_t before = figures().failures;
    pfn_t frame[2];

    frame_inject_set(&(struct frame_injection){.nth = 1});
    switch (below(3)) {
    case 0:
        CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
        break;
    case 1:
        CHECK_EQUAL(frame_alloc_bulk(frame, 2, FRAME_USER, FRAME_ANY), 0);
        break;
    default:
        CHECK(pfn_is_none(frame_alloc_run(2, 1, FRAME_USER, FRAME_ANY)));
        break;
    }
    CHECK_EQUAL(frame_inject_failed(), 1);
    frame_inject_set(NULL);
    CHECK_EQUAL(figures().failures, before + 1);
}

static void do_something(void)
{
    static void (*const rarely[])(void) = {
        alloc_bulk,  free_bulk,  alloc_or_free_run,
        split,       add_holder, remove_or_add,
        misuse,      fail_next,  free_many,
        frame_drain, alloc_bulk, alloc_or_free_run};

    sim_set_cpu((unsigned)below(machine->cpus));
    if (below(4) == 0) {
        rarely[below(sizeof(rarely) / sizeof(rarely[0]))]();
    } else if (below(10) == 0) {
        (void)frame_zero_idle();
    } else if (below(8) < 5) {
        alloc_block();
    } else {
        free_any();
    }
    sim_set_cpu(0);
}

/* --- machines ------------------------------------------------------------- */

static void compare(void)
{
    struct frame_stats stats = figures();
    pfn_t wrong = model_compare(below(machine->stride), machine->stride);

    if (!pfn_is_none(wrong)) {
        printf("# frame 0x%llx: state %u, in the model %u\n",
               (unsigned long long)wrong.v, frame_state(wrong),
               model_look(wrong.v));
    }
    CHECK(pfn_is_none(wrong));
    CHECK(frame_check());
    for (unsigned type = 1; type < FRAME_TYPES; type++) {
        CHECK_EQUAL(stats.by_type[type], in_use[type]);
    }
    CHECK_EQUAL(stats.free + stats.metadata,
                model_count(MODEL_FREE) + model_count(MODEL_METADATA));
    CHECK_EQUAL(stats.managed,
                stats.free + stats.metadata + model_count(MODEL_USED));
    if (machine->stride == 1) {
        CHECK_EQUAL(stats.metadata, model_count(MODEL_METADATA));
    }
}

/* Frames of a machine that has started; above the hole there are more. */
static uint64_t frames_of_machine(void)
{
    return memmap_ram_end(sim_map()) >> PAGE_SHIFT;
}

static void start(void)
{
    sim_boot_frames_on(machine->ram_bytes, machine->cpus);
    for (uint64_t i = 0; machine->has_all_records && i < frames_of_machine();
         i += RECORD_BLOCK_FRAMES) {
        CHECK_EQUAL(record_back_block(pfn_of(i)), MM_OK);
    }
    model_init(frames_of_machine());
    held_count = 0;
    failures = 0;
    memset(runs, 0, sizeof(runs));
    memset(offline, 0, sizeof(offline));
    memset(in_use, 0, sizeof(in_use));
}

static void give_all_back(void)
{
    while (held_count > 0) {
        CHECK_HELPER(free_one(&held[held_count - 1]));
    }
    for (unsigned i = 0; i < RUNS; i++) {
        if (runs[i].end != 0) {
            CHECK_HELPER(free_run(&runs[i]));
        }
    }
}

static void work_on(const struct machine *wanted)
{
    char text[120];

    machine = wanted;
    test_random_init(&random_of, test_seed());
    CHECK_HELPER(start());
    for (unsigned step = 1; step <= machine->steps; step++) {
        CHECK_HELPER(do_something());
        if (step % machine->compare_every == 0) {
            CHECK_HELPER(compare());
        }
    }
    snprintf(text, sizeof(text), "# %s: %u steps, %llu found nothing",
             machine->name, machine->steps, (unsigned long long)failures);
    test_print(text);
    CHECK_HELPER(give_all_back());
    CHECK_HELPER(compare());
    CHECK_EQUAL(model_count(MODEL_USED), 0);
}

/* Steps of all seeds of a test, unless the environment says otherwise. */
static unsigned seeds(unsigned usual)
{
    const char *text = getenv("SEEDS");

    return text != NULL ? (unsigned)strtoul(text, NULL, 0) : usual;
}

static void work_with_many_seeds(const struct machine *wanted, unsigned usual)
{
    uint64_t seed = test_seed();

    for (unsigned i = 0; i < seeds(usual); i++) {
        test_set_seed(seed + i);
        CHECK_HELPER(work_on(wanted));
    }
    test_set_seed(seed);
}

TEST(frame_model, a_small_machine_that_is_full)
{
    static const struct machine small = {.name = "24 MiB, 1 CPU",
                                         .ram_bytes = 24 * MiB,
                                         .cpus = 1,
                                         .steps = 2500,
                                         .compare_every = 250,
                                         .stride = 1,
                                         .longest_run = 2000,
                                         .has_all_records = true};

    CHECK_HELPER(work_with_many_seeds(&small, 6));
    CHECK(failures > 0);
}

TEST(frame_model, several_cpus_that_take_from_each_other)
{
    static const struct machine small = {.name = "32 MiB, 4 CPUs",
                                         .ram_bytes = 32 * MiB,
                                         .cpus = 4,
                                         .steps = 2500,
                                         .compare_every = 250,
                                         .stride = 1,
                                         .longest_run = 4000,
                                         .has_all_records = true};

    CHECK_HELPER(work_with_many_seeds(&small, 6));
    CHECK(failures > 0);
}

/* Records come to life on the way; zones on both sides of 4 GiB. */
TEST(frame_model, a_machine_with_all_zones)
{
    static const struct machine large = {.name = "5 GiB, 3 CPUs",
                                         .ram_bytes = 5 * GiB,
                                         .cpus = 3,
                                         .steps = 2500,
                                         .compare_every = 500,
                                         .stride = 997,
                                         .longest_run = UINT64_C(1) << 17};

    CHECK_HELPER(work_with_many_seeds(&large, 2));
}
