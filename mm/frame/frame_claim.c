/* SPDX-License-Identifier: MIT */
/* frame_claim: from and to the shared structure. */
/*
 * Owns    nothing: it goes between the CPUs' structures and blocks.c.
 * Idea    What is asked of others grows with the need, zone by zone: this
 *         CPU's seat; trees where nobody sits; trees where others do. Only
 *         when no zone has anything, frame_short.c asks all CPUs for what they
 *         keep, and for a search without trust in hints.
 * Locking None. What is on its way between a CPU and the shared structure is
 *         so with interrupts off: it is in sight again before anybody who has
 *         asked this CPU can have its answer.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"

/* Seats tried for a row. */
#define SEATS_TRIED 4

/* --- back ----------------------------------------------------------------- */

static struct blocks_zone *zone_of(pfn_t pfn)
{
    return &frame_zones[frame_zone_of(pfn)].blocks;
}

void frame_release(pfn_t pfn, unsigned order)
{
    enum frame_zone zone = frame_zone_of(pfn);
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    bool success =
        blocks_release_near(&cpu->seat[blocks_use_of(order)], pfn, order) ||
        blocks_release(&frame_zones[zone].blocks, cpu->seat, pfn, order);

    if (MM_LIKELY(success)) {
        frame_add_taken(cpu, zone, -(INT64_C(1) << order));
        frame_note_motion();
    }
    port_irq_restore(irq);
    if (MM_UNLIKELY(!success)) {
        port_bug("frame: part of the block at 0x%lx, order %u, is free "
                 "already",
                 pfn_to_phys(pfn).v, order);
    }
}

void frame_release_part(enum frame_part part, pfn_t first, uint64_t mask)
{
    enum frame_zone zone = frame_zone_of(first);
    struct blocks_zone *blocks = &frame_zones[zone].blocks;
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    bool success = part < PART_QUAD
                       ? blocks_release_row(blocks, cpu->seat, first, mask)
                       : blocks_release_quad(blocks, cpu->seat, first, mask);

    if (MM_LIKELY(success)) {
        frame_add_taken(cpu, zone, -(int64_t)frame_mask_frames(part, mask));
        frame_note_motion();
    }
    port_irq_restore(irq);
    if (MM_UNLIKELY(!success)) {
        port_bug("frame: some of the %s 0x%lx at 0x%lx are free already",
                 part < PART_QUAD ? "frames" : "blocks", mask,
                 pfn_to_phys(first).v);
    }
}

void frame_release_each(const pfn_t *frame, unsigned count)
{
    for (unsigned i = 0; i < count;) {
        uint64_t row = align_down(frame[i].v, ROW_FRAMES);
        uint64_t mask = 0;
        for (; i < count && align_down(frame[i].v, ROW_FRAMES) == row; i++) {
            mask |= UINT64_C(1) << (frame[i].v - row);
        }
        frame_release_part(PART_ROW, pfn_of(row), mask);
    }
}

/* What is drained is in no list for a while: say so to who looks. */
static void begin_drain(struct frame_cpu *cpu)
{
    uint32_t drains = atomic_load_explicit(&cpu->in_hand, memory_order_relaxed);

    atomic_store_explicit(&cpu->in_hand, drains + 1, memory_order_relaxed);
    /* Nobody sees the list empty, but not this. */
    atomic_thread_fence(memory_order_release);
}

static void end_drain(struct frame_cpu *cpu)
{
    uint32_t drains = atomic_load_explicit(&cpu->in_hand, memory_order_relaxed);

    /* Release: what was in hand is free. Pairs with keeps(). */
    atomic_store_explicit(&cpu->in_hand, drains - 1, memory_order_release);
}

/*
 * They leave the array first: what a report of frame_release_part() calls may
 * wait for a lock, and who waits drains.
 */
void frame_drain_array(enum frame_array array, unsigned count)
{
    pfn_t oldest[ARRAY_FRAMES];
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    uint32_t had = frame_count(cpu, array);

    begin_drain(cpu);
    count = (unsigned)min_u64(count, had);
    memcpy(oldest, cpu->frame[array], count * sizeof(pfn_t));
    memmove(cpu->frame[array], cpu->frame[array] + count,
            (had - count) * sizeof(pfn_t));
    frame_set_count(cpu, array, had - count);
    cpu->zeroed_lost += array == ARRAY_ZEROED ? count : 0;
    frame_release_each(oldest, count);
    end_drain(cpu);
    port_irq_restore(irq);
}

void frame_drain_part(struct frame_cpu *cpu, enum frame_part part)
{
    pfn_t first = cpu->part[part].first;
    uint64_t mask = frame_mask(cpu, part);

    begin_drain(cpu);
    frame_set_part(cpu, part, PFN_NONE, 0);
    if (mask != 0) {
        frame_release_part(part, first, mask);
    }
    end_drain(cpu);
}

void frame_drain_recent(struct frame_cpu *cpu)
{
    pfn_t recent = cpu->recent;
    unsigned order = frame_recent_order(cpu);

    if (order != 0) {
        begin_drain(cpu);
        frame_set_recent(cpu, PFN_NONE, 0);
        frame_release(recent, order);
        end_drain(cpu);
    }
}

void frame_drain_cpu(void)
{
    struct frame_cpu *cpu = frame_this_cpu();

    frame_drain_array(ARRAY_ZEROED, ARRAY_FRAMES);
    frame_drain_array(ARRAY_PLAIN, ARRAY_FRAMES);
    for (unsigned part = 0; part < PARTS; part++) {
        frame_drain_part(cpu, (enum frame_part)part);
    }
    frame_drain_recent(cpu);
    /* The next free asks whether it may stay here. */
    cpu->limit = 0;
}

void frame_drain(void)
{
    uint64_t irq = port_irq_save();

    frame_drain_cpu();
    port_irq_restore(irq);
    frame_release_spare();
}

/* --- out ------------------------------------------------------------------ */

/* Where this CPU sits, for a search; nowhere: 0. */
static uint32_t seat_now(enum blocks_use use)
{
    uint64_t irq = port_irq_save();
    uint32_t tree = frame_this_cpu()->seat[use].tree;

    port_irq_restore(irq);
    return tree;
}

/* Sit down at a tree just found, and leave the one before. */
static void take_seat(enum blocks_use use, const struct blocks_seat *found)
{
    uint64_t irq = port_irq_save();
    struct blocks_seat *seat = &frame_this_cpu()->seat[use];

    if (seat->tree != 0) {
        blocks_leave(zone_of(pfn_of((seat->tree - 1) * TREE_FRAMES)), seat);
    }
    *seat = *found;
    port_irq_restore(irq);
}

/* At the seat of this CPU, if that is in the zone. */
static enum blocks_answer claim_seated(struct blocks_zone *zone,
                                       struct blocks_wish *wish)
{
    uint64_t irq = port_irq_save();
    struct blocks_seat *seat =
        &frame_this_cpu()->seat[blocks_use_of(wish->order)];
    enum blocks_answer answer = BLOCKS_NONE;

    if (blocks_sits_in(seat, zone)) {
        answer = blocks_claim_at(seat, wish);
    }
    port_irq_restore(irq);
    return answer;
}

/* At a tree where nobody sits; there is the seat, unless @highest is low. */
static enum blocks_answer claim_searching(struct blocks_zone *zone,
                                          struct blocks_wish *wish,
                                          enum frame_zone highest)
{
    struct blocks_seat found = {.tree = seat_now(blocks_use_of(wish->order))};
    enum blocks_answer answer = blocks_search(zone, wish, &found);

    if (answer == BLOCKS_CLAIMED) {
        if (highest == ZONE_NORMAL) {
            take_seat(blocks_use_of(wish->order), &found);
        } else {
            blocks_leave(zone, &found);
        }
    }
    return answer;
}

/* One zone, with growing effort; the next one only when it has nothing. */
static enum blocks_answer claim_in_zone(struct blocks_zone *zone,
                                        struct blocks_wish *wish,
                                        enum frame_zone highest,
                                        enum frame_effort effort)
{
    enum blocks_answer answer = claim_seated(zone, wish);

    if (answer == BLOCKS_NONE) {
        answer = claim_searching(zone, wish, highest);
    }
    if (answer == BLOCKS_NONE) {
        answer = effort == EFFORT_ANYWHERE ? blocks_steal_anywhere(zone, wish)
                                           : blocks_steal(zone, wish);
    }
    return answer;
}

bool frame_claim_with(enum frame_effort effort, struct blocks_wish *wish,
                      enum frame_zone highest)
{
    for (unsigned zone =
             (highest < frame_top_zone ? highest : frame_top_zone) + 1;
         zone > 0;) {
        switch (claim_in_zone(&frame_zones[zone - 1].blocks, wish, highest,
                              effort)) {
        case BLOCKS_CLAIMED:
            frame_count_taken(wish->pfn, INT64_C(1) << wish->order);
            return true;
        case BLOCKS_UNBACKED:
            wish->is_stuck = record_back_block(wish->pfn) != MM_OK;
            break; /* again: it is there, or passed by */
        case BLOCKS_NONE:
            zone--;
            break;
        }
    }
    return false;
}

/* --- quads ---------------------------------------------------------------- */

/* Blocks from this CPU's seat, if that is in the zone, become its own. */
static bool refill_quad_seated(const struct blocks_zone *zone)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    const struct blocks_seat *seat = &cpu->seat[BLOCKS_LARGE];
    uint64_t mask = frame_mask(cpu, PART_QUAD);

    if (mask == 0 && blocks_sits_in(seat, zone)) {
        pfn_t first = PFN_NONE;
        mask = blocks_claim_quad(seat, &first);
        frame_set_part(cpu, PART_QUAD, first, mask);
        frame_add_taken(cpu, frame_top_zone,
                        (int64_t)frame_mask_frames(PART_QUAD, mask));
    }
    port_irq_restore(irq);
    return mask != 0;
}

bool frame_refill_quad(void)
{
    struct blocks_zone *zone = &frame_zones[frame_top_zone].blocks;
    struct blocks_seat found = {.tree = seat_now(BLOCKS_LARGE)};

    if (frame_is_watched || frame_is_short()) {
        return false;
    }
    if (refill_quad_seated(zone)) {
        return true;
    }
    if ((blocks_sits_in(&found, zone) &&
         blocks_tree_has(found.tree - 1, BLOCKS_WHOLE)) ||
        !blocks_find_seat(zone, BLOCKS_WHOLE, &found)) {
        return false; /* there are some without records, or none */
    }
    take_seat(BLOCKS_LARGE, &found);
    return refill_quad_seated(zone);
}

/* --- rows ----------------------------------------------------------------- */

/* A row from this CPU's seat, if that is in the zone, becomes its own. */
static enum blocks_answer refill_seated(const struct blocks_zone *zone,
                                        enum blocks_kind kind,
                                        struct blocks_wish *wish)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    struct blocks_seat *seat = &cpu->seat[BLOCKS_SMALL];
    enum blocks_answer answer = BLOCKS_NONE;
    uint64_t mask;

    if (frame_mask(cpu, PART_ROW) != 0) {
        answer = BLOCKS_CLAIMED; /* an interrupt was faster */
    } else if (blocks_sits_in(seat, zone)) {
        answer = blocks_claim_row(seat, kind, wish, &mask);
        if (answer == BLOCKS_CLAIMED) {
            frame_set_part(cpu, PART_ROW, wish->pfn, mask);
            frame_add_taken(cpu, frame_zone_of(wish->pfn), count_bits(mask));
            cpu->refills++;
        }
    }
    port_irq_restore(irq);
    return answer;
}

/* The same, or from a new seat. */
static bool refill_by(struct blocks_zone *zone, enum blocks_kind kind)
{
    struct blocks_wish wish = {0};
    struct blocks_seat found;
    unsigned seats = 0;

    for (;;) {
        switch (refill_seated(zone, kind, &wish)) {
        case BLOCKS_CLAIMED:
            return true;
        case BLOCKS_UNBACKED:
            wish.is_stuck = record_back_block(wish.pfn) != MM_OK;
            break; /* again: they are there, or it is passed by */
        case BLOCKS_NONE:
            found.tree = seat_now(BLOCKS_SMALL);
            if (seats++ == SEATS_TRIED ||
                !blocks_find_seat(zone, kind, &found)) {
                return false;
            }
            take_seat(BLOCKS_SMALL, &found);
            break;
        }
    }
}

bool frame_refill(void)
{
    for (unsigned zone = frame_top_zone + 1; zone-- > 0 && !frame_is_short();) {
        struct blocks_zone *blocks = &frame_zones[zone].blocks;

        if (refill_by(blocks, BLOCKS_PARTIAL) ||
            refill_by(blocks, BLOCKS_WHOLE)) {
            return true;
        }
        if (frame_left((enum frame_zone)zone) > 0) {
            break; /* in crumbs: they go before a lower zone does */
        }
    }
    return false;
}

/*
 * Frames that were freed into sparse blocks wait in a row of their own, so
 * that those of one row go back together, or are used again if they are many.
 */
bool frame_take_pending(unsigned least)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    uint64_t mask = frame_mask(cpu, PART_ROW_NEW);
    bool success = frame_mask(cpu, PART_ROW) != 0;

    if (!success && mask != 0 && count_bits(mask) >= least) {
        frame_set_part(cpu, PART_ROW, cpu->part[PART_ROW_NEW].first, mask);
        frame_set_part(cpu, PART_ROW_NEW, PFN_NONE, 0);
        success = true;
    }
    port_irq_restore(irq);
    return success;
}
