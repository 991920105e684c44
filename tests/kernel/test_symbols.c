/* SPDX-License-Identifier: MIT */
/* symbols: addresses have the names and lines the compiler gave them. */
#include "tests/shared/test.h"

#include "kernel/image.h"
#include "kernel/lib/string.h"
#include "kernel/symbols.h"

/*
 * At risk: the second link of the kernel moves something, or the tables are
 * off by one entry: every backtrace would lie. Provoked by looking up what
 * the compiler knows.
 */

/* Where it was called from. */
static uint64_t MM_NOINLINE place(void)
{
    return MM_CALLER();
}

TEST(symbols, an_address_has_its_function)
{
    const char *name;
    uint64_t offset;

    CHECK(symbol_find((uint64_t)(uintptr_t)strlen, &name, &offset));
    CHECK(strcmp(name, "strlen") == 0);
    CHECK_EQUAL(offset, 0);
    CHECK(symbol_find((uint64_t)(uintptr_t)strlen + 1, &name, &offset));
    CHECK(strcmp(name, "strlen") == 0);
    CHECK_EQUAL(offset, 1);
    CHECK(!symbol_find((uint64_t)(uintptr_t)&name, &name, &offset));
}

TEST(symbols, a_name_has_its_address)
{
    uint64_t address;

    CHECK(symbol_address("memcpy", &address));
    CHECK_EQUAL(address, (uintptr_t)memcpy);
    CHECK(symbol_address("test_run", &address));
    CHECK_EQUAL(address, (uintptr_t)test_run);
    CHECK(!symbol_address("no_such_thing", &address));
}

TEST(symbols, a_call_has_its_line)
{
    const char *file;
    unsigned line;

    uint64_t caller = place();
    unsigned expected = __LINE__ - 1;
    /* The return address lies behind the call, hence one less. */
    CHECK(symbol_line(caller - 1, &file, &line));
    CHECK(strcmp(file, "tests/kernel/test_symbols.c") == 0);
    CHECK_EQUAL(line, expected);
}

TEST(symbols, outside_the_code_there_are_none)
{
    const char *text;
    uint64_t offset;
    unsigned line;

    CHECK(!symbol_find(0, &text, &offset));
    CHECK(!symbol_find((uint64_t)(uintptr_t)text_end, &text, &offset));
    CHECK(!symbol_line(UINT64_MAX, &text, &line));
}
