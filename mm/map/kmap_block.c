/* SPDX-License-Identifier: MIT */
/* kmap_block: blocks of any size, made and taken away through cursors. */
/*
 * Owns: descriptors, and their way from the arena and back.
 *
 * Idea: a block comes to life when it gets its handle, the last step of making
 * it, and dies when that is cleared, the first step of freeing it: of two who
 * free it one wins, and who names another pointer changes nothing. A failure
 * half way is a free from there on. The descriptor hangs on its segment until
 * that is free again, so who looks there, with the arena locked, may read it.
 * Addresses return to the arena only after tlb_commit(): whoever gets them
 * next cannot meet an old translation.
 *
 * Locking: the arena's lock and those of pt_kernel's tables, never both. A
 * visit to the tables maps at most STRIDE_PAGES frames, or removes a whole
 * block.
 *
 * Cost: O(pages) for eager blocks; lazy ones cost a few entries at any size.
 *
 * Limits: frames of 4 KiB only; device windows use large leaves where both
 * addresses happen to be aligned.
 */
#include "map/kmap_impl.h"

#include <mm/frame.h>
#include <mm/slab.h>

/* Frames that are taken and mapped at once: what an array on the stack has. */
#define STRIDE_PAGES 32

static struct slab_cache *blocks; /* (I) descriptors */

enum mm_status block_init(void)
{
    blocks =
        slab_create("kmap block", sizeof(struct kmap_block), BLOCK_BYTES, NULL);
    return blocks != NULL ? MM_OK : MM_ENOMEM;
}

void block_fini(void)
{
    enum mm_status status = slab_destroy(blocks);

    ASSERT(status == MM_OK);
}

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

/* --- blocks: addresses and a descriptor ----------------------------------- */

struct kmap_block *block_reserve(uint64_t bytes, uint64_t alignment)
{
    uint64_t segment;
    struct kmap_block *block = slab_alloc(blocks);

    if (block == NULL) {
        return NULL;
    }
    if (vmem_alloc(&kmap_arena, bytes + 2 * GUARD_BYTES, alignment, &segment) !=
        MM_OK) {
        slab_free(blocks, block);
        return NULL;
    }
    block->start = segment + GUARD_BYTES;
    block->bytes = bytes;
    atomic_init(&block->handle, NULL);
    atomic_init(&block->name, NULL);
    block->entry = NULL;
    return block;
}

/*
 * No entry reaches over an end of a segment, so nothing is split and this
 * cannot fail.
 */
void block_unmap(const struct kmap_block *block)
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

void block_release(struct kmap_block *block)
{
    vmem_free(&kmap_arena, segment_of(block), segment_bytes(block));
    slab_free(blocks, block);
}

/* One that is not small: ready_dissolve() is for those that are. */
static void dissolve(struct kmap_block *block)
{
    block_unmap(block);
    block_release(block);
}

void block_hang(struct kmap_block *block)
{
    bool is_hung = vmem_set_owner(&kmap_arena, segment_of(block), block);

    ASSERT(is_hung);
}

/*
 * The end of making a block: if @status is good it can be found and freed
 * from now on, else nothing is left of it.
 * Return: what the caller gets, which is at @offset of the block.
 */
static void *conclude(struct kmap_block *block, enum mm_status status,
                      uint64_t offset, const char *name)
{
    if (status != MM_OK) {
        dissolve(block);
        return NULL;
    }
    block_hang(block);
    return block_publish(block, offset, name);
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

    return status == MM_OK ? promise_guard(cursor, block_end(block)) : status;
}

static enum mm_status promise_zero(const struct kmap_block *block)
{
    struct visit visit;
    enum mm_status status = enter_new(&visit, block);

    if (status == MM_OK) {
        status = pt_promise(&visit.cursor, block->start, block->bytes, PT_ZERO,
                            pt_attr(BLOCK_FLAGS), 0);
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
                               pt_attr(BLOCK_FLAGS));
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

    while (page < block_end(block) && status == MM_OK) {
        pfn_t frames[STRIDE_PAGES];
        uint64_t left = (block_end(block) - page) >> PAGE_SHIFT;
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
    struct pt_attr attr = pt_attr(WINDOW_FLAGS);
    enum mm_status status = enter_new(&visit, block);

    attr.memory = (uint8_t)memory;
    if (status == MM_OK) {
        status = pt_map(&visit.cursor, block->start, pfn, block->bytes, attr);
    }
    leave(&visit);
    return status;
}

/* --- making and freeing --------------------------------------------------- */

void *block_alloc(uint64_t bytes, unsigned flags, const char *name)
{
    struct kmap_block *block = block_reserve(bytes, 0);

    if (block == NULL) {
        return NULL;
    }
    enum mm_status status =
        flags & KMAP_LAZY
            ? promise_zero(block)
            : map_frames(block, flags & KMAP_ZERO ? FRAME_ZEROED : FRAME_ANY);
    return conclude(block, status, 0, name);
}

void *block_window(paddr_t start, uint64_t bytes, enum pt_memory memory,
                   const char *name)
{
    struct kmap_block *block = block_reserve(bytes, 0);

    if (block == NULL) {
        return NULL;
    }
    return conclude(block, map_device(block, phys_to_pfn(start), memory),
                    start.v & (PAGE_BYTES - 1), name);
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

struct claim {
    void *handle;
    struct kmap_block *block; /* NULL: nobody has been given that */
};

/* A small one was for claim() in kmap.c to find: this is no free of it. */
static bool claim_segment(void *context, const struct vmem_segment *segment)
{
    struct claim *claim = context;
    struct kmap_block *block = segment->owner;

    if (block != NULL && !block_is_small(block) &&
        block_claim(block, claim->handle)) {
        claim->block = block;
    }
    return claim->block != NULL;
}

void block_free(void *handle)
{
    vaddr_t page = align_down((vaddr_t)handle, PAGE_BYTES);
    struct claim claim = {handle, NULL};

    if (handle == NULL) {
        return;
    }
    if (vmem_look(&kmap_arena, page - GUARD_BYTES, claim_segment, &claim)) {
        dissolve(claim.block);
    } else {
        report_wrong_free((vaddr_t)handle);
    }
}
