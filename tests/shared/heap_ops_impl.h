/* SPDX-License-Identifier: MIT */
/* heap ops: what its files have in common. */
#ifndef TESTS_SHARED_HEAP_OPS_IMPL_H
#define TESTS_SHARED_HEAP_OPS_IMPL_H

#include "tests/shared/heap_ops.h"

/* Something is not as the model says: the first is kept. Return: false. */
bool heap_ops_differ(struct heap_ops *ops, const char *what, uint64_t a,
                     uint64_t b);

/* Write into the block what nobody else writes. */
void heap_ops_sign(struct heap_ops *ops, struct heap_held *held);

/* The first @bytes are what was written. */
bool heap_ops_check_contents(struct heap_ops *ops, const struct heap_held *held,
                             uint64_t bytes);

/* A new block is full of @value. */
bool heap_ops_check_filled(struct heap_ops *ops, const uint8_t *block,
                           uint64_t bytes, uint8_t value);

#endif
