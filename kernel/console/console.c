/* SPDX-License-Identifier: MIT */
/* console: one stream of text to log, serial port and screen; and input. */
#include "kernel/console/console.h"

#include "kernel/console/keyboard.h"
#include "kernel/console/screen.h"
#include "kernel/console/serial.h"
#include "kernel/cpu.h"
#include "kernel/lib/format.h"
#include "kernel/lib/string.h"

void console_init(void)
{
    serial_init();
}

void console_show(const char *text, size_t length)
{
    serial_write(text, length);
    screen_write(text, length);
}

void console_write(const char *text, size_t length)
{
    log_write(text, length);
    console_show(text, length);
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
    for (;;) {
        int byte = console_getchar_nonblocking();
        if (byte >= 0) {
            return byte;
        }
        cpu_wait_for_interrupt();
    }
}
