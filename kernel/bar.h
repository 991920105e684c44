/* SPDX-License-Identifier: MIT */
/* bar: the machine's physical memory as a line of characters, with sums. */
#ifndef KERNEL_BAR_H
#define KERNEL_BAR_H

#include <mm/memmap.h>

/* Characters of the bar, without its frame. */
#define BAR_CELLS 64

/*
 * Print the bar and a legend with the sum of each type. A cell shows the most
 * notable type that fills an eighth of it.
 */
void bar_print(const struct memmap *map);

#endif
