/* SPDX-License-Identifier: MIT */
/* map_file: a memory map as firmware tells it, and what must become of it. */
#include "tests/host/map_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CLAIMS  8192
#define MAX_ENTRIES 1024
#define MAX_RANGES  16384
#define MAX_WORDS   12

/* Block: header, one tag with the map, end tag. */
#define BLOCK_HEADER 8
#define TAG_HEADER   8
#define MAP_HEADER   8
#define END_TAG      8
#define ENTRY_BYTES  48 /* of an EFI descriptor; an e820 entry is shorter */
#define E820_BYTES   24
#define BLOCK_BYTES                                                            \
    (BLOCK_HEADER + TAG_HEADER + MAP_HEADER + MAX_ENTRIES * ENTRY_BYTES +      \
     END_TAG)

struct word {
    const char *name;
    uint32_t value;
};

static const struct word e820_words[] = {
    {"usable", 1}, {"reserved", 2}, {"data", 3}, {"nvs", 4}, {"bad", 5}, {0}};
static const struct word efi_words[] = {{"reserved", 0},
                                        {"loader-code", 1},
                                        {"loader-data", 2},
                                        {"boot-code", 3},
                                        {"boot-data", 4},
                                        {"runtime-code", 5},
                                        {"runtime-data", 6},
                                        {"free", 7},
                                        {"unusable", 8},
                                        {"acpi", 9},
                                        {"nvs", 10},
                                        {"mmio", 11},
                                        {0}};
static const struct word status_words[] = {
    {"ok", 0}, {"none", 1}, {"no-room", 2}, {0}};
static const enum mm_status statuses[] = {MM_OK, MM_ENOENT, MM_ENOMEM};

/* A line, cut into words; "times COUNT step BYTES" is taken off. */
struct line {
    char text[256];
    char *word[MAX_WORDS];
    unsigned words;
    uint64_t times;
    uint64_t step;
};

static void complain(struct map_file *file, const char *what, const char *word)
{
    if (file->complaint[0] == '\0') {
        snprintf(file->complaint, sizeof(file->complaint), "%s: '%s'", what,
                 word);
    }
}

static uint64_t number(struct map_file *file, const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 0);

    if (end == text || *end != '\0') {
        complain(file, "no number", text);
    }
    return value;
}

/* One of @words, or "typeN". */
static uint32_t meaning(struct map_file *file, const struct word *words,
                        const char *text)
{
    for (; words->name != NULL; words++) {
        if (strcmp(words->name, text) == 0) {
            return words->value;
        }
    }
    if (strncmp(text, "type", 4) != 0) {
        complain(file, "unknown word", text);
        return 0;
    }
    return (uint32_t)number(file, text + 4);
}

static enum memmap_type type_of(struct map_file *file, const char *text)
{
    for (unsigned type = 0; type <= MEMMAP_TYPES; type++) {
        if (strcmp(memmap_type_name((enum memmap_type)type), text) == 0) {
            return (enum memmap_type)type; /* MEMMAP_TYPES is "unknown" */
        }
    }
    complain(file, "unknown type", text);
    return MEMMAP_HOLE;
}

struct span {
    uint64_t start;
    uint64_t length;
    uint64_t pages;
};

static struct span span_of(struct map_file *file, const char *text)
{
    char *end;
    uint64_t start = strtoull(text, &end, 0);

    if (end == text || *end == '\0') {
        complain(file, "no span", text);
        return (struct span){0, 0, 0};
    }
    uint64_t second = number(file, end + 1);
    switch (*end) {
    case '-':
        second = second - start + 1;
        return (struct span){start, second, second / PAGE_BYTES};
    case '+':
        return (struct span){start, second, second / PAGE_BYTES};
    case '*':
        return (struct span){start, second * PAGE_BYTES, second};
    default:
        complain(file, "no span", text);
        return (struct span){0, 0, 0};
    }
}

static void put(struct map_file *file, uint64_t value, size_t bytes)
{
    memcpy(file->block + file->block_bytes, &value, bytes);
    file->block_bytes += bytes;
}

/* The tag is begun by the first entry; its sizes are set at the end. */
static void begin_entry(struct map_file *file, uint32_t tag,
                        uint32_t entry_bytes)
{
    uint32_t type = 0;

    if (file->entries == 0) {
        put(file, tag, 4);
        put(file, 0, 4);
        put(file, entry_bytes, 4);
        put(file, 1, 4);
    }
    memcpy(&type, file->block + BLOCK_HEADER, sizeof(type));
    if (type != tag || file->entries == MAX_ENTRIES) {
        complain(file, "one map of the firmware's, 1024 entries", "");
        file->block_bytes = BLOCK_HEADER + TAG_HEADER + MAP_HEADER;
    }
    file->entries++;
}

static void add_e820(struct map_file *file, const struct line *line)
{
    struct span span = span_of(file, line->word[1]);

    begin_entry(file, MB2_MEMORY_MAP, E820_BYTES);
    put(file, span.start, 8);
    put(file, span.length, 8);
    put(file, meaning(file, e820_words, line->word[2]), 8);
}

static void add_efi(struct map_file *file, const struct line *line)
{
    struct span span = span_of(file, line->word[1]);

    begin_entry(file, MB2_EFI_MEMORY_MAP, ENTRY_BYTES);
    put(file, meaning(file, efi_words, line->word[2]), 8);
    put(file, span.start, 8);
    put(file, 0, 8); /* virtual address */
    put(file, span.pages, 8);
    put(file, 0xf, 8); /* attributes */
    put(file, 0, 8);   /* firmware of today has larger descriptors, too */
}

static void add_claim(struct map_file *file, const struct line *line)
{
    struct span span = span_of(file, line->word[1]);
    enum memmap_type type = type_of(file, line->word[2]);
    char *owner = file->owner[file->claims];

    snprintf(owner, MAP_TEXT_BYTES, "%s", line->words > 3 ? line->word[3] : "");
    for (uint64_t i = 0; i < line->times; i++) {
        if (file->claims == MAX_CLAIMS) {
            complain(file, "too many claims", line->word[1]);
            return;
        }
        file->claim[file->claims++] = (struct memmap_claim){
            span.start + i * line->step, span.length, type, "claimed",
            owner[0] != '\0' ? owner : ""};
    }
}

static void add_range(struct map_file *file, const struct line *line)
{
    struct span span = span_of(file, line->word[1]);
    struct map_range range = {span.start, span.start + span.length,
                              type_of(file, line->word[2]), ""};

    for (unsigned i = 3; i < line->words; i++) {
        size_t used = strlen(range.text);
        snprintf(range.text + used, sizeof(range.text) - used, "%s%s",
                 i == 3 ? "" : " ", line->word[i]);
    }
    for (uint64_t i = 0; i < line->times; i++) {
        if (file->ranges == MAX_RANGES) {
            complain(file, "too many ranges", line->word[1]);
            return;
        }
        file->range[file->ranges++] = range;
        range.start += line->step;
        range.end += line->step;
    }
}

static void split(struct map_file *file, struct line *line)
{
    line->words = 0;
    line->times = 1;
    line->step = 0;
    for (char *word = strtok(line->text, " \n"); word != NULL;
         word = strtok(NULL, " \n")) {
        if (line->words == MAX_WORDS) {
            complain(file, "too many words", word);
            return;
        }
        line->word[line->words++] = word;
    }
    if (line->words > 4 && strcmp(line->word[line->words - 4], "times") == 0) {
        line->times = number(file, line->word[line->words - 3]);
        line->step = number(file, line->word[line->words - 1]);
        line->words -= 4;
    }
}

static void read_line(struct map_file *file, struct line *line)
{
    static const struct {
        const char *word;
        unsigned words; /* at least */
        void (*read)(struct map_file *file, const struct line *line);
    } kinds[] = {{"e820", 3, add_e820},
                 {"efi", 3, add_efi},
                 {"claim", 3, add_claim},
                 {"range", 4, add_range}};

    if (line->text[0] == '#') {
        return;
    }
    split(file, line);
    if (line->words == 0) {
        return;
    }
    const char *first = line->word[0];
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(first, kinds[i].word) == 0 &&
            line->words >= kinds[i].words) {
            kinds[i].read(file, line);
            return;
        }
    }
    if (line->words != 2) {
        complain(file, "unknown line", first);
    } else if (strcmp(first, "reach") == 0) {
        file->limits.physical_end = number(file, line->word[1]);
    } else if (strcmp(first, "mapped") == 0) {
        file->limits.mapped_end = number(file, line->word[1]);
    } else if (strcmp(first, "clipped") == 0) {
        file->clipped = number(file, line->word[1]);
    } else if (strcmp(first, "status") == 0) {
        file->status = statuses[meaning(file, status_words, line->word[1]) % 3];
    } else {
        complain(file, "unknown line", first);
    }
}

static int compare_ranges(const void *a, const void *b)
{
    uint64_t first = ((const struct map_range *)a)->start;
    uint64_t second = ((const struct map_range *)b)->start;

    return (first > second) - (first < second);
}

static void set32(struct map_file *file, size_t offset, size_t value)
{
    uint32_t word = (uint32_t)value;

    memcpy(file->block + offset, &word, sizeof(word));
}

/* Close the block, sort the ranges, look at what cannot be. */
static void finish(struct map_file *file)
{
    if (file->entries > 0) {
        set32(file, BLOCK_HEADER + 4, file->block_bytes - BLOCK_HEADER);
    }
    put(file, MB2_END, 4);
    put(file, END_TAG, 4);
    set32(file, 0, file->block_bytes);
    if (mb2_open(file->block, file->block_bytes, &file->info) != MM_OK) {
        complain(file, "no multiboot2 block", "");
    }
    qsort(file->range, file->ranges, sizeof(file->range[0]), compare_ranges);
    for (size_t i = 1; i < file->ranges; i++) {
        if (file->range[i].start < file->range[i - 1].end) {
            complain(file, "ranges overlap", file->range[i].text);
        }
    }
    if ((file->status == MM_OK) != (file->ranges > 0)) {
        complain(file, "ranges belong to status ok", "");
    }
}

bool map_file_read(struct map_file *file, const char *path)
{
    FILE *stream = fopen(path, "r");
    struct line line;

    *file = (struct map_file){
        .limits = {UINT64_C(1) << 46, 4 * GiB},
        .status = MM_EINVAL,
        .range = calloc(MAX_RANGES, sizeof(file->range[0])),
        .claim = calloc(MAX_CLAIMS, sizeof(file->claim[0])),
        .owner = calloc(MAX_CLAIMS + 1, sizeof(file->owner[0])),
        .block = calloc(1, BLOCK_BYTES),
        .block_bytes = BLOCK_HEADER,
    };
    if (stream == NULL) {
        complain(file, "cannot be read", path);
        return false;
    }
    while (fgets(line.text, sizeof(line.text), stream) != NULL) {
        read_line(file, &line);
    }
    fclose(stream);
    finish(file);
    return file->complaint[0] == '\0';
}

void map_file_free(struct map_file *file)
{
    free(file->range);
    free(file->claim);
    free(file->owner);
    free(file->block);
}

bool map_file_claim(const void *context, size_t index, struct memmap_claim *out)
{
    const struct map_file *file = context;

    if (index < file->entries) {
        return mb2_memory(&file->info, index, out);
    }
    if (index - file->entries >= file->claims) {
        return false;
    }
    *out = file->claim[index - file->entries];
    return true;
}
