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
 * and for those above, and the frame; or a promise. Both may count up.
 */
struct filling {
    pte_t entry[2];
    uint64_t step; /* from page to page; payloads are stored inverted */
    bool is_promise;
    bool is_owned;
    pfn_t pfn; /* of the first page; 0 for a promise */
};

static bool in_range(const struct pt_cursor *cursor, vaddr_t start,
                     uint64_t bytes)
{
    return bytes > 0 && is_aligned(start | bytes, PAGE_BYTES) &&
           start >= cursor->start && start <= cursor->end &&
           bytes <= cursor->end - start;
}

/*
 * What is said of the kernel's pages holds for every PCID: one INVLPG must
 * reach them all, so they are global.
 */
static struct pt_attr in_tables(const struct pt *pt, struct pt_attr attr)
{
    attr.flags |= pt->is_kernel ? PT_GLOBAL : 0;
    return attr;
}

/* Rights that are known and make sense together, in these tables (I4). */
static bool attr_is_valid(const struct pt *pt, struct pt_attr attr)
{
    if ((attr.flags & ~PT_FLAGS) != 0) {
        return false;
    }
    if ((attr.flags & PT_WRITE) && (attr.flags & (PT_EXEC | PT_COW))) {
        return false;
    }
    if (attr.memory != PT_WB && attr.memory != PT_WC && attr.memory != PT_UC &&
        attr.memory != PT_WP && attr.memory != PT_WT) {
        return false;
    }
    return (attr.flags & (pt->is_kernel ? PT_USER : PT_GLOBAL)) == 0;
}

static struct filling fill_with_frames(pfn_t pfn, struct pt_attr attr)
{
    return (struct filling){
        .entry = {cursor_for_cpu(pte_make_leaf(0, pfn_of(0), attr)),
                  cursor_for_cpu(pte_make_leaf(1, pfn_of(0), attr))},
        .step = PAGE_BYTES,
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
        .step = promise == PT_OBJECT ? -PAGE_BYTES : 0,
        .is_promise = true,
    };
}

/* The entry of @level for the page at @offset of the range. */
static pte_t filling_entry(const struct filling *filling, uint64_t offset,
                           unsigned level)
{
    uint64_t pages = offset >> PAGE_SHIFT;

    return (pte_t){filling->entry[level > 0].v + pfn_to_phys(filling->pfn).v +
                   pages * filling->step};
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
           record_of(pte_table(entry))->owner == TABLE_PINNED;
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
    while (level > 0 && (!is_aligned(bits, pte_span(level)) ||
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

/* Put @entry in place of what is there: gaps, promises, tables of such. */
static void place(struct pt_cursor *cursor, pte_t entry)
{
    pte_t old = cursor_swap(cursor, entry);

    if (pte_is_table(old, cursor->level)) {
        cursor_release_tree(cursor, pte_table(old), cursor->level - 1);
    }
}

/* Is nothing in the range but gaps and promises? */
static bool is_vacant(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes)
{
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        unsigned level = cursor_seek(cursor, at, 0);
        enum pte_state state = pte_state(cursor_entry(cursor), level);

        if (state != PTE_ABSENT && state != PTE_PROMISE) {
            return false;
        }
    }
    return true;
}

/* Unhook what a failed grow has left empty in the range. */
static void prune_range(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes)
{
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        cursor_seek(cursor, at, 0);
        cursor_prune(cursor);
    }
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
            prune_range(cursor, start, offset + PAGE_BYTES);
            return status;
        }
        offset += pte_span(level);
    }
    return MM_OK;
}

static enum mm_status fill(struct pt_cursor *cursor,
                           const struct filling *filling, vaddr_t start,
                           uint64_t bytes)
{
    uint64_t offset = 0;

    if (!is_vacant(cursor, start, bytes)) {
        return MM_EEXIST;
    }
    enum mm_status status = prepare(cursor, filling, start, bytes);
    if (status != MM_OK) {
        return status;
    }
    while (offset < bytes) {
        unsigned level = chunk_level(cursor, filling, start, offset, bytes);
        unsigned reached = cursor_seek(cursor, start + offset, level);

        ASSERT(reached == level);
        place(cursor, filling_entry(filling, offset, level));
        offset += pte_span(level);
    }
    return MM_OK;
}

enum mm_status pt_map(struct pt_cursor *cursor, vaddr_t address, pfn_t pfn,
                      uint64_t bytes, struct pt_attr attr)
{
    uint64_t limit = UINT64_C(1) << (pt_features.physical_bits - PAGE_SHIFT);

    if (!in_range(cursor, address, bytes) || !attr_is_valid(cursor->pt, attr) ||
        pfn.v >= limit || (bytes >> PAGE_SHIFT) > limit - pfn.v) {
        return MM_EINVAL;
    }
    if ((attr.flags & PT_OWNED) && !can_own(address, pfn, bytes)) {
        return MM_EINVAL;
    }
    struct filling filling = fill_with_frames(pfn, in_tables(cursor->pt, attr));
    return fill(cursor, &filling, address, bytes);
}

/* Payloads are stored inverted in 40 bits; the highest names RAM again. */
#define PAYLOAD_END (UINT64_C(1) << 39)

enum mm_status pt_promise(struct pt_cursor *cursor, vaddr_t start,
                          uint64_t bytes, enum pt_promise promise,
                          struct pt_attr attr, uint64_t payload)
{
    if (!in_range(cursor, start, bytes) || !attr_is_valid(cursor->pt, attr) ||
        attr.memory > PT_UC || payload >= PAYLOAD_END) {
        return MM_EINVAL;
    }
    if (promise == PT_OBJECT && (bytes >> PAGE_SHIFT) > PAYLOAD_END - payload) {
        return MM_EINVAL;
    }
    struct filling filling =
        fill_with_promise(promise, in_tables(cursor->pt, attr), payload);
    return fill(cursor, &filling, start, bytes);
}

void pt_query(struct pt_cursor *cursor, vaddr_t address, struct pt_entry *out)
{
    ASSERT(address >= cursor->start && address < cursor->end);
    unsigned level = cursor_seek(cursor, address, 0);
    pte_t entry = cursor_entry(cursor);
    enum pte_state state = pte_state(entry, level);

    *out = (struct pt_entry){.state = state,
                             .level = level,
                             .start = align_down(address, pte_span(level)),
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
    if (state == PTE_PRESENT) {
        out->accessed = (entry.v & PTE_A) != 0;
        out->dirty = (entry.v & PTE_D) != 0;
    }
}

/* Let entries begin at both ends of the range. */
static enum mm_status cut_ends(struct pt_cursor *cursor, vaddr_t start,
                               uint64_t bytes)
{
    enum mm_status status = cursor_cut(cursor, start);

    return status == MM_OK ? cursor_cut(cursor, start + bytes) : status;
}

/* Is everything in the range present? */
static bool is_all_present(struct pt_cursor *cursor, vaddr_t start,
                           uint64_t bytes)
{
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        cursor_seek(cursor, at, 0);
        if (!pte_is_present(cursor_entry(cursor))) {
            return false;
        }
    }
    return true;
}

/* Give the entry where the cursor stands the rights and type of @attr. */
static void protect_entry(struct pt_cursor *cursor, struct pt_attr attr)
{
    bool high_pat = (attr.memory & 4) != 0;
    uint64_t bits = pte_encode_attr(attr);
    pte_t entry = cursor_entry(cursor);
    pte_t changed;

    do {
        changed = cursor_for_cpu(
            pte_with_rights(entry, cursor->level, bits, high_pat));
    } while (!cursor_replace(cursor, &entry, changed));
    if (pte_is_present(entry) && entry.v != changed.v) {
        tlb_batch_range(cursor->batch, cursor->at, cursor_next(cursor),
                        cursor->level);
    }
}

enum mm_status pt_protect(struct pt_cursor *cursor, vaddr_t start,
                          uint64_t bytes, struct pt_attr attr)
{
    if (!in_range(cursor, start, bytes) || !attr_is_valid(cursor->pt, attr)) {
        return MM_EINVAL;
    }
    /* Only leaves have room for the third bit of the memory type. */
    if (attr.memory > PT_UC && !is_all_present(cursor, start, bytes)) {
        return MM_EINVAL;
    }
    enum mm_status status = cut_ends(cursor, start, bytes);
    if (status != MM_OK) {
        return status;
    }
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        cursor_seek(cursor, at, 0);
        if (!pte_is_absent(cursor_entry(cursor))) {
            protect_entry(cursor, attr);
        }
    }
    return MM_OK;
}

/* May the entry be removed now, or is the batch full of shared frames? */
static bool has_room_for(const struct pt_cursor *cursor, pte_t entry,
                         unsigned level)
{
    return !cursor_owns_frames(entry, level) ||
           tlb_batch_has_room(cursor->batch);
}

/* Make the entry absent and hand the batch what it held. */
static void remove_entry(struct pt_cursor *cursor)
{
    unsigned level = cursor->level;
    pte_t old = cursor_swap(cursor, (pte_t){0});

    bool is_owner = cursor_owns_frames(old, level);

    /* A parked one may have been present until a batch that waits still. */
    if (pte_is_present(old) || is_owner) {
        tlb_batch_range(cursor->batch, cursor->at, cursor_next(cursor), level);
    }
    if (is_owner) {
        tlb_batch_release(cursor->batch, pte_pfn(old, level));
    }
    cursor_prune(cursor);
}

enum mm_status pt_unmap(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes,
                        vaddr_t *out_end)
{
    *out_end = start;
    if (!in_range(cursor, start, bytes)) {
        return MM_EINVAL;
    }
    enum mm_status status = cut_ends(cursor, start, bytes);
    if (status != MM_OK) {
        return status;
    }
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
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
    *out_end = start + bytes;
    return MM_OK;
}

enum mm_status pt_split(struct pt_cursor *cursor, vaddr_t address)
{
    ASSERT(address >= cursor->start && address < cursor->end);
    unsigned level = cursor_seek(cursor, address, 0);

    if (level == 0 || pte_is_absent(cursor_entry(cursor))) {
        return MM_ENOENT;
    }
    return cursor_split(cursor);
}

/* Does part @index of @table follow from its first, as a split would do? */
static bool is_alike(const pte_t *table, unsigned level, unsigned index)
{
    uint64_t pages = (uint64_t)index << (pte_shift(level) - PAGE_SHIFT);
    /* The CPU sets A and D where and when it likes. */
    uint64_t ignored = pte_is_present(table[0]) ? PTE_A | PTE_D : 0;
    uint64_t first = table[0].v & ~ignored;
    uint64_t other = table[index].v & ~ignored;

    switch (pte_state(table[0], level)) {
    case PTE_PRESENT:
        return other == first + (pages << PAGE_SHIFT);
    case PTE_PARKED:
        return other == first - (pages << PAGE_SHIFT); /* inverted */
    case PTE_PROMISE:
        if (pte_promise(table[0]) == PT_OBJECT) {
            return other == first - (pages << PAGE_SHIFT);
        }
        return other == first;
    default:
        return false;
    }
}

/* The entry of @level that says what the whole @table says, or absent. */
static pte_t whole_of(const pte_t *table, unsigned level)
{
    unsigned part = level - 1;
    enum pte_state state = pte_state(table[0], part);
    pfn_t pfn = pte_pfn(table[0], part);
    struct pt_attr attr = pte_attr(table[0], part);

    for (unsigned i = 1; i < PTE_TABLE_COUNT; i++) {
        if (!is_alike(table, part, i)) {
            return (pte_t){0};
        }
    }
    if (state == PTE_PROMISE) {
        return table[0];
    }
    if ((state != PTE_PRESENT && state != PTE_PARKED) ||
        level > pt_max_leaf() ||
        !is_aligned(pfn_to_phys(pfn).v, pte_span(level))) {
        return (pte_t){0};
    }
    return state == PTE_PARKED
               ? pte_make_parked(pfn, attr)
               : cursor_for_cpu(pte_make_leaf(level, pfn, attr));
}

/* May the entries of @table become @whole, records included? */
static bool join_frames(pfn_t table, pte_t whole, unsigned level)
{
    if (pte_is_absent(whole) || record_of(table)->owner == TABLE_PINNED) {
        return false;
    }
    return !cursor_owns_frames(whole, level) ||
           frame_join(pte_pfn(whole, level), pte_shift(level) - PAGE_SHIFT) ==
               MM_OK;
}

enum mm_status pt_merge(struct pt_cursor *cursor, vaddr_t address,
                        unsigned level)
{
    vaddr_t start = align_down(address, pte_span(level));

    ASSERT(level > 0 && level < pt_features.levels);
    if (start < cursor->start || start >= cursor->end ||
        pte_span(level) > cursor->end - start) {
        return MM_EINVAL;
    }
    unsigned reached = cursor_seek(cursor, start, level);
    pte_t entry = cursor_entry(cursor);
    if (reached != level || !pte_is_table(entry, level)) {
        return MM_ENOENT;
    }
    pfn_t table = pte_table(entry);
    pte_t whole = whole_of(cursor_table(table), level);
    if (!join_frames(table, whole, level)) {
        return MM_EINVAL;
    }
    place(cursor, whole);
    if (pte_is_present(whole)) {
        tlb_force_whole(&cursor->pt->tlb);
        tlb_batch_range(cursor->batch, start, start + pte_span(level),
                        level - 1);
    }
    return MM_OK;
}

/* The descent of pt_lookup(): no table on its way may be released. */
static bool descend(pfn_t table, vaddr_t address, pfn_t *out_pfn,
                    struct pt_attr *out_attr)
{
    for (unsigned level = pt_features.levels - 1;; level--) {
        const pte_t *slot = &cursor_table(table)[pte_index(address, level)];
        /* Pairs with cursor_swap(): what the entry points to is complete. */
        pte_t entry = {atomic_load_explicit((const _Atomic uint64_t *)&slot->v,
                                            memory_order_acquire)};

        if (!pte_is_present(entry)) {
            return false;
        }
        if (pte_is_leaf(entry, level)) {
            uint64_t inside = address & (pte_span(level) - 1);

            *out_pfn = pfn_add(pte_pfn(entry, level), inside >> PAGE_SHIFT);
            *out_attr = pte_attr(entry, level);
            return true;
        }
        table = pte_table(entry);
    }
}

bool pt_lookup(struct pt *pt, vaddr_t address, pfn_t *out_pfn,
               struct pt_attr *out_attr)
{
    if (!pt_is_canonical(address)) {
        return false;
    }
    bool is_visit = tlb_begin_visit(&pt->tlb);
    bool is_present = descend(pt->root, address, out_pfn, out_attr);
    tlb_end_visit(&pt->tlb, is_visit);
    return is_present;
}
