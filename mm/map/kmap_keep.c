/* SPDX-License-Identifier: MIT */
/* kmap_keep: small blocks that were freed, kept as they stand. */
/*
 * Owns      what each CPU keeps of small blocks.
 *
 * Idea      The quantum caches of [Bonwick01 4.4 "Quantum Caching"], of blocks
 *           instead of addresses: segment, descriptor and tables stay, so that
 *           a block is there again by one store a page, and nobody is asked.
 *
 * Picture   in use    [guard][leaf  ][leaf  ][guard]
 *           stocked   [guard][parked][parked][guard]   keeps its frames
 *           stale     [guard][guard ][guard ][guard]   until the next flush
 *           empty     [guard][guard ][guard ][guard]
 *
 *           A freed block with frames is stocked. Nothing is flushed: what is
 *           still cached of it is what the same pages say when it is handed
 *           out again, and nobody else gets the frames. A window that was
 *           closed is stale. When both have more than `keep` pages, one flush
 *           is made for all of them; then the frames are let go of (Law 2),
 *           and all are empty. (Linux calls the idea lazy purging.) It is made
 *           sooner when memory is short: kmap_shrink.c.
 *
 *           The guards of a small block say which it is. So kmap_free() finds
 *           it by a descent, without a lock and without the arena.
 *
 * Invariants
 *   I3  a small block lies in one table of level 0, and each of its pages says
 *       something at any time: so the table stays, and so does its count.
 *   I4  what is kept hangs on its segment and has no handle.
 *   I5  `waiting` is the number of pages that are stocked or stale, `empties`
 *       that of empty blocks.
 *
 * Locking   What a CPU keeps is taken, with interrupts off, by that CPU or by
 *           who purges; for so short a time that the other one turns and takes
 *           nothing meanwhile: innermost, of any rank. By I3 whoever has a
 *           block alone writes the entries between its guards, without the
 *           lock of the table. A block is claimed by clearing its handle: of
 *           two who free it one wins.
 *
 * Cost      O(pages), a few instructions each. Kept at most, a CPU: `keep`
 *           pages and EMPTIES_MAX blocks that have none.
 *
 * Limits    Pages that were freed can be touched until the next flush where
 *           they are cached. Debug builds keep nothing: they flush at once.
 */
#include "map/kmap_impl.h"

#include "map/cursor.h"

/* 256 KiB a CPU: 4 blocks of the largest size, 64 windows of a page. */
#define KEEP_PAGES (MM_DEBUG ? 0u : 64u)

static struct ready ready_of[MM_MAX_CPUS];
struct ready *kmap_ready = ready_of;
unsigned kmap_keep_pages;
struct kmap_root kmap_root;
struct kmap_entries kmap_entries;

/* --- start-up ------------------------------------------------------------- */

static uint64_t leaf_of(unsigned flags, enum pt_memory memory)
{
    struct pt_attr attr = pt_attr(flags);

    attr.memory = (uint8_t)memory;
    return cursor_for_cpu(pte_make_leaf(0, pfn_of(0), attr)).v;
}

static struct pt_attr guard_attr(unsigned flags)
{
    struct pt_attr attr = pt_attr(flags);

    attr.tag = GUARD_TAG;
    return attr;
}

static void make_entries(void)
{
    static const enum pt_memory type[] = {PT_WB, PT_WC, PT_UC, PT_WP, PT_WT};
    struct pte_rights none = pte_rights(pt_attr(PT_NONE));
    uint64_t leaf = leaf_of(BLOCK_FLAGS, PT_WB);

    kmap_entries.leaf = leaf;
    kmap_entries.flip = leaf ^ pte_with_rights((pte_t){leaf}, 0, &none).v;
    kmap_entries.guard =
        pte_make_promise(PT_GUARD, guard_attr(PT_GLOBAL), 0).v & ~PTE_FRAME;
    for (unsigned i = 0; i < sizeof(type) / sizeof(type[0]); i++) {
        kmap_entries.device[type[i]] = leaf_of(WINDOW_FLAGS, type[i]);
    }
}

static void find_root(vaddr_t start, vaddr_t end)
{
    pte_t table = {pt_kernel.tlb.root.v};

    kmap_root = (struct kmap_root){start, end - start, 0, {0}};
    if (((start ^ (end - 1)) >> pte_shift(ROOT_LEVEL + 1)) != 0) {
        return; /* then no block is small */
    }
    for (unsigned level = pt_features.levels - 1; level > ROOT_LEVEL; level--) {
        table = table_look(table, start, level);
        ASSERT(pte_is_table(table, level)); /* else pt_open() refuses */
    }
    kmap_root.table = table;
    kmap_root.small_bytes = end - start;
}

void ready_init(vaddr_t start, vaddr_t end)
{
    for (unsigned cpu = 0; cpu < MM_MAX_CPUS; cpu++) {
        kmap_ready[cpu] = (struct ready){.waiting = 0};
    }
    find_root(start, end);
    make_entries();
    kmap_keep_pages = KEEP_PAGES;
}

void kmap_keep(unsigned pages)
{
    kmap_keep_pages = pages;
}

/* --- lists ---------------------------------------------------------------- */

/* All of @list before @rest. */
static struct kmap_block *unite(struct kmap_block **list,
                                struct kmap_block *rest)
{
    while (*list != NULL) {
        struct kmap_block *block = *list;

        *list = block->next;
        ready_push(&rest, block);
    }
    return rest;
}

struct kmap_block *ready_take_waiting(struct ready *ready)
{
    struct kmap_block *all = unite(&ready->stale, NULL);

    for (unsigned i = 0; i < SMALL_PAGES; i++) {
        all = unite(&ready->stocked[i], all);
    }
    ready->waiting = 0;
    return all;
}

static struct kmap_block *take_empties(struct ready *ready)
{
    struct kmap_block *all = NULL;

    for (unsigned i = 0; i < SMALL_PAGES; i++) {
        all = unite(&ready->empty[i], all);
    }
    ready->empties = 0;
    return all;
}

/* --- flushes ---------------------------------------------------------------
 */

/* Hand the batch what is parked: it goes after the flush. */
static unsigned release_frames(const struct kmap_block *block,
                               struct tlb_batch *batch)
{
    pte_t *slot = block->entry;
    unsigned pages = block_pages(block);

    if (slot_entry(slot).v == block->guard.v) {
        return 0; /* a window was here */
    }
    for (unsigned i = 0; i < pages; i++) {
        pte_t entry = slot_entry(&slot[i]);

        if (!tlb_batch_has_room(batch)) {
            tlb_commit(batch); /* the ranges are in it already */
        }
        slot_store(&slot[i], block->guard);
        tlb_batch_release(batch, pte_pfn(entry, 0));
    }
    return pages;
}

/*
 * One flush for all, before their descriptors go. It makes who has read a guard
 * that named one, with interrupts off, be done with it. And pages of a window
 * that was not closed to its end may be cached still.
 */
void ready_dissolve(struct kmap_block *list)
{
    struct tlb_batch batch;

    tlb_batch_init(&batch, &pt_kernel.tlb);
    for (const struct kmap_block *block = list; block != NULL;
         block = block->next) {
        block_unmap(block);
        tlb_batch_range(&batch, segment_of(block), block_end(block), 0);
    }
    tlb_commit(&batch);
    while (list != NULL) {
        block_release(ready_pop(&list));
    }
}

/* Keep of @list what there is room for. Return: the rest. */
static struct kmap_block *keep_empties(struct kmap_block *list)
{
    uint64_t irq;
    struct ready *mine = ready_take_mine(&irq);

    while (list != NULL && mine->empties < EMPTIES_MAX) {
        struct kmap_block *block = list;

        list = block->next;
        ready_push(&mine->empty[block_pages(block) - 1], block);
        mine->empties++;
    }
    ready_drop(mine, irq);
    return list;
}

uint64_t ready_release(const struct kmap_block *list, struct tlb_batch *batch)
{
    uint64_t frames = 0;

    for (; list != NULL; list = list->next) {
        frames += release_frames(list, batch);
    }
    tlb_commit(batch);
    return frames;
}

/*
 * One flush for all of @list, which waits for it.
 * Return: how many frames were let go of.
 */
static uint64_t flush_waiting(const struct kmap_block *list)
{
    struct tlb_batch batch;

    tlb_batch_init(&batch, &pt_kernel.tlb);
    for (const struct kmap_block *block = list; block != NULL;
         block = block->next) {
        tlb_batch_range(&batch, block->start, block_end(block), 0);
    }
    return ready_release(list, &batch);
}

bool ready_purge(uint64_t *out_frames)
{
    bool found = false;

    *out_frames = 0;
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        uint64_t irq = port_irq_save();
        struct ready *ready = &kmap_ready[cpu];

        hold_take(&ready->hold);
        struct kmap_block *waiting =
            unite(&ready->leaving, ready_take_waiting(ready));
        struct kmap_block *empties = take_empties(ready);
        ready_drop(ready, irq);
        found = found || waiting != NULL || empties != NULL;
        *out_frames += flush_waiting(waiting);
        ready_dissolve(unite(&empties, waiting));
    }
    return found;
}

uint64_t kmap_purge(void)
{
    uint64_t frames;

    (void)ready_purge(&frames);
    return frames;
}

void ready_flush(struct kmap_block *list)
{
    flush_waiting(list);
    ready_dissolve(kmap_keep_pages > 0 ? keep_empties(list) : list);
}

/* --- new blocks ------------------------------------------------------------
 */

/* Guards in all pages of a new block: it is empty. */
static enum mm_status lay_guards(struct kmap_block *block, uint64_t number)
{
    vaddr_t start = segment_of(block);
    uint64_t bytes = segment_bytes(block);
    struct tlb_batch batch;
    struct pt_cursor cursor;

    enum mm_status status =
        pt_open(&pt_kernel, start, start + bytes, &batch, &cursor);
    ASSERT(status == MM_OK);
    status = pt_promise(&cursor, start, bytes, PT_GUARD, guard_attr(PT_READ),
                        number);
    pt_close(&cursor);
    tlb_commit(&batch);
    return status;
}

/*
 * An empty block that is new. Return: MM_OK; MM_ENOMEM; MM_ERANGE if a block
 * that need not be small might still be had.
 */
static enum mm_status make_empty(unsigned pages, struct kmap_block **out)
{
    uint64_t bytes = pages * PAGE_BYTES;
    uint64_t alignment = UINT64_C(2)
                         << highest_bit(bytes + 2 * GUARD_BYTES - 1);
    struct kmap_block *block = kmap_root.small_bytes > 0
                                   ? block_reserve(bytes, alignment)
                                   : NULL; /* I3 */

    if (block == NULL) {
        return MM_ERANGE;
    }
    uint64_t number = virt_to_phys(block).v >> BLOCK_SHIFT;
    enum mm_status status =
        number < pt_payload_end ? lay_guards(block, number) : MM_ERANGE;
    if (status != MM_OK) {
        block_unmap(block);
        block_release(block);
        return status;
    }
    block->entry = &table_at(
        pte_table(kmap_find_table(block->start)))[pte_index(block->start, 0)];
    block->guard = slot_entry(block->entry);
    ASSERT((block->guard.v & ~PTE_FRAME) == kmap_entries.guard);
    block_hang(block);
    *out = block;
    return MM_OK;
}

enum mm_status ready_empty(unsigned pages, struct kmap_block **out)
{
    uint64_t irq;
    struct ready *mine = ready_take_mine(&irq);
    struct kmap_block *block = ready_pop(&mine->empty[pages - 1]);

    mine->empties -= block != NULL ? 1 : 0;
    ready_drop(mine, irq);
    *out = block;
    return block != NULL ? MM_OK : make_empty(pages, out);
}

/* --- reports -------------------------------------------------------------- */

static void count_list(const struct kmap_block *list, uint64_t *blocks,
                       uint64_t *pages)
{
    for (; list != NULL; list = list->next) {
        ++*blocks;
        *pages += block_pages(list);
    }
}

/* What @cpu keeps, added. */
static void count_kept(unsigned cpu, uint64_t *blocks, uint64_t *pages)
{
    struct ready *ready = &kmap_ready[cpu];
    uint64_t irq = port_irq_save();

    hold_take(&ready->hold);
    count_list(ready->stale, blocks, pages);
    count_list(ready->leaving, blocks, pages);
    for (unsigned i = 0; i < SMALL_PAGES; i++) {
        count_list(ready->stocked[i], blocks, pages);
        count_list(ready->empty[i], blocks, pages);
    }
    ready_drop(ready, irq);
}

void ready_count(uint64_t *out_blocks, uint64_t *out_pages)
{
    *out_blocks = 0;
    *out_pages = 0;
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        count_kept(cpu, out_blocks, out_pages);
    }
}

static bool check_list(const struct kmap_block *list, unsigned pages)
{
    for (; list != NULL; list = list->next) {
        CHECK_OR_FAIL(!block_is_live(list) && block_is_small(list),
                      "I4: kmap: 0x%lx is kept, but somebody has it",
                      list->start);
        CHECK_OR_FAIL(pages == 0 || block_pages(list) == pages,
                      "I5: kmap: 0x%lx has %u pages, not %u", list->start,
                      block_pages(list), pages);
    }
    return true;
}

static bool check_ready(unsigned cpu)
{
    const struct ready *ready = &kmap_ready[cpu];
    uint64_t empties = 0;
    uint64_t blocks = 0;
    uint64_t waiting = 0;
    uint64_t ignored = 0;
    bool is_right =
        check_list(ready->stale, 0) && check_list(ready->leaving, 0);

    count_list(ready->stale, &blocks, &waiting);
    for (unsigned i = 0; i < SMALL_PAGES && is_right; i++) {
        count_list(ready->stocked[i], &blocks, &waiting);
        count_list(ready->empty[i], &empties, &ignored);
        is_right = check_list(ready->stocked[i], i + 1) &&
                   check_list(ready->empty[i], i + 1);
    }
    CHECK_OR_FAIL(!is_right ||
                      (waiting == ready->waiting && empties == ready->empties),
                  "I5: kmap: CPU %u keeps %lu pages and %lu blocks, not %u "
                  "and %u",
                  cpu, waiting, empties, ready->waiting, ready->empties);
    return is_right;
}

bool ready_check(void)
{
    bool is_right = true;

    for (unsigned cpu = 0; cpu < port_cpu_count() && is_right; cpu++) {
        is_right = check_ready(cpu);
    }
    return is_right;
}
