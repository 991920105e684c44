/* SPDX-License-Identifier: MIT */
/* Small kernel blocks of several CPUs, under the scheduler. */
/*
 * At risk: a block that two CPUs get, from one list or by a free and a purge
 * at the same moment; entries that are written to by who has lost the block; a
 * handle that is seen before what it stands for. So CPUs take and free blocks
 * and windows, hand some over, and let go of what all of them keep. Then also
 * beside frees of pointers that nobody was given, which must be reported and
 * lose nobody's block; and beside a CPU that ages the pages of all.
 */
#include "tests/host/schedule_scene.h"

#include <stdlib.h>
#include <string.h>

#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/shrink.h>
#include "tests/host/sim.h"

#define ROUNDS 24
#define KEPT   3 /* pages */
#define DEVICE UINT64_C(0xfd000000)

/* What a CPU has, and what is on its way to another one; the last of all. */
struct holding {
    vaddr_t block; /* 0: nothing */
    uint64_t stamp;
    paddr_t device; /* of a window, else 0 */
};

static struct holding holding[SCHEDULE_CPUS + 1];
static vaddr_t latest; /* that somebody was given */
static uint64_t last_stamp;
static bool has_wrong_frees;
static bool is_aged;

static paddr_t translate(vaddr_t block)
{
    paddr_t physical = paddr_of(0);

    schedule_lock(); /* a CPU's own walks see what it has stored */
    if (sim_translate(block, WALK_WRITE, &physical) != WALK_ALLOWED) {
        schedule_fail("a block that somebody has cannot be touched");
    }
    return physical;
}

static void take(unsigned cpu)
{
    static const uint64_t pages[] = {1, 2, 17}; /* the last is not small */
    struct holding one = {0};
    unsigned kinds = has_wrong_frees ? 3 : 2;
    uint64_t bytes = pages[schedule_below(kinds)] * PAGE_BYTES;

    if (schedule_below(3) == 0) {
        one.device = paddr_of(DEVICE + schedule_below(8) * PAGE_BYTES);
        one.block = (vaddr_t)kmap_mmio(one.device, bytes, PT_UC, "schedule");
    } else {
        one.block = (vaddr_t)kmap_alloc(bytes, KMAP_EAGER, "schedule");
        one.stamp = ++last_stamp;
    }
    for (unsigned i = 0; i <= SCHEDULE_CPUS; i++) {
        if (one.block == 0 || holding[i].block == one.block) {
            schedule_fail("no block, or one that somebody has");
        }
    }
    if (one.device.v == 0) {
        *(uint64_t *)phys_to_virt(translate(one.block)) = one.stamp;
    }
    holding[cpu] = one;
    latest = one.block;
}

static void give(unsigned cpu)
{
    struct holding one = holding[cpu];
    paddr_t physical = translate(one.block);

    if (one.device.v != 0 ? physical.v != one.device.v
                          : *(uint64_t *)phys_to_virt(physical) != one.stamp) {
        schedule_fail("a block is not what it was");
    }
    holding[cpu].block = 0;
    kmap_free((void *)one.block);
}

static void hand_over(unsigned cpu)
{
    struct holding one = holding[cpu];

    schedule_lock(); /* who sees the pointer sees what was stored before */
    holding[cpu] = holding[SCHEDULE_CPUS];
    holding[SCHEDULE_CPUS] = one;
}

/* No pointer that anybody was given: all of these begin a page. */
static void free_wrongly(void)
{
    if (latest != 0) {
        kmap_free((void *)(latest + 1 + schedule_below(PAGE_BYTES - 1)));
    }
}

/* All blocks, whoever has them. */
static void age(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    if (pt_open(&pt_kernel, SIM_KMAP, SIM_KMAP + 2 * MiB, &batch, &cursor) !=
        MM_OK) {
        schedule_fail("the arena cannot be opened");
    }
    pt_age(&cursor, SIM_KMAP, 2 * MiB, PT_AGE_ACCESSED | PT_AGE_DIRTY, NULL,
           NULL);
    pt_close(&cursor);
    tlb_commit(&batch);
}

/* Is it a report of that? */
static bool forgive(const char *text)
{
    const char *number = strstr(text, "0x");

    return has_wrong_frees && number != NULL &&
           strtoull(number, NULL, 0) % PAGE_BYTES != 0 && test_take_bug("");
}

static void check_end(void)
{
    struct kmap_stats kmap;

    if (!kmap_check()) { /* what is kept, too */
        schedule_fail("kmap_check() before the purge");
    }
    kmap_purge();
    kmap_stats(&kmap);
    if (kmap.blocks != 0 || kmap.arena_free != kmap.arena_bytes) {
        schedule_fail("a block is left that nobody has");
    }
    if (!kmap_check()) {
        schedule_fail("kmap_check()");
    }
}

static void run_rounds(unsigned cpu)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t what = schedule_below(12);

        if (what == 0) {
            kmap_purge();
        } else if (what == 1) {
            shrink_reclaim(1);
        } else if (what < 4) {
            hand_over(cpu);
        } else if (what < 7 && has_wrong_frees) {
            free_wrongly();
        } else if (what == 7 && is_aged) {
            age();
        } else if (holding[cpu].block == 0) {
            take(cpu);
        } else {
            give(cpu);
        }
        sim_poll();
    }
    if (holding[cpu].block != 0) {
        give(cpu);
    }
    scene_meet();
    if (cpu == 0 && holding[SCHEDULE_CPUS].block != 0) {
        give(SCHEDULE_CPUS);
    }
    if (cpu == 0) {
        check_end();
    }
    scene_meet();
}

static void prepare(struct test_random *random)
{
    (void)random;
    has_wrong_frees = false;
    is_aged = false;
    latest = 0;
    kmap_keep(KEPT);
    last_stamp = 0;
    for (unsigned i = 0; i <= SCHEDULE_CPUS; i++) {
        holding[i] = (struct holding){0};
    }
}

static void prepare_wrong_frees(struct test_random *random)
{
    prepare(random);
    has_wrong_frees = true;
}

static const struct scene scene = {.prepare = prepare, .run = run_rounds};
static const struct scene wrong = {
    .prepare = prepare_wrong_frees, .run = run_rounds, .forgive = forgive};

TEST(kmap_schedule, blocks_belong_to_one_on_random_walks)
{
    scene_run_many(SCHEDULE_WALK, &scene);
}

TEST(kmap_schedule, blocks_belong_to_one_by_priorities)
{
    scene_run_many(SCHEDULE_PRIORITIES, &scene);
}

TEST(kmap_schedule, wrong_frees_change_nothing_on_random_walks)
{
    scene_run_many(SCHEDULE_WALK, &wrong);
}

TEST(kmap_schedule, wrong_frees_change_nothing_by_priorities)
{
    scene_run_many(SCHEDULE_PRIORITIES, &wrong);
}

static void prepare_ageing(struct test_random *random)
{
    prepare(random);
    is_aged = true;
}

TEST(kmap_schedule, who_ages_pages_damages_none_of_others)
{
    static const struct scene ageing = {.prepare = prepare_ageing,
                                        .run = run_rounds};

    scene_run_many(SCHEDULE_WALK, &ageing);
}
