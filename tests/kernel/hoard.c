/* SPDX-License-Identifier: MIT */
/* hoard: blocks of frames in one's hands, as many as there are. */
#include "tests/kernel/hoard.h"

#include <mm/record.h>
#include "kernel/cmdline.h"

/* Up to here all frames are taken one by one. */
#define SINGLES_BYTES (512 * MiB)

/* From here on a 2 MiB block is left when all has come back. */
#define LEAST_BYTES (16 * MiB)

/* Records of this much take the host 32 MiB. */
#define WANTED_BYTES (8 * GiB)

void hoard_init(struct hoard *hoard)
{
    *hoard = (struct hoard){0, 0, PFN_NONE};
}

bool hoard_take(struct hoard *hoard, unsigned order)
{
    pfn_t pfn = frame_alloc(order, FRAME_KERNEL, FRAME_ANY);

    if (pfn_is_none(pfn)) {
        return false;
    }
    record_of(pfn)->owner = hoard->last.v;
    hoard->last = pfn;
    hoard->blocks++;
    hoard->frames += UINT64_C(1) << order;
    return true;
}

pfn_t hoard_drop(struct hoard *hoard)
{
    pfn_t pfn = hoard->last;

    hoard->last = pfn_of(record_of(pfn)->owner);
    hoard->blocks--;
    hoard->frames -= UINT64_C(1) << record_of(pfn)->order;
    return pfn;
}

void hoard_take_all(struct hoard *hoard, unsigned order)
{
    for (unsigned at = order + 1; at-- > 0;) {
        while (hoard_take(hoard, at)) {
        }
    }
}

void hoard_free(struct hoard *hoard)
{
    while (!pfn_is_none(hoard->last)) {
        pfn_t pfn = hoard_drop(hoard);

        frame_free(pfn, record_of(pfn)->order);
    }
}

static uint64_t managed_bytes(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    return stats.managed * PAGE_BYTES;
}

unsigned hoard_order(void)
{
    return managed_bytes() <= SINGLES_BYTES ? 0 : MM_MAX_ORDER;
}

bool hoard_is_wanted(void)
{
    uint64_t bytes = managed_bytes();

    return (bytes >= LEAST_BYTES && bytes <= WANTED_BYTES) ||
           cmdline_is("exhaust", "yes");
}
