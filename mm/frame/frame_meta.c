/* SPDX-License-Identifier: MIT */
/* frame_meta: frames for the allocator's own data. */
/*
 * Owns    a run of 32 frames that such frames come from.
 * Idea    Frames of metadata never come back: each one alone would spoil a
 *         block of 2 MiB for good. So they are taken a run at a time. They have
 *         no records, since they are what records lie in.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"

_Atomic uint64_t frame_spare; /* (A) see frame_impl.h */

static void release_run(uint64_t spare)
{
    pfn_t run = spare_run(spare);
    uint64_t row = align_down(run.v, ROW_FRAMES);

    if (spare_mask(spare) != 0) {
        frame_release_part(PART_ROW, pfn_of(row),
                           (uint64_t)spare_mask(spare) << (run.v - row));
    }
}

void frame_release_spare(void)
{
    release_run(
        atomic_exchange_explicit(&frame_spare, 0, memory_order_relaxed));
}

/* One of the frames kept, or PFN_NONE. */
static pfn_t pop_spare(void)
{
    uint64_t spare = atomic_load_explicit(&frame_spare, memory_order_acquire);

    while (spare_mask(spare) != 0) {
        /* Without its last frame it is no run: 0, as keep_spare() wants. */
        uint64_t rest = spare & (spare - 1);
        rest = spare_mask(rest) == 0 ? 0 : rest;
        /* Acquire: pairs with the release in keep_spare(). */
        if (atomic_compare_exchange_weak_explicit(&frame_spare, &spare, rest,
                                                  memory_order_acquire,
                                                  memory_order_acquire)) {
            return pfn_add(spare_run(spare), lowest_bit(spare));
        }
    }
    return PFN_NONE;
}

/* Keep a run, unless another CPU was faster. */
static void keep_spare(uint64_t spare)
{
    uint64_t none = 0;

    /* Release: pairs with the acquire in pop_spare(). */
    if (!atomic_compare_exchange_strong_explicit(&frame_spare, &none, spare,
                                                 memory_order_release,
                                                 memory_order_relaxed)) {
        release_run(spare);
    }
}

/* A run, or if there is none, a single frame. */
static pfn_t claim_metadata(void)
{
    struct blocks_wish run = {.order = SPARE_ORDER, .is_raw = true};
    struct blocks_wish one = {.order = 0, .is_raw = true};
    pfn_t pfn = pop_spare();

    if (!pfn_is_none(pfn)) {
        return pfn;
    }
    if (frame_claim(&run, FRAME_RESERVE)) {
        keep_spare((run.pfn.v >> SPARE_ORDER) << 32 | (UINT32_MAX - 1));
        return run.pfn;
    }
    return frame_claim(&one, FRAME_RESERVE) ? one.pfn : PFN_NONE;
}

pfn_t frame_alloc_metadata(void)
{
    pfn_t pfn = PFN_NONE;

#if MM_INJECT
    if (!frame_must_fail(__func__))
#endif
    {
        pfn = claim_metadata();
    }
    if (pfn_is_none(pfn)) {
        frame_count_failure();
        return PFN_NONE;
    }
    if (MM_DEBUG && record_exists(pfn)) {
        frame_check_stamps(pfn, 0);
    }
    frame_zero(pfn, 0);
    uint64_t irq = port_irq_save();
    frame_this_cpu()->metadata++;
    port_irq_restore(irq);
    return pfn;
}

void frame_free_metadata(pfn_t pfn)
{
    uint64_t irq = port_irq_save();

    frame_this_cpu()->metadata--; /* modulo: only the sum over CPUs counts */
    frame_release(pfn, 0);
    port_irq_restore(irq);
}
