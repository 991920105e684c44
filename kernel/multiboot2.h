/* SPDX-License-Identifier: MIT */
/* multiboot2: reads the block the boot loader leaves, trusting nothing. */
#ifndef KERNEL_MULTIBOOT2_H
#define KERNEL_MULTIBOOT2_H

#include <mm/memmap.h>
#include <mm/types.h>

/* In EAX at entry. [MB2 3.3 "I386 machine state"] */
#define MB2_LOADER_MAGIC UINT32_C(0x36d76289)

/* A larger block is refused: it is damaged, not rich. */
#define MB2_MAX_BYTES (16 * MiB)

/* Types of tags. [MB2 3.6 "Boot information format"] */
enum mb2_type {
    MB2_END = 0,
    MB2_COMMAND_LINE = 1,
    MB2_LOADER_NAME = 2,
    MB2_MODULE = 3,
    MB2_MEMORY_MAP = 6,
    MB2_FRAMEBUFFER = 8,
    MB2_EFI32_TABLE = 11,
    MB2_EFI64_TABLE = 12,
    MB2_ACPI_OLD = 14,
    MB2_ACPI_NEW = 15,
    MB2_EFI_MEMORY_MAP = 17
};

/* One tag; all of its payload lies inside the block. */
struct mb2_tag {
    uint32_t type;
    const uint8_t *data; /* behind type and size */
    uint32_t bytes;      /* of data */
    uint32_t next;       /* offset in the block at which to go on */
};

/* A block that mb2_open() has found whole at its edges. */
struct mb2 {
    const uint8_t *block;
    uint32_t bytes;
    struct mb2_tag memory; /* the map that mb2_memory() reads; MB2_END: none */
};

struct mb2_module {
    uint64_t start; /* physical */
    uint64_t end;
    const char *name; /* inside the block; never NULL */
};

enum boot_screen { SCREEN_NONE, SCREEN_TEXT, SCREEN_RGB };

struct boot_framebuffer {
    enum boot_screen kind;
    uint64_t address; /* physical */
    uint32_t pitch;   /* bytes a line */
    uint32_t width;   /* pixels, or characters of SCREEN_TEXT */
    uint32_t height;
    uint8_t bits_per_pixel;
    uint8_t red_position;
    uint8_t red_bits;
    uint8_t green_position;
    uint8_t green_bits;
    uint8_t blue_position;
    uint8_t blue_bits;
};

/*
 * Look at the block at @block, of which @reachable bytes can be read.
 * Return: MM_OK; MM_EINVAL if it is not 8-byte aligned, or its size is
 *         impossible.
 */
MM_MUST_CHECK enum mm_status mb2_open(const void *block, uint64_t reachable,
                                      struct mb2 *out);

/*
 * Step to the next tag; start with a @tag of zeroes. False at the end tag
 * and at the first tag that does not fit.
 */
bool mb2_next(const struct mb2 *info, struct mb2_tag *tag);

/* Does the list of tags come to its end tag? */
bool mb2_is_complete(const struct mb2 *info);

/* Tag number @index of those of @type. */
bool mb2_find(const struct mb2 *info, enum mb2_type type, size_t index,
              struct mb2_tag *out);

/* The text at @offset in a tag; NULL if it does not end inside. */
const char *mb2_text(const struct mb2_tag *tag, uint32_t offset);

bool mb2_module(const struct mb2 *info, size_t index, struct mb2_module *out);

/*
 * Entry @index of the memory map: the multiboot one, or EFI's where that is
 * the only one. The fields are as the firmware wrote them.
 */
bool mb2_memory(const struct mb2 *info, size_t index, struct memmap_claim *out);

/* SCREEN_NONE if there is no tag, or one that makes no sense. */
void mb2_framebuffer(const struct mb2 *info, struct boot_framebuffer *out);

#endif
