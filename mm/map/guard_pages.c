/* SPDX-License-Identifier: MIT */
/* guard_pages: the pool of guarded objects, cut out of the direct map. */
/*
 * Idea: the pool lies in the direct map, so that virt_to_phys() works for
 * what is in it. Its block is one large page there, or part of one; that is
 * split for as long as the pool exists, and merged again.
 *
 * Locking: none of its own; a table's, for a page at a time. Interrupts are
 * off for that long, and nobody waits for other CPUs: heap/guard.c closes
 * pages wherever an object is freed.
 *
 * Limits: what others have split of a page of 1 GiB keeps it from being merged,
 * and so do errata: see size.c.
 * Where memory is short the pool stays: to give it back is to wait for all
 * CPUs, and who asks for memory may hold locks.
 */
#include <mm/guard.h>

#include <mm/frame.h>
#include <mm/port.h>
#include <mm/pt.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "base/check.h"
#include "heap/guard.h"
#include "map/cursor.h"
#include "x86_64/mmu.h"

#define POOL_BYTES  (PAGE_BYTES << GUARD_ORDER)
#define POOL_FRAMES (UINT64_C(1) << GUARD_ORDER)

/* As mm_init() has mapped all RAM. */
#define OPEN_FLAGS   (PT_WRITE | PT_GLOBAL)
#define CLOSED_FLAGS (PT_NONE | PT_GLOBAL)

static vaddr_t direct_start; /* (C) after mm_init() */
static unsigned whole_level; /* of the page there before; 0: small ones */

void guard_setup(vaddr_t direct)
{
    direct_start = direct;
}

/* Where the tables map what the kernel finds at @address. */
static vaddr_t mapped_at(vaddr_t address)
{
    return direct_start + virt_to_phys((void *)address).v;
}

/*
 * One entry for another, both of a known form: pt_protect() asks much more.
 * If the page is part of a large one, restore() has opened and merged all of
 * them, and waits for the fault that this comes from.
 */
static void set_page(vaddr_t address, unsigned flags)
{
    pfn_t pfn = phys_to_pfn(virt_to_phys((void *)address));
    vaddr_t page = direct_start + pfn_to_phys(pfn).v;
    pte_t entry = cursor_for_cpu(pte_make_frame(0, pfn, pt_attr(flags)));
    struct tlb_batch batch; /* never committed: see guard_fault() */
    struct pt_cursor cursor;
    enum mm_status status =
        pt_open(&pt_kernel, page, page + PAGE_BYTES, &batch, &cursor);

    ASSERT(status == MM_OK);
    if (cursor.level == 0) {
        pte_t old = cursor_swap(&cursor, entry);
        if (pte_is_present(old)) {
            mmu_invlpg(page); /* on this CPU: interrupts are off */
        }
    }
    pt_close(&cursor);
}

static void open_page(vaddr_t address)
{
    set_page(address, OPEN_FLAGS);
}

static void close_page(vaddr_t address)
{
    set_page(address, CLOSED_FLAGS);
}

static bool allows_page(vaddr_t address, enum guard_access access)
{
    uint64_t irq = port_irq_save();
    pte_t entry = pt_lookup(&pt_kernel, mapped_at(address)).entry;

    port_irq_restore(irq);
    return pte_is_present(entry) && access != GUARD_EXEC &&
           (access == GUARD_READ || (entry.v & PTE_RW) != 0);
}

/* What the records of the block's other frames say; see frame_free(). */
static void mark_frames(pfn_t first, enum frame_type type)
{
    for (uint64_t i = 1; i < POOL_FRAMES; i++) {
        struct frame_record *record = record_of(pfn_add(first, i));

        record->type = (uint8_t)type;
        record->order = type == FRAME_NONE ? 0 : RECORD_TAIL;
    }
}

/* Small pages at @start. MM_ENOMEM: the table for them; all is as it was. */
static enum mm_status split(struct pt_cursor *cursor, vaddr_t start)
{
    struct pt_entry entry;
    enum mm_status status = MM_OK;

    pt_query(cursor, start, &entry);
    whole_level = entry.level;
    while (status == MM_OK && entry.level > 0) {
        status = pt_split(cursor, start);
        pt_query(cursor, start, &entry);
    }
    return status;
}

/* The block at @start, closed, in small pages. */
static enum mm_status carve(vaddr_t start)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    enum mm_status status =
        pt_open(&pt_kernel, start, start + POOL_BYTES, &batch, &cursor);

    if (status != MM_OK) {
        return status;
    }
    status = split(&cursor, start);
    if (status == MM_OK) {
        status = pt_protect(&cursor, start, POOL_BYTES, pt_attr(CLOSED_FLAGS));
    }
    pt_close(&cursor);
    tlb_commit(&batch);
    return status;
}

/*
 * Merge what split() has split, as far as others have left it whole and the
 * CPU bears it.
 */
static void merge(struct pt_cursor *cursor, vaddr_t start)
{
    if (!pt_may_resize(OPEN_FLAGS)) {
        return;
    }
    for (unsigned level = 1; level <= whole_level; level++) {
        enum mm_status status = pt_merge(cursor, start, level);

        if (status != MM_OK && status != MM_ENOENT) { /* not split so far */
            break;
        }
    }
}

/*
 * The opposite of carve(), which has closed so many bytes. Who has met a closed
 * page is in a fault with interrupts off, and cannot answer a flush before it
 * has ended: that is why there is one in any case.
 */
static void restore(vaddr_t start, uint64_t closed_bytes)
{
    uint64_t span = pte_span(whole_level > 1 ? whole_level : 1);
    vaddr_t whole = align_down(start, span);
    struct tlb_batch batch;
    struct pt_cursor cursor;
    enum mm_status status =
        pt_open(&pt_kernel, whole, whole + span, &batch, &cursor);
    ASSERT(status == MM_OK); /* it was open before, at least in part */
    if (closed_bytes > 0) {
        status = pt_protect(&cursor, start, closed_bytes, pt_attr(OPEN_FLAGS));
        ASSERT(status == MM_OK); /* in small pages already */
    }
    merge(&cursor, start);
    tlb_batch_range(&batch, start, start + POOL_BYTES, 0);
    pt_close(&cursor);
    tlb_commit(&batch);
}

/* The pool at @pfn, of which so many bytes are closed, is none any more. */
static void give_back(pfn_t pfn, uint64_t closed_bytes)
{
    restore(direct_start + pfn_to_phys(pfn).v, closed_bytes);
    guard_detach();
    frame_free(pfn, GUARD_ORDER);
}

/* A magazine that is made anew counts by the new interval at once. */
static void set_interval(uint32_t interval)
{
    guard_set_interval(interval);
    slab_drain();
}

enum mm_status guard_enable(uint32_t interval)
{
    static const struct guard_pages pages = {close_page, open_page,
                                             allows_page};
    struct guard_stats stats;

    if (interval == 0 || interval > GUARD_INTERVAL_MAX) {
        return MM_EINVAL;
    }
    guard_stats(&stats);
    if (stats.bytes != 0) {
        set_interval(interval);
        return MM_OK;
    }
    pfn_t pfn = frame_alloc(GUARD_ORDER, FRAME_GUARD, FRAME_MAY_RECLAIM);
    if (pfn_is_none(pfn)) {
        return MM_ENOMEM;
    }
    /* Before it is closed: somebody may have an old address in it. */
    guard_attach((vaddr_t)phys_to_virt(pfn_to_phys(pfn)), &pages);
    enum mm_status status = carve(direct_start + pfn_to_phys(pfn).v);
    if (status != MM_OK) {
        give_back(pfn, 0);
        return status;
    }
    mark_frames(pfn, FRAME_GUARD);
    guard_begin();
    set_interval(interval);
    return MM_OK;
}

enum mm_status guard_disable(void)
{
    struct guard_stats stats;

    guard_set_interval(0);
    vaddr_t start = guard_retire();
    if (start == 0) {
        guard_stats(&stats);
        return stats.bytes == 0 ? MM_OK : MM_EBUSY;
    }
    pfn_t pfn = phys_to_pfn(virt_to_phys((void *)start));
    mark_frames(pfn, FRAME_NONE);
    give_back(pfn, POOL_BYTES);
    return MM_OK;
}
