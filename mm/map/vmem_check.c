/* SPDX-License-Identifier: MIT */
/* vmem_check: walk an arena and name the invariant that does not hold. */
/*
 * Invariants:
 *   I1  segments are whole quanta, sorted and disjoint
 *   I2  two free segments never touch
 *   I3  a free segment is on the list of its size and on no other
 *   I4  bit n of filled is set exactly if list n has a segment
 *   I5  an allocated segment is in the bucket of its address
 *   I6  total, free and allocated are the sums over the segments
 *   I7  what a CPU keeps is an allocated segment of that size, without owner,
 *       and nobody else keeps it
 */
#include "map/vmem_impl.h"

static bool check_segment(const struct vmem *vmem, const struct vmem_tag *tag)
{
    const struct vmem_tag *below = tag->below;
    bool is_first = vmem->first == tag;

    CHECK_OR_FAIL(tag->size > 0 &&
                      is_aligned(tag->start | tag->size, vmem->quantum),
                  "I1: %s: segment 0x%lx + 0x%lx is not whole", vmem->name,
                  tag->start, tag->size);
    CHECK_OR_FAIL(
        is_first == (below == NULL) &&
            (is_first || (below->above == tag && end_of(below) <= tag->start)),
        "I1: %s: 0x%lx is out of order", vmem->name, tag->start);
    CHECK_OR_FAIL(is_first || below->is_allocated || tag->is_allocated ||
                      end_of(below) < tag->start,
                  "I2: %s: free segments touch at 0x%lx", vmem->name,
                  tag->start);
    return true;
}

/* @out_free: free segments, which the lists must have. */
static bool check_order(const struct vmem *vmem, uint64_t *out_free)
{
    struct vmem_stats sum = {0};

    *out_free = 0;
    for (const struct vmem_tag *tag = vmem->first; tag != NULL;
         tag = tag->above) {
        if (!check_segment(vmem, tag)) {
            return false;
        }
        sum.total += tag->size;
        sum.free += tag->is_allocated ? 0 : tag->size;
        sum.allocated += tag->is_allocated ? 1 : 0;
        *out_free += tag->is_allocated ? 0 : 1;
    }
    CHECK_OR_FAIL(sum.total == vmem->total && sum.free == vmem->free &&
                      sum.allocated == vmem->allocated,
                  "I6: %s: sums 0x%lx 0x%lx %lu, kept 0x%lx 0x%lx %lu",
                  vmem->name, sum.total, sum.free, sum.allocated, vmem->total,
                  vmem->free, vmem->allocated);
    return true;
}

static bool check_lists(const struct vmem *vmem, uint64_t expected)
{
    uint64_t seen = 0;

    for (unsigned list = 0; list < VMEM_LISTS; list++) {
        bool is_filled = (vmem->filled >> list & 1) != 0;
        CHECK_OR_FAIL(is_filled == (vmem->lists[list] != NULL),
                      "I4: %s: list %u", vmem->name, list);
        for (const struct vmem_tag *tag = vmem->lists[list];
             tag != NULL && seen <= expected; tag = tag->next, seen++) {
            CHECK_OR_FAIL(!tag->is_allocated &&
                              list_of(vmem, tag->size) == list,
                          "I3: %s: 0x%lx + 0x%lx on list %u", vmem->name,
                          tag->start, tag->size, list);
        }
    }
    CHECK_OR_FAIL(seen == expected, "I3: %s: %lu segments on lists, %lu free",
                  vmem->name, seen, expected);
    return true;
}

static bool check_hash(struct vmem *vmem)
{
    uint64_t seen = 0;

    for (uint64_t i = 0; i < UINT64_C(1) << vmem->bucket_shift; i++) {
        for (const struct vmem_tag *tag = vmem->buckets[i];
             tag != NULL && seen <= vmem->allocated; tag = tag->next, seen++) {
            CHECK_OR_FAIL(tag->is_allocated &&
                              bucket_of(vmem, tag->start) == &vmem->buckets[i],
                          "I5: %s: 0x%lx in bucket %lu", vmem->name, tag->start,
                          i);
        }
    }
    CHECK_OR_FAIL(seen == vmem->allocated, "I5: %s: %lu of %lu in the hash",
                  vmem->name, seen, vmem->allocated);
    return true;
}

bool vmem_check(struct vmem *vmem)
{
    uint64_t free_segments;
    uint64_t irq = lock_acquire(&vmem->lock);
    bool is_right = check_order(vmem, &free_segments) &&
                    check_lists(vmem, free_segments) && check_hash(vmem);

    lock_release(&vmem->lock, irq);
    return is_right && vmem_check_kept(vmem);
}
