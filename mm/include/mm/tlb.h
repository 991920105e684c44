/* SPDX-License-Identifier: MIT */
/* tlb: change, invalidate, release: the one way frames leave a mapping. */
#ifndef MM_TLB_H
#define MM_TLB_H

#include <stdatomic.h>

#include <mm/types.h>
#include "base/check.h"
#include "base/cpus.h"
#include "x86_64/pte.h"

/* What makes invalidation cheap; each part can be left out and measured. */
enum tlb_parts {
    TLB_PCID = 1 << 0,    /* tagged spaces survive a switch; needs the CPU's */
    TLB_INVPCID = 1 << 1, /* needs the CPU's, and TLB_PCID */
    TLB_LAZY = 1 << 2,    /* an idle CPU is not interrupted for user pages */
    TLB_RANGES = 1 << 3   /* few pages are invalidated one by one */
};

/* Who may cache translations of one set of tables. */
struct tlb_space {
    _Atomic uint64_t generation; /* (A) flushes begun so far */
    struct cpu_set cpus;         /* (A) those a flush must reach */
    uint64_t id;                 /* (C) of no other space, ever; not 0 */
    paddr_t root;                /* (C) what CR3 holds when it is loaded */
    bool is_kernel;              /* (C) global pages, on every CPU */
};

/* Separate ranges a batch remembers before it flushes the whole space. */
#define TLB_BATCH_RANGES 4
/* Blocks with more than one holder that a batch can wait to let go of. */
#define TLB_BATCH_SHARED 32

struct tlb_range {
    vaddr_t start;
    vaddr_t end;
    unsigned level; /* size of the leaves that were there */
};

/*
 * Invalidations that are due and what to release after them. Lives on the
 * caller's stack; needs no memory: sole-owned frames are chained through
 * their records.
 */
struct tlb_batch {
    struct tlb_space *space;
    uint32_t range_count; /* these four are cleared by one store */
    uint16_t shared_count;
    bool whole;  /* flush the space, ranges or not */
    bool tables; /* paging-structure caches must go too */
    struct tlb_chain {
        pfn_t first;    /* sole-owned blocks and tables, by record_link() */
        uint64_t count; /* of these */
    } chain;
    uint64_t pages; /* INVLPGs that the ranges, if any, would take */
    struct tlb_range range[TLB_BATCH_RANGES];
    struct tlb_shared {
        pfn_t pfn;
        uint32_t refs; /* how many of its references go */
    } shared[TLB_BATCH_SHARED];
};

struct tlb_stats {
    uint64_t commits;    /* batches that had something to do */
    uint64_t pages;      /* INVLPGs that the ranges, if any, would take */
    uint64_t whole;      /* full flushes of a space */
    uint64_t switches;   /* loads of another space */
    uint64_t kept;       /* of these, with what was cached under its PCID */
    uint64_t released;   /* blocks and tables that had waited for a flush */
    uint64_t interrupts; /* sent to other CPUs */
    uint64_t spared;     /* not sent, because the CPU was lazy */
    uint64_t served;     /* requests of other CPUs answered */
    uint64_t overtaken;  /* of these, already done by a later flush */
    uint64_t caught_up;  /* full flushes that made up for missed requests */
};

/*
 * Nothing is known of what any CPU has cached. Once, on the first CPU, before
 * tables are loaded.
 * @parts: enum tlb_parts that the CPUs have and that are wanted.
 */
void tlb_init(unsigned parts);

/* The parts in use. */
unsigned tlb_parts(void);

/*
 * This CPU joins: the kernel's tables are in CR3, nothing else is cached, and
 * from now on flushes reach it.
 * Context: interrupts off; once a CPU, before it touches what the tables of
 * the kernel may ever take away again.
 */
void tlb_cpu_online(void);

void tlb_space_init(struct tlb_space *space, paddr_t root, bool is_kernel);

/*
 * No CPU will use the space again: idle CPUs that have it loaded let go of
 * it. A CPU that runs it is a bug of the caller, and panics.
 * Context: as tlb_commit().
 */
void tlb_space_fini(struct tlb_space *space);

static inline void tlb_batch_init(struct tlb_batch *batch,
                                  struct tlb_space *space)
{
    batch->space = space;
    batch->range_count = 0;
    batch->shared_count = 0;
    batch->whole = false;
    batch->tables = false;
    batch->chain = (struct tlb_chain){PFN_NONE, 0};
}

/* tlb_batch_range() of a batch that has ranges. */
void tlb_batch_join(struct tlb_batch *batch, vaddr_t start, vaddr_t end,
                    unsigned level);

/* Leaves of @level in [start, end) were removed or lost rights. */
static inline void tlb_batch_range(struct tlb_batch *batch, vaddr_t start,
                                   vaddr_t end, unsigned level)
{
    ASSERT_SLOW(start < end);
    if (batch->range_count > 0) {
        tlb_batch_join(batch, start, end, level);
        return;
    }
    batch->range[0] = (struct tlb_range){start, end, level};
    batch->pages = (end - start) >> pte_shift(level);
    batch->range_count = 1;
}

/*
 * The next flush of @space is a whole one on every CPU, whoever makes it and
 * whatever it knows: small translations of what is one large page now may be
 * cached, and another batch could take that page away before this one commits.
 * After the entry has changed, under the lock of the tables.
 */
void tlb_force_whole(struct tlb_space *space);

/* Is there room to release one more shared frame? If not, commit first. */
static inline bool tlb_batch_has_room(const struct tlb_batch *batch)
{
    return batch->shared_count < TLB_BATCH_SHARED;
}

/*
 * Let go of the block that holds @pfn, one reference, once nothing can reach
 * it. The entry that mapped it was removed and handed to tlb_batch_range().
 */
void tlb_batch_release(struct tlb_batch *batch, pfn_t pfn);

/*
 * The same for the frames of small present leaves that own them: of @count from
 * @leaf on, up to the first other entry, or for which there is no room. They
 * are removed before the table is unlocked.
 * Return: how many it were.
 */
unsigned tlb_batch_release_leaves(struct tlb_batch *batch, const pte_t *leaf,
                                  unsigned count);

/* The same for a page table that was unhooked from its parent. */
void tlb_batch_release_table(struct tlb_batch *batch, pfn_t table);

/*
 * The same for a table of @level with all that is in it: tables below, and a
 * reference on the block of each leaf and parked entry that owns one. It stays
 * as it is until then, so any number of frames takes no memory to remember.
 */
void tlb_batch_release_tree(struct tlb_batch *batch, pfn_t table,
                            unsigned level);

/*
 * Invalidate on every CPU that may use the space, wait until they all have,
 * then release. The batch is empty and usable afterwards.
 * Context: no lock held if there is anything to invalidate (asserted in debug
 * builds; an empty batch may be committed anywhere), not from an NMI or a
 * machine check. Waits for other CPUs, and answers them meanwhile; so it may
 * be called with interrupts off, and by two CPUs at once against each other.
 */
void tlb_commit(struct tlb_batch *batch);

/*
 * Have every CPU forget what the kernel's tables have said until now, and do
 * not wait for it. Context: any but NMI and machine check; also under locks,
 * since nothing is released here: that is for who has seen the end.
 * Return: which flush it is.
 */
uint64_t tlb_begin_flush(void);

/* Has every CPU made that flush? What it did before is seen here then. */
bool tlb_has_ended(uint64_t flush);

/* What the host does when port_send_tlb_interrupt() has reached this CPU. */
void tlb_interrupt(void);

/*
 * Load @space on this CPU; what was missed while it was not is made up for.
 * Ends tlb_begin_lazy(), too: from an idle loop straight to another space.
 */
void tlb_switch(struct tlb_space *space);

/* Is @space loaded on this CPU? */
bool tlb_is_loaded(const struct tlb_space *space);

/* The space that is. Context: interrupts off, else it may be another soon. */
struct tlb_space *tlb_loaded(void);

/*
 * Between these two this CPU keeps its space loaded but uses no translation
 * of it, only the kernel's: an idle loop. Flushes of the space do not disturb
 * it, and the second call makes up for them; but where tables were released,
 * the kernel's are loaded then: tlb_switch() before the space is used again.
 */
void tlb_begin_lazy(void);
void tlb_end_lazy(void);

/*
 * Between these two, tables of @space are not released, though this CPU does
 * not have it loaded: for who descends without a lock.
 * Return: what to hand to tlb_end_visit().
 * Context: interrupts off from the first to the second. On a lazy CPU, whom
 *          flushes without tables pass by, frames may go. Visits do not nest,
 *          and nothing is loaded within.
 */
bool tlb_begin_visit(struct tlb_space *space);
void tlb_end_visit(struct tlb_space *space, bool is_visit);

/* Forget everything of every space on this CPU. */
void tlb_flush_all(void);

/* INVLPGs above which a commit flushes the whole space instead. */
extern unsigned tlb_ceiling;

/* Of one CPU, and of all together. */
void tlb_cpu_stats(unsigned cpu, struct tlb_stats *out);
void tlb_stats(struct tlb_stats *out);

/* What a CPU has loaded, for `cpus`; the answer may be old at once. */
struct tlb_cpu_state {
    bool is_online;
    bool is_lazy;
    uint64_t space;      /* id of what is loaded */
    uint64_t generation; /* of it, as of the last flush here */
    unsigned pcid;
};
void tlb_cpu_look(unsigned cpu, struct tlb_cpu_state *out);

#endif
