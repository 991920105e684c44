/* SPDX-License-Identifier: MIT */
/* cmdline: the words behind the kernel's name in GRUB's menu. */
#ifndef KERNEL_CMDLINE_H
#define KERNEL_CMDLINE_H

#include <mm/types.h>

/* Longest command line; what is longer is cut. */
#define CMDLINE_MAX 2048

/*
 * Take @text apart: words between blanks, key=value or a flag. "..." and
 * '...' keep blanks, \ keeps the next character: cmd="meminfo; test frame".
 * GRUB writes the same as "cmd=meminfo; test frame": that is one word, too.
 */
void cmdline_init(const char *text);

/* The value of @key, "" for a flag, NULL if it is not there; the last wins. */
const char *cmdline_get(const char *key);

/* Is @key there with just this value? */
bool cmdline_is(const char *key, const char *value);

/* A decimal or 0x number; @otherwise if @key is missing or no number. */
uint64_t cmdline_number(const char *key, uint64_t otherwise);

#endif
