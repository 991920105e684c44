/* SPDX-License-Identifier: MIT */
/* test_port: what the test runner needs of this kernel. */
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/leaks.h"
#include "kernel/lib/format.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

void test_print(const char *line)
{
    printk("%s\n", line);
}

/* Has the test lost anything? Says what. */
static bool is_free_of_leaks(void)
{
    static uint64_t known; /* by tests before */
    const struct leaks *leaks = leaks_find();

    if (leaks == NULL) {
        return false;
    }
    bool is_clean = leaks->totals.leaked <= known;
    known = is_clean ? leaks->totals.leaked : leaks_print(leaks);
    leaks_forget();
    return is_clean;
}

const char *test_complaint(void)
{
    if (!is_free_of_leaks()) {
        return "objects are leaked (above), or a processor goes on";
    }
    if ((cpu_read_flags() & RFLAGS_IF) != 0) {
        return "interrupts were left on";
    }
    return (cpu_read_flags() & RFLAGS_AC) != 0 ? "EFLAGS.AC was left set"
                                               : NULL;
}

/* Under -icount one tick is one instruction; elsewhere about a cycle. */
const char test_clock_unit[] = "kiloticks";

uint64_t test_clock(void)
{
    return cpu_rdtsc() / 1000;
}

void test_format_list(char *out, size_t size, const char *format,
                      va_list arguments)
{
    kvsnprintf(out, size, format, arguments);
}
