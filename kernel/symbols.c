/* SPDX-License-Identifier: MIT */
/* symbols: from an address to function, file and line. */
#include "kernel/symbols.h"

#include "kernel/image.h"
#include "kernel/lib/string.h"

/*
 * scripts/symbols writes the tables from the first link of the image and the
 * second link puts them into its last section. Addresses are offsets from
 * image_start; both tables are sorted by them.
 */
struct symbol {
    uint32_t offset;
    uint32_t name; /* offset into symbol_text */
};

struct line {
    uint32_t offset;
    uint16_t file; /* index into symbol_file; 0: no line known from here on */
    uint16_t line;
};

extern const struct symbol symbol_table[];
extern const uint32_t symbol_count;
extern const struct line symbol_lines[];
extern const uint32_t symbol_line_count;
extern const uint32_t symbol_file[]; /* offset of each name */
extern const char symbol_text[];

static uint32_t image_offset(uint64_t address)
{
    return (uint32_t)(address - (uint64_t)(uintptr_t)image_start);
}

/*
 * The last of @count entries of @bytes each, sorted by the offset they begin
 * with, that is not above @address; NULL if none is, or that is no code.
 */
static const void *last_before(uint64_t address, const void *table,
                               size_t count, size_t bytes)
{
    const char *entries = table;
    size_t low = 0;
    size_t high = image_has_code(address) ? count : 0;

    while (low < high) { /* the first entry above @address */
        size_t middle = low + (high - low) / 2;
        const uint32_t *offset = (const void *)(entries + middle * bytes);

        if (*offset <= image_offset(address)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? NULL : entries + (low - 1) * bytes;
}

bool symbol_find(uint64_t address, const char **out_name, uint64_t *out_offset)
{
    const struct symbol *symbol =
        last_before(address, symbol_table, symbol_count, sizeof(struct symbol));

    if (symbol == NULL) {
        return false;
    }
    *out_name = symbol_text + symbol->name;
    *out_offset = image_offset(address) - symbol->offset;
    return true;
}

bool symbol_line(uint64_t address, const char **out_file, unsigned *out_line)
{
    const struct line *line =
        last_before(address, symbol_lines, symbol_line_count, sizeof(*line));

    if (line == NULL || line->file == 0) {
        return false;
    }
    *out_file = symbol_text + symbol_file[line->file];
    *out_line = line->line;
    return true;
}

bool symbol_address(const char *name, uint64_t *out_address)
{
    for (size_t i = 0; i < symbol_count; i++) {
        if (strcmp(symbol_text + symbol_table[i].name, name) == 0) {
            *out_address =
                (uint64_t)(uintptr_t)image_start + symbol_table[i].offset;
            return true;
        }
    }
    return false;
}
