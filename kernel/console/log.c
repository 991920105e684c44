/* SPDX-License-Identifier: MIT */
/* log: the latest 64 KiB of everything printed, for dmesg. */
#include "kernel/console/console.h"

#define LOG_BYTES (64 * KiB)

static char ring[LOG_BYTES];
static uint64_t written; /* bytes since start; the next goes there mod size */

void log_write(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        ring[written % LOG_BYTES] = text[i];
        written++;
    }
}

void log_read(void (*write)(const char *text, size_t length))
{
    bool is_outermost = console_enter();
    uint64_t end = written; /* what @write itself logs is not read */
    uint64_t start = end > LOG_BYTES ? end - LOG_BYTES : 0;
    uint64_t first = start % LOG_BYTES;
    uint64_t length = end - start;
    uint64_t until_edge = LOG_BYTES - first;

    if (length > until_edge) {
        write(ring + first, until_edge);
        write(ring, length - until_edge);
    } else {
        write(ring + first, length);
    }
    console_leave(is_outermost);
}
