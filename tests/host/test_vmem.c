/* SPDX-License-Identifier: MIT */
/* Tests of vmem: an arena that hands out ranges of integers. */
#include <mm/frame.h>
#include <mm/vmem.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

/*
 * At risk: a range handed out twice, a range refused though it is free, free
 * neighbours that stay apart (fragmentation), alignment at the ends of the
 * number line, a wrong free that is believed, and a shortage of tags half way
 * through a change. Provoked by a table of edges, by failing each frame
 * allocation in turn, and by RAM that is free in short rows only.
 */

#define QUANTUM   PAGE_BYTES
#define BASE      UINT64_C(0xffffc00000000000)
#define RAM_BYTES (16 * MiB)

static struct vmem arena;

/* A machine with a heap, and an arena of @quanta from BASE up. */
static void boot(uint64_t quanta)
{
    sim_boot_heap(RAM_BYTES);
    vmem_init(&arena, "test", QUANTUM);
    CHECK(vmem_add(&arena, BASE, quanta * QUANTUM) == MM_OK);
    CHECK(vmem_check(&arena));
}

static uint64_t allocated_count(void)
{
    struct vmem_stats stats;

    vmem_stats(&arena, &stats);
    return stats.allocated;
}

static bool count_segment(void *context, const struct vmem_segment *segment)
{
    (void)segment;
    ++*(unsigned *)context;
    return true;
}

static unsigned segments(void)
{
    unsigned count = 0;

    return vmem_walk(&arena, count_segment, &count) ? count : 0;
}

/* One free segment again: nothing is left of what happened before. */
static void check_whole(uint64_t quanta)
{
    struct vmem_stats stats;

    vmem_stats(&arena, &stats);
    CHECK_EQUAL(stats.allocated, 0);
    CHECK_EQUAL(stats.free, quanta * QUANTUM);
    CHECK_EQUAL(stats.total, quanta * QUANTUM);
    CHECK_EQUAL(segments(), 1);
    CHECK(vmem_check(&arena));
}

TEST(vmem, sizes_round_up_to_the_quantum)
{
    uint64_t a;
    uint64_t b;

    CHECK_HELPER(boot(16));
    CHECK(vmem_alloc(&arena, 1, 0, &a) == MM_OK);
    CHECK(vmem_alloc(&arena, QUANTUM + 1, 0, &b) == MM_OK);
    CHECK(!ranges_overlap(a, a + QUANTUM, b, b + 2 * QUANTUM));
    CHECK_EQUAL(vmem_size(&arena, a), QUANTUM);
    CHECK_EQUAL(vmem_size(&arena, b), 2 * QUANTUM);
    CHECK_EQUAL(vmem_size(&arena, b + QUANTUM), 0);
    vmem_free(&arena, a, 1);
    vmem_free(&arena, b, 2 * QUANTUM);
    CHECK_HELPER(check_whole(16));
    vmem_fini(&arena);
}

TEST(vmem, impossible_sizes_are_refused)
{
    static const struct {
        uint64_t size;
        uint64_t alignment;
        enum mm_status status;
    } table[] = {
        {0, 0, MM_EINVAL},
        {UINT64_MAX, 0, MM_EINVAL},
        {UINT64_MAX - QUANTUM + 2, 0, MM_EINVAL},
        {UINT64_MAX - QUANTUM + 1, 0, MM_ENOMEM},
        {UINT64_C(1) << 63, UINT64_C(1) << 63, MM_ENOMEM},
        {QUANTUM, UINT64_C(1) << 63, MM_ENOMEM},
        {17 * QUANTUM, 0, MM_ENOMEM},
        {16 * QUANTUM, 0, MM_OK},
    };
    uint64_t address;

    CHECK_HELPER(boot(16));
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        CHECK_EQUAL(
            vmem_alloc(&arena, table[i].size, table[i].alignment, &address),
            table[i].status);
        CHECK(vmem_check(&arena));
    }
    CHECK_EQUAL(address, BASE);
    CHECK_EQUAL(vmem_alloc(&arena, 1, 0, &address), MM_ENOMEM);
    vmem_free(&arena, BASE, 16 * QUANTUM);
    CHECK_HELPER(check_whole(16));
    vmem_fini(&arena);
}

TEST(vmem, impossible_ranges_are_refused)
{
    static const struct {
        uint64_t start;
        uint64_t size;
        enum mm_status status;
    } table[] = {
        {BASE, 0, MM_EINVAL},
        {BASE + 1, QUANTUM, MM_EINVAL},
        {BASE + 16 * QUANTUM, 1, MM_EINVAL},
        {0 - QUANTUM, QUANTUM, MM_EINVAL}, /* ends at 2^64 */
        {0 - 2 * QUANTUM, 4 * QUANTUM, MM_EINVAL},
        {BASE, QUANTUM, MM_EINVAL},
        {BASE + 15 * QUANTUM, QUANTUM, MM_EINVAL},
        {BASE - QUANTUM, 2 * QUANTUM, MM_EINVAL},
        {BASE - QUANTUM, 18 * QUANTUM, MM_EINVAL},
        {0 - 2 * QUANTUM, QUANTUM, MM_OK},
        {0, QUANTUM, MM_OK},
    };

    CHECK_HELPER(boot(16));
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        CHECK_EQUAL(vmem_add(&arena, table[i].start, table[i].size),
                    table[i].status);
        CHECK(vmem_check(&arena));
    }
    CHECK_EQUAL(segments(), 3);
    vmem_fini(&arena);
}

TEST(vmem, ranges_that_touch_become_one)
{
    uint64_t address;

    CHECK_HELPER(boot(16));
    CHECK(vmem_add(&arena, BASE + 16 * QUANTUM, 4 * QUANTUM) == MM_OK);
    CHECK(vmem_add(&arena, BASE - 4 * QUANTUM, 4 * QUANTUM) == MM_OK);
    CHECK_HELPER(check_whole(24));
    CHECK(vmem_alloc(&arena, 24 * QUANTUM, 0, &address) == MM_OK);
    CHECK_EQUAL(address, BASE - 4 * QUANTUM);
    vmem_free(&arena, address, 24 * QUANTUM);
    vmem_fini(&arena);
}

TEST(vmem, alignment_is_kept_and_costs_nothing_for_good)
{
    uint64_t address[3];

    CHECK_HELPER(boot(1024));
    CHECK(vmem_alloc(&arena, QUANTUM, 0, &address[0]) == MM_OK);
    CHECK(vmem_alloc(&arena, 3 * QUANTUM, 256 * QUANTUM, &address[1]) == MM_OK);
    CHECK(is_aligned(address[1], 256 * QUANTUM));
    CHECK(vmem_alloc(&arena, 512 * QUANTUM, 512 * QUANTUM, &address[2]) ==
          MM_OK);
    CHECK_EQUAL(address[2], BASE + 512 * QUANTUM);
    CHECK(vmem_check(&arena));
    vmem_free(&arena, address[0], QUANTUM);
    vmem_free(&arena, address[2], 512 * QUANTUM);
    vmem_free(&arena, address[1], 3 * QUANTUM);
    CHECK_HELPER(check_whole(1024));
    vmem_fini(&arena);
}

/* Instant fit alone would overlook a segment on the list of the size. */
TEST(vmem, the_last_segment_that_fits_is_found)
{
    uint64_t low;
    uint64_t middle;
    uint64_t again;

    CHECK_HELPER(boot(16));
    CHECK(vmem_alloc(&arena, 7 * QUANTUM, 0, &low) == MM_OK);
    CHECK(vmem_alloc(&arena, 9 * QUANTUM, 0, &middle) == MM_OK);
    vmem_free(&arena, low, 7 * QUANTUM);
    CHECK(vmem_alloc(&arena, 7 * QUANTUM, 0, &again) == MM_OK);
    CHECK_EQUAL(again, low);
    vmem_free(&arena, again, 7 * QUANTUM);
    vmem_free(&arena, middle, 9 * QUANTUM);
    CHECK_HELPER(check_whole(16));
    vmem_fini(&arena);
}

TEST(vmem, wrong_frees_are_reported_and_change_nothing)
{
    uint64_t address;

    CHECK_HELPER(boot(16));
    CHECK(vmem_alloc(&arena, 4 * QUANTUM, 0, &address) == MM_OK);
    vmem_free(&arena, address + QUANTUM, QUANTUM);
    CHECK_BUG("test has no segment at 0xffffc00000001000");
    vmem_free(&arena, BASE - QUANTUM, QUANTUM);
    CHECK_BUG("no segment at");
    vmem_free(&arena, address, 3 * QUANTUM);
    CHECK_BUG("has size 0x4000, not 0x3000");
    vmem_free(&arena, address, 0);
    CHECK_BUG("has size 0x4000, not 0x0");
    vmem_free(&arena, address, UINT64_MAX);
    CHECK_BUG("has size 0x4000");
    CHECK_EQUAL(vmem_size(&arena, address), 4 * QUANTUM);
    vmem_fini(&arena);
    CHECK_BUG("test has 1 segments allocated (16384 bytes)");
    vmem_free(&arena, address, 4 * QUANTUM);
    vmem_free(&arena, address, 4 * QUANTUM);
    CHECK_BUG("no segment at");
    CHECK_HELPER(check_whole(16));
    vmem_fini(&arena);
}

static bool note_owner(void *context, const struct vmem_segment *segment)
{
    void **out = context;

    *out = segment->owner;
    return segment->is_allocated && segment->size == QUANTUM;
}

TEST(vmem, an_owner_hangs_until_the_segment_is_freed)
{
    int owner;
    void *found = &found;
    uint64_t address;

    CHECK_HELPER(boot(16));
    CHECK(vmem_alloc(&arena, QUANTUM, 0, &address) == MM_OK);
    CHECK(vmem_look(&arena, address, note_owner, &found) && found == NULL);
    CHECK(!vmem_set_owner(&arena, address + QUANTUM, &owner));
    CHECK(vmem_set_owner(&arena, address, &owner));
    CHECK(!vmem_set_owner(&arena, address, &found));
    CHECK(vmem_look(&arena, address, note_owner, &found) && found == &owner);
    CHECK(!vmem_look(&arena, address + QUANTUM, note_owner, &found));
    vmem_free(&arena, address, QUANTUM);
    CHECK(!vmem_look(&arena, address, note_owner, &found));
    CHECK(vmem_alloc(&arena, QUANTUM, 0, &address) == MM_OK);
    CHECK(vmem_look(&arena, address, note_owner, &found) && found == NULL);
    vmem_free(&arena, address, QUANTUM);
    vmem_fini(&arena);
}

/* The smallest quantum: numbers, not addresses (process ids, slots). */
TEST(vmem, every_number_of_a_range_is_handed_out_once)
{
    static bool seen[1000];
    uint64_t number;

    sim_boot_heap(RAM_BYTES);
    for (unsigned i = 0; i < 1000; i++) {
        seen[i] = false;
    }
    vmem_init(&arena, "numbers", 1);
    CHECK(vmem_add(&arena, 1, 999) == MM_OK);
    while (vmem_alloc(&arena, 1, 0, &number) == MM_OK) {
        CHECK(number >= 1 && number <= 999 && !seen[number]);
        seen[number] = true;
    }
    CHECK_EQUAL(allocated_count(), 999);
    for (number = 1; number < 1000; number++) {
        vmem_free(&arena, number, 1);
    }
    CHECK_EQUAL(segments(), 1);
    vmem_fini(&arena);
}

/* More segments than first buckets: the hash grows and loses nothing. */
TEST(vmem, a_full_arena_frees_in_any_order)
{
    enum { COUNT = 5000 };
    static uint64_t address[COUNT];
    struct test_random random;

    test_random_init(&random, test_seed());
    CHECK_HELPER(boot(COUNT));
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK(vmem_alloc(&arena, QUANTUM, 0, &address[i]) == MM_OK);
    }
    CHECK_EQUAL(vmem_alloc(&arena, QUANTUM, 0, &address[0]), MM_ENOMEM);
    CHECK(vmem_check(&arena));
    CHECK(arena.bucket_shift > highest_bit(VMEM_BUCKETS));
    for (unsigned i = COUNT; i > 0; i--) {
        uint64_t pick = test_random_below(&random, i);
        vmem_free(&arena, address[pick], QUANTUM);
        address[pick] = address[i - 1];
    }
    CHECK_HELPER(check_whole(COUNT));
    vmem_fini(&arena);
}

/* A segment of just the size is taken before a larger one is cut. */
TEST(vmem, instant_fit_prefers_its_own_list)
{
    uint64_t low;
    uint64_t middle;
    uint64_t again;

    CHECK_HELPER(boot(64));
    CHECK(vmem_alloc(&arena, 4 * QUANTUM, 0, &low) == MM_OK);
    CHECK(vmem_alloc(&arena, QUANTUM, 0, &middle) == MM_OK);
    vmem_free(&arena, low, 4 * QUANTUM);
    CHECK(vmem_alloc(&arena, 4 * QUANTUM, 0, &again) == MM_OK);
    CHECK_EQUAL(again, low);
    vmem_free(&arena, again, 4 * QUANTUM);
    vmem_free(&arena, middle, QUANTUM);
    CHECK_HELPER(check_whole(64));
    vmem_fini(&arena);
}

/* --- without memory for tags ---------------------------------------------- */

#define SHORT 2000 /* segments wanted */

/* Ask for SHORT segments with a gap before each; 0 for a refusal. */
static unsigned take_many(uint64_t *address)
{
    unsigned taken = 0;

    for (unsigned i = 0; i < SHORT; i++) {
        if (vmem_alloc(&arena, QUANTUM, 2 * QUANTUM, &address[i]) == MM_OK) {
            taken++;
        } else {
            address[i] = 0;
        }
    }
    return taken;
}

static void give_many(const uint64_t *address)
{
    for (unsigned i = 0; i < SHORT; i++) {
        if (address[i] != 0) {
            vmem_free(&arena, address[i], QUANTUM);
        }
    }
}

static uint64_t address_of[SHORT];

TEST(vmem, one_failed_frame_changes_nothing)
{
    uint64_t k = 0;
    uint64_t tried;

    do {
        CHECK_HELPER(boot(2 * SHORT));
        frame_inject(++k);
        unsigned taken = take_many(address_of);
        tried = frame_inject_count();
        frame_inject(0);
        CHECK(vmem_check(&arena));
        CHECK_EQUAL(allocated_count(), taken);
        give_many(address_of);
        CHECK_HELPER(check_whole(2 * SHORT));
        vmem_fini(&arena);
    } while (tried >= k);
    CHECK(k > 2); /* there were several places to fail at */
}

/* Take every frame the machine has left; it is thrown away afterwards. */
static void exhaust_frames(void)
{
    while (!pfn_is_none(frame_alloc(0, FRAME_KERNEL, FRAME_ANY))) {
    }
}

TEST(vmem, without_a_frame_left_it_refuses)
{
    CHECK_HELPER(boot(2 * SHORT));
    exhaust_frames();
    unsigned taken = take_many(address_of);
    CHECK(taken < SHORT);
    CHECK_EQUAL(allocated_count(), taken);
    CHECK(vmem_check(&arena));
    give_many(address_of); /* needs no memory */
    CHECK_HELPER(check_whole(2 * SHORT));
    vmem_fini(&arena);
}

TEST(vmem, a_range_is_not_added_without_memory)
{
    sim_boot_heap(RAM_BYTES);
    exhaust_frames();
    vmem_init(&arena, "test", QUANTUM);
    CHECK_EQUAL(vmem_add(&arena, BASE, QUANTUM), MM_ENOMEM);
    CHECK_EQUAL(segments(), 0);
    CHECK(vmem_check(&arena));
    vmem_fini(&arena);
}

/* --- the hash and its memory ---------------------------------------------- */

#define CROWD 20000 /* segments: more than 4096 buckets are for */
#define ROW   8     /* frames: enough for 4096 buckets or a slab of tags */

static pfn_t frame[RAM_BYTES / PAGE_BYTES];
static unsigned frames;

/* Free the rows of frame[] whose number is even (0) or odd (1). */
static void give_rows(unsigned parity)
{
    for (unsigned i = 0; i < frames; i++) {
        if (frame[i].v / ROW % 2 == parity) {
            frame_free(frame[i], 0);
        }
    }
}

/* Take every frame, and give every second row back: none is longer. */
static void fragment_frames(void)
{
    pfn_t pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);

    for (frames = 0; !pfn_is_none(pfn); frames++) {
        frame[frames] = pfn;
        pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    }
    give_rows(0);
}

/* @count segments of a quantum, from BASE up. */
static void take_quanta(unsigned count)
{
    uint64_t address;

    for (unsigned i = 0; i < count; i++) {
        CHECK(vmem_alloc(&arena, QUANTUM, 0, &address) == MM_OK);
    }
}

static void give_quanta(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        vmem_free(&arena, BASE + i * QUANTUM, QUANTUM);
    }
}

/*
 * Tags are to be had, but no larger table. It is asked for when the segments
 * have doubled, not by each allocation; with memory again, the hash catches up.
 */
TEST(vmem, a_hash_that_cannot_grow_asks_seldom)
{
    CHECK_HELPER(boot(2 * CROWD));
    fragment_frames();
    uint64_t failures = figures().failures;
    CHECK_HELPER(take_quanta(CROWD));
    failures = figures().failures - failures;
    CHECK(failures > 0 && failures < 9); /* 0 would prove nothing */
    unsigned short_shift = arena.bucket_shift;
    give_rows(1);
    CHECK_HELPER(take_quanta(CROWD));
    CHECK(arena.bucket_shift > short_shift);
    give_quanta(2 * CROWD);
    CHECK_HELPER(check_whole(2 * CROWD));
    vmem_fini(&arena);
}

/* Small hashes come from size classes, large ones from frames. */
TEST(vmem, an_arena_gives_back_what_its_hash_took)
{
    sim_boot_heap(4 * RAM_BYTES);
    uint64_t before = heap_frames();
    for (unsigned count = 20; count <= 20000; count *= 10) {
        vmem_init(&arena, "test", QUANTUM);
        CHECK(vmem_add(&arena, BASE, count * QUANTUM) == MM_OK);
        CHECK_HELPER(take_quanta(count));
        give_quanta(count);
        vmem_fini(&arena);
        CHECK_EQUAL(heap_frames(), before);
    }
}
