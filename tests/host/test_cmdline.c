/* SPDX-License-Identifier: MIT */
/* cmdline: words, quotes and numbers of the kernel's command line. */
#include "tests/shared/test.h"

#include <string.h>
#include "kernel/cmdline.h"

/*
 * At risk: quotes that do not close, words longer than the buffer, keys that
 * are prefixes of others. Provoked by one line for each.
 */

TEST(cmdline, words_and_flags)
{
    cmdline_init("  test=frame  quiet\tm=0x10 n=12 test2=x ");
    CHECK(cmdline_is("test", "frame"));
    CHECK(cmdline_is("quiet", ""));
    CHECK(cmdline_is("test2", "x"));
    CHECK(cmdline_get("tes") == NULL);
    CHECK(cmdline_get("frame") == NULL);
    CHECK_EQUAL(cmdline_number("m", 1), 16);
    CHECK_EQUAL(cmdline_number("n", 1), 12);
    CHECK_EQUAL(cmdline_number("quiet", 1), 1);
    CHECK_EQUAL(cmdline_number("none", 3), 3);
}

TEST(cmdline, quotes_keep_blanks)
{
    cmdline_init("cmd=\"a; b\" 'x=1  2' y=\\\"q");
    CHECK(cmdline_is("cmd", "a; b"));
    CHECK(cmdline_is("x", "1  2"));
    CHECK(cmdline_is("y", "\"q"));
    /* As GRUB hands it over. */
    cmdline_init("\"cmd=a; b\" exit=debug");
    CHECK(cmdline_is("cmd", "a; b"));
    CHECK(cmdline_is("exit", "debug"));
}

TEST(cmdline, the_last_word_wins)
{
    cmdline_init("a=1 a=2");
    CHECK(cmdline_is("a", "2"));
    cmdline_init("");
    CHECK(cmdline_get("a") == NULL);
}

TEST(cmdline, numbers_that_are_none)
{
    cmdline_init("a=12x b=0x c=18446744073709551616 d=18446744073709551615");
    CHECK_EQUAL(cmdline_number("a", 5), 5);
    CHECK_EQUAL(cmdline_number("b", 5), 5);
    CHECK_EQUAL(cmdline_number("c", 5), 5);
    CHECK_EQUAL(cmdline_number("d", 5), UINT64_MAX);
}

TEST(cmdline, long_lines_are_cut)
{
    static char text[3 * CMDLINE_MAX];

    memset(text, 'x', sizeof(text) - 1);
    text[CMDLINE_MAX / 2] = ' ';
    cmdline_init(text);
    CHECK(cmdline_get("y") == NULL);
    cmdline_init("open=\"no end");
    CHECK(cmdline_is("open", "no end"));
}
