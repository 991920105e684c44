/* SPDX-License-Identifier: MIT */
/* supply: what a fault is given: a zeroed page, a large one, its own copy. */
/*
 * Idea      What takes long (to clear, to copy) is done with nothing locked:
 *           first the frame, then a look under the lock whether it is still
 *           wanted. Who comes second gives its frame back.
 *           The frame that is copied from has a second holder meanwhile: so it
 *           is not released, and nobody takes it for his alone and writes.
 *
 * Locking   A cursor on the page, or on the 2 MiB around it.
 */
#include "space/supply.h"

#include <mm/frame.h>
#include "base/bits.h"
#include "base/memory.h"

#define LARGE_ORDER MM_TABLE_BITS
#define LARGE_BYTES pte_span(1)

struct visit {
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct pt_entry entry; /* what stands at the page that is wanted */
};

/* Have [start, start + bytes) locked, and look at @page in it. */
static bool enter(struct visit *visit, struct pt *pt, vaddr_t start,
                  uint64_t bytes, vaddr_t page)
{
    if (pt_open(pt, start, start + bytes, &visit->batch, &visit->cursor) !=
        MM_OK) {
        return false;
    }
    pt_query(&visit->cursor, page, &visit->entry);
    return true;
}

static void leave(struct visit *visit)
{
    pt_close(&visit->cursor);
    tlb_commit(&visit->batch);
}

/* --- promises ------------------------------------------------------------- */

/* Is there a zero promise for all of [start, start + bytes)? */
static bool is_promised(const struct pt_entry *entry, vaddr_t start,
                        uint64_t bytes)
{
    return entry->state == PTE_PROMISE && entry->promise == PT_ZERO &&
           entry->start <= start &&
           entry->bytes - (start - entry->start) >= bytes;
}

/* Map the block at @start if it is still promised. */
static enum fault_result keep_promise(struct pt *pt, vaddr_t start, pfn_t pfn,
                                      uint64_t bytes)
{
    enum fault_result result = FAULT_SPURIOUS;
    struct visit visit;

    if (!enter(&visit, pt, start, bytes, start)) {
        return FAULT_NOT_MAPPED;
    }
    if (is_promised(&visit.entry, start, bytes)) {
        struct pt_attr attr = visit.entry.attr;

        attr.flags |= PT_OWNED; /* the frame is the mapping's alone */
        result = pt_map(&visit.cursor, start, pfn, bytes, attr) == MM_OK
                     ? FAULT_RESOLVED
                     : FAULT_NO_MEMORY; /* no table to split the promise */
    }
    leave(&visit);
    return result;
}

/* A block of @order where @address is promised, back if it is not needed. */
static enum fault_result supply_block(struct pt *pt, vaddr_t address,
                                      unsigned order)
{
    uint64_t bytes = PAGE_BYTES << order;
    enum frame_type type = pt->is_kernel ? FRAME_KMAP : FRAME_USER;
    pfn_t block = frame_alloc(order, type, FRAME_ZEROED);

    if (pfn_is_none(block)) {
        return FAULT_NO_MEMORY;
    }
    enum fault_result result =
        keep_promise(pt, align_down(address, bytes), block, bytes);
    if (result != FAULT_RESOLVED) {
        frame_free(block, order); /* nothing has ever led to it */
    }
    return result;
}

/* May the promise @step, found on the way to a page, be kept by a large one? */
static bool is_for_large(const struct pt *pt, const struct walk_step *step)
{
    struct pt_attr attr = pte_attr(step->entry, step->level);

    return step->level > 0 && !pt->is_kernel && attr.memory == PT_WB &&
           pt_may_resize(attr.flags);
}

enum fault_result supply_page(struct pt *pt, vaddr_t address,
                              const struct walk_step *step)
{
    if (is_for_large(pt, step) && align_down(address, LARGE_BYTES) != 0 &&
        supply_block(pt, address, LARGE_ORDER) == FAULT_RESOLVED) {
        return FAULT_RESOLVED;
    }
    return supply_block(pt, address, 0);
}

/* --- copies --------------------------------------------------------------- */

static bool is_copied_on_write(const struct pt_entry *entry)
{
    return entry->state == PTE_PRESENT && (entry->attr.flags & PT_COW) != 0;
}

/* Not executable then; without NX all leaves look as if they were. */
static struct pt_attr writable(struct pt_attr attr)
{
    unsigned flags = attr.flags & ~(unsigned)(PT_COW | PT_EXEC);

    attr.flags = (uint8_t)(flags | PT_WRITE);
    return attr;
}

/* The frame of @entry that holds @page. */
static pfn_t frame_at(const struct pt_entry *entry, vaddr_t page)
{
    return pfn_add(entry->pfn, (page - entry->start) >> PAGE_SHIFT);
}

/* A leaf and the frame in it that is to be copied. */
struct source {
    pfn_t pfn;
    bool is_held; /* has one holder more until the copy is made */
};

static void hold(struct source *from, const struct pt_entry *entry,
                 vaddr_t page)
{
    from->pfn = frame_at(entry, page);
    from->is_held = (entry->attr.flags & PT_OWNED) != 0;
    if (from->is_held) {
        frame_ref(frame_head(from->pfn));
    }
}

/*
 * Take the page back if nobody else holds it: all that one leaf maps at once.
 * Return: FAULT_NO_MEMORY: @out_from must be copied, for which memory is
 *         needed.
 */
static enum fault_result take_back(struct pt *pt, vaddr_t page,
                                   struct source *out_from)
{
    vaddr_t start = align_down(page, LARGE_BYTES);
    bool is_small = pt->is_kernel || start == 0; /* no large leaves there */
    enum fault_result result = FAULT_SPURIOUS;
    struct visit visit;
    struct pt_entry *entry = &visit.entry;

    out_from->pfn = PFN_NONE;
    if (!enter(&visit, pt, is_small ? page : start,
               is_small ? PAGE_BYTES : LARGE_BYTES, page)) {
        return FAULT_NOT_MAPPED;
    }
    if (is_copied_on_write(entry)) {
        bool is_sole =
            (entry->attr.flags & PT_OWNED) != 0 && frame_is_sole(entry->pfn);

        if (is_sole && pt_protect(&visit.cursor, entry->start, entry->bytes,
                                  writable(entry->attr)) == MM_OK) {
            result = FAULT_UNSHARED;
        } else {
            result = FAULT_NO_MEMORY;
            hold(out_from, entry, page);
            /*
             * The copy of the space that shared the page may not have flushed
             * yet: no CPU may write to it any more once it is copied.
             */
            tlb_batch_range(&visit.batch, page, page + PAGE_BYTES, 0);
        }
    }
    leave(&visit);
    return result;
}

/* Put the copy @to in place of @from, if that still stands there. */
static enum fault_result replace(struct pt *pt, vaddr_t page, pfn_t from,
                                 pfn_t to)
{
    enum fault_result result = FAULT_SPURIOUS;
    struct visit visit;

    if (!enter(&visit, pt, page, PAGE_BYTES, page)) {
        return FAULT_NOT_MAPPED;
    }
    if (is_copied_on_write(&visit.entry) &&
        pfn_equal(frame_at(&visit.entry, page), from)) {
        result = pt_replace(&visit.cursor, page, to,
                            writable(visit.entry.attr)) == MM_OK
                     ? FAULT_UNSHARED
                     : FAULT_NO_MEMORY; /* no table to split a large leaf */
    }
    leave(&visit);
    return result;
}

/* A copy of the frame @from, which is held, for @page. */
static enum fault_result copy_page(struct pt *pt, vaddr_t page, pfn_t from)
{
    pfn_t to = frame_alloc(0, FRAME_USER, FRAME_ANY);

    if (pfn_is_none(to)) {
        return FAULT_NO_MEMORY;
    }
    memcpy(phys_to_virt(pfn_to_phys(to)), phys_to_virt(pfn_to_phys(from)),
           PAGE_BYTES);
    enum fault_result result = replace(pt, page, from, to);
    if (result != FAULT_UNSHARED) {
        frame_free(to, 0); /* nothing has ever led to it */
    }
    return result;
}

enum fault_result supply_copy(struct pt *pt, vaddr_t address)
{
    vaddr_t page = align_down(address, PAGE_BYTES);
    struct source from;
    enum fault_result result = take_back(pt, page, &from);

    if (!pfn_is_none(from.pfn)) {
        result = copy_page(pt, page, from.pfn);
        if (from.is_held) {
            frame_unref(frame_head(from.pfn));
        }
    }
    return result;
}
