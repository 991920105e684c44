/* SPDX-License-Identifier: MIT */
/* tlb: change, invalidate, release: the one way frames leave a mapping. */
/*
 * Owns      what waits to be released.
 *
 * Idea      The order of teardown is a law: the entry changes first, then no
 *           processor can use the old one any more, then the frame is let go.
 *           A batch makes that order the only one there is: frames and tables
 *           enter it, and leave it at the end of tlb_commit(). Linux calls the
 *           idea mmu_gather.
 *           A batch takes no memory. A block that only the mapping holds is
 *           chained through its record: nobody else has a reference, and who
 *           finds it by a descent without a lock may look at it but not take
 *           one. Blocks with more holders wait in a small array, because
 *           another holder may chain them at the same time. Whole tables keep
 *           what they hold until they are released.
 *
 *           The oracle (debug builds): a frame that leaves a batch carries
 *           the flush at which it became unreachable; when it is handed out
 *           again, every CPU is asked for the last flush it has made. That
 *           finds who was forgotten or not waited for; whether a flush has
 *           forgotten all it had to is for the simulated TLBs to say. Without
 *           a stamp go the root of a space, and a frame whose last two
 *           holders let go at the same moment.
 *
 * Parts     tlb_cpu.c    what this CPU has cached and forgets
 *           tlb_shoot.c  what others are asked, and the waiting
 *
 * Locking   A batch belongs to its caller.
 *
 * Cost      O(pages) INVLPGs up to tlb_ceiling, then one flush; O(frames)
 *           to release.
 */
#include "map/tlb_impl.h"

#include <mm/frame.h>
#include "base/bits.h"
#include "base/check.h"
#include "map/table.h"

/*
 * From how many pages on one whole flush is the cheaper one depends on what is
 * used again afterwards. `tlb ceiling` in the kernel's monitor measures it, for
 * 256 pages: under QEMU's TCG (release build, one CPU) a page costs some 650
 * ticks, the flush and 256 walks 71,500, which is even at 103 pages; by the
 * same prices 32 pages are even with 90 in use. Hardware has led others to 32
 * (Asterinas, Nanos), 33 (Linux, DragonOS) and 64 (Managarm, Haiku).
 */
unsigned tlb_ceiling = 32;

/* In a record's count of entries: the block waits in a batch. */
#define CHAINED UINT16_MAX
_Static_assert((CHAINED & TABLE_GONE) != 0, "as is said of a table before");

/* As many as frame_free_bulk() ends with interrupts off at once. */
#define RETURNED_FRAMES 16

/*
 * A link: the frame of the next block, the level of a tree, plus 1, and how
 * many frames in a row come after the one that has the link.
 */
#define LINK_LEVEL_SHIFT 40
#define LINK_RUN_SHIFT   43
#define LINK_FRAME       ((UINT64_C(1) << LINK_LEVEL_SHIFT) - 1)
#define LINK_LEVEL_MASK  7u
_Static_assert(PTE_LEVELS <= LINK_LEVEL_MASK, "a level, plus 1, has its room");

/* Frames that one link can name, and from how many on it pays. */
#define RUN_MOST  32
#define RUN_LEAST 4
_Static_assert((RUN_MOST - 1) >> (48 - LINK_RUN_SHIFT) == 0, "48 bits a link");

struct tlb_space *tlb_kernel;
unsigned tlb_parts_in_use;
unsigned tlb_words;

void tlb_init(unsigned parts)
{
    for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
        tlb_cpu[i] = (struct tlb_cpu){.loaded = NULL};
    }
    tlb_kernel = NULL;
    tlb_parts_in_use =
        parts & TLB_PCID ? parts : parts & ~(unsigned)TLB_INVPCID;
    tlb_words = (port_cpu_count() + 63) / 64;
    frame_check_reuse = tlb_check_reuse;
}

unsigned tlb_parts(void)
{
    return tlb_parts_in_use;
}

void tlb_space_init(struct tlb_space *space, paddr_t root, bool is_kernel)
{
    static _Atomic uint64_t last_id;

    atomic_init(&space->generation, 0);
    cpu_set_init(&space->cpus);
    space->id =
        1 + atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed);
    space->root = root;
    space->is_kernel = is_kernel;
    if (is_kernel) {
        tlb_kernel = space;
    }
}

void tlb_space_fini(struct tlb_space *space)
{
    struct tlb_batch batch;

    /* Its root goes, too: idle CPUs must leave it. */
    tlb_batch_init(&batch, space);
    batch.tables = true;
    tlb_shoot(&batch);
    for (unsigned i = 0; i < port_cpu_count(); i++) {
        if (cpu_set_has(&space->cpus, i)) {
            port_panic("tlb: CPU %u still runs space %lu, which is taken down",
                       i, space->id);
        }
    }
}

/* Can @start..@end of @level be said by moving an end of @range? */
static bool extends(const struct tlb_range *range, vaddr_t start, vaddr_t end,
                    unsigned level)
{
    return range->level == level &&
           (range->end == start || range->start == end);
}

void tlb_batch_join(struct tlb_batch *batch, vaddr_t start, vaddr_t end,
                    unsigned level)
{
    batch->pages += (end - start) >> pte_shift(level);
    for (unsigned i = 0; i < batch->range_count; i++) {
        struct tlb_range *range = &batch->range[i];

        if (extends(range, start, end, level)) {
            range->start = range->start == end ? start : range->start;
            range->end = range->end == start ? end : range->end;
            return;
        }
    }
    if (batch->range_count == TLB_BATCH_RANGES) {
        batch->whole = true;
        return;
    }
    batch->range[batch->range_count++] = (struct tlb_range){start, end, level};
}

static inline bool is_chained(const struct frame_record *record)
{
    return atomic_load_explicit(&record->entries, memory_order_relaxed) ==
           CHAINED;
}

static inline void set_chained(struct frame_record *record)
{
    atomic_store_explicit(&record->entries, CHAINED, memory_order_relaxed);
}

/*
 * A block with one holder comes here once. Twice means that two mappings
 * claimed the one reference: the chain would run in a circle.
 */
static inline void chain_block(struct tlb_chain *chain, pfn_t pfn,
                               uint64_t note)
{
    struct frame_record *record = record_of(pfn);

    if (MM_UNLIKELY(is_chained(record))) {
        port_bug("tlb: frame 0x%lx is released twice, but has one holder",
                 pfn.v);
        return;
    }
    set_chained(record);
    record_set_link(record, pfn_of((chain->first.v & LINK_FRAME) | note));
    chain->first = pfn;
    chain->count++;
}

/* The same for @run frames from @first on, which are marked. */
static inline void link_run(struct tlb_chain *chain, pfn_t first, unsigned run)
{
    uint64_t note = (uint64_t)(run - 1) << LINK_RUN_SHIFT;

    record_set_link(record_of(first),
                    pfn_of((chain->first.v & LINK_FRAME) | note));
    chain->first = first;
    chain->count += run;
}

static void release_shared(struct tlb_batch *batch, pfn_t pfn)
{
    for (unsigned i = 0; i < batch->shared_count; i++) {
        if (pfn_equal(batch->shared[i].pfn, pfn)) {
            batch->shared[i].refs++;
            return;
        }
    }
    ASSERT(tlb_batch_has_room(batch));
    batch->shared[batch->shared_count++] = (struct tlb_shared){pfn, 1};
}

/*
 * One holder: it is this mapping then, and cannot be found any more. Acquire:
 * who was alone before has written all it wrote.
 */
static inline bool is_sole(const struct frame_record *record)
{
    return atomic_load_explicit(&record->refs, memory_order_acquire) == 1;
}

static inline bool is_sole_frame(const struct frame_record *record)
{
    return record->type != FRAME_NONE && record->order == 0 && is_sole(record);
}

void tlb_batch_release(struct tlb_batch *batch, pfn_t pfn)
{
    pfn_t block = record_of(pfn)->type != FRAME_NONE ? pfn : frame_head(pfn);

    if (is_sole(record_of(block))) {
        chain_block(&batch->chain, block, 0);
    } else {
        release_shared(batch, block);
    }
}

/* Of a leaf that owns its frame: what says so, and which it is. */
#define OWNER_BITS (PTE_P | PTE_OWN | PTE_FRAME)

/*
 * Mark the frames of the leaves from @leaf on, @count at most, as chained: as
 * long as they lie in a row, are owned, and have no other holder.
 * Return: how many it were.
 */
static inline unsigned mark_run(const pte_t *leaf, unsigned count)
{
    pfn_t first = pte_table(slot_entry(leaf));
    uint64_t expected = PTE_P | PTE_OWN | first.v << PAGE_SHIFT;
    struct frame_record *record = record_of(first);
    unsigned run = 0;

    while (run < count &&
           ((slot_entry(&leaf[run]).v ^ expected) & OWNER_BITS) == 0 &&
           is_sole_frame(record) && !is_chained(record)) {
        set_chained(record);
        record++;
        expected += PAGE_BYTES;
        run++;
    }
    return run;
}

unsigned tlb_batch_release_leaves(struct tlb_batch *batch, const pte_t *leaf,
                                  unsigned count)
{
    unsigned done = 0;

    while (done < count) {
        pte_t entry = slot_entry(&leaf[done]);
        unsigned left = (unsigned)min_u64(count - done, RUN_MOST);
        unsigned run = mark_run(&leaf[done], left);

        if (run > 0) {
            link_run(&batch->chain, pte_table(entry), run);
        } else if ((~entry.v & (PTE_P | PTE_OWN)) == 0 &&
                   tlb_batch_has_room(batch)) {
            tlb_batch_release(batch, pte_table(entry));
            run = 1;
        } else {
            break;
        }
        done += run;
    }
    return done;
}

void tlb_batch_release_table(struct tlb_batch *batch, pfn_t table)
{
    ASSERT(record_of(table)->type == FRAME_TABLE);
    batch->tables = true;
    chain_block(&batch->chain, table, 0);
}

/* @table of @level with all that is in it. */
static void chain_tree(struct tlb_chain *chain, pfn_t table, unsigned level)
{
    ASSERT(record_of(table)->type == FRAME_TABLE);
    chain_block(chain, table, (uint64_t)(level + 1) << LINK_LEVEL_SHIFT);
}

void tlb_batch_release_tree(struct tlb_batch *batch, pfn_t table,
                            unsigned level)
{
    batch->tables = true;
    chain_tree(&batch->chain, table, level);
}

/* Let the oracle know from when on the block at @pfn was unreachable. */
static void stamp_block(pfn_t pfn, uint64_t stamp)
{
    uint64_t frames = UINT64_C(1) << record_of(pfn)->order;

    for (uint64_t i = 0; MM_DEBUG && i < frames; i++) {
        record_stamp(record_of(pfn_add(pfn, i)), stamp);
    }
}

static void let_go(pfn_t block, uint64_t stamp)
{
    if (MM_DEBUG && frame_is_sole(block)) {
        stamp_block(block, stamp);
    }
    frame_unref(block);
}

/*
 * What stands in @table of @level goes: tables into the chain, references on
 * frames at once.
 */
static void release_entries(struct tlb_chain *chain, pfn_t table,
                            unsigned level, uint64_t stamp)
{
    const pte_t *entry = phys_to_virt(pfn_to_phys(table));

    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++) {
        if (pte_is_table(entry[i], level)) {
            chain_tree(chain, pte_table(entry[i]), level - 1);
        } else if (pte_owns_frames(entry[i], level)) {
            let_go(frame_head(pte_pfn(entry[i], level)), stamp);
        }
    }
}

/* Frames with one holder on their way back, which goes faster for many. */
struct returned {
    pfn_t frame[RETURNED_FRAMES];
    unsigned count;
};

static void give_back(struct returned *returned)
{
    if (returned->count == 1) {
        frame_free(returned->frame[0], 0); /* cheaper for one */
    } else {
        frame_free_bulk(returned->frame, returned->count);
    }
    returned->count = 0;
}

/* The block that was chained, which has no other holder. */
static inline void give_block(struct returned *returned, pfn_t block,
                              uint64_t stamp)
{
    struct frame_record *record = record_of(block);

    atomic_store_explicit(&record->entries, 0, memory_order_relaxed);
    if (MM_UNLIKELY(record->order != 0)) {
        let_go(block, stamp);
        return;
    }
    if (MM_DEBUG) {
        stamp_block(block, stamp);
    }
    returned->frame[returned->count++] = block;
    if (returned->count == RETURNED_FRAMES) {
        give_back(returned);
    }
}

/* The same for @run single frames in a row. */
static inline void give_run(struct returned *returned, pfn_t first,
                            unsigned run, uint64_t stamp)
{
    if (run < RUN_LEAST) {
        for (unsigned i = 0; i < run; i++) {
            give_block(returned, pfn_add(first, i), stamp);
        }
        return;
    }
    for (unsigned i = 0; MM_DEBUG && i < run; i++) {
        stamp_block(pfn_add(first, i), stamp);
    }
    frame_free_row(first, run);
}

/* Only as many as were chained: see chain_block(). */
static void release_chain(struct tlb_chain chain, uint64_t stamp)
{
    struct returned returned;

    returned.count = 0;
    while (chain.count > 0) {
        pfn_t first = chain.first;
        uint64_t link = record_link(record_of(first)).v;
        unsigned level = (unsigned)(link >> LINK_LEVEL_SHIFT) & LINK_LEVEL_MASK;
        unsigned run = 1 + (unsigned)(link >> LINK_RUN_SHIFT);

        chain =
            (struct tlb_chain){pfn_of(link & LINK_FRAME), chain.count - run};
        if (MM_UNLIKELY(level > 0)) {
            release_entries(&chain, first, level - 1, stamp);
        }
        give_run(&returned, first, run, stamp);
    }
    give_back(&returned);
}

static MM_NOINLINE void release(struct tlb_batch *batch, uint64_t stamp)
{
    release_chain(batch->chain, stamp);
    for (unsigned i = 0; i < batch->shared_count; i++) {
        for (uint32_t refs = batch->shared[i].refs; refs > 0; refs--) {
            let_go(batch->shared[i].pfn, stamp);
        }
    }
}

void tlb_force_whole(struct tlb_space *space)
{
    /* Nobody makes this flush; so the next finds all CPUs two behind. */
    atomic_fetch_add_explicit(&space->generation, 1, memory_order_seq_cst);
}

/* Does @batch need a flush before it is released? */
static bool is_due(const struct tlb_batch *batch)
{
    return batch->range_count > 0 || batch->whole || batch->tables;
}

void tlb_commit(struct tlb_batch *batch)
{
    bool was_due = is_due(batch);
    uint64_t generation = was_due ? tlb_shoot(batch) : 0;

    if (batch->chain.count + batch->shared_count > 0) {
        release(batch, was_due ? tlb_stamp(batch->space, generation) : 0);
    }
    tlb_batch_init(batch, batch->space);
}

/* --- the oracle ----------------------------------------------------------- */

/*
 * Could @cpu use what it cached before flush @stamp?
 * @out_made: the last flush of that space it has made.
 */
static bool is_behind(const struct tlb_cpu *cpu, uint64_t stamp,
                      uint32_t *out_made)
{
    bool is_kernel = stamp >> 32 == (uint32_t)tlb_kernel->id;
    const _Atomic uint64_t *seen =
        is_kernel ? &cpu->slot[TLB_KERNEL_SLOT].generation : &cpu->usable;

    /* First, and acquire: pairs with tlb_cpu_online(). */
    if (!atomic_load_explicit(&cpu->is_online, memory_order_acquire)) {
        return false;
    }
    /* Acquire: pairs with the release in set_generation() and use(). */
    uint64_t made = atomic_load_explicit(seen, memory_order_acquire);
    if (!is_kernel && made >> 32 != stamp >> 32) {
        return false;
    }
    *out_made = (uint32_t)made;
    /* Both numbers go round after 2^32. */
    return (int32_t)(*out_made - (uint32_t)stamp) < 0;
}

void tlb_check_reuse(pfn_t pfn, uint64_t stamp)
{
    for (unsigned i = 0; i < port_cpu_count(); i++) {
        uint32_t made;

        if (is_behind(&tlb_cpu[i], stamp, &made)) {
            port_panic("tlb: frame 0x%lx is handed out again; it became "
                       "unreachable at flush %u of space %lu, of which CPU %u "
                       "has made only %u",
                       pfn.v, (uint32_t)stamp, stamp >> 32, i, made);
        }
    }
}
