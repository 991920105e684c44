/* SPDX-License-Identifier: MIT */
/* fault: from a #PF to what is done about it. */
#ifndef MM_FAULT_H
#define MM_FAULT_H

#include <mm/walk.h>

/* Error code of #PF. [SDM-3A 4.7 "Page-Fault Exceptions"] */
enum fault_code {
    FAULT_P = 1 << 0, /* rights, not absence */
    FAULT_W = 1 << 1,
    FAULT_U = 1 << 2,
    FAULT_RSVD = 1 << 3, /* QEMU 7.2 leaves P clear: test this first */
    FAULT_I = 1 << 4,
    FAULT_PK = 1 << 5,
    FAULT_SS = 1 << 6
};

struct fault {
    vaddr_t address; /* CR2 */
    uint32_t code;
    vaddr_t ip;
    struct walk_rules rules;
};

enum fault_result {
    FAULT_RESOLVED, /* the promise was kept: try again */
    FAULT_UNSHARED, /* the page is the space's alone now: try again */
    FAULT_SPURIOUS, /* the tables allow it: try again */
    /* errors: nothing was done */
    FAULT_NULL,  /* page 0 */
    FAULT_GUARD, /* a guard page of a kmap block or stack */
    FAULT_NOT_MAPPED,
    FAULT_READ_ONLY,
    FAULT_NO_EXECUTE,
    FAULT_RESERVED_BIT,
    FAULT_SUPERVISOR,
    FAULT_USER_EXEC,
    FAULT_USER_ACCESS,
    FAULT_NO_ACCESS, /* the page is there, or promised, for nobody */
    FAULT_NO_MEMORY, /* the promise cannot be kept now, or no copy made */
    FAULT_RESULTS
};

/* Counters, by result; the words vmstat prints. */
struct fault_stats {
    uint64_t count[FAULT_RESULTS];
};

/*
 * Decide on a fault by the state of the entry, in the kernel's tables or those
 * that are loaded: keep a zero-fill promise, by 2 MiB where it allows; give a
 * page that is copied on write its copy, or back if nobody else has it.
 * @out_walk: the tables as they were found; of a promise that is kept or a page
 * that is copied the last step alone, without rights.
 * Context: interrupts off, on the faulting CPU; as tlb_commit(), if a page that
 * is copied on write is to be written to. Allocates at most a block; tables
 * only to split a large entry.
 */
enum fault_result fault_handle(const struct fault *fault,
                               struct walk *out_walk);

/* Is the access to be tried again? */
static inline bool fault_is_settled(enum fault_result result)
{
    return result <= FAULT_SPURIOUS;
}

/*
 * What fault_handle() would decide on @walk, without doing or counting it:
 * FAULT_RESOLVED means that a promise would be kept, FAULT_UNSHARED that a
 * page would be copied.
 */
enum fault_result fault_judge(const struct fault *fault,
                              const struct walk *walk);

/* "write to a read-only page": what happened, for a sentence. */
const char *fault_result_text(enum fault_result result);
/* One action the reader can take. */
const char *fault_result_advice(enum fault_result result);

void fault_stats(struct fault_stats *out);

#endif
