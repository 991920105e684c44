/* SPDX-License-Identifier: MIT */
/* A small test runner for both worlds: the host and the booted kernel. */
#ifndef TESTS_SHARED_TEST_H
#define TESTS_SHARED_TEST_H

#include <mm/types.h>

/*
 * TEST(module, what_holds) { ... CHECK(...); CHECK_EQUAL(a, b); }
 *
 * Tests find each other through a linker section. One ends at its first
 * failed check. A bug report (port_bug) that nobody expected fails the test.
 */
struct test_case {
    const char *name; /* "module.what_holds" */
    void (*run)(void);
};

#define TEST(module, what)                                                     \
    static void test_##module##_##what(void);                                  \
    static const struct test_case test_case_##module##_##what MM_SECTION(      \
        "test_cases") = {#module "." #what, test_##module##_##what};           \
    static void test_##module##_##what(void)

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            test_fail(__FILE__, __LINE__, "%s", #condition);                   \
            return;                                                            \
        }                                                                      \
    } while (0)

/* Integers of any type, printed when they differ. */
#define CHECK_EQUAL(actual, expected)                                          \
    do {                                                                       \
        uint64_t test_actual = (uint64_t)(actual);                             \
        uint64_t test_expected = (uint64_t)(expected);                         \
        if (test_actual != test_expected) {                                    \
            test_fail(__FILE__, __LINE__, "%s is 0x%llx, expected 0x%llx",     \
                      #actual, (unsigned long long)test_actual,                \
                      (unsigned long long)test_expected);                      \
            return;                                                            \
        }                                                                      \
    } while (0)

/* Return from a test whose helper has failed a CHECK. */
#define CHECK_HELPER(call)                                                     \
    do {                                                                       \
        call;                                                                  \
        if (test_has_failed()) {                                               \
            return;                                                            \
        }                                                                      \
    } while (0)

/* The latest bug report contains @text; reports so far count as expected. */
#define CHECK_BUG(text) CHECK(test_take_bug(text))

void test_fail(const char *file, int line, const char *format, ...)
    MM_PRINTF(3, 4);
bool test_has_failed(void);
bool test_take_bug(const char *text);
/* The latest bug report, whether it was taken or not. */
const char *test_last_bug(void);

/* The host's side: port_bug() ends here while a test runs. */
void test_note_bug(const char *text);
bool test_is_running(void);

/* Printed by the runner, one line of TAP each; the environment supplies it. */
void test_print(const char *line);
/* What a test must not leave behind, in words; NULL if all is well. */
const char *test_complaint(void);
/* A clock for the time behind each test, and its unit: "us". */
uint64_t test_clock(void);
extern const char test_clock_unit[];

/* xorshift64*: the same sequence everywhere for the same seed. */
struct test_random {
    uint64_t state;
};
void test_random_init(struct test_random *random, uint64_t seed);
uint64_t test_random_next(struct test_random *random);
/* Uniform enough in 0 .. limit-1; @limit is not 0. */
uint64_t test_random_below(struct test_random *random, uint64_t limit);
/* Seed of this run (SEED=, seed=), printed with a model test's failure. */
uint64_t test_seed(void);
void test_set_seed(uint64_t seed);

/*
 * Run all tests whose name begins with @pattern ("" = all) and print TAP.
 * Return: number of failed tests; @out_run how many ran.
 */
unsigned test_run(const char *pattern, unsigned *out_run);
/* Print the names. */
void test_list(void);

#endif
