/* SPDX-License-Identifier: MIT */
/* frame_bulk: many single frames at once, and frames cleared ahead. */
/*
 * Owns    nothing: it fills and empties what frame.c keeps for each CPU.
 * Idea    Interrupts are turned off once for CHUNK frames, and the counters are
 *         changed once. Frames come from the CPU's array and its row, so that a
 *         row of 64 costs one claim.
 */
#include "frame/frame_impl.h"

#include "base/bits.h"
#include "base/check.h"

/* Frames handed out or taken back with interrupts off. */
#define CHUNK 16

/* How many frames are cleared ahead on each CPU. */
#define ZEROED_FRAMES 64
_Static_assert(ZEROED_FRAMES <= ARRAY_FRAMES, "they fit into their array");

/* --- allocation ----------------------------------------------------------- */

/* What this CPU keeps, up to @count frames. Return: how many. */
static unsigned take_kept(pfn_t *out, unsigned count, enum frame_type type)
{
    unsigned taken = 0;
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();

    for (; taken < count; taken++) {
        pfn_t pfn = frame_pop_here(cpu, ARRAY_PLAIN);
        if (pfn_is_none(pfn)) {
            break;
        }
        frame_begin_record(pfn, 0, type);
        out[taken] = pfn;
    }
    cpu->allocs[type] += taken;
    port_irq_restore(irq);
    return taken;
}

/* Frames as they are, any number up to @count but 0 unless there are none. */
static unsigned take_some(pfn_t *out, unsigned count, enum frame_type type,
                          unsigned flags)
{
    unsigned taken = 0;

    if (flags == FRAME_ANY) {
        taken = take_kept(out, (unsigned)min_u64(count, CHUNK), type);
    }
    if (taken == 0) {
        /* With FRAME_ANY there is a row again after it. */
        pfn_t pfn = frame_alloc_one(type, flags);
        if (!pfn_is_none(pfn)) {
            out[taken++] = pfn;
        }
    }
    return taken;
}

static unsigned alloc_bulk(pfn_t *out, unsigned count, enum frame_type type,
                           unsigned flags)
{
    unsigned done = 0;

    ASSERT(type > FRAME_NONE && type < FRAME_TYPES);
    while (done < count) {
        unsigned taken = take_some(out + done, count - done, type, flags);
        if (taken == 0) {
            break;
        }
        done += taken;
    }
    return done;
}

#if MM_INJECT
unsigned frame_alloc_bulk_at(const char *site, pfn_t *out, unsigned count,
                             enum frame_type type, unsigned flags)
{
    if (frame_must_fail(site)) {
        frame_count_failure();
        return 0;
    }
    return alloc_bulk(out, count, type, flags);
}
#else
unsigned frame_alloc_bulk(pfn_t *out, unsigned count, enum frame_type type,
                          unsigned flags)
{
    return alloc_bulk(out, count, type, flags);
}
#endif

/* --- release -------------------------------------------------------------- */

/*
 * Frames that belong into the array, as frame.c has it, go there as long as
 * less than half of it is in use; the others straight to the blocks they are
 * of. Interrupts are off.
 */
static void keep_or_release(struct frame_cpu *cpu, const pfn_t *frames,
                            unsigned count)
{
    uint32_t kept = frame_count(cpu, ARRAY_PLAIN);
    pfn_t rest[CHUNK];
    unsigned left = 0;

    if (kept >= ARRAY_FRAMES / 2 || frame_is_short()) {
        frame_release_each(frames, count);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        if (kept < ARRAY_FRAMES / 2 && !frame_is_sparse(frames[i])) {
            cpu->frame[ARRAY_PLAIN][kept++] = frames[i];
        } else {
            rest[left++] = frames[i];
        }
    }
    frame_set_count(cpu, ARRAY_PLAIN, kept);
    frame_release_each(rest, left);
}

/* Take back one chunk, up to the first frame that is no frame in use. */
static unsigned free_chunk(const pfn_t *frames, unsigned count)
{
    unsigned ended = 0;
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();

    for (; ended < count && record_exists(frames[ended]); ended++) {
        struct frame_record *record = record_of(frames[ended]);
        unsigned type = frame_sole_type(record, 0);
        if (type == FRAME_NONE) {
            break;
        }
        cpu->frees[type]++;
        frame_end_record(record);
    }
    keep_or_release(cpu, frames, ended);
    port_irq_restore(irq);
    return ended;
}

void frame_free_bulk(const pfn_t *frames, unsigned count)
{
    for (unsigned done = 0; done < count;) {
        unsigned chunk = (unsigned)min_u64(count - done, CHUNK);
        unsigned ended = free_chunk(frames + done, chunk);

        done += ended;
        if (ended < chunk) {
            frame_free(frames[done], 0); /* it says what is wrong */
            done++;
        }
    }
}

/* Take back frames of one row, up to the first that is no frame in use. */
static unsigned free_in_row(pfn_t first, unsigned count)
{
    unsigned ended = 0;
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    struct frame_record *record = record_of(first);

    if (!record_exists(first)) { /* those of a row are there or not */
        count = 0;
    }
    for (; ended < count; ended++) {
        unsigned type = frame_sole_type(&record[ended], 0);
        if (type == FRAME_NONE) {
            break;
        }
        cpu->frees[type]++;
        frame_end_record(&record[ended]);
    }
    if (ended > 0) {
        uint64_t row = align_down(first.v, ROW_FRAMES);

        frame_release_part(PART_ROW, pfn_of(row),
                           low_bits(ended) << (first.v - row));
    }
    port_irq_restore(irq);
    return ended;
}

void frame_free_row(pfn_t first, unsigned count)
{
    while (count > 0) {
        unsigned left = ROW_FRAMES - (unsigned)(first.v % ROW_FRAMES);
        unsigned wanted = (unsigned)min_u64(count, left);
        unsigned ended = free_in_row(first, wanted);

        if (ended < wanted) {
            frame_free(pfn_add(first, ended), 0); /* it says what is wrong */
            ended++;
        }
        first = pfn_add(first, ended);
        count -= ended;
    }
}

/* --- cleared ahead -------------------------------------------------------- */

/*
 * With interrupts off from taking it to keeping it: nobody who asks this CPU
 * to drain finds the frame in neither place.
 */
bool frame_zero_idle(void)
{
    uint64_t irq = port_irq_save();
    struct frame_cpu *cpu = frame_this_cpu();
    uint32_t count = frame_count(cpu, ARRAY_ZEROED);
    pfn_t pfn = PFN_NONE;

    if (count >= ZEROED_FRAMES || frame_is_short()) {
        port_irq_restore(irq);
        return false;
    }
    pfn = frame_pop_here(cpu, ARRAY_PLAIN);
    if (!pfn_is_none(pfn)) {
        frame_zero(pfn, 0);
        cpu->frame[ARRAY_ZEROED][count] = pfn;
        frame_set_count(cpu, ARRAY_ZEROED, count + 1);
        cpu->zeroed_filled++;
    }
    port_irq_restore(irq);
    return !pfn_is_none(pfn) ||
           (!frame_is_barred(ROW_FRAMES, FRAME_ANY) && frame_refill());
}
