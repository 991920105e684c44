/* SPDX-License-Identifier: MIT */
/* selftest: runs the linked tests, and looks for what they left behind. */
#include "kernel/selftest.h"

#include <mm/frame.h>
#include <mm/mm.h>
#include <mm/slab.h>
#include "kernel/console/console.h"
#include "tests/shared/test.h"

/* Frames somebody holds; what the heap keeps in reserve is given back first. */
static uint64_t frames_in_use(void)
{
    struct frame_stats stats;

    slab_drain();
    frame_drain();
    frame_stats(&stats);
    /* Records of a frame that was handed out once stay, by design. */
    return stats.managed - stats.free - stats.metadata;
}

bool selftest_run(const char *pattern)
{
    unsigned run;
    uint64_t before = frames_in_use();
    unsigned failed = test_run(pattern, &run);
    uint64_t after = frames_in_use();
    bool is_sound = mm_check();

    if (run == 0) {
        printk("no test has a name that begins with %s\n", pattern);
    }
    if (before != after) {
        printk("FAILED: %lu frames in use before the tests, %lu after\n",
               before, after);
    }
    if (!is_sound) {
        printk("FAILED: the structures are damaged (above)\n");
    }
    printk("%u passed, %u failed\n", run - failed, failed);
    return run > 0 && failed == 0 && before == after && is_sound;
}
