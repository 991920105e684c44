/* SPDX-License-Identifier: MIT */
/* number: numbers as people type them. */
#include "kernel/lib/number.h"

static unsigned digit_of(char c)
{
    if (c >= '0' && c <= '9') {
        return (unsigned)(c - '0');
    }
    if (c >= 'a' && c <= 'f') {
        return (unsigned)(c - 'a') + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return (unsigned)(c - 'A') + 10;
    }
    return UINT32_MAX;
}

/* log2 of the unit a number may end in; 0 for none. */
static unsigned unit_shift(char c)
{
    switch (c) {
    case 'K':
        return 10;
    case 'M':
        return 20;
    case 'G':
        return 30;
    case 'T':
        return 40;
    default:
        return 0;
    }
}

enum mm_status number_parse(const char *text, uint64_t *out)
{
    bool is_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    unsigned base = is_hex ? 16 : 10;
    uint64_t value = 0;
    const char *at = is_hex ? text + 2 : text;
    const char *digits = at;

    for (; digit_of(*at) < base; at++) {
        if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit_of(*at), &value)) {
            return MM_ERANGE;
        }
    }
    unsigned shift = unit_shift(*at);
    if (at == digits || at[shift > 0 ? 1 : 0] != '\0') {
        return MM_EINVAL;
    }
    if (value > UINT64_MAX >> shift) {
        return MM_ERANGE;
    }
    *out = value << shift;
    return MM_OK;
}
