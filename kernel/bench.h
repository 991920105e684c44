/* SPDX-License-Identifier: MIT */
/* bench: what operations cost, counted by the time stamp counter. */
#ifndef KERNEL_BENCH_H
#define KERNEL_BENCH_H

#include <mm/types.h>

/*
 * Print "bench: NAME VALUE UNIT" for each figure whose name begins with
 * @pattern. Under QEMU's -icount shift=0 a tick is an instruction.
 * Return: false if a measurement could not be made; it has said why.
 * Context: as idle_suspend(), which it calls.
 */
bool bench_run(const char *pattern);

#endif
