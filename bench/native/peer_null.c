/* SPDX-License-Identifier: MIT */
/* peer_null: no allocator, to see what the loop, calls and writes cost. */
/*
 * It gives out the same 32 KiB again and again, so that a workload's first
 * writes go where the first-level cache has them: a floor for all.
 */
#include "bench/native/native.h"

#define RING_BYTES (UINT64_C(1) << 15)
#define ALIGNMENT  UINT64_C(16)
#define CACHE_LINE 64

static _Thread_local struct {
    _Alignas(CACHE_LINE) unsigned char ring[RING_BYTES];
    uint64_t next;
} heap;

static _Thread_local uintptr_t frame;

static void start(uint64_t ram_bytes, unsigned threads)
{
    (void)ram_bytes;
    (void)threads;
}

static void enter(unsigned thread)
{
    (void)thread;
}

static bool check(void)
{
    return true;
}

static void *null_alloc(size_t bytes)
{
    uint64_t at = heap.next;

    heap.next = (at + bytes + ALIGNMENT - 1) & (RING_BYTES - ALIGNMENT);
    return &heap.ring[at];
}

static void null_free(void *object)
{
    (void)object;
}

static uintptr_t take(unsigned order)
{
    frame += UINT64_C(1) << order;
    return frame;
}

static void release(uintptr_t block, unsigned order)
{
    (void)block;
    (void)order;
}

struct native_allocator native = {
    .start = start,
    .enter = enter,
    .check = check,
    .alloc = null_alloc,
    .free = null_free,
    .frame_alloc = take,
    .frame_free = release,
};
