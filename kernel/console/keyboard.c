/* SPDX-License-Identifier: MIT */
/* keyboard: a PS/2 keyboard, polled; keys come as bytes of a terminal. */
#include "kernel/console/keyboard.h"

#include "kernel/cpu.h"

#define I8042_DATA        0x60
#define I8042_STATUS      0x64
#define STATUS_FULL       0x01
#define STATUS_FROM_MOUSE 0x20
#define STATUS_ABSENT     0xff

/* Scan codes, set 1, which the controller translates to. */
#define SCAN_RELEASED    0x80
#define SCAN_EXTENDED    0xe0
#define SCAN_PAUSE       0xe1
#define SCAN_CTRL        0x1d
#define SCAN_LEFT_SHIFT  0x2a
#define SCAN_RIGHT_SHIFT 0x36
#define SCAN_CAPS_LOCK   0x3a
#define SCAN_KEYS        0x3a /* the tables below end there */

/* US layout by scan code; 0: no character. */
static const char plain[SCAN_KEYS + 1] =
    "\0\x1b"
    "1234567890-=\x7f\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0"
    "*\0 ";
static const char shifted[SCAN_KEYS + 1] =
    "\0\x1b!@#$%^&*()_+\x7f\tQWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0"
    "*\0 ";

static struct {
    bool is_shift;
    bool is_ctrl;
    bool is_caps;
    bool is_extended;    /* the last byte was SCAN_EXTENDED */
    unsigned skip;       /* bytes of a Pause key that are to come */
    const char *pending; /* rest of an escape sequence */
} keyboard = {.pending = ""};

/* Keys behind SCAN_EXTENDED, as a VT100 sends them. */
static const char *extended_sequence(uint8_t scan)
{
    switch (scan) {
    case 0x48:
        return "\x1b[A"; /* up */
    case 0x50:
        return "\x1b[B";
    case 0x4d:
        return "\x1b[C"; /* right */
    case 0x4b:
        return "\x1b[D";
    case 0x47:
        return "\x1b[H"; /* Home */
    case 0x4f:
        return "\x1b[F"; /* End */
    case 0x53:
        return "\x1b[3~"; /* Delete */
    case 0x49:
        return "\x1b[5~"; /* Page Up */
    case 0x51:
        return "\x1b[6~";
    case 0x1c:
        return "\r"; /* Enter of the number pad */
    case 0x35:
        return "/";
    default:
        return "";
    }
}

/* The byte for a pressed key, or -1. */
static int translate(uint8_t scan)
{
    if (scan >= SCAN_KEYS) {
        return -1;
    }
    char c = keyboard.is_shift ? shifted[scan] : plain[scan];
    bool is_letter = (plain[scan] >= 'a' && plain[scan] <= 'z');
    if (is_letter && keyboard.is_ctrl) {
        return plain[scan] - 'a' + 1;
    }
    if (is_letter && keyboard.is_caps) {
        c = keyboard.is_shift ? plain[scan] : shifted[scan];
    }
    return c == 0 ? -1 : c;
}

/* True if @scan is a key that changes the meaning of others. */
static bool take_modifier(uint8_t scan, bool is_pressed)
{
    switch (scan) {
    case SCAN_LEFT_SHIFT:
    case SCAN_RIGHT_SHIFT:
        keyboard.is_shift = is_pressed;
        return true;
    case SCAN_CTRL:
        keyboard.is_ctrl = is_pressed;
        return true;
    case SCAN_CAPS_LOCK:
        keyboard.is_caps ^= is_pressed;
        return true;
    default:
        return false;
    }
}

static int take_scan(uint8_t byte)
{
    bool is_extended = keyboard.is_extended;
    bool is_pressed = (byte & SCAN_RELEASED) == 0;
    uint8_t scan = byte & (uint8_t)~SCAN_RELEASED;

    keyboard.is_extended = false;
    if (keyboard.skip > 0) {
        keyboard.skip--;
        return -1;
    }
    if (byte == SCAN_EXTENDED || byte == SCAN_PAUSE) {
        keyboard.is_extended = byte == SCAN_EXTENDED;
        keyboard.skip = byte == SCAN_PAUSE ? 2 : 0;
        return -1;
    }
    /* Some keys send a false shift around themselves: E0 2A. */
    bool is_false_shift = is_extended && scan != SCAN_CTRL;
    if (!is_false_shift && take_modifier(scan, is_pressed)) {
        return -1;
    }
    if (!is_pressed) {
        return -1;
    }
    if (is_extended) {
        keyboard.pending = extended_sequence(scan);
        return *keyboard.pending == '\0' ? -1 : *keyboard.pending++;
    }
    return translate(scan);
}

int keyboard_read(void)
{
    if (*keyboard.pending != '\0') {
        return *keyboard.pending++;
    }
    /* A bound: a port that is not there must not hold us here. */
    for (unsigned i = 0; i < 32; i++) {
        uint8_t status = cpu_in8(I8042_STATUS);
        if (status == STATUS_ABSENT || (status & STATUS_FULL) == 0) {
            return -1;
        }
        uint8_t byte = cpu_in8(I8042_DATA);
        int result = -1;
        if ((status & STATUS_FROM_MOUSE) == 0) {
            result = take_scan(byte);
        }
        if (result >= 0) {
            return result;
        }
    }
    return -1;
}
