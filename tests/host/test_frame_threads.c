/* SPDX-License-Identifier: MIT */
/* Tests of frame: several processors at once. */
/*
 * At risk: two processors that get the same frame, a count that is lost, a
 * record that is read before it was backed. Provoked by threads, each of which
 * plays a processor and signs all it holds.
 */
#include <mm/frame.h>

#include <pthread.h>

#include <mm/port.h>
#include "base/memory.h"
#include "tests/host/held.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define THREADS      4
#define THREAD_HELD  64
#define THREAD_STEPS 6000

struct worker {
    pthread_t thread;
    unsigned cpu;
    uint64_t errors;
};

/*
 * Allocate and free at random; each frame's content says whose it is. Memory
 * is ordinary: under -fsanitize=thread, so is a missing acquire or release.
 */
static void *allocate_and_free(void *context)
{
    struct worker *worker = context;
    struct held mine[THREAD_HELD];
    struct test_random random;

    sim_set_cpu(worker->cpu);
    test_random_init(&random, test_seed() + worker->cpu);
    for (unsigned i = 0; i < THREAD_HELD; i++) {
        mine[i].pfn = PFN_NONE;
    }
    for (unsigned step = 0; step < THREAD_STEPS + THREAD_HELD; step++) {
        struct held *block = &mine[step % THREAD_HELD];
        if (!pfn_is_none(block->pfn)) {
            worker->errors += !is_signed(block);
            frame_free(block->pfn, block->order);
            block->pfn = PFN_NONE;
        }
        if (step >= THREAD_STEPS) {
            continue;
        }
        uint64_t wide = step % 16 == 0 ? MM_MAX_ORDER + 1 : 2;
        block->order = (unsigned)test_random_below(&random, wide);
        block->pfn = frame_alloc(block->order, FRAME_USER, FRAME_ANY);
        block->sign = (uint64_t)worker->cpu << 56 | (uint64_t)step << 32;
        if (!pfn_is_none(block->pfn)) {
            sign_block(block);
        }
    }
    return NULL;
}

#define THREAD_RAM   (256 * MiB)
#define RECORD_PAGES (THREAD_RAM / PAGE_BYTES * 16 / PAGE_BYTES)

static MM_ALIGNED(4096) char record_page[RECORD_PAGES][PAGE_BYTES];
static _Atomic bool is_backed[RECORD_PAGES];

/* Like that of a kernel: one frame for each page, by whoever comes first. */
static enum mm_status back_at_once(vaddr_t start, vaddr_t end)
{
    for (vaddr_t at = start; at < end; at += PAGE_BYTES) {
        uint64_t page = (at - (vaddr_t)record_page) / PAGE_BYTES;
        if (!atomic_exchange(&is_backed[page], true) &&
            pfn_is_none(frame_alloc_metadata())) {
            return MM_ENOMEM;
        }
    }
    return MM_OK;
}

TEST(frame, processors_allocate_at_once)
{
    struct worker worker[THREADS] = {0};
    paddr_t storage;

    sim_boot_map(THREAD_RAM);
    sim_set_cpu_count(THREADS);
    memset(record_page, 0, sizeof(record_page));
    memset(is_backed, 0, sizeof(is_backed));
    record_init(record_page, back_at_once);
    CHECK_EQUAL(memmap_carve(sim_map(), frame_metadata_bytes(sim_map()),
                             PAGE_BYTES, THREAD_RAM, "frames", &storage),
                MM_OK);
    frame_init(sim_map(), phys_to_virt(storage));
    for (unsigned i = 0; i < THREADS; i++) {
        worker[i].cpu = i;
        CHECK(pthread_create(&worker[i].thread, NULL, allocate_and_free,
                             &worker[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(worker[i].thread, NULL);
        CHECK_EQUAL(worker[i].errors, 0);
    }
    CHECK(frame_check());
    struct frame_stats stats = figures();
    CHECK_EQUAL(stats.by_type[FRAME_USER], 0);
    CHECK_EQUAL(stats.allocs, stats.frees);
    CHECK_EQUAL(stats.free, stats.managed - stats.metadata);
    for (unsigned i = 0; i < THREADS; i++) {
        sim_set_cpu(i);
        frame_drain();
    }
    sim_set_cpu(0);
    CHECK_EQUAL(figures().cached, 0);
    CHECK(frame_check());
}
