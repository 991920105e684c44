/* SPDX-License-Identifier: MIT */
/* test_port: what the test runner needs of this kernel. */
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/lib/format.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

void test_print(const char *line)
{
    printk("%s\n", line);
}

const char *test_complaint(void)
{
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
