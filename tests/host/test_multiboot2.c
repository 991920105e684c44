/* SPDX-License-Identifier: MIT */
/* multiboot2: well-formed and hostile blocks of boot information. */
#include "tests/shared/test.h"

#include <stdlib.h>
#include <string.h>
#include "kernel/multiboot2.h"

/*
 * At risk: sizes and offsets come from outside, and a wrong one must neither
 * be followed out of the block nor loop for ever. Provoked by blocks in heap
 * memory of exactly their size, where the address sanitizer sees every byte
 * read beyond, with fields damaged one by one and at random.
 */

#define BLOCK_MAX 16384

/* A block under construction. */
struct builder {
    uint8_t bytes[BLOCK_MAX];
    uint32_t used;
};

static void put32(struct builder *builder, uint32_t value)
{
    memcpy(builder->bytes + builder->used, &value, sizeof(value));
    builder->used += 4;
}

static void put64(struct builder *builder, uint64_t value)
{
    memcpy(builder->bytes + builder->used, &value, sizeof(value));
    builder->used += 8;
}

static void put_text(struct builder *builder, const char *text)
{
    memcpy(builder->bytes + builder->used, text, strlen(text) + 1);
    builder->used += (uint32_t)strlen(text) + 1;
}

static void begin(struct builder *builder)
{
    memset(builder, 0, sizeof(*builder));
    put32(builder, 0); /* total size, by finish() */
    put32(builder, 0);
}

/* Return: where the tag starts, for end_tag(). */
static uint32_t begin_tag(struct builder *builder, uint32_t type)
{
    uint32_t start = builder->used;

    put32(builder, type);
    put32(builder, 0);
    return start;
}

static void set32(struct builder *builder, uint32_t offset, uint32_t value)
{
    memcpy(builder->bytes + offset, &value, sizeof(value));
}

static void end_tag(struct builder *builder, uint32_t start)
{
    set32(builder, start + 4, builder->used - start);
    builder->used = (builder->used + 7) & ~7u;
}

static void put_end(struct builder *builder)
{
    end_tag(builder, begin_tag(builder, MB2_END));
}

static void put_text_tag(struct builder *builder, uint32_t type,
                         const char *text)
{
    uint32_t tag = begin_tag(builder, type);

    put_text(builder, text);
    end_tag(builder, tag);
}

static void put_module(struct builder *builder, uint32_t start, uint32_t end,
                       const char *name)
{
    uint32_t tag = begin_tag(builder, MB2_MODULE);

    put32(builder, start);
    put32(builder, end);
    put_text(builder, name);
    end_tag(builder, tag);
}

/* @count entries of 1 MiB each, type 1; return the tag's offset. */
static uint32_t put_map(struct builder *builder, uint32_t entry_bytes,
                        unsigned count)
{
    uint32_t tag = begin_tag(builder, MB2_MEMORY_MAP);

    put32(builder, entry_bytes);
    put32(builder, 0);
    for (unsigned i = 0; i < count; i++) {
        uint32_t entry = builder->used;
        put64(builder, i * 2 * MiB);
        put64(builder, MiB);
        put32(builder, 1 + i % 6);
        builder->used = entry + entry_bytes;
    }
    end_tag(builder, tag);
    return tag;
}

static void put_framebuffer(struct builder *builder, uint32_t pitch,
                            uint8_t bits, uint8_t type)
{
    static const uint8_t colours[6] = {16, 8, 8, 8, 0, 8};
    uint32_t tag = begin_tag(builder, MB2_FRAMEBUFFER);

    put64(builder, 0xfd000000);
    put32(builder, pitch);
    put32(builder, 1024);
    put32(builder, 768);
    builder->bytes[builder->used] = bits;
    builder->bytes[builder->used + 1] = type;
    builder->used += 4;
    memcpy(builder->bytes + builder->used, colours, sizeof(colours));
    builder->used += sizeof(colours);
    end_tag(builder, tag);
}

/* The block in memory of just its size; the caller frees it. */
static void *finish(struct builder *builder)
{
    void *block = malloc(builder->used);

    set32(builder, 0, builder->used);
    memcpy(block, builder->bytes, builder->used);
    return block;
}

/* Ask everything there is to ask; ends, and reads nothing outside. */
static void read_everything(const void *block, uint64_t reachable)
{
    struct boot_framebuffer screen;
    struct memmap_claim claim;
    struct mb2_module module;
    struct mb2_tag tag = {0};
    struct mb2 info;
    size_t index;

    if (mb2_open(block, reachable, &info) != MM_OK) {
        return;
    }
    (void)mb2_is_complete(&info);
    while (mb2_next(&info, &tag)) {
        const char *text = mb2_text(&tag, 0);
        CHECK(text == NULL || strlen(text) < tag.bytes);
    }
    for (index = 0; mb2_module(&info, index, &module); index++) {
        CHECK(strlen(module.name) < BLOCK_MAX);
    }
    for (index = 0; mb2_memory(&info, index, &claim); index++) {
        CHECK(claim.reason != NULL);
        CHECK(index < BLOCK_MAX);
    }
    mb2_framebuffer(&info, &screen);
    CHECK(screen.kind == SCREEN_NONE || screen.width > 0);
}

static void build_sample(struct builder *builder)
{
    begin(builder);
    put_text_tag(builder, MB2_COMMAND_LINE, "test=all cmd=meminfo");
    put_text_tag(builder, MB2_LOADER_NAME, "GRUB");
    put_module(builder, 0x400000, 0x500000, "initrd.img");
    put_module(builder, 0x500000, 0x500800, "second");
    put_map(builder, 24, 8);
    put_framebuffer(builder, 4096, 32, 1);
    put_end(builder);
}

TEST(multiboot2, a_well_formed_block_is_read)
{
    struct boot_framebuffer screen;
    struct mb2_module module;
    struct memmap_claim claim;
    struct builder builder;
    struct mb2_tag tag;
    struct mb2 info;

    build_sample(&builder);
    void *block = finish(&builder);
    CHECK_EQUAL(mb2_open(block, builder.used, &info), MM_OK);
    CHECK(mb2_is_complete(&info));
    CHECK(mb2_find(&info, MB2_COMMAND_LINE, 0, &tag));
    CHECK(strcmp(mb2_text(&tag, 0), "test=all cmd=meminfo") == 0);
    CHECK(mb2_module(&info, 1, &module));
    CHECK_EQUAL(module.start, 0x500000);
    CHECK_EQUAL(module.end, 0x500800);
    CHECK(strcmp(module.name, "second") == 0);
    CHECK(!mb2_module(&info, 2, &module));
    CHECK(mb2_memory(&info, 3, &claim));
    CHECK_EQUAL(claim.start, 6 * MiB);
    CHECK_EQUAL(claim.length, MiB);
    CHECK_EQUAL(claim.type, MEMMAP_ACPI);
    CHECK(!mb2_memory(&info, 8, &claim));
    mb2_framebuffer(&info, &screen);
    CHECK_EQUAL(screen.kind, SCREEN_RGB);
    CHECK_EQUAL(screen.red_position, 16);
    free(block);
}

TEST(multiboot2, three_hundred_entries_are_all_seen)
{
    struct memmap_claim claim;
    struct builder builder;
    struct mb2 info;
    size_t count = 0;

    begin(&builder);
    put_map(&builder, 32, 300); /* larger entries than we know */
    put_end(&builder);
    void *block = finish(&builder);
    CHECK_EQUAL(mb2_open(block, builder.used, &info), MM_OK);
    while (mb2_memory(&info, count, &claim)) {
        CHECK_EQUAL(claim.start, count * 2 * MiB);
        count++;
    }
    CHECK_EQUAL(count, 300);
    free(block);
}

TEST(multiboot2, impossible_entry_sizes_end_the_map)
{
    static const uint32_t sizes[] = {0, 1, 8, 19, UINT32_MAX, 0x80000000};
    struct memmap_claim claim;
    struct builder builder;
    struct mb2 info;

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        begin(&builder);
        uint32_t tag = put_map(&builder, 24, 4);
        put_end(&builder);
        set32(&builder, tag + 8, sizes[i]);
        void *block = finish(&builder);
        CHECK_EQUAL(mb2_open(block, builder.used, &info), MM_OK);
        CHECK(!mb2_memory(&info, 0, &claim));
        free(block);
    }
}

TEST(multiboot2, an_efi_map_serves_where_it_is_the_only_one)
{
    struct memmap_claim claim;
    struct builder builder;
    struct mb2 info;

    begin(&builder);
    uint32_t tag = begin_tag(&builder, MB2_EFI_MEMORY_MAP);
    put32(&builder, 48);
    put32(&builder, 1);
    put64(&builder, 7); /* EfiConventionalMemory */
    put64(&builder, 0x100000);
    put64(&builder, 0);
    put64(&builder, 0x300);
    put64(&builder, 0);
    put64(&builder, 0);
    end_tag(&builder, tag);
    put_end(&builder);
    void *block = finish(&builder);
    CHECK_EQUAL(mb2_open(block, builder.used, &info), MM_OK);
    CHECK(mb2_memory(&info, 0, &claim));
    CHECK_EQUAL(claim.type, MEMMAP_USABLE);
    CHECK_EQUAL(claim.start, 0x100000);
    CHECK_EQUAL(claim.length, 0x300000);
    CHECK(!mb2_memory(&info, 1, &claim));
    free(block);
}

TEST(multiboot2, total_sizes_are_checked)
{
    uint64_t block[4] = {0};
    struct mb2 info;

    block[0] = UINT32_MAX;
    CHECK_EQUAL(mb2_open(block, sizeof(block), &info), MM_EINVAL);
    CHECK_EQUAL(mb2_open(block, UINT64_MAX, &info), MM_EINVAL);
    block[0] = 8;
    CHECK_EQUAL(mb2_open(block, sizeof(block), &info), MM_EINVAL);
    block[0] = sizeof(block) + 1;
    CHECK_EQUAL(mb2_open(block, sizeof(block), &info), MM_EINVAL);
    block[0] = sizeof(block);
    CHECK_EQUAL(mb2_open((char *)block + 4, 28, &info), MM_EINVAL);
    CHECK_EQUAL(mb2_open(block, sizeof(block), &info), MM_OK);
    CHECK_EQUAL(mb2_open(block, 15, &info), MM_EINVAL);
}

TEST(multiboot2, a_missing_end_is_noticed)
{
    struct builder builder;
    struct mb2 info;

    begin(&builder);
    put_text_tag(&builder, MB2_LOADER_NAME, "GRUB");
    void *block = finish(&builder);
    CHECK_EQUAL(mb2_open(block, builder.used, &info), MM_OK);
    CHECK(!mb2_is_complete(&info));
    free(block);
}

TEST(multiboot2, texts_without_an_end_are_refused)
{
    struct builder builder;
    struct mb2_module module;
    struct mb2_tag tag;
    struct mb2 info;

    begin(&builder);
    uint32_t text = begin_tag(&builder, MB2_COMMAND_LINE);
    put64(&builder, UINT64_C(0x4141414141414141));
    end_tag(&builder, text);
    uint32_t name = begin_tag(&builder, MB2_MODULE);
    put64(&builder, 0);
    put64(&builder, UINT64_C(0x4141414141414141));
    end_tag(&builder, name);
    put_end(&builder);
    void *block = finish(&builder);
    CHECK_EQUAL(mb2_open(block, builder.used, &info), MM_OK);
    CHECK(mb2_find(&info, MB2_COMMAND_LINE, 0, &tag));
    CHECK(mb2_text(&tag, 0) == NULL);
    CHECK(mb2_text(&tag, 4000) == NULL);
    CHECK(mb2_module(&info, 0, &module));
    CHECK(strcmp(module.name, "name without an end") == 0);
    free(block);
}

TEST(multiboot2, impossible_screens_are_none)
{
    static const struct {
        uint32_t pitch;
        uint8_t bits;
        uint8_t type;
    } cases[] = {
        {100, 32, 1},  /* lines longer than their distance */
        {4096, 8, 1},  /* channels that lie outside the pixel */
        {4096, 32, 0}, /* palette: nothing we draw to */
        {4096, 32, 9},
    };
    struct boot_framebuffer screen;
    struct builder builder;
    struct mb2 info;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin(&builder);
        put_framebuffer(&builder, cases[i].pitch, cases[i].bits, cases[i].type);
        put_end(&builder);
        void *block = finish(&builder);
        CHECK_EQUAL(mb2_open(block, builder.used, &info), MM_OK);
        mb2_framebuffer(&info, &screen);
        CHECK_EQUAL(screen.kind, SCREEN_NONE);
        free(block);
    }
}

/* Tags shorter than their fields, as the last thing in memory. */
TEST(multiboot2, short_tags_are_survived)
{
    static const enum mb2_type types[] = {MB2_MODULE, MB2_MEMORY_MAP,
                                          MB2_FRAMEBUFFER, MB2_EFI_MEMORY_MAP,
                                          MB2_COMMAND_LINE};
    struct builder builder;

    for (unsigned type = 0; type < 5; type++) {
        for (uint32_t bytes = 0; bytes < 64; bytes++) {
            begin(&builder);
            uint32_t tag = begin_tag(&builder, types[type]);
            memset(builder.bytes + builder.used, 1, bytes);
            set32(&builder, builder.used, 24); /* of maps: entry size */
            set32(&builder, tag + 4, 8 + bytes);
            builder.used += bytes;
            void *block = finish(&builder);
            CHECK_HELPER(read_everything(block, builder.used));
            free(block);
        }
    }
}

/* Cut the sample at every length: the rest must not be looked for. */
TEST(multiboot2, truncated_blocks_are_survived)
{
    struct builder builder;

    build_sample(&builder);
    for (uint32_t bytes = 0; bytes < builder.used; bytes += 4) {
        void *block = malloc(bytes + 1);
        memcpy(block, builder.bytes, bytes);
        if (bytes >= 4) {
            memcpy(block, &bytes, 4);
        }
        CHECK_HELPER(read_everything(block, bytes));
        free(block);
    }
}

/* Any 32-bit word of the sample may be anything. */
TEST(multiboot2, damaged_blocks_are_survived)
{
    static const uint32_t values[] = {0, 1,          7,          8,
                                      9, 0x7fffffff, 0xfffffff8, UINT32_MAX};
    struct builder builder;
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < 5000; i++) {
        build_sample(&builder);
        void *block = finish(&builder);
        for (unsigned k = 0; k < 1 + i % 3; k++) {
            uint64_t at = test_random_below(&random, builder.used / 4) * 4;
            uint32_t value = (uint32_t)test_random_next(&random);
            if (test_random_below(&random, 2) == 0) {
                value = values[test_random_below(&random, 8)];
            }
            memcpy((char *)block + at, &value, sizeof(value));
        }
        CHECK_HELPER(read_everything(block, builder.used));
        free(block);
    }
}
