/* SPDX-License-Identifier: MIT */
/* line: edits one line of input, key by key. Pure: it draws nothing. */
#ifndef KERNEL_MONITOR_LINE_H
#define KERNEL_MONITOR_LINE_H

#include <mm/types.h>

/* A line and its prompt fit the 80 columns of a screen. */
#define LINE_BYTES   76
#define LINE_HISTORY 16

enum line_event {
    LINE_NOTHING,   /* a key without effect, or part of one */
    LINE_APPENDED,  /* one character joined the end: echo it */
    LINE_CHANGED,   /* draw the line anew */
    LINE_FULL,      /* a character did not fit */
    LINE_DONE,      /* Enter: text is a command */
    LINE_CANCELLED, /* Ctrl-C: text is empty */
    LINE_CLEAR,     /* Ctrl-L: clear the screen, draw the line */
    LINE_COMPLETE   /* Tab: see line_insert() */
};

struct line {
    char text[LINE_BYTES]; /* ends in 0 */
    size_t length;
    size_t cursor; /* 0 .. length */
    /* earlier lines, a ring */
    char history[LINE_HISTORY][LINE_BYTES];
    unsigned remembered;    /* lines remembered so far, ever */
    unsigned recalled;      /* how far back the shown one is; 0: not recalled */
    char draft[LINE_BYTES]; /* what was typed before recalling */
    /* the escape sequence that is being received */
    unsigned escape;    /* bytes of it so far */
    unsigned parameter; /* its number */
};

/* Forget the line, keep the history. */
void line_begin(struct line *line);

/* Take the next byte from the terminal. */
enum line_event line_key(struct line *line, char byte);

/* Put @text in at the cursor; LINE_FULL, and no change, if it does not fit. */
enum line_event line_insert(struct line *line, const char *text);

/* After LINE_DONE: remember the line, unless it is empty or the latest. */
void line_remember(struct line *line);

#endif
