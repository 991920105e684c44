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
 * A block comes to life when its descriptor is hung up, the last step of
 * making it, and dies when it is taken down, the first step of freeing it. So
 * a second free finds nothing, and a failure half way is a free from there on.
 * Addresses return to the arena only after tlb_commit(): whoever gets them
 * next cannot meet an old translation.
 *
 * Invariants:
 *   I1  a live block is a guard page, whole pages of frames or zero promises,
 *       and a guard page
 *   I2  a free segment of the arena is a gap in the tables
 *
 * Locking: the arena's lock and those of pt_kernel's tables, never both. A
 * visit to the tables maps at most STRIDE_PAGES frames, or removes a whole
 * block.
 *
 * Cost: O(pages) for eager blocks; lazy ones cost a few entries at any size.
 * A window adds a search of the memory map. kmap_find() is O(blocks): it is
 * there for reports.
 *
 * Limits: frames of 4 KiB only; device windows use large leaves where both
 * addresses happen to be aligned.
 */
#include <mm/kmap.h>

#include <mm/frame.h>
#include <mm/pt.h>
#include <mm/slab.h>
#include <mm/vmem.h>
#include <mm/walk.h>
#include "base/bits.h"

#define GUARD_BYTES PAGE_BYTES

/* Frames that are taken and mapped at once: what an array on the stack has. */
#define STRIDE_PAGES 32

/*
 * kmap_find() waits for the arena so many turns: some milliseconds, PAUSE being
 * 40 to 140 cycles. Only kmap_check() holds it longer.
 */
#define FIND_TURNS 100000

/* The frames of a block belong to the block. */
#define RAM_FLAGS (PT_WRITE | PT_GLOBAL | PT_OWNED)
/* Those behind a window belong to the device. */
#define DEVICE_FLAGS (PT_WRITE | PT_GLOBAL)

struct kmap_block {
    vaddr_t start;  /* between the guards, whole pages */
    uint64_t bytes; /* the same */
    void *handle;   /* what the caller was given, and must free */
    const char *name;
};

static struct vmem arena;             /* own lock */
static struct slab_cache *blocks;     /* (I) descriptors */
static const struct memmap *physical; /* (I) for windows */

/* --- one visit to the page tables ----------------------------------------- */

struct visit {
    struct tlb_batch batch;
    struct pt_cursor cursor;
};

/* [start, end) lies in the arena, which kmap_init() has tried to open. */
static struct pt_cursor *enter(struct visit *visit, vaddr_t start, vaddr_t end)
{
    enum mm_status status =
        pt_open(&pt_kernel, start, end, &visit->batch, &visit->cursor);

    ASSERT(status == MM_OK);
    return &visit->cursor;
}

static void leave(struct visit *visit)
{
    pt_close(&visit->cursor);
    tlb_commit(&visit->batch);
}

enum mm_status kmap_init(vaddr_t start, vaddr_t end, const struct memmap *map)
{
    struct visit visit;

    enum mm_status status =
        pt_open(&pt_kernel, start, end, &visit.batch, &visit.cursor);
    if (status != MM_OK) {
        return status;
    }
    leave(&visit);
    blocks = slab_create("kmap block", sizeof(struct kmap_block), 0, NULL);
    if (blocks == NULL) {
        return MM_ENOMEM;
    }
    vmem_init(&arena, "kmap", PAGE_BYTES);
    status = vmem_add(&arena, start, end - start);
    if (status != MM_OK) {
        vmem_fini(&arena);
        enum mm_status destroyed = slab_destroy(blocks);
        ASSERT(destroyed == MM_OK);
        return status;
    }
    physical = map;
    return MM_OK;
}

/* --- blocks: addresses and a descriptor ----------------------------------- */

static vaddr_t end_of(const struct kmap_block *block)
{
    return block->start + block->bytes;
}

static vaddr_t segment_of(const struct kmap_block *block)
{
    return block->start - GUARD_BYTES;
}

static uint64_t segment_bytes(const struct kmap_block *block)
{
    return block->bytes + 2 * GUARD_BYTES;
}

/* Addresses for @bytes between guards; nothing stands there yet. */
static struct kmap_block *reserve(uint64_t bytes, const char *name)
{
    uint64_t segment;
    uint64_t most; /* that rounding and guards can make of @bytes */

    ASSERT(name != NULL);
    if (bytes == 0 ||
        !checked_add(bytes, PAGE_BYTES + 2 * GUARD_BYTES, &most)) {
        return NULL;
    }
    struct kmap_block *block = slab_alloc(blocks);
    if (block == NULL) {
        return NULL;
    }
    block->bytes = align_up(bytes, PAGE_BYTES);
    if (vmem_alloc(&arena, segment_bytes(block), 0, &segment) != MM_OK) {
        slab_free(blocks, block);
        return NULL;
    }
    block->start = segment + GUARD_BYTES;
    block->handle = (void *)block->start;
    block->name = name;
    return block;
}

/*
 * Take away whatever stands in the block's segment, guards too. No entry
 * reaches over an end of a segment, so nothing is split and this cannot fail.
 */
static void unmap(const struct kmap_block *block)
{
    vaddr_t at = segment_of(block);
    vaddr_t end = at + segment_bytes(block);

    while (at < end) {
        struct visit visit;
        struct pt_cursor *cursor = enter(&visit, at, end);
        enum mm_status status = pt_unmap(cursor, at, end - at, &at);

        leave(&visit);
        ASSERT(status == MM_OK);
    }
}

/* Undo reserve() and whatever was mapped since. */
static void discard(struct kmap_block *block)
{
    unmap(block);
    vmem_free(&arena, segment_of(block), segment_bytes(block));
    slab_free(blocks, block);
}

/*
 * The end of making a block: if @status is good it can be found and freed
 * from now on, else nothing is left of it.
 * Return: what the caller gets.
 */
static void *conclude(struct kmap_block *block, enum mm_status status)
{
    if (status != MM_OK) {
        discard(block);
        return NULL;
    }
    void *handle = block->handle;
    void *old = vmem_swap_owner(&arena, segment_of(block), block);
    ASSERT(old == NULL);
    return handle;
}

/* --- what stands in a block ----------------------------------------------- */

static enum mm_status promise_guard(struct pt_cursor *cursor, vaddr_t page)
{
    return pt_promise(cursor, page, GUARD_BYTES, PT_GUARD, pt_attr(PT_READ), 0);
}

/* The first visit to a new block lays its guards. To be left in any case. */
static enum mm_status enter_new(struct visit *visit,
                                const struct kmap_block *block)
{
    vaddr_t start = segment_of(block);
    struct pt_cursor *cursor =
        enter(visit, start, start + segment_bytes(block));
    enum mm_status status = promise_guard(cursor, start);

    return status == MM_OK ? promise_guard(cursor, end_of(block)) : status;
}

static enum mm_status promise_zero(const struct kmap_block *block)
{
    struct visit visit;
    enum mm_status status = enter_new(&visit, block);

    if (status == MM_OK) {
        status = pt_promise(&visit.cursor, block->start, block->bytes, PT_ZERO,
                            pt_attr(RAM_FLAGS), 0);
    }
    leave(&visit);
    return status;
}

/* @count frames for the pages from @page on; the guards, if they come first. */
static enum mm_status map_stride(const struct kmap_block *block, vaddr_t page,
                                 const pfn_t *frames, unsigned count)
{
    struct visit visit;
    enum mm_status status = MM_OK;

    if (page == block->start) {
        status = enter_new(&visit, block);
    } else {
        enter(&visit, page, page + count * PAGE_BYTES);
    }
    if (status == MM_OK) {
        status = pt_map_frames(&visit.cursor, page, frames, count,
                               pt_attr(RAM_FLAGS));
    }
    leave(&visit);
    return status;
}

/* New frames for all pages; they are taken, and zeroed, between the visits. */
static enum mm_status map_frames(const struct kmap_block *block,
                                 unsigned frame_flags)
{
    enum mm_status status = MM_OK;
    vaddr_t page = block->start;

    while (page < end_of(block) && status == MM_OK) {
        pfn_t frames[STRIDE_PAGES];
        uint64_t left = (end_of(block) - page) >> PAGE_SHIFT;
        unsigned count = (unsigned)min_u64(left, STRIDE_PAGES);
        unsigned taken =
            frame_alloc_bulk(frames, count, FRAME_KMAP, frame_flags);

        status =
            taken < count ? MM_ENOMEM : map_stride(block, page, frames, count);
        if (status != MM_OK) {
            frame_free_bulk(frames, taken); /* nothing has ever led to them */
        }
        page += count * PAGE_BYTES;
    }
    return status;
}

static enum mm_status map_device(const struct kmap_block *block, pfn_t pfn,
                                 enum pt_memory memory)
{
    struct visit visit;
    struct pt_attr attr = pt_attr(DEVICE_FLAGS);
    enum mm_status status = enter_new(&visit, block);

    attr.memory = (uint8_t)memory;
    if (status == MM_OK) {
        status = pt_map(&visit.cursor, block->start, pfn, block->bytes, attr);
    }
    leave(&visit);
    return status;
}

/* --- making and freeing --------------------------------------------------- */

void *kmap_alloc(uint64_t bytes, unsigned flags, const char *name)
{
    ASSERT((flags & ~(unsigned)(KMAP_LAZY | KMAP_ZERO)) == 0);
    struct kmap_block *block = reserve(bytes, name);
    if (block == NULL) {
        return NULL;
    }
    if (flags & KMAP_LAZY) {
        return conclude(block, promise_zero(block));
    }
    return conclude(
        block, map_frames(block, flags & KMAP_ZERO ? FRAME_ZEROED : FRAME_ANY));
}

void *kmap_stack(uint64_t bytes, const char *name)
{
    return kmap_alloc(bytes, KMAP_ZERO, name);
}

/* RAM that is in use or may be: no device, nor for the firmware alone. */
static bool is_ours(enum memmap_type type)
{
    return type == MEMMAP_USABLE || type == MEMMAP_RECLAIM ||
           type == MEMMAP_KERNEL;
}

/* Is there such RAM in [start, end)? */
static bool reaches_ram(uint64_t start, uint64_t end)
{
    for (size_t i = memmap_first_above(physical, start);
         i < physical->count && physical->range[i].start < end; i++) {
        if (is_ours(physical->range[i].type)) {
            return true;
        }
    }
    return false;
}

void *kmap_mmio(paddr_t start, uint64_t bytes, enum pt_memory memory,
                const char *name)
{
    uint64_t end;

    if (bytes == 0 || !checked_add(start.v, bytes, &end) ||
        end > UINT64_C(1) << pt_features.physical_bits ||
        reaches_ram(start.v, end)) {
        return NULL;
    }
    pfn_t first = phys_to_pfn(start);
    uint64_t offset = start.v - pfn_to_phys(first).v;
    struct kmap_block *block = reserve(offset + bytes, name);
    if (block == NULL) {
        return NULL;
    }
    block->handle = (void *)(block->start + offset);
    return conclude(block, map_device(block, first, memory));
}

static void report_wrong_free(vaddr_t address)
{
    struct kmap_info info;

    if (kmap_find(address, &info)) {
        port_bug("kmap_free: 0x%lx is not what was given for \"%s\" "
                 "(0x%lx, 0x%lx bytes)",
                 address, info.name, info.start, info.bytes);
    } else {
        port_bug("kmap_free: 0x%lx is in no block", address);
    }
}

void kmap_free(void *handle)
{
    if (handle == NULL) {
        return;
    }
    vaddr_t page = align_down((vaddr_t)handle, PAGE_BYTES);
    vaddr_t segment = page - GUARD_BYTES;
    struct kmap_block *block = vmem_swap_owner(&arena, segment, NULL);

    if (block != NULL && block->handle == handle) {
        discard(block);
        return;
    }
    if (block != NULL) { /* a pointer into its first page: give it back */
        vmem_swap_owner(&arena, segment, block);
    }
    report_wrong_free((vaddr_t)handle);
}

/* --- reports -------------------------------------------------------------- */

struct search {
    vaddr_t address;
    struct kmap_info *out;
    bool is_found;
};

/* Stop at the segment that holds the address. */
static bool search_segment(void *context, const struct vmem_segment *segment)
{
    struct search *search = context;
    const struct kmap_block *block = segment->owner;

    if (search->address < segment->start ||
        search->address - segment->start >= segment->size) {
        return true;
    }
    if (block != NULL) {
        search->is_found = true;
        search->out->start = block->start;
        search->out->bytes = block->bytes;
        search->out->name = block->name;
        search->out->is_guard =
            search->address < block->start || search->address >= end_of(block);
    }
    return false;
}

bool kmap_find(vaddr_t address, struct kmap_info *out)
{
    struct search search = {address, out, false};

    /*
     * A report must end, also that of a fault inside the arena, and also when
     * the CPU that is at work there was stopped.
     */
    vmem_try_walk(&arena, FIND_TURNS, search_segment, &search);
    return search.is_found;
}

void kmap_stats(struct kmap_stats *out)
{
    struct vmem_stats stats;

    vmem_stats(&arena, &stats);
    out->blocks = stats.allocated;
    out->bytes = stats.total - stats.free - stats.allocated * 2 * GUARD_BYTES;
    out->arena_bytes = stats.total;
    out->arena_free = stats.free;
}

/* --- check ---------------------------------------------------------------- */

/* The last entry on the way to @address, and where the next one begins. */
static struct walk_step read_entry(vaddr_t address, vaddr_t *out_next)
{
    struct walk walk;

    walk_address(pt_kernel.root, address, &walk);
    struct walk_step last = walk.step[walk.count - 1];
    uint64_t span = pte_span(last.level);
    *out_next = align_down(address, span) + span;
    return last;
}

static bool is_guard(vaddr_t page)
{
    vaddr_t next;
    struct walk_step step = read_entry(page, &next);

    return step.level == 0 && pte_state(step.entry, 0) == PTE_PROMISE &&
           pte_promise(step.entry) == PT_GUARD;
}

static bool is_content(struct walk_step step)
{
    enum pte_state state = pte_state(step.entry, step.level);

    return state == PTE_PRESENT ||
           (state == PTE_PROMISE && pte_promise(step.entry) == PT_ZERO);
}

static bool check_block(const struct kmap_block *block,
                        const struct vmem_segment *segment)
{
    CHECK_OR_FAIL(segment_of(block) == segment->start &&
                      segment_bytes(block) == segment->size,
                  "I1: kmap: \"%s\" is not its segment 0x%lx", block->name,
                  segment->start);
    CHECK_OR_FAIL(is_guard(segment->start) && is_guard(end_of(block)),
                  "I1: kmap: \"%s\" at 0x%lx has lost a guard", block->name,
                  block->start);
    for (vaddr_t at = block->start; at < end_of(block);) {
        vaddr_t next;
        CHECK_OR_FAIL(
            is_content(read_entry(at, &next)) && next <= end_of(block),
            "I1: kmap: \"%s\": wrong entry at 0x%lx", block->name, at);
        at = next;
    }
    return true;
}

static bool check_gap(const struct vmem_segment *segment)
{
    for (vaddr_t at = segment->start; at - segment->start < segment->size;) {
        vaddr_t next;
        CHECK_OR_FAIL(pte_is_absent(read_entry(at, &next).entry),
                      "I2: kmap: an entry at free address 0x%lx", at);
        at = next;
    }
    return true;
}

static bool check_segment(void *context, const struct vmem_segment *segment)
{
    (void)context;
    if (!segment->is_allocated) {
        return check_gap(segment);
    }
    /* Without an owner it is being made or freed just now. */
    return segment->owner == NULL || check_block(segment->owner, segment);
}

bool kmap_check(void)
{
    return vmem_check(&arena) && vmem_walk(&arena, check_segment, NULL);
}
