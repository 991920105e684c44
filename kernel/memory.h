/* SPDX-License-Identifier: MIT */
/* memory: hands the machine over to the memory subsystem. */
#ifndef KERNEL_MEMORY_H
#define KERNEL_MEMORY_H

#include <mm/memmap.h>

/*
 * From the boot loader's words to mm_init(): memory map, image segments,
 * what must stay mapped. Then frees what only start-up needed.
 * Does not return if the machine cannot be used; it says why.
 * Context: once, after cpu_protect() and boot_info_read().
 */
void memory_init(void);

/* The map, for iomem. After memory_init(). */
const struct memmap *memory_map(void);

/*
 * Draw on the screen through whatever tables are loaded: the boot tables'
 * direct map, or the window at LAYOUT_SCREEN. The first call shows what was
 * printed before.
 */
void memory_show_screen(void);

#endif
