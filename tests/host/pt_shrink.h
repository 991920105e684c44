/* SPDX-License-Identifier: MIT */
/* pt_shrink: runs operations in a copy of this process, and leaves some out. */
#ifndef TESTS_HOST_PT_SHRINK_H
#define TESTS_HOST_PT_SHRINK_H

#include "tests/shared/pt_ops.h"

/* What is run, and how. */
struct pt_case {
    const uint8_t *bytes;
    size_t size;
    unsigned machine; /* of sim_pt_machine */
    bool is_starved;  /* again and again, allocation 1, 2, 3 ... failing */
};

/* How it went. */
struct pt_outcome {
    size_t done;               /* operations without complaint */
    uint64_t did[PT_OP_KINDS]; /* that took effect */
    uint64_t failures;         /* calls that found no memory */
    char reason[256];          /* what was wrong; "" if it is not known */
};

/*
 * Run in a copy of this process, so that a panic and what a sanitizer finds
 * are failures like others.
 * @is_quiet: nothing of it is seen.
 */
bool pt_case_passes(const struct pt_case *one, bool is_quiet,
                    struct pt_outcome *out);

/*
 * Leave out what does not matter: a shorter sequence that fails, too, though
 * perhaps in another way.
 * @bytes: of @one; what is left stands at its beginning.
 * Return: how many bytes are left.
 */
size_t pt_case_shrink(const struct pt_case *one, uint8_t *bytes);

/* Print it as text that can be put among those that failed once. */
void pt_case_print(const struct pt_case *one);

/* Bytes that such a text says. Return: how many. */
size_t pt_case_parse(const char *text, uint8_t *out, size_t size);

#endif
