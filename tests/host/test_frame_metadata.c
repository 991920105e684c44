/* SPDX-License-Identifier: MIT */
/* Tests of frame: what it takes for records, what it leaves alone. */
/*
 * At risk: metadata that never comes back and spoils one large block after
 * the other, or low memory; records that begin with what a frame held before;
 * frame 0, and frames beyond what run numbers reach, handed out. Provoked by
 * taking far more metadata than a run holds, by memory maps that offer frame
 * 0, and by a map larger than any machine.
 */
#include <mm/frame.h>

#include <sys/mman.h>

#include <mm/port.h>
#include "base/bits.h"
#include "base/memory.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define SMALL_RAM (32 * MiB)

/* Blocks of 2 MiB that are free altogether. */
static uint64_t whole_blocks(void)
{
    uint64_t total = 0;

    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        uint64_t count[MM_MAX_ORDER + 1];
        frame_free_blocks((enum frame_zone)zone, count);
        total += count[9] + 2 * count[10];
    }
    return total;
}

TEST(frame, metadata_fills_one_block_before_the_next)
{
    sim_boot_frames(256 * MiB);
    uint64_t before = whole_blocks();
    for (unsigned i = 0; i < 512; i++) {
        CHECK(!pfn_is_none(frame_alloc_metadata()));
    }
    CHECK_EQUAL(before - whole_blocks(), 1);
    CHECK_EQUAL(figures().metadata, 512);
    CHECK(frame_check());
}

TEST(frame, metadata_comes_from_the_highest_zone)
{
    sim_boot_frames(5 * GiB);
    for (unsigned i = 0; i < 100; i++) {
        CHECK(frame_alloc_metadata().v >= 4 * GiB / PAGE_BYTES);
    }
    CHECK(frame_check());
}

/* An interrupt just before the second run was found takes its own. */
static void take_metadata_once(void)
{
    sim_set_interrupt(NULL);
    CHECK(!pfn_is_none(frame_alloc_metadata()));
}

TEST(frame, of_two_runs_taken_at_once_one_is_kept)
{
    sim_boot_frames(SMALL_RAM);
    sim_set_interrupt(take_metadata_once);
    CHECK(!pfn_is_none(frame_alloc_metadata()));
    CHECK_EQUAL(figures().metadata, 2);
    CHECK_EQUAL(figures().cached, 31);
    CHECK(frame_check());
}

TEST(frame, metadata_is_zeroed)
{
    static pfn_t dirty[SMALL_RAM / PAGE_BYTES];
    uint64_t count = 0;

    sim_boot_frames(SMALL_RAM);
    for (;;) {
        pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
        if (pfn_is_none(pfn)) {
            break;
        }
        memset(phys_to_virt(pfn_to_phys(pfn)), 0xa5, PAGE_BYTES);
        dirty[count++] = pfn;
    }
    for (uint64_t i = 0; i < count; i++) {
        frame_free(dirty[i], 0);
    }
    frame_drain();
    for (unsigned i = 0; i < 100; i++) {
        const char *byte = phys_to_virt(pfn_to_phys(frame_alloc_metadata()));
        for (uint64_t at = 0; at < PAGE_BYTES; at++) {
            CHECK_EQUAL(byte[at], 0);
        }
    }
}

/* Backing the records of a block may take frames out of that very block. */
TEST(frame, records_spoil_no_more_blocks_than_they_need)
{
    for (unsigned order = 9; order <= MM_MAX_ORDER; order++) {
        uint64_t taken = 0;

        sim_boot_frames(16 * MiB);
        uint64_t before = whole_blocks();
        for (;;) {
            pfn_t pfn = frame_alloc(order, FRAME_USER, FRAME_ANY);
            if (pfn_is_none(pfn)) {
                break;
            }
            CHECK_EQUAL(frame_state(pfn), FRAME_STATE_ALLOCATED);
            taken += UINT64_C(1) << (order - 9);
            CHECK(frame_check());
        }
        CHECK(taken + (order == 9 ? 1 : 3) >= before);
    }
}

#define HELD 4

/* A machine that has just started, and some blocks that come and go. */
static void check_records(struct test_random *random)
{
    pfn_t pfn[HELD];
    unsigned order[HELD];

    sim_boot_frames(128 * MiB);
    for (unsigned i = 0; i < HELD; i++) {
        pfn[i] = PFN_NONE;
    }
    for (unsigned step = 0; step < 30; step++) {
        unsigned i = (unsigned)test_random_below(random, HELD);
        if (!pfn_is_none(pfn[i])) {
            frame_free(pfn[i], order[i]);
            pfn[i] = PFN_NONE;
            continue;
        }
        /* Mostly those that one step takes. */
        uint64_t least = test_random_below(random, 8) == 0 ? 0 : 9;
        order[i] = (unsigned)(least + test_random_below(random, 2));
        pfn[i] = frame_alloc(order[i], FRAME_USER, FRAME_ANY);
        CHECK(!pfn_is_none(pfn[i]));
        for (uint64_t k = 0; k < UINT64_C(1) << order[i]; k += 256) {
            CHECK(record_exists(pfn_add(pfn[i], k)));
        }
    }
    CHECK(frame_check());
}

TEST(frame, every_frame_of_a_block_has_a_record)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < 500; round++) {
        CHECK_HELPER(check_records(&random));
    }
}

/* --- what is never handed out -------------------------------------------- */

/* A machine whose map calls the lowest MiB @type. */
static void boot_with_low_memory(enum memmap_type type)
{
    paddr_t storage;

    sim_boot_frames(SMALL_RAM); /* for the records' sake */
    sim_boot_map(SMALL_RAM);
    CHECK_EQUAL(sim_map()->range[0].start, 0);
    sim_map()->range[0].type = type;
    CHECK_EQUAL(memmap_carve(sim_map(), frame_metadata_bytes(sim_map()),
                             PAGE_BYTES, SMALL_RAM, "frames", &storage),
                MM_OK);
    frame_init(sim_map(), phys_to_virt(storage));
}

TEST(frame, frame_0_is_reserved_whatever_the_map_says)
{
    CHECK_HELPER(boot_with_low_memory(MEMMAP_USABLE));
    CHECK_EQUAL(frame_state(pfn_of(0)), FRAME_STATE_RESERVED);
    CHECK_EQUAL(frame_state(pfn_of(1)), FRAME_STATE_FREE);
    CHECK(frame_check());
    CHECK_HELPER(boot_with_low_memory(MEMMAP_RECLAIM));
    CHECK_EQUAL(frame_add(pfn_of(0), pfn_of(4)), MM_EINVAL);
    CHECK_EQUAL(frame_add(pfn_of(1), pfn_of(4)), MM_OK);
    CHECK_EQUAL(frame_state(pfn_of(3)), FRAME_STATE_FREE);
    CHECK_EQUAL(frame_state(pfn_of(4)), FRAME_STATE_RESERVED);
    CHECK(frame_check());
}

/* Run numbers have 32 bits, and a run 32 frames. */
#define REACH (512 * TiB)

TEST(frame, ram_beyond_512_tib_is_left_alone)
{
    static struct memmap_range range[] = {
        {MiB, 16 * MiB, MEMMAP_USABLE, "RAM", ""},
        {REACH - 4 * MiB, REACH + TiB, MEMMAP_USABLE, "RAM", ""},
    };
    struct memmap map = {range, 2, 2, 0};

    sim_boot_frames(SMALL_RAM); /* for the records' sake */
    uint64_t bytes = frame_metadata_bytes(&map);
    void *storage = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(storage != MAP_FAILED);
    frame_init(&map, storage);
    CHECK(sim_log_contains("RAM above 0x2000000000000 is left alone"));
    pfn_t end = pfn_of(REACH / PAGE_BYTES);
    CHECK_EQUAL(figures().managed, (15 + 4) * MiB / PAGE_BYTES);
    CHECK_EQUAL(frame_state(pfn_of(end.v - 1)), FRAME_STATE_FREE);
    CHECK_EQUAL(frame_state(end), FRAME_STATE_RESERVED);
    CHECK_EQUAL(frame_add(end, pfn_add(end, 1)), MM_EINVAL);
    frame_free(end, 0);
    CHECK_BUG("was never the allocator's");
    munmap(storage, bytes);
}
