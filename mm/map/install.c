/* SPDX-License-Identifier: MIT */
/* install: whole sets of tables: built at start, adopted, made, taken down. */
/*
 * Idea      Before the frame allocator stands there are no records, so a
 *           cursor cannot work. pt_install() needs nothing but zeroed frames
 *           from a function: start-up builds the final tables with it, and
 *           the pages of the record array are mapped by it for ever, which
 *           is why it must not need the record of a table itself.
 *           pt_adopt() then makes the tables cursor-ready.
 *
 * Locking   None. Entries are stored into gaps by compare-and-swap; of two
 *           CPUs that make the same table one gives its own back. Readers may
 *           walk meanwhile, because a table is complete before it is hooked.
 */
#include <mm/pt.h>

#include <mm/frame.h>
#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"
#include "map/cursor.h"
#include "map/scan.h"

static _Atomic uint64_t *slot_in(pfn_t table, vaddr_t address, unsigned level)
{
    return (_Atomic uint64_t *)&table_at(table)[pte_index(address, level)].v;
}

/*
 * The table below the entry for @address in @table of @level, made if the
 * entry is absent. PFN_NONE: no memory, or a leaf is in the way
 * (@out_status says which).
 */
static pfn_t hook_table(pfn_t table, vaddr_t address, unsigned level,
                        pt_table_fn new_table, void *context,
                        enum mm_status *out_status)
{
    _Atomic uint64_t *slot = slot_in(table, address, level);
    pte_t entry = {atomic_load_explicit(slot, memory_order_acquire)};

    if (pte_is_absent(entry)) {
        pfn_t below = new_table(context);
        if (pfn_is_none(below)) {
            *out_status = MM_ENOMEM;
            return PFN_NONE;
        }
        pte_t made = pte_make_table(below, false);
        /* Publishes the zeroed table; entry is reloaded if we lost. */
        if (atomic_compare_exchange_strong_explicit(slot, &entry.v, made.v,
                                                    memory_order_acq_rel,
                                                    memory_order_acquire)) {
            entry = made;
        } else {
            frame_free_metadata(below);
        }
    }
    if (!pte_is_table(entry, level)) {
        *out_status = MM_EEXIST;
        return PFN_NONE;
    }
    return pte_pfn(entry, level);
}

/* The table of @level on the way to @address. */
static pfn_t reach_table(pfn_t root, vaddr_t address, unsigned level,
                         pt_table_fn new_table, void *context,
                         enum mm_status *out_status)
{
    pfn_t table = root;

    for (unsigned at = pt_features.levels - 1; at > level; at--) {
        table = hook_table(table, address, at, new_table, context, out_status);
        if (pfn_is_none(table)) {
            break;
        }
    }
    return table;
}

enum mm_status pt_install_table(pfn_t root, vaddr_t address, unsigned level,
                                pt_table_fn table, void *context)
{
    enum mm_status status = MM_OK;
    pfn_t reached = reach_table(root, address, level, table, context, &status);

    return pfn_is_none(reached) ? status : MM_OK;
}

/* The largest leaf that may stand for the first of @bytes at @address. */
static unsigned leaf_level(vaddr_t address, paddr_t physical, uint64_t bytes)
{
    unsigned level = pt_max_leaf();

    while (level > 0 && (!is_aligned(address | physical.v, pte_span(level)) ||
                         bytes < pte_span(level))) {
        level--;
    }
    return level;
}

/*
 * Store @count leaves of @level from @slot on, the first being @leaf.
 * Return: how many; fewer if an entry is taken.
 */
static unsigned fill(_Atomic uint64_t *slot, unsigned count, pte_t leaf,
                     unsigned level)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t none = 0;
        /* Release: a page of records is zero before anybody finds it. */
        if (!atomic_compare_exchange_strong_explicit(&slot[i], &none, leaf.v,
                                                     memory_order_release,
                                                     memory_order_relaxed)) {
            return i;
        }
        leaf.v += pte_span(level); /* the next frames */
    }
    return count;
}

enum mm_status pt_install(pfn_t root, vaddr_t start, pfn_t pfn, uint64_t bytes,
                          struct pt_attr attr, pt_table_fn table, void *context)
{
    enum mm_status status = MM_OK;
    uint64_t offset = 0;

    ASSERT(is_aligned(start | bytes, PAGE_BYTES));
    while (offset < bytes) {
        vaddr_t address = start + offset;
        pfn_t frame = pfn_add(pfn, offset >> PAGE_SHIFT);
        unsigned level =
            leaf_level(address, pfn_to_phys(frame), bytes - offset);
        pfn_t at = reach_table(root, address, level, table, context, &status);

        if (pfn_is_none(at)) {
            return status;
        }
        /* As many as the table has room for; then the level may change. */
        unsigned count =
            (unsigned)min_u64(PTE_TABLE_COUNT - pte_index(address, level),
                              (bytes - offset) >> pte_shift(level));
        pte_t leaf = cursor_for_cpu(pte_make_leaf(level, frame, attr));
        if (fill(slot_in(at, address, level), count, leaf, level) < count) {
            return MM_EEXIST;
        }
        offset += (uint64_t)count << pte_shift(level);
    }
    return MM_OK;
}

/* Give @table, which start-up made, the record a cursor expects. */
static enum mm_status adopt_table(pfn_t table, unsigned entries)
{
    enum mm_status status = record_back_block(table);

    if (status == MM_OK) {
        struct frame_record *record = record_of(table);

        record->type = FRAME_TABLE;
        record->order = RECORD_TAIL; /* no block that could be given back */
        atomic_store_explicit(&record->refs, 1, memory_order_relaxed);
        table_init_held(table, entries | TABLE_PINNED);
        table_unlock(table);
    }
    return status;
}

/* --- spaces --------------------------------------------------------------- */

static struct lock spaces_lock = LOCK_INIT(LOCK_RANK_SPACES);
static struct pt *spaces; /* (L) the latest one */

enum mm_status pt_adopt(struct pt *pt, pfn_t root, bool is_kernel)
{
    unsigned top = pt_features.levels - 1;
    enum mm_status status = MM_OK;
    enum scan_event event;
    struct scan scan;
    uint64_t tables = 0;

    lock_init(&pt->order, LOCK_RANK_TABLES);
    pt->root = root;
    pt->is_kernel = is_kernel;
    pt->shared_tags = 0;
    if (is_kernel) {
        spaces = NULL; /* start-up: there were none */
    }
    scan_init(&scan, root, top, 0, 0);
    scan_no_leaves(&scan);
    while (status == MM_OK && (event = scan_next(&scan)) != SCAN_END) {
        if (event == SCAN_ENTRY && pte_is_table(scan.entry, scan.at) &&
            scan_holds_records(&scan)) {
            scan_skip(&scan);
        } else if (event == SCAN_LEAVE) {
            status = adopt_table(scan.owner, scan.entries);
            tables++;
        }
    }
    atomic_init(&pt->tables, tables);
    return status;
}

struct pt *pt_next(const struct pt *pt)
{
    return pt == NULL ? spaces : pt->next;
}

static void enlist(struct pt *pt)
{
    uint64_t irq = lock_acquire(&spaces_lock);

    pt->previous = NULL;
    pt->next = spaces;
    if (spaces != NULL) {
        spaces->previous = pt;
    }
    spaces = pt;
    lock_release(&spaces_lock, irq);
}

static void delist(struct pt *pt)
{
    uint64_t irq = lock_acquire(&spaces_lock);

    if (pt->next != NULL) {
        pt->next->previous = pt->previous;
    }
    if (pt->previous != NULL) {
        pt->previous->next = pt->next;
    } else {
        spaces = pt->next;
    }
    lock_release(&spaces_lock, irq);
}

enum mm_status pt_init(struct pt *pt)
{
    pfn_t root = frame_alloc(0, FRAME_TABLE, FRAME_ZEROED);

    if (pfn_is_none(root)) {
        return MM_ENOMEM;
    }
    /* Fixed at start-up, so a copy stays right: see pt_open(). */
    memcpy(table_at(root) + PTE_TABLE_COUNT / 2,
           table_at(pt_kernel.root) + PTE_TABLE_COUNT / 2,
           PTE_TABLE_COUNT / 2 * sizeof(pte_t));
    table_init_held(root, TABLE_PINNED);
    table_unlock(root);
    lock_init(&pt->order, LOCK_RANK_TABLES);
    pt->root = root;
    pt->is_kernel = false;
    pt->shared_tags = 0;
    tlb_space_init(&pt->tlb, pfn_to_phys(root), false);
    atomic_init(&pt->tables, 1);
    enlist(pt);
    return MM_OK;
}

void pt_fini(struct pt *pt)
{
    vaddr_t end = UINT64_C(1) << (pte_shift(pt_features.levels) - 1);
    vaddr_t at = PAGE_BYTES;

    delist(pt);
    tlb_space_fini(&pt->tlb);
    while (at < end) {
        struct tlb_batch batch;
        struct pt_cursor cursor;

        if (pt_open(pt, at, end, &batch, &cursor) != MM_OK ||
            pt_unmap(&cursor, at, end - at, &at) != MM_OK) {
            port_panic("space with root 0x%lx cannot be taken down at 0x%lx",
                       pfn_to_phys(pt->root).v, at);
        }
        pt_close(&cursor);
        tlb_commit(&batch);
    }
    ASSERT(atomic_load_explicit(&pt->tables, memory_order_relaxed) == 1);
    table_set_marks(pt->root, 0);
    frame_unref(pt->root);
    pt->root = PFN_NONE;
}
