/* SPDX-License-Identifier: MIT */
/* frame_short: when frames run out: what CPUs keep, watermarks, reclaim. */
/*
 * Owns    the watermarks and hooks; requests to other CPUs to drain.
 * Idea    Before an allocation fails, every CPU that keeps something is asked
 *         by an interrupt to give it back, and waited for; then all trees are
 *         looked through, whoever sits there. As long as that moves anything
 *         it is done again. So one free frame anywhere in the machine is
 *         found. Only then the host's reclaim is asked, for callers that hold
 *         no lock.
 * Locking None. Who waits for others to drain gives back what it keeps itself
 *         in the meantime, and so does who waits for a lock or for the TLBs of
 *         others (docs/locking.md); it waits FRAME_PATIENCE turns at most.
 * Limits  A CPU that does not answer for so long keeps its frames, at most
 *         ARRAYS * ARRAY_FRAMES, two rows, two quads and a block, until it
 *         does. What another claim holds that will be given up is out of sight
 *         meanwhile.
 * Watermarks are compared with a sum over all CPUs, once for each claim; what a
 * CPU keeps counts as used until a mark is hit, and is then asked for.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"

/* Turns of waiting for another CPU; it has interrupts on long before. */
#ifndef FRAME_PATIENCE
#define FRAME_PATIENCE (UINT32_C(1) << 22)
#endif

/* Times everything is asked for and looked through, as long as it moves. */
#define ROUNDS 16

/* In is_asked of a CPU. */
enum {
    NOT_ASKED,
    IS_ASKED,
    IS_SILENT /* asked, and not waited for any more */
};

_Atomic uint32_t frame_shortages;         /* (A) */
_Atomic uint64_t frame_motion;            /* (A) */
bool frame_is_watched;                    /* (C) there are marks */
static struct frame_watermarks marks;     /* (C) */
static const struct frame_reclaim *hooks; /* (C) */
static _Atomic bool is_low;               /* (A) wake() was called */

/* --- asking other CPUs ---------------------------------------------------- */

void frame_interrupt(void)
{
    struct frame_cpu *cpu = frame_this_cpu();

    if (MM_LIKELY(atomic_load_explicit(&cpu->is_asked, memory_order_relaxed) ==
                  0)) {
        return;
    }
    frame_drain_cpu();
    /* Release: pairs with the acquire in await(): what was kept is free. */
    atomic_store_explicit(&cpu->is_asked, 0, memory_order_release);
}

/* Does a CPU keep anything, or is it just giving it back? */
static bool keeps(const struct frame_cpu *cpu)
{
    /* Acquire: pairs with the release in end_drain(). */
    return atomic_load_explicit(&cpu->in_hand, memory_order_acquire) != 0 ||
           frame_count(cpu, ARRAY_PLAIN) != 0 ||
           frame_count(cpu, ARRAY_ZEROED) != 0 ||
           frame_recent_order(cpu) != 0 || frame_mask(cpu, PART_ROW) != 0 ||
           frame_mask(cpu, PART_ROW_NEW) != 0 ||
           frame_mask(cpu, PART_QUAD) != 0 ||
           frame_mask(cpu, PART_QUAD_NEW) != 0;
}

/* A CPU, or the run for metadata. */
static bool anybody_keeps(void)
{
    uint64_t spare = atomic_load_explicit(&frame_spare, memory_order_relaxed);
    bool found = spare_mask(spare) != 0;

    for (unsigned i = 0; i < frame_cpu_count && !found; i++) {
        found = keeps(frame_cpu_of[i]) &&
                atomic_load_explicit(&frame_cpu_of[i]->is_asked,
                                     memory_order_relaxed) != IS_SILENT;
    }
    return found;
}

/* Wait until @cpu has drained, or until @turns are over. */
static void await(struct frame_cpu *cpu, uint32_t *turns)
{
    uint32_t asked = IS_ASKED;

    for (; *turns > 0; --*turns) {
        /* Acquire: pairs with the release in frame_interrupt(). */
        if (atomic_load_explicit(&cpu->is_asked, memory_order_acquire) !=
            IS_ASKED) {
            return;
        }
        uint64_t irq = port_irq_save();
        frame_interrupt();
        port_irq_restore(irq);
        port_relax();
    }
    /* Nobody waits for it again before it has answered. */
    (void)atomic_compare_exchange_strong_explicit(
        &cpu->is_asked, &asked, IS_SILENT, memory_order_relaxed,
        memory_order_relaxed);
}

/* Ask the other CPUs that keep something to give it back, and wait. */
static void drain_others(void)
{
    uint64_t irq = port_irq_save();
    unsigned me = port_cpu();
    uint32_t turns = FRAME_PATIENCE;
    bool has_asked = false;

    for (unsigned i = 0; i < frame_cpu_count; i++) {
        uint32_t before = NOT_ASKED;

        if (i == me || !keeps(frame_cpu_of[i])) {
            continue;
        }
        if (atomic_compare_exchange_strong_explicit(
                &frame_cpu_of[i]->is_asked, &before, IS_ASKED,
                memory_order_relaxed, memory_order_relaxed)) {
            port_send_frame_interrupt(i);
        }
        has_asked = has_asked || before != IS_SILENT;
    }
    frame_cpu_of[me]->drains += has_asked ? 1 : 0;
    port_irq_restore(irq);
    for (unsigned i = 0; has_asked && i < frame_cpu_count; i++) {
        if (i != me) {
            await(frame_cpu_of[i], &turns);
        }
    }
}

void frame_gather(void)
{
    frame_drain();
    drain_others();
}

/*
 * Ask and look until nothing is left that could be found. While somebody is
 * short, CPUs that were asked keep no rows and no frames that are freed; what
 * others keep meanwhile is asked for in the next round; and what comes back
 * behind the search, or was claimed and given up, counts as motion.
 */
static bool claim_short(struct blocks_wish *wish, enum frame_zone highest)
{
    bool success = frame_claim_with(EFFORT_ANYWHERE, wish, highest);
    bool is_moving = true;

    if (success) {
        return true; /* a hint had lost a race, or it lies where others sit */
    }
    atomic_fetch_add_explicit(&frame_shortages, 1, memory_order_seq_cst);
    for (unsigned i = 0; i < ROUNDS && is_moving && !success; i++) {
        frame_gather();
        uint64_t motion = frame_motion_now();
        wish->is_stuck = false;
        success = frame_claim_with(EFFORT_ANYWHERE, wish, highest);
        is_moving = motion != frame_motion_now() || anybody_keeps();
    }
    atomic_fetch_sub_explicit(&frame_shortages, 1, memory_order_relaxed);
    return success;
}

/* --- watermarks and reclaim ----------------------------------------------- */

void frame_forget_marks(void)
{
    marks = (struct frame_watermarks){0};
    frame_is_watched = false;
    hooks = NULL;
    atomic_store_explicit(&is_low, false, memory_order_relaxed);
}

int64_t frame_left(enum frame_zone zone)
{
    int64_t left = (int64_t)frame_managed(zone);

    for (unsigned i = 0; i < frame_cpu_count; i++) {
        left -= frame_taken(frame_cpu_of[i], zone);
    }
    return left;
}

static uint64_t frames_left(void)
{
    int64_t left = 0;

    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        left += frame_left((enum frame_zone)zone);
    }
    return left > 0 ? (uint64_t)left : 0;
}

static uint64_t frames_managed(void)
{
    uint64_t managed = 0;

    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        managed += frame_managed((enum frame_zone)zone);
    }
    return managed;
}

enum mm_status frame_set_watermarks(const struct frame_watermarks *wanted)
{
    if (wanted->min > wanted->low || wanted->low > wanted->high ||
        wanted->high > frames_managed()) {
        return MM_EINVAL;
    }
    marks = *wanted;
    frame_is_watched = wanted->high != 0;
    atomic_store_explicit(&is_low, false, memory_order_relaxed);
    return MM_OK;
}

void frame_watermarks(struct frame_watermarks *out)
{
    *out = marks;
}

void frame_set_reclaim(const struct frame_reclaim *wanted)
{
    hooks = wanted;
}

void frame_watch_marks(void)
{
    uint64_t left = frames_left();

    if (left >= marks.high) {
        atomic_store_explicit(&is_low, false, memory_order_relaxed);
    } else if (left < marks.low && hooks != NULL && hooks->wake != NULL &&
               !atomic_exchange_explicit(&is_low, true, memory_order_relaxed)) {
        hooks->wake();
    }
}

bool frame_ask_reclaim(uint64_t frames, unsigned flags)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    bool may = (flags & FRAME_MAY_RECLAIM) != 0 && hooks != NULL &&
               hooks->reclaim != NULL &&
               !atomic_exchange_explicit(&cpu->is_reclaiming, true,
                                         memory_order_relaxed);

    cpu->reclaims += may ? 1 : 0;
    port_irq_restore(irq);
    if (!may) {
        return false;
    }
    uint64_t freed = hooks->reclaim(frames);
    /* Of the CPU it began on, wherever this goes on. */
    atomic_store_explicit(&cpu->is_reclaiming, false, memory_order_relaxed);
    frame_drain(); /* what was freed here shall count */
    return freed != 0;
}

bool frame_is_barred(uint64_t frames, unsigned flags)
{
    return frame_is_watched && (flags & FRAME_RESERVE) == 0 &&
           frames_left() < marks.min + frames;
}

bool frame_can_lose(uint64_t frames)
{
    return !frame_is_barred(frames, FRAME_ANY) &&
           frames_managed() >= marks.high + frames;
}

bool frame_claim(struct blocks_wish *wish, unsigned flags)
{
    enum frame_zone highest = frame_zone_for(flags);
    uint64_t frames = UINT64_C(1) << wish->order;

    if (frame_is_barred(frames, flags)) {
        frame_gather(); /* what CPUs keep counts as used */
    }
    for (unsigned i = 0;; i++) {
        if (!frame_is_barred(frames, flags) &&
            (frame_claim_with(EFFORT_HINTS, wish, highest) ||
             claim_short(wish, highest))) {
            if (frame_is_watched) {
                frame_watch_marks();
            }
            return true;
        }
        if (i == FRAME_RECLAIM_TRIES || !frame_ask_reclaim(frames, flags)) {
            return false;
        }
    }
}
