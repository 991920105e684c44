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

/* Free, but in no list that others see? */
static bool is_cached(pfn_t pfn)
{
    if (is_spare(pfn)) {
        return true;
    }
    for (unsigned i = 0; i < frame_cpu_count; i++) {
        for (unsigned k = 0; k < frame_cpus[i].count; k++) {
            if (pfn_equal(frame_cpus[i].frame[k], pfn)) {
                return true;
            }
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
    if (range->type != MEMMAP_USABLE || pfn.v == 0 || pfn.v >= trees_frames) {
        return FRAME_STATE_RESERVED;
    }
    switch (blocks_look(pfn)) {
    case BLOCKS_FREE:
        return FRAME_STATE_FREE;
    case BLOCKS_IN_WHOLE:
        return FRAME_STATE_ALLOCATED;
    case BLOCKS_TAKEN:
        break;
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

/* Add what one CPU has counted. */
static void add_cpu(const struct frame_cpu *cpu, struct frame_stats *out)
{
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        out->zone_free[zone] -= (uint64_t)cpu->taken[zone];
    }
    for (unsigned i = 0; i < cpu->count; i++) {
        out->zone_free[frame_zone_of(cpu->frame[i])]++;
    }
    for (unsigned type = 0; type < FRAME_TYPES; type++) {
        out->by_type[type] +=
            cpu->allocs[type] - cpu->frees[type] + (uint64_t)cpu->extra[type];
        out->allocs += cpu->allocs[type];
        out->frees += cpu->frees[type];
    }
    out->cached += cpu->count;
    out->metadata += cpu->metadata;
    out->failures += cpu->failures;
    out->refills += cpu->refills;
}

void frame_stats(struct frame_stats *out)
{
    *out = (struct frame_stats){.set_aside_bytes = frame_set_aside_bytes};
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        out->zone_managed[zone] = frame_zones[zone].managed;
        out->zone_free[zone] = frame_zones[zone].managed;
    }
    for (unsigned i = 0; i < frame_cpu_count; i++) {
        add_cpu(&frame_cpus[i], out);
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

/* I1 for one CPU. */
static bool check_array(const struct frame_cpu *cpu)
{
    CHECK_OR_FAIL(cpu->count <= ARRAY_FRAMES, "frame: array holds %u",
                  cpu->count);
    for (unsigned i = 0; i < cpu->count; i++) {
        pfn_t pfn = cpu->frame[i];
        CHECK_OR_FAIL(
            pfn.v < trees_frames && blocks_look(pfn) == BLOCKS_TAKEN &&
                record_exists(pfn) && record_of(pfn)->type == FRAME_NONE,
            "frame: I1: 0x%lx in an array", pfn_to_phys(pfn).v);
    }
    return true;
}

bool frame_check(void)
{
    struct frame_stats stats;
    uint64_t used = 0;

    for (unsigned i = 0; i < frame_cpu_count; i++) {
        if (!check_array(&frame_cpus[i])) {
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
        uint64_t free;
        if (!blocks_check(&frame_zones[zone].blocks, &free)) {
            return false;
        }
        in_bits += free;
    }
    CHECK_OR_FAIL(in_bits + stats.cached == stats.free,
                  "frame: I3: %lu free by the bits, %lu cached, %lu counted",
                  in_bits, stats.cached, stats.free);
    return true;
}
