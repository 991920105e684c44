/* SPDX-License-Identifier: MIT */
/* Tests of the heap beside its guards: what they must not change. */
#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/shrink.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "heap/guard.h"
#include "heap/magazine.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"
#include "tests/shared/text.h"

/*
 * At risk: guarded objects lie in no slab, so what is computed from slabs can
 * be wrong by them; and each way to ask for an object, or about one, has to
 * know of them. Provoked by an interval of one.
 */

#define RAM_BYTES (64 * MiB)
#define OBJECTS   100

static void *object[OBJECTS];

static uint64_t guarded(void)
{
    struct guard_stats stats;

    guard_stats(&stats);
    return stats.live;
}

static void alloc_all(struct slab_cache *cache)
{
    for (unsigned i = 0; i < OBJECTS; i++) {
        object[i] = slab_alloc(cache);
        CHECK(object[i] != NULL);
    }
}

static void free_all(struct slab_cache *cache)
{
    for (unsigned i = 0; i < OBJECTS; i++) {
        slab_free(cache, object[i]);
    }
}

/* More than there are objects in slabs: not so many that it wraps. */
TEST(slab, guarded_objects_are_no_idle_frames)
{
    struct shrink_info info;

    sim_boot(RAM_BYTES);
    struct slab_cache *cache = slab_create("guarded", 64, 0, NULL);
    CHECK(cache != NULL);
    CHECK_EQUAL(guard_enable(1), MM_OK);
    CHECK_HELPER(alloc_all(cache));
    CHECK(guarded() > 0);
    for (unsigned i = 0; i < OBJECTS; i++) {
        if (!guard_holds(object[i])) {
            slab_free(cache, object[i]);
            object[i] = NULL;
        }
    }
    slab_drain();
    CHECK(shrink_look(0, &info));
    CHECK(info.count < RAM_BYTES / PAGE_BYTES);
    CHECK_HELPER(free_all(cache));
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
}

/* --- looked at from inside a refill --------------------------------------- */

static struct slab_cache *looked_at;
static struct slab_stats seen;

static uint64_t look(void *context)
{
    (void)context;
    slab_stats(looked_at, &seen);
    return 0;
}

static uint64_t look_and_free(void *context, uint64_t frames)
{
    (void)frames;
    return look(context);
}

/* The magazine that is filled, with all that it has counted, is not seen. */
TEST(slab, frees_do_not_wrap_while_a_magazine_is_filled)
{
    static const struct frame_reclaim hooks = {.reclaim = shrink_reclaim};
    static struct shrinker watcher = {.name = "watcher",
                                      .priority = SHRINK_DEAR,
                                      .count = look,
                                      .scan = look_and_free};

    sim_boot_heap(4 * MiB);
    frame_set_reclaim(&hooks);
    shrink_register(&watcher);
    looked_at = slab_create("looked at", 4 * KiB, 0, NULL);
    CHECK(looked_at != NULL);
    while (slab_alloc(looked_at) != NULL) {
    }
    CHECK(seen.live > 0);
    CHECK(seen.frees <= seen.allocs);
}

/* Whoever lives, in a slab or guarded: all are counted, one is named. */
TEST(slab, a_cache_with_guarded_objects_stays)
{
    struct guard_object found;
    char text[32];

    sim_boot(RAM_BYTES);
    struct slab_cache *cache = slab_create("stays", 64, 0, NULL);
    CHECK(cache != NULL);
    CHECK_EQUAL(guard_enable(2), MM_OK);
    CHECK_HELPER(alloc_all(cache));
    CHECK_EQUAL(slab_destroy(cache), MM_EBUSY);
    test_format(text, sizeof(text), "has %u live objects; one", OBJECTS);
    CHECK_BUG(text);
    void *last = NULL;
    for (unsigned i = 0; i < OBJECTS; i++) {
        if (last == NULL && guard_find((vaddr_t)object[i], &found)) {
            last = object[i];
        } else {
            slab_free(cache, object[i]);
        }
    }
    CHECK_EQUAL(slab_destroy(cache), MM_EBUSY);
    test_format(text, sizeof(text), "one is 0x%lx", (unsigned long)last);
    CHECK_BUG(text);
    slab_free(cache, last);
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
}

TEST(slab, who_notes_states_guards_too)
{
    slab_note_states();
    sim_boot(RAM_BYTES);
    struct slab_cache *cache = slab_create("noted", 64, 0, NULL);
    CHECK(cache != NULL);
    CHECK_EQUAL(guard_enable(1), MM_OK);
    CHECK_HELPER(alloc_all(cache));
    CHECK(guarded() > OBJECTS / 2);
    CHECK_HELPER(free_all(cache));
    CHECK_EQUAL(guard_enable(10), MM_OK);
    CHECK_HELPER(alloc_all(cache));
    CHECK(guarded() >= OBJECTS / 15 - 1 && guarded() <= OBJECTS / 5);
    CHECK_HELPER(free_all(cache));
    struct slab_stats stats;
    slab_stats(cache, &stats);
    CHECK_EQUAL(stats.allocs, 2 * OBJECTS);
    CHECK_EQUAL(stats.frees, 2 * OBJECTS);
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    pool_notes_states = false;
}

/* A guarded object of another cache is as little a block as any other. */
TEST(kmalloc, guarded_objects_of_caches_are_no_blocks)
{
    sim_boot(RAM_BYTES);
    struct slab_cache *cache = slab_create("own", 64, 0, NULL);
    CHECK(cache != NULL);
    CHECK_EQUAL(guard_enable(1), MM_OK);
    CHECK_HELPER(alloc_all(cache));
    for (unsigned i = 0; i < OBJECTS; i++) {
        CHECK_EQUAL(ksize(object[i]), 0);
        CHECK_BUG("wrong cache");
        CHECK(krealloc(object[i], 100) == NULL);
        CHECK_BUG("wrong cache");
    }
    CHECK_HELPER(free_all(cache));
    for (unsigned i = 0; i < OBJECTS; i++) {
        if (guard_holds(object[i])) {
            CHECK(krealloc(object[i], 100) == NULL);
            CHECK_BUG("double free at ");
        }
    }
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
}
