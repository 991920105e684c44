/* SPDX-License-Identifier: MIT */
/* schedule_scene: spaces that CPUs under the scheduler share; many runs. */
#ifndef TESTS_HOST_SCHEDULE_SCENE_H
#define TESTS_HOST_SCHEDULE_SCENE_H

#include <mm/pt.h>
#include "tests/host/schedule.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/test.h"

#define SCENE_RAM_BYTES (24 * MiB)

/* Pages on both sides of where tables meet, so that tables come and go. */
#define SCENE_PAGES       8
#define SCENE_TABLE_PAGES (SCENE_PAGES / 2)
#define SCENE_USER        (GiB - SCENE_TABLE_PAGES * PAGE_BYTES)
#define SCENE_KERNEL      (SIM_KMAP + 64 * GiB - SCENE_TABLE_PAGES * PAGE_BYTES)

#define SCENE_SPACES 2
extern struct pt scene_space[SCENE_SPACES];

/* The pages of one of them, or of the kernel. */
struct scene_place {
    struct pt *pt;
    vaddr_t base;
};
struct scene_place scene_place(struct pt *pt);
vaddr_t scene_page(const struct scene_place *place, unsigned page);
struct pt_attr scene_attr(const struct scene_place *place, unsigned flags);
void scene_open(const struct scene_place *place, struct tlb_batch *batch,
                struct pt_cursor *out);
/* The same of any range. */
void scene_open_at(struct pt *pt, vaddr_t start, uint64_t bytes,
                   struct tlb_batch *batch, struct pt_cursor *out);
void scene_shut(struct pt_cursor *cursor, struct tlb_batch *batch);
/* A user's access, or the kernel's, and then time for an interrupt. */
void scene_touch(vaddr_t page, unsigned access);

/* All programs wait for each other, any number of times. */
void scene_meet(void);

/* What the CPUs do; the members as in struct schedule_plan. */
struct scene {
    void (*prepare)(struct test_random *random); /* before each run, or NULL */
    void (*run)(unsigned cpu);
    void (*guess)(void);
    void (*see)(const volatile void *address);
    bool (*forgive)(const char *text);
};

/*
 * Runs with one seed after the other, on machines of all kinds, until enough
 * steps have been made; after each everything is sound and given back.
 */
void scene_run_many(enum schedule_strategy strategy, const struct scene *scene);

/* One run in which @chooser says who goes on. */
void scene_run_chosen(const struct scene *scene, unsigned cpus,
                      const struct schedule_chooser *chooser);

#endif
