/* SPDX-License-Identifier: MIT */
/* sparse: what frames cost at start, and which large blocks stay whole. */
#include <stdio.h>

#include "bench/native/native.h"

#define GIB         1073741824.0
#define LARGE       9
#define LARGE_COUNT (UINT64_C(1) << LARGE)

void native_metadata(void)
{
    if (native.metadata_bytes != NULL) {
        native_print("metadata at start", "B/frame",
                     (double)native.metadata_bytes() /
                         (double)(native_ram_bytes / 4096));
    }
}

static void set_up_none(struct native_worker *worker)
{
    (void)worker;
}

static uint64_t start_again(struct native_worker *worker, uint64_t times)
{
    (void)worker;
    for (uint64_t i = 0; i < times; i++) {
        native.start_frames();
    }
    return times;
}

void native_start_up(void)
{
    static const struct native_work work = {set_up_none, start_again, 1,
                                            0,           0,           1};

    if (native.start_frames != NULL) {
        native_print("start-up", "us/GiB",
                     native_measure(&work) / 1000 /
                         ((double)native_ram_bytes / GIB));
    }
}

/* --- large blocks --------------------------------------------------------- */

/*
 * Single frames fill 7/8 of the RAM. Then, for each level: frames are freed at
 * random until only so much is in use, and REPLACED times as many as the RAM
 * has are replaced at random, one by one: an allocator that prefers dense
 * blocks has the time to show it. How many 2 MiB blocks can be allocated then,
 * of those that the free frames would make if they lay together?
 */
static const unsigned levels[] = {75, 50, 25, 10}; /* percent in use */

#define REPLACED 4

static uint64_t count_large(struct native_worker *worker)
{
    uint64_t count = 0;

    if (native.frame_drain != NULL) {
        native.frame_drain();
    }
    /* Beside the frames in use there is room for them. */
    uintptr_t *large = &worker->block[worker->count];
    while ((large[count] = native.frame_alloc(LARGE)) != NATIVE_NONE) {
        count++;
    }
    for (uint64_t i = 0; i < count; i++) {
        native.frame_free(large[i], LARGE);
    }
    return count;
}

static void shrink(struct native_worker *worker, uint64_t frames)
{
    while (worker->count > frames) {
        uint64_t i = native_below(native_random(worker), worker->count);
        native.frame_free(worker->block[i], 0);
        worker->block[i] = worker->block[--worker->count];
    }
}

static void replace(struct native_worker *worker, uint64_t times)
{
    for (uint64_t i = 0; i < times; i++) {
        uint64_t at = native_below(native_random(worker), worker->count);
        native.frame_free(worker->block[at], 0);
        worker->block[at] = native_block(0);
    }
}

void native_sparse(void)
{
    struct native_worker worker = {.random = NATIVE_SEED};

    if (native.frames_managed == NULL) {
        return;
    }
    native.enter(0);
    uint64_t frames = native.frames_managed();
    worker.block = native_own((frames + 1) * sizeof(uintptr_t));
    while (worker.count < frames / 8 * 7) {
        worker.block[worker.count++] = native_block(0);
    }
    for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        char name[32];
        shrink(&worker, frames * levels[i] / 100);
        replace(&worker, frames * REPLACED);
        uint64_t could = (frames - worker.count) / LARGE_COUNT;
        snprintf(name, sizeof(name), "free 2 MiB at %u %%", levels[i]);
        native_print(name, "%",
                     100.0 * (double)count_large(&worker) / (double)could);
    }
}
