/* SPDX-License-Identifier: MIT */
/* Tests of frame: many frames at once, and frames cleared ahead. */
/*
 * At risk: a frame handed out twice in one call, or lost when memory ends in
 * the middle of it; a wrong frame among good ones that is believed, or that
 * takes others along; "zeroed" frames that somebody has written. Provoked by
 * calls of every length around a chunk and a row, by memory that runs out, by
 * each kind of wrong frame at each place of a call, by RAM full of rubbish and
 * by stray writes.
 */
#include <mm/frame.h>

#include "base/bits.h"
#include "frame/frame_impl.h"
#include "tests/host/frame_scene.h"

static pfn_t frame[SMALL_FRAMES + 1];

/* @count different frames, each with the record of a single one. */
static void check_frames(unsigned count)
{
    static uint8_t seen[SMALL_FRAMES];

    memset(seen, 0, sizeof(seen));
    for (unsigned i = 0; i < count; i++) {
        CHECK(frame[i].v < SMALL_FRAMES);
        const struct frame_record *record = record_of(frame[i]);
        CHECK_EQUAL(seen[frame[i].v]++, 0);
        CHECK(record->type == FRAME_USER && record->order == 0);
        CHECK(record->refs == 1 && record->entries == 0 && record->owner == 0);
        CHECK_EQUAL(frame_state(frame[i]), FRAME_STATE_ALLOCATED);
    }
}

TEST(frame, bulks_of_every_length_come_and_go)
{
    static const unsigned counts[] = {1,  2,  15,  16,  17,  31,  63,
                                      64, 65, 127, 128, 129, 513, 2000};

    for (size_t i = 0; i < COUNT(counts); i++) {
        sim_boot_frames(SMALL_RAM);
        CHECK_EQUAL(frame_alloc_bulk(frame, counts[i], FRAME_USER, FRAME_ANY),
                    counts[i]);
        CHECK_HELPER(check_frames(counts[i]));
        CHECK_EQUAL(figures().by_type[FRAME_USER], counts[i]);
        CHECK_EQUAL(figures().allocs, counts[i]);
        CHECK(frame_check());
        frame_free_bulk(frame, counts[i]);
        for (unsigned k = 0; k < counts[i]; k++) {
            CHECK(frame_state(frame[k]) != FRAME_STATE_ALLOCATED);
        }
        CHECK_HELPER(check_all_free());
        frame_drain();
        CHECK_EQUAL(figures().cached, 0);
        CHECK_HELPER(check_all_free());
    }
}

TEST(frame, a_bulk_of_none_changes_nothing)
{
    sim_boot_frames(SMALL_RAM);
    struct frame_stats before = figures();
    frame[0] = pfn_of(7);
    CHECK_EQUAL(frame_alloc_bulk(frame, 0, FRAME_USER, FRAME_ANY), 0);
    frame_free_bulk(frame, 0);
    CHECK_EQUAL(frame[0].v, 7);
    struct frame_stats after = figures();
    CHECK(memcmp(&before, &after, sizeof(before)) == 0);
}

TEST(frame, a_bulk_takes_rows_and_gives_rows)
{
    sim_boot_frames(SMALL_RAM);
    CHECK_EQUAL(frame_alloc_bulk(frame, 512, FRAME_USER, FRAME_ANY), 512);
    /* The first block is broken up by the frames under its own records. */
    CHECK(figures().refills <= 10);
    frame_free_bulk(frame, 512);
    /* The array keeps less than it has room for, and so does the row. */
    CHECK(figures().cached < 128 + 64);
    CHECK_HELPER(check_all_free());
}

TEST(frame, a_bulk_ends_where_memory_does)
{
    sim_boot_frames(SMALL_RAM);
    uint64_t free = figures().free;
    for (unsigned i = 0; i <= SMALL_FRAMES; i++) {
        frame[i] = pfn_of(7);
    }
    unsigned count =
        frame_alloc_bulk(frame, SMALL_FRAMES, FRAME_USER, FRAME_ANY);
    CHECK_EQUAL(count + figures().metadata, free);
    CHECK_EQUAL(figures().free, 0);
    CHECK_EQUAL(figures().failures, 1);
    CHECK_HELPER(check_frames(count));
    /* What lies beyond is not written. */
    for (unsigned i = count; i <= SMALL_FRAMES; i++) {
        CHECK_EQUAL(frame[i].v, 7);
    }
    pfn_t none;
    CHECK_EQUAL(frame_alloc_bulk(&none, 1, FRAME_USER, FRAME_ANY), 0);
    frame_free_bulk(frame, count);
    CHECK_HELPER(check_all_free());
    CHECK_EQUAL(frame_alloc_bulk(frame, count, FRAME_USER, FRAME_ANY), count);
}

TEST(frame, a_bulk_of_low_frames_is_low)
{
    sim_boot_frames(SMALL_RAM);
    uint64_t low = figures().zone_free[ZONE_DMA];
    /* An array with high frames is no place to take them from. */
    pfn_t high = frame_alloc(0, FRAME_USER, FRAME_ANY);
    frame_free(high, 0);
    unsigned count =
        frame_alloc_bulk(frame, SMALL_FRAMES, FRAME_USER, FRAME_BELOW_16M);
    CHECK(count <= low && count + figures().metadata >= low);
    CHECK_HELPER(check_frames(count));
    for (unsigned i = 0; i < count; i++) {
        CHECK(frame[i].v < 16 * MiB / PAGE_BYTES);
    }
    CHECK_EQUAL(figures().zone_free[ZONE_DMA], 0);
    CHECK(frame_check());
    frame_free_bulk(frame, count);
    CHECK_HELPER(check_all_free());
}

/* --- packing -------------------------------------------------------------- */

#define PORTION 16 /* frames of a bulk */
#define ROUNDS  4000

/* Put a random one of @frame[0 .. count-1] last. */
static void draw_last(struct test_random *random, uint64_t count)
{
    uint64_t index = test_random_below(random, count);
    pfn_t drawn = frame[index];

    frame[index] = frame[count - 1];
    frame[count - 1] = drawn;
}

static uint64_t whole_blocks(void)
{
    uint64_t blocks = 0;

    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        uint64_t count[MM_MAX_ORDER + 1] = {0};
        frame_free_blocks((enum frame_zone)zone, count);
        blocks += count[BLOCK_ORDER] + 2 * count[BLOCK_ORDER + 1];
    }
    return blocks;
}

/* Half of RAM is in use, here and there, and comes and goes in bulks. */
TEST(frame, bulks_leave_sparse_blocks_to_become_whole)
{
    struct test_random random;

    sim_boot_frames(SMALL_RAM);
    test_random_init(&random, test_seed());
    uint64_t all = take_all(frame, 0, FRAME_ANY);
    uint64_t used = all;
    while (used > all / 2) {
        draw_last(&random, used);
        frame_free(frame[--used], 0);
    }
    frame_drain();
    CHECK_EQUAL(whole_blocks(), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned k = 0; k < PORTION; k++) {
            draw_last(&random, used--);
        }
        frame_free_bulk(frame + used, PORTION);
        CHECK_EQUAL(
            frame_alloc_bulk(frame + used, PORTION, FRAME_USER, FRAME_ANY),
            PORTION);
        used += PORTION;
    }
    frame_drain();
    /* Of those there could be. */
    CHECK(whole_blocks() > figures().free / BLOCK_FRAMES / 2);
    CHECK(frame_check());
}

/* --- wrong frames --------------------------------------------------------- */

#define BULK 40 /* more than two chunks */

static struct {
    pfn_t block; /* order 3 */
    pfn_t shared;
    pfn_t freed;
    pfn_t metadata;
    pfn_t reserved;
    pfn_t beyond;
    pfn_t none;
} wrong;

static void set_scene(void)
{
    sim_boot_frames(SMALL_RAM);
    wrong.block = frame_alloc(3, FRAME_SLAB, FRAME_ANY);
    wrong.shared = frame_alloc(0, FRAME_USER, FRAME_ANY);
    frame_ref(wrong.shared);
    wrong.freed = frame_alloc(2, FRAME_USER, FRAME_ANY);
    frame_free(wrong.freed, 2);
    wrong.metadata = frame_alloc_metadata();
    wrong.reserved = phys_to_pfn(virt_to_phys(sim_map()->range));
    wrong.beyond = pfn_of(SMALL_FRAMES);
    wrong.none = PFN_NONE;
    CHECK_EQUAL(frame_alloc_bulk(frame, BULK, FRAME_USER, FRAME_ANY), BULK);
}

static const struct {
    const pfn_t *pfn;
    uint64_t offset;
    const char *report;
} crimes[] = {
    {&wrong.block, 0, "is a slab block of order 3"},
    {&wrong.block, 5, "is inside the slab block"},
    {&wrong.shared, 0, "is a user block of order 0 with 2 holders"},
    {&wrong.freed, 0, "is free already"},
    {&wrong.metadata, 0, "holds the allocator's own data"},
    {&wrong.reserved, 0, "was never the allocator's"},
    {&wrong.beyond, 0, "is not RAM"},
    {&wrong.none, 0, "is not RAM"},
    {&frame[1], 0, "is free already"},
    {&frame[BULK - 2], 0, ", order 0, is free already"},
};

TEST(frame, a_wrong_frame_in_a_bulk_is_reported_and_the_others_go)
{
    static const unsigned places[] = {0, 7, 15, 16, 31, BULK - 1};

    for (size_t i = 0; i < COUNT(crimes) * COUNT(places); i++) {
        unsigned place = places[i % COUNT(places)];
        size_t crime = i / COUNT(places);

        CHECK_HELPER(set_scene());
        uint64_t used = figures().by_type[FRAME_USER];
        pfn_t spared = frame[place];
        frame[place] = pfn_add(*crimes[crime].pfn, crimes[crime].offset);
        frame_free_bulk(frame, BULK);
        CHECK_BUG(crimes[crime].report);
        /* All but the one that was not named have gone. */
        CHECK_EQUAL(figures().by_type[FRAME_USER], used - (BULK - 1));
        CHECK_EQUAL(frame_state(spared), FRAME_STATE_ALLOCATED);
        CHECK(frame_check());
        frame_free(spared, 0);
        frame_unref(wrong.shared);
        frame_unref(wrong.shared);
        frame_free(wrong.block, 3);
        CHECK_HELPER(check_all_free());
        /* And none of them twice. */
        uint64_t all = figures().managed;
        unsigned count =
            frame_alloc_bulk(frame, SMALL_FRAMES, FRAME_USER, FRAME_ANY);
        CHECK_EQUAL(count + figures().metadata, all);
        CHECK(frame_check());
    }
}

/* --- in a row ------------------------------------------------------------- */

#define ROWS_ORDER 8
#define ROWS       (1u << ROWS_ORDER) /* frames: four rows of 64 */

/* New single frames in a row. @out: the first. */
static void take_rows(pfn_t *out)
{
    sim_boot_frames(SMALL_RAM);
    *out = frame_alloc(ROWS_ORDER, FRAME_USER, FRAME_ANY);
    CHECK_EQUAL(frame_split(*out, ROWS_ORDER), MM_OK);
}

TEST(frame, frames_in_a_row_go_whatever_rows_they_cut)
{
    static const unsigned counts[] = {0, 1, 4, 32, 63, 64, 65, 128, 200};
    static const unsigned starts[] = {0, 1, 31, 32, 56};

    for (size_t i = 0; i < COUNT(counts) * COUNT(starts); i++) {
        unsigned count = counts[i % COUNT(counts)];
        unsigned start = starts[i / COUNT(counts)];
        pfn_t first;

        CHECK_HELPER(take_rows(&first));
        frame_free_row(pfn_add(first, start), count);
        CHECK_EQUAL(figures().by_type[FRAME_USER], ROWS - count);
        for (unsigned k = 0; k < ROWS; k++) {
            bool is_free = k >= start && k < start + count;
            CHECK((frame_state(pfn_add(first, k)) != FRAME_STATE_ALLOCATED) ==
                  is_free);
        }
        CHECK(frame_check());
        frame_free_row(first, start);
        frame_free_row(pfn_add(first, start + count), ROWS - start - count);
        CHECK_EQUAL(figures().by_type[FRAME_USER], 0);
        CHECK(frame_check());
    }
}

TEST(frame, a_wrong_frame_in_a_row_is_reported_and_the_others_go)
{
    static const unsigned places[] = {0, 5, 63, 64, ROWS - 1};

    for (size_t i = 0; i < COUNT(places); i++) {
        pfn_t first;

        CHECK_HELPER(take_rows(&first));
        pfn_t place = pfn_add(first, places[i]);
        frame_ref(place);
        frame_free_row(first, ROWS);
        CHECK_BUG("is a user block of order 0 with 2 holders");
        CHECK_EQUAL(figures().by_type[FRAME_USER], 1);
        CHECK_EQUAL(frame_state(place), FRAME_STATE_ALLOCATED);
        CHECK(frame_check());
        frame_unref(place);
        frame_unref(place);
        frame_free_row(place, 1);
        CHECK_BUG("is free already");
        frame_free_row(pfn_of(SMALL_FRAMES), 1);
        CHECK_BUG("is not RAM");
        CHECK_EQUAL(figures().by_type[FRAME_USER], 0);
        CHECK(frame_check());
    }
}

/* --- cleared ahead -------------------------------------------------------- */

#define POOL 64

/* Let this CPU clear as many frames as it keeps. How many. */
static uint64_t fill_pool(void)
{
    uint64_t calls = 0;

    while (figures().zeroed < POOL && frame_zero_idle()) {
        if (++calls > 2 * POOL) {
            test_fail(__FILE__, __LINE__, "clearing does not end");
            break;
        }
    }
    return figures().zeroed;
}

TEST(frame, frames_are_cleared_ahead_and_counted)
{
    CHECK_HELPER(boot_dirty());
    struct frame_stats before = figures();
    CHECK_EQUAL(fill_pool(), POOL);
    CHECK(!frame_zero_idle()); /* it is full */
    struct frame_stats full = figures();
    CHECK_EQUAL(full.zeroed_filled, POOL);
    CHECK_EQUAL(full.free + full.metadata, before.free + before.metadata);
    CHECK(full.cached >= POOL);
    CHECK(frame_check());
    for (unsigned i = 0; i < POOL + 3; i++) {
        pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ZEROED);
        CHECK(frames_are_zero(pfn, 1));
        CHECK_EQUAL(figures().zeroed, i < POOL ? POOL - 1 - i : 0);
        CHECK_EQUAL(figures().zeroed_hits, i < POOL ? i + 1 : POOL);
        CHECK_EQUAL(figures().zeroed_misses, i < POOL ? 0 : i + 1 - POOL);
    }
    CHECK_EQUAL(figures().zeroed_filled, POOL);
    CHECK(frame_check());
    /* One is made when there is room for one. */
    CHECK(frame_zero_idle() || frame_zero_idle());
    CHECK_EQUAL(figures().zeroed, 1);
}

TEST(frame, a_bulk_of_zeroed_frames_is_zero_and_counted)
{
    CHECK_HELPER(boot_dirty());
    CHECK_EQUAL(fill_pool(), POOL);
    CHECK_EQUAL(frame_alloc_bulk(frame, 300, FRAME_USER, FRAME_ZEROED), 300);
    CHECK_HELPER(check_frames(300));
    for (unsigned i = 0; i < 300; i++) {
        CHECK(frames_are_zero(frame[i], 1));
    }
    CHECK_EQUAL(figures().zeroed_hits + figures().zeroed_misses, 300);
    CHECK_EQUAL(figures().zeroed_hits + figures().zeroed, POOL);
    CHECK(frame_check());
}

TEST(frame, cleared_frames_are_not_lost_nor_hits_when_they_go_back)
{
    CHECK_HELPER(boot_dirty());
    CHECK_EQUAL(fill_pool(), POOL);
    frame_drain();
    CHECK_EQUAL(figures().zeroed, 0);
    CHECK_EQUAL(figures().cached, 0);
    CHECK_EQUAL(figures().zeroed_hits, 0);
    CHECK_HELPER(check_all_free());
    /* Who wants any frame gets them in the end. */
    CHECK_EQUAL(fill_pool(), POOL);
    uint64_t free = figures().free + figures().metadata;
    uint64_t count = take_all(frame, 0, FRAME_ANY);
    CHECK_EQUAL(count + figures().metadata, free);
    CHECK_EQUAL(figures().zeroed + figures().zeroed_hits, 0);
    CHECK(frame_check());
}

TEST(frame, an_idle_cpu_takes_nothing_from_others)
{
    sim_boot_frames_on(SMALL_RAM, 2);
    uint64_t count = take_all(frame, 0, FRAME_ANY);
    uint64_t failures = figures().failures;
    CHECK(!frame_zero_idle());
    /* What CPU 1 keeps is its own. */
    CHECK_HELPER(keep_on(1, frame[count - 1]));
    CHECK_EQUAL(figures().cached, 1);
    CHECK(!frame_zero_idle());
    CHECK_EQUAL(figures().cached, 1);
    CHECK_EQUAL(sim_interrupts(1), 0);
    CHECK_EQUAL(figures().failures, failures);
    CHECK(frame_check());
}

TEST(frame, a_freed_frame_is_dirty_until_it_is_cleared)
{
    CHECK_HELPER(boot_dirty());
    for (unsigned i = 0; i < 200; i++) {
        pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ZEROED);
        CHECK(frames_are_zero(pfn, 1));
        memset(phys_to_virt(pfn_to_phys(pfn)), 0xff, PAGE_BYTES);
        frame_free(pfn, 0);
        if (i % 3 != 0) {
            (void)frame_zero_idle();
        }
    }
    CHECK_EQUAL(figures().zeroed_hits + figures().zeroed_misses, 200);
    CHECK_HELPER(check_all_free());
}

#if MM_DEBUG
TEST(frame, a_write_to_a_cleared_frame_is_noticed)
{
    static const uint64_t places[] = {0, 8, 2048, PAGE_BYTES - 1};

    for (size_t i = 0; i < COUNT(places); i++) {
        sim_boot_frames(SMALL_RAM);
        CHECK_EQUAL(fill_pool(), POOL);
        /* The one that goes out next. */
        const struct frame_cpu *cpu = frame_cpu_of[0];
        pfn_t pfn = cpu->frame[ARRAY_ZEROED][POOL - 1];
        char *byte = phys_to_virt(pfn_to_phys(pfn));
        byte[places[i]] = 1;
        CHECK_EQUAL(frame_alloc(0, FRAME_USER, FRAME_ZEROED).v, pfn.v);
        CHECK_BUG("was written after it was freed");
        CHECK(frames_are_zero(pfn, 1));
        CHECK(frame_check());
    }
}
#endif

/* --- interrupts ----------------------------------------------------------- */

#define SIDE 50

static pfn_t inner[SIDE];
static unsigned inner_count;
static struct test_random inner_random;

/* Takes and gives, one by one and many at once, and clears. */
static void handle_interrupt(void)
{
    unsigned many = (unsigned)test_random_below(&inner_random, SIDE);

    switch (test_random_below(&inner_random, 12)) {
    case 0:
        frame_free_bulk(inner, inner_count);
        inner_count = 0;
        break;
    case 1:
        inner_count += frame_alloc_bulk(
            inner + inner_count, SIDE - inner_count, FRAME_USER,
            many % 2 == 0 ? FRAME_ANY : FRAME_ZEROED);
        break;
    case 2:
    case 3:
        if (inner_count > 0) {
            frame_free(inner[--inner_count], 0);
        }
        break;
    case 4:
        (void)frame_zero_idle();
        break;
    default:
        break;
    }
}

static void check_sides(unsigned count)
{
    sim_set_interrupt(NULL);
    CHECK(frame_check());
    CHECK_EQUAL(figures().by_type[FRAME_USER], count + inner_count);
    sim_set_interrupt(handle_interrupt);
}

TEST(frame, interrupts_come_inside_bulks)
{
    struct test_random random;
    unsigned count = 0;

    sim_boot_frames(SMALL_RAM);
    test_random_init(&random, test_seed());
    test_random_init(&inner_random, test_seed() + 1);
    inner_count = 0;
    sim_set_interrupt(handle_interrupt);
    for (unsigned step = 0; step < 3000; step++) {
        unsigned many = (unsigned)test_random_below(&random, 150);
        if (test_random_below(&random, 4) == 0) {
            (void)frame_zero_idle();
        }
        if (count + many > SMALL_FRAMES / 2 || step % 2 == 0) {
            many = (unsigned)min_u64(many, count);
            count -= many;
            frame_free_bulk(frame + count, many);
        } else {
            count += frame_alloc_bulk(frame + count, many, FRAME_USER,
                                      step % 4 == 1 ? FRAME_ZEROED : FRAME_ANY);
        }
        CHECK_HELPER(check_sides(count));
    }
    sim_set_interrupt(NULL);
    CHECK_HELPER(check_frames(count));
    frame_free_bulk(frame, count);
    frame_free_bulk(inner, inner_count);
    CHECK_HELPER(check_all_free());
}
