/* SPDX-License-Identifier: MIT */
/* symbols: from an address to function, file and line. */
#include "kernel/symbols.h"

#include "kernel/image.h"
#include "kernel/lib/string.h"

/*
 * scripts/symbols writes the tables from the first link of the image and the
 * second link puts them into a section of their own. Addresses are offsets
 * from image_start; the symbols are sorted by them.
 */
struct symbol {
    uint32_t offset;
    uint32_t name; /* offset into symbol_text */
};

/*
 * Lines come in steps of two bytes: bytes to go on, and lines to go on plus
 * STEP_STAY; or of six: STEP_JUMP, then file and line. Pairs of offset and line
 * would be three times as much.
 */
#define STEP_STAY 127
#define STEP_JUMP 255

extern const struct symbol symbol_table[];
extern const uint32_t symbol_count;
extern const uint8_t symbol_lines[];
extern const uint32_t symbol_line_bytes;
extern const uint32_t symbol_file[]; /* offset of each name; 0: no line */
extern const char symbol_text[];

static uint32_t image_offset(uint64_t address)
{
    return (uint32_t)(address - (uint64_t)(uintptr_t)image_start);
}

/* The last symbol that is not above @address, in code; NULL if none is. */
static const struct symbol *last_before(uint64_t address)
{
    size_t low = 0;
    size_t high = image_has_code(address) ? symbol_count : 0;

    while (low < high) { /* the first one above @address */
        size_t middle = low + (high - low) / 2;

        if (symbol_table[middle].offset <= image_offset(address)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? NULL : &symbol_table[low - 1];
}

bool symbol_find(uint64_t address, const char **out_name, uint64_t *out_offset)
{
    const struct symbol *symbol = last_before(address);

    if (symbol == NULL) {
        return false;
    }
    *out_name = symbol_text + symbol->name;
    *out_offset = image_offset(address) - symbol->offset;
    return true;
}

/* From image_start on. A report can afford to go all the way. */
bool symbol_line(uint64_t address, const char **out_file, unsigned *out_line)
{
    const uint8_t *step = symbol_lines;
    const uint8_t *end = step + symbol_line_bytes;
    uint32_t offset = 0;
    unsigned file = 0;
    unsigned line = 0;

    if (!image_has_code(address)) {
        return false;
    }
    while (step < end && offset + step[0] <= image_offset(address)) {
        offset += step[0];
        if (step[1] == STEP_JUMP) {
            file = step[2] + 256u * step[3];
            line = step[4] + 256u * step[5];
            step += 6;
        } else {
            line += step[1];
            line -= STEP_STAY;
            step += 2;
        }
    }
    *out_file = symbol_text + symbol_file[file];
    *out_line = line;
    return file != 0;
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
