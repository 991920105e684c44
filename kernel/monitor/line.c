/* SPDX-License-Identifier: MIT */
/* line: edits one line of input, key by key. Pure: it draws nothing. */
#include "kernel/monitor/line.h"

#include "base/memory.h"

#define CTRL(letter) ((letter) - 'A' + 1)
#define KEY_ESCAPE   0x1b
#define KEY_DELETE   0x7f

void line_begin(struct line *line)
{
    line->text[0] = '\0';
    line->length = 0;
    line->cursor = 0;
    line->recalled = 0;
    line->escape = 0;
}

/* Replace the bytes from @start to @end by @count bytes of @text. */
static void splice(struct line *line, size_t start, size_t end,
                   const char *text, size_t count)
{
    memmove(&line->text[start + count], &line->text[end],
            line->length - end + 1);
    memcpy(&line->text[start], text, count);
    line->length = line->length - (end - start) + count;
    line->cursor = start + count;
}

static enum line_event erase(struct line *line, size_t start, size_t end)
{
    if (start == end) {
        return LINE_NOTHING;
    }
    splice(line, start, end, "", 0);
    return LINE_CHANGED;
}

static enum line_event move(struct line *line, size_t cursor)
{
    if (cursor > line->length || cursor == line->cursor) {
        return LINE_NOTHING;
    }
    line->cursor = cursor;
    return LINE_CHANGED;
}

enum line_event line_insert(struct line *line, const char *text)
{
    size_t count = 0;

    while (text[count] != '\0') {
        count++;
    }
    if (line->length + count >= LINE_BYTES) {
        return LINE_FULL;
    }
    splice(line, line->cursor, line->cursor, text, count);
    return LINE_CHANGED;
}

static enum line_event type(struct line *line, char c)
{
    const char text[2] = {c, '\0'};
    bool at_end = line->cursor == line->length;
    enum line_event event = line_insert(line, text);

    return event == LINE_CHANGED && at_end ? LINE_APPENDED : event;
}

/* Start of the word before the cursor. */
static size_t word_start(const struct line *line)
{
    size_t at = line->cursor;

    while (at > 0 && line->text[at - 1] == ' ') {
        at--;
    }
    while (at > 0 && line->text[at - 1] != ' ') {
        at--;
    }
    return at;
}

/* --- history -------------------------------------------------------------- */

static char *remembered_line(struct line *line, unsigned back)
{
    return line->history[(line->remembered - back) % LINE_HISTORY];
}

static void show(struct line *line, const char *text)
{
    size_t length = 0;

    while (text[length] != '\0') {
        length++;
    }
    memmove(line->text, text, length + 1);
    line->length = length;
    line->cursor = length;
}

/* Show the line that is @back lines ago; 0: the draft. */
static enum line_event recall(struct line *line, unsigned back)
{
    if (back > line->remembered || back > LINE_HISTORY) {
        return LINE_NOTHING;
    }
    if (line->recalled == 0) {
        memcpy(line->draft, line->text, LINE_BYTES);
    }
    line->recalled = back;
    show(line, back == 0 ? line->draft : remembered_line(line, back));
    return LINE_CHANGED;
}

static enum line_event recall_newer(struct line *line)
{
    return line->recalled == 0 ? LINE_NOTHING
                               : recall(line, line->recalled - 1);
}

void line_remember(struct line *line)
{
    bool is_latest =
        line->remembered > 0 &&
        memcmp(remembered_line(line, 1), line->text, line->length + 1) == 0;

    if (line->length > 0 && !is_latest) {
        line->remembered++;
        memcpy(remembered_line(line, 1), line->text, line->length + 1);
    }
}

/* --- keys ----------------------------------------------------------------- */

/* ESC [ number final, or ESC O final. */
static enum line_event end_escape(struct line *line, char final)
{
    line->escape = 0;
    switch (final) {
    case 'A':
        return recall(line, line->recalled + 1);
    case 'B':
        return recall_newer(line);
    case 'C':
        return move(line, line->cursor + 1);
    case 'D':
        return line->cursor > 0 ? move(line, line->cursor - 1) : LINE_NOTHING;
    case 'H':
        return move(line, 0);
    case 'F':
        return move(line, line->length);
    case '~':
        break;
    default:
        return LINE_NOTHING;
    }
    switch (line->parameter) {
    case 1:
    case 7:
        return move(line, 0);
    case 3:
        return erase(line, line->cursor,
                     line->cursor + (line->cursor < line->length ? 1 : 0));
    case 4:
    case 8:
        return move(line, line->length);
    default:
        return LINE_NOTHING;
    }
}

static enum line_event escape_key(struct line *line, char byte)
{
    if (line->escape == 1) {
        line->escape = byte == '[' || byte == 'O' ? 2 : 0;
        line->parameter = 0;
        return LINE_NOTHING;
    }
    if (byte >= '0' && byte <= '9') {
        line->parameter = (line->parameter * 10 + (unsigned)(byte - '0')) % 100;
        return LINE_NOTHING;
    }
    if (byte == ';') {
        return LINE_NOTHING;
    }
    return end_escape(line, byte);
}

static enum line_event control_key(struct line *line, char byte)
{
    switch (byte) {
    case '\r':
    case '\n':
        return LINE_DONE;
    case '\t':
        return LINE_COMPLETE;
    case KEY_ESCAPE:
        line->escape = 1;
        return LINE_NOTHING;
    case CTRL('C'):
        line_begin(line);
        return LINE_CANCELLED;
    case CTRL('L'):
        return LINE_CLEAR;
    case CTRL('A'):
        return move(line, 0);
    case CTRL('E'):
        return move(line, line->length);
    case CTRL('B'):
        return line->cursor > 0 ? move(line, line->cursor - 1) : LINE_NOTHING;
    case CTRL('F'):
        return move(line, line->cursor + 1);
    case CTRL('P'):
        return recall(line, line->recalled + 1);
    case CTRL('N'):
        return recall_newer(line);
    case CTRL('H'):
    case KEY_DELETE:
        return erase(line, line->cursor - (line->cursor > 0 ? 1 : 0),
                     line->cursor);
    case CTRL('D'):
        return erase(line, line->cursor,
                     line->cursor + (line->cursor < line->length ? 1 : 0));
    case CTRL('K'):
        return erase(line, line->cursor, line->length);
    case CTRL('U'):
        return erase(line, 0, line->cursor);
    case CTRL('W'):
        return erase(line, word_start(line), line->cursor);
    default:
        return LINE_NOTHING;
    }
}

enum line_event line_key(struct line *line, char byte)
{
    if (line->escape > 0) {
        return escape_key(line, byte);
    }
    if (byte >= ' ' && byte < KEY_DELETE) {
        return type(line, byte);
    }
    return control_key(line, byte);
}
