/* SPDX-License-Identifier: MIT */
/* console: one stream of text to log, serial port and screen; and input. */
/*
 * Locking  `holder` is the CPU that prints. It may come again, from an
 *          interrupt, an NMI or a fault: it passes. While it prints it waits
 *          for no other CPU, and no handler of an interrupt does, so those
 *          that wait for it make no circle.
 */
#include "kernel/console/console.h"

#include <limits.h>
#include <stdatomic.h>

#include "kernel/console/keyboard.h"
#include "kernel/console/screen.h"
#include "kernel/console/serial.h"
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/irq.h"
#include "kernel/lib/format.h"
#include "kernel/lib/string.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"

#define NOBODY UINT_MAX

static _Atomic unsigned holder = NOBODY; /* (A) */

/* (holder) Who wrote the last line; NOBODY once it has an end. */
static unsigned unfinished = NOBODY;

void console_init(void)
{
    serial_init();
}

/* --- who prints ----------------------------------------------------------- */

static bool try_to_enter(void)
{
    unsigned expected = NOBODY;

    /* Acquire: pairs with the release in console_leave(). */
    return atomic_compare_exchange_weak_explicit(
        &holder, &expected, percpu_this()->index, memory_order_acquire,
        memory_order_relaxed);
}

/* Whoever holds the console has been stopped; who has no last words stops. */
static bool wait_for_last_words(void)
{
    if (!panic_is_mine()) {
        smp_stop();
    }
    console_take_over();
    return true;
}

bool console_is_mine(void)
{
    return atomic_load_explicit(&holder, memory_order_relaxed) ==
           percpu_this()->index;
}

bool console_enter(void)
{
    if (console_is_mine()) {
        return false;
    }
    while (!try_to_enter()) {
        if (panic_is_active()) {
            return wait_for_last_words();
        }
        cpu_pause();
    }
    return true;
}

void console_leave(bool is_outermost)
{
    if (is_outermost) {
        atomic_store_explicit(&holder, NOBODY, memory_order_release);
        irq_catch_up();
    }
}

void console_take_over(void)
{
    atomic_store_explicit(&holder, percpu_this()->index, memory_order_relaxed);
}

/* --- printing ------------------------------------------------------------- */

static void show(const char *text, size_t length)
{
    serial_write(text, length);
    screen_write(text, length);
}

void console_show(const char *text, size_t length)
{
    bool is_outermost = console_enter();

    show(text, length);
    console_leave(is_outermost);
}

static void write(const char *text, size_t length)
{
    log_write(text, length);
    show(text, length);
}

void console_write(const char *text, size_t length)
{
    unsigned me = percpu_this()->index;
    bool is_outermost = console_enter();

    if (unfinished != NOBODY && unfinished != me) {
        write("\n", 1);
    }
    if (length > 0) {
        write(text, length);
        unfinished = text[length - 1] == '\n' ? NOBODY : me;
    }
    console_leave(is_outermost);
}

void printk_list(const char *format, va_list arguments)
{
    char text[PRINTK_MAX];
    size_t length = (size_t)kvsnprintf(text, sizeof(text), format, arguments);

    if (length >= sizeof(text)) {
        length = sizeof(text) - 1;
        memcpy(text + length - 4, "...\n", 4);
    }
    console_write(text, length);
}

void printk(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    printk_list(format, arguments);
    va_end(arguments);
}

int console_getchar_nonblocking(void)
{
    int byte = serial_read();

    return byte >= 0 ? byte : keyboard_read();
}

int console_getchar(void)
{
    bool is_busy = true;

    /* Nothing comes in between the last look and the sleep. */
    for (;;) {
        int byte = console_getchar_nonblocking();
        if (byte >= 0) {
            return byte;
        }
        if (!is_busy) {
            cpu_wait_for_interrupt();
        }
        is_busy = idle_work();
    }
}
