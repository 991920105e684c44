/* SPDX-License-Identifier: MIT */
/* kmap: kernel memory that is contiguous in addresses, not in frames. */
/*
 * Owns: the arena of kernel addresses and the blocks in it.
 *
 * Idea: a block is a segment of the arena, and what its pages are is said by
 * the page tables alone: frames that are there, or the promise of zeroed ones,
 * between two guards. Nothing else is kept of a block but a name and the
 * pointer its caller holds; that descriptor hangs on the arena's segment.
 *
 *    segment                 start                          start + bytes
 *      v                       v                               v
 *      +-----------------------+-------------------------------+-------+
 *      | guard: never anything | frames, zero promises, device | guard |
 *      +-----------------------+-------------------------------+-------+
 *
 * Here is what callers ask for, as far as it is at hand: small blocks that are
 * kept when they are freed (kmap_keep.c). All else is made page by page, or by
 * large entries (kmap_block.c).
 *
 * Invariants:
 *   I1  a live block is a guard page, whole pages of frames or zero promises,
 *       and a guard page
 *   I2  a free segment of the arena is a gap in the tables
 *   I3 .. I5 of kmap_keep.c
 *
 * Locking: the arena's lock, what a CPU keeps, and the locks of pt_kernel's
 * tables: never two of them.
 *
 * Cost: O(pages), but for lazy blocks and large windows. A window adds a search
 * of the memory map, if it is not where this CPU has opened one before.
 * kmap_find() is O(blocks): it is there for reports.
 */
#include "map/kmap_impl.h"

#include <mm/frame.h>
#include "map/cursor.h"

struct vmem kmap_arena;               /* own lock */
static const struct memmap *physical; /* (I) for windows */

enum mm_status kmap_init(vaddr_t start, vaddr_t end, const struct memmap *map)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    enum mm_status status = pt_open(&pt_kernel, start, end, &batch, &cursor);
    if (status != MM_OK) {
        return status;
    }
    pt_close(&cursor);
    tlb_commit(&batch);
    status = block_init();
    if (status != MM_OK) {
        return status;
    }
    vmem_init(&kmap_arena, "kmap", PAGE_BYTES);
    status = vmem_add(&kmap_arena, start, end - start);
    if (status != MM_OK) {
        vmem_fini(&kmap_arena);
        block_fini();
        return status;
    }
    ready_init(start, end);
    physical = map;
    return MM_OK;
}

bool kmap_has(const void *address)
{
    return (vaddr_t)address - kmap_root.start < kmap_root.bytes;
}

/* --- entries: between the guards of a block that nobody else has -----------
 */

/* Is it a leaf as kmap_alloc() has made it, of a frame nobody else holds? */
static inline bool is_as_made(pte_t entry)
{
    pfn_t pfn = pfn_of((entry.v & PTE_FRAME) >> PAGE_SHIFT);

    return ((entry.v ^ kmap_entries.leaf) & ~PTE_FRAME) == 0 &&
           atomic_load_explicit(&record_of(pfn)->refs, memory_order_relaxed) ==
               1;
}

/*
 * Take all access to the frames away. Return: false if the pages are not what
 * they were at first, and are to be unmapped one by one.
 */
static inline bool park(pte_t *slot, const pte_t *end)
{
    do {
        pte_t entry = slot_entry(slot);

        if (MM_UNLIKELY(!is_as_made(entry))) {
            return false;
        }
        slot_store(slot, (pte_t){entry.v ^ kmap_entries.flip});
        slot++;
    } while (slot < end);
    return true;
}

static inline void unpark(pte_t *slot, const pte_t *end)
{
    do {
        slot_store(slot, (pte_t){slot_entry(slot).v ^ kmap_entries.flip});
        slot++;
    } while (slot < end);
}

/* The same as park() for what is not of the block. */
static inline bool close_window(pte_t *slot, const pte_t *end, pte_t guard)
{
    do {
        if (MM_UNLIKELY((slot_entry(slot).v & (PTE_P | PTE_OWN)) != PTE_P)) {
            return false;
        }
        slot_store(slot, guard);
        slot++;
    } while (slot < end);
    return true;
}

/* --- blocks with frames ----------------------------------------------------
 */

/* @bytes in whole pages; 0 if there are none, or too many for addresses. */
static uint64_t whole_pages(uint64_t bytes)
{
    uint64_t most; /* that rounding and guards can make of @bytes */

    return checked_add(bytes, PAGE_BYTES + 2 * GUARD_BYTES, &most)
               ? align_up(bytes, PAGE_BYTES)
               : 0;
}

static inline bool is_small(uint64_t bytes)
{
    return bytes <= SMALL_PAGES * PAGE_BYTES;
}

/* May all be parked, as they are when a small block is freed: L1TF? */
static bool can_be_parked(const pfn_t *frames, unsigned count)
{
    unsigned i = 0;

    while (i < count && frames[i].v < pt_payload_end) {
        i++;
    }
    return i == count;
}

/*
 * With new frames. Return: MM_OK; MM_ENOMEM; MM_ERANGE if one that need not be
 * small might still be had.
 */
static enum mm_status fill_empty(unsigned pages, unsigned frame_flags,
                                 struct kmap_block **out)
{
    pfn_t frames[SMALL_PAGES];
    unsigned taken = frame_alloc_bulk(frames, pages, FRAME_KMAP, frame_flags);
    enum mm_status status = MM_ENOMEM;

    if (taken == pages) {
        status =
            can_be_parked(frames, pages) ? ready_empty(pages, out) : MM_ERANGE;
    }
    if (status != MM_OK) {
        frame_free_bulk(frames, taken); /* nothing has ever led to them */
        return status;
    }
    for (unsigned i = 0; i < pages; i++) {
        slot_store(&(*out)->entry[i],
                   (pte_t){kmap_entries.leaf | frames[i].v << PAGE_SHIFT});
    }
    return MM_OK;
}

/* @bytes in whole pages, small or not, with what memory there is. */
static void *make_block(uint64_t bytes, unsigned flags, const char *name)
{
    enum mm_status status = MM_ERANGE;
    struct kmap_block *block;

    if (is_small(bytes) && (flags & KMAP_LAZY) == 0) {
        status =
            fill_empty((unsigned)(bytes >> PAGE_SHIFT),
                       flags & KMAP_ZERO ? FRAME_ZEROED : FRAME_ANY, &block);
    }
    if (status == MM_OK) {
        return block_publish(block, 0, name);
    }
    return status == MM_ERANGE ? block_alloc(bytes, flags, name) : NULL;
}

/* Whatever is not at hand. */
static MM_NOINLINE void *alloc_slow(uint64_t bytes, unsigned flags,
                                    const char *name)
{
    ASSERT((flags & ~(unsigned)(KMAP_LAZY | KMAP_ZERO)) == 0);
    ASSERT(name != NULL);
    bytes = whole_pages(bytes);
    if (bytes == 0) {
        return NULL;
    }
    uint64_t frames;
    void *handle = make_block(bytes, flags, name);
    if (handle == NULL && ready_purge(&frames)) {
        handle = make_block(bytes, flags, name);
    }
    return handle;
}

void *kmap_alloc(uint64_t bytes, unsigned flags, const char *name)
{
    if (MM_UNLIKELY(bytes - 1 >= SMALL_PAGES * PAGE_BYTES ||
                    flags != KMAP_EAGER)) {
        return alloc_slow(bytes, flags, name);
    }
    unsigned pages = (unsigned)((bytes + PAGE_BYTES - 1) >> PAGE_SHIFT);
    uint64_t irq;
    struct ready *mine = ready_take_mine(&irq);
    struct kmap_block *block = ready_pop(&mine->stocked[pages - 1]);
    if (MM_UNLIKELY(block == NULL)) {
        ready_drop(mine, irq);
        return alloc_slow(bytes, flags, name);
    }
    mine->waiting -= pages;
    ready_drop(mine, irq);
    unpark(block->entry, block->entry + pages);
    return block_publish(block, 0, name);
}

void *kmap_stack(uint64_t bytes, const char *name)
{
    return kmap_alloc(bytes, KMAP_ZERO, name);
}

/* --- windows -------------------------------------------------------------- */

/* RAM that is in use or may be: no device, nor for the firmware alone. */
static bool is_ours(enum memmap_type type)
{
    return type == MEMMAP_USABLE || type == MEMMAP_RECLAIM ||
           type == MEMMAP_KERNEL;
}

/*
 * Is there such RAM in [start, end)? If not, @out_hole is what lies around it
 * that never will be: RAM comes and goes only where the map has some.
 */
static bool reaches_ram(uint64_t start, uint64_t end,
                        struct memmap_range *out_hole)
{
    size_t first = memmap_first_above(physical, start);
    const struct memmap_range *range = physical->range;

    for (size_t i = first; i < physical->count && range[i].start < end; i++) {
        if (is_ours(range[i].type)) {
            return true;
        }
    }
    out_hole->start = first > 0 ? range[first - 1].end : 0;
    out_hole->end = first < physical->count ? range[first].start : end;
    if (out_hole->end <= start && !memmap_is_ram(range[first].type)) {
        out_hole->start = range[first].start;
        out_hole->end = range[first].end;
    }
    return false;
}

/* Windows of this CPU are looked for in @hole first. */
static void note_hole(const struct memmap_range *hole)
{
    /* What firmware keeps may go on where the CPU has no addresses. */
    uint64_t end = min_u64(hole->end, UINT64_C(1) << pt_features.physical_bits);
    uint64_t irq;
    struct ready *mine = ready_take_mine(&irq);

    mine->hole_start = hole->start;
    mine->hole_bytes = end - hole->start;
    ready_drop(mine, irq);
}

/* Are the bytes, at least one, in the hole that was looked at last? */
static inline bool is_in_hole(const struct ready *ready, uint64_t start,
                              uint64_t bytes)
{
    uint64_t offset = start - ready->hole_start;

    return offset < ready->hole_bytes && bytes - 1 < ready->hole_bytes - offset;
}

/* The pages that hold @bytes from @start on. */
static inline uint64_t pages_of(uint64_t start, uint64_t bytes)
{
    return ((start & (PAGE_BYTES - 1)) + bytes + PAGE_BYTES - 1) >> PAGE_SHIFT;
}

static inline void *fill_window(struct kmap_block *block, unsigned pages,
                                paddr_t start, uint64_t leaf, const char *name)
{
    pte_t *slot = block->entry;
    pte_t *end = slot + pages;

    leaf |= start.v & PTE_FRAME;
    do {
        slot_store(slot, (pte_t){leaf});
        leaf += PAGE_BYTES;
        slot++;
    } while (slot < end);
    return block_publish(block, start.v & (PAGE_BYTES - 1), name);
}

static inline uint64_t device_leaf(enum pt_memory memory)
{
    return (unsigned)memory <= PT_WT ? kmap_entries.device[memory] : 0;
}

/* Onto @pages pages, small or not, with what addresses there are. */
static void *make_window(paddr_t start, uint64_t pages, enum pt_memory memory,
                         const char *name)
{
    enum mm_status status = MM_ERANGE;
    struct kmap_block *block;

    if (pages <= SMALL_PAGES) {
        status = ready_empty((unsigned)pages, &block);
    }
    if (status == MM_OK) {
        return fill_window(block, (unsigned)pages, start, device_leaf(memory),
                           name);
    }
    return status == MM_ERANGE
               ? block_window(start, pages << PAGE_SHIFT, memory, name)
               : NULL;
}

static MM_NOINLINE void *mmio_slow(paddr_t start, uint64_t bytes,
                                   enum pt_memory memory, const char *name)
{
    uint64_t pages = pages_of(start.v, bytes);
    struct memmap_range hole;
    uint64_t frames;
    uint64_t end;

    ASSERT(name != NULL);
    if (bytes == 0 || !checked_add(start.v, bytes, &end) ||
        end > UINT64_C(1) << pt_features.physical_bits ||
        reaches_ram(start.v, end, &hole) || device_leaf(memory) == 0) {
        return NULL;
    }
    note_hole(&hole);
    void *handle = make_window(start, pages, memory, name);
    if (handle == NULL && ready_purge(&frames)) {
        handle = make_window(start, pages, memory, name);
    }
    return handle;
}

void *kmap_mmio(paddr_t start, uint64_t bytes, enum pt_memory memory,
                const char *name)
{
    uint64_t leaf = device_leaf(memory);
    uint64_t pages = pages_of(start.v, bytes);

    if (MM_UNLIKELY(leaf == 0 || pages > SMALL_PAGES)) {
        return mmio_slow(start, bytes, memory, name);
    }
    uint64_t irq;
    struct ready *mine = ready_take_mine(&irq);
    struct kmap_block *block = is_in_hole(mine, start.v, bytes)
                                   ? ready_pop(&mine->empty[pages - 1])
                                   : NULL;
    if (MM_UNLIKELY(block == NULL)) {
        ready_drop(mine, irq);
        return mmio_slow(start, bytes, memory, name);
    }
    mine->empties--;
    ready_drop(mine, irq);
    return fill_window(block, (unsigned)pages, start, leaf, name);
}

/* --- freeing -------------------------------------------------------------- */

/*
 * The small block that is @handle, which belongs to the caller alone from now
 * on; NULL if there is none. Context: interrupts off.
 */
static inline struct kmap_block *claim(void *handle)
{
    vaddr_t page = align_down((vaddr_t)handle, PAGE_BYTES) - GUARD_BYTES;

    if (MM_UNLIKELY(page - kmap_root.start >= kmap_root.small_bytes)) {
        return NULL;
    }
    pte_t table = kmap_find_table(page);
    if (MM_UNLIKELY(!pte_leads_on(table))) {
        return NULL;
    }
    uint64_t entry = table_look(table, page, 0).v;
    if (MM_UNLIKELY((entry & ~PTE_FRAME) != kmap_entries.guard)) {
        return NULL;
    }
    uint64_t number = (~entry & PTE_FRAME) >> (PAGE_SHIFT - BLOCK_SHIFT);
    struct kmap_block *block = phys_to_virt(paddr_of(number));
    return MM_LIKELY(block_claim(block, handle)) ? block : NULL;
}

void kmap_free(void *handle)
{
    uint64_t irq;
    struct ready *mine = ready_take_mine(&irq);
    struct kmap_block *block = claim(handle);

    if (MM_UNLIKELY(block == NULL)) {
        ready_drop(mine, irq);
        block_free(handle);
        return;
    }
    unsigned pages = block_pages(block);
    pte_t *slot = block->entry;
    bool is_device = (slot_entry(slot).v & PTE_OWN) == 0;
    if (MM_UNLIKELY(!(is_device ? close_window(slot, slot + pages, block->guard)
                                : park(slot, slot + pages)))) {
        ready_drop(mine, irq);
        block->next = NULL;
        ready_dissolve(block);
        return;
    }
    ready_push(is_device ? &mine->stale : &mine->stocked[pages - 1], block);
    mine->waiting += pages;
    if (MM_UNLIKELY(mine->waiting > kmap_keep_pages)) {
        struct kmap_block *due = ready_take_waiting(mine);
        ready_drop(mine, irq);
        ready_flush(due);
        return;
    }
    ready_drop(mine, irq);
}
