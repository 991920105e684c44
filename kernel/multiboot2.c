/* SPDX-License-Identifier: MIT */
/* multiboot2: reads the block the boot loader leaves, trusting nothing. */
#include "kernel/multiboot2.h"

#include "base/bits.h"
#include "base/memory.h"
#include "kernel/lib/unaligned.h"

/*
 * The block: total size, a reserved word, then tags of (type, size, payload),
 * each padded to 8 bytes. Numbers are read byte-wise: entry sizes come from
 * outside and need not keep fields aligned.
 */
#define BLOCK_HEADER_BYTES 8
#define TAG_HEADER_BYTES   8
#define TAG_ALIGNMENT      8

/* Payload of the memory map: entry size, version, entries. [MB2 3.6.8] */
#define MAP_ENTRIES     8
#define MAP_ENTRY_BYTES 20 /* base, length, type; 24 with the reserved word */

/* Payload of the EFI map: descriptor size, version, descriptors. */
#define EFI_DESCRIPTORS      8
#define EFI_DESCRIPTOR_BYTES 40 /* [UEFI 7.2 "EFI_MEMORY_DESCRIPTOR"] */
#define EFI_PAGE_SHIFT       12

/* Payload of the framebuffer tag. [MB2 3.6.12 "Framebuffer info"] */
#define FRAMEBUFFER_BYTES     24 /* up to the colour description */
#define FRAMEBUFFER_RGB_BYTES (FRAMEBUFFER_BYTES + 6)
#define FRAMEBUFFER_TYPE_RGB  1
#define FRAMEBUFFER_TYPE_TEXT 2
#define TEXT_BITS_PER_CELL    16

/* Read the tag at @offset; false if it does not fit. */
static bool read_tag(const struct mb2 *info, uint32_t offset,
                     struct mb2_tag *out)
{
    if (offset > info->bytes || info->bytes - offset < TAG_HEADER_BYTES) {
        return false;
    }
    uint32_t size = read32(info->block + offset + 4);
    if (size < TAG_HEADER_BYTES || size > info->bytes - offset) {
        return false;
    }
    out->type = read32(info->block + offset);
    out->data = info->block + offset + TAG_HEADER_BYTES;
    out->bytes = size - TAG_HEADER_BYTES;
    /* At most MB2_MAX_BYTES and a little: no overflow. */
    out->next = (uint32_t)align_up((uint64_t)offset + size, TAG_ALIGNMENT);
    return true;
}

bool mb2_next(const struct mb2 *info, struct mb2_tag *tag)
{
    uint32_t offset = tag->next == 0 ? BLOCK_HEADER_BYTES : tag->next;

    return read_tag(info, offset, tag) && tag->type != MB2_END;
}

bool mb2_is_complete(const struct mb2 *info)
{
    uint32_t offset = BLOCK_HEADER_BYTES;
    struct mb2_tag tag;

    while (read_tag(info, offset, &tag)) {
        if (tag.type == MB2_END) {
            return true;
        }
        offset = tag.next;
    }
    return false;
}

bool mb2_find(const struct mb2 *info, enum mb2_type type, size_t index,
              struct mb2_tag *out)
{
    *out = (struct mb2_tag){0};
    while (mb2_next(info, out)) {
        if (out->type == (uint32_t)type) {
            if (index == 0) {
                return true;
            }
            index--;
        }
    }
    return false;
}

/*
 * Once: the list of tags is long, and the map is read entry by entry, many
 * times. EFI's map counts only where it is the only one.
 */
static void find_memory(struct mb2 *info)
{
    if (!mb2_find(info, MB2_MEMORY_MAP, 0, &info->memory) &&
        !mb2_find(info, MB2_EFI_MEMORY_MAP, 0, &info->memory)) {
        info->memory = (struct mb2_tag){.type = MB2_END};
    }
}

enum mm_status mb2_open(const void *block, uint64_t reachable, struct mb2 *out)
{
    const uint8_t *bytes = block;

    if (!is_aligned((uint64_t)(uintptr_t)block, TAG_ALIGNMENT) ||
        reachable < BLOCK_HEADER_BYTES + TAG_HEADER_BYTES) {
        return MM_EINVAL;
    }
    uint32_t total = read32(bytes);
    if (total < BLOCK_HEADER_BYTES + TAG_HEADER_BYTES || total > reachable ||
        total > MB2_MAX_BYTES) {
        return MM_EINVAL;
    }
    *out = (struct mb2){.block = bytes, .bytes = total};
    find_memory(out);
    return MM_OK;
}

const char *mb2_text(const struct mb2_tag *tag, uint32_t offset)
{
    for (uint32_t i = offset; i < tag->bytes; i++) {
        if (tag->data[i] == '\0') {
            return (const char *)tag->data + offset;
        }
    }
    return NULL;
}

bool mb2_module(const struct mb2 *info, size_t index, struct mb2_module *out)
{
    struct mb2_tag tag;

    if (!mb2_find(info, MB2_MODULE, index, &tag)) {
        return false;
    }
    *out = (struct mb2_module){0, 0, "damaged module tag"};
    if (tag.bytes >= 8) {
        const char *name = mb2_text(&tag, 8);
        out->start = read32(tag.data);
        out->end = read32(tag.data + 4);
        out->name = name != NULL ? name : "name without an end";
    }
    return true;
}

/* [MB2 3.6.8 "Memory map"] */
static void set_claim_type(struct memmap_claim *claim, uint32_t type)
{
    switch (type) {
    case 1:
        claim->type = MEMMAP_USABLE;
        claim->reason = "firmware: type 1 (available)";
        break;
    case 2:
        claim->type = MEMMAP_RESERVED;
        claim->reason = "firmware: type 2 (reserved)";
        break;
    case 3:
        claim->type = MEMMAP_ACPI;
        claim->reason = "firmware: type 3 (ACPI tables)";
        break;
    case 4:
        claim->type = MEMMAP_ACPI;
        claim->reason = "firmware: type 4 (ACPI NVS)";
        break;
    case 5:
        claim->type = MEMMAP_BAD;
        claim->reason = "firmware: type 5 (bad RAM)";
        break;
    default:
        claim->type = MEMMAP_RESERVED;
        claim->reason = "firmware: a type that is not known";
        break;
    }
}

static bool map_entry(const struct mb2_tag *tag, size_t index,
                      struct memmap_claim *out)
{
    if (tag->bytes < MAP_ENTRIES) {
        return false;
    }
    uint32_t entry_bytes = read32(tag->data);
    uint32_t room = tag->bytes - MAP_ENTRIES;
    if (entry_bytes < MAP_ENTRY_BYTES || index >= room / entry_bytes) {
        return false;
    }
    const uint8_t *entry = tag->data + MAP_ENTRIES + index * entry_bytes;
    *out = (struct memmap_claim){
        .start = read64(entry), .length = read64(entry + 8), .owner = ""};
    set_claim_type(out, read32(entry + 16));
    return true;
}

/* [UEFI 7.2 "Memory Type Usage after ExitBootServices()"] */
static void set_efi_type(struct memmap_claim *claim, uint32_t type)
{
    claim->type = MEMMAP_RESERVED;
    claim->reason = "EFI: reserved or in use by the firmware";
    switch (type) {
    case 1: /* EfiLoaderCode, ... */
    case 2:
    case 3:
    case 4: /* ... EfiBootServicesData: the loader has ended them */
    case 7: /* EfiConventionalMemory */
        claim->type = MEMMAP_USABLE;
        claim->reason = "EFI: free after boot services";
        break;
    case 8:
        claim->type = MEMMAP_BAD;
        claim->reason = "EFI: type 8 (unusable)";
        break;
    case 9:
        claim->type = MEMMAP_ACPI;
        claim->reason = "EFI: type 9 (ACPI tables)";
        break;
    case 10:
        claim->type = MEMMAP_ACPI;
        claim->reason = "EFI: type 10 (ACPI NVS)";
        break;
    default:
        break;
    }
}

static bool efi_entry(const struct mb2_tag *tag, size_t index,
                      struct memmap_claim *out)
{
    if (tag->bytes < EFI_DESCRIPTORS) {
        return false;
    }
    uint32_t entry_bytes = read32(tag->data);
    uint32_t room = tag->bytes - EFI_DESCRIPTORS;
    if (entry_bytes < EFI_DESCRIPTOR_BYTES || index >= room / entry_bytes) {
        return false;
    }
    const uint8_t *entry = tag->data + EFI_DESCRIPTORS + index * entry_bytes;
    uint64_t pages = read64(entry + 24);
    *out = (struct memmap_claim){.start = read64(entry + 8), .owner = ""};
    /* Too many pages to count in bytes: up to the end of the world. */
    out->length = pages > UINT64_MAX >> EFI_PAGE_SHIFT
                      ? UINT64_MAX
                      : pages << EFI_PAGE_SHIFT;
    set_efi_type(out, read32(entry));
    return true;
}

bool mb2_memory(const struct mb2 *info, size_t index, struct memmap_claim *out)
{
    switch (info->memory.type) {
    case MB2_MEMORY_MAP:
        return map_entry(&info->memory, index, out);
    case MB2_EFI_MEMORY_MAP:
        return efi_entry(&info->memory, index, out);
    default:
        return false;
    }
}

static bool is_channel(uint8_t position, uint8_t bits, uint8_t pixel_bits)
{
    return bits >= 1 && bits <= 16 && position + bits <= pixel_bits;
}

static bool read_colours(const struct mb2_tag *tag,
                         struct boot_framebuffer *out)
{
    const uint8_t *colour = tag->data + FRAMEBUFFER_BYTES;

    if (tag->bytes < FRAMEBUFFER_RGB_BYTES) {
        return false;
    }
    out->red_position = colour[0];
    out->red_bits = colour[1];
    out->green_position = colour[2];
    out->green_bits = colour[3];
    out->blue_position = colour[4];
    out->blue_bits = colour[5];
    return is_channel(colour[0], colour[1], out->bits_per_pixel) &&
           is_channel(colour[2], colour[3], out->bits_per_pixel) &&
           is_channel(colour[4], colour[5], out->bits_per_pixel);
}

/* Lines that fit their pitch, an end that does not overflow. */
static bool is_possible(const struct boot_framebuffer *screen)
{
    uint64_t line =
        (uint64_t)screen->width * ((screen->bits_per_pixel + 7u) / 8);
    uint64_t bytes = (uint64_t)screen->pitch * screen->height;
    uint64_t end;

    return screen->width > 0 && screen->height > 0 && line <= screen->pitch &&
           checked_add(screen->address, bytes, &end);
}

void mb2_framebuffer(const struct mb2 *info, struct boot_framebuffer *out)
{
    struct mb2_tag tag;

    *out = (struct boot_framebuffer){0};
    if (!mb2_find(info, MB2_FRAMEBUFFER, 0, &tag) ||
        tag.bytes < FRAMEBUFFER_BYTES) {
        return;
    }
    struct boot_framebuffer screen = {
        .address = read64(tag.data),
        .pitch = read32(tag.data + 8),
        .width = read32(tag.data + 12),
        .height = read32(tag.data + 16),
        .bits_per_pixel = tag.data[20],
    };
    uint8_t type = tag.data[21];
    if (type == FRAMEBUFFER_TYPE_TEXT) {
        screen.kind = SCREEN_TEXT;
        screen.bits_per_pixel = TEXT_BITS_PER_CELL;
    } else if (type == FRAMEBUFFER_TYPE_RGB && read_colours(&tag, &screen)) {
        screen.kind = SCREEN_RGB;
    }
    if (screen.kind != SCREEN_NONE && is_possible(&screen)) {
        *out = screen;
    }
}
