/* SPDX-License-Identifier: MIT */
/* frame model: what the frame allocator must have, kept naively. */
#include "tests/fuzz/frame_model.h"

#include <stdatomic.h>

#include "tests/fuzz/fuzz.h"

struct frame_model model;

static uint8_t use[FRAMES];

void model_reset(void)
{
    memset(use, USE_NONE, sizeof(use));
    model.free = 0;
    model.managed = 0;
    model.metadata = 0;
    model.blocks = 0;
}

bool model_is_known(uint64_t frame)
{
    return frame < END_LOW ||
           (frame >= FIRST_HIGH && frame < FIRST_HIGH + HIGH_FRAMES);
}

static uint8_t *use_of(uint64_t frame)
{
    FUZZ_CHECK(model_is_known(frame));
    return &use[frame < END_LOW ? frame : frame - FIRST_HIGH + END_LOW];
}

bool model_is_all(uint64_t first, uint64_t frames, enum use what)
{
    for (uint64_t i = first; i < first + frames; i++) {
        if (!model_is_known(i) || *use_of(i) != what) {
            return false;
        }
    }
    return true;
}

void model_set(uint64_t first, uint64_t frames, enum use from, enum use what)
{
    FUZZ_CHECK(model_is_all(first, frames, from));
    for (uint64_t i = first; i < first + frames; i++) {
        *use_of(i) = (uint8_t)what;
    }
    model.free += what == USE_FREE ? frames : 0;
    model.free -= from == USE_FREE ? frames : 0;
    model.managed += from <= USE_KEPT && what > USE_KEPT ? frames : 0;
    model.managed -= from > USE_KEPT && what <= USE_KEPT ? frames : 0;
}

bool model_has(uint64_t first, uint64_t end, enum use from, enum use to)
{
    for (uint64_t i = first; i < end; i++) {
        uint8_t what = model_is_known(i) ? *use_of(i) : (uint8_t)USE_NONE;
        if (what >= from && what <= to) {
            return true;
        }
    }
    return false;
}

uint64_t model_end_of(unsigned flags)
{
    if ((flags & FRAME_BELOW_16M) != 0) {
        return DMA_END;
    }
    return (flags & FRAME_BELOW_4G) != 0 ? FIRST_HIGH
                                         : FIRST_HIGH + HIGH_FRAMES;
}

bool model_has_block(unsigned order, unsigned flags)
{
    uint64_t frames = UINT64_C(1) << order;

    for (uint64_t first = 0; first < model_end_of(flags); first += frames) {
        if (first == END_LOW / frames * frames) {
            first = FIRST_HIGH;
        }
        if (record_exists(pfn_of(first)) &&
            record_exists(pfn_of(first + frames - 1)) &&
            model_is_all(first, frames, USE_FREE)) {
            return true;
        }
    }
    return false;
}

size_t model_find(uint64_t frame)
{
    size_t index = 0;

    while (index < model.blocks && model.block[index].pfn.v != frame) {
        index++;
    }
    return index;
}

void model_note(pfn_t pfn, unsigned order, enum frame_type type)
{
    const struct frame_record *record = record_of(pfn);

    FUZZ_CHECK(model.blocks < MAX_BLOCKS);
    FUZZ_CHECK(record->type == type && record->order == order);
    FUZZ_EQUAL(atomic_load(&record->refs), 1);
    FUZZ_CHECK(atomic_load(&record->entries) == 0 && record->owner == 0);
    FUZZ_EQUAL(frame_state(pfn), FRAME_STATE_ALLOCATED);
    model.block[model.blocks++] = (struct block){pfn, order, type, 1};
}

void model_forget(size_t index)
{
    model_set(model.block[index].pfn.v, UINT64_C(1) << model.block[index].order,
              USE_TAKEN, USE_FREE);
    model.block[index] = model.block[--model.blocks];
}

void model_compare_counts(void)
{
    uint64_t by_type[FRAME_TYPES] = {0};
    struct frame_stats stats;

    frame_stats(&stats);
    FUZZ_EQUAL(stats.managed, model.managed);
    FUZZ_EQUAL(stats.free, model.free);
    FUZZ_EQUAL(stats.metadata, model.metadata);
    for (size_t i = 0; i < model.blocks; i++) {
        by_type[model.block[i].type] += UINT64_C(1) << model.block[i].order;
    }
    for (unsigned type = 0; type < FRAME_TYPES; type++) {
        FUZZ_EQUAL(stats.by_type[type], by_type[type]);
    }
}

/* The blocks that a buddy allocator makes of a run of free frames. */
static void count_run(uint64_t first, uint64_t end,
                      uint64_t count[MM_MAX_ORDER + 1])
{
    while (first < end) {
        unsigned order = 0;
        while (order < MM_MAX_ORDER && first % (UINT64_C(2) << order) == 0 &&
               first + (UINT64_C(2) << order) <= end) {
            order++;
        }
        count[order]++;
        first += UINT64_C(1) << order;
    }
}

static void count_blocks(uint64_t first, uint64_t end,
                         uint64_t count[MM_MAX_ORDER + 1])
{
    const uint8_t *at = use_of(first);
    uint64_t run = first;

    for (uint64_t i = first; i < end; i++) {
        if (at[i - first] != USE_FREE) {
            count_run(run, i, count);
            run = i + 1;
        }
    }
    count_run(run, end, count);
}

void model_compare_blocks(void)
{
    static const uint64_t first[FRAME_ZONES] = {0, DMA_END, FIRST_HIGH};
    static const uint64_t end[FRAME_ZONES] = {DMA_END, END_LOW,
                                              FIRST_HIGH + HIGH_FRAMES};

    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        uint64_t expected[MM_MAX_ORDER + 1] = {0};
        uint64_t actual[MM_MAX_ORDER + 1] = {0};
        frame_free_blocks((enum frame_zone)zone, actual);
        count_blocks(first[zone], end[zone], expected);
        for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
            FUZZ_EQUAL(actual[order], expected[order]);
        }
    }
}
