/* SPDX-License-Identifier: MIT */
/* vga: text mode 80 x 25 as a screen. */
#include "kernel/console/screen.h"
#include "kernel/cpu.h"

#define VGA_COLUMNS      80
#define VGA_ROWS         25
#define CRTC_INDEX       0x3d4
#define CRTC_DATA        0x3d5
#define CRTC_CURSOR      0x0a
#define CRTC_CURSOR_HIDE 0x20

/* What the font in a VGA's ROM (code page 437) has beyond ASCII. */
static const struct {
    uint16_t code;
    uint8_t glyph;
} glyphs[] = {
    {0x00b0, 0xf8}, {0x00b1, 0xf1}, {0x00b2, 0xfd}, {0x00b5, 0xe6},
    {0x00b7, 0xfa}, {0x00e4, 0x84}, {0x00f6, 0x94}, {0x00fc, 0x81},
    {0x2014, 0xc4}, {0x2022, 0x07}, {0x2190, 0x1b}, {0x2191, 0x18},
    {0x2192, 0x1a}, {0x2193, 0x19}, {0x2264, 0xf3}, {0x2265, 0xf2},
    {0x2500, 0xc4}, {0x2502, 0xb3}, {0x250c, 0xda}, {0x2510, 0xbf},
    {0x2514, 0xc0}, {0x2518, 0xd9}, {0x251c, 0xc3}, {0x2524, 0xb4},
    {0x252c, 0xc2}, {0x2534, 0xc1}, {0x253c, 0xc5}, {0x2550, 0xcd},
    {0x2551, 0xba}, {0x2554, 0xc9}, {0x2557, 0xbb}, {0x255a, 0xc8},
    {0x255d, 0xbc}, {0x2580, 0xdf}, {0x2584, 0xdc}, {0x2588, 0xdb},
    {0x2591, 0xb0}, {0x2592, 0xb1}, {0x2593, 0xb2}, {0x25a0, 0xfe},
};
#define GLYPHS (sizeof(glyphs) / sizeof(glyphs[0]))

/* ANSI orders the colours red-green-blue, VGA blue-green-red. */
static const uint8_t colours[16] = {0, 4,  2,  6,  1, 5,  3,  7,
                                    8, 12, 10, 14, 9, 13, 11, 15};

static volatile uint16_t *memory;

static uint8_t glyph_of(uint16_t code)
{
    if (code < 0x7f) {
        return (uint8_t)code;
    }
    for (unsigned i = 0; i < GLYPHS; i++) {
        if (glyphs[i].code == code) {
            return glyphs[i].glyph;
        }
    }
    return '?';
}

/* Bit 15 blinks on most cards: bright backgrounds become dark ones. */
static void draw(unsigned row, unsigned column, struct screen_cell cell)
{
    unsigned attribute = colours[cell.foreground & 15] |
                         (unsigned)colours[cell.background & 7] << 4;

    memory[row * VGA_COLUMNS + column] =
        (uint16_t)(glyph_of(cell.code) | attribute << 8);
}

const struct screen_driver *vga_driver(void *base)
{
    static const struct screen_driver driver = {VGA_COLUMNS, VGA_ROWS, draw};

    memory = base;
    cpu_out8(CRTC_INDEX, CRTC_CURSOR);
    cpu_out8(CRTC_DATA, CRTC_CURSOR_HIDE);
    return &driver;
}
