/* SPDX-License-Identifier: MIT */
/* symbols: from an address to function, file and line. */
#ifndef KERNEL_SYMBOLS_H
#define KERNEL_SYMBOLS_H

#include <mm/types.h>

/*
 * The function that holds @address: its name and how far in.
 * False outside the image's code, or where no symbol table was linked.
 */
bool symbol_find(uint64_t address, const char **out_name, uint64_t *out_offset);

/* The line @address was compiled from. False if unknown. */
bool symbol_line(uint64_t address, const char **out_file, unsigned *out_line);

/* The address of the function or object @name. False if there is none. */
bool symbol_address(const char *name, uint64_t *out_address);

#endif
