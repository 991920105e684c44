/* SPDX-License-Identifier: MIT */
/* format: printf's language, written to a buffer. */
#ifndef KERNEL_LIB_FORMAT_H
#define KERNEL_LIB_FORMAT_H

#include <stdarg.h>
#include <mm/types.h>

/*
 * As vsnprintf: at most @size bytes go to @out, the last of them a 0 (none
 * if @size is 0); the length the whole text would have is returned.
 *
 *   %[flags][width][.precision][length]conversion
 *   flags       - 0 + blank #
 *   width and precision: a number or *
 *   length      hh h l ll z j t
 *   conversion  d i u x X o c s p %
 *
 * A conversion that is none of these is copied as it stands. No floating
 * point, no %n. %p has a name for what format_name knows; NULL is nobody known.
 */
int kvsnprintf(char *out, size_t size, const char *format, va_list arguments)
    MM_PRINTF(3, 0);
int ksnprintf(char *out, size_t size, const char *format, ...) MM_PRINTF(3, 4);

/*
 * (C) Is there a name for @address: "kmalloc+0x12"? NULL: for none. main.c
 * sets it to symbol_find().
 */
extern bool (*format_name)(uint64_t address, const char **out_name,
                           uint64_t *out_offset);

#endif
