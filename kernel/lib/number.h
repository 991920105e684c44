/* SPDX-License-Identifier: MIT */
/* number: numbers as people type them. */
#ifndef KERNEL_LIB_NUMBER_H
#define KERNEL_LIB_NUMBER_H

#include <mm/types.h>

/*
 * 0x... or decimal, in either case with K, M, G or T behind it.
 * Return: MM_OK; MM_EINVAL if it is no number; MM_ERANGE above 2^64.
 */
MM_MUST_CHECK enum mm_status number_parse(const char *text, uint64_t *out);

#endif
