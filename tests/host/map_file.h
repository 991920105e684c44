/* SPDX-License-Identifier: MIT */
/* map_file: a memory map as firmware tells it, and what must become of it. */
#ifndef TESTS_HOST_MAP_FILE_H
#define TESTS_HOST_MAP_FILE_H

#include <mm/memmap.h>
#include "kernel/multiboot2.h"

/*
 * The files in tests/host/maps, one fact a line:
 *
 *   # machine; then where the facts come from
 *   reach END                RAM from here on is beyond the CPU (2^46)
 *   mapped END               phys_to_virt() works below (2^32)
 *   e820 SPAN usable|reserved|data|nvs|bad|typeN
 *   efi SPAN free|loader-code|...|typeN
 *   claim SPAN TYPE [OWNER]  what the kernel adds, behind the firmware's
 *   status ok|none|no-room   what memmap_build() returns
 *   clipped N                how many claims it corrects
 *   range SPAN TYPE TEXT     the list, but for the pages it lies on; TEXT is
 *                            part of "reason owner"
 *
 * SPAN is FIRST-LAST, as logs have it, with the last byte; or START+BYTES; or,
 * since EFI counts pages, START*PAGES. Behind a claim or a range may stand
 * "times COUNT step BYTES": it comes so often. TYPE is a memmap_type_name(),
 * or "unknown". Ranges are compared in the order of their addresses.
 *
 * The firmware's claims go through a multiboot2 block and mb2_memory().
 */

#define MAP_TEXT_BYTES 48

struct map_range {
    uint64_t start;
    uint64_t end;
    enum memmap_type type;
    char text[MAP_TEXT_BYTES];
};

struct map_file {
    struct memmap_limits limits;
    enum mm_status status;
    size_t clipped;

    struct map_range *range; /* expected, sorted */
    size_t ranges;

    struct memmap_claim *claim; /* those of the kernel */
    char (*owner)[MAP_TEXT_BYTES];
    size_t claims;

    uint8_t *block; /* those of the firmware */
    size_t block_bytes;
    size_t entries;
    struct mb2 info;

    char complaint[200]; /* "" or what is wrong with the file */
};

/* Read @path. Return: false with a complaint if it makes no sense. */
bool map_file_read(struct map_file *file, const char *path);
void map_file_free(struct map_file *file);

/* All claims of the file: the @context is the struct map_file. */
bool map_file_claim(const void *context, size_t index,
                    struct memmap_claim *out);

#endif
