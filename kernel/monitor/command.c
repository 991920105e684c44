/* SPDX-License-Identifier: MIT */
/* command: the list of commands, and their arguments. */
#include "kernel/monitor/command.h"

#include <mm/port.h>
#include "kernel/console/console.h"
#include "kernel/lib/number.h"
#include "kernel/lib/string.h"
#include "kernel/symbols.h"

#define SYMBOL_BYTES 64
#define HELP_COLUMN  29 /* where the sentences begin */

static bool run_help(const struct arguments *arguments);

static const struct command help[] = {
    {"help", "?", "[COMMAND]", "this list, or one command", "", 0, 1, false,
     run_help},
};

static const struct command_group command_help = COMMAND_GROUP("Help", help);

static const struct command_group *const groups[] = {
    &command_memory,  &command_frames, &command_tables,  &command_tlb,
    &command_pt,      &command_audit,  &command_space,   &command_look,
    &command_heap,    &command_slab,   &command_guard,   &command_vmstat,
    &command_provoke, &command_misuse, &command_machine, &command_help,
};

const struct command_group *command_group(size_t index)
{
    return index < sizeof(groups) / sizeof(groups[0]) ? groups[index] : NULL;
}

const struct command *command_find(const char *name)
{
    const struct command_group *group;

    for (size_t i = 0; (group = command_group(i)) != NULL; i++) {
        for (size_t k = 0; k < group->count; k++) {
            const struct command *command = &group->command[k];
            if (strcmp(command->name, name) == 0 ||
                words_contain(command->aliases, name)) {
                return command;
            }
        }
    }
    return NULL;
}

static void say_choices(const struct command *command)
{
    if (command->choices[0] != '\0') {
        printk("  one of: %s\n", command->choices);
    }
}

static bool say_usage(const struct command *command)
{
    printk("usage: %s%s %s\n", command->name, command->has_json ? " [-j]" : "",
           command->arguments);
    say_choices(command);
    return false;
}

bool command_run(const char *const *word, unsigned count)
{
    const struct command *command = command_find(word[0]);
    const char *kept[WORDS_MAX];
    struct arguments arguments = {.name = word[0], .word = kept};

    if (command == NULL) {
        printk("unknown command: %s (try: help)\n", word[0]);
        return false;
    }
    for (unsigned i = 1; i < count; i++) {
        if (command->has_json && strcmp(word[i], "-j") == 0) {
            arguments.wants_json = true;
        } else {
            kept[arguments.count] = word[i];
            arguments.count++;
        }
    }
    if (arguments.count < command->least || arguments.count > command->most) {
        return say_usage(command);
    }
    return command->run(&arguments);
}

bool complain(const struct arguments *arguments, const char *format, ...)
{
    va_list list;

    printk("%s: ", arguments->name);
    va_start(list, format);
    printk_list(format, list);
    va_end(list);
    printk("\n");
    return false;
}

bool must_be_first(const struct arguments *arguments)
{
    return port_cpu() == 0 ||
           complain(arguments, "only CPU 0 can give the others work");
}

bool argument_number(const char *word, uint64_t *out)
{
    switch (number_parse(word, out)) {
    case MM_OK:
        return true;
    case MM_ERANGE:
        printk("%s is more than 64 bits hold\n", word);
        return false;
    default:
        printk("%s is no number: write 4096, 0x1000 or 4K\n", word);
        return false;
    }
}

/* symbol, or symbol and an offset behind + or -. */
static bool find_symbol(const char *word, uint64_t *out)
{
    char name[SYMBOL_BYTES];
    uint64_t offset = 0;
    size_t length = 0;

    while (word[length] != '\0' && word[length] != '+' && word[length] != '-') {
        length++;
    }
    if (length == 0 || length >= sizeof(name)) {
        return false;
    }
    memcpy(name, word, length);
    name[length] = '\0';
    if (!symbol_address(name, out)) {
        return false;
    }
    if (word[length] == '\0') {
        return true;
    }
    if (number_parse(word + length + 1, &offset) != MM_OK) {
        return false;
    }
    *out = word[length] == '+' ? *out + offset : *out - offset;
    return true;
}

bool argument_address(const char *word, uint64_t *out)
{
    bool starts_like_number = word[0] >= '0' && word[0] <= '9';

    if (starts_like_number) {
        return argument_number(word, out);
    }
    if (!find_symbol(word, out)) {
        printk("%s is neither a number nor a symbol of the kernel\n", word);
        return false;
    }
    return true;
}

/* --- help ----------------------------------------------------------------- */

static bool help_one(const struct arguments *arguments)
{
    const struct command *command = command_find(arguments->word[0]);

    if (command == NULL) {
        return complain(arguments, "there is no command %s",
                        arguments->word[0]);
    }
    printk("%s%s %s\n  %s\n", command->name, command->has_json ? " [-j]" : "",
           command->arguments, command->help);
    if (command->aliases[0] != '\0') {
        printk("  also: %s\n", command->aliases);
    }
    say_choices(command);
    return true;
}

static bool run_help(const struct arguments *arguments)
{
    const struct command_group *group;

    if (arguments->count > 0) {
        return help_one(arguments);
    }
    for (size_t i = 0; (group = command_group(i)) != NULL; i++) {
        printk("%s\n", group->title);
        for (size_t k = 0; k < group->count; k++) {
            const struct command *command = &group->command[k];
            int blanks = HELP_COLUMN - (int)strlen(command->name);
            printk("  %s %-*s %s\n", command->name, blanks > 0 ? blanks : 0,
                   command->arguments, command->help);
        }
    }
    printk("ADDR: 0x..., or a symbol of the kernel such as kernel_main+0x10. "
           "-j: JSON.\nTab completes, up and down recall, Ctrl-A X leaves "
           "QEMU.\n");
    return true;
}
