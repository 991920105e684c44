/* SPDX-License-Identifier: MIT */
/* fuzz: what the fuzz targets have in common. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * A target is one function that libFuzzer calls with any bytes, millions of
 * times. It gives them to the code under test and compares the answer with
 * that of a naive second implementation beside it; what differs, or what a
 * sanitizer sees, ends the process. scripts/fuzz runs them.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What holds for every input. */
#define FUZZ_CHECK(condition)                                                  \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
            abort();                                                           \
        }                                                                      \
    } while (0)

/* The same for two integers, which are printed. */
#define FUZZ_EQUAL(actual, expected)                                           \
    do {                                                                       \
        uint64_t fuzz_actual = (uint64_t)(actual);                             \
        uint64_t fuzz_expected = (uint64_t)(expected);                         \
        if (fuzz_actual != fuzz_expected) {                                    \
            fprintf(stderr, "%s:%d: %s is 0x%llx, expected 0x%llx\n",          \
                    __FILE__, __LINE__, #actual,                               \
                    (unsigned long long)fuzz_actual,                           \
                    (unsigned long long)fuzz_expected);                        \
            abort();                                                           \
        }                                                                      \
    } while (0)

/*
 * Reports by port_bug() since it was set to 0; while it is FUZZ_NO_BUGS, as at
 * the start, one ends the process.
 */
#define FUZZ_NO_BUGS UINT64_MAX
extern uint64_t fuzz_bugs;

/* The input, taken in pieces; zeroes behind its end. */
struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

static inline uint64_t fuzz_take(struct fuzz_input *input, size_t bytes)
{
    uint64_t value = 0;
    size_t taken = bytes < input->left ? bytes : input->left;

    if (taken > 0) {
        memcpy(&value, input->data, taken);
        input->data += taken;
        input->left -= taken;
    }
    return value;
}

/* A number below @limit, at most 256. */
static inline unsigned fuzz_choose(struct fuzz_input *input, unsigned limit)
{
    return (unsigned)fuzz_take(input, 1) % limit;
}

/*
 * A heap block of exactly @bytes, so that the address sanitizer sees each
 * access beyond.
 */
static inline uint8_t *fuzz_copy(const uint8_t *from, size_t bytes)
{
    uint8_t *copy = malloc(bytes > 0 ? bytes : 1);

    FUZZ_CHECK(copy != NULL);
    if (bytes > 0) {
        memcpy(copy, from, bytes);
    }
    return copy;
}

/* Where results go that are not compared: the compiler must make them. */
extern volatile uint64_t fuzz_sink;

static inline void fuzz_use(uint64_t value)
{
    fuzz_sink = fuzz_sink + value;
}

/* Touch each byte of a text that must end. */
static inline void fuzz_use_text(const char *text)
{
    fuzz_use(strlen(text));
}

#endif
