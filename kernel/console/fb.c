/* SPDX-License-Identifier: MIT */
/* fb: a framebuffer of direct colours as a screen of glyphs. */
#include "kernel/boot_info.h"
#include "kernel/console/screen.h"

/* From this width on a glyph pixel is 2 x 2: readable on a 4K laptop. */
#define WIDE_PIXELS 2560

/* The 16 colours of ANSI terminals, 0xrrggbb; a calm palette. */
static const uint32_t palette[16] = {0x000000, 0xcd3131, 0x2fb170, 0xd0b344,
                                     0x3b78c8, 0xbc5fbc, 0x2fa8bd, 0xd0d0d0,
                                     0x767676, 0xf15c5c, 0x4fd892, 0xf2e05e,
                                     0x62a0ef, 0xdb80db, 0x50cfe0, 0xffffff};

static struct {
    volatile uint8_t *base;
    uint32_t pitch; /* bytes a line */
    unsigned bytes; /* a pixel: 2, 3 or 4 */
    unsigned scale;
    uint32_t colour[16]; /* the palette as pixels of this screen */
    struct screen_driver driver;
} fb;

static uint32_t pack_channel(uint32_t value8, uint8_t position, uint8_t bits)
{
    uint32_t value = bits >= 8 ? value8 << (bits - 8) : value8 >> (8 - bits);

    return value << position;
}

static uint32_t pack_pixel(const struct boot_framebuffer *framebuffer,
                           uint32_t rgb)
{
    return pack_channel(rgb >> 16 & 0xff, framebuffer->red_position,
                        framebuffer->red_bits) |
           pack_channel(rgb >> 8 & 0xff, framebuffer->green_position,
                        framebuffer->green_bits) |
           pack_channel(rgb & 0xff, framebuffer->blue_position,
                        framebuffer->blue_bits);
}

static void store_pixel(volatile uint8_t *at, uint32_t pixel)
{
    switch (fb.bytes) {
    case 4:
        *(volatile uint32_t *)at = pixel;
        break;
    case 3:
        at[0] = (uint8_t)pixel;
        at[1] = (uint8_t)(pixel >> 8);
        at[2] = (uint8_t)(pixel >> 16);
        break;
    default:
        *(volatile uint16_t *)at = (uint16_t)pixel;
        break;
    }
}

/* One line of pixels: @row of the glyph, each bit @scale pixels wide. */
static void draw_line(volatile uint8_t *at, uint8_t bits, uint32_t on,
                      uint32_t off)
{
    for (unsigned x = 0; x < FONT_WIDTH * fb.scale; x++) {
        bool is_set = (bits & (0x80u >> (x / fb.scale))) != 0;
        store_pixel(at, is_set ? on : off);
        at += fb.bytes;
    }
}

static void draw(unsigned row, unsigned column, struct screen_cell cell)
{
    const uint8_t *glyph = font_glyph(cell.code);
    unsigned lines = font_height() * fb.scale;
    volatile uint8_t *at = fb.base + (uint64_t)row * lines * fb.pitch +
                           (uint64_t)column * FONT_WIDTH * fb.scale * fb.bytes;

    for (unsigned y = 0; y < lines; y++) {
        draw_line(at, glyph[y / fb.scale], fb.colour[cell.foreground & 15],
                  fb.colour[cell.background & 15]);
        at += fb.pitch;
    }
}

const struct screen_driver *fb_driver(
    const struct boot_framebuffer *framebuffer, void *base)
{
    fb.bytes = (framebuffer->bits_per_pixel + 7u) / 8;
    if (fb.bytes < 2 || fb.bytes > 4 || !font_init()) {
        return NULL;
    }
    fb.base = base;
    fb.pitch = framebuffer->pitch;
    fb.scale = framebuffer->width >= WIDE_PIXELS ? 2 : 1;
    for (unsigned i = 0; i < 16; i++) {
        fb.colour[i] = pack_pixel(framebuffer, palette[i]);
    }
    fb.driver.columns = framebuffer->width / (FONT_WIDTH * fb.scale);
    fb.driver.rows = framebuffer->height / (font_height() * fb.scale);
    fb.driver.draw = draw;
    return &fb.driver;
}
