/* SPDX-License-Identifier: MIT */
/* bench_map: what kernel mappings, their tables and the TLB cost. */
#include "kernel/bench_impl.h"

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/kvmalloc.h>
#include <mm/pt.h>
#include <mm/vmem.h>
#include "kernel/memory.h"

#define RANGE_PAGES 16
#define RANGE_ORDER 4
_Static_assert(RANGE_PAGES == 1 << RANGE_ORDER, "frames in a row");

/* Set up by prepare(), taken down by finish(). */
static vaddr_t range;        /* RANGE_PAGES of kernel addresses */
static pfn_t frames;         /* RANGE_PAGES frames in a row */
static struct vmem arena[2]; /* of numbers; [1] keeps what is freed */
static paddr_t hole;         /* physical addresses with nothing behind them */

/* --- operations: true if they worked -------------------------------------- */

static bool do_kmap(unsigned pages)
{
    void *block = kmap_alloc(pages * PAGE_BYTES, KMAP_EAGER, "bench");

    kmap_free(block);
    return block != NULL;
}

static bool do_kvmalloc(unsigned pages)
{
    void *block = kvmalloc(pages * PAGE_BYTES);

    kvfree(block);
    return block != NULL;
}

/* Addresses and tables only, as Linux's vmap(); nothing is behind them. */
static bool do_window(unsigned pages)
{
    void *window = kmap_mmio(hole, pages * PAGE_BYTES, PT_WB, "bench");

    kmap_free(window);
    return window != NULL;
}

/* Four quanta. */
static bool do_vmem(unsigned which)
{
    uint64_t number;

    if (vmem_alloc(&arena[which], 4, 0, &number) != MM_OK) {
        return false;
    }
    vmem_free(&arena[which], number, 4);
    return true;
}

static bool do_lookup(unsigned argument)
{
    vaddr_t address = (vaddr_t)do_lookup;
    struct pt_leaf leaf = pt_lookup(&pt_kernel, address);

    (void)argument;
    return pte_is_present(leaf.entry) && pt_leaf_pfn(leaf, address).v != 0;
}

static bool do_flush(unsigned pages)
{
    struct tlb_batch batch;

    tlb_batch_init(&batch, &pt_kernel.tlb);
    tlb_batch_range(&batch, range, range + pages * PAGE_BYTES, 0);
    tlb_commit(&batch);
    return true;
}

static bool protect(unsigned pages, unsigned flags)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    uint64_t bytes = pages * PAGE_BYTES;

    if (pt_open(&pt_kernel, range, range + bytes, &batch, &cursor) != MM_OK) {
        return false;
    }
    enum mm_status status = pt_protect(&cursor, range, bytes, pt_attr(flags));
    pt_close(&cursor);
    tlb_commit(&batch);
    return status == MM_OK;
}

/* Rights go and come in turn: an even number of runs leaves them as before. */
static bool do_protect(unsigned pages)
{
    static unsigned turn;

    turn ^= PT_WRITE;
    return protect(pages, turn ^ PT_WRITE);
}

static bool do_map(unsigned pages)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    uint64_t bytes = pages * PAGE_BYTES;
    vaddr_t end;

    if (pt_open(&pt_kernel, range, range + bytes, &batch, &cursor) != MM_OK) {
        return false;
    }
    bool success = pt_unmap(&cursor, range, bytes, &end) == MM_OK;
    success = success && pt_map(&cursor, range, frames, bytes,
                                pt_attr(PT_WRITE | PT_GLOBAL)) == MM_OK;
    pt_close(&cursor);
    tlb_commit(&batch);
    return success;
}

/* --- the list ------------------------------------------------------------- */

static const struct bench_subject subjects[] = {
    {"pt_lookup", NULL, do_lookup, 0},
    {"tlb_flush_1", NULL, do_flush, 1},
    {"tlb_flush_16", NULL, do_flush, 16},
    {"pt_protect_1", NULL, do_protect, 1},
    {"pt_protect_16", NULL, do_protect, 16},
    {"pt_unmap_map_1", NULL, do_map, 1},
    {"pt_unmap_map_16", NULL, do_map, 16},
    {"vmem", NULL, do_vmem, 0},
    {"vmem_kept", NULL, do_vmem, 1},
    {"kmap_window_1", NULL, do_window, 1},
    {"kmap_window_16", NULL, do_window, 16},
    {"kmap_alloc_1", NULL, do_kmap, 1},
    {"kmap_alloc_16", NULL, do_kmap, 16},
    {"kvmalloc_64k", NULL, do_kvmalloc, 16},
};

static bool make_arenas(void)
{
    vmem_init(&arena[0], "bench", 1);
    vmem_init(&arena[1], "bench, kept", 1);
    return vmem_keep(&arena[1], 8) == MM_OK &&
           vmem_add(&arena[0], 1, 1000) == MM_OK &&
           vmem_add(&arena[1], 1, 1000) == MM_OK;
}

/* Pages for the table operations: frames of our own, in a block's place. */
static bool prepare(void)
{
    hole = paddr_of(memmap_ram_end(memory_map()));
    frames = frame_alloc(RANGE_ORDER, FRAME_KERNEL, FRAME_ANY);
    range =
        (vaddr_t)kmap_alloc(RANGE_PAGES * PAGE_BYTES, KMAP_LAZY, "bench range");
    return make_arenas() && !pfn_is_none(frames) && range != 0 &&
           do_map(RANGE_PAGES);
}

static void finish(void)
{
    vmem_fini(&arena[0]);
    vmem_fini(&arena[1]);
    kmap_free((void *)range);
    if (!pfn_is_none(frames)) {
        frame_free(frames, RANGE_ORDER);
    }
}

bool bench_maps(const char *pattern, unsigned *run)
{
    bool success = prepare() &&
                   bench_list(subjects, sizeof(subjects) / sizeof(subjects[0]),
                              bench_measure, pattern, run);

    finish();
    return success;
}
