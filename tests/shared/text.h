/* SPDX-License-Identifier: MIT */
/* Text for the test runner; each world has its own formatter behind it. */
#ifndef TESTS_SHARED_TEXT_H
#define TESTS_SHARED_TEXT_H

#include <stdarg.h>
#include <mm/types.h>

/* vsnprintf of the world the tests run in (libc, or kernel/lib/format.c). */
void test_format_list(char *out, size_t size, const char *format,
                      va_list arguments);

static inline void MM_PRINTF(3, 4)
    test_format(char *out, size_t size, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    test_format_list(out, size, format, arguments);
    va_end(arguments);
}

static inline bool test_begins_with(const char *text, const char *start)
{
    while (*start != '\0' && *text == *start) {
        text++;
        start++;
    }
    return *start == '\0';
}

static inline bool test_contains(const char *text, const char *part)
{
    for (; *text != '\0'; text++) {
        if (test_begins_with(text, part)) {
            return true;
        }
    }
    return *part == '\0';
}

#endif
