/* SPDX-License-Identifier: MIT */
/* change: what ranges that say something already will say: protect, unmap. */
#include <mm/pt.h>

#include <mm/frame.h>
#include "base/check.h"
#include "map/cursor.h"

/*
 * Rights for many entries, worked out once. What was shared by pt_copy() is
 * not written before it is copied, whoever wants to.
 */
struct protection {
    struct pte_rights rights;
    bool is_write;
    uint64_t shared; /* bits of the tag: others may write as well */
};

/* Has the block of an owned leaf or parked entry another holder? */
static bool is_shared(pte_t entry, unsigned level)
{
    return !frame_is_sole(pte_pfn(entry, level));
}

/*
 * @entry, marked PTE_COW if it must stay read-only. An owned one is so if
 * writing is allowed and its block has other holders: these can only come to
 * be by a copy of this space, which needs the lock this cursor has.
 */
static pte_t mark_shared(pte_t entry, unsigned level,
                         const struct protection *wanted)
{
    if (!pte_owns_frames(entry, level)) {
        return entry;
    }
    entry.v &= ~PTE_COW;
    if (wanted->is_write && (entry.v & wanted->shared) == 0 &&
        is_shared(entry, level)) {
        entry.v |= PTE_COW;
    }
    return entry;
}

/* Give the entry where the cursor stands other rights. */
static void protect_entry(struct pt_cursor *cursor,
                          const struct protection *wanted)
{
    unsigned level = cursor->level;
    pte_t entry = cursor_entry(cursor);
    pte_t changed;

    do {
        pte_t marked = mark_shared(entry, level, wanted);
        changed =
            cursor_for_cpu(pte_with_rights(marked, level, &wanted->rights));
    } while (!cursor_replace(cursor, &entry, changed));
    if (pte_is_present(entry) && entry.v != changed.v) {
        tlb_batch_range(cursor->batch, cursor->at, cursor_next(cursor), level);
    }
}

enum mm_status pt_protect(struct pt_cursor *cursor, vaddr_t start,
                          uint64_t bytes, struct pt_attr attr)
{
    if (!cursor_has(cursor, start, bytes) || !cursor_allows(cursor, attr)) {
        return MM_EINVAL;
    }
    struct protection wanted = {
        .rights = pte_rights(attr),
        .is_write = (attr.flags & PT_WRITE) != 0,
        .shared = pte_tag_bits(cursor->pt->shared_tags),
    };
    enum mm_status status = cursor_cut_ends(cursor, start, bytes);
    if (status != MM_OK) {
        return status;
    }
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        cursor_seek(cursor, at, 0);
        if (!pte_is_absent(cursor_entry(cursor))) {
            protect_entry(cursor, &wanted);
        }
    }
    return MM_OK;
}

/* May the entry be removed now, or is the batch full of shared frames? */
static bool has_room_for(const struct pt_cursor *cursor, pte_t entry,
                         unsigned level)
{
    return !pte_owns_frames(entry, level) || tlb_batch_has_room(cursor->batch);
}

/* Make the entry absent and hand the batch what it held. */
static void remove_entry(struct pt_cursor *cursor)
{
    unsigned level = cursor->level;
    pte_t old = cursor_swap(cursor, (pte_t){0});

    bool is_owner = pte_owns_frames(old, level);

    /* A parked one may have been present until a batch that waits still. */
    if (pte_is_present(old) || is_owner) {
        tlb_batch_range(cursor->batch, cursor->at, cursor_next(cursor), level);
    }
    if (is_owner) {
        tlb_batch_release(cursor->batch, pte_pfn(old, level));
    }
    cursor_prune(cursor);
}

/* The highest entry that may begin at @at and end by @end. */
static unsigned highest_entry(const struct pt_cursor *cursor, vaddr_t at,
                              vaddr_t end)
{
    unsigned level = 0;

    while (level < cursor->cover && is_aligned(at, pte_span(level + 1)) &&
           end - at >= pte_span(level + 1)) {
        level++;
    }
    return level;
}

/*
 * If there are tables for nothing but a part of [at, end), from @at on, that
 * may go: hand them to the batch as they are, frames and all.
 */
static bool remove_tree(struct pt_cursor *cursor, vaddr_t at, vaddr_t end)
{
    for (unsigned level = highest_entry(cursor, at, end); level > 0; level--) {
        if (cursor_seek(cursor, at, level) == level &&
            cursor_is_at_tree(cursor)) {
            cursor_replace_tree(cursor, (pte_t){0});
            tlb_batch_range(cursor->batch, at, cursor_next(cursor), 0);
            cursor_prune(cursor);
            return true;
        }
    }
    return false;
}

enum mm_status pt_unmap(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes,
                        vaddr_t *out_end)
{
    *out_end = start;
    if (!cursor_has(cursor, start, bytes)) {
        return MM_EINVAL;
    }
    enum mm_status status = cursor_cut_ends(cursor, start, bytes);
    if (status != MM_OK) {
        return status;
    }
    vaddr_t end = start + bytes;
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        if (remove_tree(cursor, at, end)) {
            continue;
        }
        unsigned level = cursor_seek(cursor, at, 0);
        pte_t entry = cursor_entry(cursor);

        if (!has_room_for(cursor, entry, level)) {
            *out_end = at;
            return MM_OK;
        }
        if (!pte_is_absent(entry)) {
            remove_entry(cursor);
        }
    }
    *out_end = end;
    return MM_OK;
}

enum mm_status pt_replace(struct pt_cursor *cursor, vaddr_t page, pfn_t pfn,
                          struct pt_attr attr)
{
    attr.flags |= PT_OWNED;
    if (!cursor_has(cursor, page, PAGE_BYTES) || !cursor_allows(cursor, attr) ||
        (attr.flags & PT_NONE)) {
        return MM_EINVAL;
    }
    cursor_seek(cursor, page, 0);
    if (!pte_is_present(cursor_entry(cursor))) {
        return MM_ENOENT;
    }
    enum mm_status status = cursor_cut_ends(cursor, page, PAGE_BYTES);
    if (status != MM_OK) {
        return status;
    }
    cursor_seek(cursor, page, 0);
    pte_t entry = cursor_for_cpu(pte_make_leaf(0, pfn, attr));
    pte_t old = cursor_swap(cursor, entry);
    tlb_batch_range(cursor->batch, page, page + PAGE_BYTES, 0);
    if (pte_owns_frames(old, 0)) {
        tlb_batch_release(cursor->batch, pte_pfn(old, 0));
    }
    return MM_OK;
}

/* Test and clear @bits of the leaf where the cursor stands; what it was. */
static pte_t age_leaf(struct pt_cursor *cursor, uint64_t bits)
{
    pte_t entry = cursor_entry(cursor);

    if (!pte_is_leaf(entry, cursor->level) || (entry.v & bits) == 0) {
        return entry;
    }
    entry.v = atomic_fetch_and_explicit((_Atomic uint64_t *)&cursor->slot->v,
                                        ~bits, memory_order_relaxed);
    if (entry.v & bits & PTE_D) {
        tlb_batch_range(cursor->batch,
                        align_down(cursor->at, pte_span(cursor->level)),
                        cursor_next(cursor), cursor->level);
    }
    return entry;
}

uint64_t pt_age(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes,
                unsigned what, pt_leaf_fn seen, void *context)
{
    uint64_t bits = ((what & PT_AGE_ACCESSED) ? PTE_A : 0) |
                    ((what & PT_AGE_DIRTY) ? PTE_D : 0);
    uint64_t count = 0;

    ASSERT(cursor_has(cursor, start, bytes));
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        cursor_seek(cursor, at, 0);
        pte_t entry = age_leaf(cursor, bits);
        if (!pte_is_leaf(entry, cursor->level)) {
            continue;
        }
        count += (entry.v & bits) != 0 ? 1 : 0;
        if (seen != NULL) {
            struct pt_entry said;

            cursor_describe(cursor, entry, &said);
            seen(context, &said);
        }
    }
    return count;
}
