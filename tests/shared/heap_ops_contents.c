/* SPDX-License-Identifier: MIT */
/* heap ops: what stands in blocks. */
#include "tests/shared/heap_ops_impl.h"
#include "tests/shared/text.h"

bool heap_ops_differ(struct heap_ops *ops, const char *what, uint64_t a,
                     uint64_t b)
{
    if (!ops->has_failed) {
        test_format(ops->reason, sizeof(ops->reason), "%s: 0x%llx, 0x%llx",
                    what, (unsigned long long)a, (unsigned long long)b);
    }
    ops->has_failed = true;
    return false;
}

static uint64_t word_at(uint8_t sign, uint64_t index)
{
    return (UINT64_C(0x0101010101010101) * sign) ^ (index << 32 | index);
}

/* Behind the last whole word: the same, as far as it goes. */
static uint8_t byte_at(uint8_t sign, uint64_t index)
{
    return (uint8_t)(word_at(sign, index / 8) >> (index % 8 * 8));
}

void heap_ops_sign(struct heap_ops *ops, struct heap_held *held)
{
    uint64_t *word = (uint64_t *)held->block; /* aligned to 16 */

    held->sign = ops->next_sign++;
    for (uint64_t i = 0; i < held->bytes / 8; i++) {
        word[i] = word_at(held->sign, i);
    }
    for (uint64_t i = held->bytes / 8 * 8; i < held->bytes; i++) {
        held->block[i] = byte_at(held->sign, i);
    }
}

bool heap_ops_check_contents(struct heap_ops *ops, const struct heap_held *held,
                             uint64_t bytes)
{
    const uint64_t *word = (const uint64_t *)held->block;
    uint64_t bad = 0;

    for (uint64_t i = 0; i < bytes / 8; i++) {
        bad |= word[i] ^ word_at(held->sign, i);
    }
    for (uint64_t i = bytes / 8 * 8; i < bytes; i++) {
        bad |= (uint64_t)held->block[i] ^ byte_at(held->sign, i);
    }
    return bad == 0 ||
           heap_ops_differ(ops, "contents of a block, bits that differ",
                           (uintptr_t)held->block, bad);
}

bool heap_ops_check_filled(struct heap_ops *ops, const uint8_t *block,
                           uint64_t bytes, uint8_t value)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (block[i] != value) {
            return heap_ops_differ(ops, "a new block is not what it must be",
                                   (uintptr_t)block + i, block[i]);
        }
    }
    return true;
}
