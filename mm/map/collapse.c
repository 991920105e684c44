/* SPDX-License-Identifier: MIT */
/* collapse: 512 small pages become one large, by a copy. */
/*
 * Idea      Nobody may write to a page between its copy and the moment the
 *           large leaf stands. So the pages become read-only first, as if they
 *           were shared: a flush, and from then on a writer faults and copies
 *           or takes its page back, which changes the entry. They are copied
 *           with nothing locked, from frames that have a second holder. Then
 *           the entries are compared with what they were; if one has changed
 *           the writer has won, and all stays small. The pages stay read-only
 *           then: a copy of the space may share them by now. The first write
 *           to each takes it back.
 *
 * Cost      A frame for the snapshot, 2 MiB copied, two flushes. Interrupts
 *           are off for 512 entries at a time.
 */
#include <mm/pt.h>

#include <mm/frame.h>
#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"
#include "map/cursor.h"

#define BLOCK_ORDER MM_TABLE_BITS
#define BLOCK_BYTES pte_span(1)

struct collapse {
    struct pt *pt;
    vaddr_t address;
    pfn_t block;      /* where the pages are copied to */
    pfn_t scratch;    /* one frame, for: */
    pte_t *before;    /* the entries, once nobody writes */
    bool is_writable; /* as the pages were */
    struct tlb_batch batch;
    struct pt_cursor cursor;
};

/* Bits in which pages may differ, and still become one. */
#define DIFFER_MASK                                                            \
    (PTE_FRAME | PTE_AD | PTE_KIND_MASK | PTE_P | PTE_OWN | PTE_NONE |         \
     PTE_PAT_OTHER)

/* What all pages must have in common. Without NX leaves have no XD. */
static uint64_t common_bits(pte_t entry)
{
    return entry.v & ~(DIFFER_MASK | (pt_features.has_nx ? 0 : PTE_XD));
}

static bool is_zero_promise(pte_t entry)
{
    return pte_state(entry, 0) == PTE_PROMISE &&
           pte_promise(entry) == PT_ZERO && (entry.v & PTE_NONE) == 0;
}

/* A page of the mapping alone; memory types beyond WB have a meaning. */
static bool is_private_page(pte_t entry)
{
    return pte_is_present(entry) && pte_owns_frames(entry, 0) &&
           pte_attr(entry, 0).memory == PT_WB && (entry.v & PTE_COW) == 0 &&
           record_of(pte_pfn(entry, 0))->type != FRAME_NONE &&
           frame_is_sole(pte_pfn(entry, 0));
}

/* The table of the block, where the cursor then stands; NULL: none. */
static pte_t *seek_table(struct pt_cursor *cursor, vaddr_t address)
{
    if (cursor_seek(cursor, address, 1) != 1 || !cursor_is_at_tree(cursor)) {
        return NULL;
    }
    return table_at(pte_table(cursor_entry(cursor)));
}

/* What there is to collapse. Return: false if that cannot be one page. */
static bool look(const struct pt *pt, const pte_t *table,
                 struct pt_collapse *found)
{
    uint64_t first = common_bits(slot_entry(&table[0]));

    if (first & pte_tag_bits(pt->shared_tags)) {
        return false; /* others write to its frames, by other entries */
    }
    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++) {
        pte_t entry = slot_entry(&table[i]);

        if (common_bits(entry) != first) {
            return false;
        }
        if (is_zero_promise(entry)) {
            found->promised++;
        } else if (is_private_page(entry)) {
            found->present++;
            found->accessed += (entry.v & PTE_A) != 0 ? 1 : 0;
        } else {
            return false;
        }
    }
    return found->present > 0;
}

/* --- first visit: nobody writes any more ---------------------------------- */

/* Keep the page at @slot as it is, and its frame from release. */
static pte_t freeze_entry(pte_t *slot)
{
    pte_t entry = slot_entry(slot);
    pte_t frozen = entry;

    if (!pte_is_present(entry)) {
        return entry;
    }
    frame_ref(pte_pfn(entry, 0));
    while ((entry.v & PTE_RW) != 0) {
        frozen.v = (entry.v & ~PTE_RW) | PTE_COW;
        if (slot_replace(slot, entry, frozen)) {
            break;
        }
        entry = slot_entry(slot);
        frozen = entry;
    }
    return frozen;
}

static void freeze(struct collapse *work, pte_t *table)
{
    vaddr_t end = work->address + BLOCK_BYTES;

    work->is_writable = (slot_entry(&table[0]).v & PTE_RW) != 0;
    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++) {
        work->before[i] = freeze_entry(&table[i]);
    }
    tlb_batch_range(work->cursor.batch, work->address, end, 0);
}

static enum mm_status enter(struct collapse *work)
{
    return pt_open(work->pt, work->address, work->address + BLOCK_BYTES,
                   &work->batch, &work->cursor);
}

static void leave(struct collapse *work)
{
    pt_close(&work->cursor);
    tlb_commit(&work->batch);
}

/*
 * Ask whether it is worth it, and do it if the frames lie in a row.
 * Return: as pt_collapse(); MM_EBUSY if a copy is needed.
 */
static enum mm_status try_in_place(struct collapse *work, pt_collapse_fn wanted,
                                   void *context)
{
    struct pt_collapse found = {.address = work->address};
    enum mm_status status = MM_EBUSY;

    if (enter(work) != MM_OK) {
        return MM_EINVAL;
    }
    pte_t *table = seek_table(&work->cursor, work->address);
    if (table == NULL || !look(work->pt, table, &found)) {
        status = MM_ENOENT;
    } else if (!pt_may_resize(pte_attr(slot_entry(&table[0]), 0).flags) ||
               !wanted(context, &found)) {
        status = MM_ERANGE;
    } else if (pt_merge(&work->cursor, work->address, 1) == MM_OK) {
        status = MM_OK;
    }
    leave(work);
    return status;
}

/* Have nobody write to the pages. MM_EBUSY: they are others by now. */
static enum mm_status freeze_all(struct collapse *work)
{
    struct pt_collapse found = {.address = work->address};

    if (enter(work) != MM_OK) {
        return MM_EINVAL;
    }
    pte_t *table = seek_table(&work->cursor, work->address);
    bool is_there = table != NULL && look(work->pt, table, &found);
    if (is_there) {
        freeze(work, table);
    }
    leave(work);
    return is_there ? MM_OK : MM_EBUSY;
}

/* --- between: the copy ---------------------------------------------------- */

static void copy_pages(const struct collapse *work)
{
    char *to = phys_to_virt(pfn_to_phys(work->block));

    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++, to += PAGE_BYTES) {
        pte_t entry = work->before[i];

        if (pte_is_present(entry)) {
            memcpy(to, phys_to_virt(pfn_to_phys(pte_pfn(entry, 0))),
                   PAGE_BYTES);
        } else {
            memset(to, 0, PAGE_BYTES);
        }
    }
}

/* --- second visit: one page, or as many as there were --------------------- */

/* Does @entry say what it did? A CPU may have used the page since. */
static bool is_same(pte_t entry, pte_t before)
{
    uint64_t used = pte_is_present(before) ? PTE_AD : 0;

    return (entry.v | used) == (before.v | used);
}

static bool is_unchanged(const struct collapse *work, const pte_t *table)
{
    for (unsigned i = 0; table != NULL && i < PTE_TABLE_COUNT; i++) {
        if (!is_same(slot_entry(&table[i]), work->before[i])) {
            return false;
        }
    }
    return table != NULL;
}

/* Let go of the frames that freeze() held. */
static void thaw_frames(const struct collapse *work)
{
    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++) {
        if (pte_is_present(work->before[i])) {
            frame_unref(pte_pfn(work->before[i], 0));
        }
    }
}

/* The large leaf in place of @table, whose frames go with the batch. */
static void finish(struct collapse *work)
{
    struct pt_cursor *cursor = &work->cursor;
    pte_t first = work->before[0];
    struct pt_attr attr = pte_attr(first, 0);
    unsigned flags = attr.flags & ~(unsigned)PT_COW;

    flags |= PT_OWNED | (work->is_writable ? PT_WRITE : 0);
    attr.flags = (uint8_t)flags;
    cursor_replace_tree(cursor,
                        cursor_for_cpu(pte_make_leaf(1, work->block, attr)));
    tlb_force_whole(&work->pt->tlb);
    tlb_batch_range(cursor->batch, work->address, work->address + BLOCK_BYTES,
                    0);
}

/* One large leaf if nothing has changed. */
static enum mm_status conclude(struct collapse *work)
{
    if (enter(work) != MM_OK) {
        return MM_EINVAL;
    }
    const pte_t *table = seek_table(&work->cursor, work->address);
    bool is_same = is_unchanged(work, table);
    if (is_same) {
        finish(work);
    }
    leave(work);
    return is_same ? MM_OK : MM_EBUSY;
}

static enum mm_status copy_and_replace(struct collapse *work)
{
    enum mm_status status = freeze_all(work);

    if (status == MM_OK) {
        copy_pages(work);
        status = conclude(work);
        thaw_frames(work);
    }
    return status;
}

enum mm_status pt_collapse(struct pt *pt, vaddr_t address,
                           pt_collapse_fn wanted, void *context)
{
    struct collapse work = {.pt = pt, .address = address};

    if (pt->is_kernel || !is_aligned(address, BLOCK_BYTES)) {
        return MM_EINVAL;
    }
    enum mm_status status = try_in_place(&work, wanted, context);
    if (status != MM_EBUSY) {
        return status;
    }
    work.scratch = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    if (pfn_is_none(work.scratch)) {
        return MM_ENOMEM;
    }
    work.before = phys_to_virt(pfn_to_phys(work.scratch));
    work.block = frame_alloc(BLOCK_ORDER, FRAME_USER, FRAME_ANY);
    status = pfn_is_none(work.block) ? MM_ENOMEM : copy_and_replace(&work);
    if (status != MM_OK && !pfn_is_none(work.block)) {
        frame_free(work.block, BLOCK_ORDER); /* nothing has ever led to it */
    }
    frame_free(work.scratch, 0);
    return status;
}
