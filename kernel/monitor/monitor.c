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

static bool say_usage(const struct command *command)
{
    printk("usage: %s%s %s\n", command->name, command->has_json ? " [-j]" : "",
           command->arguments);
    return false;
}

static bool run_words(const struct words *words)
{
    const struct command *command = command_find(words->word[0]);
    struct arguments arguments = {
        .name = words->word[0],
        .count = words->count - 1,
        .word = words->word + 1,
    };

    if (command == NULL) {
        printk("unknown command: %s (try: help)\n", words->word[0]);
        return false;
    }
    if (command->has_json && arguments.count > 0 &&
        strcmp(arguments.word[0], "-j") == 0) {
        arguments.wants_json = true;
        arguments.count--;
        arguments.word++;
    }
    if (arguments.count < command->least || arguments.count > command->most) {
        return say_usage(command);
    }
    return command->run(&arguments);
}

bool monitor_execute(const char *text)
{
    struct words words;

    while (*text != '\0') {
        if (words_split(text, &words, &text) != MM_OK) {
            printk("a command has at most %d words and %d characters\n",
                   WORDS_MAX, WORDS_BYTES);
            return false;
        }
        if (words.count > 0 && !run_words(&words)) {
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

/* Complete the word before the cursor; list the choices if there are more. */
static void complete(void)
{
    char head[LINE_BYTES];
    const char *command = head;
    const char *rest;
    struct words words;
    struct completion found = {0};

    memcpy(head, line.text, line.cursor);
    head[line.cursor] = '\0';
    do { /* only what stands behind the last ; counts */
        if (words_split(command, &words, &rest) != MM_OK) {
            return;
        }
        command = rest;
    } while (*rest != '\0');
    bool starts_word = line.cursor == 0 || head[line.cursor - 1] == ' ' ||
                       head[line.cursor - 1] == ';';
    unsigned position = words.count - (starts_word ? 0 : 1);
    if (words.count == 0) {
        position = 0;
    }
    if (position > 1) {
        return;
    }
    found.prefix = starts_word ? "" : words.word[words.count - 1];
    each_choice(&words, position == 0, visit_add, &found);
    if (found.matches == 0) {
        return;
    }
    size_t typed = strlen(found.prefix);
    if (found.matches > 1 && strlen(found.common) == typed) {
        show("\n");
        each_choice(&words, position == 0, visit_show, &found);
        show("\n");
    }
    /* A word that does not fit stays as it is. */
    if (line_insert(&line, found.common + typed) == LINE_CHANGED &&
        found.matches == 1) {
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
        show("\na line holds %d characters\n", LINE_BYTES - 1);
        break;
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
