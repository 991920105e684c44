/* SPDX-License-Identifier: MIT */
/* frame_block: blocks of more than one frame. */
/*
 * Owns    nothing: it takes from, and gives to, what frame.c keeps.
 * Idea    Blocks of order 9 are what rows are to single frames: a CPU takes
 *         all free blocks of a quad by one exchange, and gives back together
 *         those that were freed one after the other and are of one quad. Of
 *         the other orders it keeps the last block freed. What is at hand is
 *         looked for first and by itself, so that it needs no stack.
 * Cost    Order 9, thousands taken and then freed in turn: an atomic operation
 *         for four blocks, and two for each tree. Freed at random: one each.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"

/* --- allocation ----------------------------------------------------------- */

/* Search for a block where this CPU's seat did not have it at once. */
static MM_NOINLINE pfn_t alloc_searching(unsigned order, enum frame_type type,
                                         unsigned flags)
{
    struct blocks_wish wish = {.order = order};

    ASSERT(order <= MM_MAX_ORDER);
    ASSERT(type > FRAME_NONE && type < FRAME_TYPES);
    if (!frame_claim(&wish, flags)) {
        frame_count_failure();
        return PFN_NONE;
    }
    frame_hand_out(wish.pfn, order, type);
    if (flags & FRAME_ZEROED) {
        frame_zero(wish.pfn, order);
    }
    return wish.pfn;
}

/* A block of a part, if there is one. Interrupts are off. */
static inline bool take_of_part(struct frame_cpu *cpu, enum frame_part part,
                                pfn_t *out)
{
    uint64_t mask = frame_mask(cpu, part);

    if (mask != 0) {
        *out = frame_pop_part(cpu, part, mask);
    }
    return mask != 0;
}

/* A block that this CPU keeps, if there is one. Interrupts are off. */
static inline bool take_kept(struct frame_cpu *cpu, unsigned order, pfn_t *out)
{
    if (order == BLOCK_ORDER) {
        return take_of_part(cpu, PART_QUAD_NEW, out) ||
               take_of_part(cpu, PART_QUAD, out);
    }
    if (frame_recent_order(cpu) != order) {
        return false;
    }
    *out = cpu->recent;
    frame_set_recent(cpu, PFN_NONE, 0);
    return true;
}

/* A block at the seat of this CPU, or PFN_NONE. Interrupts are off. */
static pfn_t take_seated(struct frame_cpu *cpu, unsigned order)
{
    struct blocks_seat *seat = &cpu->seat[blocks_use_of(order)];
    pfn_t pfn = PFN_NONE;

    /* Lower zones are for those who ask for them. */
    if (seat->tree > frame_zones[frame_top_zone].blocks.first &&
        !frame_is_watched) {
        pfn = order >= BLOCK_ORDER ? blocks_claim_whole(seat, order)
                                   : blocks_claim_near(seat, order);
    }
    if (MM_LIKELY(!pfn_is_none(pfn))) {
        frame_add_taken(cpu, frame_top_zone, INT64_C(1) << order);
    }
    return pfn;
}

/* A block this CPU does not keep, with any wishes. */
static MM_NOINLINE pfn_t alloc_near(unsigned order, enum frame_type type,
                                    unsigned flags)
{
    pfn_t pfn = PFN_NONE;

    ASSERT(order <= MM_MAX_ORDER);
    if ((flags & ~(unsigned)FRAME_MAY_RECLAIM) != 0) {
        return alloc_searching(order, type, flags);
    }
    bool is_kept = order == BLOCK_ORDER && frame_refill_quad();
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    if (!is_kept || !take_kept(cpu, order, &pfn)) {
        pfn = take_seated(cpu, order);
    }
    if (MM_UNLIKELY(pfn_is_none(pfn))) {
        port_irq_restore(irq);
        return alloc_searching(order, type, flags);
    }
    frame_count_alloc(cpu, order, type);
    frame_begin_record(pfn, order, type);
    port_irq_restore(irq);
    return pfn;
}

pfn_t frame_alloc_block(unsigned order, enum frame_type type, unsigned flags)
{
    pfn_t pfn;
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();

    if ((flags & ~(unsigned)FRAME_MAY_RECLAIM) != 0 ||
        !take_kept(cpu, order, &pfn)) {
        port_irq_restore(irq);
        return alloc_near(order, type, flags);
    }
    frame_count_alloc(cpu, order, type);
    frame_begin_record(pfn, order, type);
    port_irq_restore(irq);
    return pfn;
}

/* --- release -------------------------------------------------------------- */

/*
 * Keep a block that was freed, with others of its quad, or as the last one
 * freed, if there is room. Interrupts are off.
 */
static inline bool keep_block(struct frame_cpu *cpu, pfn_t pfn, unsigned order)
{
    if (order == BLOCK_ORDER) {
        uint64_t quad = align_down(pfn.v, QUAD_FRAMES);
        uint64_t which = step_blocks(pfn.v / BLOCK_FRAMES, BLOCK_ORDER);
        bool is_new = !frame_is_in_part(cpu, PART_QUAD, quad);
        if (is_new && !frame_is_in_part(cpu, PART_QUAD_NEW, quad)) {
            return false;
        }
        frame_add_to_part(cpu, is_new ? PART_QUAD_NEW : PART_QUAD, which);
        return true;
    }
    if (frame_recent_order(cpu) != 0 || frame_is_short()) {
        return false;
    }
    frame_set_recent(cpu, pfn, order);
    return true;
}

/*
 * The same after giving back what is kept in its place, or give it back itself
 * if memory is short.
 */
static MM_NOINLINE void free_block_elsewhere(pfn_t pfn, unsigned order)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();

    if (frame_is_short()) {
        frame_release(pfn, order);
    } else if (order == BLOCK_ORDER) {
        frame_drain_part(cpu, PART_QUAD_NEW);
        frame_set_part(cpu, PART_QUAD_NEW,
                       pfn_of(align_down(pfn.v, QUAD_FRAMES)),
                       step_blocks(pfn.v / BLOCK_FRAMES, BLOCK_ORDER));
    } else {
        frame_drain_recent(cpu);
        frame_set_recent(cpu, pfn, order);
    }
    port_irq_restore(irq);
}

void frame_free_block(pfn_t pfn, unsigned order)
{
    if (MM_UNLIKELY(order > MM_MAX_ORDER || !record_exists(pfn) ||
                    record_of(pfn)->order != order)) {
        frame_report("frame_free", pfn, order);
        return;
    }
    frame_free_record(record_of(pfn));
}

void frame_free_record(struct frame_record *record)
{
    pfn_t pfn = pfn_of((uint64_t)(record - record_base));
    unsigned kind = record_kind(record);
    unsigned order = kind >> 8;
    unsigned type = kind & UINT8_MAX;

    if (MM_UNLIKELY(type - 1 >= FRAME_TYPES - 1 || record_refs(record) != 1)) {
        frame_report("frame_free", pfn, order);
        return;
    }
    if (frame_is_free_by_bits(pfn, order)) {
        return;
    }
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    frame_count_free(cpu, order, (enum frame_type)type);
    frame_end_record(record);
    bool is_kept = keep_block(cpu, pfn, order);
    port_irq_restore(irq);
    if (!is_kept) {
        free_block_elsewhere(pfn, order);
    }
}
