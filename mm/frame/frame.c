/* SPDX-License-Identifier: MIT */
/* frame: physical memory in blocks of 2^order frames. */
/*
 * Owns    the zones, what each CPU keeps for itself, the records of all frames
 *         that are handed out, the counters.
 * Idea    Most requests are for one frame and are followed by its release: the
 *         CPU's own array serves both with interrupts off and touches nothing
 *         that is shared. When it is empty, frames come from a row of 64 that
 *         was claimed by one exchange; they are not copied, its mask says
 *         which are left. A second array has frames that are known to be zero.
 *         Blocks of order 9 come from a quad in the same way. Behind them
 *         stand the bits of blocks.c.
 * Picture
 *     frame_alloc(0) <-- array of this CPU <-- its row of 64 frames <-- blocks
 *     frame_free(0)  --> array of this CPU --> oldest half, full --> blocks
 *                    \-- its block is sparse: a row that waits ----> blocks
 *     order 9       <--> quads, as rows ----------------------------> blocks
 *     other orders  <--> the last one freed <-----------------------> blocks
 *
 * Invariants
 *     I1 what a CPU keeps (arrays, parts, the last block freed) is taken by the
 *        bits and has records of type FRAME_NONE
 *     I2 a block that is handed out has records; the first has its type, its
 *        order and at least one reference
 *     I3 free frames of a zone = managed - taken, over all CPUs, and that is
 *        what the bits say
 * Locking None. A CPU's structure is touched with interrupts off only; others
 *         ask it to give back what it keeps (frame_short.c).
 * Cost    Orders 0 and 9: no atomic operation; now and then a few. Other
 *         orders: none if the last one freed is of that order, else one or two.
 * Limits  Two CPUs that free the same block at the same moment may both pass
 *         the check; the bits tell when the frames come back, and the counters
 *         by type stay wrong.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"
#include "base/lock.h"
#include "base/memory.h"

/* Such frames are used again at once if so many of one row have come back. */
#define PENDING_FRAMES 16

#define DRAIN_FRAMES (ARRAY_FRAMES / 2)

struct frame_cpu *frame_cpu_of[MM_MAX_CPUS];      /* (C) */
unsigned frame_cpu_count;                         /* (C) */
struct frame_zone_state frame_zones[FRAME_ZONES]; /* see the type */
enum frame_zone frame_top_zone;                   /* (C) */
struct memmap *frame_map;                         /* (C) */
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

    return cpu_bytes() + record_bytes(frames) + trees_bytes(map, frames);
}

static const struct {
    uint64_t start; /* frames */
    uint64_t end;
} zone_table[FRAME_ZONES] = {
    [ZONE_DMA] = {0, ZONE_DMA_END},
    [ZONE_DMA32] = {ZONE_DMA_END, ZONE_DMA32_END},
    [ZONE_NORMAL] = {ZONE_DMA32_END, FRAMES_REACH},
};

static void init_zones(void)
{
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        uint64_t managed =
            trees_usable(zone_table[zone].start, zone_table[zone].end);

        blocks_zone_init(&frame_zones[zone].blocks, zone_table[zone].start,
                         zone_table[zone].end);
        atomic_init(&frame_zones[zone].managed, managed);
        /* RAM that is kept back counts: frame_add() may bring it. */
        if (frame_zones[zone].blocks.first < frame_zones[zone].blocks.end) {
            frame_top_zone = (enum frame_zone)zone;
        }
    }
}

void frame_init(struct memmap *map, void *storage)
{
    uint64_t frames = frames_of(map);
    struct frame_cpu *cpus = storage;
    char *rest = (char *)storage + cpu_bytes();

    ASSERT(record_base != NULL);
    memset(cpus, 0, cpu_bytes());
    frame_cpu_count = port_cpu_count();
    for (unsigned i = 0; i < frame_cpu_count; i++) {
        frame_cpu_of[i] = &cpus[i];
        for (unsigned part = 0; part < PARTS; part++) {
            cpus[i].part[part].first = PFN_NONE;
        }
    }
    record_cover(frames, rest);
    trees_init(map, frames, rest + record_bytes(frames));
    init_zones();
    if (memmap_ram_end(map) > FRAMES_REACH << PAGE_SHIFT) {
        port_log("frame: RAM above 0x%lx is left alone, up to 0x%lx",
                 FRAMES_REACH << PAGE_SHIFT, memmap_ram_end(map));
    }
    frame_map = map;
    atomic_store_explicit(&frame_spare, 0, memory_order_relaxed);
    frame_forget_marks();
    lock_serve = frame_interrupt;
    frame_set_aside_bytes = frame_metadata_bytes(map);
}

/* --- allocation ---------------------------------------------------------- */

void frame_zero(pfn_t pfn, unsigned order)
{
    memset(phys_to_virt(pfn_to_phys(pfn)), 0, PAGE_BYTES << order);
}

/* Debug builds: is a frame that should be zero so? */
static void check_zero(pfn_t pfn)
{
    const uint64_t *word = phys_to_virt(pfn_to_phys(pfn));

    for (unsigned i = 0; i < PAGE_BYTES / sizeof(*word); i++) {
        if (word[i] != 0) {
            port_bug("frame: 0x%lx was written after it was freed: 0x%lx at "
                     "offset 0x%lx, should be 0",
                     pfn_to_phys(pfn).v, word[i],
                     (uint64_t)(i * sizeof(*word)));
            frame_zero(pfn, 0);
            return;
        }
    }
}

void frame_hand_out(pfn_t pfn, unsigned order, enum frame_type type)
{
    uint64_t irq = port_irq_save();

    frame_count_alloc(frame_this_cpu(), order, type);
    port_irq_restore(irq);
    frame_begin_record(pfn, order, type);
}

/* A frame this CPU keeps, if the next one is as low as @flags want it. */
static pfn_t pop_low(unsigned flags)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    uint32_t count = frame_count(cpu, ARRAY_PLAIN);
    enum frame_zone highest = frame_zone_for(flags);
    pfn_t next = count > 0 ? cpu->frame[ARRAY_PLAIN][count - 1]
                           : cpu->part[PART_ROW].first;
    pfn_t pfn = PFN_NONE;

    if (frame_zone_of(next) <= highest) {
        pfn = frame_pop_here(cpu, ARRAY_PLAIN);
    }
    port_irq_restore(irq);
    return pfn;
}

static bool refill(unsigned flags)
{
    bool success = !frame_is_barred(ROW_FRAMES, flags) && frame_refill();

    if (success && frame_is_watched) {
        frame_watch_marks();
    }
    return success;
}

/* A frame from what this CPU keeps, from a new row, or else from anywhere. */
static pfn_t claim_single(unsigned flags)
{
    struct blocks_wish wish = {.order = 0};
    pfn_t pfn = pop_low(flags);

    /* No row for who wants low memory: the rest would be used up high. */
    if (pfn_is_none(pfn) && frame_zone_for(flags) == ZONE_NORMAL &&
        (frame_take_pending(PENDING_FRAMES) || refill(flags) ||
         frame_take_pending(1))) {
        pfn = pop_low(flags);
    }
    if (!pfn_is_none(pfn)) {
        return pfn;
    }
    return frame_claim(&wish, flags) ? wish.pfn : PFN_NONE;
}

/* A single frame the fast path did not find. */
static MM_NOINLINE pfn_t alloc_single(enum frame_type type, unsigned flags)
{
    ASSERT(type > FRAME_NONE && type < FRAME_TYPES);
    pfn_t pfn = claim_single(flags);
    if (pfn_is_none(pfn)) {
        frame_count_failure();
        return PFN_NONE;
    }
    if (flags & FRAME_ZEROED) {
        frame_zero(pfn, 0);
        uint64_t irq = port_irq_save();
        frame_this_cpu()->zeroed_misses++;
        port_irq_restore(irq);
    }
    frame_hand_out(pfn, 0, type);
    return pfn;
}

/* A frame that was cleared ahead; else one that is cleared now. */
static MM_NOINLINE pfn_t alloc_zeroed(enum frame_type type, unsigned flags)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    bool is_ready = frame_count(cpu, ARRAY_ZEROED) != 0;
    pfn_t pfn = frame_pop_here(cpu, is_ready ? ARRAY_ZEROED : ARRAY_PLAIN);

    if (MM_UNLIKELY(pfn_is_none(pfn))) {
        port_irq_restore(irq);
        return alloc_single(type, flags);
    }
    cpu->allocs[type]++;
    cpu->zeroed_misses += is_ready ? 0 : 1;
    frame_begin_record(pfn, 0, type);
    port_irq_restore(irq);
    if (!is_ready) {
        frame_zero(pfn, 0);
    } else if (MM_DEBUG) {
        check_zero(pfn);
    }
    return pfn;
}

/* A single frame, with wishes. */
static MM_NOINLINE pfn_t alloc_wished(enum frame_type type, unsigned flags)
{
    return (flags & (FRAME_BELOW_4G | FRAME_BELOW_16M)) == 0 &&
                   (flags & FRAME_ZEROED) != 0
               ? alloc_zeroed(type, flags)
               : alloc_single(type, flags);
}

static inline pfn_t alloc(unsigned order, enum frame_type type, unsigned flags)
{
    pfn_t pfn;

    ASSERT_SLOW(type > FRAME_NONE && type < FRAME_TYPES);
    if (MM_UNLIKELY((order | flags) != 0)) {
        return order != 0 ? frame_alloc_block(order, type, flags)
                          : alloc_wished(type, flags);
    }
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    uint32_t count = frame_count(cpu, ARRAY_PLAIN);
    if (MM_LIKELY(count > 0)) {
        frame_set_count(cpu, ARRAY_PLAIN, count - 1);
        pfn = cpu->frame[ARRAY_PLAIN][count - 1];
    } else {
        uint64_t mask = frame_mask(cpu, PART_ROW);
        if (MM_UNLIKELY(mask == 0)) {
            port_irq_restore(irq);
            return alloc_single(type, flags);
        }
        pfn = frame_pop_part(cpu, PART_ROW, mask);
    }
    cpu->allocs[type]++;
    frame_begin_record(pfn, 0, type);
    port_irq_restore(irq);
    return pfn;
}

pfn_t frame_alloc_one(enum frame_type type, unsigned flags)
{
    return alloc(0, type, flags);
}

#if MM_INJECT
pfn_t frame_alloc_at(const char *site, unsigned order, enum frame_type type,
                     unsigned flags)
{
    if (frame_must_fail(site)) {
        frame_count_failure();
        return PFN_NONE;
    }
    return alloc(order, type, flags);
}
#else
pfn_t frame_alloc(unsigned order, enum frame_type type, unsigned flags)
{
    return alloc(order, type, flags);
}
#endif

/* --- release ------------------------------------------------------------- */

/*
 * Keep a frame that was freed where it does most good, if that is at hand:
 * in the row it came from, with others of its row if its block is sparse, or
 * in the array. Interrupts are off.
 */
static inline bool keep(struct frame_cpu *cpu, pfn_t pfn)
{
    uint64_t row = align_down(pfn.v, ROW_FRAMES);
    uint64_t bit = UINT64_C(1) << (pfn.v % ROW_FRAMES);
    uint32_t count = frame_count(cpu, ARRAY_PLAIN);

    if (frame_is_in_part(cpu, PART_ROW, row)) {
        frame_add_to_part(cpu, PART_ROW, bit);
        return true;
    }
    if (frame_is_sparse(pfn)) {
        if (!frame_is_in_part(cpu, PART_ROW_NEW, row)) {
            return false;
        }
        frame_add_to_part(cpu, PART_ROW_NEW, bit);
        return true;
    }
    if (MM_UNLIKELY(count >= cpu->limit)) {
        return false;
    }
    cpu->frame[ARRAY_PLAIN][count] = pfn;
    frame_set_count(cpu, ARRAY_PLAIN, count + 1);
    return true;
}

/* A checked single frame for which the array is not the place. */
static MM_NOINLINE void free_elsewhere(pfn_t pfn)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    uint32_t count = frame_count(cpu, ARRAY_PLAIN);

    if (frame_is_short()) {
        frame_release(pfn, 0);
        port_irq_restore(irq);
        return;
    }
    if (frame_is_sparse(pfn)) {
        frame_drain_part(cpu, PART_ROW_NEW);
        cpu->part[PART_ROW_NEW].first = pfn_of(align_down(pfn.v, ROW_FRAMES));
    } else {
        cpu->limit = ARRAY_FRAMES;
        if (count == ARRAY_FRAMES) {
            frame_drain_array(ARRAY_PLAIN, DRAIN_FRAMES);
        }
    }
    bool is_kept = keep(cpu, pfn);
    port_irq_restore(irq);
    if (!is_kept) {
        frame_release(pfn, 0); /* sparse or not has changed meanwhile */
    }
}

void frame_free(pfn_t pfn, unsigned order)
{
    if (MM_UNLIKELY(order != 0 || !record_exists(pfn))) {
        frame_free_block(pfn, order);
        return;
    }
    struct frame_record *record = record_of(pfn);
    unsigned type = record_kind(record); /* since the order is 0 */
    if (MM_UNLIKELY(type - 1 >= FRAME_TYPES - 1 || record_refs(record) != 1)) {
        frame_report("frame_free", pfn, order);
        return;
    }
    if (frame_is_free_by_bits(pfn, order)) {
        return;
    }
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    cpu->frees[type]++;
    frame_end_record(record);
    bool is_kept = keep(cpu, pfn);
    port_irq_restore(irq);
    if (MM_UNLIKELY(!is_kept)) {
        free_elsewhere(pfn);
    }
}
