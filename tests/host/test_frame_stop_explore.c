/* SPDX-License-Identifier: MIT */
/* Tests of frame: a CPU stops anywhere, and the others still get frames. */
/*
 * At risk: what is done once for many frames: a tree wakes, the records of a
 * block are backed, tables for them are made. Whoever does it may be stopped
 * in it for good, and another CPU needs just this. And the other way round:
 * who only is slow is waited for before anybody says that there is no memory.
 * Provoked by machines that have no other memory, in every order of the steps,
 * with a CPU that stops before any of them.
 */
#include <mm/frame.h>
#include <mm/mm.h>
#include <mm/port.h>

#include "base/bits.h"
#include "base/memory.h"
#include "frame/frame_impl.h"
#include "tests/host/schedule_explore.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"
#include "tests/shared/test.h"

#define CPUS   2
#define NOBODY EXPLORE_NONE

/* What the two CPUs do, and how it ended. */
static void (*program[CPUS])(void);
static pfn_t got[CPUS];
static enum mm_status status[CPUS];
static uint64_t left; /* free frames before a run */
static unsigned preemptions;

static void begin(void)
{
    for (unsigned i = 0; i < CPUS; i++) {
        got[i] = PFN_NONE;
        status[i] = MM_EINVAL;
    }
}

static void run(unsigned cpu)
{
    program[cpu]();
}

/* Try all orders of two programs. CPU 0 may stop, if @may_stop is 1. */
static void explore_two(const char *name, unsigned may_stop,
                        const char *(*check)(unsigned stopped))
{
    struct explored explored;
    struct explore what = {.name = name,
                           .cpus = CPUS,
                           .preemptions = preemptions,
                           .stoppable = may_stop,
                           .owned = record_base,
                           .owned_bytes =
                               record_frames * sizeof(struct frame_record),
                           .begin = begin,
                           .run = run,
                           .check = check};

    left = figures().free;
    CHECK(explore(&what, &explored) == NULL);
    CHECK(!explored.was_cut);
    CHECK(may_stop == 0 || explored.stopped > 0);
}

static void allocate_one(void)
{
    unsigned cpu = schedule_now();

    got[cpu] = frame_alloc(0, FRAME_USER, FRAME_ANY);
}

/* Both have what they wanted, unless one was stopped; and nothing is lost. */
static const char *check_frames(unsigned stopped, uint64_t frames)
{
    for (unsigned i = 0; i < CPUS; i++) {
        if (i != stopped && pfn_is_none(got[i])) {
            return "an allocation found nothing";
        }
    }
    if (stopped != NOBODY) {
        return NULL;
    }
    if (pfn_equal(got[0], got[1])) {
        return "a frame was handed out twice";
    }
    return frame_check() && left == figures().free + CPUS * frames
               ? NULL
               : "frames were lost";
}

static const char *check_soundness(unsigned stopped)
{
    return stopped != NOBODY || frame_check()
               ? NULL
               : "frame_check() finds a contradiction";
}

static const char *check_ones(unsigned stopped)
{
    return check_frames(stopped, 1);
}

/* --- a machine with memory in few places ---------------------------------- */

static struct memmap map;

static enum mm_status back_nothing(vaddr_t start, vaddr_t end)
{
    (void)start;
    (void)end;
    return MM_OK;
}

/* RAM where @claim says; what the allocator needs lies in the lowest. */
static void boot_with(const struct memmap_claim *claim, size_t count,
                      char *records)
{
    paddr_t storage;

    sim_reset(claim[0].length);
    for (size_t i = 1; i < count; i++) {
        sim_add_ram(claim[i].start, claim[i].length);
    }
    sim_set_cpu_count(CPUS);
    preemptions = 1;
    CHECK_EQUAL(
        sim_build_map(claim, count, SIM_PHYSICAL_END, claim[0].length, &map),
        MM_OK);
    CHECK_EQUAL(memmap_carve(&map, frame_metadata_bytes(&map), PAGE_BYTES,
                             claim[0].length, "frames", &storage),
                MM_OK);
    record_init(records, back_nothing);
    frame_init(&map, phys_to_virt(storage));
}

static void use_up_low(void)
{
    while (!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_BELOW_16M))) {
    }
    frame_drain();
}

#define TREE_BYTES  (TREE_FRAMES * PAGE_BYTES)
#define FIRST       (32 * MiB)
#define RANGE_BYTES (BLOCK_FRAMES * PAGE_BYTES)
#define GOES_START  (FIRST + TREE_BYTES - RANGE_BYTES) /* for frame_remove() */
#define KEPT_START  (GOES_START - RANGE_BYTES)         /* for frame_add() */

/* Claims for a tree that is RAM throughout, or of which a part is kept back. */
#define WHOLE   2
#define IN_PART 3

/* One tree that sleeps, and nothing else. */
static void boot_one_tree(size_t count)
{
    static const struct memmap_claim claim[IN_PART] = {
        {0, 2 * MiB, MEMMAP_USABLE, "RAM", ""},
        {FIRST, TREE_BYTES, MEMMAP_USABLE, "RAM", ""},
        {KEPT_START, RANGE_BYTES, MEMMAP_RECLAIM, "tables", ""}};
    static MM_ALIGNED(4096) char records[3 * TREE_FRAMES * 16];

    CHECK_HELPER(boot_with(claim, count, records));
    use_up_low();
    program[0] = allocate_one;
}

/* --- trees ---------------------------------------------------------------- */

TEST(frame, a_tree_that_another_cpu_wakes_is_waited_for)
{
    CHECK_HELPER(boot_one_tree(WHOLE));
    program[1] = allocate_one;
    CHECK_HELPER(explore_two("the last tree, needed by two", 0, check_ones));
}

/*
 * Whoever stops keeps one tree to itself, also where nobody has been yet: in
 * the middle of a large machine.
 */
TEST(frame, a_cpu_that_stops_in_a_tree_keeps_no_more_than_that)
{
    static const struct memmap_claim claim[] = {
        {0, 8 * MiB, MEMMAP_USABLE, "RAM", ""},
        {32 * GiB - 8 * TREE_BYTES, 9 * TREE_BYTES, MEMMAP_USABLE, "RAM", ""}};
    static MM_ALIGNED(
        4096) char records[(32 * GiB / PAGE_BYTES + TREE_FRAMES) * 16];

    CHECK_HELPER(boot_with(claim, 2, records));
    use_up_low();
    /* Large blocks are taken from above: now the next tree is one below. */
    for (unsigned i = 0; i < TREE_BLOCKS; i++) {
        CHECK(frame_alloc(BLOCK_ORDER, FRAME_USER, FRAME_ANY).v >=
              32 * GiB / PAGE_BYTES);
    }
    frame_drain();
    program[0] = allocate_one;
    program[1] = allocate_one;
    CHECK_HELPER(
        explore_two("a tree that nobody has needed yet", 1, check_ones));
}

/* More than the explorer lets a CPU wait for nothing. */
#define TOUCHES 2000

static void touch_often(void)
{
    unsigned cpu = schedule_now();
    pfn_t start = pfn_of(FIRST / PAGE_BYTES);

    for (unsigned i = 0; i < TOUCHES; i++) {
        got[cpu] = blocks_touch(start, pfn_add(start, 1));
    }
}

TEST(frame, a_cpu_that_stops_in_a_tree_is_waited_for_once)
{
    CHECK_HELPER(boot_one_tree(WHOLE));
    preemptions = 0;
    program[1] = touch_often;
    CHECK_HELPER(explore_two("a tree that never wakes", 1, check_soundness));
}

/* --- runs and ranges, which need this very tree --------------------------- */

static void allocate_run(void)
{
    unsigned cpu = schedule_now();

    got[cpu] = frame_alloc_run(BLOCK_FRAMES, 1, FRAME_USER, FRAME_ANY);
    status[cpu] = MM_OK;
}

/* Which is there if the other CPU has not come yet. */
static void allocate_tree(void)
{
    unsigned cpu = schedule_now();

    got[cpu] = frame_alloc_run(TREE_FRAMES, TREE_FRAMES, FRAME_USER, FRAME_ANY);
}

static const char *check_tree(unsigned stopped)
{
    return !pfn_is_none(got[1]) &&
                   trees_peek(FIRST / TREE_BYTES) == TREE_FILLING
               ? "frames were handed out that are not drawn yet"
               : check_soundness(stopped);
}

static void remove_range(void)
{
    pfn_t busy = PFN_NONE;
    unsigned cpu = schedule_now();
    pfn_t start = phys_to_pfn(paddr_of(GOES_START));
    enum mm_status answer =
        frame_remove(start, pfn_add(start, BLOCK_FRAMES), &busy);

    if (answer == MM_EBUSY && busy.v != start.v) {
        schedule_fail("a frame that is free is called busy");
    }
    status[cpu] = answer;
}

static void add_range(void)
{
    unsigned cpu = schedule_now();
    pfn_t start = phys_to_pfn(paddr_of(KEPT_START));

    status[cpu] = frame_add(start, pfn_add(start, BLOCK_FRAMES));
}

/* CPU 1 gets through, and has what it wants if the other does. */
static const char *check_range(unsigned stopped)
{
    if (stopped == 0) {
        return status[1] == MM_OK || status[1] == MM_EBUSY
                   ? NULL
                   : "there is no such answer";
    }
    if (pfn_is_none(got[0]) || status[1] != MM_OK) {
        return "who was slow was not waited for";
    }
    return frame_check() ? NULL : "frame_check() finds a contradiction";
}

static const char *check_run(unsigned stopped)
{
    return stopped == NOBODY && pfn_is_none(got[1])
               ? "a run is there and was not found"
               : check_range(stopped);
}

TEST(frame, a_cpu_that_stops_in_a_tree_lets_runs_and_ranges_end)
{
    CHECK_HELPER(boot_one_tree(IN_PART));
    program[1] = allocate_run;
    CHECK_HELPER(explore_two("a run in a tree that wakes", 1, check_run));
    CHECK_HELPER(boot_one_tree(IN_PART));
    program[1] = remove_range;
    CHECK_HELPER(
        explore_two("a range leaves a tree that wakes", 1, check_range));
    CHECK_HELPER(boot_one_tree(IN_PART));
    program[1] = add_range;
    CHECK_HELPER(
        explore_two("a range comes to a tree that wakes", 1, check_range));
    CHECK_HELPER(boot_one_tree(WHOLE));
    program[1] = allocate_tree;
    CHECK_HELPER(explore_two("a whole tree that wakes", 1, check_tree));
}

/* --- records -------------------------------------------------------------- */

#define RAM (64 * MiB)

/* A level-0 table has the records of the lower half of RAM, one the others. */
#define BACKED_BY_TABLE (2 * MiB)
static MM_ALIGNED(2 * MiB) char mapped_records[2 * BACKED_BY_TABLE];
#define HALF_OF_RECORDS (RAM / PAGE_BYTES / 2 * sizeof(struct frame_record))

/* Everything, with records that the library maps itself. */
static void boot_all(void)
{
    struct mm_config config = {
        .map = sim_map(),
        .features = {4, 40, true, true, true},
        .mapped_end = RAM,
        .direct_start = SIM_DIRECT,
        .direct_bytes = 64 * TiB,
        .kmap_start = SIM_KMAP,
        .kmap_end = SIM_KMAP + 512 * GiB,
        .record_start =
            (vaddr_t)mapped_records + BACKED_BY_TABLE - HALF_OF_RECORDS,
    };

    memset(mapped_records, 0, sizeof(mapped_records));
    sim_boot_map(RAM);
    sim_set_cpu_count(CPUS);
    CHECK_EQUAL(mm_init(&config), MM_OK);
    CHECK_EQUAL(blocks_touch(pfn_of(0), phys_to_pfn(paddr_of(RAM))).v,
                RAM / PAGE_BYTES);
    preemptions = 1;
}

static uint64_t backed_blocks(uint64_t start, uint64_t end)
{
    uint64_t count = 0;

    for (uint64_t frame = start; frame < end; frame += BLOCK_FRAMES) {
        count += record_exists(pfn_of(frame)) ? 1 : 0;
    }
    return count;
}

/* Frames under the records, but for tables that all have been made. */
static uint64_t frames_under_records(void)
{
    uint64_t half = RAM / PAGE_BYTES / 2;
    uint64_t low = backed_blocks(0, half);
    uint64_t pages = BLOCK_FRAMES * sizeof(struct frame_record) / PAGE_BYTES;

    return (low + backed_blocks(half, 2 * half)) * pages + (low > 0 ? 1 : 0);
}

static uint64_t other_metadata; /* before a run */

static void allocate_high(void)
{
    unsigned cpu = schedule_now();

    got[cpu] = frame_alloc(BLOCK_ORDER, FRAME_USER, FRAME_ANY);
}

static void allocate_low(void)
{
    unsigned cpu = schedule_now();

    got[cpu] = frame_alloc(BLOCK_ORDER, FRAME_USER, FRAME_BELOW_16M);
}

/* What was taken for records and their tables is in its place. */
static const char *check_records(unsigned stopped)
{
    for (unsigned i = 0; i < CPUS; i++) {
        if (i != stopped && pfn_is_none(got[i])) {
            return "an allocation found nothing";
        }
    }
    if (stopped == NOBODY &&
        figures().metadata != other_metadata + frames_under_records()) {
        return "a frame for records was lost";
    }
    return check_soundness(stopped);
}

TEST(frame, a_cpu_that_stops_in_backing_records_holds_nobody_up)
{
    CHECK_HELPER(boot_all());
    other_metadata = figures().metadata - frames_under_records();
    CHECK_EQUAL(backed_blocks(0, RAM / PAGE_BYTES / 2), 0);
    program[0] = allocate_high;
    program[1] = allocate_high;
    CHECK_HELPER(explore_two("two back a block", 1, check_records));
    program[0] = allocate_low;
    program[1] = allocate_low;
    CHECK_HELPER(
        explore_two("two back a block and make a table", 1, check_records));
}
