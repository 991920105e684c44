/* SPDX-License-Identifier: MIT */
/* monitor line: the line editor, key by key. */
#include "kernel/monitor/line.h"

#include <string.h>

#include "tests/shared/test.h"

/*
 * At risk: the cursor leaves the line, a key moves bytes it should not, the
 * history hands out the wrong line. Provoked by examples for each key, and by
 * random keys while a naive model edits the same line.
 */

static struct line line;

static void start(void)
{
    memset(&line, 0, sizeof(line));
    line_begin(&line);
}

static enum line_event type(const char *keys)
{
    enum line_event event = LINE_NOTHING;

    for (; *keys != '\0'; keys++) {
        event = line_key(&line, *keys);
        if (event == LINE_DONE) {
            line_remember(&line);
            line_begin(&line);
        }
    }
    return event;
}

static bool shows(const char *text, size_t cursor)
{
    return strcmp(line.text, text) == 0 && line.length == strlen(text) &&
           line.cursor == cursor;
}

TEST(line, letters_join_and_move_the_cursor)
{
    start();
    CHECK_EQUAL(type("pt"), LINE_APPENDED);
    CHECK(shows("pt", 2));
    CHECK_EQUAL(type("\x1b[D\x1b[D"), LINE_CHANGED);
    CHECK_EQUAL(type("x"), LINE_CHANGED);
    CHECK(shows("xpt", 1));
    CHECK_EQUAL(type("\x1b[D\x1b[D"), LINE_NOTHING);
    CHECK(shows("xpt", 0));
    type("\x05\x1b[C");
    CHECK(shows("xpt", 3));
}

TEST(line, keys_of_emacs_do_what_they_do)
{
    start();
    type("pagewalk 0x1000");
    type("\x17");
    CHECK(shows("pagewalk ", 9));
    type("\x17\x17");
    CHECK(shows("", 0));
    type("abcdef\x01\x06\x06\x0b");
    CHECK(shows("ab", 2));
    type("cd\x02\x02\x15");
    CHECK(shows("cd", 0));
    type("\x04");
    CHECK(shows("d", 0));
    type("\x05\x7f\x7f");
    CHECK(shows("", 0));
    type("ab\x1b[H\x1b[3~\x1b[F");
    CHECK(shows("b", 1));
    type("a\x1b[1~\x1b[4~");
    CHECK(shows("ba", 2));
}

TEST(line, control_keys_are_events)
{
    start();
    type("pt");
    CHECK_EQUAL(type("\t"), LINE_COMPLETE);
    CHECK_EQUAL(type("\x0c"), LINE_CLEAR);
    CHECK_EQUAL(type("\x03"), LINE_CANCELLED);
    CHECK(shows("", 0));
    CHECK_EQUAL(type("\r"), LINE_DONE);
    CHECK_EQUAL(type("\n"), LINE_DONE);
    CHECK_EQUAL(type("\xc3\xa9"), LINE_NOTHING);
    CHECK_EQUAL(type("\x1b[99;5Z"), LINE_NOTHING);
    CHECK_EQUAL(type("\x1bq"), LINE_NOTHING);
    CHECK(shows("", 0));
}

TEST(line, a_full_line_takes_no_more)
{
    start();
    for (unsigned i = 0; i < LINE_BYTES - 1; i++) {
        CHECK_EQUAL(type("a"), LINE_APPENDED);
    }
    CHECK_EQUAL(type("b"), LINE_FULL);
    CHECK_EQUAL(line.length, LINE_BYTES - 1);
    CHECK_EQUAL(line_insert(&line, "bc"), LINE_FULL);
    type("\x7f");
    CHECK_EQUAL(line_insert(&line, "bc"), LINE_FULL);
    CHECK_EQUAL(line_insert(&line, "b"), LINE_CHANGED);
}

TEST(line, history_goes_back_and_forth)
{
    start();
    type("one\rtwo\rtwo\r\rthree\rdra");
    type("\x1b[A");
    CHECK(shows("three", 5));
    type("\x1b[A\x10");
    CHECK(shows("one", 3));
    CHECK_EQUAL(type("\x1b[A"), LINE_NOTHING);
    type("\x1b[B\x0e");
    CHECK(shows("three", 5));
    type("\x1b[B");
    CHECK(shows("dra", 3));
    CHECK_EQUAL(type("\x1b[B"), LINE_NOTHING);
    /* A recalled line that is changed becomes a line of its own. */
    type("\x1b[A!\r\x1b[A");
    CHECK(shows("three!", 6));
    type("\x1b[A");
    CHECK(shows("three", 5));
}

TEST(line, history_forgets_the_oldest)
{
    char text[3] = "a\r";

    start();
    for (unsigned i = 0; i < LINE_HISTORY + 3; i++) {
        text[0] = (char)('a' + i);
        type(text);
    }
    for (unsigned i = 0; i < LINE_HISTORY; i++) {
        type("\x1b[A");
        CHECK_EQUAL(line.text[0], 'a' + LINE_HISTORY + 2 - i);
    }
    CHECK_EQUAL(type("\x1b[A"), LINE_NOTHING);
    CHECK_EQUAL(line.text[0], 'd');
}

/* --- against a model ------------------------------------------------------ */

/* The line as two strings: before and behind the cursor. */
static struct {
    char before[LINE_BYTES];
    char behind[LINE_BYTES];
} model;

static void model_type(char c)
{
    size_t length = strlen(model.before);

    if (length + strlen(model.behind) + 1 < LINE_BYTES) {
        model.before[length] = c;
        model.before[length + 1] = '\0';
    }
}

static void model_cut_word(void)
{
    size_t at = strlen(model.before);

    while (at > 0 && model.before[at - 1] == ' ') {
        at--;
    }
    while (at > 0 && model.before[at - 1] != ' ') {
        at--;
    }
    model.before[at] = '\0';
}

/* Move the cursor to @cursor. */
static void model_move(size_t cursor)
{
    char all[2 * LINE_BYTES];

    strcpy(all, model.before);
    strcat(all, model.behind);
    if (cursor <= strlen(all)) {
        strcpy(model.behind, all + cursor);
        all[cursor] = '\0';
        strcpy(model.before, all);
    }
}

static void model_key(char key)
{
    size_t cursor = strlen(model.before);

    switch (key) {
    case 0x01:
        model_move(0);
        break;
    case 0x05:
        model_move(cursor + strlen(model.behind));
        break;
    case 0x02:
        model_move(cursor > 0 ? cursor - 1 : 0);
        break;
    case 0x06:
        model_move(cursor + 1);
        break;
    case 0x7f:
        model.before[cursor > 0 ? cursor - 1 : 0] = '\0';
        break;
    case 0x04:
        memmove(model.behind, model.behind + (model.behind[0] ? 1 : 0),
                strlen(model.behind + (model.behind[0] ? 1 : 0)) + 1);
        break;
    case 0x0b:
        model.behind[0] = '\0';
        break;
    case 0x15:
        model.before[0] = '\0';
        break;
    case 0x17:
        model_cut_word();
        break;
    default:
        model_type(key);
        break;
    }
}

TEST(line, random_keys_edit_as_the_model_does)
{
    /* Letters often, so that the line also fills up. */
    static const char keys[] = "abcdefgh   abcdefgh   \x01\x05\x02\x02\x06\x7f"
                               "\x04\x0b\x15\x17";
    struct test_random random;
    char all[2 * LINE_BYTES];

    start();
    memset(&model, 0, sizeof(model));
    test_random_init(&random, test_seed());
    for (unsigned turn = 0; turn < 200000; turn++) {
        /* Seldom one of those that cut much. */
        size_t kinds = sizeof(keys) - 1 - (turn % 64 != 0 ? 3 : 0);
        char key = keys[test_random_below(&random, kinds)];
        line_key(&line, key);
        model_key(key);
        strcpy(all, model.before);
        strcat(all, model.behind);
        CHECK(shows(all, strlen(model.before)));
    }
}

TEST(line, random_bytes_keep_it_whole)
{
    struct test_random random;

    start();
    test_random_init(&random, test_seed());
    for (unsigned turn = 0; turn < 200000; turn++) {
        char byte = (char)test_random_below(&random, 256);
        if (line_key(&line, byte) == LINE_DONE) {
            line_remember(&line);
            line_begin(&line);
        }
        CHECK(line.length < LINE_BYTES && line.cursor <= line.length);
        CHECK_EQUAL(strlen(line.text), line.length);
    }
}
