/* SPDX-License-Identifier: MIT */
/* boot_info: what the boot loader said, copied out before memory is used. */
#ifndef KERNEL_BOOT_INFO_H
#define KERNEL_BOOT_INFO_H

#include <mm/memmap.h>
#include "kernel/cmdline.h"
#include "kernel/multiboot2.h"

/* Modules whose names are kept; the memory of all is, however many. */
#define BOOT_MODULES_KEPT    16
#define BOOT_MODULE_NAME_MAX 64
#define BOOT_RSDP_MAX        64

struct boot_module {
    uint64_t start; /* physical */
    uint64_t end;
    char name[BOOT_MODULE_NAME_MAX];
};

struct boot_info {
    char command_line[CMDLINE_MAX];
    size_t command_line_bytes; /* of all of it; what is longer is cut */
    char loader[64];
    struct boot_framebuffer framebuffer;
    struct boot_module module[BOOT_MODULES_KEPT];
    size_t module_count;         /* of all; only the first are kept */
    uint8_t rsdp[BOOT_RSDP_MAX]; /* copy of ACPI's root pointer */
    size_t rsdp_bytes;           /* 0: none */
    uint64_t ram_bytes;          /* the firmware calls available */
    uint64_t low_page;           /* free, below 640 KiB; 0: there is none */
    bool is_efi;
    bool is_complete; /* the block had its end tag */
};

/* (C) after boot_info_read(). */
extern struct boot_info boot_info;

/*
 * Read the block at @physical into boot_info.
 * Return: MM_OK; MM_EINVAL for a wrong @magic; MM_ERANGE for a block that
 *         cannot be reached or is damaged at its edges; MM_ENOENT without a
 *         memory map.
 */
MM_MUST_CHECK enum mm_status boot_info_read(uint32_t magic, uint64_t physical);

/*
 * Everything that was said about memory: the kernel's own places, the block,
 * modules, screen, low memory, and the firmware's map. Reads the block in
 * place: for memmap_build(), before a frame is handed out.
 */
const struct memmap_source *boot_info_memory(void);

#endif
