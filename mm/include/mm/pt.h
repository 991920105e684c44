/* SPDX-License-Identifier: MIT */
/* pt: page tables as address space, through a cursor over a locked range. */
#ifndef MM_PT_H
#define MM_PT_H

#include <mm/attr.h>
#include <mm/tlb.h>
#include <mm/types.h>
#include <mm/walk.h>
#include "base/lock.h"
#include "x86_64/pte.h"

/* One set of tables: the translation of one address space. */
struct pt {
    struct lock order; /* rank of its tables' locks; never waited for */
    pfn_t root;        /* (C) top table */
    bool is_kernel;    /* (C) no PT_USER here, else no kernel rights */
    /*
     * (C) The owner's word for what several spaces share: who has an entry
     * whose tag has one of these bits may write to the frame whoever else
     * holds it. All other owned frames are private.
     */
    uint8_t shared_tags;
    struct tlb_space tlb;    /* who caches it */
    _Atomic uint64_t tables; /* (A) table pages, the root included */
    struct pt *next;         /* (L) in the list of spaces, under its lock */
    struct pt *previous;     /* (L) */
};

/* (C) after mm_init(): upper half of every space. */
extern struct pt pt_kernel;

/* One mapping, promise or gap, as large as the entry that says it. */
struct pt_entry {
    enum pte_state state; /* never PTE_TABLE */
    unsigned level;
    vaddr_t start; /* of the entry's span, which may exceed the query */
    uint64_t bytes;
    struct pt_attr attr;
    pfn_t pfn;               /* PRESENT, PARKED: the frame at @start */
    enum pt_promise promise; /* PROMISE */
    uint64_t payload;        /* PROMISE, SWAPPED */
    bool accessed;           /* PRESENT: A and D as the CPU left them */
    bool dirty;
};

/* Ranges a cursor can hold: pt_move() needs two. */
#define PT_RANGES 2

/* An open range, or two; nobody else changes it until pt_close(). */
struct pt_cursor {
    struct pt *pt;
    struct tlb_batch *batch;
    struct pt_range {
        vaddr_t start;
        vaddr_t end;
    } range[PT_RANGES]; /* ascending; the second is empty if there is one */
    unsigned cover;     /* level of the highest table that is locked */
    uint64_t irq;       /* interrupt state to go back to */

    /* Where it stands: at the entry for `at` in a table of `level`. */
    vaddr_t at;
    unsigned level;
    pte_t *slot;
    pfn_t path[PTE_LEVELS]; /* tables from `cover` down to `level` */
};

/*
 * Lock [start, end) of @pt for the caller: the smallest table that covers it
 * and those below that the range touches. Cursors of ranges that share no
 * locked table run side by side; others take turns [CortenMM25]. @batch is
 * initialised and collects what the operations leave to invalidate and
 * release; after pt_close() the caller hands it to tlb_commit().
 * @start, @end  page-aligned, start < end; the kernel's tables translate the
 *               upper canonical half, all others the lower one, page 0 left out
 * Return: MM_OK; MM_EINVAL for a bad range; MM_ERANGE for kernel addresses
 *         under an entry of 512 GiB that start-up left empty. Nothing is
 *         locked then.
 * Context: interrupts are off until pt_close(). One open cursor a CPU, but for
 *          pt_copy()'s own; no lock of rank tables or above is held.
 */
MM_MUST_CHECK enum mm_status pt_open(struct pt *pt, vaddr_t start, vaddr_t end,
                                     struct tlb_batch *batch,
                                     struct pt_cursor *out);
/*
 * From here on the tables say what has changed, but CPUs may use what was there
 * until the batch is committed. So whoever relies on a change, by using an
 * address anew or by taking what is read-only for unchanging, does so after
 * that; the operations on frames that spaces share see to it themselves.
 */
void pt_close(struct pt_cursor *cursor);

/*
 * The same for two ranges at once, [start, end) and [start2, end2), in either
 * order. What lies between them stays open to others, but for the table that
 * covers both.
 * Return: as pt_open(); MM_EINVAL also if they overlap.
 */
MM_MUST_CHECK enum mm_status pt_open_two(struct pt *pt, vaddr_t start,
                                         vaddr_t end, vaddr_t start2,
                                         vaddr_t end2, struct tlb_batch *batch,
                                         struct pt_cursor *out);

/* What stands at @address (inside the cursor's range). */
void pt_query(struct pt_cursor *cursor, vaddr_t address, struct pt_entry *out);

/*
 * Map @bytes from @address to the frames from @pfn up, with the largest
 * leaves that alignment, the CPU and the range allow.
 * With PT_OWNED the caller's reference on each block goes to the mapping:
 * blocks of order 0, and of order 9 at addresses aligned to 2 MiB.
 * Return: MM_OK; MM_EEXIST if a present, parked or swapped entry is in the
 *         way (promises and gaps are replaced);
 *         MM_EINVAL: unknown flags, PT_WRITE with PT_EXEC or PT_COW, PT_NONE
 *         with either, unaligned or out of the range, frame beyond
 *         MAXPHYADDR, user flag in the wrong half, owned blocks of another
 *         order or not handed out; MM_ENOMEM for tables. On failure no
 *         meaning has changed; large promises may have been split.
 *         With PT_NONE the frames are parked; MM_EINVAL if they lie above
 *         pt_payload_end.
 */
MM_MUST_CHECK enum mm_status pt_map(struct pt_cursor *cursor, vaddr_t address,
                                    pfn_t pfn, uint64_t bytes,
                                    struct pt_attr attr);

/*
 * The same for @count pages and as many frames, which need not lie in a row:
 * single frames of the caller, whose references go to the mapping (PT_OWNED).
 */
MM_MUST_CHECK enum mm_status pt_map_frames(struct pt_cursor *cursor,
                                           vaddr_t address, const pfn_t *frames,
                                           unsigned count, struct pt_attr attr);

/*
 * Say what [start, start + bytes) will become when touched: as few entries
 * as alignment allows. The payload of PT_OBJECT counts up by pages.
 * Return: as pt_map(); MM_EINVAL also for a payload from pt_payload_end on,
 *         and for PT_COW but with PT_OBJECT: nobody else has the other pages.
 */
MM_MUST_CHECK enum mm_status pt_promise(struct pt_cursor *cursor, vaddr_t start,
                                        uint64_t bytes, enum pt_promise promise,
                                        struct pt_attr attr, uint64_t payload);

/*
 * Set the rights and memory type of everything that is not a gap; PT_OWNED,
 * PT_GLOBAL and the tag of each entry stay as they are. A private frame that
 * others hold is copied on write, if it may be written; so is one that is not
 * owned and was copied on write. PT_NONE parks what is present, A and D
 * included; any other rights make parked frames present again.
 * Return: MM_OK; MM_EINVAL: as pt_map(), also for frames that PT_NONE cannot
 *         park; MM_ENOMEM: as pt_split(). On failure no meaning has changed.
 */
MM_MUST_CHECK enum mm_status pt_protect(struct pt_cursor *cursor, vaddr_t start,
                                        uint64_t bytes, struct pt_attr attr);

/*
 * Make [start, start + bytes) a gap; owned frames and emptied tables go to
 * the batch.
 * @out_end: the address reached. Below the end only if the batch was full:
 *           close, commit, open again and go on from there.
 * Return: MM_OK; MM_EINVAL: out of the range; MM_ENOMEM: as pt_split(), and no
 *         meaning has changed.
 */
MM_MUST_CHECK enum mm_status pt_unmap(struct pt_cursor *cursor, vaddr_t start,
                                      uint64_t bytes, vaddr_t *out_end);

/*
 * Move whatever stands in [from, from + bytes) to @to, a gap included: leaves
 * keep their size where the alignment of both allows, A, D and tag. Promises
 * in the way are replaced.
 * @cursor  opened over both ranges; they do not overlap.
 * Return: MM_OK; MM_EEXIST if a present, parked or swapped entry is in the way;
 *         MM_EINVAL: out of the ranges, unaligned, overlapping, the kernel's
 *         tables; MM_ENOMEM for tables. On failure no meaning has changed.
 */
MM_MUST_CHECK enum mm_status pt_move(struct pt_cursor *cursor, vaddr_t from,
                                     vaddr_t to, uint64_t bytes);

/*
 * Give @to, at the same addresses, what [start, start + bytes) of the cursor's
 * space says. Owned frames get a second holder, and where private ones could be
 * written, both sides become PT_COW and read-only. What is shared or not owned,
 * promises and swapped entries are the same on both sides. Whoever counts the
 * users of swap slots and objects does so before.
 * @to  other than the cursor's space, loaded and used nowhere yet; nothing but
 *      gaps in the range.
 * Return: MM_OK; MM_EINVAL: out of the range; MM_EEXIST: @to says something in
 *         the way; MM_ENOMEM. After these two @to has a part of it, for
 *         pt_fini(); accesses here mean what they meant.
 */
MM_MUST_CHECK enum mm_status pt_copy(struct pt_cursor *cursor, struct pt *to,
                                     vaddr_t start, uint64_t bytes);

/*
 * Put @pfn, whose reference the mapping takes, in place of the leaf at @page:
 * 4 KiB, with @attr. The frame that was there goes with the batch if it was
 * owned. A large leaf is split.
 * Return: MM_OK; MM_ENOENT: nothing is present there; MM_EINVAL: as pt_map(),
 *         or PT_NONE; MM_ENOMEM: as pt_split(); MM_EBUSY: the batch is full:
 *         close, commit, and try again. On failure no meaning has changed.
 */
MM_MUST_CHECK enum mm_status pt_replace(struct pt_cursor *cursor, vaddr_t page,
                                        pfn_t pfn, struct pt_attr attr);

/* What pt_age() clears; the bits are those of a leaf. */
enum pt_age_what { PT_AGE_ACCESSED = 1 << 0, PT_AGE_DIRTY = 1 << 1 };

/* One leaf, with A and D as they were. */
typedef void (*pt_leaf_fn)(void *context, const struct pt_entry *entry);

/*
 * Test and clear A or D, or both, of all leaves in [start, start + bytes); a
 * large one that the range cuts counts as a whole. @seen (may be NULL) is
 * told of each leaf, as it was before. Cleared D is handed to the batch: the
 * next write sets it again once that is committed. Cleared A is not: a page
 * that is used through a cached translation may look idle, and costs nothing
 * [SDM-3A 4.10.4.2 "Recommended Invalidation"].
 * Return: leaves that had one of the bits.
 */
uint64_t pt_age(struct pt_cursor *cursor, vaddr_t start, uint64_t bytes,
                unsigned what, pt_leaf_fn seen, void *context);

/*
 * Replace the large leaf or promise at @address by a table of 512 smaller
 * ones that mean the same. The block of an owned leaf becomes 512 frames; one
 * with further holders stays a block, and each small leaf holds a reference
 * on it.
 * Return: MM_OK; MM_ENOENT if a level-0 entry or a gap stands there;
 *         MM_ENOMEM.
 */
MM_MUST_CHECK enum mm_status pt_split(struct pt_cursor *cursor,
                                      vaddr_t address);

/*
 * The opposite: the table of @level - 1 over @address becomes one entry of
 * @level, if all its entries are alike and their frames contiguous.
 * Return: MM_OK; MM_EINVAL if they are not; MM_ENOENT if there is no table.
 */
MM_MUST_CHECK enum mm_status pt_merge(struct pt_cursor *cursor, vaddr_t address,
                                      unsigned level);

/*
 * Set rights in the kernel's tables in one go, as pt_protect(): large leaves
 * are cut where a part of them changes, and put together again where all parts
 * have become alike. For guard pages and the like.
 * Return: as pt_open() and pt_protect(). On failure no meaning has changed.
 * Context: as tlb_commit(); flushes once more for each block put together.
 * Cost: besides the change a few lookups for each 2 MiB that it touches.
 */
MM_MUST_CHECK enum mm_status pt_protect_kernel(vaddr_t start, uint64_t bytes,
                                               struct pt_attr attr);

/* What pt_lookup() finds: the last entry on the way, and its level. */
struct pt_leaf {
    pte_t entry; /* present; else nothing is mapped */
    unsigned level;
};

/*
 * Translate without a lock: for fault paths.
 * Return: the entry that says what @address means. If it is present then, as
 *         long as interrupts stay off, its frame is not released if @pt is
 *         the kernel's or loaded on this CPU.
 * Context: interrupts off; as tlb_begin_visit(). Reads tables while others
 *          change them: docs/locking.md says what keeps them from release.
 */
struct pt_leaf pt_lookup(struct pt *pt, vaddr_t address);

/* The frame of the page at @address in a present @leaf. */
static inline pfn_t pt_leaf_pfn(struct pt_leaf leaf, vaddr_t address)
{
    uint64_t inside = pte_span(leaf.level) - 1;
    uint64_t mixed = leaf.entry.v ^ ((leaf.entry.v ^ address) & inside);

    return pte_table((pte_t){mixed});
}

/* What pt_collapse() has found in a 2 MiB block, for its policy. */
struct pt_collapse {
    vaddr_t address;
    unsigned present;  /* pages that would be copied */
    unsigned accessed; /* of these, used since A was cleared last */
    unsigned promised; /* zero-fill pages that would be filled */
};

/* Is it worth a large page? */
typedef bool (*pt_collapse_fn)(void *context, const struct pt_collapse *found);

/*
 * Make the 512 pages of the block at @address, which is 2 MiB-aligned, one
 * large leaf: at once if their frames lie in a row (pt_merge()), else by a
 * copy into a new block. Who writes to it meanwhile wins, and it stays small.
 * Return: MM_OK; MM_ENOENT: nothing small there, or pages that cannot be one
 *         (gaps, other promises than zero, rights that differ, frames with
 *         other holders); MM_EBUSY: written to meanwhile; MM_ENOMEM: no block;
 *         MM_EINVAL: not a user range, unaligned; MM_ERANGE: @wanted said no,
 *         or the CPU is one of those that must not do so (pt_features).
 * Context: as tlb_commit(); flushes twice.
 */
MM_MUST_CHECK enum mm_status pt_collapse(struct pt *pt, vaddr_t address,
                                         pt_collapse_fn wanted, void *context);

/*
 * The tables that translate @address on this CPU: the kernel's, or those of
 * the space that is loaded. Context: interrupts off.
 */
struct pt *pt_of(vaddr_t address);

/* New tables whose upper half is the kernel's. MM_ENOMEM. */
MM_MUST_CHECK enum mm_status pt_init(struct pt *pt);

/*
 * The space after @pt in the list of all that pt_init() has made and pt_fini()
 * has not ended; the first for NULL, NULL after the last. The kernel's tables
 * are not in it. Context: nobody makes or ends one meanwhile.
 */
struct pt *pt_next(const struct pt *pt);
/*
 * Unmap everything below the upper half and free all tables. No CPU runs it;
 * idle ones that have it loaded let go of it.
 * Context: as tlb_commit().
 */
void pt_fini(struct pt *pt);

/*
 * Where tables come from before the frame allocator stands, and for the
 * tables under the frame records at any time: one zeroed frame, or PFN_NONE.
 * Frames that come from frame_alloc_metadata() let several CPUs build the same
 * tables at once: what one of them was too late with goes back there.
 */
typedef pfn_t (*pt_table_fn)(void *context);

/*
 * Build [start, start + bytes) into tables that carry no records, with the
 * largest leaves; no locks, no invalidation: only gaps are filled. Tables are
 * never freed. For start-up and for the record array.
 * Return: MM_OK; MM_ENOMEM; MM_EEXIST. What was built stays.
 */
MM_MUST_CHECK enum mm_status pt_install(pfn_t root, vaddr_t start, pfn_t pfn,
                                        uint64_t bytes, struct pt_attr attr,
                                        pt_table_fn table, void *context);

/*
 * The same for the tables on the way to @address alone, down to @level.
 */
MM_MUST_CHECK enum mm_status pt_install_table(pfn_t root, vaddr_t address,
                                              unsigned level, pt_table_fn table,
                                              void *context);

/*
 * Make @pt the tables under @root, which pt_install() built: each gets a
 * record, so that cursors can work on it, and stays even when it is empty.
 * Those under the record array get none: no cursor ever works on them.
 * The tables may be loaded: pt->tlb is as tlb_space_init() has left it.
 * Return: MM_OK; MM_ENOMEM for records.
 */
MM_MUST_CHECK enum mm_status pt_adopt(struct pt *pt, pfn_t root,
                                      bool is_kernel);

#endif
