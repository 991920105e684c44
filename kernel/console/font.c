/* SPDX-License-Identifier: MIT */
/* font: a PSF version 1 font with its Unicode table. */
#include "kernel/console/screen.h"

#include "kernel/lib/string.h"

/* Four bytes, then the glyphs, then the table. [Linux psf.h of kbd] */
#define PSF1_MAGIC0       0x36
#define PSF1_MAGIC1       0x04
#define PSF1_MODE_512     0x01
#define PSF1_MODE_UNICODE 0x02
#define PSF1_HEADER_BYTES 4
#define PSF1_END          0xffff /* of a glyph's characters */
#define PSF1_SEQUENCE     0xfffe /* from here on: combinations; not used */

/* Characters we look up: Latin, Greek, arrows, box drawing, blocks. */
#define CODES 0x2700

extern const uint8_t font_data[];
extern const uint8_t font_data_end[];

static struct {
    unsigned height; /* 0: not read yet */
    const uint8_t *glyph;
    uint16_t index[CODES]; /* glyph + 1; 0: the font has none */
} font;

/* The table lists, glyph after glyph, the characters it stands for. */
static void read_table(const uint8_t *table, unsigned glyphs)
{
    unsigned glyph = 0;
    bool is_single = true;

    for (; table + 1 < font_data_end && glyph < glyphs; table += 2) {
        unsigned code = table[0] | (unsigned)table[1] << 8;
        if (code == PSF1_END) {
            glyph++;
            is_single = true;
        } else if (code == PSF1_SEQUENCE) {
            is_single = false;
        } else if (is_single && code < CODES) {
            font.index[code] = (uint16_t)(glyph + 1);
        }
    }
}

bool font_init(void)
{
    unsigned glyphs = (font_data[2] & PSF1_MODE_512) != 0 ? 512 : 256;
    unsigned height = font_data[3];

    if (font.height != 0) {
        return true;
    }
    const uint8_t *table = font_data + PSF1_HEADER_BYTES + glyphs * height;
    if (font_data[0] != PSF1_MAGIC0 || font_data[1] != PSF1_MAGIC1 ||
        (font_data[2] & PSF1_MODE_UNICODE) == 0 || table > font_data_end) {
        return false;
    }
    font.height = height;
    font.glyph = font_data + PSF1_HEADER_BYTES;
    read_table(table, glyphs);
    return true;
}

unsigned font_height(void)
{
    return font.height;
}

const uint8_t *font_glyph(uint16_t code)
{
    unsigned index = code < CODES ? font.index[code] : 0;

    if (index == 0) {
        index = font.index['?'];
    }
    return font.glyph + (index == 0 ? 0 : index - 1) * font.height;
}
