/* SPDX-License-Identifier: MIT */
/* cmdline: the words behind the kernel's name in GRUB's menu. */
#include "kernel/cmdline.h"

#include "kernel/lib/number.h"
#include "kernel/lib/string.h"

/* The words, each ended by 0, one behind the other. */
static char words[CMDLINE_MAX];
static size_t words_bytes;

static void keep(char c)
{
    if (words_bytes < sizeof(words) - 1) {
        words[words_bytes] = c;
        words_bytes++;
    }
}

/* Copy one word without its quotes; return what follows it. */
static const char *take_word(const char *text)
{
    char quote = '\0';

    for (; *text != '\0' && (quote != '\0' || !is_blank(*text)); text++) {
        if (*text == '\\' && text[1] != '\0') {
            text++;
            keep(*text);
        } else if (quote != '\0' && *text == quote) {
            quote = '\0';
        } else if (quote == '\0' && (*text == '"' || *text == '\'')) {
            quote = *text;
        } else {
            keep(*text);
        }
    }
    return text;
}

void cmdline_init(const char *text)
{
    words_bytes = 0;
    while (*text != '\0') {
        if (is_blank(*text)) {
            text++;
            continue;
        }
        text = take_word(text);
        if (words_bytes < sizeof(words)) {
            words[words_bytes] = '\0';
            words_bytes++;
        }
    }
}

/* The value in @word if its key is @key, else NULL. */
static const char *value_of(const char *word, const char *key)
{
    size_t length = strlen(key);

    if (strncmp(word, key, length) != 0) {
        return NULL;
    }
    if (word[length] == '=') {
        return word + length + 1;
    }
    return word[length] == '\0' ? word + length : NULL;
}

const char *cmdline_get(const char *key)
{
    const char *found = NULL;
    size_t at = 0;

    while (at < words_bytes) {
        const char *value = value_of(words + at, key);
        if (value != NULL) {
            found = value;
        }
        at += strlen(words + at) + 1;
    }
    return found;
}

bool cmdline_is(const char *key, const char *value)
{
    const char *found = cmdline_get(key);

    return found != NULL && strcmp(found, value) == 0;
}

uint64_t cmdline_number(const char *key, uint64_t otherwise)
{
    const char *text = cmdline_get(key);
    uint64_t value;

    return text != NULL && number_parse(text, &value) == MM_OK ? value
                                                               : otherwise;
}
