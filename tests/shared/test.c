/* SPDX-License-Identifier: MIT */
/* The runner: finds the tests, runs them, prints TAP. */
#include "tests/shared/test.h"

#include <stdarg.h>
#include "tests/shared/text.h"

/* Set by the linker around the section of that name. */
extern const struct test_case __start_test_cases[];
extern const struct test_case __stop_test_cases[];

static struct {
    bool is_running;
    bool has_failed;
    unsigned bugs; /* reports since the last test_take_bug() */
    uint64_t seed;
    char reason[256];
    char bug[512];
} state = {.seed = 1};

void test_fail(const char *file, int line, const char *format, ...)
{
    char message[200];
    va_list arguments;

    va_start(arguments, format);
    test_format_list(message, sizeof(message), format, arguments);
    va_end(arguments);
    state.has_failed = true;
    test_format(state.reason, sizeof(state.reason), "%s:%d: %s (seed %llu)",
                file, line, message, (unsigned long long)state.seed);
}

bool test_has_failed(void)
{
    return state.has_failed;
}

bool test_is_running(void)
{
    return state.is_running;
}

void test_note_bug(const char *text)
{
    state.bugs++;
    test_format(state.bug, sizeof(state.bug), "%s", text);
}

bool test_take_bug(const char *text)
{
    bool found = state.bugs > 0 && test_contains(state.bug, text);

    if (found) {
        state.bugs = 0;
    }
    return found;
}

const char *test_last_bug(void)
{
    return state.bug;
}

uint64_t test_seed(void)
{
    return state.seed;
}

void test_set_seed(uint64_t seed)
{
    state.seed = seed;
}

/* Run one test and print its line; true if it passed. */
static bool run_one(const struct test_case *test, unsigned number)
{
    char line[640];
    uint64_t start = test_clock();

    state.has_failed = false;
    state.bugs = 0;
    state.is_running = true;
    test->run();
    state.is_running = false;
    const char *complaint = state.has_failed ? NULL : test_complaint();
    if (complaint != NULL) {
        test_fail(test->name, 0, "%s", complaint);
    }
    if (!state.has_failed && state.bugs > 0) {
        test_fail(test->name, 0, "unexpected bug report: %.160s", state.bug);
    }
    test_format(line, sizeof(line), "%s %u - %s # %llu %s",
                state.has_failed ? "not ok" : "ok", number, test->name,
                (unsigned long long)(test_clock() - start), test_clock_unit);
    test_print(line);
    if (state.has_failed) {
        test_format(line, sizeof(line), "#   %s", state.reason);
        test_print(line);
    }
    return !state.has_failed;
}

unsigned test_run(const char *pattern, unsigned *out_run)
{
    char line[64];
    unsigned run = 0;
    unsigned failed = 0;

    for (const struct test_case *test = __start_test_cases;
         test < __stop_test_cases; test++) {
        if (test_begins_with(test->name, pattern)) {
            run++;
            failed += run_one(test, run) ? 0 : 1;
        }
    }
    test_format(line, sizeof(line), "1..%u", run);
    test_print(line);
    *out_run = run;
    return failed;
}

void test_list(void)
{
    for (const struct test_case *test = __start_test_cases;
         test < __stop_test_cases; test++) {
        test_print(test->name);
    }
}
