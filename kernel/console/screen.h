/* SPDX-License-Identifier: MIT */
/* screen: a small terminal on the framebuffer or on VGA text. */
#ifndef KERNEL_CONSOLE_SCREEN_H
#define KERNEL_CONSOLE_SCREEN_H

#include <mm/types.h>

/* Largest grid of characters; a bigger screen shows a border. */
#define SCREEN_MAX_COLUMNS 256
#define SCREEN_MAX_ROWS    128

/* One character on the screen. */
struct screen_cell {
    uint16_t code;      /* Unicode */
    uint8_t foreground; /* 0..15, the colours of ANSI terminals */
    uint8_t background;
};

/* What draws: fb.c or vga.c. */
struct screen_driver {
    unsigned columns;
    unsigned rows;
    void (*draw)(unsigned row, unsigned column, struct screen_cell cell);
};

/*
 * Write UTF-8. Understood besides text: \n \r \b \t, and of the VT100
 * ESC [ n A/B/C/D, ESC [ r ; c H, ESC [ n J, ESC [ n K, ESC [ ... m (reset,
 * bold, reverse, colours 30-37 40-47 90-97). While the screen is out of
 * reach the cells change and nothing is drawn.
 */
void screen_write(const char *text, size_t length);

/* Use @driver from now on and draw everything. NULL: out of reach. */
void screen_use(const struct screen_driver *driver);

/* The grid in use, or 0 x 0. */
void screen_size(unsigned *out_columns, unsigned *out_rows);

/* --- the drivers ---------------------------------------------------------- */

struct boot_framebuffer;

/*
 * Draw to @framebuffer, which is mapped at @base. Return: the driver; NULL
 * for a format that cannot be drawn to.
 */
const struct screen_driver *fb_driver(
    const struct boot_framebuffer *framebuffer, void *base);

/* Draw to VGA text memory mapped at @base, 80 x 25. */
const struct screen_driver *vga_driver(void *base);

/* --- the font of the framebuffer ------------------------------------------ */

#define FONT_WIDTH 8

/* Read the font linked into the kernel. False if it is none. */
bool font_init(void);
/* Rows of a glyph. */
unsigned font_height(void);
/* One byte a row, leftmost pixel in bit 7; a ? for unknown characters. */
const uint8_t *font_glyph(uint16_t code);

#endif
