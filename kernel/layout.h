/* SPDX-License-Identifier: MIT */
/* layout: the kernel's half of the address space, sorted by address. */
#ifndef KERNEL_LAYOUT_H
#define KERNEL_LAYOUT_H

#include <mm/types.h>

/*
 *  0xffff800000000000  direct map: all RAM, never executable
 *  0xffffc00000000000  kmap: blocks, device windows, stacks
 *  0xffffe00000000000  frame records, 16 bytes a frame
 *  0xffffffff80000000  the image, at 2 GiB below the top (-mcmodel=kernel)
 *  0xffffffffc0000000  the screen: framebuffer or VGA text
 *
 * The same with 4 and 5 levels of tables. boot/boot.inc and linker.ld know
 * the first and the fourth.
 */
#define LAYOUT_DIRECT       UINT64_C(0xffff800000000000)
#define LAYOUT_DIRECT_BYTES (64 * TiB)
#define LAYOUT_KMAP         UINT64_C(0xffffc00000000000)
#define LAYOUT_KMAP_END     (LAYOUT_KMAP + 512 * GiB)
#define LAYOUT_RECORDS      UINT64_C(0xffffe00000000000)
#define LAYOUT_IMAGE        UINT64_C(0xffffffff80000000)
#define LAYOUT_SCREEN       UINT64_C(0xffffffffc0000000)
/* The last 64 KiB stay empty: pointers near -1 fault. */
#define LAYOUT_SCREEN_BYTES (UINT64_C(0) - LAYOUT_SCREEN - 64 * KiB)

/* What the boot tables show at LAYOUT_DIRECT (boot.inc: BOOT_MAP_GIB). */
#define LAYOUT_BOOT_MAPPED (4 * GiB)

_Static_assert(LAYOUT_DIRECT + LAYOUT_DIRECT_BYTES <= LAYOUT_KMAP, "sorted");
_Static_assert(LAYOUT_KMAP_END <= LAYOUT_RECORDS, "sorted");
_Static_assert(LAYOUT_RECORDS + LAYOUT_DIRECT_BYTES / PAGE_BYTES * 16 <=
                   LAYOUT_IMAGE,
               "sorted");

#endif
