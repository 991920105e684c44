/* SPDX-License-Identifier: MIT */
/* Tests of leak where a CPU stands still in the middle of the heap. */
#include <stdio.h>
#include <string.h>

#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/leak.h>
#include <mm/quarantine.h>
#include <mm/slab.h>
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

/*
 * At risk: a scan while another CPU makes, drains or destroys something with
 * interrupts on: that it follows what is half taken down, takes the marks of
 * one slab for those of another, or calls leaked what a CPU has in hand. The
 * host stops its CPUs where interrupts are on, so the scan comes at each such
 * moment of each act. What is lost before is found every time, and nothing
 * else; roots are old pointers to what comes and goes.
 */

#define RAM_BYTES (16 * MiB)
#define LOST      64 /* of the first slab of all, beside what start-up keeps */
#define COMING    40
#define MOMENTS   4000

static struct slab_cache *cache;
static void *old[COMING + 1];
static unsigned moments; /* until the scan */
static struct leak_group group;
static struct leak_totals totals;
static enum mm_status status;

static uint64_t count_leaked(void)
{
    status = leak_begin();
    leak_scan(old, old + COMING + 1);
    (void)leak_end(&group, 1, &totals);
    return totals.leaked;
}

static void scan(void)
{
    if (moments > 0 && --moments == 0) {
        sim_set_cpu(1);
        (void)count_leaked();
        sim_set_cpu(0);
    }
}

static void boot(void)
{
    sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
    for (unsigned i = 0; i < LOST; i++) {
        CHECK(kmalloc(16) != NULL);
    }
    memset(old, 0, sizeof(old));
}

/* --- acts ----------------------------------------------------------------- */

static void fill(void)
{
    cache = slab_create("coming", 200, 0, NULL);
    CHECK(cache != NULL);
    for (unsigned i = 0; i < COMING; i++) {
        sim_set_cpu(i % 2);
        old[i] = slab_alloc(cache);
    }
    for (unsigned i = 0; i < COMING; i++) {
        slab_free(cache, old[i]);
    }
    sim_set_cpu(0);
}

static void destroy(void)
{
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
}

static void create(void)
{
    cache = slab_create("made", 100, 0, NULL);
    CHECK(cache != NULL);
}

static void make_large(void)
{
    old[COMING] = kmalloc(3 * PAGE_BYTES);
    CHECK(old[COMING] != NULL);
}

/* Nobody else has a pointer to it. */
static void free_large(void)
{
    void *block = old[COMING];

    old[COMING] = NULL;
    kfree(block);
}

static void guard(void)
{
    CHECK_EQUAL(guard_enable(1), MM_OK);
}

static void guard_no_more(void)
{
    CHECK_EQUAL(guard_disable(), MM_OK);
}

static void fill_quarantine(void)
{
    CHECK_EQUAL(quarantine_set(64 * KiB), MM_OK);
    fill();
}

static const struct {
    const char *name;
    void (*prepare)(void); /* or NULL */
    void (*act)(void);
} acts[] = {
    {"destroy a cache", fill, destroy},
    {"drain all", fill, slab_drain},
    {"make a cache", NULL, create},
    {"make a large block", NULL, make_large},
    {"free a large block", make_large, free_large},
    {"drain what waits", fill_quarantine, destroy},
    {"begin to guard", fill, guard},
    {"guard no more", guard, guard_no_more},
};

static void boot_and_prepare(size_t i)
{
    CHECK_HELPER(boot());
    if (acts[i].prepare != NULL) {
        CHECK_HELPER(acts[i].prepare());
    }
}

static void judge(size_t i, unsigned moment)
{
    CHECK_HELPER(boot_and_prepare(i));
    uint64_t lost = count_leaked(); /* and magazines are empty by it */
    CHECK(lost >= LOST);
    CHECK_HELPER(boot_and_prepare(i));
    moments = moment;
    status = MM_OK;
    sim_set_interrupt(scan);
    acts[i].act();
    sim_set_interrupt(NULL);
    CHECK_EQUAL(status, MM_OK);
    /* Frames that just go back are roots, and have old pointers in them. */
    CHECK(moments > 0 || totals.leaked <= lost);
    CHECK(moments > 0 || totals.leaked == lost || count_leaked() == lost);
}

TEST(leak, at_each_moment_what_is_lost_is_found)
{
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        unsigned moment = 0;

        do {
            judge(i, ++moment);
            if (test_has_failed()) {
                printf("# %s, moment %u\n", acts[i].name, moment);
                return;
            }
        } while (moments == 0 && moment < MOMENTS);
        CHECK(moment > 2 && moment < MOMENTS);
    }
}
