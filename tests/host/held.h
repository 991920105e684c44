/* SPDX-License-Identifier: MIT */
/* Blocks of frames a test holds, each signed so that none can be another. */
#ifndef TESTS_HOST_HELD_H
#define TESTS_HOST_HELD_H

#include <mm/port.h>
#include <mm/types.h>

struct held {
    pfn_t pfn; /* PFN_NONE: slot is empty */
    unsigned order;
    uint64_t sign;
};

/* Write, or find, the block's sign at both ends of each frame. */
static inline void sign_block(const struct held *block)
{
    for (uint64_t i = 0; i < UINT64_C(1) << block->order; i++) {
        uint64_t *word = phys_to_virt(pfn_to_phys(pfn_add(block->pfn, i)));
        word[0] = block->sign + i;
        word[PAGE_BYTES / 8 - 1] = block->sign + i;
    }
}

static inline bool is_signed(const struct held *block)
{
    for (uint64_t i = 0; i < UINT64_C(1) << block->order; i++) {
        uint64_t *word = phys_to_virt(pfn_to_phys(pfn_add(block->pfn, i)));
        if (word[0] != block->sign + i ||
            word[PAGE_BYTES / 8 - 1] != block->sign + i) {
            return false;
        }
    }
    return true;
}

#endif
