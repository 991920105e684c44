/* SPDX-License-Identifier: MIT */
/* tlb: change, invalidate, release: the one way frames leave a mapping. */
/*
 * Owns      every INVLPG and every CR3 load; what waits for them.
 *
 * Idea      The order of teardown is a law: the entry changes first, then no
 *           processor can use the old one any more, then the frame is let go.
 *           A batch makes that order the only one there is: frames and tables
 *           enter it, and leave it at the end of tlb_commit(). Linux calls the
 *           idea mmu_gather.
 *           A batch takes no memory. A block that only the mapping holds is
 *           chained through the owner word of its record, which nobody else
 *           can reach any more; blocks with more holders wait in a small
 *           array, because another holder may chain them at the same time.
 *
 * Rules     [SDM-3A 4.10.4.1 "Operations that Invalidate TLBs and
 *           Paging-Structure Caches"]: INVLPG forgets one page, global or
 *           not, and all paging-structure entries of the current PCID; a CR3
 *           load forgets all that is not global; a change of CR4.PGE forgets
 *           everything. So freed tables need either one INVLPG (which the
 *           ranges of the batch imply) or a full flush.
 *
 * Locking   A batch belongs to its caller. The space's generation is atomic.
 *
 * Cost      O(pages) INVLPGs up to tlb_ceiling, then one flush; O(frames)
 *           to release.
 *
 * Limits    Invalidates this processor only: with more than one the host
 *           must not run a space on two of them.
 */
#include <mm/tlb.h>

#include <mm/frame.h>
#include "base/check.h"
#include "x86_64/mmu.h"
#include "x86_64/pte.h"

/*
 * Measured by others at 32 (Asterinas, Nanos), 33 (Linux, DragonOS), 64
 * (Managarm, Haiku): an INVLPG costs about 100 to 200 cycles, a refill after
 * a full flush some thousands, spread out.
 */
unsigned tlb_ceiling = 32;

/* In a record's count of entries: the block waits in a batch. */
#define CHAINED UINT16_MAX

static struct tlb_space *loaded;    /* (P) what CR3 holds */
static struct tlb_stats statistics; /* (P) */

void tlb_init(void)
{
    loaded = NULL;
    statistics = (struct tlb_stats){0};
}

void tlb_space_init(struct tlb_space *space, paddr_t root, bool is_kernel)
{
    atomic_init(&space->generation, 0);
    space->root = root;
    space->is_kernel = is_kernel;
}

void tlb_batch_init(struct tlb_batch *batch, struct tlb_space *space)
{
    batch->space = space;
    batch->range_count = 0;
    batch->shared_count = 0;
    batch->pages = 0;
    batch->whole = false;
    batch->tables = false;
    batch->chain = PFN_NONE;
    batch->chain_count = 0;
}

/* Can @start..@end of @level be said by moving an end of @range? */
static bool extends(const struct tlb_range *range, vaddr_t start, vaddr_t end,
                    unsigned level)
{
    return range->level == level &&
           (range->end == start || range->start == end);
}

void tlb_batch_range(struct tlb_batch *batch, vaddr_t start, vaddr_t end,
                     unsigned level)
{
    ASSERT(start < end);
    batch->pages += (end - start) >> pte_shift(level);
    if (batch->whole || batch->pages > tlb_ceiling) {
        batch->whole = true;
        return;
    }
    for (unsigned i = 0; i < batch->range_count; i++) {
        struct tlb_range *range = &batch->range[i];

        if (extends(range, start, end, level)) {
            range->start = range->start == end ? start : range->start;
            range->end = range->end == start ? end : range->end;
            return;
        }
    }
    if (batch->range_count == TLB_BATCH_RANGES) {
        batch->whole = true;
        return;
    }
    batch->range[batch->range_count++] = (struct tlb_range){start, end, level};
}

bool tlb_batch_has_room(const struct tlb_batch *batch)
{
    return batch->shared_count < TLB_BATCH_SHARED;
}

/*
 * A block with one holder comes here once. Twice means that two mappings
 * claimed the one reference: the chain would run in a circle.
 */
static void chain_block(struct tlb_batch *batch, pfn_t pfn)
{
    struct frame_record *record = record_of(pfn);

    if (atomic_load_explicit(&record->entries, memory_order_relaxed) ==
        CHAINED) {
        port_bug("tlb: frame 0x%lx is released twice, but has one holder",
                 pfn.v);
        return;
    }
    atomic_store_explicit(&record->entries, CHAINED, memory_order_relaxed);
    record->owner = batch->chain.v;
    batch->chain = pfn;
    batch->chain_count++;
}

void tlb_batch_release(struct tlb_batch *batch, pfn_t pfn)
{
    struct frame_record *record = record_of(pfn);

    /* One holder: it is this mapping, and it cannot be found any more. */
    if (atomic_load_explicit(&record->refs, memory_order_acquire) == 1) {
        chain_block(batch, pfn);
        return;
    }
    ASSERT(tlb_batch_has_room(batch));
    batch->shared[batch->shared_count++] = pfn;
}

void tlb_batch_release_table(struct tlb_batch *batch, pfn_t table)
{
    ASSERT(record_of(table)->type == FRAME_TABLE);
    batch->tables = true;
    tlb_batch_release(batch, table);
}

/* Forget on this processor what the batch says. */
static void invalidate(const struct tlb_batch *batch)
{
    if (batch->whole || (batch->tables && batch->range_count == 0)) {
        statistics.whole++;
        if (batch->space->is_kernel) {
            mmu_flush_all();
        } else {
            mmu_write_root(batch->space->root);
        }
        return;
    }
    for (unsigned i = 0; i < batch->range_count; i++) {
        const struct tlb_range *range = &batch->range[i];

        for (vaddr_t page = range->start; page != range->end;
             page += pte_span(range->level)) {
            mmu_invlpg(page);
            statistics.pages++;
        }
    }
}

/* Only as many as were chained: see chain_block(). */
static void release(struct tlb_batch *batch)
{
    pfn_t pfn = batch->chain;

    for (uint64_t i = 0; i < batch->chain_count; i++) {
        struct frame_record *record = record_of(pfn);
        pfn_t next = pfn_of(record->owner);

        atomic_store_explicit(&record->entries, 0, memory_order_relaxed);
        frame_unref(pfn);
        statistics.released++;
        pfn = next;
    }
    for (unsigned i = 0; i < batch->shared_count; i++) {
        frame_unref(batch->shared[i]);
        statistics.released++;
    }
}

void tlb_commit(struct tlb_batch *batch)
{
    bool is_due = batch->whole || batch->tables || batch->range_count > 0;

    if (is_due) {
        statistics.commits++;
        /* Pairs with nothing yet: one processor reads it. */
        atomic_fetch_add_explicit(&batch->space->generation, 1,
                                  memory_order_relaxed);
        if (batch->space->is_kernel || batch->space == loaded) {
            invalidate(batch);
        }
    }
    release(batch);
    tlb_batch_init(batch, batch->space);
}

void tlb_switch(struct tlb_space *space)
{
    if (space == loaded) {
        return;
    }
    loaded = space;
    statistics.switches++;
    mmu_write_root(space->root);
}

bool tlb_is_loaded(const struct tlb_space *space)
{
    return space == loaded;
}

void tlb_flush_all(void)
{
    statistics.whole++;
    mmu_flush_all();
}

void tlb_stats(struct tlb_stats *out)
{
    *out = statistics;
}
