/* SPDX-License-Identifier: MIT */
/* Tests of frame in both worlds: blocks as callers see them. */
/*
 * At risk: two blocks in the same frames, frames that are not where or what
 * was asked for, a wrong free that is believed, frames that do not come back.
 * Provoked through the public interface on a machine of any size: every frame
 * is signed at both ends, and the figures are compared before and after.
 */
#include <mm/frame.h>

#include <mm/port.h>
#include "base/bits.h"
#include "tests/shared/access.h"
#include "tests/shared/figures.h"
#include "tests/shared/test.h"

#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))

static struct frame_stats before;

static void begin(void)
{
    access_boot();
    note_frames(&before);
}

static uint64_t *words_of(pfn_t pfn)
{
    return phys_to_virt(pfn_to_phys(pfn));
}

static void sign(pfn_t pfn, unsigned order, uint64_t value)
{
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        words_of(pfn_add(pfn, i))[0] = value + i;
        words_of(pfn_add(pfn, i))[PAGE_WORDS - 1] = value + i;
    }
}

static bool is_signed(pfn_t pfn, unsigned order, uint64_t value)
{
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        if (words_of(pfn_add(pfn, i))[0] != value + i ||
            words_of(pfn_add(pfn, i))[PAGE_WORDS - 1] != value + i) {
            return false;
        }
    }
    return true;
}

TEST(frame, figures_add_up)
{
    uint64_t managed = 0;
    uint64_t free = 0;
    uint64_t used = 0;

    CHECK_HELPER(begin());
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        CHECK(before.zone_free[zone] <= before.zone_managed[zone]);
        managed += before.zone_managed[zone];
        free += before.zone_free[zone];
    }
    for (unsigned type = 0; type < FRAME_TYPES; type++) {
        used += before.by_type[type];
    }
    CHECK_EQUAL(managed, before.managed);
    CHECK_EQUAL(free, before.free);
    CHECK_EQUAL(used + free + before.metadata, managed);
    CHECK(before.set_aside_bytes > 0);
}

TEST(frame, every_order_is_aligned_and_described)
{
    CHECK_HELPER(begin());
    for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
        pfn_t pfn = frame_alloc(order, FRAME_USER, FRAME_ANY);
        if (pfn_is_none(pfn)) {
            continue; /* a machine may be too small or too broken up */
        }
        const struct frame_record *record = record_of(pfn);
        CHECK(is_aligned(pfn.v, UINT64_C(1) << order));
        CHECK(record->type == FRAME_USER && record->order == order);
        CHECK_EQUAL(record->refs, 1);
        CHECK(record->entries == 0 && record->owner == 0);
        CHECK_EQUAL(frame_state(pfn), FRAME_STATE_ALLOCATED);
        frame_free(pfn, order);
        CHECK(frame_state(pfn) != FRAME_STATE_ALLOCATED);
    }
    CHECK_HELPER(compare_frames(&before));
}

TEST(frame, zeroed_means_zero)
{
    CHECK_HELPER(begin());
    for (unsigned round = 0; round < 20; round++) {
        unsigned order = round % 3;
        pfn_t pfn = frame_alloc(order, FRAME_USER, FRAME_ZEROED);
        CHECK(!pfn_is_none(pfn));
        for (uint64_t i = 0; i < PAGE_WORDS << order; i++) {
            CHECK_EQUAL(words_of(pfn)[i], 0);
        }
        /* The next one may be the same frame, dirty. */
        sign(pfn, order, UINT64_MAX);
        frame_free(pfn, order);
    }
    CHECK_HELPER(compare_frames(&before));
}

TEST(frame, low_wishes_are_low)
{
    CHECK_HELPER(begin());
    for (unsigned order = 0; order <= 3; order++) {
        pfn_t low = frame_alloc(order, FRAME_USER, FRAME_BELOW_4G);
        pfn_t lowest = frame_alloc(order, FRAME_USER, FRAME_BELOW_16M);
        if (!pfn_is_none(low)) {
            CHECK(pfn_to_phys(low).v + (PAGE_BYTES << order) <= 4 * GiB);
            frame_free(low, order);
        }
        if (!pfn_is_none(lowest)) {
            CHECK(pfn_to_phys(lowest).v + (PAGE_BYTES << order) <= 16 * MiB);
            frame_free(lowest, order);
        }
    }
    CHECK_HELPER(compare_frames(&before));
}

#define BLOCKS    150
#define MAX_ORDER 4
#define MIX_STEPS 1500

TEST(frame, blocks_do_not_meet)
{
    static pfn_t pfn[BLOCKS];
    static unsigned order[BLOCKS];
    struct test_random random;

    CHECK_HELPER(begin());
    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < BLOCKS; i++) {
        pfn[i] = PFN_NONE;
    }
    for (unsigned step = 0; step < MIX_STEPS + BLOCKS; step++) {
        unsigned i = (unsigned)test_random_below(&random, BLOCKS);
        if (step >= MIX_STEPS) {
            i = step - MIX_STEPS; /* the last round only frees */
        }
        if (!pfn_is_none(pfn[i])) {
            CHECK(is_signed(pfn[i], order[i], (uint64_t)i << 32));
            frame_free(pfn[i], order[i]);
            pfn[i] = PFN_NONE;
        } else if (step < MIX_STEPS) {
            order[i] = (unsigned)test_random_below(&random, MAX_ORDER + 1);
            pfn[i] = frame_alloc(order[i], FRAME_USER, FRAME_ANY);
            CHECK(!pfn_is_none(pfn[i]));
            sign(pfn[i], order[i], (uint64_t)i << 32);
        }
    }
    CHECK_HELPER(compare_frames(&before));
}

TEST(frame, wrong_frees_are_found_out)
{
    CHECK_HELPER(begin());
    pfn_t pfn = frame_alloc(2, FRAME_USER, FRAME_ANY);
    CHECK(!pfn_is_none(pfn));
    frame_free(pfn, 1);
    CHECK_BUG("is a user block of order 2 with 1 holders");
    frame_free(pfn_add(pfn, 1), 0);
    CHECK_BUG("is inside the user block");
    frame_ref(pfn);
    frame_free(pfn, 2);
    CHECK_BUG("with 2 holders");
    frame_unref(pfn);
    frame_free(pfn, 2);
    frame_free(pfn, 2);
    CHECK_BUG("is free already");
    pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    CHECK(!pfn_is_none(pfn));
    frame_free(pfn, 0);
    frame_free(pfn, 0);
    CHECK_BUG("is free already");
    frame_free(PFN_NONE, 0);
    CHECK_BUG("is not RAM");
    CHECK_HELPER(compare_frames(&before));
}

#define BULK 200

TEST(frame, bulks_are_single_frames)
{
    static pfn_t pfn[BULK];

    CHECK_HELPER(begin());
    CHECK_EQUAL(frame_alloc_bulk(pfn, BULK, FRAME_USER, FRAME_ANY), BULK);
    for (unsigned i = 0; i < BULK; i++) {
        CHECK(record_of(pfn[i])->type == FRAME_USER);
        sign(pfn[i], 0, (uint64_t)i << 32);
    }
    for (unsigned i = 0; i < BULK; i++) {
        CHECK(is_signed(pfn[i], 0, (uint64_t)i << 32));
    }
    frame_free_bulk(pfn, BULK);
    CHECK_HELPER(compare_frames(&before));
    frame_free_bulk(pfn, 1);
    CHECK_BUG("is free already");
    CHECK_HELPER(compare_frames(&before));
}

TEST(frame, runs_are_in_a_row)
{
    static const uint64_t lengths[] = {1, 3, 64, 100, 513, 1500, 2048};

    CHECK_HELPER(begin());
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        pfn_t first = frame_alloc_run(lengths[i], 16, FRAME_USER, FRAME_ANY);
        if (pfn_is_none(first)) {
            continue; /* a machine may be too small or too broken up */
        }
        CHECK(is_aligned(first.v, 16));
        for (uint64_t k = 0; k < lengths[i]; k++) {
            CHECK_EQUAL(frame_state(pfn_add(first, k)), FRAME_STATE_ALLOCATED);
            sign(pfn_add(first, k), 0, k << 32);
        }
        for (uint64_t k = 0; k < lengths[i]; k++) {
            CHECK(is_signed(pfn_add(first, k), 0, k << 32));
        }
        frame_free_run(first, lengths[i]);
        CHECK_HELPER(compare_frames(&before));
    }
}

TEST(frame, frames_cleared_ahead_are_zero)
{
    CHECK_HELPER(begin());
    for (unsigned i = 0; i < 100; i++) {
        pfn_t dirty = frame_alloc(0, FRAME_USER, FRAME_ANY);
        CHECK(!pfn_is_none(dirty));
        sign(dirty, 0, UINT64_MAX);
        frame_free(dirty, 0);
        (void)frame_zero_idle();
        pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ZEROED);
        CHECK(!pfn_is_none(pfn));
        for (uint64_t k = 0; k < PAGE_WORDS; k++) {
            CHECK_EQUAL(words_of(pfn)[k], 0);
        }
        frame_free(pfn, 0);
    }
    CHECK_HELPER(compare_frames(&before));
    struct frame_stats now;
    frame_stats(&now);
    CHECK_EQUAL(now.zeroed_hits + now.zeroed_misses,
                before.zeroed_hits + before.zeroed_misses + 100);
    CHECK(now.zeroed_hits > before.zeroed_hits);
}

TEST(frame, a_range_goes_out_of_use_and_comes_back)
{
    CHECK_HELPER(begin());
    pfn_t pfn = frame_alloc(3, FRAME_USER, FRAME_ANY);
    pfn_t busy = PFN_NONE;
    CHECK(!pfn_is_none(pfn));
    CHECK_EQUAL(frame_remove(pfn, pfn_add(pfn, 8), &busy), MM_EBUSY);
    CHECK_EQUAL(busy.v, pfn.v);
    frame_free(pfn, 3);
    CHECK_HELPER(compare_frames(&before));
    CHECK_EQUAL(frame_remove(pfn, pfn_add(pfn, 8), &busy), MM_OK);
    CHECK(frame_check());
    struct frame_stats now;
    frame_stats(&now);
    CHECK_EQUAL(now.managed, before.managed - 8);
    CHECK_EQUAL(frame_state(pfn), FRAME_STATE_OFFLINE);
    frame_free(pfn, 3);
    CHECK_BUG("was taken out of use");
    CHECK_EQUAL(frame_add(pfn, pfn_add(pfn, 8)), MM_OK);
    CHECK_HELPER(compare_frames(&before));
}

TEST(frame, holders_split_and_join)
{
    CHECK_HELPER(begin());
    pfn_t pfn = frame_alloc(3, FRAME_USER, FRAME_ANY);
    CHECK(!pfn_is_none(pfn));
    frame_ref(pfn);
    CHECK_EQUAL(frame_split(pfn, 3), MM_EBUSY);
    frame_unref(pfn);
    CHECK_EQUAL(frame_split(pfn, 3), MM_OK);
    for (unsigned i = 0; i < 8; i++) {
        CHECK_EQUAL(record_of(pfn_add(pfn, i))->refs, 1);
    }
    CHECK_EQUAL(frame_join(pfn, 3), MM_OK);
    CHECK_EQUAL(frame_split(pfn, 3), MM_OK);
    for (unsigned i = 0; i < 8; i++) {
        frame_unref(pfn_add(pfn, i));
    }
    CHECK_HELPER(compare_frames(&before));
}

#if MM_INJECT
TEST(frame, a_failure_leaves_nothing_behind)
{
    static const unsigned orders[] = {0, 9, 3, 0};
    pfn_t pfn[4];

    CHECK_HELPER(begin());
    for (uint64_t nth = 1; nth <= 8; nth++) {
        frame_inject(nth);
        for (unsigned i = 0; i < 4; i++) {
            pfn[i] = frame_alloc(orders[i], FRAME_USER, FRAME_ANY);
        }
        frame_inject(0);
        for (unsigned i = 0; i < 4; i++) {
            if (!pfn_is_none(pfn[i])) {
                frame_free(pfn[i], orders[i]);
            }
        }
        CHECK_HELPER(compare_frames(&before));
    }
}
#endif
