/* SPDX-License-Identifier: MIT */
/* port: the cold hooks of mm/port.h. */
#include <mm/port.h>

#include <stdarg.h>
#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/lib/format.h"
#include "kernel/panic.h"
#include "tests/shared/test.h"

#define BUG_TEXT_MAX 512

unsigned port_cpu_count(void)
{
    return 1;
}

void port_log(const char *format, ...)
{
    va_list arguments;

    printk("mm: ");
    va_start(arguments, format);
    printk_list(format, arguments);
    va_end(arguments);
    printk("\n");
}

/* A test expects it, the command line tolerates it, or it is the end. */
void port_bug(const char *format, ...)
{
    char text[BUG_TEXT_MAX];
    va_list arguments;

    va_start(arguments, format);
    kvsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (test_is_running()) {
        test_note_bug(text);
        return;
    }
    if (!cmdline_is("bug", "continue")) {
        panic("BUG: %s", text);
    }
    printk("BUG: %s\n", text);
    panic_backtrace(cpu_read_rbp());
}

MM_NORETURN void port_panic(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    panic_list(format, arguments);
}
