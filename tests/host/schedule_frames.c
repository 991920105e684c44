/* SPDX-License-Identifier: MIT */
/* schedule_frames: small machines on which a few CPUs want the same frames. */
#include "tests/host/schedule_frames.h"

#include <stdio.h>
#include <string.h>

#include <mm/port.h>
#include "frame/blocks.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define NOBODY 0xff

/* What was allocated and has a number. */
struct block {
    enum { BLOCK, BULK, RUN } kind;
    pfn_t pfn; /* PFN_NONE: not allocated (any more) */
    unsigned order;
    uint64_t frames; /* of singles, or of a run */
    pfn_t single[FRAMES_BULK];
    unsigned holders;
    unsigned leaving; /* frame_unref() calls that have not returned */
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

static uint64_t ram(void)
{
    return scene->ram != 0 ? scene->ram : FRAMES_RAM;
}

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

static void take_all(unsigned number)
{
    struct block *block = &blocks[number];

    if (block->kind != BULK) {
        take(number, block->pfn, block->frames);
        return;
    }
    for (unsigned i = 0; i < block->frames; i++) {
        take(number, block->single[i], 1);
    }
}

static void drop_all(const struct block *block)
{
    if (block->kind != BULK) {
        drop(block->pfn, block->frames);
        return;
    }
    for (unsigned i = 0; i < block->frames; i++) {
        drop(block->single[i], 1);
    }
}

/* --- acts ----------------------------------------------------------------- */

/*
 * Frames that are certainly free: what others may be taking is not. Of each
 * CPU, how few there were since its allocation began.
 */
static int64_t surely_free;
static int64_t fewest[SCHEDULE_CPUS];

/*
 * Or since a claim was given up, which had hidden what it did not get: that is
 * found by a search that goes on after it. Those that do are seen at the tree
 * that all searches come to last.
 */
static bool must_go_on[SCHEDULE_CPUS];
static bool has_gone_on[SCHEDULE_CPUS];

static void see(const volatile void *address)
{
    if (address == &trees_word[0]) {
        has_gone_on[schedule_now()] = true;
    }
}

static void change_surely_free(int64_t frames)
{
    surely_free += frames;
    for (unsigned i = 0; i < SCHEDULE_CPUS; i++) {
        fewest[i] = surely_free < fewest[i] ? surely_free : fewest[i];
    }
}

static void begin_claim(uint64_t frames)
{
    unsigned me = schedule_now();

    change_surely_free(-(int64_t)frames);
    fewest[me] = surely_free;
    must_go_on[me] = false;
}

/* A claim that finds nothing for sure has ended. */
static void show_what_was_hidden(void)
{
    for (unsigned i = 0; i < SCHEDULE_CPUS; i++) {
        if (fewest[i] < 0) {
            fewest[i] = surely_free;
            must_go_on[i] = true;
            has_gone_on[i] = false;
        }
    }
}

/* @missing frames cannot be had: were there too few for a moment? */
static void check_failure(const struct act *act, uint64_t missing)
{
    unsigned me = schedule_now();
    bool is_single =
        (act->kind == ACT_TRY && act->order == 0) || act->kind == ACT_BULK;

    change_surely_free((int64_t)missing);
    if (act->kind == ACT_ALLOC || act->kind == ACT_RUN) {
        schedule_fail("an allocation found nothing");
    }
    if (act->kind == ACT_VAIN || act->kind == ACT_VAIN_AT) {
        show_what_was_hidden();
    }
    if (is_single && fewest[me] >= 0 && (!must_go_on[me] || has_gone_on[me])) {
        schedule_fail("a frame was free all the time, and was not found");
    }
}

static void allocate(const struct act *act)
{
    struct block *block = &blocks[act->block];
    unsigned flags = act->kind == ACT_TRY_LOW ? FRAME_BELOW_16M : FRAME_ANY;
    uint64_t frames = UINT64_C(1) << act->order;

    begin_claim(frames);
    *block = (struct block){
        .pfn = frame_alloc(act->order, FRAME_USER, flags),
        .order = act->order,
        .frames = frames,
        .holders = 1,
    };
    if (pfn_is_none(block->pfn)) {
        check_failure(act, frames);
        return;
    }
    if (act->kind == ACT_VAIN) {
        schedule_fail("a block was handed out that cannot be free");
    }
    take_all(act->block);
}

static void claim_in_vain(const struct act *act)
{
    uint64_t frames = UINT64_C(1) << act->order;

    begin_claim(frames);
    if (blocks_claim_block(pfn_of(FRAMES_BASE), act->order)) {
        schedule_fail("a block was claimed that cannot be free");
    }
    check_failure(act, frames);
}

static void allocate_bulk(const struct act *act)
{
    struct block *block = &blocks[act->block];

    begin_claim(act->order);
    *block = (struct block){.kind = BULK};
    block->frames =
        frame_alloc_bulk(block->single, act->order, FRAME_USER, FRAME_ANY);
    take_all(act->block);
    if (block->frames > 0) {
        block->pfn = block->single[0];
    } else {
        block->pfn = PFN_NONE;
    }
    if (block->frames < act->order) {
        check_failure(act, act->order - block->frames);
    }
}

#define RUN_ALIGNMENT 4

static void allocate_run(const struct act *act)
{
    struct block *block = &blocks[act->block];

    begin_claim(act->order);
    *block = (struct block){
        .kind = RUN,
        .pfn =
            frame_alloc_run(act->order, RUN_ALIGNMENT, FRAME_USER, FRAME_ANY),
        .frames = act->order,
    };
    if (pfn_is_none(block->pfn)) {
        check_failure(act, act->order);
    } else {
        take_all(act->block);
    }
}

/* It is free when others can see it. */
static void note_free(uint64_t frames)
{
    schedule_lock();
    change_surely_free((int64_t)frames);
}

static void give(struct block *block)
{
    struct block it = *block;

    block->pfn = PFN_NONE;
    if (pfn_is_none(it.pfn)) {
        return;
    }
    drop_all(&it);
    if (it.kind == BULK) {
        frame_free_bulk(it.single, (unsigned)it.frames);
    } else if (it.kind == RUN) {
        frame_free_run(it.pfn, it.frames);
    } else {
        frame_free(it.pfn, it.order);
    }
    note_free(it.frames);
}

/* Whoever of the holders leaves last, by the records, frees it. */
static void leave(struct block *block)
{
    pfn_t pfn = block->pfn;

    block->holders--;
    block->leaving++;
    if (block->holders == 0) {
        drop_all(block);
    }
    frame_unref(pfn);
    block->leaving--;
    if (block->holders == 0 && block->leaving == 0) {
        block->pfn = PFN_NONE;
        note_free(block->frames);
    }
}

/* Both have it in their hands; nobody is allowed to be surprised. */
static void give_twice(struct block *block)
{
    if (!pfn_is_none(block->pfn) && owner[block->pfn.v] != NOBODY) {
        drop(block->pfn, UINT64_C(1) << block->order);
    }
    frame_free(block->pfn, block->order);
}

static void split(const struct block *block)
{
    if (!pfn_is_none(block->pfn) &&
        frame_split(block->pfn, block->order) != MM_OK) {
        schedule_fail("a block cannot be split");
    }
}

static void join(const struct block *block)
{
    if (!pfn_is_none(block->pfn) &&
        frame_join(block->pfn, block->order) != MM_OK) {
        schedule_fail("a block cannot be joined");
    }
}

/* That it answers is enough. */
static void look(void)
{
    uint64_t frames = ram() / PAGE_BYTES;

    (void)frame_state(pfn_of(frames - FRAMES_TREE));
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
    case ACT_VAIN_AT:
        claim_in_vain(act);
        break;
    case ACT_BULK:
        allocate_bulk(act);
        break;
    case ACT_RUN:
    case ACT_TRY_RUN:
        allocate_run(act);
        break;
    case ACT_FREE:
        give(block);
        break;
    case ACT_FREE_TWICE:
        give_twice(block);
        break;
    case ACT_SPLIT:
        split(block);
        break;
    case ACT_JOIN:
        join(block);
        break;
    case ACT_REF:
        block->holders++;
        frame_ref(block->pfn);
        break;
    case ACT_UNREF:
        leave(block);
        break;
    case ACT_LOOK:
        look();
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
    for (unsigned i = 0; i < SCHEDULE_CPUS; i++) {
        fewest[i] = surely_free;
        must_go_on[i] = false;
    }
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

/* The records of blocks say how many holders they have. */
static bool are_held(void)
{
    for (unsigned i = 0; i < FRAMES_BLOCKS; i++) {
        const struct block *block = &blocks[i];
        if (block->kind == BLOCK && !pfn_is_none(block->pfn) &&
            owner[block->pfn.v] == i &&
            record_of(block->pfn)->order == block->order &&
            record_of(block->pfn)->refs != block->holders) {
            return false;
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
    if (!is_as_told || !are_held()) {
        return is_as_told ? "a holder is lost" : "a frame is lost";
    }
    return scene->check != NULL ? scene->check() : NULL;
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

    sim_boot_map(ram());
    sim_set_cpu_count(cpus);
    memset(records, 0, sizeof(records));
    record_init(records, back_nothing);
    CHECK_EQUAL(memmap_carve(sim_map(), frame_metadata_bytes(sim_map()),
                             PAGE_BYTES, ram(), "frames", &storage),
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
            .frames = UINT64_C(1) << place->order,
            .holders = 1,
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
    bool are_shared = scene->reports > 0 || scene->are_shared;
    struct explore what = {.name = scene->name,
                           .cpus = scene->cpus,
                           .preemptions = scene->preemptions,
                           .stoppable = scene->stoppable,
                           .owned = records,
                           .owned_bytes = are_shared ? 0 : RECORD_BYTES,
                           .begin = begin,
                           .run = run,
                           .see = see,
                           .forgive = forgive,
                           .check = check};
    CHECK(explore(&what, &explored) == NULL);
    CHECK(!explored.was_cut);
}
