/* SPDX-License-Identifier: MIT */
/* run: what the command line asks for once memory works. */
#include "kernel/kernel.h"

#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/monitor/monitor.h"
#include "kernel/selftest.h"
#include "kernel/shutdown.h"
#include "kernel/tour.h"
#include "tests/shared/test.h"

uint64_t kernel_ready_clock;

/* With exit=debug the verdict ends QEMU. */
static void conclude(bool success)
{
    if (cmdline_is("exit", "debug")) {
        shutdown_debug_exit(success ? SHUTDOWN_PASSED : SHUTDOWN_FAILED);
    }
}

/* test=PATTERN, seed=NUMBER */
static void run_tests(const char *pattern)
{
    test_set_seed(cmdline_number("seed", test_seed()));
    conclude(selftest_run(cmdline_is("test", "all") ? "" : pattern));
}

/* cmd="COMMAND; COMMAND" */
static void run_commands(const char *commands)
{
    printk("mm> %s\n", commands);
    conclude(monitor_execute(commands));
}

MM_NORETURN void kernel_run(void)
{
    const char *tests = cmdline_get("test");
    const char *commands = cmdline_get("cmd");

    kernel_ready_clock = cpu_rdtsc();
    if (tests != NULL) {
        run_tests(tests);
    }
    if (commands != NULL) {
        run_commands(commands);
    }
    if (tests == NULL && commands == NULL) {
        tour_run();
        printk("Type help for the commands. Ctrl-A X leaves QEMU.\n");
    }
    monitor_run();
}
