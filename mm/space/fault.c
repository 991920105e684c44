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
 *    copied on write write         who may  a copy, or the page itself
 *    present         refused       any      the right that is missing
 *    parked          any           any      no access
 *    promise         any           other    a page of the other side
 *    promise, none   any           any      no access
 *    promise, guard  any           any      guard
 *    promise, zero   promised      any      a zeroed frame; try again
 *    promise, zero   not promised  any      the right that is missing
 *    anything else   any           any      not mapped
 *
 * Locking: supply.c opens cursors. Their locks cannot be in the way: code that
 * holds them touches tables and records only, which lie in the direct map and
 * in the record array and never fault; a peek at a record that is not there
 * does (MM_PORT_PEEKS), but is not asked for here. Nor do locks of a higher
 * rank protect promised memory: docs/locking.md.
 *
 * Cost: one lookup where the last entry says it all: a promise that is kept, a
 * page that is copied; else one walk, too. For a promise one frame and one
 * cursor.
 */
#include <mm/fault.h>

#include <stdatomic.h>

#include <mm/pt.h>
#include "base/check.h"
#include "space/supply.h"

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
    [FAULT_UNSHARED] = {"write to a page that was shared",
                        "nothing to do: the space has its own now"},
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
    [FAULT_NO_ACCESS] = {"access to a page that nobody may access",
                         "give it rights with pt_protect(), or look for who "
                         "took them away"},
    [FAULT_NO_MEMORY] = {"first touch of a promised page with no frame left",
                         "free memory, or make the block eager so that it "
                         "fails when it is made"},
};

static _Atomic uint64_t counters[FAULT_RESULTS]; /* (A) */

/* Does the promised page belong to the side that tries the access? */
static enum fault_result judge_side(const struct fault *fault, bool is_user)
{
    if (fault->code & FAULT_U) {
        return is_user ? FAULT_RESOLVED : FAULT_SUPERVISOR;
    }
    if (!is_user) {
        return FAULT_RESOLVED;
    }
    if (fault->code & FAULT_I) {
        return fault->rules.smep ? FAULT_USER_EXEC : FAULT_RESOLVED;
    }
    return fault->rules.smap ? FAULT_USER_ACCESS : FAULT_RESOLVED;
}

/* What the promise @entry makes of the access. */
static enum fault_result judge_promise(const struct fault *fault, pte_t entry,
                                       unsigned level)
{
    struct pt_attr attr = pte_attr(entry, level);
    enum fault_result side = judge_side(fault, (attr.flags & PT_USER) != 0);
    enum fault_result result = by_promise[pte_promise(entry)];

    if (side != FAULT_RESOLVED || result != FAULT_RESOLVED) {
        return side != FAULT_RESOLVED ? side : result;
    }
    if (attr.flags & PT_NONE) {
        return FAULT_NO_ACCESS;
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
    if (walk->count == 0) {
        return FAULT_NOT_MAPPED; /* not canonical */
    }
    const struct walk_step *last = &walk->step[walk->count - 1];
    if (walk->state == PTE_PROMISE) {
        return judge_promise(fault, last->entry, last->level);
    }
    if (walk->state == PTE_PARKED) {
        return FAULT_NO_ACCESS;
    }
    enum fault_result result =
        by_verdict[walk_judge(walk, fault->code, &fault->rules, NULL)];
    bool is_copied = result == FAULT_READ_ONLY && (last->entry.v & PTE_COW);
    return is_copied ? FAULT_UNSHARED : result;
}

/*
 * What the last entry alone decides: FAULT_RESOLVED or FAULT_UNSHARED, since
 * tables have all rights and leave it to the entry. Anything else takes a walk.
 */
static enum fault_result judge_leaf(const struct fault *fault,
                                    struct pt_leaf leaf)
{
    bool is_user = (leaf.entry.v & PTE_US) != 0;

    if (pte_state(leaf.entry, leaf.level) == PTE_PROMISE) {
        return judge_promise(fault, leaf.entry, leaf.level);
    }
    bool is_copied = pte_is_present(leaf.entry) &&
                     (leaf.entry.v & PTE_COW) != 0 &&
                     (fault->code & (FAULT_W | FAULT_I)) == FAULT_W &&
                     is_user == ((fault->code & FAULT_U) != 0);
    return is_copied ? FAULT_UNSHARED : FAULT_NOT_MAPPED;
}

static bool is_to_settle(enum fault_result result)
{
    return result == FAULT_RESOLVED || result == FAULT_UNSHARED;
}

/* Find out what the fault means: by a lookup, or else by a walk. */
static enum fault_result find(const struct fault *fault, struct pt *pt,
                              struct walk *out_walk)
{
    struct pt_leaf leaf = {{0}, 0};
    enum fault_result result = FAULT_NOT_MAPPED;

    /* A damaged entry may lead to no table at all: the walk looks first. */
    if ((fault->code & FAULT_RSVD) == 0 && fault->address >= PAGE_BYTES) {
        leaf = pt_lookup(pt, fault->address);
        result = judge_leaf(fault, leaf);
    }
    if (!is_to_settle(result)) {
        walk_address(pt->root, fault->address, out_walk);
        return fault_judge(fault, out_walk);
    }
    out_walk->address = fault->address;
    out_walk->state = pte_state(leaf.entry, leaf.level);
    out_walk->count = 1;
    out_walk->step[0].level = leaf.level;
    out_walk->step[0].entry = leaf.entry;
    return result;
}

/* Do what was decided. */
static enum fault_result settle(const struct fault *fault, struct pt *pt,
                                enum fault_result result,
                                const struct walk *walk)
{
    /* Held by this CPU, the lock would never come free again. */
    ASSERT(!lock_is_mine(&pt->order));
    if (result == FAULT_RESOLVED) {
        return supply_page(pt, fault->address, &walk->step[walk->count - 1]);
    }
    return supply_copy(pt, fault->address);
}

enum fault_result fault_handle(const struct fault *fault, struct walk *out_walk)
{
    struct pt *pt = pt_of(fault->address);
    enum fault_result result = find(fault, pt, out_walk);

    if (is_to_settle(result)) {
        result = settle(fault, pt, result, out_walk);
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
