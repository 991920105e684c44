/* SPDX-License-Identifier: MIT */
/* frame_look: what frames are, figures, reports and checks. */
/*
 * Owns    nothing: it reads what frame.c and blocks.c own.
 * Idea    Nothing here is on a hot path, so questions are answered from the
 *         truth itself: the bits, the records, the map. Figures are sums over
 *         the CPUs' own counters.
 * Limits  Answers about frames that other CPUs allocate or free meanwhile are
 *         those of some moment; frame_check() wants them at rest.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"

static const char *const zone_name[FRAME_ZONES] = {
    [ZONE_DMA] = "DMA", [ZONE_DMA32] = "DMA32", [ZONE_NORMAL] = "Normal"};

const char *frame_zone_name(enum frame_zone zone)
{
    return (unsigned)zone < FRAME_ZONES ? zone_name[zone] : "unknown";
}

/* --- looking ------------------------------------------------------------- */

/* Kept for metadata? */
static bool is_spare(pfn_t pfn)
{
    uint64_t spare = atomic_load_explicit(&frame_spare, memory_order_relaxed);
    uint64_t index = pfn.v - spare_run(spare).v;

    return index < UINT64_C(1) << SPARE_ORDER &&
           (spare_mask(spare) >> index & 1) != 0;
}

static bool is_in_part(const struct frame_cpu *cpu, enum frame_part part,
                       pfn_t pfn)
{
    uint64_t bit = pfn.v - cpu->part[part].first.v;

    if (part >= PART_QUAD) {
        bit = bit / BLOCK_FRAMES * COUNT_BITS;
    }
    return bit < 64 && (frame_mask(cpu, part) >> bit & 1) != 0;
}

static bool is_kept_by(const struct frame_cpu *cpu, pfn_t pfn)
{
    for (unsigned array = 0; array < ARRAYS; array++) {
        for (unsigned i = 0; i < frame_count(cpu, (enum frame_array)array);
             i++) {
            if (pfn_equal(cpu->frame[array][i], pfn)) {
                return true;
            }
        }
    }
    for (unsigned part = 0; part < PARTS; part++) {
        if (is_in_part(cpu, (enum frame_part)part, pfn)) {
            return true;
        }
    }
    unsigned order = frame_recent_order(cpu);
    return order != 0 && pfn.v - cpu->recent.v < UINT64_C(1) << order;
}

/* Free, but in no list that others see? */
static bool is_cached(pfn_t pfn)
{
    if (is_spare(pfn)) {
        return true;
    }
    for (unsigned i = 0; i < frame_cpu_count; i++) {
        if (is_kept_by(frame_cpu_of[i], pfn)) {
            return true;
        }
    }
    return false;
}

/*
 * First frame of the block handed out that holds @pfn, or PFN_NONE. Heads
 * can only be where blocks of their order begin.
 */
static pfn_t head_of(pfn_t pfn)
{
    for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
        pfn_t head = pfn_of(align_down(pfn.v, UINT64_C(1) << order));
        if (!record_exists(head)) {
            return PFN_NONE;
        }
        const struct frame_record *record = record_of(head);
        if (record->type != FRAME_NONE && record->order <= MM_MAX_ORDER &&
            record->order >= order) {
            return head;
        }
    }
    return PFN_NONE;
}

enum frame_state frame_state(pfn_t pfn)
{
    const struct memmap_range *range = NULL;

    if (pfn.v <= UINT64_MAX >> PAGE_SHIFT) {
        range = memmap_find(frame_map, pfn_to_phys(pfn));
    }
    if (range == NULL || !memmap_is_ram(range->type)) {
        return FRAME_STATE_NO_RAM;
    }
    if (range->type == MEMMAP_OFFLINE) {
        return FRAME_STATE_OFFLINE;
    }
    if (range->type != MEMMAP_USABLE || pfn.v == 0 || pfn.v >= trees_frames) {
        return FRAME_STATE_RESERVED;
    }
    if (blocks_is_free(pfn)) {
        return FRAME_STATE_FREE;
    }
    if (!pfn_is_none(head_of(pfn))) {
        return FRAME_STATE_ALLOCATED;
    }
    return is_cached(pfn) ? FRAME_STATE_CACHED : FRAME_STATE_METADATA;
}

/* --- reports ------------------------------------------------------------- */

/* What @pfn is, if it is no block that is handed out. */
static const char *what_it_is(pfn_t pfn)
{
    switch (frame_state(pfn)) {
    case FRAME_STATE_FREE:
        return "is free already";
    case FRAME_STATE_CACHED:
        return "is free already (kept by a CPU)";
    case FRAME_STATE_METADATA:
        return "holds the allocator's own data";
    case FRAME_STATE_RESERVED:
        return "was never the allocator's";
    case FRAME_STATE_OFFLINE:
        return "was taken out of use";
    case FRAME_STATE_NO_RAM:
        return "is not RAM";
    case FRAME_STATE_ALLOCATED:
        break;
    }
    return "is in use, and its record says nothing";
}

void frame_report(const char *what, pfn_t pfn, unsigned order)
{
    uint64_t address = pfn_to_phys(pfn).v;
    pfn_t head = PFN_NONE;

    if (frame_state(pfn) == FRAME_STATE_ALLOCATED) {
        head = head_of(pfn);
    }
    if (pfn_is_none(head)) {
        port_bug("%s: 0x%lx, order %u, %s", what, address, order,
                 what_it_is(pfn));
        return;
    }
    const struct frame_record *record = record_of(head);
    if (!pfn_equal(head, pfn)) {
        port_bug("%s: 0x%lx, order %u, is inside the %s block at 0x%lx of "
                 "order %u",
                 what, address, order,
                 frame_type_name((enum frame_type)record->type),
                 pfn_to_phys(head).v, record->order);
        return;
    }
    port_bug("%s: 0x%lx, order %u, is a %s block of order %u with %u "
             "holders",
             what, address, order,
             frame_type_name((enum frame_type)record->type), record->order,
             record_refs(record));
}

/* --- figures ------------------------------------------------------------- */

/* Add what one CPU keeps, and what it has counted. */
static void add_cpu(const struct frame_cpu *cpu, struct frame_stats *out)
{
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        out->zone_free[zone] -=
            (uint64_t)frame_taken(cpu, (enum frame_zone)zone);
    }
    for (unsigned array = 0; array < ARRAYS; array++) {
        uint32_t count = frame_count(cpu, (enum frame_array)array);
        for (unsigned i = 0; i < count; i++) {
            out->zone_free[frame_zone_of(cpu->frame[array][i])]++;
        }
        out->cached += count;
    }
    for (unsigned part = 0; part < PARTS; part++) {
        uint64_t frames = frame_mask_frames(
            (enum frame_part)part, frame_mask(cpu, (enum frame_part)part));
        out->zone_free[frame_zone_of(cpu->part[part].first)] += frames;
        out->cached += frames;
    }
    if (frame_recent_order(cpu) != 0) {
        uint64_t frames = UINT64_C(1) << frame_recent_order(cpu);
        out->zone_free[frame_zone_of(cpu->recent)] += frames;
        out->cached += frames;
    }
    for (unsigned type = 0; type < FRAME_TYPES; type++) {
        out->by_type[type] +=
            cpu->allocs[type] - cpu->frees[type] + (uint64_t)cpu->extra[type];
        out->allocs += cpu->allocs[type];
        out->frees += cpu->frees[type];
    }
    out->metadata += cpu->metadata;
    out->failures += cpu->failures;
    out->refills += cpu->refills;
    out->drains += cpu->drains;
    out->reclaims += cpu->reclaims;
}

/* What was cleared ahead and is no longer there was of use, or lost. */
static void add_zeroed(const struct frame_cpu *cpu, struct frame_stats *out)
{
    uint32_t ready = frame_count(cpu, ARRAY_ZEROED);

    out->zeroed += ready;
    out->zeroed_filled += cpu->zeroed_filled;
    out->zeroed_misses += cpu->zeroed_misses;
    out->zeroed_hits += cpu->zeroed_filled - cpu->zeroed_lost - ready;
}

void frame_stats(struct frame_stats *out)
{
    *out = (struct frame_stats){.set_aside_bytes = frame_set_aside_bytes};
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        out->zone_managed[zone] = frame_managed((enum frame_zone)zone);
        out->zone_free[zone] = out->zone_managed[zone];
    }
    for (unsigned i = 0; i < frame_cpu_count; i++) {
        add_cpu(frame_cpu_of[i], out);
        add_zeroed(frame_cpu_of[i], out);
    }
    uint64_t spare = atomic_load_explicit(&frame_spare, memory_order_relaxed);
    out->cached += count_bits(spare_mask(spare));
    out->zone_free[frame_zone_of(spare_run(spare))] +=
        count_bits(spare_mask(spare));
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        out->managed += out->zone_managed[zone];
        out->free += out->zone_free[zone];
    }
}

void frame_free_blocks(enum frame_zone zone,
                       uint64_t out_count[MM_MAX_ORDER + 1])
{
    memset(out_count, 0, (MM_MAX_ORDER + 1) * sizeof(out_count[0]));
    blocks_count(&frame_zones[zone].blocks, out_count);
}

/* I1 for one frame that a CPU keeps. */
static bool check_kept(pfn_t pfn)
{
    CHECK_OR_FAIL(pfn.v < trees_frames && !blocks_is_free(pfn) &&
                      record_exists(pfn) && record_of(pfn)->type == FRAME_NONE,
                  "frame: I1: 0x%lx is kept by a CPU", pfn_to_phys(pfn).v);
    return true;
}

static bool check_part(const struct frame_cpu *cpu, enum frame_part part)
{
    for (uint64_t mask = frame_mask(cpu, part); mask != 0; mask &= mask - 1) {
        if (!check_kept(frame_in_part(cpu, part, lowest_bit(mask)))) {
            return false;
        }
    }
    return true;
}

static bool check_cpu(const struct frame_cpu *cpu)
{
    for (unsigned array = 0; array < ARRAYS; array++) {
        uint32_t count = frame_count(cpu, (enum frame_array)array);
        CHECK_OR_FAIL(count <= ARRAY_FRAMES, "frame: array holds %u", count);
        for (unsigned i = 0; i < count; i++) {
            if (!check_kept(cpu->frame[array][i])) {
                return false;
            }
        }
    }
    if (frame_recent_order(cpu) != 0 && !check_kept(cpu->recent)) {
        return false;
    }
    for (unsigned part = 0; part < PARTS; part++) {
        if (!check_part(cpu, (enum frame_part)part)) {
            return false;
        }
    }
    return true;
}

static bool check_zone(const struct blocks_zone *zone, uint64_t *total)
{
    for (uint32_t tree = zone->first; tree < zone->end; tree++) {
        uint64_t free;
        if (!trees_check(tree, &free)) {
            return false;
        }
        *total += free;
    }
    return true;
}

bool frame_check(void)
{
    struct frame_stats stats;
    uint64_t used = 0;

    for (unsigned i = 0; i < frame_cpu_count; i++) {
        if (!check_cpu(frame_cpu_of[i])) {
            return false;
        }
    }
    frame_stats(&stats);
    for (unsigned type = 0; type < FRAME_TYPES; type++) {
        used += stats.by_type[type];
    }
    CHECK_OR_FAIL(used + stats.metadata + stats.free == stats.managed,
                  "frame: I3: %lu used, %lu metadata, %lu free of %lu", used,
                  stats.metadata, stats.free, stats.managed);
    uint64_t in_bits = 0;
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        if (!check_zone(&frame_zones[zone].blocks, &in_bits)) {
            return false;
        }
    }
    CHECK_OR_FAIL(in_bits + stats.cached == stats.free,
                  "frame: I3: %lu free by the bits, %lu cached, %lu counted",
                  in_bits, stats.cached, stats.free);
    return true;
}
