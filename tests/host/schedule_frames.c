/* SPDX-License-Identifier: MIT */
/* schedule_frames: small machines on which a few CPUs want the same frames. */
#include "tests/host/schedule_frames.h"

#include <stdio.h>
#include <string.h>

#include <mm/port.h>
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define NOBODY 0xff

/* A block that has a number. */
struct block {
    pfn_t pfn; /* PFN_NONE: not allocated (any more) */
    unsigned order;
};

static const struct frames_scene *scene;
static struct block blocks[FRAMES_BLOCKS];
static uint8_t owner[FRAMES_COUNT]; /* block, or NOBODY; ELSEWHERE */
#define ELSEWHERE 0xfe
static unsigned reports;
static uint64_t owned; /* frames of blocks */

/* As before each run. */
static struct block blocks_at_start[FRAMES_BLOCKS];
static uint8_t owner_at_start[FRAMES_COUNT];
static uint64_t free_at_start;
static uint64_t owned_at_start;

/* --- who has what --------------------------------------------------------- */

static void take(unsigned block, pfn_t pfn, uint64_t frames)
{
    if (pfn.v + frames > FRAMES_COUNT) {
        schedule_fail("a frame that does not exist was handed out");
    }
    for (uint64_t i = pfn.v; i < pfn.v + frames; i++) {
        if (owner[i] != NOBODY) {
            schedule_fail("a frame was handed out twice");
        }
        owner[i] = (uint8_t)block;
    }
    owned += frames;
}

static void drop(pfn_t pfn, uint64_t frames)
{
    memset(&owner[pfn.v], NOBODY, frames);
    owned -= frames;
}

/* --- acts ----------------------------------------------------------------- */

/*
 * Frames that are certainly free: what others may be taking is not. Of each
 * CPU, how few there were since its allocation began.
 */
static int64_t surely_free;
static int64_t fewest[SCHEDULE_CPUS];

static void change_surely_free(int64_t frames)
{
    surely_free += frames;
    for (unsigned i = 0; i < SCHEDULE_CPUS; i++) {
        fewest[i] = surely_free < fewest[i] ? surely_free : fewest[i];
    }
}

/* One frame cannot be had: was there none for a moment? */
static void check_failure(const struct act *act)
{
    change_surely_free(INT64_C(1) << act->order);
    if (act->kind == ACT_ALLOC) {
        schedule_fail("an allocation found nothing");
    }
    if (act->kind == ACT_TRY && act->order == 0 &&
        fewest[schedule_now()] >= 0) {
        schedule_fail("a frame was free all the time, and was not found");
    }
}

static void allocate(const struct act *act)
{
    struct block *block = &blocks[act->block];
    unsigned flags = act->kind == ACT_TRY_LOW ? FRAME_BELOW_16M : FRAME_ANY;

    change_surely_free(-(INT64_C(1) << act->order));
    fewest[schedule_now()] = surely_free;
    block->pfn = frame_alloc(act->order, FRAME_USER, flags);
    block->order = act->order;
    if (!pfn_is_none(block->pfn) && act->kind == ACT_VAIN) {
        schedule_fail("a block was handed out that cannot be free");
    }
    if (!pfn_is_none(block->pfn)) {
        take(act->block, block->pfn, UINT64_C(1) << act->order);
    } else {
        check_failure(act);
    }
}

static void give(struct block *block)
{
    pfn_t pfn = block->pfn;

    block->pfn = PFN_NONE;
    if (pfn_is_none(pfn)) {
        return;
    }
    drop(pfn, UINT64_C(1) << block->order);
    frame_free(pfn, block->order);
    schedule_lock(); /* it is free when others can see it */
    change_surely_free(INT64_C(1) << block->order);
}

/* Both have it in their hands; nobody is allowed to be surprised. */
static void give_twice(struct block *block)
{
    if (!pfn_is_none(block->pfn) && owner[block->pfn.v] != NOBODY) {
        drop(block->pfn, UINT64_C(1) << block->order);
    }
    frame_free(block->pfn, block->order);
}

static void do_act(const struct act *act)
{
    struct block *block = &blocks[act->block];

    switch (act->kind) {
    case ACT_ALLOC:
    case ACT_TRY:
    case ACT_TRY_LOW:
    case ACT_VAIN:
        allocate(act);
        break;
    case ACT_FREE:
        give(block);
        break;
    case ACT_FREE_TWICE:
        give_twice(block);
        break;
    case ACT_SPLIT:
        if (!pfn_is_none(block->pfn) &&
            frame_split(block->pfn, block->order) != MM_OK) {
            schedule_fail("a block cannot be split");
        }
        break;
    case ACT_JOIN:
        if (!pfn_is_none(block->pfn) &&
            frame_join(block->pfn, block->order) != MM_OK) {
            schedule_fail("a block cannot be joined");
        }
        break;
    case ACT_DRAIN:
        frame_drain();
        break;
    default:
        break;
    }
}

static void run(unsigned cpu)
{
    for (unsigned i = 0; i < FRAMES_ACTS; i++) {
        if (scene->act[cpu][i].kind != ACT_NONE) {
            do_act(&scene->act[cpu][i]);
        }
    }
}

/* --- before and after a run ----------------------------------------------- */

static void begin(void)
{
    memcpy(blocks, blocks_at_start, sizeof(blocks));
    memcpy(owner, owner_at_start, sizeof(owner));
    owned = owned_at_start;
    surely_free = (int64_t)free_at_start;
    reports = 0;
}

static bool forgive(const char *text)
{
    (void)text;
    reports++;
    return reports <= scene->reports && test_take_bug("");
}

static bool is_as_owned(uint64_t frame)
{
    enum frame_state state = frame_state(pfn_of(frame));
    bool is_free = state == FRAME_STATE_FREE || state == FRAME_STATE_CACHED;

    if (is_free != (owner[frame] == NOBODY)) {
        printf("# frame 0x%llx: state %u, owner %u\n",
               (unsigned long long)frame, state, owner[frame]);
        return false;
    }
    return true;
}

/*
 * Frames are in use exactly if somebody has them: asked of the first and the
 * last ones of each place, since the others are as they are.
 */
static bool are_as_owned(const struct place place[FRAMES_PLACES])
{
    for (unsigned i = 0; i < FRAMES_PLACES; i++) {
        if (place[i].order == FRAMES_END) {
            break;
        }
        uint64_t first = FRAMES_BASE + place[i].offset;
        uint64_t count = UINT64_C(1) << place[i].order;
        for (uint64_t k = 0; k < count;
             k += k == 8 && count > 16 ? count - 16 : 1) {
            if (!is_as_owned(first + k)) {
                return false;
            }
        }
    }
    return true;
}

static const char *check(unsigned stopped)
{
    if (stopped != EXPLORE_NONE) {
        return NULL; /* what it was about to do is not done */
    }
    if (reports != scene->reports) {
        return "what is wrong was not reported";
    }
    bool is_as_told = scene->is_asleep ||
                      (are_as_owned(scene->free) && are_as_owned(scene->block));
    if (reports > 0) {
        /* The counts have both frees, the bits one. */
        return is_as_told ? NULL : "a frame is lost";
    }
    if (!frame_check()) {
        return "frame_check() finds a contradiction";
    }
    if (figures().free + owned != free_at_start + owned_at_start) {
        return "frames were lost, or came from nowhere";
    }
    return is_as_told ? NULL : "a frame is lost";
}

/* --- the machine ---------------------------------------------------------- */

#define RECORD_BYTES (FRAMES_COUNT * sizeof(struct frame_record))
static MM_ALIGNED(4096) char records[RECORD_BYTES];

static enum mm_status back_nothing(vaddr_t start, vaddr_t end)
{
    (void)start;
    (void)end;
    return MM_OK;
}

static void boot(unsigned cpus)
{
    paddr_t storage;

    sim_boot_map(FRAMES_RAM);
    sim_set_cpu_count(cpus);
    memset(records, 0, sizeof(records));
    record_init(records, back_nothing);
    CHECK_EQUAL(memmap_carve(sim_map(), frame_metadata_bytes(sim_map()),
                             PAGE_BYTES, FRAMES_RAM, "frames", &storage),
                MM_OK);
    frame_init(sim_map(), phys_to_virt(storage));
}

/* All frames are in use, singly: each can be given back alone. */
static void use_up(void)
{
    for (;;) {
        pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
        if (pfn_is_none(pfn)) {
            return;
        }
    }
}

static void free_places(void)
{
    for (unsigned i = 0; i < FRAMES_PLACES; i++) {
        const struct place *place = &scene->free[i];
        if (place->order == FRAMES_END) {
            break;
        }
        for (uint64_t k = 0; k < UINT64_C(1) << place->order; k++) {
            frame_free(pfn_of(FRAMES_BASE + place->offset + k), 0);
        }
        memset(&owner[FRAMES_BASE + place->offset], NOBODY,
               UINT64_C(1) << place->order);
    }
    frame_drain();
}

static void number_blocks(void)
{
    for (unsigned i = 0; i < FRAMES_PLACES; i++) {
        const struct place *place = &scene->block[i];
        if (place->order == FRAMES_END) {
            break;
        }
        blocks[i] = (struct block){
            .pfn = pfn_of(FRAMES_BASE + place->offset),
            .order = place->order,
        };
        CHECK_EQUAL(frame_join(blocks[i].pfn, place->order), MM_OK);
        memset(&owner[blocks[i].pfn.v], NOBODY, UINT64_C(1) << place->order);
        take(i, blocks[i].pfn, UINT64_C(1) << place->order);
    }
}

static void prepare(void)
{
    CHECK_HELPER(boot(scene->cpus));
    owned = 0;
    memset(owner, scene->is_asleep ? NOBODY : ELSEWHERE, sizeof(owner));
    for (unsigned i = 0; i < FRAMES_BLOCKS; i++) {
        blocks[i] = (struct block){.pfn = PFN_NONE};
    }
    if (!scene->is_asleep) {
        use_up();
        free_places();
        CHECK_HELPER(number_blocks());
    }
    for (unsigned cpu = 0; cpu < scene->cpus; cpu++) {
        sim_set_cpu(cpu);
        for (unsigned i = 0; i < FRAMES_ACTS; i++) {
            if (scene->before[cpu][i].kind != ACT_NONE) {
                do_act(&scene->before[cpu][i]);
            }
        }
    }
    sim_set_cpu(0);
    CHECK(frame_check());
    memcpy(blocks_at_start, blocks, sizeof(blocks));
    memcpy(owner_at_start, owner, sizeof(owner));
    free_at_start = figures().free;
    owned_at_start = owned;
}

void frames_explore(const struct frames_scene *wanted)
{
    struct explored explored;

    scene = wanted;
    CHECK_HELPER(prepare());
    struct explore what = {.name = scene->name,
                           .cpus = scene->cpus,
                           .preemptions = scene->preemptions,
                           .stoppable = scene->stoppable,
                           .owned = records,
                           .owned_bytes = scene->reports > 0 ? 0 : RECORD_BYTES,
                           .begin = begin,
                           .run = run,
                           .forgive = forgive,
                           .check = check};
    CHECK(explore(&what, &explored) == NULL);
    CHECK(!explored.was_cut);
}
