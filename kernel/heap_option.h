/* SPDX-License-Identifier: MIT */
/* heap_option: what the heap watches that it would not of itself. */
#ifndef KERNEL_HEAP_OPTION_H
#define KERNEL_HEAP_OPTION_H

/*
 * heap=doublefree: a second free is reported at once, not when the object
 * returns to its slab. Another word is named in a warning.
 * Context: after cmdline_init(), before mm_init().
 */
void heap_option_apply(void);

#endif
