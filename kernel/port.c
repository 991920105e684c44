/* SPDX-License-Identifier: MIT */
/* port: the cold hooks of mm/port.h. */
#include <mm/port.h>

#include <stdarg.h>
#include "base/check.h"
#include "kernel/apic.h"
#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/lib/format.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"
#include "tests/shared/test.h"

#define BUG_TEXT_MAX 512
#define LOG_TEXT_MAX (PRINTK_MAX - 8) /* with what stands around it */

unsigned port_cpu_count(void)
{
    return smp_possible();
}

void port_send_tlb_interrupt(unsigned cpu)
{
    ASSERT(smp_may_wait()); /* who sends this waits for the answer */
    apic_send(percpu_of(cpu)->apic_id, APIC_VECTOR_TLB);
}

void port_send_frame_interrupt(unsigned cpu)
{
    ASSERT(smp_may_wait()); /* who sends this waits for the frames */
    apic_send(percpu_of(cpu)->apic_id, APIC_VECTOR_FRAME);
}

void port_log(const char *format, ...)
{
    char text[LOG_TEXT_MAX];
    va_list arguments;

    va_start(arguments, format);
    kvsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    printk("mm: %s\n", text); /* in one piece: others print, too */
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
