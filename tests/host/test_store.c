/* SPDX-License-Identifier: MIT */
/* Tests of store: what nobody needs goes back, what is needed stays. */
/*
 * At risk: a low-water mark that is always nothing, so that memory stays where
 * a load has left it; and one that is more than nothing while all is in use,
 * so that each round of a steady load asks the slabs. Neither loses an object.
 * Provoked by playing the CPU: a store as full as it may be, of which each
 * round takes and gives back so many magazines and no others.
 */
#include "heap/store.h"

#include <mm/slab.h>
#include "heap/magazine.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define RAM_BYTES (16 * MiB)

/* More than it takes until a store of HELD magazines is looked at. */
enum { OBJECT_BYTES = 64, HELD = 4, EXCHANGES = 200 };

/* As full as a CPU's that is about to be handed over. */
static struct magazine *make_full(struct slab_cache *cache)
{
    struct magazine *magazine = store_make(cache);

    if (magazine != NULL) {
        magazine->state +=
            pool_take(&cache->pool, magazine->object + 1, magazine->capacity);
    }
    return magazine;
}

/* A store of HELD full magazines; in @hand are as many empty ones. */
static struct slab_cache *make_store(struct magazine **hand)
{
    struct slab_cache *cache = slab_create("store", OBJECT_BYTES, 0, NULL);

    for (unsigned i = 0; cache != NULL && i < HELD; i++) {
        hand[i] = store_flush(cache, make_full(cache));
    }
    return cache;
}

/*
 * One round: @used magazines are taken and given back. What is not there comes
 * from the slabs, as with a CPU: *out_missed counts it.
 */
static void go_round(struct slab_cache *cache, struct magazine **hand,
                     unsigned used, unsigned *out_missed)
{
    for (unsigned i = 0; i < used; i++) {
        struct magazine *full = store_refill(cache, hand[i]);
        if (full == NULL) {
            ++*out_missed;
            store_scrap(cache, hand[i]);
            full = make_full(cache);
        }
        CHECK(full != NULL && magazine_count(full) > 0);
        hand[i] = full;
    }
    for (unsigned i = 0; i < used; i++) {
        hand[i] = store_flush(cache, hand[i]);
        CHECK(hand[i] != NULL && magazine_count(hand[i]) == 0);
    }
    CHECK(store_check(cache));
}

/*
 * Of HELD magazines each round uses @used: those and no others stay. (If more
 * than half are used, but not all, those are more than the store may hold once
 * the others have gone: it has to earn them again.)
 * @phase: exchanges before, so that the store is looked at elsewhere in a round
 */
static void use_some(unsigned used, unsigned phase)
{
    struct magazine *hand[HELD];
    unsigned missed = 0;

    sim_boot_heap(RAM_BYTES);
    struct slab_cache *cache = make_store(hand);
    CHECK(cache != NULL && cache->store.depth == HELD);
    uint32_t each = cache->store.count / HELD;
    for (unsigned i = 0; i < phase; i++) {
        struct magazine *empty = store_flush(cache, NULL);
        CHECK(empty != NULL);
        store_scrap(cache, empty);
    }
    /* Patience: what could be a swing is no rest. */
    for (unsigned i = 0; i < 2 * HELD; i += 2 * used) {
        CHECK_HELPER(go_round(cache, hand, used, &missed));
        CHECK_EQUAL(cache->store.depth, HELD);
    }
    for (unsigned i = 0; i < EXCHANGES; i += 2 * used) {
        CHECK_HELPER(go_round(cache, hand, used, &missed));
    }
    CHECK_EQUAL(missed, 0);
    CHECK_EQUAL(cache->store.depth, used);
    CHECK_EQUAL(cache->store.count, used * each);
    CHECK_EQUAL(cache->pool.out, used * each); /* the others: in slabs */
    for (unsigned i = 0; i < HELD; i++) {
        store_scrap(cache, hand[i]);
    }
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK_HELPER(check_heap());
}

static void use_in_all_phases(unsigned used)
{
    for (unsigned phase = 0; phase < 2 * used; phase++) {
        CHECK_HELPER(use_some(used, phase));
    }
}

TEST(store, what_nobody_needs_goes_back)
{
    CHECK_HELPER(use_in_all_phases(1));
    CHECK_HELPER(use_in_all_phases(HELD / 2));
}

TEST(store, what_is_in_use_stays)
{
    CHECK_HELPER(use_in_all_phases(HELD));
}

/* Of every size: a magazine that is as large as can be is large enough. */
TEST(store, empty_magazines_are_kept)
{
    for (uint64_t bytes = 16; bytes <= POOL_MAX_BYTES; bytes *= 2) {
        sim_boot_heap(RAM_BYTES);
        struct slab_cache *cache = slab_create("kept", bytes, 0, NULL);
        CHECK(cache != NULL);
        struct magazine *empty = store_flush(cache, make_full(cache));
        CHECK(empty != NULL);
        struct magazine *full = store_refill(cache, empty);
        CHECK(full != NULL);
        CHECK(cache->store.empty == empty);
        store_scrap(cache, full);
        CHECK_EQUAL(slab_destroy(cache), MM_OK);
    }
}
