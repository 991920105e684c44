/* SPDX-License-Identifier: MIT */
/* vellum: mm/ with frames and heap in an ordinary process, to be measured. */
/*
 * Stages 1 and 2 as docs/porting.md has them. RAM is one anonymous mapping of
 * 4 KiB pages, as the peers' memory is; the record array is another.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/memmap.h>
#include <mm/port.h>
#include <mm/record.h>
#include <mm/slab.h>
#include "bench/native/vellum.h"

static struct memmap map;
static void *storage;
static uint64_t backed_bytes; /* of the record array */

static bool claim(const void *context, size_t index, struct memmap_claim *out)
{
    const uint64_t *ram_bytes = context;

    *out = (struct memmap_claim){0, *ram_bytes, MEMMAP_USABLE, "RAM", ""};
    return index == 0;
}

/* The array is all there; its pages count from now on. */
static enum mm_status back(vaddr_t start, vaddr_t end)
{
    backed_bytes += end - start;
    return MM_OK;
}

static void *reserve(uint64_t address, uint64_t bytes)
{
    void *memory =
        mmap((void *)(uintptr_t)address, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
                 (address != 0 ? MAP_FIXED_NOREPLACE : 0),
             -1, 0);

    if (memory == MAP_FAILED) {
        native_fail("no address space for the RAM");
    }
    return memory;
}

static void insist(enum mm_status status)
{
    if (status != MM_OK) {
        native_fail(mm_status_name(status));
    }
}

static void start(uint64_t ram_bytes, unsigned threads)
{
    struct memmap_source source = {claim, &ram_bytes};
    struct memmap_limits limits = {ram_bytes, ram_bytes};
    paddr_t place;

    (void)threads;
    native_cpu_start(0);
    reserve(NATIVE_RAM_BASE, ram_bytes);
    insist(memmap_build(&source, &limits, &map));
    insist(memmap_carve(&map, frame_metadata_bytes(&map), PAGE_BYTES,
                        limits.mapped_end, "frame metadata", &place));
    storage = phys_to_virt(place);
    record_init(
        reserve(0, ram_bytes / PAGE_BYTES * sizeof(struct frame_record)), back);
    frame_init(&map, storage);
    insist(slab_init());
    insist(kmalloc_init());
}

static bool check(void)
{
    return native_bugs == 0 && frame_check() && slab_check() && kmalloc_check();
}

static void trim(void)
{
    slab_drain();
    frame_drain();
}

/* Frames in use, and the records that exist because of them. */
static uint64_t held_bytes(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    return (stats.managed - stats.free) * PAGE_BYTES + backed_bytes;
}

static uintptr_t take(unsigned order)
{
    return frame_alloc(order, FRAME_KERNEL, FRAME_ANY).v;
}
_Static_assert(NATIVE_NONE == UINT64_MAX, "what take() returns for PFN_NONE");

static void release(uintptr_t block, unsigned order)
{
    frame_free(pfn_of(block), order);
}

static uint64_t managed(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    return stats.free;
}

static uint64_t metadata_bytes(void)
{
    return frame_metadata_bytes(&map);
}

static void start_frames(void)
{
    frame_init(&map, storage);
}

struct native_allocator native = {
    .start = start,
    .enter = native_cpu_start,
    .check = check,
    .alloc = kmalloc_any,
    .free = kfree,
    .trim = trim,
    .held_bytes = held_bytes,
    .frame_alloc = take,
    .frame_free = release,
    .frame_drain = frame_drain,
    .frames_managed = managed,
    .metadata_bytes = metadata_bytes,
    .start_frames = start_frames,
};
