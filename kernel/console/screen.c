/* SPDX-License-Identifier: MIT */
/* screen: a small terminal on the framebuffer or on VGA text. */
#include "kernel/console/screen.h"

/*
 * Idea: the text lives in an array of cells; a driver only draws one cell.
 * Scrolling compares old and new cells and draws those that differ, so that
 * a framebuffer (slow to write, slower to read) is never read and blanks
 * cost nothing.
 */

#define DEFAULT_FOREGROUND 7
#define DEFAULT_BACKGROUND 0
#define BRIGHT             8
#define TAB_COLUMNS        8
#define PARAMETERS_MAX     4
#define REPLACEMENT        '?'

enum parser_state { STATE_TEXT, STATE_ESCAPE, STATE_PARAMETERS };

static struct {
    const struct screen_driver *driver; /* NULL: out of reach */
    unsigned columns;                   /* 0: no screen yet */
    unsigned rows;
    unsigned row; /* of the cursor */
    unsigned column;
    struct screen_cell pen; /* colours of what is written */
    bool is_reverse;
    /* the parser */
    enum parser_state state;
    unsigned parameter[PARAMETERS_MAX];
    unsigned parameters;
    uint32_t code;      /* of a UTF-8 sequence, so far */
    unsigned remaining; /* bytes of it that are to come */
    struct screen_cell cell[SCREEN_MAX_ROWS][SCREEN_MAX_COLUMNS];
} screen;

static bool is_same(struct screen_cell a, struct screen_cell b)
{
    return a.code == b.code && a.foreground == b.foreground &&
           a.background == b.background;
}

static struct screen_cell blank(void)
{
    return (struct screen_cell){' ', DEFAULT_FOREGROUND, DEFAULT_BACKGROUND};
}

static void draw(unsigned row, unsigned column)
{
    if (screen.driver != NULL) {
        screen.driver->draw(row, column, screen.cell[row][column]);
    }
}

static void set_cell(unsigned row, unsigned column, struct screen_cell cell)
{
    if (!is_same(screen.cell[row][column], cell)) {
        screen.cell[row][column] = cell;
        draw(row, column);
    }
}

/* The cursor is its cell in reverse. */
static void draw_cursor(void)
{
    struct screen_cell cell;

    if (screen.driver == NULL || screen.column >= screen.columns) {
        return;
    }
    cell = screen.cell[screen.row][screen.column];
    uint8_t foreground = cell.foreground;
    cell.foreground = cell.background;
    cell.background = foreground;
    screen.driver->draw(screen.row, screen.column, cell);
}

static void hide_cursor(void)
{
    if (screen.column < screen.columns) {
        draw(screen.row, screen.column);
    }
}

static void clear(unsigned row, unsigned from, unsigned to)
{
    for (unsigned column = from; column < to; column++) {
        set_cell(row, column, blank());
    }
}

static void scroll(void)
{
    for (unsigned row = 0; row + 1 < screen.rows; row++) {
        for (unsigned column = 0; column < screen.columns; column++) {
            set_cell(row, column, screen.cell[row + 1][column]);
        }
    }
    clear(screen.rows - 1, 0, screen.columns);
}

static void new_line(void)
{
    screen.column = 0;
    if (screen.row + 1 < screen.rows) {
        screen.row++;
    } else {
        scroll();
    }
}

static void put_code(uint16_t code)
{
    struct screen_cell cell = screen.pen;

    if (screen.column >= screen.columns) {
        new_line();
    }
    cell.code = code;
    if (screen.is_reverse) {
        cell.foreground = screen.pen.background;
        cell.background = screen.pen.foreground;
    }
    set_cell(screen.row, screen.column, cell);
    screen.column++;
}

static void put_control(uint8_t byte)
{
    switch (byte) {
    case '\n':
        new_line();
        break;
    case '\r':
        screen.column = 0;
        break;
    case '\b':
        screen.column -= screen.column > 0 ? 1 : 0;
        break;
    case '\t':
        do {
            put_code(' ');
        } while (screen.column % TAB_COLUMNS != 0);
        break;
    case 0x1b:
        screen.state = STATE_ESCAPE;
        break;
    default:
        break;
    }
}

/* Collect UTF-8; what is broken or beyond 16 bits shows as a question mark. */
static void put_text(uint8_t byte)
{
    if (byte < 0x80) {
        screen.remaining = 0;
        if (byte < ' ') {
            put_control(byte);
        } else {
            put_code(byte);
        }
    } else if (byte < 0xc0) {
        if (screen.remaining > 0) {
            screen.code = screen.code << 6 | (byte & 0x3f);
            screen.remaining--;
            if (screen.remaining == 0) {
                put_code(screen.code <= UINT16_MAX ? (uint16_t)screen.code
                                                   : REPLACEMENT);
            }
        }
    } else {
        screen.remaining = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
        screen.code = byte & (0x3fu >> screen.remaining);
    }
}

static void reset_pen(void)
{
    screen.pen = blank();
    screen.is_reverse = false;
}

/* One parameter of ESC [ ... m. */
static void set_attribute(unsigned parameter)
{
    if (parameter == 0) {
        reset_pen();
    } else if (parameter == 1) {
        screen.pen.foreground |= BRIGHT;
    } else if (parameter == 7) {
        screen.is_reverse = true;
    } else if (parameter == 27) {
        screen.is_reverse = false;
    } else if (parameter >= 30 && parameter <= 37) {
        screen.pen.foreground =
            (uint8_t)((screen.pen.foreground & BRIGHT) | (parameter - 30));
    } else if (parameter == 39) {
        screen.pen.foreground = DEFAULT_FOREGROUND;
    } else if (parameter >= 40 && parameter <= 47) {
        screen.pen.background = (uint8_t)(parameter - 40);
    } else if (parameter == 49) {
        screen.pen.background = DEFAULT_BACKGROUND;
    } else if (parameter >= 90 && parameter <= 97) {
        screen.pen.foreground = (uint8_t)(BRIGHT | (parameter - 90));
    }
}

/* ESC [ n J: 0 from the cursor to the end, else everything. */
static void erase_screen(unsigned what)
{
    unsigned first = what == 0 ? screen.row + 1 : 0;

    if (what == 0) {
        clear(screen.row, screen.column, screen.columns);
    }
    for (unsigned row = first; row < screen.rows; row++) {
        clear(row, 0, screen.columns);
    }
}

/* ESC [ n K: 0 to the end of the line, 1 up to the cursor, 2 all of it. */
static void erase_line(unsigned what)
{
    unsigned from = what == 0 ? screen.column : 0;
    unsigned to = what == 1 ? screen.column + 1 : screen.columns;

    clear(screen.row, from, to < screen.columns ? to : screen.columns);
}

static unsigned clamp(unsigned value, unsigned limit)
{
    return value < limit ? value : limit - 1;
}

static void move_cursor(uint8_t direction, unsigned count)
{
    switch (direction) {
    case 'A':
        screen.row -= count < screen.row ? count : screen.row;
        break;
    case 'B':
        screen.row = clamp(screen.row + count, screen.rows);
        break;
    case 'C':
        screen.column = clamp(screen.column + count, screen.columns);
        break;
    default:
        screen.column -= count < screen.column ? count : screen.column;
        break;
    }
}

/* The sequence is complete: @final says which. */
static void run_sequence(uint8_t final)
{
    unsigned first = screen.parameter[0];

    switch (final) {
    case 'A':
    case 'B':
    case 'C':
    case 'D':
        move_cursor(final, first == 0 ? 1 : first);
        break;
    case 'H':
        screen.row = clamp(first == 0 ? 0 : first - 1, screen.rows);
        screen.column =
            clamp(screen.parameter[1] == 0 ? 0 : screen.parameter[1] - 1,
                  screen.columns);
        break;
    case 'J':
        erase_screen(first);
        break;
    case 'K':
        erase_line(first);
        break;
    case 'm':
        for (unsigned i = 0; i <= screen.parameters; i++) {
            set_attribute(screen.parameter[i]);
        }
        break;
    default:
        break; /* known to other terminals; nothing to see here */
    }
}

static void begin_sequence(uint8_t byte)
{
    screen.state = byte == '[' ? STATE_PARAMETERS : STATE_TEXT;
    screen.parameters = 0;
    for (unsigned i = 0; i < PARAMETERS_MAX; i++) {
        screen.parameter[i] = 0;
    }
}

static void put_parameter(uint8_t byte)
{
    unsigned *parameter = &screen.parameter[screen.parameters];

    if (byte >= '0' && byte <= '9') {
        *parameter = *parameter < 1000 ? *parameter * 10 + (byte - '0') : 1000;
    } else if (byte == ';') {
        screen.parameters += screen.parameters + 1 < PARAMETERS_MAX ? 1 : 0;
    } else if (byte >= '@') {
        run_sequence(byte);
        screen.state = STATE_TEXT;
    }
}

static void put_byte(uint8_t byte)
{
    switch (screen.state) {
    case STATE_TEXT:
        put_text(byte);
        break;
    case STATE_ESCAPE:
        begin_sequence(byte);
        break;
    case STATE_PARAMETERS:
        put_parameter(byte);
        break;
    }
}

void screen_write(const char *text, size_t length)
{
    if (screen.columns == 0) {
        return;
    }
    hide_cursor();
    for (size_t i = 0; i < length; i++) {
        put_byte((uint8_t)text[i]);
    }
    draw_cursor();
}

static unsigned at_most(unsigned value, unsigned limit)
{
    return value < limit ? value : limit;
}

static void start(const struct screen_driver *driver)
{
    screen.columns = at_most(driver->columns, SCREEN_MAX_COLUMNS);
    screen.rows = at_most(driver->rows, SCREEN_MAX_ROWS);
    reset_pen();
    for (unsigned row = 0; row < screen.rows; row++) {
        for (unsigned column = 0; column < screen.columns; column++) {
            screen.cell[row][column] = blank();
        }
    }
}

void screen_use(const struct screen_driver *driver)
{
    screen.driver = driver;
    if (driver == NULL || driver->columns == 0 || driver->rows == 0) {
        screen.driver = NULL;
        return;
    }
    if (screen.columns == 0) {
        start(driver);
    }
    for (unsigned row = 0; row < screen.rows; row++) {
        for (unsigned column = 0; column < screen.columns; column++) {
            draw(row, column);
        }
    }
    draw_cursor();
}

void screen_size(unsigned *out_columns, unsigned *out_rows)
{
    *out_columns = screen.columns;
    *out_rows = screen.rows;
}
