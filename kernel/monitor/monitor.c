/* SPDX-License-Identifier: MIT */
/* monitor: the prompt, on serial port and keyboard. */
#include "kernel/monitor/monitor.h"

#include "kernel/console/console.h"
#include "kernel/lib/format.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/line.h"

#define PROMPT "mm> "

static struct line line;

/* --- running a command ---------------------------------------------------- */

bool monitor_execute(const char *text)
{
    struct words words;

    while (*text != '\0') {
        if (words_split(text, &words, &text) != MM_OK) {
            printk("a command has at most %d words and %d characters\n",
                   WORDS_MAX, WORDS_BYTES);
            return false;
        }
        if (words.count > 0 && !command_run(words.word, words.count)) {
            return false;
        }
    }
    return true;
}

/* --- the prompt ----------------------------------------------------------- */

/* What is being typed stays out of the log until it is a command. */
static void MM_PRINTF(1, 2) show(const char *format, ...)
{
    char text[LINE_BYTES + 32];
    va_list arguments;

    va_start(arguments, format);
    kvsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    console_show(text, strlen(text));
}

static void draw(void)
{
    show("\r" PROMPT "%s\x1b[K", line.text);
    if (line.cursor < line.length) {
        show("\x1b[%uD", (unsigned)(line.length - line.cursor));
    }
}

/* Print the words of @list that begin with @prefix. */
static void show_matches(const char *prefix, const char *list)
{
    size_t length = strlen(prefix);

    while (*list != '\0') {
        size_t word = 0;
        while (list[word] != ' ' && list[word] != '\0') {
            word++;
        }
        if (word > 0 && strncmp(list, prefix, length) == 0) {
            show("%.*s  ", (int)word, list);
        }
        list += word + (list[word] == ' ' ? 1 : 0);
    }
}

/* Hand @visit every list of words that may stand at the cursor. */
static void each_choice(const struct words *words, bool is_command,
                        void (*visit)(void *context, const char *list),
                        void *context)
{
    const struct command_group *group;

    if (!is_command) {
        const struct command *command = command_find(words->word[0]);
        if (command != NULL) {
            visit(context, command->choices);
        }
        /* help takes the names of commands. */
        is_command = command != NULL && strcmp(command->name, "help") == 0;
    }
    for (size_t i = 0; is_command && (group = command_group(i)) != NULL; i++) {
        for (size_t k = 0; k < group->count; k++) {
            visit(context, group->command[k].name);
            visit(context, group->command[k].aliases);
        }
    }
}

static void visit_add(void *context, const char *list)
{
    completion_add(context, list);
}

static void visit_show(void *context, const char *list)
{
    show_matches(((struct completion *)context)->prefix, list);
}

/*
 * The words up to the cursor, of the last command only; the word at the
 * cursor comes last and may be empty. False if they are too many.
 */
static bool words_to_cursor(struct words *out)
{
    char head[LINE_BYTES];
    const char *rest = head;

    memcpy(head, line.text, line.cursor);
    head[line.cursor] = '\0';
    do {
        if (words_split(rest, out, &rest) != MM_OK) {
            return false;
        }
    } while (*rest != '\0');
    char last = line.cursor > 0 ? head[line.cursor - 1] : ' ';
    if (last == ';') {
        out->count = 0; /* nothing of the next command is there yet */
    }
    if (out->count == 0 || last == ' ') {
        if (out->count == WORDS_MAX) {
            return false;
        }
        out->word[out->count] = "";
        out->count++;
    }
    return true;
}

/* Complete the word before the cursor; list the choices if there are more. */
static void complete(void)
{
    struct words words;
    struct completion found = {0};

    /* Only commands and their first arguments have lists. */
    if (!words_to_cursor(&words) || words.count > 2) {
        return;
    }
    bool is_command = words.count == 1;
    found.prefix = words.word[words.count - 1];
    each_choice(&words, is_command, visit_add, &found);
    if (found.matches == 0) {
        return;
    }
    const char *more = found.common + strlen(found.prefix);
    if (found.matches > 1 && *more == '\0') {
        show("\n");
        each_choice(&words, is_command, visit_show, &found);
        show("\n");
    }
    /* A word that does not fit stays as it is. */
    if (line_insert(&line, more) == LINE_CHANGED && found.matches == 1) {
        (void)line_insert(&line, " ");
    }
}

static void enter(void)
{
    show("\n");
    line_remember(&line);
    log_write(PROMPT, sizeof(PROMPT) - 1);
    log_write(line.text, line.length);
    log_write("\n", 1);
    monitor_execute(line.text);
    line_begin(&line);
}

/* In words the first time, then by the bell: it may be a long paste. */
static void say_full(void)
{
    static bool was_said;

    if (was_said) {
        show("\a");
        return;
    }
    was_said = true;
    show("\na line holds %d characters\n", LINE_BYTES - 1);
    draw();
}

static void take_key(char byte)
{
    switch (line_key(&line, byte)) {
    case LINE_NOTHING:
        return;
    case LINE_APPENDED:
        console_show(&byte, 1);
        return;
    case LINE_CHANGED:
        break;
    case LINE_FULL:
        say_full();
        return;
    case LINE_DONE:
        enter();
        break;
    case LINE_CANCELLED:
        show("^C\n");
        break;
    case LINE_CLEAR:
        show("\x1b[2J\x1b[H");
        break;
    case LINE_COMPLETE:
        complete();
        break;
    }
    draw();
}

MM_NORETURN void monitor_run(void)
{
    line_begin(&line);
    draw();
    for (;;) {
        take_key((char)console_getchar());
    }
}
