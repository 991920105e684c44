/* SPDX-License-Identifier: MIT */
/* words: a command line taken apart. Pure. */
#include "kernel/monitor/words.h"

#include "kernel/lib/string.h"

static bool ends_word(char c)
{
    return c == '\0' || c == ';' || is_blank(c);
}

enum mm_status words_split(const char *text, struct words *out,
                           const char **out_rest)
{
    size_t used = 0;

    out->count = 0;
    for (;;) {
        while (is_blank(*text)) {
            text++;
        }
        if (*text == '\0' || *text == ';') {
            *out_rest = *text == ';' ? text + 1 : text;
            return MM_OK;
        }
        if (out->count == WORDS_MAX) {
            return MM_ERANGE;
        }
        out->word[out->count] = &out->text[used];
        out->count++;
        for (; !ends_word(*text); text++) {
            if (used + 1 >= WORDS_BYTES) {
                return MM_ERANGE;
            }
            out->text[used] = *text;
            used++;
        }
        out->text[used] = '\0';
        used++;
    }
}

/* Step to the next word of @list: its length, 0 at the end. */
static size_t next_word(const char **list)
{
    size_t length = 0;

    while (is_blank(**list)) {
        (*list)++;
    }
    while (!ends_word((*list)[length])) {
        length++;
    }
    return length;
}

bool words_contain(const char *list, const char *word)
{
    size_t length;

    for (; (length = next_word(&list)) > 0; list += length) {
        size_t i = 0;
        while (i < length && word[i] == list[i]) {
            i++;
        }
        if (i == length && word[i] == '\0') {
            return true;
        }
    }
    return false;
}

static void completion_add_word(struct completion *completion, const char *word,
                                size_t length)
{
    for (size_t i = 0; completion->prefix[i] != '\0'; i++) {
        if (i == length || completion->prefix[i] != word[i]) {
            return;
        }
    }
    if (completion->matches == 0) {
        size_t kept = length < COMPLETION_BYTES ? length : COMPLETION_BYTES - 1;
        for (size_t i = 0; i < kept; i++) {
            completion->common[i] = word[i];
        }
        completion->common[kept] = '\0';
    }
    completion->matches++;
    for (size_t i = 0; completion->common[i] != '\0'; i++) {
        if (i == length || completion->common[i] != word[i]) {
            completion->common[i] = '\0';
            return;
        }
    }
}

void completion_add(struct completion *completion, const char *list)
{
    size_t length;

    for (; (length = next_word(&list)) > 0; list += length) {
        completion_add_word(completion, list, length);
    }
}
