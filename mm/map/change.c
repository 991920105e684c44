/* SPDX-License-Identifier: MIT */
/* change: what ranges that say something already will say: protect, unmap. */
#include <mm/pt.h>

#include <mm/frame.h>
#include "base/check.h"
#include "map/cursor.h"

/* Bits of a leaf of level 0 that other rights change. */
#define PLAIN_RIGHTS (PTE_RIGHTS | PTE_PAT)

/*
 * Rights for many entries, worked out once. What was shared by pt_copy() is
 * not written before it is copied, whoever wants to.
 */
struct protection {
    struct pte_rights rights;
    bool is_write;
    uint8_t shared_tags; /* others may write as well */
    /* Leaves of level 0 with (entry & mask) == PTE_P get these rights. */
    uint64_t plain_mask;
    uint64_t plain_rights;
};

static inline void protection_init(struct protection *wanted,
                                   const struct pt *pt, struct pt_attr attr)
{
    wanted->shared_tags = pt->shared_tags;
    wanted->rights = pte_rights(attr);
    wanted->is_write = (attr.flags & PT_WRITE) != 0;
    /* Holders decide who writes to what is owned; no access is another form. */
    wanted->plain_mask = PTE_P | PTE_COW | (wanted->is_write ? PTE_OWN : 0);
    if (attr.flags & PT_NONE) {
        wanted->plain_mask = 0;
    }
    wanted->plain_rights =
        cursor_for_cpu((pte_t){wanted->rights.small | PTE_P}).v;
}

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
    if (wanted->is_write &&
        (entry.v & pte_tag_bits(wanted->shared_tags)) == 0 &&
        is_shared(entry, level)) {
        entry.v |= PTE_COW;
    }
    return entry;
}

/* @entry, not absent, with other rights. */
static MM_NOINLINE pte_t with_rights(pte_t entry, unsigned level,
                                     const struct protection *wanted)
{
    pte_t marked = mark_shared(entry, level, wanted);

    return cursor_for_cpu(pte_with_rights(marked, level, &wanted->rights));
}

/*
 * Give the entry at @slot other rights.
 * Return: may a CPU have cached what it said?
 */
static MM_NOINLINE bool protect_entry(pte_t *slot, unsigned level,
                                      const struct protection *wanted)
{
    pte_t entry;
    pte_t changed;

    do {
        entry = slot_entry(slot);
        if (pte_is_absent(entry)) {
            return false;
        }
        changed = with_rights(entry, level, wanted);
        if (changed.v == entry.v) {
            return false;
        }
    } while (!slot_replace(slot, entry, changed));
    return pte_is_present(entry);
}

/*
 * The same for the small entry at @slot and those after it, of @count, that
 * are plain and have the same rights.
 * @out_cached: may a CPU have cached what they said?
 * Return: how many it were.
 */
static inline unsigned protect_alike(pte_t *slot, unsigned count,
                                     const struct protection *wanted,
                                     bool *out_cached)
{
    uint64_t entry = slot_entry(slot).v;
    uint64_t looked_at = wanted->plain_mask | PLAIN_RIGHTS;
    uint64_t turned = (entry ^ wanted->plain_rights) & PLAIN_RIGHTS;
    uint64_t alike = entry & looked_at;
    unsigned done = 0;

    if ((entry & wanted->plain_mask) != PTE_P) {
        *out_cached = protect_entry(slot, 0, wanted);
        return 1;
    }
    *out_cached = turned != 0;
    if (turned == 0) {
        return 1;
    }
    do {
        slot_turn(&slot[done++], turned);
    } while (done < count && (slot_entry(&slot[done]).v & looked_at) == alike);
    return done;
}

/*
 * The same for all small entries from where the cursor stands on to @end, in
 * its table. Return: the address after the last.
 */
static inline vaddr_t protect_run(struct pt_cursor *cursor, vaddr_t end,
                                  const struct protection *wanted)
{
    unsigned count = cursor_run(cursor, end);
    unsigned first = 0; /* from here on all have changed */
    unsigned i = 0;

    while (i < count) {
        bool is_cached;
        unsigned done =
            protect_alike(&cursor->slot[i], count - i, wanted, &is_cached);

        if (!is_cached) {
            cursor_forget(cursor, first, i);
            first = i + done;
        }
        i += done;
    }
    cursor_forget(cursor, first, count);
    return cursor->at + count * PAGE_BYTES;
}

static MM_NOINLINE vaddr_t protect_large(struct pt_cursor *cursor,
                                         const struct protection *wanted)
{
    if (protect_entry(cursor->slot, cursor->level, wanted)) {
        cursor_forget(cursor, 0, 1);
    }
    return cursor_next(cursor);
}

/* Can all frames in the range be parked? Not those from pt_payload_end on. */
static bool can_park(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes)
{
    if (UINT64_C(1) << (pt_features.physical_bits - PAGE_SHIFT) <=
        pt_payload_end) {
        return true;
    }
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        unsigned level = cursor_seek(cursor, at, 0);
        pte_t entry = cursor_entry(cursor);

        if (pte_is_present(entry) &&
            pte_pfn(entry, level).v >= pt_payload_end) {
            return false;
        }
    }
    return true;
}

enum mm_status pt_protect(struct pt_cursor *cursor, vaddr_t start,
                          uint64_t bytes, struct pt_attr attr)
{
    if (!cursor_has(cursor, start, bytes) || !cursor_allows(cursor, attr)) {
        return MM_EINVAL;
    }
    if ((attr.flags & PT_NONE) && !can_park(cursor, start, bytes)) {
        return MM_EINVAL;
    }
    struct protection wanted;
    protection_init(&wanted, cursor->pt, attr);
    enum mm_status status = cursor_cut_ends(cursor, start, bytes);
    if (status != MM_OK) {
        return status;
    }
    for (vaddr_t at = start; at - start < bytes;) {
        at = cursor_seek_page(cursor, at) == 0
                 ? protect_run(cursor, start + bytes, &wanted)
                 : protect_large(cursor, &wanted);
    }
    return MM_OK;
}

/*
 * Make the entry at @slot absent and hand the batch what it held. What the CPU
 * notes in it meanwhile is lost: who wants D asks pt_age() before.
 * Return: false if the batch has no room for it: nothing has changed then.
 */
static inline bool remove_entry(struct tlb_batch *batch, pte_t *slot,
                                unsigned level)
{
    pte_t old = slot_entry(slot);
    bool is_owner = pte_owns_frames(old, level);

    if (is_owner && !tlb_batch_has_room(batch)) {
        return false;
    }
    slot_store(slot, (pte_t){0});
    if (is_owner) {
        tlb_batch_release(batch, pte_pfn(old, level));
    }
    return true;
}

/*
 * The same for one entry or more of @count from @slot on, which is @old: if
 * that is a small leaf that owns its frame, all such as far as there is room.
 * Return: how many; 0 if there is no room.
 */
static inline unsigned remove_some(struct tlb_batch *batch, pte_t *slot,
                                   unsigned count, pte_t old, unsigned level)
{
    unsigned done = 0;

    if (level == 0 && (~old.v & (PTE_P | PTE_OWN)) == 0) {
        done = tlb_batch_release_leaves(batch, slot, count);
        MM_UNROLL(8)
        for (unsigned i = 0; i < done; i++) {
            slot_store(&slot[i], (pte_t){0});
        }
    } else if (pte_is_absent(old) || remove_entry(batch, slot, level)) {
        done = 1;
    }
    return done;
}

/*
 * Remove all from where the cursor stands on to @end, in its table, and that,
 * if it is empty then.
 * @out_next: the address after the last, or that for which the batch was full.
 * Return: were all removed?
 */
static bool remove_run(struct pt_cursor *cursor, vaddr_t end, vaddr_t *out_next)
{
    unsigned count = cursor_run(cursor, end);
    unsigned level = cursor->level;
    unsigned removed = 0;
    unsigned first = 0; /* from here on all may be cached */
    unsigned i = 0;

    while (i < count) {
        pte_t *slot = &cursor->slot[i];
        pte_t old = slot_entry(slot);
        unsigned done = remove_some(cursor->batch, slot, count - i, old, level);

        if (done == 0) {
            break;
        }
        removed += pte_is_absent(old) ? 0 : done;
        if (!pte_has_frames(old, level)) {
            cursor_forget(cursor, first, i);
            first = i + done;
        }
        i += done;
    }
    cursor_forget(cursor, first, i);
    *out_next = cursor_after(cursor, i);
    cursor_count(cursor, -removed);
    cursor_prune(cursor);
    return i == count;
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
    for (vaddr_t at = start; at - start < bytes;) {
        if (remove_tree(cursor, at, end)) {
            at = cursor_next(cursor);
            continue;
        }
        cursor_seek_page(cursor, at);
        if (!remove_run(cursor, end, &at)) {
            *out_end = at;
            return MM_OK;
        }
    }
    *out_end = end;
    return MM_OK;
}

/*
 * Test and clear @bits of the leaf where the cursor stands; what it was. It may
 * be of a small kernel block, which its owner parks without the table's lock:
 * these bits say something else then, so they are cleared in a leaf alone.
 */
static pte_t age_leaf(struct pt_cursor *cursor, uint64_t bits)
{
    pte_t entry;

    do {
        entry = slot_entry(cursor->slot);
        if (!pte_is_leaf(entry, cursor->level) || (entry.v & bits) == 0) {
            return entry;
        }
    } while (!slot_replace(cursor->slot, entry, (pte_t){entry.v & ~bits}));
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
