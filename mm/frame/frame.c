/* SPDX-License-Identifier: MIT */
/* frame: physical memory in blocks of 2^order frames. */
/*
 * Owns    the zones, an array of single frames for each CPU, the records of
 *         all frames that are handed out, the counters.
 * Idea    Most requests are for one frame and are followed by its release: the
 *         CPU's own array serves both with interrupts off and touches nothing
 *         that is shared. Behind it stand the bits of blocks.c.
 * Picture
 *     frame_alloc(0) <-- array of this CPU <-- a row of 64 frames -- blocks
 *     frame_free(0)  --> array of this CPU --> oldest half, full  --> blocks
 *                    \-- every eighth -----------------------------> blocks
 *     other orders  <----------------------------------------------> blocks
 *
 * Invariants
 *     I1 a frame in an array has its bit set and a record of type FRAME_NONE
 *     I2 a block that is handed out has records; the first has its type, its
 *        order and at least one reference
 *     I3 free frames of a zone = managed - taken, over all CPUs, and that is
 *        what the bits say
 * Locking None. A CPU's structure is touched with interrupts off only.
 * Cost    Order 0: no atomic operation; every 8th free and every 64th
 *         allocation a few. Other orders: see blocks.c.
 * Limits  Frames in the array of another CPU are not found when memory is
 *         short. Two CPUs that free the same block at the same moment may
 *         both pass the check; the bits tell when the frames come back.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"

/*
 * Every so many frees one passes the array by. Otherwise a CPU that allocates
 * and frees in turn would keep frames of many blocks moving among its users,
 * and none of these blocks would ever be free altogether. A free past the
 * array is three atomic operations: less than half of one for each free.
 */
#define BYPASS_EVERY 8

#define DRAIN_FRAMES (ARRAY_FRAMES / 2)
_Static_assert(BYPASS_EVERY <= DRAIN_FRAMES,
               "what a drain leaves has room for the frees until the next");

struct frame_cpu *frame_cpus;                     /* (C) */
unsigned frame_cpu_count;                         /* (C) */
struct frame_zone_state frame_zones[FRAME_ZONES]; /* see the type */
struct memmap *frame_map;                         /* (C) */
_Atomic uint64_t frame_spare;                     /* (A) see frame_impl.h */
uint64_t frame_set_aside_bytes;                   /* (C) */

/* --- start --------------------------------------------------------------- */

static uint64_t cpu_bytes(void)
{
    return port_cpu_count() * sizeof(struct frame_cpu);
}

static uint64_t frames_of(const struct memmap *map)
{
    return min_u64(memmap_ram_end(map) >> PAGE_SHIFT, FRAMES_REACH);
}

uint64_t frame_metadata_bytes(const struct memmap *map)
{
    uint64_t frames = frames_of(map);

    return cpu_bytes() + record_bytes(frames) + trees_bytes(frames);
}

static const struct {
    uint64_t start; /* frames */
    uint64_t end;
} zone_table[FRAME_ZONES] = {
    [ZONE_DMA] = {0, ZONE_DMA_END},
    [ZONE_DMA32] = {ZONE_DMA_END, ZONE_DMA32_END},
    [ZONE_NORMAL] = {ZONE_DMA32_END, FRAMES_REACH},
};

void frame_init(struct memmap *map, void *storage)
{
    ASSERT(record_base != NULL);
    frame_cpus = storage;
    frame_cpu_count = port_cpu_count();
    memset(frame_cpus, 0, cpu_bytes());
    uint64_t frames = frames_of(map);
    char *rest = (char *)storage + cpu_bytes();
    record_cover(frames, rest);
    trees_init(map, frames, rest + record_bytes(frames));
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        blocks_zone_init(&frame_zones[zone].blocks, zone_table[zone].start,
                         zone_table[zone].end);
        frame_zones[zone].managed =
            trees_usable(map, zone_table[zone].start, zone_table[zone].end);
    }
    if (memmap_ram_end(map) > FRAMES_REACH << PAGE_SHIFT) {
        port_log("frame: RAM above 0x%lx is left alone, up to 0x%lx",
                 FRAMES_REACH << PAGE_SHIFT, memmap_ram_end(map));
    }
    frame_map = map;
    atomic_store_explicit(&frame_spare, 0, memory_order_relaxed);
    frame_set_aside_bytes = frame_metadata_bytes(map);
}

/* --- failures on demand -------------------------------------------------- */

#if MM_INJECT
static _Atomic uint64_t inject_at;    /* (A) the call that fails; 0 = none */
static _Atomic uint64_t inject_tried; /* (A) calls since frame_inject() */

void frame_inject(uint64_t nth)
{
    atomic_store_explicit(&inject_tried, 0, memory_order_relaxed);
    atomic_store_explicit(&inject_at, nth, memory_order_relaxed);
}

uint64_t frame_inject_count(void)
{
    return atomic_load_explicit(&inject_tried, memory_order_relaxed);
}

/* The choke point: each allocation asks here whether it must fail. */
static bool must_fail(void)
{
    uint64_t call =
        atomic_fetch_add_explicit(&inject_tried, 1, memory_order_relaxed) + 1;

    return call == atomic_load_explicit(&inject_at, memory_order_relaxed);
}
#else
static bool must_fail(void)
{
    return false;
}
#endif

/* --- counters ------------------------------------------------------------ */

/* This CPU's structure; interrupts are off. */
static inline struct frame_cpu *this_cpu(void)
{
    return &frame_cpus[port_cpu()];
}

/* @frames at @pfn left the shared structure; negative: came back. */
static void count_taken(pfn_t pfn, int64_t frames)
{
    uint64_t irq = port_irq_save();

    this_cpu()->taken[frame_zone_of(pfn)] += frames;
    port_irq_restore(irq);
}

static void count_failure(void)
{
    uint64_t irq = port_irq_save();

    this_cpu()->failures++;
    port_irq_restore(irq);
}

/* --- from and to the shared structure ------------------------------------ */

static void release_row(pfn_t first, uint64_t mask)
{
    if (!blocks_release_row(&frame_zones[frame_zone_of(first)].blocks, first,
                            mask)) {
        port_bug("frame: some of the frames 0x%lx in the row at 0x%lx are "
                 "free already",
                 mask, pfn_to_phys(first).v);
        return;
    }
    count_taken(first, -(int64_t)count_bits(mask));
}

static void release_block(pfn_t pfn, unsigned order)
{
    if (!blocks_release(&frame_zones[frame_zone_of(pfn)].blocks, pfn, order)) {
        port_bug("frame: part of the block at 0x%lx, order %u, is free "
                 "already",
                 pfn_to_phys(pfn).v, order);
        return;
    }
    count_taken(pfn, -(INT64_C(1) << order));
}

/* Give back @count frames, those of one row together. */
static void release_frames(const pfn_t *frame, unsigned count)
{
    for (unsigned i = 0; i < count;) {
        uint64_t row = align_down(frame[i].v, ROW_FRAMES);
        uint64_t mask = 0;
        for (; i < count && align_down(frame[i].v, ROW_FRAMES) == row; i++) {
            mask |= UINT64_C(1) << (frame[i].v - row);
        }
        release_row(pfn_of(row), mask);
    }
}

/* Give back the @count oldest frames of the array; interrupts are off. */
static void drain(struct frame_cpu *cpu, unsigned count)
{
    ASSERT(count <= cpu->count);
    release_frames(cpu->frame, count);
    cpu->count -= count;
    memmove(cpu->frame, cpu->frame + count, cpu->count * sizeof(pfn_t));
}

/* Give back what is left of a run for metadata. */
static void release_spare(uint64_t spare)
{
    pfn_t run = spare_run(spare);
    uint64_t row = align_down(run.v, ROW_FRAMES);

    if (spare_mask(spare) != 0) {
        release_row(pfn_of(row), (uint64_t)spare_mask(spare) << (run.v - row));
    }
}

void frame_drain(void)
{
    uint64_t irq = port_irq_save();

    drain(this_cpu(), this_cpu()->count);
    port_irq_restore(irq);
    release_spare(
        atomic_exchange_explicit(&frame_spare, 0, memory_order_relaxed));
}

/* Does this CPU hold anything that frame_drain() would give back? */
static bool can_drain(void)
{
    uint64_t irq = port_irq_save();
    bool has_frames = this_cpu()->count > 0;

    port_irq_restore(irq);
    return has_frames || spare_mask(atomic_load_explicit(
                             &frame_spare, memory_order_relaxed)) != 0;
}

/* Take from the highest zone that has it, then without trust in hints. */
static bool claim_once(struct blocks_wish *wish, enum frame_zone highest)
{
    uint64_t irq = port_irq_save();
    blocks_seat *seat = &this_cpu()->seat;

    port_irq_restore(irq);
    for (unsigned zone = highest + 1; zone-- > 0;) {
        if (blocks_claim(&frame_zones[zone].blocks, seat, wish)) {
            return true;
        }
    }
    for (unsigned zone = highest + 1; zone-- > 0;) {
        if (blocks_claim_anywhere(&frame_zones[zone].blocks, wish)) {
            return true;
        }
    }
    return false;
}

/* The same, and if that fails, with what this CPU has kept for itself. */
static bool claim(struct blocks_wish *wish, enum frame_zone highest)
{
    if (claim_once(wish, highest)) {
        return true;
    }
    if (!can_drain()) {
        return false;
    }
    frame_drain();
    return claim_once(wish, highest);
}

/* Put the frames @mask of the row at @first into the array, as many as fit. */
static void fill_array(pfn_t first, uint64_t mask)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = this_cpu();

    cpu->refills++;
    while (mask != 0 && cpu->count < ARRAY_FRAMES - BYPASS_EVERY) {
        unsigned bit = highest_bit(mask); /* the lowest goes out first */
        mask &= ~(UINT64_C(1) << bit);
        cpu->frame[cpu->count++] = pfn_add(first, bit);
    }
    port_irq_restore(irq);
    if (mask != 0) {
        release_row(first, mask); /* an interrupt has filled it meanwhile */
    }
}

/* A single frame when the array has none; the rest of its row goes there. */
static pfn_t claim_single(void)
{
    struct blocks_wish wish = {.order = BLOCKS_ROW};

    if (!claim(&wish, ZONE_NORMAL)) {
        return PFN_NONE;
    }
    unsigned bit = lowest_bit(wish.mask);
    wish.mask &= wish.mask - 1;
    count_taken(wish.pfn, 1 + (int64_t)count_bits(wish.mask));
    fill_array(wish.pfn, wish.mask);
    return pfn_add(wish.pfn, bit);
}

/* A block of 2^order frames, with or without records. */
static pfn_t claim_block(struct blocks_wish wish, enum frame_zone highest)
{
    if (!claim(&wish, highest)) {
        return PFN_NONE;
    }
    count_taken(wish.pfn, INT64_C(1) << wish.order);
    return wish.pfn;
}

/* The next frame of the array, if it lies in @highest or below. */
static pfn_t pop_array(enum frame_zone highest)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = this_cpu();
    pfn_t pfn = PFN_NONE;

    if (cpu->count > 0 &&
        frame_zone_of(cpu->frame[cpu->count - 1]) <= highest) {
        pfn = cpu->frame[--cpu->count];
    }
    port_irq_restore(irq);
    return pfn;
}

/* --- allocation ---------------------------------------------------------- */

static void zero_frames(pfn_t pfn, unsigned order)
{
    memset(phys_to_virt(pfn_to_phys(pfn)), 0, PAGE_BYTES << order);
}

static enum frame_zone highest_zone(unsigned flags)
{
    if (flags & FRAME_BELOW_16M) {
        return ZONE_DMA;
    }
    return flags & FRAME_BELOW_4G ? ZONE_DMA32 : ZONE_NORMAL;
}

/* Whatever the array did not serve at once. */
static MM_NOINLINE pfn_t alloc_slowly(unsigned order, enum frame_type type,
                                      unsigned flags)
{
    enum frame_zone highest = highest_zone(flags);
    pfn_t pfn = PFN_NONE;

    ASSERT(order <= MM_MAX_ORDER);
    ASSERT(type > FRAME_NONE && type < FRAME_TYPES);
    if (order == 0) {
        pfn = pop_array(highest);
    }
    if (pfn_is_none(pfn)) {
        /* No row for who wants low memory: the rest would be used up high. */
        pfn = order == 0 && highest == ZONE_NORMAL
                  ? claim_single()
                  : claim_block((struct blocks_wish){.order = order}, highest);
    }
    if (pfn_is_none(pfn)) {
        count_failure();
        return PFN_NONE;
    }
    frame_begin_record(pfn, order, type);
    if (flags & FRAME_ZEROED) {
        zero_frames(pfn, order);
    }
    uint64_t irq = port_irq_save();
    this_cpu()->allocs[type]++;
    this_cpu()->extra[type] += (INT64_C(1) << order) - 1;
    port_irq_restore(irq);
    return pfn;
}

pfn_t frame_alloc(unsigned order, enum frame_type type, unsigned flags)
{
    ASSERT_SLOW(type > FRAME_NONE && type < FRAME_TYPES);
    if (MM_UNLIKELY(must_fail())) {
        count_failure();
        return PFN_NONE;
    }
    if (MM_LIKELY((order | flags) == 0)) {
        uint64_t irq = port_irq_save();
        struct frame_cpu *cpu = this_cpu();
        if (MM_LIKELY(cpu->count > 0)) {
            pfn_t pfn = cpu->frame[--cpu->count];
            cpu->allocs[type]++;
            frame_begin_record(pfn, 0, type);
            port_irq_restore(irq);
            return pfn;
        }
        port_irq_restore(irq);
    }
    return alloc_slowly(order, type, flags);
}

/* One of the frames kept for metadata, or PFN_NONE. */
static pfn_t pop_spare(void)
{
    uint64_t spare = atomic_load_explicit(&frame_spare, memory_order_acquire);

    while (spare_mask(spare) != 0) {
        /* Without its last frame it is no run: 0, as keep_spare() wants. */
        uint64_t rest = spare & (spare - 1);
        rest = spare_mask(rest) == 0 ? 0 : rest;
        /* Acquire: pairs with the release in keep_spare(). */
        if (atomic_compare_exchange_weak_explicit(&frame_spare, &spare, rest,
                                                  memory_order_acquire,
                                                  memory_order_acquire)) {
            return pfn_add(spare_run(spare), lowest_bit(spare));
        }
    }
    return PFN_NONE;
}

/* Keep a run for metadata, unless another CPU was faster. */
static void keep_spare(uint64_t spare)
{
    uint64_t none = 0;

    /* Release: pairs with the acquire in pop_spare(). */
    if (!atomic_compare_exchange_strong_explicit(&frame_spare, &none, spare,
                                                 memory_order_release,
                                                 memory_order_relaxed)) {
        release_spare(spare);
    }
}

/*
 * Frames of metadata never come back: each one alone would spoil a block of
 * 2 MiB for good. So they are taken a run at a time.
 */
static pfn_t claim_metadata(void)
{
    pfn_t pfn = pop_spare();

    if (!pfn_is_none(pfn)) {
        return pfn;
    }
    struct blocks_wish run = {.order = SPARE_ORDER, .is_raw = true};
    pfn = claim_block(run, ZONE_NORMAL);
    if (pfn_is_none(pfn)) {
        struct blocks_wish one = {.order = 0, .is_raw = true};
        return claim_block(one, ZONE_NORMAL);
    }
    keep_spare((pfn.v >> SPARE_ORDER) << 32 | (UINT32_MAX - 1));
    return pfn;
}

pfn_t frame_alloc_metadata(void)
{
    pfn_t pfn = must_fail() ? PFN_NONE : claim_metadata();

    if (pfn_is_none(pfn)) {
        count_failure();
        return PFN_NONE;
    }
    if (MM_DEBUG && record_exists(pfn)) {
        frame_check_stamps(pfn, 0);
    }
    zero_frames(pfn, 0);
    uint64_t irq = port_irq_save();
    this_cpu()->metadata++;
    port_irq_restore(irq);
    return pfn;
}

/* --- release ------------------------------------------------------------- */

/* A checked single frame whose turn it is to pass the array by. */
static MM_NOINLINE void free_past_array(pfn_t pfn)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = this_cpu();

    /* Leave room for the frees until next time: they do not look. */
    if (cpu->count > ARRAY_FRAMES - BYPASS_EVERY) {
        drain(cpu, DRAIN_FRAMES);
    }
    cpu->until_bypass = BYPASS_EVERY - 1;
    port_irq_restore(irq);
    release_block(pfn, 0);
}

static MM_NOINLINE void free_block(pfn_t pfn, unsigned order)
{
    unsigned type = FRAME_NONE;

    if (order <= MM_MAX_ORDER && record_exists(pfn)) {
        type = frame_sole_type(record_of(pfn), order);
    }
    if (type == FRAME_NONE) {
        frame_report("frame_free", pfn, order);
        return;
    }
    uint64_t irq = port_irq_save();
    this_cpu()->frees[type]++;
    this_cpu()->extra[type] -= (INT64_C(1) << order) - 1;
    port_irq_restore(irq);
    frame_end_record(record_of(pfn));
    release_block(pfn, order);
}

void frame_free(pfn_t pfn, unsigned order)
{
    if (MM_UNLIKELY(order != 0 || !record_exists(pfn))) {
        free_block(pfn, order);
        return;
    }
    struct frame_record *record = record_of(pfn);
    unsigned type = record_kind(record); /* since the order is 0 */
    if (MM_UNLIKELY(type - 1 >= FRAME_TYPES - 1 || record_refs(record) != 1)) {
        free_block(pfn, order); /* reports it */
        return;
    }
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = this_cpu();
    cpu->frees[type]++;
    frame_end_record(record);
    if (MM_LIKELY(--cpu->until_bypass >= 0)) {
        cpu->frame[cpu->count++] = pfn;
        port_irq_restore(irq);
        return;
    }
    port_irq_restore(irq);
    free_past_array(pfn);
}

/* --- more frames --------------------------------------------------------- */

enum mm_status frame_add(pfn_t start, pfn_t end)
{
    if (start.v == 0 || start.v >= end.v || end.v > trees_frames) {
        return MM_EINVAL;
    }
    /* Trees that wake later are filled from the changed map. */
    blocks_touch(start, end);
    enum mm_status status =
        memmap_release(frame_map, pfn_to_phys(start), pfn_to_phys(end));
    if (status != MM_OK) {
        return status;
    }
    for (uint64_t at = start.v; at < end.v;) {
        uint64_t row = align_down(at, ROW_FRAMES);
        uint64_t stop = min_u64(end.v, row + ROW_FRAMES);
        uint64_t mask = low_bits((unsigned)(stop - at)) << (at - row);
        enum frame_zone zone = frame_zone_of(pfn_of(row));
        bool was_taken =
            blocks_release_row(&frame_zones[zone].blocks, pfn_of(row), mask);
        ASSERT(was_taken); /* the map had kept them back */
        frame_zones[zone].managed += stop - at;
        at = stop;
    }
    return MM_OK;
}
