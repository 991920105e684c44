/* SPDX-License-Identifier: MIT */
/* format: the kernel's printf against the C library's. */
#include "tests/shared/test.h"

#include <stdio.h>
#include <string.h>
#include "kernel/lib/format.h"

/*
 * At risk: the interplay of flags, width and precision, which has more cases
 * than anybody lists, and the buffer's edge. Provoked by specifications put
 * together at random, with values from the edges of each type, printed by
 * both functions into buffers that are often too small.
 */

#define CASES      20000
#define TEXT_BYTES 128

/* Bytes of which the test asserts that nobody wrote to them. */
#define CANARY 0x7e

static const uint64_t edges[] = {
    0,          1,
    7,          8,
    9,          10,
    15,         16,
    99,         100,
    127,        128,
    255,        256,
    32767,      32768,
    65535,      65536,
    INT32_MAX,  (uint64_t)INT32_MAX + 1,
    UINT32_MAX, (uint64_t)UINT32_MAX + 1,
    INT64_MAX,  (uint64_t)INT64_MAX + 1,
    UINT64_MAX,
};
#define EDGES (sizeof(edges) / sizeof(edges[0]))

static uint64_t random_value(struct test_random *random)
{
    uint64_t value = test_random_next(random);

    if (test_random_below(random, 2) == 0) {
        value = edges[test_random_below(random, EDGES)];
    }
    return test_random_below(random, 4) == 0 ? 0 - value : value;
}

/* "%", flags, width, precision; without length and conversion. */
static void random_prefix(struct test_random *random, const char *flags,
                          char *out, size_t size)
{
    size_t at = 0;

    out[at++] = '%';
    for (; *flags != '\0'; flags++) {
        if (test_random_below(random, 4) == 0) {
            out[at++] = *flags;
        }
    }
    out[at] = '\0';
    if (test_random_below(random, 2) == 0) {
        at += (size_t)snprintf(out + at, size - at, "%u",
                               (unsigned)test_random_below(random, 30) + 1);
    }
    if (test_random_below(random, 3) == 0) {
        snprintf(out + at, size - at, ".%u",
                 (unsigned)test_random_below(random, 25));
    }
}

/* What one formatter made of it. */
struct result {
    int length;
    char text[TEXT_BYTES];
};

static bool is_same(const struct result *a, const struct result *b)
{
    return a->length == b->length &&
           memcmp(a->text, b->text, sizeof(a->text)) == 0;
}

static void MM_PRINTF(3, 4)
    expect_same(size_t size, struct result *out, const char *format, ...)
{
    struct result expected;
    va_list ours;
    va_list theirs;

    va_start(ours, format);
    va_copy(theirs, ours);
    memset(expected.text, CANARY, sizeof(expected.text));
    memset(out->text, CANARY, sizeof(out->text));
    expected.length = vsnprintf(expected.text, size, format, theirs);
    out->length = kvsnprintf(out->text, size, format, ours);
    va_end(theirs);
    va_end(ours);
    /* Behind the final 0 libc may leave what it likes; we may not. */
    size_t used = size == 0 ? 0 : strlen(expected.text) + 1;
    memset(expected.text + used, CANARY, sizeof(expected.text) - used);
    if (!is_same(out, &expected)) {
        test_fail(__FILE__, __LINE__, "format \"%s\": %d, expected %d", format,
                  out->length, expected.length);
    }
}

static size_t random_size(struct test_random *random)
{
    return test_random_below(random, 4) == 0 ? test_random_below(random, 20)
                                             : TEXT_BYTES;
}

TEST(format, integers_agree_with_the_c_library)
{
    static const char *const lengths[] = {"hh", "h", "", "l", "ll", "z"};
    static const char conversions[] = "diuxXo";
    struct test_random random;
    struct result result;

    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < CASES; i++) {
        char prefix[32];
        char format[48];
        unsigned length = (unsigned)test_random_below(&random, 6);
        char conversion = conversions[test_random_below(&random, 6)];
        uint64_t value = random_value(&random);
        random_prefix(&random, "-0+ #", prefix, sizeof(prefix));
        snprintf(format, sizeof(format), "<%s%s%c>", prefix, lengths[length],
                 conversion);
        if (length >= 3) {
            CHECK_HELPER(expect_same(random_size(&random), &result, format,
                                     (unsigned long)value));
        } else {
            CHECK_HELPER(expect_same(random_size(&random), &result, format,
                                     (unsigned)value));
        }
    }
}

TEST(format, strings_agree_with_the_c_library)
{
    static const char *const texts[] = {"", "a", "frame", "a longer sentence"};
    struct test_random random;
    struct result result;

    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < CASES / 4; i++) {
        char prefix[32];
        char format[48];
        random_prefix(&random, "-", prefix, sizeof(prefix));
        snprintf(format, sizeof(format), "%ss|%%%%|%%c", prefix);
        CHECK_HELPER(expect_same(random_size(&random), &result, format,
                                 texts[test_random_below(&random, 4)],
                                 'a' + (int)test_random_below(&random, 26)));
    }
}

TEST(format, stars_and_pointers_agree_with_the_c_library)
{
    struct result result;
    int x = 0;

    for (int width = -12; width <= 12; width++) {
        for (int precision = -2; precision <= 12; precision++) {
            CHECK_HELPER(expect_same(TEXT_BYTES, &result, "[%*.*d]", width,
                                     precision, -37));
            CHECK_HELPER(expect_same(TEXT_BYTES, &result, "[%*.*s]", width,
                                     precision, "table"));
        }
        CHECK_HELPER(
            expect_same(TEXT_BYTES, &result, "[%*p]", width, (void *)&x));
        CHECK_HELPER(
            expect_same(TEXT_BYTES, &result, "[%*p]", width, (void *)NULL));
    }
}

TEST(format, unknown_conversions_are_copied)
{
    const char *unknown = "%y %5.2f %";
    char text[32];

    ksnprintf(text, sizeof(text), unknown, 0);
    CHECK(strcmp(text, "%y %5.2f %") == 0);
    const char *volatile none = NULL; /* hidden from the compiler's check */
    ksnprintf(text, sizeof(text), "%s", none);
    CHECK(strcmp(text, "(null)") == 0);
}
