/* SPDX-License-Identifier: MIT */
/* selftest: runs the linked tests, and looks for what they left behind. */
#ifndef KERNEL_SELFTEST_H
#define KERNEL_SELFTEST_H

#include <mm/types.h>

/*
 * Run the tests whose names begin with @pattern ("" = all), print TAP, then
 * see whether all structures are sound and all frames are back.
 * Return: true if at least one test ran and nothing failed.
 */
bool selftest_run(const char *pattern);

#endif
