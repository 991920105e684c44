/* SPDX-License-Identifier: MIT */
/* schedule_scene: spaces that CPUs under the scheduler share; many runs. */
#include "tests/host/schedule_scene.h"

#include <stdio.h>
#include <stdlib.h>

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/port.h>
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

/* Of each test, unless the environment says otherwise: two seconds. */
#define STEPS (UINT64_C(20) * 1000 * 1000)

struct pt scene_space[SCENE_SPACES];

struct scene_place scene_place(struct pt *pt)
{
    return (struct scene_place){pt, pt->is_kernel ? SCENE_KERNEL : SCENE_USER};
}

vaddr_t scene_page(const struct scene_place *place, unsigned page)
{
    return place->base + page * PAGE_BYTES;
}

struct pt_attr scene_attr(const struct scene_place *place, unsigned flags)
{
    return pt_attr(PT_OWNED | flags | (place->pt->is_kernel ? 0 : PT_USER));
}

void scene_open_at(struct pt *pt, vaddr_t start, uint64_t bytes,
                   struct tlb_batch *batch, struct pt_cursor *out)
{
    if (pt_open(pt, start, start + bytes, batch, out) != MM_OK) {
        schedule_fail("a range cannot be opened");
    }
}

void scene_open(const struct scene_place *place, struct tlb_batch *batch,
                struct pt_cursor *out)
{
    scene_open_at(place->pt, place->base, SCENE_PAGES * PAGE_BYTES, batch, out);
}

void scene_shut(struct pt_cursor *cursor, struct tlb_batch *batch)
{
    pt_close(cursor);
    tlb_commit(batch);
}

void scene_touch(vaddr_t page, unsigned access)
{
    paddr_t physical;

    access |= page < SIM_DIRECT ? WALK_USER : 0;
    if (sim_translate(page, access, &physical) == WALK_ALLOWED &&
        (access & WALK_WRITE)) {
        *(uint8_t *)phys_to_virt(physical) = 1;
    }
    sim_poll();
}

static unsigned arrived; /* programs, all times together */

/* Nobody comes again before all have left: the rest of a round is known. */
void scene_meet(void)
{
    schedule_lock();
    unsigned before = arrived++;
    unsigned due = before - before % port_cpu_count() + port_cpu_count();

    while (arrived < due) {
        schedule_wait();
    }
}

/* --- runs ----------------------------------------------------------------- */

static void unmap_kernel_pages(void)
{
    struct scene_place kernel = scene_place(&pt_kernel);
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;

    scene_open(&kernel, &batch, &cursor);
    CHECK_EQUAL(
        pt_unmap(&cursor, SCENE_KERNEL, SCENE_PAGES * PAGE_BYTES, &reached),
        MM_OK);
    scene_shut(&cursor, &batch);
}

/* What a run leaves behind, taken away by CPU 0 alone, is nothing. */
static void end_run(uint64_t frames)
{
    struct audit_verdict verdict;

    CHECK_EQUAL(sim_stale(), 0);
    CHECK(pt_audit(&pt_kernel, &verdict));
    for (unsigned i = 0; i < SCENE_SPACES; i++) {
        CHECK(pt_audit(&scene_space[i], &verdict));
        pt_fini(&scene_space[i]);
    }
    CHECK_HELPER(unmap_kernel_pages());
    CHECK_EQUAL(frames_of_spaces(), frames);
    CHECK(frame_check());
}

static void report(const struct schedule_plan *plan, const char *verdict)
{
    char text[700];

    snprintf(text, sizeof(text), "# %u CPUs, parts 0x%x, pace %u: %s",
             plan->cpus, tlb_parts(), plan->pace, verdict);
    test_print(text);
    snprintf(text, sizeof(text), "# again: SEED=%llu STEPS=1",
             (unsigned long long)plan->seed);
    test_print(text);
}

/* A run has ended in the middle of the library: nothing can run after it. */
static bool is_spoilt;

static void run_plan(const struct scene *scene, struct schedule_plan plan,
                     unsigned parts, struct test_random *random)
{
    plan.run = scene->run;
    plan.guess = scene->guess;
    plan.see = scene->see;
    plan.forgive = scene->forgive;
    sim_boot_cpus(SCENE_RAM_BYTES, plan.cpus, parts);
    uint64_t frames = frames_of_spaces();
    for (unsigned i = 0; i < SCENE_SPACES; i++) {
        CHECK_EQUAL(pt_init(&scene_space[i]), MM_OK);
    }
    arrived = 0;
    if (scene->prepare != NULL) {
        scene->prepare(random);
    }
    const char *verdict = schedule_run(&plan);
    if (verdict != NULL) {
        is_spoilt = true;
        report(&plan, verdict);
    }
    CHECK(verdict == NULL);
    CHECK_HELPER(end_run(frames));
}

static void run_once(enum schedule_strategy strategy, const struct scene *scene,
                     uint64_t seed)
{
    static const unsigned pace[] = {20, 60, 200, 600, 2000};
    struct test_random random;
    struct schedule_plan plan = {.seed = seed, .strategy = strategy};

    test_random_init(&random, seed);
    plan.cpus = 2 + (unsigned)test_random_below(&random, SCHEDULE_CPUS - 1);
    plan.pace = pace[test_random_below(&random, 5)];
    unsigned parts = sim_part_sets[test_random_below(&random, SIM_PART_SETS)];
    run_plan(scene, plan, parts, &random);
}

void scene_run_chosen(const struct scene *scene, unsigned cpus,
                      const struct schedule_chooser *chooser)
{
    struct schedule_plan plan = {.cpus = cpus, .pace = 1, .chooser = chooser};

    CHECK(!is_spoilt);
    run_plan(scene, plan, SIM_ALL_PARTS, NULL);
}

static uint64_t wanted_steps(void)
{
    const char *text = getenv("STEPS");

    return text != NULL ? strtoull(text, NULL, 0) : STEPS;
}

void scene_run_many(enum schedule_strategy strategy, const struct scene *scene)
{
    uint64_t begin = schedule_steps();
    uint64_t seed = test_seed();
    uint64_t runs = 0;
    char text[80];

    CHECK(!is_spoilt);
    for (; schedule_steps() - begin < wanted_steps(); runs++) {
        test_set_seed(seed + runs);
        CHECK_HELPER(run_once(strategy, scene, seed + runs));
    }
    test_set_seed(seed);
    snprintf(text, sizeof(text), "# seeds %llu to %llu: %llu steps",
             (unsigned long long)seed, (unsigned long long)(seed + runs - 1),
             (unsigned long long)(schedule_steps() - begin));
    test_print(text);
}
