/* SPDX-License-Identifier: MIT */
/* Tests of frame: several processors at once. */
/*
 * At risk: two processors that get the same frame, a count that is lost, a
 * record that is read before it was backed, frames that nobody finds when
 * memory is short. Provoked by threads, each of which plays a processor, signs
 * all it holds, and lets others go on before some of its swaps.
 */
#include <mm/frame.h>

#include <pthread.h>
#include <stdio.h>

#include <mm/port.h>
#include "base/memory.h"
#include "tests/host/held.h"
#include "tests/host/sim.h"
#include "tests/host/yield.h"
#include "tests/shared/figures.h"

#define THREADS      4
#define THREAD_HELD  64
#define THREAD_STEPS 4000
#define BULK         40 /* frames, in places of their own */
#define YIELD_CHANCE 8  /* of swaps; fewer and more find less */

/* Part of the memory that is in use all the time: then it runs out. */
#define CROWDED_RAM (24 * MiB)
#define ROOMY_RAM   (256 * MiB)

struct worker {
    pthread_t thread;
    unsigned cpu;
    struct test_random random;
    uint64_t errors;
    uint64_t failures; /* allocations that found nothing */
    struct held held[THREAD_HELD];
    pfn_t bulk[BULK];
    unsigned bulk_count;
    pfn_t run;
    uint64_t run_frames; /* 0: none */
};

static struct worker workers[THREADS];
static _Atomic unsigned unfinished;

static uint64_t below(struct worker *worker, uint64_t limit)
{
    return test_random_below(&worker->random, limit);
}

/* --- as a driver ---------------------------------------------------------- */

/* Who waits answers the others in the meantime. */
static void relax(void)
{
    sim_poll();
    sim_yield();
}

static const struct sim_driver driver = {.relax = relax};

/* --- what a processor does ------------------------------------------------ */

static bool is_zero(const struct held *block)
{
    const uint64_t *word = phys_to_virt(pfn_to_phys(block->pfn));

    for (uint64_t i = 0; i < (PAGE_BYTES << block->order) / sizeof(*word);
         i++) {
        if (word[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Mostly one frame, often a few, now and then 2 or 4 MiB. */
static unsigned any_order(struct worker *worker)
{
    switch (below(worker, 16)) {
    case 0:
        return (unsigned)below(worker, MM_MAX_ORDER + 1);
    case 1:
    case 2:
    case 3:
        return 1 + (unsigned)below(worker, 4);
    default:
        return 0;
    }
}

static unsigned any_flags(struct worker *worker)
{
    static const unsigned flags[] = {FRAME_ZEROED, FRAME_BELOW_4G,
                                     FRAME_BELOW_16M,
                                     FRAME_BELOW_16M | FRAME_ZEROED};

    return below(worker, 4) == 0 ? flags[below(worker, 4)] : FRAME_ANY;
}

static void take(struct worker *worker, struct held *block)
{
    unsigned flags = any_flags(worker);

    block->order = any_order(worker);
    block->pfn = frame_alloc(block->order, FRAME_USER, flags);
    if (pfn_is_none(block->pfn)) {
        worker->failures++;
        return;
    }
    if (flags & FRAME_ZEROED) {
        worker->errors += is_zero(block) ? 0 : 1;
    }
    block->sign = (uint64_t)(worker->cpu + 1) << 56 | below(worker, 1u << 24)
                                                          << 32;
    sign_block(block);
}

/* Give it back whole, as single frames, or after a second holder has left. */
static void give(struct worker *worker, struct held *block)
{
    pfn_t pfn = block->pfn;

    worker->errors += is_signed(block) ? 0 : 1;
    block->pfn = PFN_NONE;
    switch (below(worker, 6)) {
    case 0:
        if (frame_split(pfn, block->order) != MM_OK) {
            worker->errors++;
            return;
        }
        for (uint64_t i = 0; i < UINT64_C(1) << block->order; i++) {
            frame_free(pfn_add(pfn, i), 0);
        }
        break;
    case 1:
        frame_ref(pfn);
        frame_unref(pfn);
        frame_unref(pfn);
        break;
    case 2:
        worker->errors += frame_split(pfn, block->order) == MM_OK ? 0 : 1;
        worker->errors += frame_join(pfn, block->order) == MM_OK ? 0 : 1;
        frame_free(pfn, block->order);
        break;
    default:
        frame_free(pfn, block->order);
        break;
    }
}

static void take_or_give(struct worker *worker)
{
    struct held *block = &worker->held[below(worker, THREAD_HELD)];

    if (pfn_is_none(block->pfn)) {
        take(worker, block);
    } else {
        give(worker, block);
    }
}

static void sign_frames(struct worker *worker, pfn_t first, uint64_t frames)
{
    for (uint64_t i = 0; i < frames; i++) {
        struct held frame = {pfn_add(first, i), 0, (uint64_t)worker->cpu + 1};
        sign_block(&frame);
    }
}

static void check_frames(struct worker *worker, pfn_t first, uint64_t frames)
{
    for (uint64_t i = 0; i < frames; i++) {
        struct held frame = {pfn_add(first, i), 0, (uint64_t)worker->cpu + 1};
        worker->errors += is_signed(&frame) ? 0 : 1;
    }
}

static void take_or_give_bulk(struct worker *worker)
{
    for (unsigned i = 0; i < worker->bulk_count; i++) {
        check_frames(worker, worker->bulk[i], 1);
    }
    if (worker->bulk_count > 0) {
        frame_free_bulk(worker->bulk, worker->bulk_count);
        worker->bulk_count = 0;
        return;
    }
    unsigned wanted = 1 + (unsigned)below(worker, BULK);
    worker->bulk_count =
        frame_alloc_bulk(worker->bulk, wanted, FRAME_KERNEL, FRAME_ANY);
    worker->failures += worker->bulk_count < wanted ? 1 : 0;
    for (unsigned i = 0; i < worker->bulk_count; i++) {
        sign_frames(worker, worker->bulk[i], 1);
    }
}

static void take_or_give_run(struct worker *worker)
{
    if (worker->run_frames > 0) {
        check_frames(worker, worker->run, worker->run_frames);
        frame_free_run(worker->run, worker->run_frames);
        worker->run_frames = 0;
        return;
    }
    worker->run_frames = 1 + below(worker, 700);
    worker->run =
        frame_alloc_run(worker->run_frames, UINT64_C(1) << below(worker, 8),
                        FRAME_KERNEL, FRAME_ANY);
    if (pfn_is_none(worker->run)) {
        worker->failures++;
        worker->run_frames = 0;
        return;
    }
    sign_frames(worker, worker->run, worker->run_frames);
}

static void do_something(struct worker *worker)
{
    switch (below(worker, 40)) {
    case 0:
        take_or_give_run(worker);
        break;
    case 1:
    case 2:
        take_or_give_bulk(worker);
        break;
    case 3:
        frame_drain();
        break;
    case 4:
    case 5:
        (void)frame_zero_idle();
        break;
    default:
        take_or_give(worker);
        break;
    }
}

static void give_all(struct worker *worker)
{
    for (unsigned i = 0; i < THREAD_HELD; i++) {
        if (!pfn_is_none(worker->held[i].pfn)) {
            give(worker, &worker->held[i]);
        }
    }
    if (worker->bulk_count > 0) {
        take_or_give_bulk(worker);
    }
    if (worker->run_frames > 0) {
        take_or_give_run(worker);
    }
}

/* What it keeps remains; as long as others want it, it answers them. */
static void *work(void *context)
{
    struct worker *worker = context;

    sim_set_cpu(worker->cpu);
    yield_before_swaps(YIELD_CHANCE, test_seed() + worker->cpu);
    for (unsigned step = 0; step < THREAD_STEPS; step++) {
        do_something(worker);
    }
    give_all(worker);
    atomic_fetch_sub(&unfinished, 1);
    while (atomic_load(&unfinished) > 0) {
        sim_poll();
        sim_yield();
    }
    return NULL;
}

/* --- machines ------------------------------------------------------------- */

#define RECORD_PAGES (ROOMY_RAM / PAGE_BYTES * 16 / PAGE_BYTES)

static MM_ALIGNED(4096) char record_page[RECORD_PAGES][PAGE_BYTES];
static _Atomic bool is_backed[RECORD_PAGES];

/* Like that of a kernel: one frame for each page, by whoever comes first. */
static enum mm_status back_at_once(vaddr_t start, vaddr_t end)
{
    for (vaddr_t at = start; at < end; at += PAGE_BYTES) {
        uint64_t page = (at - (vaddr_t)record_page) / PAGE_BYTES;
        if (!atomic_load(&is_backed[page])) {
            if (pfn_is_none(frame_alloc_metadata())) {
                return MM_ENOMEM;
            }
            atomic_store(&is_backed[page], true);
        }
    }
    return MM_OK;
}

static void boot(uint64_t ram_bytes, unsigned cpus)
{
    paddr_t storage;

    sim_boot_map(ram_bytes);
    sim_set_cpu_count(cpus);
    sim_set_driver(&driver);
    memset(record_page, 0, sizeof(record_page));
    memset(is_backed, 0, sizeof(is_backed));
    record_init(record_page, back_at_once);
    CHECK_EQUAL(memmap_carve(sim_map(), frame_metadata_bytes(sim_map()),
                             PAGE_BYTES, ram_bytes, "frames", &storage),
                MM_OK);
    frame_init(sim_map(), phys_to_virt(storage));
}

static void start(unsigned cpus, void *(*program)(void *context))
{
    atomic_store(&unfinished, cpus);
    memset(workers, 0, sizeof(workers));
    for (unsigned i = 0; i < cpus; i++) {
        struct worker *worker = &workers[i];
        worker->cpu = i;
        test_random_init(&worker->random, test_seed() * THREADS + i);
        for (unsigned k = 0; k < THREAD_HELD; k++) {
            worker->held[k].pfn = PFN_NONE;
        }
        CHECK(pthread_create(&worker->thread, NULL, program, worker) == 0);
    }
}

/* Nothing is in use; and all that is free can be had, frame by frame. */
static void check_all_is_there(unsigned cpus)
{
    struct frame_stats stats = figures();
    uint64_t had = 0;

    CHECK(frame_check());
    CHECK_EQUAL(stats.by_type[FRAME_USER], 0);
    CHECK_EQUAL(stats.by_type[FRAME_KERNEL], 0);
    CHECK_EQUAL(stats.free, stats.managed - stats.metadata);
    for (unsigned i = 0; i < cpus; i++) {
        sim_set_cpu(i);
        frame_drain();
    }
    sim_set_cpu(0);
    CHECK_EQUAL(figures().cached, 0);
    CHECK(frame_check());
    while (!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY))) {
        had++;
    }
    CHECK_EQUAL(had, figures().managed - figures().metadata);
    CHECK(frame_check());
}

static void join(unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    for (unsigned i = 0; i < cpus; i++) {
        CHECK_EQUAL(workers[i].errors, 0);
    }
}

static void work_at_once(uint64_t ram_bytes, unsigned cpus)
{
    uint64_t failures = 0;
    char text[100];

    CHECK_HELPER(boot(ram_bytes, cpus));
    CHECK_HELPER(start(cpus, work));
    CHECK_HELPER(join(cpus));
    sim_set_driver(NULL);
    for (unsigned i = 0; i < cpus; i++) {
        failures += workers[i].failures;
    }
    snprintf(text, sizeof(text),
             "# %u CPUs: %llu found nothing, %llu asked the others", cpus,
             (unsigned long long)failures,
             (unsigned long long)figures().drains);
    test_print(text);
    CHECK_HELPER(check_all_is_there(cpus));
}

TEST(frame, processors_allocate_at_once)
{
    for (unsigned cpus = 2; cpus <= THREADS; cpus++) {
        CHECK_HELPER(work_at_once(ROOMY_RAM, cpus));
    }
}

/* Most of the time somebody is short, and asks the others. */
TEST(frame, processors_fight_for_what_is_left)
{
    for (unsigned cpus = 2; cpus <= THREADS; cpus++) {
        CHECK_HELPER(work_at_once(CROWDED_RAM, cpus));
    }
}

/* --- holders -------------------------------------------------------------- */

/*
 * Blocks with a holder a thread. Each writes to its part of each block, then
 * leaves: what others wrote the last one sees, since it frees the block and
 * may clear it.
 */
#define SHARED_ROUNDS 1000
#define SHARED_ORDER  2

static _Atomic uint64_t shared[SHARED_ROUNDS]; /* frame number, or 0 */

/* The first thread allocates for all; others wait until it is there. */
static pfn_t shared_block(unsigned cpu, unsigned round)
{
    pfn_t pfn = PFN_NONE;

    if (cpu == 0) {
        pfn = frame_alloc(SHARED_ORDER, FRAME_USER, FRAME_ZEROED);
        for (unsigned i = 1; i < THREADS; i++) {
            frame_ref(pfn);
        }
        atomic_store_explicit(&shared[round], pfn.v, memory_order_release);
    }
    while (pfn_is_none(pfn) || pfn.v == 0) {
        pfn =
            pfn_of(atomic_load_explicit(&shared[round], memory_order_acquire));
        relax();
    }
    return pfn;
}

static void *share(void *context)
{
    struct worker *worker = context;

    sim_set_cpu(worker->cpu);
    yield_before_swaps(YIELD_CHANCE, test_seed() + worker->cpu);
    for (unsigned round = 0; round < SHARED_ROUNDS; round++) {
        pfn_t pfn = shared_block(worker->cpu, round);
        uint64_t *mine =
            (uint64_t *)phys_to_virt(pfn_to_phys(pfn)) + worker->cpu;
        /* Plain accesses: whoever clears the block comes after them. */
        worker->errors += *mine == 0 ? 0 : 1;
        *mine = round + 1;
        for (uint64_t i = below(worker, 3); i > 0; i--) {
            frame_ref(pfn);
            frame_unref(pfn);
        }
        frame_unref(pfn);
    }
    atomic_fetch_sub(&unfinished, 1);
    while (atomic_load(&unfinished) > 0) {
        relax();
    }
    return NULL;
}

TEST(frame, holders_leave_at_once)
{
    CHECK_HELPER(boot(ROOMY_RAM, THREADS));
    for (unsigned i = 0; i < SHARED_ROUNDS; i++) {
        atomic_store(&shared[i], 0);
    }
    CHECK_HELPER(start(THREADS, share));
    CHECK_HELPER(join(THREADS));
    sim_set_driver(NULL);
    CHECK_HELPER(check_all_is_there(THREADS));
}
