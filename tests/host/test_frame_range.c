/* SPDX-License-Identifier: MIT */
/* Tests of frame: RAM that goes out of use at run time, and comes back. */
/*
 * At risk: a frame that is taken out while somebody uses it, or handed out
 * after it has gone; neighbours that go along, since bits stand in words; map,
 * bits and figures that contradict each other after a refusal in the middle.
 * Provoked by ranges that begin and end anywhere, by each kind of frame in
 * their way, by a list that is full, and by random changes against a model.
 */
#include <mm/frame.h>

#include "base/bits.h"
#include "frame/blocks.h"
#include "tests/host/frame_scene.h"

/* The zones of a small machine meet here. */
#define BORDER UINT64_C(4096)

static pfn_t frame[SMALL_FRAMES];

static enum mm_status remove_frames(uint64_t start, uint64_t end)
{
    return frame_remove(pfn_of(start), pfn_of(end), NULL);
}

static enum mm_status add_frames(uint64_t start, uint64_t end)
{
    return frame_add(pfn_of(start), pfn_of(end));
}

static void check_state(uint64_t start, uint64_t end, enum frame_state state)
{
    for (uint64_t i = start; i < end; i++) {
        CHECK_EQUAL(frame_state(pfn_of(i)), state);
    }
}

static void check_soundness(void)
{
    CHECK(frame_check());
    CHECK(memmap_check(sim_map()));
    CHECK_EQUAL(figures().managed,
                memmap_bytes(sim_map(), MEMMAP_USABLE) >> PAGE_SHIFT);
}

/* What a refusal must leave as it was. */
static struct {
    struct frame_stats stats;
    struct memmap_range range[64];
    size_t count;
} kept;

static void keep(void)
{
    frame_drain();
    frame_stats(&kept.stats);
    kept.count = sim_map()->count;
    CHECK(kept.count <= COUNT(kept.range));
    memcpy(kept.range, sim_map()->range, kept.count * sizeof(kept.range[0]));
}

static void check_kept(void)
{
    struct frame_stats stats = figures();

    CHECK_EQUAL(stats.managed, kept.stats.managed);
    CHECK_EQUAL(stats.free, kept.stats.free);
    CHECK_EQUAL(stats.metadata, kept.stats.metadata);
    CHECK(memcmp(stats.zone_free, kept.stats.zone_free,
                 sizeof(stats.zone_free)) == 0);
    CHECK_EQUAL(sim_map()->count, kept.count);
    CHECK(memcmp(kept.range, sim_map()->range,
                 kept.count * sizeof(kept.range[0])) == 0);
    CHECK_HELPER(check_soundness());
}

/* --- out and in ----------------------------------------------------------- */

/* Ranges around the borders of rows, blocks, trees and zones. */
static const uint64_t ranges[][2] = {
    {6000, 6001},
    {6000, 6064},
    {5951, 5953},
    {6016, 6080},
    {6017, 6079},
    {6015, 6081},
    {6144, 6656},
    {6143, 6657},
    {5120, 7168},
    {5121, 7167},
    {BORDER, 2 * BORDER - 100},
    {BORDER - 1, BORDER + 1},
    {3000, 5003},
    {2048, 2560},
    {300, 301},
    {257, 300},
};

TEST(frame, ranges_go_out_of_use_and_come_back)
{
    for (size_t i = 0; i < COUNT(ranges); i++) {
        uint64_t start = ranges[i][0];
        uint64_t end = ranges[i][1];
        uint64_t low = start < BORDER ? min_u64(end, BORDER) - start : 0;

        sim_boot_frames(SMALL_RAM);
        struct frame_stats before = figures();
        CHECK_EQUAL(remove_frames(start, end), MM_OK);
        CHECK_HELPER(check_soundness());
        CHECK_HELPER(check_state(start, end, FRAME_STATE_OFFLINE));
        CHECK_HELPER(check_state(start - 1, start, FRAME_STATE_FREE));
        CHECK_HELPER(check_state(end, end + 1, FRAME_STATE_FREE));
        struct frame_stats after = figures();
        CHECK_EQUAL(after.managed, before.managed - (end - start));
        CHECK_EQUAL(after.free, before.free - (end - start));
        CHECK_EQUAL(after.zone_managed[ZONE_DMA],
                    before.zone_managed[ZONE_DMA] - low);
        CHECK_EQUAL(after.zone_free[ZONE_DMA],
                    before.zone_free[ZONE_DMA] - low);
        CHECK_EQUAL(memmap_bytes(sim_map(), MEMMAP_OFFLINE),
                    (end - start) * PAGE_BYTES);
        CHECK_EQUAL(add_frames(start, end), MM_OK);
        CHECK_HELPER(check_soundness());
        CHECK_HELPER(check_state(start, end, FRAME_STATE_FREE));
        CHECK_EQUAL(figures().free, before.free);
        CHECK_EQUAL(figures().zone_free[ZONE_DMA], before.zone_free[ZONE_DMA]);
        CHECK_EQUAL(memmap_bytes(sim_map(), MEMMAP_OFFLINE), 0);
    }
}

TEST(frame, what_is_out_of_use_is_not_handed_out)
{
    for (size_t i = 0; i < COUNT(ranges); i++) {
        uint64_t start = ranges[i][0];
        uint64_t end = ranges[i][1];

        sim_boot_frames(SMALL_RAM);
        CHECK_EQUAL(remove_frames(start, end), MM_OK);
        uint64_t count = take_all(frame, 0, FRAME_ANY);
        CHECK_EQUAL(count + figures().metadata, figures().managed);
        for (uint64_t k = 0; k < count; k++) {
            CHECK(frame[k].v < start || frame[k].v >= end);
        }
        CHECK_HELPER(check_state(start, end, FRAME_STATE_OFFLINE));
        frame_free(pfn_of(start), 0);
        CHECK_BUG("was taken out of use");
        /* Once it is back, the hints lead there. */
        CHECK_EQUAL(add_frames(start, end), MM_OK);
        uint64_t metadata = figures().metadata;
        count = take_all(frame, 0, FRAME_ANY);
        CHECK_EQUAL(count + figures().metadata - metadata, end - start);
        for (uint64_t k = 0; k < count; k++) {
            CHECK(frame[k].v >= start && frame[k].v < end);
        }
        CHECK_HELPER(check_soundness());
    }
}

TEST(frame, trees_that_sleep_are_taken_out_as_others)
{
    const uint64_t tree = 3 * BORDER; /* 48 MiB */

    sim_boot_frames(128 * MiB);
    CHECK_EQUAL(remove_frames(tree + 100, tree + 900), MM_OK);
    CHECK_HELPER(check_soundness());
    CHECK_HELPER(check_state(tree, tree + 100, FRAME_STATE_FREE));
    CHECK_HELPER(check_state(tree + 100, tree + 900, FRAME_STATE_OFFLINE));
    CHECK_HELPER(check_state(tree + 900, tree + BORDER, FRAME_STATE_FREE));
    /* Across three of them. */
    CHECK_EQUAL(remove_frames(tree + BORDER - 7, tree + 2 * BORDER + 7), MM_OK);
    CHECK_HELPER(check_soundness());
    CHECK_EQUAL(add_frames(tree + 500, tree + 600), MM_OK);
    CHECK_EQUAL(add_frames(tree + BORDER, tree + 2 * BORDER), MM_OK);
    CHECK_HELPER(check_soundness());
    CHECK_EQUAL(memmap_bytes(sim_map(), MEMMAP_OFFLINE),
                (700 + 14) * PAGE_BYTES);
    CHECK_EQUAL(
        frame_alloc_run(BORDER, BORDER, FRAME_USER, FRAME_ANY).v % BORDER, 0);
    CHECK_HELPER(check_soundness());
}

TEST(frame, a_tree_goes_where_a_cpu_sits)
{
    sim_boot_frames(128 * MiB);
    for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
        pfn_t pfn = frame_alloc(order, FRAME_USER, FRAME_ANY);
        uint64_t tree = align_down(pfn.v, BORDER);
        frame_free(pfn, order);
        frame_drain();
        /* All but the highest are free altogether, but for metadata. */
        pfn_t busy = PFN_NONE;
        enum mm_status status =
            frame_remove(pfn_of(tree), pfn_of(tree + BORDER), &busy);
        if (status == MM_OK) {
            CHECK_HELPER(check_state(tree, tree + BORDER, FRAME_STATE_OFFLINE));
            pfn = frame_alloc(order, FRAME_USER, FRAME_ANY);
            CHECK(pfn.v < tree || pfn.v >= tree + BORDER);
            frame_free(pfn, order);
            CHECK_EQUAL(add_frames(tree, tree + BORDER), MM_OK);
        } else {
            CHECK_EQUAL(status, tree + BORDER < 128 * MiB / PAGE_BYTES
                                    ? MM_EBUSY
                                    : MM_EINVAL);
        }
        CHECK_HELPER(check_soundness());
    }
    /* Of the tree where this CPU takes its frames, what is free in it. */
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    uint64_t block = align_down(pfn.v, 512) - 512;
    CHECK_EQUAL(remove_frames(block, block + 512), MM_OK);
    for (unsigned i = 0; i < 3000; i++) {
        pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
        CHECK(pfn.v < block || pfn.v >= block + 512);
    }
    CHECK_HELPER(check_soundness());
}

/* --- refusals ------------------------------------------------------------- */

TEST(frame, a_frame_in_use_is_named_and_all_stays)
{
    static const uint64_t places[] = {5000, 5001, 5063, 5064, 5500, 5699};

    for (size_t i = 0; i < COUNT(places); i++) {
        sim_boot_frames(SMALL_RAM);
        uint64_t count = take_all(frame, 0, FRAME_ANY);
        for (uint64_t k = 0; k < count; k++) {
            if (frame[k].v != places[i]) {
                frame_free(frame[k], 0);
            }
        }
        CHECK_HELPER(keep());
        pfn_t busy = PFN_NONE;
        CHECK_EQUAL(frame_remove(pfn_of(5000), pfn_of(5700), &busy), MM_EBUSY);
        CHECK_EQUAL(busy.v, places[i]);
        CHECK_HELPER(check_kept());
        CHECK_EQUAL(remove_frames(5000, 5700), MM_EBUSY);
        CHECK_HELPER(check_kept());
        frame_free(pfn_of(places[i]), 0);
        CHECK_EQUAL(frame_remove(pfn_of(5000), pfn_of(5700), &busy), MM_OK);
        CHECK_HELPER(check_soundness());
    }
}

TEST(frame, every_kind_of_use_is_in_the_way)
{
    static const unsigned orders[] = {0, 3, 7, 9, 10};

    for (size_t i = 0; i < COUNT(orders); i++) {
        sim_boot_frames(SMALL_RAM);
        pfn_t pfn = frame_alloc(orders[i], FRAME_USER, FRAME_ANY);
        uint64_t start = align_down(pfn.v, 1024);
        uint64_t first = start;
        CHECK_HELPER(keep());
        while (frame_state(pfn_of(first)) == FRAME_STATE_FREE) {
            first++;
        }
        pfn_t busy = PFN_NONE;
        CHECK_EQUAL(frame_remove(pfn_of(start), pfn_of(pfn.v + 1), &busy),
                    MM_EBUSY);
        CHECK_EQUAL(busy.v, first);
        /* In the middle of a block, too. */
        uint64_t last = pfn.v + (UINT64_C(1) << orders[i]) - 1;
        CHECK_EQUAL(frame_remove(pfn_of(last), pfn_of(last + 1), &busy),
                    MM_EBUSY);
        CHECK_EQUAL(busy.v, last);
        CHECK_HELPER(check_kept());
        frame_free(pfn, orders[i]);
    }
    sim_boot_frames(SMALL_RAM);
    pfn_t metadata = frame_alloc_metadata();
    CHECK_HELPER(keep());
    CHECK_EQUAL(remove_frames(metadata.v, metadata.v + 1), MM_EBUSY);
    CHECK_HELPER(check_kept());
    /* The frames kept to be metadata are free to go. */
    CHECK(!pfn_is_none(frame_alloc_metadata()));
    uint64_t run = align_down(metadata.v, 32);
    CHECK_EQUAL(remove_frames(run + 8, run + 32), MM_OK);
    CHECK_HELPER(check_soundness());
}

TEST(frame, ranges_that_are_not_the_allocators_are_refused)
{
    sim_boot_frames(SMALL_RAM);
    uint64_t list = phys_to_pfn(virt_to_phys(sim_map()->range)).v;
    CHECK_EQUAL(remove_frames(6000, 6010), MM_OK);
    const uint64_t wrong[][2] = {
        {0, 1},
        {0, 300},
        {1, 2},           /* below 1 MiB */
        {255, 257},       /* half of it */
        {512, 513},       /* the image */
        {511, 520},       /* runs into it */
        {list, list + 1}, /* the map */
        {list - 1, list + 1},
        {6000, 6010}, /* has gone already */
        {5990, 6001},
        {6009, 6020},
        {7000, 7000}, /* empty */
        {7001, 7000},
        {SMALL_FRAMES - 1, SMALL_FRAMES + 1},
        {SMALL_FRAMES, SMALL_FRAMES + 1},
        {7000, UINT64_MAX},
        {UINT64_MAX - 1, UINT64_MAX},
        {UINT64_C(1) << 52, (UINT64_C(1) << 52) + 7000},
    };
    CHECK_HELPER(keep());
    for (size_t i = 0; i < COUNT(wrong); i++) {
        CHECK_EQUAL(remove_frames(wrong[i][0], wrong[i][1]), MM_EINVAL);
        CHECK_HELPER(check_kept());
    }
    const uint64_t twice[][2] = {
        {5990, 6000},       {5999, 6001},
        {6009, 6011},       {0, 1},
        {6005, 6005},       {6006, 6005},
        {6005, UINT64_MAX}, {SMALL_FRAMES, SMALL_FRAMES + 1},
    };
    for (size_t i = 0; i < COUNT(twice); i++) {
        CHECK_EQUAL(add_frames(twice[i][0], twice[i][1]), MM_EINVAL);
        CHECK_HELPER(check_kept());
    }
}

TEST(frame, a_full_list_refuses_and_all_stays)
{
    sim_boot_frames(SMALL_RAM);
    CHECK_EQUAL(remove_frames(5000, 5100), MM_OK);
    CHECK_HELPER(keep());
    size_t capacity = sim_map()->capacity;
    for (size_t room = 0; room < 2; room++) {
        /* A range out of the middle of another makes two more. */
        sim_map()->capacity = sim_map()->count + room;
        CHECK_EQUAL(remove_frames(6000, 6500), MM_ENOMEM);
        CHECK_HELPER(check_kept());
        CHECK_EQUAL(add_frames(5010, 5090), MM_ENOMEM);
        CHECK_HELPER(check_kept());
        CHECK_HELPER(check_state(6000, 6500, FRAME_STATE_FREE));
        CHECK_HELPER(check_state(5000, 5100, FRAME_STATE_OFFLINE));
    }
    /* What needs no more room is done. */
    sim_map()->capacity = sim_map()->count;
    CHECK_EQUAL(remove_frames(5100, 5200), MM_OK);
    CHECK_EQUAL(add_frames(5000, 5200), MM_OK);
    CHECK_HELPER(check_soundness());
    sim_map()->capacity = capacity;
    CHECK_EQUAL(remove_frames(6000, 6500), MM_OK);
    CHECK_HELPER(check_soundness());
}

/* --- other CPUs ----------------------------------------------------------- */

TEST(frame, frames_that_other_cpus_keep_are_asked_for)
{
    sim_boot_frames_on(SMALL_RAM, 4);
    (void)take_all(frame, 0, FRAME_ANY);
    for (unsigned i = 0; i < 40; i++) {
        CHECK_HELPER(keep_on(1 + i % 3, pfn_of(6000 + i)));
    }
    CHECK_EQUAL(figures().cached, 40);
    CHECK_EQUAL(remove_frames(6000, 6040), MM_OK);
    CHECK_HELPER(check_soundness());
    CHECK_EQUAL(figures().cached, 0);
    CHECK_EQUAL(figures().free, 0);
    for (unsigned cpu = 1; cpu < 4; cpu++) {
        CHECK_EQUAL(sim_interrupts(cpu), 1);
    }
    /* What they had cleared ahead, and rows they had begun. */
    sim_boot_frames_on(SMALL_RAM, 2);
    sim_set_cpu(1);
    while (figures().zeroed < 3) {
        CHECK(frame_zero_idle());
    }
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ZEROED);
    frame_free(frame_alloc(3, FRAME_USER, FRAME_ANY), 3);
    frame_free(pfn, 0);
    sim_set_cpu(0);
    CHECK(figures().zeroed > 0 && figures().cached > 60);
    uint64_t row = align_down(pfn.v, 64);
    CHECK_EQUAL(remove_frames(row, row + 64), MM_OK);
    CHECK_HELPER(check_state(row, row + 64, FRAME_STATE_OFFLINE));
    CHECK_HELPER(check_soundness());
}

/* CPU 1 has its interrupts off, and this one waits by turns. */
static void set_silent(void)
{
    static const struct sim_driver nobody = {0};

    sim_set_cpu(1);
    (void)port_irq_save();
    sim_set_cpu(0);
    sim_set_driver(&nobody);
}

TEST(frame, a_cpu_that_does_not_answer_keeps_its_frames_in_use)
{
    sim_boot_frames_on(SMALL_RAM, 2);
    (void)take_all(frame, 0, FRAME_ANY);
    CHECK_HELPER(keep_on(1, pfn_of(6003)));
    CHECK_HELPER(keep_on(0, pfn_of(6002)));
    CHECK_HELPER(set_silent());
    pfn_t busy = PFN_NONE;
    CHECK_EQUAL(frame_remove(pfn_of(6002), pfn_of(6004), &busy), MM_EBUSY);
    CHECK_EQUAL(busy.v, 6003);
    CHECK_HELPER(check_soundness());
    CHECK_EQUAL(figures().free, 2);
    /* It answers. */
    sim_set_driver(NULL);
    sim_set_cpu(1);
    sim_irq_restore(UINT64_C(0x1290));
    sim_set_cpu(0);
    CHECK_EQUAL(remove_frames(6002, 6004), MM_OK);
    CHECK_HELPER(check_soundness());
}

TEST(frame, ranges_that_come_back_leave_no_trace_in_the_map)
{
    sim_boot_frames(SMALL_RAM);
    size_t before = sim_map()->count;
    for (uint64_t i = 0; i < 2000; i++) {
        pfn_t start = pfn_of(UINT64_C(4000) + i % 512);
        pfn_t end = pfn_add(start, 1 + i % 7);
        CHECK_EQUAL(frame_remove(start, end, NULL), MM_OK);
        CHECK_EQUAL(frame_add(start, end), MM_OK);
        CHECK_EQUAL(sim_map()->count, before);
    }
    CHECK_HELPER(check_soundness());
}

/* --- a zone that had nothing ---------------------------------------------- */

TEST(frame, ram_that_comes_above_all_other_is_used)
{
    static pfn_t taken[TREE_FRAMES];
    paddr_t above;
    paddr_t storage;

    sim_boot_frames(3 * GiB + 16 * MiB); /* for record_init() */
    sim_boot_map(3 * GiB + 16 * MiB);
    sim_set_cpu_count(1);
    CHECK_EQUAL(memmap_carve(sim_map(), 16 * MiB, PAGE_BYTES, SIM_PHYSICAL_END,
                             "boot", &above),
                MM_OK);
    CHECK_EQUAL(above.v, 4 * GiB);
    uint64_t bytes = frame_metadata_bytes(sim_map());
    CHECK_EQUAL(memmap_carve(sim_map(), bytes, PAGE_BYTES, SIM_PHYSICAL_END,
                             "frame metadata", &storage),
                MM_OK);
    frame_init(sim_map(), phys_to_virt(storage));
    pfn_t first = phys_to_pfn(above);
    CHECK_EQUAL(frame_add(first, pfn_add(first, TREE_FRAMES)), MM_OK);
    uint64_t high = 0;
    for (uint64_t i = 0; i < TREE_FRAMES / BLOCK_FRAMES; i++) {
        taken[i] = frame_alloc(BLOCK_ORDER, FRAME_USER, FRAME_ANY);
        high += taken[i].v >= first.v ? 1 : 0;
    }
    CHECK(high >= TREE_FRAMES / BLOCK_FRAMES - 1); /* metadata takes some */
    CHECK(frame_check());
}

/* --- the model ------------------------------------------------------------ */

#define MODEL_FIRST UINT64_C(4000)
#define MODEL_END   UINT64_C(5200)
#define MODEL_STEPS 4000

enum model_state { IS_FREE, IS_USED, IS_OUT };

static uint8_t model[MODEL_END + 1]; /* and one that never goes */

static bool model_is_all(uint64_t start, uint64_t end, enum model_state state)
{
    for (uint64_t i = start; i < end; i++) {
        if (model[i] != state) {
            return false;
        }
    }
    return true;
}

static bool model_has(uint64_t start, uint64_t end, enum model_state state)
{
    for (uint64_t i = start; i < end; i++) {
        if (model[i] == state) {
            return true;
        }
    }
    return false;
}

static void model_remove(uint64_t start, uint64_t end)
{
    pfn_t busy = PFN_NONE;
    enum mm_status expected = MM_OK;

    if (model_has(start, end, IS_OUT)) {
        expected = MM_EINVAL;
    } else if (model_has(start, end, IS_USED)) {
        expected = MM_EBUSY;
    }
    CHECK_EQUAL(frame_remove(pfn_of(start), pfn_of(end), &busy), expected);
    if (expected == MM_EBUSY) {
        CHECK_EQUAL(model[busy.v], IS_USED);
        CHECK(!model_has(start, busy.v, IS_USED));
    } else if (expected == MM_OK) {
        memset(&model[start], IS_OUT, end - start);
    }
}

static void model_add(uint64_t start, uint64_t end)
{
    enum mm_status expected =
        model_is_all(start, end, IS_OUT) ? MM_OK : MM_EINVAL;

    CHECK_EQUAL(add_frames(start, end), expected);
    if (expected == MM_OK) {
        memset(&model[start], IS_FREE, end - start);
    }
}

static void model_step(struct test_random *random)
{
    uint64_t start =
        MODEL_FIRST + test_random_below(random, MODEL_END - MODEL_FIRST);
    uint64_t length = 1 + test_random_below(random, 90);
    uint64_t end = min_u64(start + length, MODEL_END);

    switch (test_random_below(random, 4)) {
    case 0:
        CHECK_HELPER(model_remove(start, end));
        break;
    case 1:
        /* From where it is out, so that it succeeds now and then. */
        while (start < MODEL_END - 1 && model[start] != IS_OUT) {
            start++;
        }
        end = start + 1;
        while (end < MODEL_END && end - start < length &&
               model[end] == IS_OUT) {
            end++;
        }
        CHECK_HELPER(model_add(start, end + (length == 90 ? 1 : 0)));
        break;
    case 2: /* all else is in use, so one of these is what comes */
        if (model_has(MODEL_FIRST, MODEL_END, IS_FREE)) {
            pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
            CHECK(pfn.v >= MODEL_FIRST && pfn.v < MODEL_END);
            CHECK_EQUAL(model[pfn.v], IS_FREE);
            model[pfn.v] = IS_USED;
        }
        break;
    default:
        if (model[start] == IS_USED) {
            frame_free(pfn_of(start), 0);
            model[start] = IS_FREE;
        }
        break;
    }
}

TEST(frame, random_ranges_match_the_model)
{
    struct test_random random;

    sim_boot_frames(SMALL_RAM);
    (void)take_all(frame, 0, FRAME_ANY);
    memset(model, IS_USED, sizeof(model));
    for (uint64_t i = MODEL_FIRST; i < MODEL_END; i++) {
        frame_free(pfn_of(i), 0);
        model[i] = IS_FREE;
    }
    test_random_init(&random, test_seed());
    for (unsigned step = 0; step < MODEL_STEPS; step++) {
        CHECK_HELPER(model_step(&random));
        CHECK_HELPER(check_soundness());
    }
    for (uint64_t i = MODEL_FIRST; i < MODEL_END; i++) {
        enum frame_state state = frame_state(pfn_of(i));
        CHECK_EQUAL(model[i] == IS_OUT, state == FRAME_STATE_OFFLINE);
        CHECK_EQUAL(model[i] == IS_USED, state == FRAME_STATE_ALLOCATED);
    }
}
