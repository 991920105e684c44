/* SPDX-License-Identifier: MIT */
/* command: what the monitor's commands are made of. */
#ifndef KERNEL_MONITOR_COMMAND_H
#define KERNEL_MONITOR_COMMAND_H

#include <mm/types.h>
#include "kernel/monitor/words.h"

/* What a command is given: the words behind its name. */
struct arguments {
    const char *name; /* as it was typed: an alias may matter */
    unsigned count;
    const char *const *word;
    bool wants_json; /* -j was among them; it is not counted */
};

struct command {
    const char *name;
    const char *aliases;   /* words, or "" */
    const char *arguments; /* for help: "ADDR [N]" */
    const char *help;      /* one line */
    const char *choices;   /* words the first argument may be, or "" */
    unsigned least;        /* arguments */
    unsigned most;
    bool has_json;
    /* Return: did it do what was asked? It has said why not. */
    bool (*run)(const struct arguments *arguments);
};

/* A file of commands. */
struct command_group {
    const char *title;
    const struct command *command;
    size_t count;
};

#define COMMAND_GROUP(heading, table)                                          \
    {                                                                          \
        .title = heading, .command = table,                                    \
        .count = sizeof(table) / sizeof(table[0])                              \
    }

extern const struct command_group command_memory;
extern const struct command_group command_frames;
extern const struct command_group command_tables;
extern const struct command_group command_tlb;
extern const struct command_group command_pt;
extern const struct command_group command_audit;
extern const struct command_group command_space;
extern const struct command_group command_look;
extern const struct command_group command_heap;
extern const struct command_group command_slab;
extern const struct command_group command_vmstat;
extern const struct command_group command_guard;
extern const struct command_group command_provoke;
extern const struct command_group command_misuse;
extern const struct command_group command_machine;

/* All groups, in the order of help. NULL after the last. */
const struct command_group *command_group(size_t index);

/* By name or alias; NULL if there is none. */
const struct command *command_find(const char *name);

/* Run the command @word[0], 1 <= @count <= WORDS_MAX words; did it succeed? */
bool command_run(const char *const *word, unsigned count);

/*
 * For commands. They print a sentence with the word if they return false.
 */

/* A number that is no address: a count or a size. */
MM_MUST_CHECK bool argument_number(const char *word, uint64_t *out);

/* An address: a number, or symbol, symbol+NUMBER, symbol-NUMBER. */
MM_MUST_CHECK bool argument_address(const char *word, uint64_t *out);

/*
 * The walk of the kernel's tables to the address @word, as far as they can be
 * read.
 */
struct walk;
MM_MUST_CHECK bool argument_walk(const struct arguments *arguments,
                                 const char *word, struct walk *out);

/* Sleep for @seconds, or until a key is typed: then true. */
bool wait_for_key(uint64_t seconds);

/* Does the first processor run this? Only it can give the others work. */
bool must_be_first(const struct arguments *arguments);

/* "memmap: " and the sentence; false, for the command to return. */
bool complain(const struct arguments *arguments, const char *format, ...)
    MM_PRINTF(2, 3);

#endif
