/* SPDX-License-Identifier: MIT */
/* fault: from a #PF to what is done about it. */
/*
 * Owns: the decision, and the counters of how it went.
 *
 * Idea: what a fault means is said by three things: the entry that stands at
 * the address now, what was tried, and who tried it. The error code is the
 * past: another CPU may have changed the entry since, so the tables are read
 * again and judged by the rules the processor follows (walk.h). Two tables
 * below turn the judgement into a result:
 *
 *    entry           access        origin   result
 *    reserved bit    any           any      error, whatever else is true
 *    below page 1    any           any      null pointer
 *    present         allowed now   any      spurious: try again
 *    present         refused       any      the right that is missing
 *    promise         any           user     the page is the kernel's, if it is
 *    promise, guard  any           any      guard
 *    promise, zero   promised      any      a zeroed frame; try again
 *    promise, zero   not promised  any      the right that is missing
 *    anything else   any           any      not mapped
 *
 * Locking: the cursor on one page of pt_kernel, to keep a promise. That lock
 * cannot be in the way: code that holds it touches tables and records only,
 * which lie in the direct map and in the record array and never fault. Nor do
 * locks of a higher rank protect promised memory: docs/locking.md.
 *
 * Cost: one walk; for a promise one frame and one cursor.
 *
 * Limits: kernel addresses only. One page at a time.
 */
#include <mm/fault.h>

#include <stdatomic.h>

#include <mm/frame.h>
#include <mm/pt.h>
#include "base/bits.h"

/* An error code can be handed to walk_judge() as it is. */
_Static_assert((unsigned)FAULT_W == (unsigned)WALK_WRITE &&
                   (unsigned)FAULT_U == (unsigned)WALK_USER &&
                   (unsigned)FAULT_I == (unsigned)WALK_EXEC,
               "fault_code and walk_access are the same bits");

/* What the rules say of the entry as it is now. */
static const enum fault_result by_verdict[] = {
    [WALK_ALLOWED] = FAULT_SPURIOUS,
    [WALK_NON_CANONICAL] = FAULT_NOT_MAPPED,
    [WALK_NOT_PRESENT] = FAULT_NOT_MAPPED, /* unless by_promise says more */
    [WALK_RESERVED_BIT] = FAULT_RESERVED_BIT,
    [WALK_READ_ONLY] = FAULT_READ_ONLY,
    [WALK_NO_EXECUTE] = FAULT_NO_EXECUTE,
    [WALK_SUPERVISOR] = FAULT_SUPERVISOR,
    [WALK_USER_EXEC] = FAULT_USER_EXEC,
    [WALK_USER_ACCESS] = FAULT_USER_ACCESS,
};

/* What a promise makes of an access it allows. */
static const enum fault_result by_promise[] = {
    [PT_ZERO] = FAULT_RESOLVED,
    [PT_OBJECT] = FAULT_NOT_MAPPED, /* the kernel has no such pages */
    [PT_GUARD] = FAULT_GUARD,
    [PT_GUARD_GROW] = FAULT_GUARD,
};

/* Word and advice for each result. */
static const struct {
    const char *text;
    const char *advice;
} wording[FAULT_RESULTS] = {
    [FAULT_RESOLVED] = {"first touch of a promised page",
                        "nothing to do: the page is there now"},
    [FAULT_SPURIOUS] = {"access that the page tables allow",
                        "if it repeats, invalidate the TLB entry of the page"},
    [FAULT_NULL] = {"access through a null pointer",
                    "the address is an offset: look for the pointer to a "
                    "structure with a member there"},
    [FAULT_GUARD] = {"access to a guard page",
                     "a block or stack was left at its end: check the index, "
                     "or give the stack more pages"},
    [FAULT_NOT_MAPPED] = {"access to an address that is not mapped",
                          "look for a pointer to memory that was freed, or "
                          "that was never set"},
    [FAULT_READ_ONLY] = {"write to a read-only page",
                         "write to a copy, or change the rights of the page "
                         "with pt_protect()"},
    [FAULT_NO_EXECUTE] = {"execution of a page that holds data",
                          "look for a function pointer or return address that "
                          "was overwritten"},
    [FAULT_RESERVED_BIT] = {"page table entry with a reserved bit set",
                            "an entry was damaged or written past pt_map(): "
                            "see who owns the table's frame"},
    [FAULT_SUPERVISOR] = {"user access to a page of the kernel",
                          "end the process: it may not know this address"},
    [FAULT_USER_EXEC] = {"execution of a user page by the kernel (SMEP)",
                         "look for a function pointer that user mode could "
                         "write"},
    [FAULT_USER_ACCESS] = {"kernel access to a user page without leave (SMAP)",
                           "go through the functions that copy from and to "
                           "user memory"},
    [FAULT_NO_MEMORY] = {"first touch of a promised page with no frame left",
                         "free memory, or make the block eager so that it "
                         "fails when it is made"},
};

static _Atomic uint64_t counters[FAULT_RESULTS]; /* (A) */

/* What the promise @entry makes of the access. */
static enum fault_result judge_promise(const struct fault *fault, pte_t entry,
                                       unsigned level)
{
    struct pt_attr attr = pte_attr(entry, level);
    enum fault_result result = by_promise[pte_promise(entry)];

    if ((fault->code & FAULT_U) && !(attr.flags & PT_USER)) {
        return FAULT_SUPERVISOR;
    }
    if (result != FAULT_RESOLVED) {
        return result;
    }
    if ((fault->code & FAULT_I) && fault->rules.nx && !(attr.flags & PT_EXEC)) {
        return FAULT_NO_EXECUTE;
    }
    if ((fault->code & FAULT_W) && !(attr.flags & PT_WRITE)) {
        return FAULT_READ_ONLY;
    }
    return FAULT_RESOLVED;
}

/* The table in the head of this file, from the top. */
enum fault_result fault_judge(const struct fault *fault,
                              const struct walk *walk)
{
    if (fault->code & FAULT_RSVD) {
        return FAULT_RESERVED_BIT;
    }
    if (fault->address < PAGE_BYTES) {
        return FAULT_NULL;
    }
    if (walk->state == PTE_PROMISE) {
        const struct walk_step *last = &walk->step[walk->count - 1];
        return judge_promise(fault, last->entry, last->level);
    }
    return by_verdict[walk_judge(walk, fault->code, &fault->rules, NULL)];
}

/* Map @frame at @page if a zero promise still stands there. */
static enum fault_result keep_promise(vaddr_t page, pfn_t frame)
{
    enum fault_result result = FAULT_RESOLVED;
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct pt_entry entry;

    /* Held by this CPU, the lock would never come free again. */
    ASSERT(!lock_is_mine(&pt_kernel.order));
    if (pt_open(&pt_kernel, page, page + PAGE_BYTES, &batch, &cursor) !=
        MM_OK) {
        return FAULT_NOT_MAPPED;
    }
    pt_query(&cursor, page, &entry);
    entry.attr.flags |= PT_OWNED; /* the frame is the mapping's alone */
    if (entry.state != PTE_PROMISE || entry.promise != PT_ZERO) {
        result = FAULT_SPURIOUS; /* another CPU was faster */
    } else if (pt_map(&cursor, page, frame, PAGE_BYTES, entry.attr) != MM_OK) {
        result = FAULT_NO_MEMORY; /* no table to split a large promise */
    }
    pt_close(&cursor);
    tlb_commit(&batch);
    return result;
}

/* A zeroed frame for the page of @address, back again if it is not needed. */
static enum fault_result supply_page(vaddr_t address)
{
    pfn_t frame = frame_alloc(0, FRAME_KMAP, FRAME_ZEROED);

    if (pfn_is_none(frame)) {
        return FAULT_NO_MEMORY;
    }
    enum fault_result result =
        keep_promise(align_down(address, PAGE_BYTES), frame);
    if (result != FAULT_RESOLVED) {
        frame_free(frame, 0); /* nothing has ever led to it */
    }
    return result;
}

enum fault_result fault_handle(const struct fault *fault, struct walk *out_walk)
{
    walk_address(pt_kernel.root, fault->address, out_walk);
    enum fault_result result = fault_judge(fault, out_walk);

    if (result == FAULT_RESOLVED) {
        result = supply_page(fault->address);
    }
    atomic_fetch_add_explicit(&counters[result], 1, memory_order_relaxed);
    return result;
}

const char *fault_result_text(enum fault_result result)
{
    ASSERT(result < FAULT_RESULTS);
    return wording[result].text;
}

const char *fault_result_advice(enum fault_result result)
{
    ASSERT(result < FAULT_RESULTS);
    return wording[result].advice;
}

void fault_stats(struct fault_stats *out)
{
    for (unsigned i = 0; i < FAULT_RESULTS; i++) {
        out->count[i] =
            atomic_load_explicit(&counters[i], memory_order_relaxed);
    }
}
