/* SPDX-License-Identifier: MIT */
/* schedule_words: which words of memory several CPUs use. */
#include "tests/host/schedule_words.h"

#include <string.h>

/* Twice as many as a test uses, and more. */
#define WORDS (1u << 16)

/* A word that a CPU has read or written. */
static struct word {
    uintptr_t address; /* 0: unused entry */
    uint8_t users;     /* bit by bit */
    bool is_written;
    bool is_shared;
} words[WORDS];

static bool has_grown;
static uintptr_t owned_start;
static uint64_t owned_bytes;

void words_forget(const void *owned, uint64_t bytes)
{
    memset(words, 0, sizeof(words));
    has_grown = false;
    owned_start = (uintptr_t)owned;
    owned_bytes = bytes;
}

static struct word *find_word(uintptr_t address)
{
    uint64_t hash = address * UINT64_C(0x9e3779b97f4a7c15);

    for (uint64_t i = hash >> 48;; i++) {
        struct word *word = &words[i % WORDS];
        if (word->address == address || word->address == 0) {
            word->address = address;
            return word;
        }
    }
}

static bool has_several(unsigned cpus)
{
    return (cpus & (cpus - 1)) != 0;
}

bool words_note(const struct schedule_access *access, unsigned cpu)
{
    uintptr_t start = (uintptr_t)access->address;
    bool is_shared = false;

    if (start - owned_start < owned_bytes) {
        return false;
    }
    for (uintptr_t at = start & ~(uintptr_t)(WORD_BYTES - 1);
         at < start + access->bytes; at += WORD_BYTES) {
        struct word *word = find_word(at);
        word->users |= (uint8_t)(1u << cpu);
        word->is_written = word->is_written || access->is_write;
        if (!word->is_shared && word->is_written && has_several(word->users)) {
            word->is_shared = true;
            has_grown = true;
        }
        is_shared = is_shared || word->is_shared;
    }
    return is_shared;
}

bool words_have_grown(void)
{
    bool grown = has_grown;

    has_grown = false;
    return grown;
}
