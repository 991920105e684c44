/* SPDX-License-Identifier: MIT */
/* selftest: runs the linked tests, and looks for what they left behind. */
#include "kernel/selftest.h"

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/mm.h>
#include <mm/pt.h>
#include <mm/slab.h>
#include "kernel/console/console.h"
#include "kernel/idle.h"
#include "tests/shared/test.h"

/* More blocks at a time than any test has. */
#define WARM_UP_BLOCKS 64

/* The arena's hash of its blocks grows and stays: before things are counted. */
static void warm_up(void)
{
    void *block[WARM_UP_BLOCKS];

    for (size_t i = 0; i < WARM_UP_BLOCKS; i++) {
        block[i] = kmap_alloc(PAGE_BYTES, KMAP_LAZY, "warm-up");
    }
    for (size_t i = 0; i < WARM_UP_BLOCKS; i++) {
        kmap_free(block[i]);
    }
}

/* What somebody holds. Which slabs objects lie in is chance, and is left out.
 */
struct holdings {
    uint64_t frames;
    uint64_t objects;
};

static struct holdings count_holdings(void)
{
    struct holdings held = {0, 0};
    struct frame_stats stats;

    kmap_purge();
    slab_drain();
    frame_drain();
    frame_stats(&stats);
    /*
     * Records of a frame that was handed out once stay, by design, and so do
     * tables of the kernel.
     */
    held.frames = stats.managed - stats.free - stats.metadata -
                  stats.by_type[FRAME_SLAB] - pt_kernel.tables;
    for (const struct slab_cache *cache = slab_next(NULL); cache != NULL;
         cache = slab_next(cache)) {
        struct slab_stats slab;

        slab_stats(cache, &slab);
        held.objects += slab.live;
    }
    return held;
}

bool selftest_run(const char *pattern)
{
    unsigned run;

    idle_suspend(); /* figures are compared */
    warm_up();
    struct holdings before = count_holdings();
    unsigned failed = test_run(pattern, &run);
    struct holdings after = count_holdings();
    bool is_balanced =
        before.frames == after.frames && before.objects == after.objects;
    bool is_sound = mm_check();
    idle_resume();

    if (run == 0) {
        printk("no test has a name that begins with %s\n", pattern);
    }
    if (!is_balanced) {
        printk("FAILED: %lu frames and %lu objects in use before the tests, "
               "%lu and %lu after\n",
               before.frames, before.objects, after.frames, after.objects);
    }
    if (!is_sound) {
        printk("FAILED: the structures are damaged (above)\n");
    }
    printk("%u passed, %u failed\n", run - failed, failed);
    return run > 0 && failed == 0 && is_balanced && is_sound;
}
