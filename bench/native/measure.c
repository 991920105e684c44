/* SPDX-License-Identifier: MIT */
/* measure: chunks of work, and the median one. */
/*
 * Idea   15 chunks of about 10 ms, fewer where a single batch takes much
 *        longer, after a warm-up that also finds out how many pairs that is.
 *        One thread is measured by the time the processor spent on it, so that
 *        other processes on the machine count little; two by the clock, from
 *        the moment both begin until the later one ends.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench/native/native.h"

#define CHUNKS       15
#define CHUNK_NS     UINT64_C(10000000)
#define LIMIT_NS     UINT64_C(200000000) /* then no more, if there are some */
#define LEAST_CHUNKS 3
#define WARMUP_NS    UINT64_C(40000000)

static struct native_worker workers[NATIVE_THREADS];
static const struct native_work *work;
static uint64_t chunk_pairs;     /* 0: that was all */
static _Atomic unsigned arrived; /* threads at the barrier */
static _Atomic unsigned turns;   /* times it has opened */

void native_about(void)
{
    printf("median of %u chunks of %u ms after a warm-up of %u ms; ", CHUNKS,
           (unsigned)(CHUNK_NS / 1000000), (unsigned)(WARMUP_NS / 1000000));
    printf("seed 0x%" PRIx64 "\n", NATIVE_SEED);
}

_Noreturn void native_fail(const char *why)
{
    fprintf(stderr, "native: %s\n", why);
    exit(1);
}

void *native_own(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        native_fail("no memory for the workload's own tables");
    }
    memset(memory, 0, bytes);
    return memory;
}

void native_shuffle(struct native_worker *worker)
{
    worker->turn = native_own(worker->count * sizeof(worker->turn[0]));
    for (uint32_t i = 0; i < worker->count; i++) {
        uint64_t other = native_below(native_random(worker), i + 1);
        worker->turn[i] = worker->turn[other];
        worker->turn[other] = i;
    }
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(
        work->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Wait until all threads of the work are here. */
static void meet(void)
{
    unsigned turn = atomic_load_explicit(&turns, memory_order_relaxed);

    /* Each with the other: what a thread wrote before, all see afterwards. */
    if (atomic_fetch_add_explicit(&arrived, 1, memory_order_acq_rel) + 1 ==
        work->threads) {
        atomic_store_explicit(&arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&turns, turn + 1, memory_order_release);
        return;
    }
    while (atomic_load_explicit(&turns, memory_order_acquire) == turn) {
    }
}

static void prepare(struct native_worker *worker, unsigned thread)
{
    worker->thread = thread;
    worker->random = NATIVE_SEED + thread;
    worker->count = work->count;
    worker->bytes = work->bytes;
    worker->order = work->order;
    if (work->threads > 1) {
        cpu_set_t processor;
        CPU_ZERO(&processor);
        CPU_SET(thread, &processor);
        if (sched_setaffinity(0, sizeof(processor), &processor) != 0) {
            native_fail("two threads need two processors");
        }
    }
    native.enter(thread);
    work->set_up(worker);
}

static uint64_t run_chunk(struct native_worker *worker)
{
    uint64_t begin = now_ns();
    uint64_t made = work->run(worker, chunk_pairs);

    worker->result = (now_ns() - begin) * 1000 / made;
    return made;
}

static void *second_thread(void *argument)
{
    struct native_worker *worker = argument;

    prepare(worker, 1);
    for (;;) {
        meet();
        if (chunk_pairs == 0) {
            break;
        }
        run_chunk(worker);
        meet();
    }
    /* It stays: the allocator may have to ask it for what it keeps. */
    while (pause() != 0) {
    }
    return NULL;
}

/* All threads make @pairs; picoseconds a pair took the slowest of them. */
static uint64_t all_run(uint64_t pairs, uint64_t *out_made)
{
    chunk_pairs = pairs;
    if (work->threads > 1) {
        meet();
    }
    *out_made = run_chunk(&workers[0]);
    if (work->threads > 1) {
        meet();
        return workers[0].result > workers[1].result ? workers[0].result
                                                     : workers[1].result;
    }
    return workers[0].result;
}

/* Run for WARMUP_NS; how many pairs CHUNK_NS have. */
static uint64_t warm_up(void)
{
    uint64_t pairs = 100;
    uint64_t spent_ns = 0;
    uint64_t pair_ps = 1;

    while (spent_ns < WARMUP_NS) {
        uint64_t made;
        pair_ps = all_run(pairs, &made);
        pair_ps = pair_ps == 0 ? 1 : pair_ps;
        spent_ns += pair_ps * made / 1000;
        if (pair_ps * made / 1000 < CHUNK_NS) {
            pairs *= 2;
        }
    }
    return CHUNK_NS * 1000 / pair_ps + 1;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

double native_measure(const struct native_work *what)
{
    uint64_t chunk_ps[CHUNKS];
    pthread_t thread;

    work = what;
    if (work->threads > 1 &&
        pthread_create(&thread, NULL, second_thread, &workers[1]) != 0) {
        native_fail("no second thread");
    }
    prepare(&workers[0], 0);
    uint64_t pairs = warm_up();
    unsigned chunks = 0;
    uint64_t spent_ns = 0;
    while (chunks < LEAST_CHUNKS || (chunks < CHUNKS && spent_ns < LIMIT_NS)) {
        uint64_t made;
        chunk_ps[chunks] = all_run(pairs, &made);
        spent_ns += chunk_ps[chunks++] * made / 1000;
    }
    if (work->threads > 1) {
        chunk_pairs = 0;
        meet();
    }
    qsort(chunk_ps, chunks, sizeof(chunk_ps[0]), compare);
    return (double)chunk_ps[chunks / 2] / 1000;
}
