/* SPDX-License-Identifier: MIT */
/* string: comparisons and lengths; the copies are in memory.asm. */
#include "kernel/lib/string.h"

/* How many bytes are certainly alike: whole words, if both are aligned. */
static size_t count_alike(const void *a, const void *b, size_t bytes)
{
    const size_t *left = a;
    const size_t *right = b;
    size_t words = 0;

    if (((uintptr_t)a | (uintptr_t)b) % sizeof(size_t) != 0) {
        return 0;
    }
    while (words < bytes / sizeof(size_t) && left[words] == right[words]) {
        words++;
    }
    return words * sizeof(size_t);
}

int memcmp(const void *a, const void *b, size_t bytes)
{
    const unsigned char *left = a;
    const unsigned char *right = b;

    for (size_t i = count_alike(a, b, bytes); i < bytes; i++) {
        if (left[i] != right[i]) {
            return left[i] < right[i] ? -1 : 1;
        }
    }
    return 0;
}

size_t strnlen(const char *text, size_t limit)
{
    size_t length = 0;

    while (length < limit && text[length] != '\0') {
        length++;
    }
    return length;
}

/* By way of strnlen: a loop of its own might be compiled to a strlen call. */
size_t strlen(const char *text)
{
    return strnlen(text, SIZE_MAX);
}

int strncmp(const char *a, const char *b, size_t limit)
{
    for (size_t i = 0; i < limit; i++) {
        unsigned char left = (unsigned char)a[i];
        unsigned char right = (unsigned char)b[i];
        if (left != right) {
            return left < right ? -1 : 1;
        }
        if (left == '\0') {
            return 0;
        }
    }
    return 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}
