/* SPDX-License-Identifier: MIT */
/* guard_option: one heap object in how many is guarded. */
#include "kernel/guard_option.h"

#include <mm/frame.h>
#include <mm/guard.h>
#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/lib/number.h"
#include "kernel/lib/string.h"

/* With less the pool would be more than a 32nd of it: only if asked for. */
#define ENOUGH_BYTES (64 * MiB)

static bool has_enough(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    return stats.managed * PAGE_BYTES >= ENOUGH_BYTES;
}

/* What the command line asks for; 0: nothing is to be guarded. */
static uint32_t wanted_interval(void)
{
    const char *word = cmdline_get("guard");
    uint64_t number;

    if (word == NULL) {
        return has_enough() ? GUARD_INTERVAL : 0;
    }
    if (strcmp(word, "off") == 0) {
        return 0;
    }
    if (number_parse(word, &number) == MM_OK && number > 0 &&
        number <= GUARD_INTERVAL_MAX) {
        return (uint32_t)number;
    }
    printk("warning: guard= knows off and a number from 1 to %u, not \"%s\"\n",
           GUARD_INTERVAL_MAX, word);
    return GUARD_INTERVAL;
}

void guard_option_start(void)
{
    uint32_t interval = wanted_interval();
    enum mm_status status = interval == 0 ? MM_OK : guard_enable(interval);

    if (status != MM_OK) {
        printk("warning: no heap objects are guarded: %s for the pool\n",
               mm_status_name(status));
    }
}
