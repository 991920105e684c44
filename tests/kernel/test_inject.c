/* SPDX-License-Identifier: MIT */
/* Tests of the monitor's command that lets allocations fail. */
/*
 * At risk: failures that stay on though they were turned off, or go off by a
 * command that meant something else. Provoked with words too many.
 */
#include <mm/frame.h>

#include "kernel/monitor/monitor.h"
#include "tests/shared/test.h"

#if MM_INJECT
static bool has_failures(void)
{
    pfn_t pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);

    if (!pfn_is_none(pfn)) {
        frame_free(pfn, 0);
    }
    return pfn_is_none(pfn);
}

TEST(inject, off_stands_alone)
{
    bool is_on = monitor_execute("inject every 1 has_failures");
    bool fails = has_failures();
    bool takes_one = monitor_execute("inject off has_failures");
    bool takes_two = monitor_execute("inject off x y");
    bool fails_on = has_failures();
    bool is_off = monitor_execute("inject off");

    CHECK(is_on && fails);
    CHECK(!takes_one && !takes_two);
    CHECK(fails_on);
    CHECK(is_off && !has_failures());
}
#endif
