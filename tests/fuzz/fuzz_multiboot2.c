/* SPDX-License-Identifier: MIT */
/* fuzz multiboot2: any bytes as the block that the boot loader leaves. */
#include "tests/fuzz/fuzz.h"

#include "kernel/multiboot2.h"

/*
 * Input: a byte of options, then the block. The reference walks the tags with
 * nothing but offsets into the block and is asked the same questions.
 */
#define OPTION_FIT 1 /* the block's own size becomes that of the input */

#define ALIGNMENT 8
#define MAX_TAGS  4096 /* asked for: the input is shorter */

static uint64_t at(const uint8_t *block, size_t offset, size_t bytes)
{
    uint64_t value = 0;

    memcpy(&value, block + offset, bytes);
    return value;
}

/* One tag as the reference sees it: offset and size with header; 0: none. */
struct reference {
    const uint8_t *block;
    size_t total;
};

/* The tag behind @offset is whole: its size, else 0. */
static size_t tag_size(const struct reference *info, size_t offset)
{
    if (offset + 8 > info->total) {
        return 0;
    }
    size_t size = at(info->block, offset + 4, 4);
    return size >= 8 && offset + size <= info->total ? size : 0;
}

static size_t behind(size_t offset, size_t size)
{
    return (offset + size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Offset of tag @index of @type, or 0. */
static size_t find_tag(const struct reference *info, uint32_t type,
                       size_t index)
{
    size_t offset = 8;
    size_t size;

    while ((size = tag_size(info, offset)) != 0) {
        uint64_t found = at(info->block, offset, 4);
        if (found == MB2_END) {
            return 0;
        }
        if (found == type && index-- == 0) {
            return offset;
        }
        offset = behind(offset, size);
    }
    return 0;
}

/* Each tag, and whether there is an end. */
static void compare_tags(const struct mb2 *info, const struct reference *ref)
{
    struct mb2_tag tag = {0};
    size_t offset = 8;
    size_t size;

    while ((size = tag_size(ref, offset)) != 0 &&
           at(ref->block, offset, 4) != MB2_END) {
        FUZZ_CHECK(mb2_next(info, &tag));
        FUZZ_EQUAL(tag.type, at(ref->block, offset, 4));
        FUZZ_EQUAL(tag.bytes, size - 8);
        FUZZ_CHECK(tag.data == ref->block + offset + 8);
        const char *text = mb2_text(&tag, 0);
        FUZZ_EQUAL(text != NULL,
                   memchr(tag.data, 0, tag.bytes) != NULL && tag.bytes > 0);
        if (text != NULL) {
            fuzz_use_text(text);
        }
        offset = behind(offset, size);
    }
    FUZZ_CHECK(!mb2_next(info, &tag));
    FUZZ_EQUAL(mb2_is_complete(info), size != 0);
}

static void compare_modules(const struct mb2 *info, const struct reference *ref)
{
    struct mb2_module module;
    size_t index = 0;
    size_t offset;

    while ((offset = find_tag(ref, MB2_MODULE, index)) != 0) {
        FUZZ_CHECK(index < MAX_TAGS);
        FUZZ_CHECK(mb2_module(info, index, &module));
        bool is_whole = tag_size(ref, offset) >= 16;
        FUZZ_EQUAL(module.start, is_whole ? at(ref->block, offset + 8, 4) : 0);
        FUZZ_EQUAL(module.end, is_whole ? at(ref->block, offset + 12, 4) : 0);
        fuzz_use_text(module.name);
        index++;
    }
    FUZZ_CHECK(!mb2_module(info, index, &module));
}

static void compare_entry(const struct memmap_claim *claim,
                          const uint8_t *block, size_t entry, bool is_efi)
{
    uint64_t type = at(block, entry + (is_efi ? 0 : 16), 4);
    uint64_t length = at(block, entry + (is_efi ? 24 : 8), 8);
    bool is_usable = is_efi ? (type >= 1 && type <= 4) || type == 7 : type == 1;

    if (is_efi) {
        length = length >> 52 != 0 ? UINT64_MAX : length << 12;
    }
    FUZZ_EQUAL(claim->start, at(block, entry + (is_efi ? 8 : 0), 8));
    FUZZ_EQUAL(claim->length, length);
    FUZZ_EQUAL(claim->type == MEMMAP_USABLE, is_usable);
    FUZZ_CHECK(is_usable || claim->type == MEMMAP_ACPI ||
               claim->type == MEMMAP_RESERVED || claim->type == MEMMAP_BAD);
    fuzz_use_text(claim->reason);
    fuzz_use_text(claim->owner);
}

/* The first multiboot map, or else the first of EFI's. */
static void compare_memory(const struct mb2 *info, const struct reference *ref)
{
    struct memmap_claim claim;
    size_t offset = find_tag(ref, MB2_MEMORY_MAP, 0);
    bool is_efi = offset == 0;
    size_t count = 0;
    size_t step = 0;

    if (is_efi) {
        offset = find_tag(ref, MB2_EFI_MEMORY_MAP, 0);
    }
    if (offset != 0 && tag_size(ref, offset) >= 16) {
        step = at(ref->block, offset + 8, 4);
        if (step >= (is_efi ? 40u : 20u)) {
            count = (tag_size(ref, offset) - 16) / step;
        }
    }
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(mb2_memory(info, i, &claim));
        compare_entry(&claim, ref->block, offset + 16 + i * step, is_efi);
    }
    FUZZ_CHECK(!mb2_memory(info, count, &claim));
    FUZZ_CHECK(!mb2_memory(info, SIZE_MAX, &claim));
}

/* What is drawn to later must be inside its lines, and these in memory. */
static void check_framebuffer(const struct mb2 *info,
                              const struct reference *ref)
{
    struct boot_framebuffer screen;
    size_t offset = find_tag(ref, MB2_FRAMEBUFFER, 0);

    mb2_framebuffer(info, &screen);
    if (screen.kind == SCREEN_NONE) {
        fuzz_use(screen.width);
        return;
    }
    FUZZ_CHECK(offset != 0 && tag_size(ref, offset) >= 32);
    FUZZ_EQUAL(screen.address, at(ref->block, offset + 8, 8));
    FUZZ_EQUAL(screen.width, at(ref->block, offset + 20, 4));
    FUZZ_CHECK(screen.width > 0 && screen.height > 0);
    uint64_t bits = (uint64_t)screen.width * screen.bits_per_pixel;
    FUZZ_CHECK(screen.pitch >= bits / 8);
    FUZZ_CHECK(screen.address <=
               UINT64_MAX - (uint64_t)screen.pitch * screen.height);
    if (screen.kind == SCREEN_RGB) {
        FUZZ_CHECK(tag_size(ref, offset) >= 38);
        FUZZ_CHECK(screen.red_position + screen.red_bits <=
                   screen.bits_per_pixel);
        FUZZ_CHECK(screen.green_position + screen.green_bits <=
                   screen.bits_per_pixel);
        FUZZ_CHECK(screen.blue_position + screen.blue_bits <=
                   screen.bits_per_pixel);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint64_t options = fuzz_take(&input, 1);
    uint8_t *block = fuzz_copy(input.data, input.left);
    uint32_t fit = (uint32_t)input.left;
    struct mb2 info;

    if ((options & OPTION_FIT) != 0 && input.left >= sizeof(fit)) {
        memcpy(block, &fit, sizeof(fit));
    }
    uint64_t total = input.left >= 16 ? at(block, 0, 4) : 0;
    enum mm_status status = mb2_open(block, input.left, &info);
    FUZZ_EQUAL(status == MM_OK, total >= 16 && total <= input.left);
    if (status == MM_OK) {
        struct reference ref = {block, total};
        compare_tags(&info, &ref);
        compare_modules(&info, &ref);
        compare_memory(&info, &ref);
        check_framebuffer(&info, &ref);
    } else {
        FUZZ_EQUAL(status, MM_EINVAL);
    }
    free(block);
    return 0;
}
