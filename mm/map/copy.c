/* SPDX-License-Identifier: MIT */
/* copy: what one range says, said elsewhere: by two spaces, or moved. */
/*
 * Idea      Tables are copied, not frames. One pass gives each owned frame a
 *           second holder and takes the right to write from both; the batch of
 *           the space that is copied makes the only flush.
 *           Moving is a copy that leaves gaps. All tables it needs are made,
 *           and all entries cut that cannot keep their size, before the first
 *           entry moves.
 *
 * Locking   A copy has the tables of two spaces locked. Nobody waits for those
 *           of the second, which nobody else has yet.
 */
#include <mm/pt.h>

#include <mm/frame.h>
#include "base/check.h"
#include "map/cursor.h"

/* --- copying -------------------------------------------------------------- */

/* From here on frame_ref() looks whether one holder more is one too many. */
#define MANY_HOLDERS (UINT32_MAX - MM_MAX_CPUS)

/*
 * One holder more for the frame at @pfn: frame_ref(), if that is not a block
 * and all is well. Return: was it?
 */
static inline bool hold_frame(pfn_t pfn)
{
    struct frame_record *record = record_of(pfn);
    uint32_t refs = atomic_load_explicit(&record->refs, memory_order_relaxed);

    if (record->type == FRAME_NONE || refs - 1 >= MANY_HOLDERS - 1) {
        return false;
    }
    /* Relaxed: the table that is locked holds it already. */
    atomic_fetch_add_explicit(&record->refs, 1, memory_order_relaxed);
    return true;
}

/* The same for the block that @pfn is a frame of. */
static inline void hold_block(pfn_t pfn)
{
    if (!hold_frame(pfn)) {
        frame_ref(frame_head(pfn));
    }
}

/*
 * Take the right to write from the entry at @slot, which was @entry: what is
 * private is written by nobody as long as two spaces hold it. What it is then.
 * @shared_tags: bits of the tag of what is not private.
 */
static inline pte_t share_entry(pte_t *slot, pte_t entry, uint64_t shared_tags)
{
    /* Whoever allows writing later looks at the holders. */
    while ((entry.v & PTE_RW) != 0 && (entry.v & shared_tags) == 0) {
        pte_t shared = {(entry.v & ~PTE_RW) | PTE_COW};

        if (slot_replace(slot, entry, shared)) {
            return shared;
        }
        entry = slot_entry(slot);
    }
    return entry;
}

/* Two tables, what one says and where it goes, from some entry on. */
struct pair {
    pte_t *from;
    pte_t *to;
    uint64_t shared_tags;
    unsigned copied;
    bool is_taken; /* something stands there already */
};

/*
 * Copy entry @i, if it is not a gap: one more holder for what it owns.
 * Return: may a CPU have cached a right to write that it must not use? Also
 * where there is none: who took it away may not have flushed yet.
 */
static inline bool copy_entry(struct pair *pair, unsigned i, unsigned level)
{
    pte_t entry = slot_entry(&pair->from[i]);
    pte_t shared = entry;

    if (pte_is_absent(entry)) {
        return false;
    }
    if (!pte_is_absent(slot_entry(&pair->to[i]))) {
        pair->is_taken = true;
        return false;
    }
    if (pte_owns_frames(entry, level)) {
        hold_block(pte_pfn(entry, level));
        shared = share_entry(&pair->from[i], entry, pair->shared_tags);
    }
    slot_store(&pair->to[i], shared);
    pair->copied++;
    return pte_is_present(entry) && (entry.v & PTE_OWN) != 0 &&
           (entry.v & pair->shared_tags) == 0;
}

/*
 * Copy the private frames that begin @count small entries from @i on, which is
 * what a fork copies most. Return: where they end. All may be cached.
 */
static inline unsigned copy_private(struct pair *pair, unsigned i,
                                    unsigned count)
{
    uint64_t looked_at = PTE_P | PTE_OWN | pair->shared_tags;
    unsigned first = i;

    for (; i < count; i++) {
        pte_t entry = slot_entry(&pair->from[i]);

        if ((entry.v & looked_at) != (PTE_P | PTE_OWN) ||
            !pte_is_absent(slot_entry(&pair->to[i])) ||
            !hold_frame(pte_table(entry))) {
            break;
        }
        if (MM_LIKELY((entry.v & PTE_RW) != 0)) { /* so it is not PTE_COW */
            slot_turn(&pair->from[i], PTE_RW | PTE_COW);
        }
        slot_store(&pair->to[i], slot_entry(&pair->from[i]));
    }
    pair->copied += i - first;
    return i;
}

/*
 * Copy entries from where @from stands on to @end, in its table.
 * @out_count: how many.
 */
static enum mm_status copy_run(struct pt_cursor *from, struct pt_cursor *to,
                               vaddr_t end, unsigned *out_count)
{
    unsigned count = cursor_run(from, end);
    vaddr_t at = align_down(from->at, pte_span(from->level));
    enum mm_status status = cursor_grow(to, at, from->level);
    if (status != MM_OK) {
        return status;
    }
    struct pair pair = {.from = from->slot,
                        .to = to->slot,
                        .shared_tags = pte_tag_bits(from->pt->shared_tags)};
    unsigned level = from->level;

    for (unsigned i = 0; i < count && !pair.is_taken; i++) {
        unsigned first = i;

        if (level == 0) {
            i = copy_private(&pair, i, count);
        }
        while (i < count && copy_entry(&pair, i, level)) {
            i++;
        }
        cursor_forget(from, first, i);
    }
    cursor_count(to, pair.copied);
    *out_count = count;
    return pair.is_taken ? MM_EEXIST : MM_OK;
}

/* How many gaps the run to @end, where the cursor stands, begins with. */
static unsigned count_gaps(const struct pt_cursor *cursor, vaddr_t end)
{
    unsigned count = cursor_run(cursor, end);
    unsigned gaps = 0;

    while (gaps < count && pte_is_absent(slot_entry(&cursor->slot[gaps]))) {
        gaps++;
    }
    return gaps;
}

/* Entries do not reach over the ends of the range: the first half. */
static enum mm_status copy_range(struct pt_cursor *from, struct pt_cursor *to,
                                 vaddr_t start, uint64_t bytes)
{
    enum mm_status status = MM_OK;

    for (vaddr_t at = start; status == MM_OK && at - start < bytes;) {
        cursor_seek_page(from, at);
        unsigned count = count_gaps(from, start + bytes);

        if (count == 0) { /* gaps need no table */
            status = copy_run(from, to, start + bytes, &count);
        }
        at = cursor_after(from, count);
    }
    return status;
}

enum mm_status pt_copy(struct pt_cursor *cursor, struct pt *to, vaddr_t start,
                       uint64_t bytes)
{
    struct tlb_batch batch; /* stays empty: nobody has cached anything of @to */
    struct pt_cursor copy;

    if (!cursor_has(cursor, start, bytes) || to == cursor->pt) {
        return MM_EINVAL;
    }
    enum mm_status status = cursor_cut_ends(cursor, start, bytes);
    if (status != MM_OK) {
        return status;
    }
    status = cursor_open_beside(to, start, start + bytes, &batch, &copy);
    if (status != MM_OK) {
        return status;
    }
    status = copy_range(cursor, &copy, start, bytes);
    cursor_close_beside(&copy);
    return status;
}

/* --- moving --------------------------------------------------------------- */

struct move {
    vaddr_t from;
    vaddr_t to;
    uint64_t bytes;
};

/* Split the entry of @from at @offset until it can stand at @to; its level. */
static enum mm_status fit_entry(struct pt_cursor *cursor,
                                const struct move *move, uint64_t offset,
                                unsigned *out_level)
{
    enum mm_status status = MM_OK;
    unsigned level = cursor_seek(cursor, move->from + offset, 0);

    while (status == MM_OK && !pte_is_absent(cursor_entry(cursor)) &&
           !is_aligned(move->to + offset, pte_span(level))) {
        status = cursor_split(cursor);
        level = cursor_seek(cursor, move->from + offset, 0);
    }
    *out_level = level;
    return status;
}

/* The first half: room for each entry, in tables of its level. */
static enum mm_status prepare_move(struct pt_cursor *cursor,
                                   const struct move *move)
{
    enum mm_status status = cursor_cut_ends(cursor, move->from, move->bytes);
    uint64_t offset = 0;

    if (status == MM_OK) {
        status = cursor_cut_ends(cursor, move->to, move->bytes);
    }
    while (status == MM_OK && offset < move->bytes) {
        unsigned level;

        status = fit_entry(cursor, move, offset, &level);
        bool is_gap = pte_is_absent(cursor_entry(cursor));
        uint64_t next = cursor_next(cursor) - move->from;

        if (status == MM_OK && !is_gap) {
            status = cursor_grow(cursor, move->to + offset, level);
        }
        offset = next;
    }
    return status;
}

/* Nothing is said in the range any more; tables stay. No frames are there. */
static void clear_promises(struct pt_cursor *cursor, vaddr_t start,
                           uint64_t bytes)
{
    for (vaddr_t at = start; at - start < bytes; at = cursor_next(cursor)) {
        cursor_seek(cursor, at, 0);
        cursor_swap(cursor, (pte_t){0});
    }
}

/* Take the entry where the cursor stands away, and have it forgotten. */
static pte_t take_entry(struct pt_cursor *cursor)
{
    pte_t entry = cursor_swap(cursor, (pte_t){0});

    if (pte_has_frames(entry, cursor->level)) {
        tlb_batch_range(cursor->batch, cursor->at, cursor_next(cursor),
                        cursor->level);
    }
    return entry;
}

/* The second half. Return: has something moved that may be cached? */
static bool move_entries(struct pt_cursor *cursor, const struct move *move)
{
    bool is_cached = false;
    uint64_t offset = 0;

    while (offset < move->bytes) {
        unsigned level = cursor_seek(cursor, move->from + offset, 0);
        uint64_t next = cursor_next(cursor) - move->from;

        if (!pte_is_absent(cursor_entry(cursor))) {
            pte_t entry = take_entry(cursor);
            unsigned reached = cursor_seek(cursor, move->to + offset, level);

            ASSERT(reached == level);
            cursor_place(cursor, entry);
            is_cached = is_cached || pte_has_frames(entry, level);
        }
        offset = next;
    }
    return is_cached;
}

enum mm_status pt_move(struct pt_cursor *cursor, vaddr_t from, vaddr_t to,
                       uint64_t bytes)
{
    struct move move = {from, to, bytes};

    if (cursor->pt->is_kernel || !cursor_has(cursor, from, bytes) ||
        !cursor_has(cursor, to, bytes) ||
        (from < to ? to - from : from - to) < bytes) {
        return MM_EINVAL;
    }
    if (!cursor_is_vacant(cursor, to, bytes)) {
        return MM_EEXIST;
    }
    enum mm_status status = prepare_move(cursor, &move);
    if (status == MM_OK) {
        clear_promises(cursor, to, bytes);
        /*
         * Another CPU may unmap what arrives at @to and let go of its frames
         * before this batch is committed: its flush must forget @from, too
         * (CVE-2018-18281).
         */
        if (move_entries(cursor, &move)) {
            tlb_force_whole(&cursor->pt->tlb);
        }
        cursor_prune_range(cursor, from, bytes);
    }
    cursor_prune_range(cursor, to, bytes);
    return status;
}
