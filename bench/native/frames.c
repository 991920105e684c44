/* SPDX-License-Identifier: MIT */
/* frames: workloads of 4 KiB and 2 MiB blocks, none of which is written. */
#include "bench/native/native.h"

#define PAGE  UINT64_C(4096)
#define SMALL 0
#define LARGE 9

/* Half of the RAM, shared by the threads; taken and released at once. */
static void set_up_half(struct native_worker *worker)
{
    uint64_t blocks = native_ram_bytes / PAGE >> worker->order;

    worker->count = blocks / 2 / worker->count;
    worker->block = native_own(worker->count * sizeof(uintptr_t));
    native_shuffle(worker);
}

static void set_up_churn(struct native_worker *worker)
{
    set_up_half(worker);
    for (uint64_t i = 0; i < worker->count; i++) {
        worker->block[i] = native_block(worker->order);
    }
    /* What is held lies scattered, as after a while at work. */
    for (uint64_t i = 0; i < worker->count; i++) {
        native.frame_free(worker->block[worker->turn[i]], worker->order);
        worker->block[worker->turn[i]] = native_block(worker->order);
    }
}

static void set_up_none(struct native_worker *worker)
{
    (void)worker;
}

static uint64_t repeat(struct native_worker *worker, uint64_t pairs)
{
    for (uint64_t i = 0; i < pairs; i++) {
        native.frame_free(native_block(worker->order), worker->order);
    }
    return pairs;
}

static void take_all(struct native_worker *worker)
{
    for (uint64_t i = 0; i < worker->count; i++) {
        worker->block[i] = native_block(worker->order);
    }
}

/* The last one is freed first. */
static uint64_t bulk(struct native_worker *worker, uint64_t pairs)
{
    uint64_t made = 0;

    for (; made < pairs; made += worker->count) {
        take_all(worker);
        for (uint64_t i = worker->count; i-- > 0;) {
            native.frame_free(worker->block[i], worker->order);
        }
    }
    return made;
}

/* The first one is freed first. */
static uint64_t fifo(struct native_worker *worker, uint64_t pairs)
{
    uint64_t made = 0;

    for (; made < pairs; made += worker->count) {
        take_all(worker);
        for (uint64_t i = 0; i < worker->count; i++) {
            native.frame_free(worker->block[i], worker->order);
        }
    }
    return made;
}

static uint64_t random_free(struct native_worker *worker, uint64_t pairs)
{
    uint64_t made = 0;

    for (; made < pairs; made += worker->count) {
        take_all(worker);
        for (uint64_t i = 0; i < worker->count; i++) {
            native.frame_free(worker->block[worker->turn[i]], worker->order);
        }
    }
    return made;
}

/* A random one of those held gives way to a new one. */
static uint64_t churn(struct native_worker *worker, uint64_t pairs)
{
    for (uint64_t i = 0; i < pairs; i++) {
        uint64_t random = native_random(worker);
        uintptr_t *slot = &worker->block[native_below(random, worker->count)];
        native.frame_free(*slot, worker->order);
        *slot = native_block(worker->order);
    }
    return pairs;
}

/* .count is the share of the threads here: see set_up_half(). */
#define ROW(title, set_up, what, number, size)                                 \
    {                                                                          \
        title, "frames", &(const struct native_work){set_up, what, number,     \
                                                     size,   0,    number},    \
            NULL                                                               \
    }

const struct native_row native_frame_rows[] = {
    ROW("order 0 repeat", set_up_none, repeat, 1, SMALL),
    ROW("order 0 bulk", set_up_half, bulk, 1, SMALL),
    ROW("order 0 fifo", set_up_half, fifo, 1, SMALL),
    ROW("order 0 random free", set_up_half, random_free, 1, SMALL),
    ROW("order 0 churn", set_up_churn, churn, 1, SMALL),
    ROW("order 9 repeat", set_up_none, repeat, 1, LARGE),
    ROW("order 9 bulk", set_up_half, bulk, 1, LARGE),
    ROW("order 9 random free", set_up_half, random_free, 1, LARGE),
    ROW("order 9 churn", set_up_churn, churn, 1, LARGE),
    ROW("2 threads, 0 repeat", set_up_none, repeat, 2, SMALL),
    ROW("2 threads, 0 churn", set_up_churn, churn, 2, SMALL),
    ROW("2 threads, 9 repeat", set_up_none, repeat, 2, LARGE),
    ROW("2 threads, 9 bulk", set_up_half, bulk, 2, LARGE),
    ROW("2 threads, 9 random", set_up_half, random_free, 2, LARGE),
    {"metadata", "frames", NULL, native_metadata},
    {"start-up", "frames", NULL, native_start_up},
    {"sparse", "frames", NULL, native_sparse},
    {NULL, NULL, NULL, NULL},
};
