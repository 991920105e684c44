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

#include <stdatomic.h>
#include <stdio.h>

#include <mm/frame.h>
#include <mm/port.h>
#include <mm/shrink.h>
#include <mm/slab.h>
#include "base/memory.h"
#include "tests/host/players.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define STEPS 20000
#define BOXES 512 /* of each processor, from all others */

#define ROOMY_RAM   (64 * MiB)
#define CROWDED_RAM (6 * MiB)

#define OBJECT_BYTES 120

/* What stands at the start of every block. */
struct parcel {
    uint64_t bytes;
    struct slab_cache *cache; /* NULL: kmalloc's */
    uint64_t sign;            /* also the last word */
};

/* What one processor has. */
static struct share {
    uint64_t failures;
    struct shrinker shrinker;
    _Atomic uint64_t scans;
    _Atomic(struct parcel *) box[BOXES];
} share[PLAYERS];

static struct slab_cache *shared;

static struct share *mine(void)
{
    return &share[player_me()->cpu];
}

static struct share *some_share(void)
{
    return &share[player_below(PLAYERS)];
}

static const struct frame_reclaim hooks = {.reclaim = shrink_reclaim};

/* --- parcels -------------------------------------------------------------- */

static uint64_t *last_word(struct parcel *parcel)
{
    return (uint64_t *)parcel + parcel->bytes / sizeof(uint64_t) - 1;
}

static struct parcel *pack(void)
{
    static const unsigned limit[] = {200, 200, 2000, 8000, 30000};
    bool is_object = player_below(2) == 0;
    uint64_t bytes = is_object ? OBJECT_BYTES
                               : sizeof(struct parcel) + 8 +
                                     player_below(limit[player_below(5)]);
    struct parcel *parcel = is_object ? slab_alloc(shared) : kmalloc(bytes);

    if (parcel == NULL) {
        mine()->failures++;
        return NULL;
    }
    parcel->bytes = bytes;
    parcel->cache = is_object ? shared : NULL;
    parcel->sign = test_random_next(&player_me()->random);
    *last_word(parcel) = parcel->sign;
    return parcel;
}

static void unpack(struct parcel *parcel)
{
    player_expect(*last_word(parcel) == parcel->sign);
    if (parcel->cache != NULL) {
        slab_free(parcel->cache, parcel);
    } else {
        kfree(parcel);
    }
}

/* Into a box of @to; what was there is this processor's to free. */
static void send(struct share *to)
{
    _Atomic(struct parcel *) *box = &to->box[player_below(BOXES)];
    struct parcel *before = atomic_exchange(box, pack());

    if (before != NULL) {
        unpack(before);
    }
}

static void empty(struct share *of, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct parcel *parcel = atomic_exchange(&of->box[i], NULL);
        if (parcel != NULL) {
            unpack(parcel);
        }
    }
}

/* --- what a processor does ------------------------------------------------ */

static uint64_t count_scans(void *context)
{
    return atomic_load(&((struct share *)context)->scans);
}

/* It allocates, and gives nothing. */
static uint64_t scan(void *context, uint64_t frames)
{
    struct share *of = context;

    (void)frames;
    atomic_fetch_add(&of->scans, 1);
    kfree(kmalloc(PAGE_BYTES));
    return 0;
}

/* Comes and goes while others may be calling it. */
static void come_and_go(void)
{
    struct shrinker *shrinker = &mine()->shrinker;

    *shrinker = (struct shrinker){.name = "player",
                                  .priority = SHRINK_DEAR,
                                  .count = count_scans,
                                  .scan = scan,
                                  .context = mine()};
    shrink_register(shrinker);
    if (player_below(4) == 0) {
        (void)shrink_reclaim(1 + player_below(64));
    } else {
        send(some_share());
    }
    shrink_unregister(shrinker);
}

/* Longer or shorter, with what stood in it. */
static void resize(void)
{
    struct parcel *parcel = atomic_exchange(&mine()->box[0], NULL);

    if (parcel != NULL && parcel->cache == NULL) {
        uint64_t bytes = sizeof(*parcel) + 8 + player_below(9000);
        player_expect(*last_word(parcel) == parcel->sign);
        struct parcel *moved = krealloc(parcel, bytes);
        if (moved != NULL) {
            parcel = moved;
            parcel->bytes = bytes;
            *last_word(parcel) = parcel->sign;
        }
    }
    if (parcel != NULL) {
        unpack(parcel);
    }
}

/* A cache of its own, while others drain all that there are. */
static void build_and_raze(void)
{
    void *object[64];
    struct slab_cache *own =
        slab_create("own", 16 + player_below(600), 0, NULL);
    unsigned count = 1 + player_below(64);

    if (own == NULL) {
        mine()->failures++;
        return;
    }
    while (player_below(4) != 0) {
        if (slab_alloc_bulk(own, count, object)) {
            slab_free_bulk(own, object, count);
        } else {
            mine()->failures++;
        }
    }
    player_expect(slab_destroy(own) == MM_OK);
}

static void do_something(void)
{
    switch (player_below(512)) {
    case 0:
        slab_drain();
        break;
    case 1:
    case 2:
        come_and_go();
        break;
    case 3:
        empty(mine(), BOXES);
        break;
    case 4:
    case 5:
    case 6:
        resize();
        break;
    case 7:
    case 8:
        build_and_raze();
        break;
    default:
        send(some_share());
        break;
    }
}

static void work(void)
{
    for (unsigned step = 0; step < STEPS; step++) {
        do_something();
    }
}

/* Two that produce and two that consume, always the same: one-way traffic. */
static void work_one_way(void)
{
    for (unsigned step = 0; step < STEPS; step++) {
        if (player_me()->cpu % 2 == 0) {
            send(mine() + 1);
        } else {
            empty(mine(), BOXES / 64);
        }
    }
}

/* --- machines ------------------------------------------------------------- */

static void run(uint64_t ram, void (*program)(void), uint64_t *out_failures)
{
    sim_boot_frames_on(ram, PLAYERS);
    CHECK(slab_init() == MM_OK && kmalloc_init() == MM_OK);
    uint64_t frames = heap_frames();
    frame_set_reclaim(&hooks);
    shared = slab_create("shared", OBJECT_BYTES, 0, NULL);
    CHECK(shared != NULL);
    memset(share, 0, sizeof(share));
    CHECK_HELPER(players_run(PLAYERS, program));
    for (unsigned i = 0; i < PLAYERS; i++) {
        empty(&share[i], BOXES);
        *out_failures += share[i].failures;
    }
    CHECK_EQUAL(player_me()->errors, 0);
    CHECK_HELPER(check_heap());
    CHECK_EQUAL(slab_destroy(shared), MM_OK);
    for (unsigned i = PLAYERS; i-- > 0;) {
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
