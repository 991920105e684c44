/* SPDX-License-Identifier: MIT */
/* frame_hold: holders of blocks; blocks that become others. */
/*
 * Owns    nothing: it changes the records of blocks that are in use, which
 *         frame.c began and ends.
 * Idea    A block in use belongs to its holders. Their number is the only
 *         word here that several CPUs change at once; whoever is alone may
 *         split and join without asking anybody.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"

/* The record of a block that is handed out, by its first frame; or NULL. */
static struct frame_record *live_record(pfn_t pfn)
{
    if (!record_exists(pfn)) {
        return NULL;
    }
    struct frame_record *record = record_of(pfn);
    bool is_live = record->type != FRAME_NONE && record->order <= MM_MAX_ORDER;

    return is_live ? record : NULL;
}

/* --- stamps -------------------------------------------------------------- */

void (*frame_check_reuse)(pfn_t pfn, uint64_t stamp);

void frame_check_stamps(pfn_t pfn, unsigned order)
{
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        struct frame_record *record = record_of(pfn_add(pfn, i));

        if (record_is_stamped(record)) {
            frame_check_reuse(pfn_add(pfn, i), record->owner);
            record_stamp(record, 0);
        }
    }
}

/* --- holders ------------------------------------------------------------- */

void frame_ref(pfn_t pfn)
{
    frame_ref_many(pfn, 1);
}

void frame_ref_many(pfn_t pfn, uint32_t count)
{
    struct frame_record *record = live_record(pfn);

    if (record == NULL) {
        frame_report("frame_ref", pfn, 0);
        return;
    }
    uint32_t refs = atomic_load_explicit(&record->refs, memory_order_relaxed);
    do {
        if (refs == 0 || refs > UINT32_MAX - count) {
            frame_report("frame_ref", pfn, record->order);
            return;
        }
        /* Relaxed: the caller holds the frame already, or its table. */
    } while (!atomic_compare_exchange_weak_explicit(
        &record->refs, &refs, refs + count, memory_order_relaxed,
        memory_order_relaxed));
}

pfn_t frame_head(pfn_t pfn)
{
    return record_of(pfn)->type != FRAME_NONE
               ? pfn
               : pfn_of(align_down(pfn.v, BLOCK_FRAMES));
}

bool frame_is_sole(pfn_t pfn)
{
    /* Pairs with the release in frame_unref(). */
    return atomic_load_explicit(&record_of(frame_head(pfn))->refs,
                                memory_order_acquire) == 1;
}

void frame_unref(pfn_t pfn)
{
    struct frame_record *record = live_record(pfn);

    if (record == NULL) {
        frame_report("frame_unref", pfn, 0);
        return;
    }
    /* Acquire: the last holder sees what the others wrote. */
    uint32_t refs = atomic_load_explicit(&record->refs, memory_order_acquire);
    while (refs > 1) {
        /* Release: pairs with the acquire loads of the last holder. */
        if (atomic_compare_exchange_weak_explicit(
                &record->refs, &refs, refs - 1, memory_order_release,
                memory_order_acquire)) {
            return;
        }
    }
    frame_free(pfn, record->order);
}

/* --- splitting and joining ----------------------------------------------- */

enum mm_status frame_split(pfn_t pfn, unsigned order)
{
    struct frame_record *record = live_record(pfn);

    if (record == NULL || record->order != order || record_refs(record) == 0) {
        frame_report("frame_split", pfn, order);
        return MM_EINVAL;
    }
    if (record_refs(record) > 1) {
        return MM_EBUSY;
    }
    if (order == 0) {
        return MM_OK;
    }
    if (order >= BLOCK_ORDER) {
        bitfield_split(pfn, order);
    }
    enum frame_type type = (enum frame_type)record->type;
    frame_end_record(record);
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        frame_begin_record(pfn_add(pfn, i), 0, type);
    }
    return MM_OK;
}

enum mm_status frame_join(pfn_t pfn, unsigned order)
{
    struct frame_record *first = live_record(pfn);

    if (order > MM_MAX_ORDER || first == NULL ||
        !is_aligned(pfn.v, UINT64_C(1) << order)) {
        return MM_EINVAL;
    }
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        struct frame_record *record = live_record(pfn_add(pfn, i));
        if (record == NULL || frame_sole_type(record, 0) != first->type) {
            return MM_EINVAL;
        }
    }
    if (order == 0) {
        return MM_OK;
    }
    enum frame_type type = (enum frame_type)first->type;
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        frame_end_record(record_of(pfn_add(pfn, i)));
    }
    frame_begin_record(pfn, order, type);
    if (order >= BLOCK_ORDER) {
        bitfield_join(pfn, order);
    }
    return MM_OK;
}

/* --- another use ---------------------------------------------------------- */

void frame_set_type(pfn_t pfn, enum frame_type type)
{
    struct frame_record *record = live_record(pfn);

    ASSERT(record != NULL && type != FRAME_NONE);
    int64_t frames = INT64_C(1) << record->order;
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    cpu->extra[record->type] -= frames;
    cpu->extra[type] += frames;
    record_set_type(record, (uint8_t)type);
    port_irq_restore(irq);
}
