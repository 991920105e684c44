/* SPDX-License-Identifier: MIT */
/* words: a command line taken apart. Pure. */
#ifndef KERNEL_MONITOR_WORDS_H
#define KERNEL_MONITOR_WORDS_H

#include <mm/types.h>

/* Most words of a command, and most bytes of them with their ends. */
#define WORDS_MAX   12
#define WORDS_BYTES 160

struct words {
    unsigned count;
    const char *word[WORDS_MAX]; /* point into text */
    char text[WORDS_BYTES];
};

/*
 * Take the command at the start of @text apart, up to its end or a ';'.
 * @out_rest: what follows the ';', or the final 0.
 * Return: MM_OK; MM_ERANGE if there are too many words or bytes.
 */
MM_MUST_CHECK enum mm_status words_split(const char *text, struct words *out,
                                         const char **out_rest);

/* Is @word one of the words in @list, which blanks separate? */
bool words_contain(const char *list, const char *word);

/* What the words that begin alike have in common. */
#define COMPLETION_BYTES 32

struct completion {
    const char *prefix;
    unsigned matches;
    char common[COMPLETION_BYTES]; /* longest common start of the matches */
};

/* Consider each word of @list. */
void completion_add(struct completion *completion, const char *list);

#endif
