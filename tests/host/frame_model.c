/* SPDX-License-Identifier: MIT */
/* frame_model: which frames are free, in the simplest way: a byte a frame. */
#include "tests/host/frame_model.h"

#include <stdlib.h>

#include <mm/port.h>
#include "base/bits.h"
#include "base/memory.h"

#define ZONE_BORDERS 4
static const uint64_t border[ZONE_BORDERS] = {0, 16 * MiB / PAGE_BYTES,
                                              4 * GiB / PAGE_BYTES, UINT64_MAX};

static uint8_t *states;
static uint64_t end_frame;
static uint64_t counts[MODEL_OFFLINE + 1];

static enum model_state state_at_start(uint64_t frame)
{
    switch (frame_state(pfn_of(frame))) {
    case FRAME_STATE_FREE:
    case FRAME_STATE_CACHED:
        return MODEL_FREE;
    case FRAME_STATE_ALLOCATED:
        return MODEL_USED;
    case FRAME_STATE_METADATA:
        return MODEL_METADATA;
    default:
        return MODEL_FOREIGN;
    }
}

void model_init(uint64_t frames)
{
    free(states);
    states = malloc(frames);
    if (states == NULL) {
        port_panic("no memory for a model of %lu frames", frames);
    }
    end_frame = frames;
    memset(counts, 0, sizeof(counts));
    for (uint64_t i = 0; i < frames; i++) {
        states[i] = (uint8_t)state_at_start(i);
        counts[states[i]]++;
    }
}

enum model_state model_look(uint64_t frame)
{
    return frame < end_frame ? (enum model_state)states[frame] : MODEL_FOREIGN;
}

uint64_t model_count(enum model_state state)
{
    return counts[state];
}

uint64_t model_first_not(uint64_t start, uint64_t end, enum model_state state)
{
    while (start < end && model_look(start) == state) {
        start++;
    }
    return start;
}

bool model_is_all(uint64_t start, uint64_t end, enum model_state state)
{
    return model_first_not(start, end, state) == end;
}

bool model_change(uint64_t start, uint64_t end, enum model_state from,
                  enum model_state to)
{
    if (end > end_frame || !model_is_all(start, end, from)) {
        return false;
    }
    memset(states + start, (int)to, end - start);
    counts[from] -= end - start;
    counts[to] += end - start;
    return true;
}

uint64_t model_limit(unsigned flags)
{
    if (flags & FRAME_BELOW_16M) {
        return border[1];
    }
    return flags & FRAME_BELOW_4G ? border[2] : end_frame;
}

/* In one zone; @start and @end are its own. */
static bool has_run_in(uint64_t start, uint64_t end, uint64_t frames,
                       uint64_t alignment)
{
    uint64_t first = align_up(start, alignment);

    while (first < end && frames <= end - first) {
        uint64_t stop = model_first_not(first, first + frames, MODEL_FREE);
        if (stop == first + frames) {
            return true;
        }
        first = align_up(stop + 1, alignment);
    }
    return false;
}

bool model_has_run(uint64_t frames, uint64_t alignment, unsigned flags)
{
    uint64_t limit = model_limit(flags);
    bool has_run = false;

    for (unsigned zone = 0; zone + 1 < ZONE_BORDERS && !has_run; zone++) {
        uint64_t end = min_u64(min_u64(border[zone + 1], limit), end_frame);
        has_run = has_run_in(border[zone], end, frames, alignment);
    }
    return has_run;
}

static bool is_as_told(uint64_t frame, enum frame_state state)
{
    switch (model_look(frame)) {
    case MODEL_FREE:
        return state == FRAME_STATE_FREE || state == FRAME_STATE_CACHED;
    case MODEL_USED:
        return state == FRAME_STATE_ALLOCATED;
    case MODEL_METADATA:
        return state == FRAME_STATE_METADATA;
    case MODEL_OFFLINE:
        return state == FRAME_STATE_OFFLINE;
    default:
        return state == FRAME_STATE_RESERVED || state == FRAME_STATE_NO_RAM;
    }
}

pfn_t model_compare(uint64_t first, uint64_t stride)
{
    for (uint64_t i = first; i < end_frame; i += stride) {
        enum frame_state state = frame_state(pfn_of(i));
        if (state == FRAME_STATE_METADATA) {
            (void)model_change(i, i + 1, MODEL_FREE, MODEL_METADATA);
        }
        if (!is_as_told(i, state)) {
            return pfn_of(i);
        }
    }
    return PFN_NONE;
}
