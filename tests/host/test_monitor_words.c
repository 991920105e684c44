/* SPDX-License-Identifier: MIT */
/* monitor words: command lines taken apart, numbers read, words completed. */
#include "kernel/monitor/words.h"

#include <stdio.h>
#include <string.h>

#include "kernel/lib/number.h"
#include "tests/shared/test.h"

/*
 * At risk: text from a keyboard overruns a buffer, or a number is read as
 * another one. Provoked by lines at and beyond each limit, numbers around
 * 2^64, and random text under the sanitizers.
 */

static bool splits_into(const char *text, unsigned count, const char *last,
                        const char *rest)
{
    struct words words;
    const char *after;

    return words_split(text, &words, &after) == MM_OK && words.count == count &&
           (count == 0 || strcmp(words.word[count - 1], last) == 0) &&
           strcmp(after, rest) == 0;
}

TEST(words, are_separated_by_blanks_and_semicolons)
{
    CHECK(splits_into("", 0, "", ""));
    CHECK(splits_into("   ", 0, "", ""));
    CHECK(splits_into("help", 1, "help", ""));
    CHECK(splits_into("  pt \t -f   wx ", 3, "wx", ""));
    CHECK(splits_into("a b;c d", 2, "b", "c d"));
    CHECK(splits_into(";c", 0, "", "c"));
    CHECK(splits_into("a;", 1, "a", ""));
}

TEST(words, have_limits_that_are_kept)
{
    char text[4 * WORDS_BYTES];
    struct words words;
    const char *rest;

    for (unsigned count = 1; count < 2 * WORDS_MAX; count++) {
        memset(text, ' ', sizeof(text));
        for (unsigned i = 0; i < count; i++) {
            text[2 * i] = 'w';
        }
        text[2 * count] = '\0';
        CHECK_EQUAL(words_split(text, &words, &rest),
                    count <= WORDS_MAX ? MM_OK : MM_ERANGE);
    }
    for (unsigned length = 1; length < 2 * WORDS_BYTES; length++) {
        memset(text, 'w', length);
        text[length] = '\0';
        CHECK_EQUAL(words_split(text, &words, &rest),
                    length < WORDS_BYTES ? MM_OK : MM_ERANGE);
    }
}

TEST(words, random_text_never_overruns)
{
    static const char letters[] = "ab ; \t0x";
    struct test_random random;
    struct words words;
    char text[300];

    test_random_init(&random, test_seed());
    for (unsigned turn = 0; turn < 20000; turn++) {
        size_t length = test_random_below(&random, sizeof(text));
        for (size_t i = 0; i < length; i++) {
            text[i] = letters[test_random_below(&random, sizeof(letters) - 1)];
        }
        text[length] = '\0';
        const char *rest = text;
        while (*rest != '\0' && words_split(rest, &words, &rest) == MM_OK) {
            CHECK(rest <= text + length);
            for (unsigned i = 0; i < words.count; i++) {
                CHECK(words.word[i][0] != '\0');
                CHECK(strpbrk(words.word[i], " \t;") == NULL);
            }
        }
    }
}

TEST(words, numbers_are_hex_decimal_and_with_units)
{
    static const struct {
        const char *text;
        enum mm_status status;
        uint64_t value;
    } table[] = {
        {"0", MM_OK, 0},
        {"42", MM_OK, 42},
        {"0x2a", MM_OK, 42},
        {"0X2A", MM_OK, 42},
        {"007", MM_OK, 7},
        {"4K", MM_OK, 4096},
        {"0x10M", MM_OK, 16 * MiB},
        {"3G", MM_OK, 3 * GiB},
        {"16T", MM_OK, 16 * TiB},
        {"18446744073709551615", MM_OK, UINT64_MAX},
        {"0xffffffffffffffff", MM_OK, UINT64_MAX},
        {"18446744073709551616", MM_ERANGE, 0},
        {"0x10000000000000000", MM_ERANGE, 0},
        {"99999999999999999999999", MM_ERANGE, 0},
        {"16777216T", MM_ERANGE, 0},
        {"16777215T", MM_OK, 16777215 * TiB},
        {"", MM_EINVAL, 0},
        {"0x", MM_EINVAL, 0},
        {"x", MM_EINVAL, 0},
        {"K", MM_EINVAL, 0},
        {"12a", MM_EINVAL, 0},
        {"0x1g", MM_EINVAL, 0},
        {"4KK", MM_EINVAL, 0},
        {"4k", MM_EINVAL, 0},
        {"-1", MM_EINVAL, 0},
        {"1 ", MM_EINVAL, 0},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint64_t value = 0;
        enum mm_status status = number_parse(table[i].text, &value);
        if (status != table[i].status || value != table[i].value) {
            test_fail(__FILE__, __LINE__, "\"%s\": status %d, value 0x%lx",
                      table[i].text, (int)status, value);
            return;
        }
    }
}

TEST(words, every_number_reads_back)
{
    struct test_random random;
    char text[32];

    test_random_init(&random, test_seed());
    for (unsigned turn = 0; turn < 20000; turn++) {
        uint64_t value =
            test_random_next(&random) >> test_random_below(&random, 64);
        uint64_t read = 0;
        snprintf(text, sizeof(text), turn % 2 ? "%lu" : "0x%lx", value);
        CHECK_EQUAL(number_parse(text, &read), MM_OK);
        CHECK_EQUAL(read, value);
    }
}

TEST(words, a_list_contains_whole_words_only)
{
    CHECK(words_contain("walk vtop", "walk"));
    CHECK(words_contain("walk vtop", "vtop"));
    CHECK(!words_contain("walk vtop", "vto"));
    CHECK(!words_contain("walk vtop", "vtops"));
    CHECK(!words_contain("walk vtop", ""));
    CHECK(!words_contain("", "walk"));
}

static bool completes(const char *prefix, const char *list, unsigned matches,
                      const char *common)
{
    struct completion completion = {.prefix = prefix};

    completion_add(&completion, list);
    return completion.matches == matches &&
           strcmp(completion.common, common) == 0;
}

TEST(words, completion_finds_what_matches_share)
{
    CHECK(completes("me", "meminfo memmap help", 2, "mem"));
    CHECK(completes("memi", "meminfo memmap help", 1, "meminfo"));
    CHECK(completes("", "null nx", 2, "n"));
    CHECK(completes("", "null ro", 2, ""));
    CHECK(completes("x", "null ro", 0, ""));
    CHECK(completes("page", "page pagewalk", 2, "page"));
    CHECK(completes("", "", 0, ""));
    /* Cut, not overrun. */
    CHECK(completes("a", "a12345678901234567890123456789012345678901", 1,
                    "a123456789012345678901234567890"));
}
