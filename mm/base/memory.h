/* SPDX-License-Identifier: MIT */
/* The four functions of <string.h> a freestanding compiler relies on. */
#ifndef MM_BASE_MEMORY_H
#define MM_BASE_MEMORY_H

#include <stddef.h>

/* The host supplies them, as the C standard has them. */
void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#endif
