/* SPDX-License-Identifier: MIT */
/* format: printf's language, written to a buffer. */
#include "kernel/lib/format.h"

bool (*format_name)(uint64_t address, const char **out_name,
                    uint64_t *out_offset);

/* 64 bits in octal, and a sign. */
#define DIGITS_MAX 24

struct output {
    char *at;
    size_t size;
    size_t length; /* of the whole text, also of what did not fit */
};

enum flag {
    FLAG_LEFT = 1 << 0,
    FLAG_ZERO = 1 << 1,
    FLAG_PLUS = 1 << 2,
    FLAG_BLANK = 1 << 3,
    FLAG_PREFIX = 1 << 4,
    FLAG_CAPITAL = 1 << 5,
    FLAG_NEGATIVE = 1 << 6
};

/* Bytes of the integer argument; 1 and 2 arrive as an int. */
enum length { LENGTH_CHAR = 1, LENGTH_SHORT = 2, LENGTH_INT = 4, LENGTH_8 = 8 };

/* One conversion specification, taken apart. */
struct spec {
    unsigned flags;
    int width;
    int precision; /* -1: none given */
    enum length length;
    char conversion;
};

/* va_list is an array type: inside a struct it can be passed on. */
struct arguments {
    va_list list;
};

static void put(struct output *out, char c)
{
    if (out->length + 1 < out->size) {
        out->at[out->length] = c;
    }
    out->length++;
}

static void put_repeated(struct output *out, char c, int count)
{
    for (int i = 0; i < count; i++) {
        put(out, c);
    }
}

static void put_padded(struct output *out, const struct spec *spec,
                       const char *text, int length)
{
    int blanks = spec->width - length;

    if ((spec->flags & FLAG_LEFT) == 0) {
        put_repeated(out, ' ', blanks);
    }
    for (int i = 0; i < length; i++) {
        put(out, text[i]);
    }
    if ((spec->flags & FLAG_LEFT) != 0) {
        put_repeated(out, ' ', blanks);
    }
}

static const char *read_flags(const char *at, struct spec *spec)
{
    for (;; at++) {
        switch (*at) {
        case '-':
            spec->flags |= FLAG_LEFT;
            break;
        case '0':
            spec->flags |= FLAG_ZERO;
            break;
        case '+':
            spec->flags |= FLAG_PLUS;
            break;
        case ' ':
            spec->flags |= FLAG_BLANK;
            break;
        case '#':
            spec->flags |= FLAG_PREFIX;
            break;
        default:
            return at;
        }
    }
}

/* A number or *; widths that would overflow stop growing. */
static const char *read_number(const char *at, struct arguments *arguments,
                               int *out)
{
    if (*at == '*') {
        *out = va_arg(arguments->list, int);
        return at + 1;
    }
    *out = 0;
    while (*at >= '0' && *at <= '9') {
        if (*out < 100000) {
            *out = *out * 10 + (*at - '0');
        }
        at++;
    }
    return at;
}

static const char *read_length(const char *at, struct spec *spec)
{
    spec->length = LENGTH_INT;
    switch (*at) {
    case 'h':
        spec->length = at[1] == 'h' ? LENGTH_CHAR : LENGTH_SHORT;
        return at + (at[1] == 'h' ? 2 : 1);
    case 'l':
        spec->length = LENGTH_8;
        return at + (at[1] == 'l' ? 2 : 1);
    case 'z':
    case 'j':
    case 't':
        spec->length = LENGTH_8;
        return at + 1;
    default:
        return at;
    }
}

/* @at is behind the %. Return: behind the conversion, or at the final 0. */
static const char *read_spec(const char *at, struct arguments *arguments,
                             struct spec *spec)
{
    *spec = (struct spec){.precision = -1};
    at = read_flags(at, spec);
    at = read_number(at, arguments, &spec->width);
    if (spec->width < 0) {
        spec->flags |= FLAG_LEFT;
        spec->width = -spec->width;
    }
    if (*at == '.') {
        at = read_number(at + 1, arguments, &spec->precision);
        if (spec->precision < 0) {
            spec->precision = -1;
        }
    }
    at = read_length(at, spec);
    spec->conversion = *at;
    return *at == '\0' ? at : at + 1;
}

static uint64_t next_unsigned(struct arguments *arguments, enum length length)
{
    if (length == LENGTH_8) {
        return va_arg(arguments->list, uint64_t);
    }
    unsigned value = va_arg(arguments->list, unsigned);
    switch (length) {
    case LENGTH_CHAR:
        return (unsigned char)value;
    case LENGTH_SHORT:
        return (unsigned short)value;
    default:
        return value;
    }
}

static int64_t next_signed(struct arguments *arguments, enum length length)
{
    if (length == LENGTH_8) {
        return va_arg(arguments->list, int64_t);
    }
    int value = va_arg(arguments->list, int);
    switch (length) {
    case LENGTH_CHAR:
        return (signed char)value;
    case LENGTH_SHORT:
        return (short)value;
    default:
        return value;
    }
}

/* Write the digits of @value before @end; return the first of them. */
static char *write_digits(char *end, uint64_t value, unsigned base,
                          unsigned flags)
{
    const char *digits =
        (flags & FLAG_CAPITAL) != 0 ? "0123456789ABCDEF" : "0123456789abcdef";

    while (value != 0) {
        end--;
        *end = digits[value % base];
        value /= base;
    }
    return end;
}

/* "-" "+" " " "0x" "0X" or "": what stands before the zeroes. */
static const char *number_prefix(const struct spec *spec, unsigned base,
                                 uint64_t value)
{
    if ((spec->flags & FLAG_NEGATIVE) != 0) {
        return "-";
    }
    if (spec->conversion == 'd' || spec->conversion == 'i') {
        if ((spec->flags & FLAG_PLUS) != 0) {
            return "+";
        }
        return (spec->flags & FLAG_BLANK) != 0 ? " " : "";
    }
    if ((spec->flags & FLAG_PREFIX) != 0 && base == 16 && value != 0) {
        return (spec->flags & FLAG_CAPITAL) != 0 ? "0X" : "0x";
    }
    return "";
}

/* Zeroes between prefix and digits: from precision, # of octal, or flag 0. */
static int number_zeroes(const struct spec *spec, unsigned base, int digits,
                         int prefix)
{
    int zeroes = (spec->precision < 0 ? 1 : spec->precision) - digits;

    if (zeroes <= 0 && base == 8 && (spec->flags & FLAG_PREFIX) != 0) {
        zeroes = 1;
    }
    if (spec->precision < 0 && (spec->flags & FLAG_ZERO) != 0 &&
        (spec->flags & FLAG_LEFT) == 0 &&
        spec->width - prefix - digits > zeroes) {
        zeroes = spec->width - prefix - digits;
    }
    return zeroes > 0 ? zeroes : 0;
}

static void put_number(struct output *out, const struct spec *spec,
                       uint64_t value, unsigned base)
{
    char buffer[DIGITS_MAX];
    char *end = buffer + sizeof(buffer);
    const char *digit = write_digits(end, value, base, spec->flags);
    int digits = (int)(end - digit);
    const char *prefix = number_prefix(spec, base, value);
    int prefix_length = 0;

    while (prefix[prefix_length] != '\0') {
        prefix_length++;
    }
    int zeroes = number_zeroes(spec, base, digits, prefix_length);
    int blanks = spec->width - prefix_length - zeroes - digits;
    if ((spec->flags & FLAG_LEFT) == 0) {
        put_repeated(out, ' ', blanks);
    }
    for (int i = 0; i < prefix_length; i++) {
        put(out, prefix[i]);
    }
    put_repeated(out, '0', zeroes);
    for (int i = 0; i < digits; i++) {
        put(out, digit[i]);
    }
    if ((spec->flags & FLAG_LEFT) != 0) {
        put_repeated(out, ' ', blanks);
    }
}

static void put_signed(struct output *out, struct spec *spec, int64_t value)
{
    uint64_t magnitude = (uint64_t)value;

    if (value < 0) {
        spec->flags |= FLAG_NEGATIVE;
        magnitude = 0 - magnitude;
    }
    put_number(out, spec, magnitude, 10);
}

static void put_string(struct output *out, const struct spec *spec,
                       const char *text)
{
    int length = 0;

    if (text == NULL) {
        text = "(null)";
    }
    while (length != spec->precision && text[length] != '\0') {
        length++;
    }
    put_padded(out, spec, text, length);
}

/* name+0x12 */
static void put_place(struct output *out, struct spec *spec, const char *name,
                      uint64_t offset)
{
    spec->precision = -1;
    put_string(out, spec, name);
    put(out, '+');
    spec->flags |= FLAG_PREFIX;
    spec->width = 0;
    put_number(out, spec, offset, 16);
}

/*
 * As glibc writes it: %#lx, and a word for NULL; but names where it can, of
 * who did something mostly, who may not be known.
 */
static void put_pointer(struct output *out, struct spec *spec,
                        const void *pointer)
{
    const char *name;
    uint64_t offset;

    if (pointer == NULL) {
        spec->precision = -1;
        put_string(out, spec, format_name == NULL ? "(nil)" : "nobody known");
        return;
    }
    if (format_name != NULL &&
        format_name((uint64_t)(uintptr_t)pointer, &name, &offset)) {
        put_place(out, spec, name, offset);
        return;
    }
    spec->flags |= FLAG_PREFIX;
    put_number(out, spec, (uint64_t)(uintptr_t)pointer, 16);
}

/* One conversion; false if it is unknown. */
static bool convert(struct output *out, struct spec *spec,
                    struct arguments *arguments)
{
    char c;

    switch (spec->conversion) {
    case 'd':
    case 'i':
        put_signed(out, spec, next_signed(arguments, spec->length));
        return true;
    case 'u':
        put_number(out, spec, next_unsigned(arguments, spec->length), 10);
        return true;
    case 'X':
        spec->flags |= FLAG_CAPITAL;
        put_number(out, spec, next_unsigned(arguments, spec->length), 16);
        return true;
    case 'x':
        put_number(out, spec, next_unsigned(arguments, spec->length), 16);
        return true;
    case 'o':
        put_number(out, spec, next_unsigned(arguments, spec->length), 8);
        return true;
    case 'c':
        c = (char)va_arg(arguments->list, int);
        put_padded(out, spec, &c, 1);
        return true;
    case 's':
        put_string(out, spec, va_arg(arguments->list, const char *));
        return true;
    case 'p':
        put_pointer(out, spec, va_arg(arguments->list, const void *));
        return true;
    case '%':
        put(out, '%');
        return true;
    default:
        return false;
    }
}

int kvsnprintf(char *out, size_t size, const char *format, va_list arguments)
{
    struct output output = {out, size, 0};
    struct arguments copy;
    struct spec spec;

    va_copy(copy.list, arguments);
    while (*format != '\0') {
        if (*format != '%') {
            put(&output, *format);
            format++;
            continue;
        }
        const char *end = read_spec(format + 1, &copy, &spec);
        if (!convert(&output, &spec, &copy)) {
            for (; format < end; format++) {
                put(&output, *format);
            }
        }
        format = end;
    }
    va_end(copy.list);
    if (size > 0) {
        out[output.length < size ? output.length : size - 1] = '\0';
    }
    return (int)output.length;
}

int ksnprintf(char *out, size_t size, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int length = kvsnprintf(out, size, format, arguments);
    va_end(arguments);
    return length;
}
