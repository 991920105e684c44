/* SPDX-License-Identifier: MIT */
/* fuzz: what the fuzz targets have in common. */
#include "tests/fuzz/fuzz.h"

#include <stdarg.h>
#include <stdbool.h>
#include "tests/shared/test.h"

volatile uint64_t fuzz_sink;
uint64_t fuzz_bugs = FUZZ_NO_BUGS;

/* What the simulated machine says to a test; here there is none. */

bool test_is_running(void)
{
    return false;
}

void test_note_bug(const char *text)
{
    if (fuzz_bugs == FUZZ_NO_BUGS) {
        fprintf(stderr, "bug report: %s\n", text);
        abort();
    }
    fuzz_bugs++;
}

void test_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%s:%d: ", file, line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort();
}
