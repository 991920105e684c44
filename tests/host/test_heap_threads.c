/* SPDX-License-Identifier: MIT */
/* Tests of the heap: several processors at once, and memory that runs out. */
/*
 * At risk: two processors that get the same object, one that is lost between
 * them, a magazine that another one touches, a shrinker called after it has
 * left, two that are short and wait for each other. Provoked by threads, each
 * of which plays a processor: what one allocates another one checks and frees,
 * through boxes that hold a block each; and by so little RAM that they have to
 * drain each other.
 */
#include <mm/kmalloc.h>

#include <pthread.h>
#include <stdio.h>

#include <mm/frame.h>
#include <mm/port.h>
#include <mm/shrink.h>
#include <mm/slab.h>
#include "base/memory.h"
#include "tests/host/sim.h"
#include "tests/host/yield.h"
#include "tests/shared/figures.h"

#define THREADS      4
#define STEPS        20000
#define BOXES        512 /* of each processor, from all others */
#define YIELD_CHANCE 8   /* of swaps */

#define ROOMY_RAM   (64 * MiB)
#define CROWDED_RAM (6 * MiB)

#define OBJECT_BYTES 120

/* What stands at the start of every block. */
struct parcel {
    uint64_t bytes;
    struct slab_cache *cache; /* NULL: kmalloc's */
    uint64_t sign;            /* also the last word */
};

struct worker {
    pthread_t thread;
    unsigned cpu;
    struct test_random random;
    uint64_t errors;
    uint64_t failures;
    uint64_t sent;
    struct shrinker shrinker;
    _Atomic uint64_t scans;
    _Atomic(struct parcel *) box[BOXES];
};

static struct worker workers[THREADS];
static struct slab_cache *shared;
static _Atomic unsigned unfinished;

static uint64_t below(struct worker *worker, uint64_t limit)
{
    return test_random_below(&worker->random, limit);
}

static void relax(void)
{
    sim_poll();
    sim_yield();
}

static const struct sim_driver driver = {.relax = relax};
static const struct frame_reclaim hooks = {.reclaim = shrink_reclaim};

/* --- parcels -------------------------------------------------------------- */

static uint64_t *last_word(struct parcel *parcel)
{
    return (uint64_t *)parcel + parcel->bytes / sizeof(uint64_t) - 1;
}

static struct parcel *pack(struct worker *worker)
{
    static const uint64_t limit[] = {200, 200, 2000, 8000, 30000};
    bool is_object = below(worker, 2) == 0;
    uint64_t bytes = is_object ? OBJECT_BYTES
                               : sizeof(struct parcel) + 8 +
                                     below(worker, limit[below(worker, 5)]);
    struct parcel *parcel = is_object ? slab_alloc(shared) : kmalloc(bytes);

    if (parcel == NULL) {
        worker->failures++;
        return NULL;
    }
    parcel->bytes = bytes;
    parcel->cache = is_object ? shared : NULL;
    parcel->sign = test_random_next(&worker->random);
    *last_word(parcel) = parcel->sign;
    return parcel;
}

static void unpack(struct worker *worker, struct parcel *parcel)
{
    worker->errors += *last_word(parcel) == parcel->sign ? 0 : 1;
    if (parcel->cache != NULL) {
        slab_free(parcel->cache, parcel);
    } else {
        kfree(parcel);
    }
}

/* Into a box of @to; what was there is this processor's to free. */
static void send(struct worker *worker, struct worker *to)
{
    _Atomic(struct parcel *) *box = &to->box[below(worker, BOXES)];
    struct parcel *before = atomic_exchange(box, pack(worker));

    worker->sent++;
    if (before != NULL) {
        unpack(worker, before);
    }
}

static void empty(struct worker *worker, struct worker *of, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct parcel *parcel = atomic_exchange(&of->box[i], NULL);
        if (parcel != NULL) {
            unpack(worker, parcel);
        }
    }
}

/* --- what a processor does ------------------------------------------------ */

static uint64_t count_scans(void *context)
{
    return atomic_load(&((struct worker *)context)->scans);
}

/* It allocates, and gives nothing. */
static uint64_t scan(void *context, uint64_t frames)
{
    struct worker *worker = context;

    (void)frames;
    atomic_fetch_add(&worker->scans, 1);
    kfree(kmalloc(PAGE_BYTES));
    return 0;
}

/* Comes and goes while others may be calling it. */
static void come_and_go(struct worker *worker)
{
    worker->shrinker = (struct shrinker){.name = "worker",
                                         .priority = SHRINK_DEAR,
                                         .count = count_scans,
                                         .scan = scan,
                                         .context = worker};
    shrink_register(&worker->shrinker);
    if (below(worker, 4) == 0) {
        (void)shrink_reclaim(1 + below(worker, 64));
    } else {
        send(worker, &workers[below(worker, THREADS)]);
    }
    shrink_unregister(&worker->shrinker);
}

/* Longer or shorter, with what stood in it. */
static void resize(struct worker *worker)
{
    struct parcel *parcel = atomic_exchange(&worker->box[0], NULL);

    if (parcel != NULL && parcel->cache == NULL) {
        uint64_t bytes = sizeof(*parcel) + 8 + below(worker, 9000);
        worker->errors += *last_word(parcel) == parcel->sign ? 0 : 1;
        struct parcel *moved = krealloc(parcel, bytes);
        if (moved != NULL) {
            parcel = moved;
            parcel->bytes = bytes;
            *last_word(parcel) = parcel->sign;
        }
    }
    if (parcel != NULL) {
        unpack(worker, parcel);
    }
}

/* A cache of its own, while others drain all that there are. */
static void build_and_raze(struct worker *worker)
{
    void *object[64];
    struct slab_cache *own =
        slab_create("own", 16 + below(worker, 600), 0, NULL);
    unsigned count = 1 + (unsigned)below(worker, 64);

    if (own == NULL) {
        worker->failures++;
        return;
    }
    while (below(worker, 4) != 0) {
        if (slab_alloc_bulk(own, count, object)) {
            slab_free_bulk(own, object, count);
        } else {
            worker->failures++;
        }
    }
    worker->errors += slab_destroy(own) == MM_OK ? 0 : 1;
}

static void do_something(struct worker *worker)
{
    switch (below(worker, 512)) {
    case 0:
        slab_drain();
        break;
    case 1:
    case 2:
        come_and_go(worker);
        break;
    case 3:
        empty(worker, worker, BOXES);
        break;
    case 4:
    case 5:
    case 6:
        resize(worker);
        break;
    case 7:
    case 8:
        build_and_raze(worker);
        break;
    default:
        send(worker, &workers[below(worker, THREADS)]);
        break;
    }
}

static void *work(void *context)
{
    struct worker *worker = context;

    sim_set_cpu(worker->cpu);
    yield_before_swaps(YIELD_CHANCE, test_seed() + worker->cpu);
    for (unsigned step = 0; step < STEPS; step++) {
        do_something(worker);
    }
    atomic_fetch_sub(&unfinished, 1);
    while (atomic_load(&unfinished) > 0) {
        sim_poll();
        sim_yield();
    }
    return NULL;
}

/* Two that produce and two that consume, always the same: one-way traffic. */
static void *work_one_way(void *context)
{
    struct worker *worker = context;

    sim_set_cpu(worker->cpu);
    yield_before_swaps(YIELD_CHANCE, test_seed() + worker->cpu);
    for (unsigned step = 0; step < STEPS; step++) {
        if (worker->cpu % 2 == 0) {
            send(worker, &workers[worker->cpu + 1]);
        } else {
            empty(worker, worker, BOXES / 64);
        }
    }
    atomic_fetch_sub(&unfinished, 1);
    while (atomic_load(&unfinished) > 0) {
        sim_poll();
        sim_yield();
    }
    return NULL;
}

/* --- machines ------------------------------------------------------------- */

static void run(uint64_t ram, void *(*program)(void *context),
                uint64_t *out_failures)
{
    sim_boot_frames_on(ram, THREADS);
    CHECK(slab_init() == MM_OK && kmalloc_init() == MM_OK);
    uint64_t frames = heap_frames();
    sim_set_driver(&driver);
    frame_set_reclaim(&hooks);
    shared = slab_create("shared", OBJECT_BYTES, 0, NULL);
    CHECK(shared != NULL);
    memset(workers, 0, sizeof(workers));
    atomic_store(&unfinished, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].cpu = i;
        test_random_init(&workers[i].random, test_seed() * THREADS + i);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&workers[i].thread, NULL, program, &workers[i]) ==
              0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    uint64_t errors = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        empty(&workers[0], &workers[i], BOXES);
        errors += i > 0 ? workers[i].errors : 0;
        *out_failures += workers[i].failures;
    }
    CHECK_EQUAL(errors + workers[0].errors, 0);
    CHECK_HELPER(check_heap());
    CHECK_EQUAL(slab_destroy(shared), MM_OK);
    for (unsigned i = THREADS; i-- > 0;) {
        sim_set_cpu(i);
        slab_drain();
    }
    CHECK_EQUAL(heap_frames(), frames);
    CHECK(frame_check());
}

TEST(heap, threads_free_what_others_allocate)
{
    uint64_t failures = 0;

    CHECK_HELPER(run(ROOMY_RAM, work, &failures));
    CHECK_EQUAL(failures, 0);
}

TEST(heap, threads_produce_and_consume)
{
    uint64_t failures = 0;

    CHECK_HELPER(run(ROOMY_RAM, work_one_way, &failures));
    CHECK_EQUAL(failures, 0);
}

TEST(heap, threads_that_are_short_drain_each_other)
{
    uint64_t failures = 0;

    CHECK_HELPER(run(CROWDED_RAM, work, &failures));
    CHECK(failures > 0);
    printf("# %llu reclaims, %llu found nothing\n",
           (unsigned long long)figures().reclaims,
           (unsigned long long)failures);
}
