/* SPDX-License-Identifier: MIT */
/* pt: page tables as address space, through a cursor over a locked range. */
/*
 * Owns      what an address means. The tables are the only place that says
 *           so: there is no list of mappings beside them.
 *
 * Idea      Each operation on a range has two halves. The first may fail and
 *           changes no meaning: it grows tables and cuts large entries at the
 *           ends of the range. The second changes meanings and cannot fail.
 *           A promise costs as many entries as alignment asks for: 1 TiB is
 *           two entries of the top level.
 *
 * Invariants  I1 .. I3 of cursor.c, and
 *   I4  no entry is both writable and executable.
 *   I5  no entry has a bit this processor reserves.
 *   I6  page 0 is never mapped.
 *
 * Locking   By the cursor. pt_lookup() takes none: with interrupts off a
 *           table it reads cannot be released under it, because release waits
 *           for this processor (tlb_shoot.c, Grace period).
 *
 * Cost      O(entries touched); memory only for tables.
 */
#include <mm/pt.h>

#include <mm/frame.h>
#include "base/bits.h"
#include "base/check.h"
#include "map/cursor.h"

struct pt pt_kernel;

/*
 * What a range is to be filled with: an entry without its frame, for level 0
 * and for those above, and the frame; or a promise.
 */
struct filling {
    pte_t entry[2];
    bool is_promise;
    bool is_owned;
    pfn_t pfn;           /* of the first page; 0 for a promise */
    const pfn_t *frames; /* of each page, if they do not lie in a row */
};

/*
 * What is said of the kernel's pages holds for every PCID: one INVLPG must
 * reach them all, so they are global.
 */
static struct pt_attr in_tables(const struct pt *pt, struct pt_attr attr)
{
    attr.flags |= pt->is_kernel ? PT_GLOBAL : 0;
    return attr;
}

static struct filling fill_with_frames(pfn_t pfn, struct pt_attr attr)
{
    pte_t entry = cursor_for_cpu(pte_make_frame(0, pfn_of(0), attr));

    return (struct filling){
        .entry = {entry, pte_whole(entry, 1)},
        .is_owned = (attr.flags & PT_OWNED) != 0,
        .pfn = pfn,
    };
}

static struct filling fill_with_promise(enum pt_promise promise,
                                        struct pt_attr attr, uint64_t payload)
{
    pte_t entry = pte_make_promise(promise, attr, payload);

    return (struct filling){
        .entry = {entry, entry},
        .is_promise = true,
    };
}

/* The entry of @level for the page at @offset of the range. */
static pte_t filling_entry(const struct filling *filling, uint64_t offset,
                           unsigned level)
{
    uint64_t page = offset >> PAGE_SHIFT;
    pfn_t pfn = filling->frames != NULL ? filling->frames[page]
                                        : pfn_add(filling->pfn, page);

    return pte_advance(filling->entry[level > 0], pfn.v);
}

/* log2 of the frames in the owned block at @pfn. */
static unsigned owned_order(pfn_t pfn)
{
    return record_of(pfn)->order;
}

/* Largest level one entry of @filling may have at all. */
static unsigned level_limit(const struct pt_cursor *cursor,
                            const struct filling *filling, uint64_t offset)
{
    if (cursor->cover == 0 || filling->frames != NULL) {
        return 0;
    }
    if (filling->is_promise) {
        return pt_features.levels - (cursor->pt->is_kernel ? 2 : 1);
    }
    if (!filling->is_owned) {
        return pt_max_leaf();
    }
    pfn_t pfn = pfn_add(filling->pfn, offset >> PAGE_SHIFT);
    return owned_order(pfn) == MM_TABLE_BITS ? 1 : 0;
}

/* Does a table stand for @address at @level that must stay? */
static bool is_pinned_below(struct pt_cursor *cursor, vaddr_t address,
                            unsigned level)
{
    bool is_reached = cursor_seek(cursor, address, level) == level;
    pte_t entry = cursor_entry(cursor);

    return is_reached && pte_is_table(entry, level) &&
           (table_marks(pte_table(entry)) & TABLE_PINNED) != 0;
}

/* Level of the entry that begins at @offset of the range. */
static unsigned chunk_level(struct pt_cursor *cursor,
                            const struct filling *filling, vaddr_t start,
                            uint64_t offset, uint64_t bytes)
{
    unsigned level = level_limit(cursor, filling, offset);
    uint64_t bits = start + offset;

    if (!filling->is_promise) {
        bits |= pfn_to_phys(filling->pfn).v + offset;
    }
    while (level > 0 &&
           (level > cursor->cover || !is_aligned(bits, pte_span(level)) ||
            bytes - offset < pte_span(level) ||
            is_pinned_below(cursor, start + offset, level))) {
        level--;
    }
    return level;
}

/*
 * Can the mapping hold a reference on each block in the range: whole ones, of
 * the size of a leaf, that are handed out?
 */
static bool can_own(vaddr_t start, pfn_t pfn, uint64_t bytes)
{
    uint64_t offset = 0;

    while (offset < bytes) {
        pfn_t block = pfn_add(pfn, offset >> PAGE_SHIFT);
        if (!record_exists(block) || record_of(block)->type == FRAME_NONE) {
            return false;
        }
        unsigned level = owned_order(block) == MM_TABLE_BITS ? 1 : 0;
        if (owned_order(block) != level * MM_TABLE_BITS ||
            !is_aligned(start + offset, pte_span(level)) ||
            bytes - offset < pte_span(level)) {
            return false;
        }
        offset += pte_span(level);
    }
    return true;
}

/* What one entry of @level, where the cursor stands, and its run to @end span.
 */
static uint64_t run_bytes(const struct pt_cursor *cursor, unsigned level,
                          vaddr_t end)
{
    return level > 0 ? pte_span(level) : cursor_run(cursor, end) * PAGE_BYTES;
}

/* First half of filling: tables for every entry. */
static enum mm_status prepare(struct pt_cursor *cursor,
                              const struct filling *filling, vaddr_t start,
                              uint64_t bytes)
{
    uint64_t offset = 0;

    while (offset < bytes) {
        unsigned level = chunk_level(cursor, filling, start, offset, bytes);
        enum mm_status status = cursor_grow(cursor, start + offset, level);

        if (filling->is_owned && level < level_limit(cursor, filling, offset)) {
            status = MM_EEXIST; /* a pinned table: the block must stay whole */
        }
        if (status != MM_OK) {
            cursor_prune_range(cursor, start, offset + PAGE_BYTES);
            return status;
        }
        offset += run_bytes(cursor, level, start + bytes);
    }
    return MM_OK;
}

/* Fill the small entries from where the cursor stands on, at @offset. */
static void place_run(struct pt_cursor *cursor, const struct filling *filling,
                      uint64_t offset, unsigned count)
{
    pte_t entry = filling_entry(filling, offset, 0);
    uint64_t step = pte_advance(entry, 1).v - entry.v;
    pte_t *slot = cursor->slot;
    unsigned added = 0;

    for (unsigned i = 0; i < count; i++) {
        added += pte_is_absent(slot_entry(&slot[i])) ? 1 : 0;
        if (filling->frames != NULL) {
            entry = filling_entry(filling, offset + i * PAGE_BYTES, 0);
        }
        slot_store(&slot[i], entry);
        entry.v += step;
    }
    cursor_count(cursor, added);
}

/*
 * Is the range a part of one table of level 0, at which the cursor then stands?
 * Then there are no levels to choose from and no tables to make.
 */
static bool is_in_one_table(struct pt_cursor *cursor, vaddr_t start,
                            uint64_t bytes)
{
    return bytes < pte_span(1) && cursor_seek_page(cursor, start) == 0 &&
           cursor_run(cursor, start + bytes) == bytes >> PAGE_SHIFT;
}

static enum mm_status fill_run(struct pt_cursor *cursor,
                               const struct filling *filling, unsigned count)
{
    if (!cursor_run_is_vacant(cursor, count)) {
        return MM_EEXIST;
    }
    place_run(cursor, filling, 0, count);
    return MM_OK;
}

static enum mm_status fill(struct pt_cursor *cursor,
                           const struct filling *filling, vaddr_t start,
                           uint64_t bytes)
{
    uint64_t offset = 0;

    if (is_in_one_table(cursor, start, bytes)) {
        return fill_run(cursor, filling, (unsigned)(bytes >> PAGE_SHIFT));
    }
    if (!cursor_is_vacant(cursor, start, bytes)) {
        return MM_EEXIST;
    }
    enum mm_status status = prepare(cursor, filling, start, bytes);
    if (status != MM_OK) {
        return status;
    }
    while (offset < bytes) {
        unsigned level = chunk_level(cursor, filling, start, offset, bytes);
        unsigned reached = cursor_seek(cursor, start + offset, level);

        uint64_t run = run_bytes(cursor, level, start + bytes);

        ASSERT(reached == level);
        if (level > 0) {
            cursor_place(cursor, filling_entry(filling, offset, level));
        } else {
            place_run(cursor, filling, offset, (unsigned)(run >> PAGE_SHIFT));
        }
        offset += run;
    }
    return MM_OK;
}

/*
 * Can @attr be said of @frames frames from @pfn on? What would be parked, too:
 * stored inverted, a frame above the payloads would name RAM (L1TF).
 */
static bool can_map(const struct pt_cursor *cursor, pfn_t pfn, uint64_t frames,
                    struct pt_attr attr)
{
    uint64_t limit = UINT64_C(1) << (pt_features.physical_bits - PAGE_SHIFT);

    if ((attr.flags & PT_NONE) && limit > pt_payload_end) {
        limit = pt_payload_end;
    }
    return cursor_allows(cursor, attr) && pfn.v < limit &&
           frames <= limit - pfn.v;
}

enum mm_status pt_map(struct pt_cursor *cursor, vaddr_t address, pfn_t pfn,
                      uint64_t bytes, struct pt_attr attr)
{
    if (!cursor_has(cursor, address, bytes) ||
        !can_map(cursor, pfn, bytes >> PAGE_SHIFT, attr)) {
        return MM_EINVAL;
    }
    if ((attr.flags & PT_OWNED) && !can_own(address, pfn, bytes)) {
        return MM_EINVAL;
    }
    struct filling filling = fill_with_frames(pfn, in_tables(cursor->pt, attr));
    return fill(cursor, &filling, address, bytes);
}

enum mm_status pt_map_frames(struct pt_cursor *cursor, vaddr_t address,
                             const pfn_t *frames, unsigned count,
                             struct pt_attr attr)
{
    uint64_t bytes = count * PAGE_BYTES;

    if (!cursor_has(cursor, address, bytes) || !cursor_allows(cursor, attr) ||
        (attr.flags & PT_OWNED) == 0) {
        return MM_EINVAL;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!can_own(address, frames[i], PAGE_BYTES)) {
            return MM_EINVAL;
        }
    }
    struct filling filling =
        fill_with_frames(pfn_of(0), in_tables(cursor->pt, attr));
    filling.frames = frames;
    return fill(cursor, &filling, address, bytes);
}

enum mm_status pt_replace(struct pt_cursor *cursor, vaddr_t page, pfn_t pfn,
                          struct pt_attr attr)
{
    attr.flags |= PT_OWNED;
    if (!cursor_has(cursor, page, PAGE_BYTES) ||
        !can_map(cursor, pfn, 1, attr) || (attr.flags & PT_NONE) ||
        !can_own(page, pfn, PAGE_BYTES)) {
        return MM_EINVAL;
    }
    cursor_seek(cursor, page, 0);
    if (!pte_is_present(cursor_entry(cursor))) {
        return MM_ENOENT;
    }
    if (!tlb_batch_has_room(cursor->batch)) {
        return MM_EBUSY;
    }
    enum mm_status status = cursor_cut_ends(cursor, page, PAGE_BYTES);
    if (status != MM_OK) {
        return status;
    }
    cursor_seek(cursor, page, 0);
    pte_t old = cursor_swap(cursor, cursor_for_cpu(pte_make_leaf(
                                        0, pfn, in_tables(cursor->pt, attr))));
    tlb_batch_range(cursor->batch, page, page + PAGE_BYTES, 0);
    if (pte_owns_frames(old, 0)) {
        tlb_batch_release(cursor->batch, pte_pfn(old, 0));
    }
    return MM_OK;
}

enum mm_status pt_promise(struct pt_cursor *cursor, vaddr_t start,
                          uint64_t bytes, enum pt_promise promise,
                          struct pt_attr attr, uint64_t payload)
{
    if (!cursor_has(cursor, start, bytes) || !cursor_allows(cursor, attr) ||
        payload >= pt_payload_end ||
        (promise != PT_OBJECT && (attr.flags & PT_COW))) {
        return MM_EINVAL;
    }
    if (promise == PT_OBJECT &&
        (bytes >> PAGE_SHIFT) > pt_payload_end - payload) {
        return MM_EINVAL;
    }
    struct filling filling =
        fill_with_promise(promise, in_tables(cursor->pt, attr), payload);
    return fill(cursor, &filling, start, bytes);
}

void cursor_describe(const struct pt_cursor *cursor, pte_t entry,
                     struct pt_entry *out)
{
    unsigned level = cursor->level;
    enum pte_state state = pte_state(entry, level);

    *out = (struct pt_entry){.state = state,
                             .level = level,
                             .start = align_down(cursor->at, pte_span(level)),
                             .bytes = pte_span(level),
                             .pfn = PFN_NONE};
    if (state == PTE_ABSENT) {
        return;
    }
    out->attr = pte_attr(entry, level);
    if (state == PTE_PRESENT || state == PTE_PARKED) {
        out->pfn = pte_pfn(entry, level);
    } else {
        out->payload = pte_payload(entry);
    }
    if (state == PTE_PROMISE) {
        out->promise = pte_promise(entry);
    }
    out->accessed = (pte_accessed_dirty(entry) & PTE_A) != 0;
    out->dirty = (pte_accessed_dirty(entry) & PTE_D) != 0;
}

void pt_query(struct pt_cursor *cursor, vaddr_t address, struct pt_entry *out)
{
    ASSERT(cursor_has(cursor, align_down(address, PAGE_BYTES), PAGE_BYTES));
    cursor_seek(cursor, address, 0);
    cursor_describe(cursor, cursor_entry(cursor), out);
}
