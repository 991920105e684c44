/* SPDX-License-Identifier: MIT */
/* sim_mmu: what each simulated CPU has cached; for the files of sim alone. */
#ifndef TESTS_HOST_SIM_MMU_IMPL_H
#define TESTS_HOST_SIM_MMU_IMPL_H

#include <mm/config.h>
#include "tests/host/sim_mmu.h"

#define SIM_TRANSLATIONS 8192
#define SIM_SHORTCUTS    4096
/* Tables on the way of a descent. */
#define SIM_DESCENT 8

/* One translation as a TLB keeps it [SDM-3A 4.10.2 "TLBs"]. */
struct translation {
    bool is_global;
    bool is_owned; /* by a mapping that must not let the frame go */
    bool is_writable;
    bool is_executable;
    bool is_user;
    bool is_dirty; /* writes do not set D any more */
    unsigned pcid;
    unsigned level;
    vaddr_t start;
    pfn_t pfn;
};

/* A way to a table [SDM-3A 4.10.3 "Paging-Structure Caches"]. */
struct shortcut {
    bool is_writable;
    bool is_executable;
    bool is_user;
    unsigned pcid;
    unsigned level;
    vaddr_t start; /* of what the table translates */
    pfn_t table;
};

/* What one CPU has. Its own thread changes it, all may look: sim_lock(). */
struct sim_tlb {
    uint64_t cr3; /* as read: without the bit that keeps */
    bool is_pcid_on;
    bool is_lazy; /* between tlb_begin_lazy() and the end of tlb_end_lazy() */
    enum fault_result last_fault;
    struct sim_mmu_counts counts;
    unsigned descended; /* tables of the descent that is under way */
    pfn_t descent[SIM_DESCENT];
    unsigned translations;
    unsigned shortcuts;
    struct translation translation[SIM_TRANSLATIONS];
    struct shortcut shortcut[SIM_SHORTCUTS];
};

extern struct sim_tlb sim_tlb[MM_MAX_CPUS];

struct sim_tlb *sim_this_tlb(void);
const struct walk_rules *sim_rules(void);

/*
 * Of all that the simulation keeps of its CPUs. A lock of its own, in files
 * that -fsanitize=thread does not look at: it must not put an order between
 * threads that the library has not made itself.
 */
void sim_lock(void);
void sim_unlock(void);

/* The top table, and the PCID, that this CR3 names. */
pfn_t sim_root(const struct sim_tlb *tlb);
unsigned sim_pcid(const struct sim_tlb *tlb);

/* The translation of @address that an access uses. False: none is cached. */
bool sim_find(vaddr_t address, struct translation *out);

/* Walk the tables from the best cached one on; fills @out and the caches. */
enum walk_verdict sim_fill(vaddr_t address, unsigned access,
                           struct translation *out);

/*
 * Entry @index of @table as a page walk reads it. What was written before the
 * entry was is seen by whoever comes through it: an acquire.
 */
pte_t sim_read_entry(pfn_t table, unsigned index);

/*
 * Set @bits in that entry, as a CPU does: if it is @entry still, in one step.
 */
bool sim_mark_entry(pfn_t table, unsigned index, pte_t entry, uint64_t bits);

/* Does @one allow @access under the rules that are on? */
enum walk_verdict sim_judge(const struct translation *one, unsigned access);

/* Before D is set: only the translation, not the way to it. */
void sim_forget_translation(vaddr_t address);

/* A denied access makes the CPU forget what it had for the page. */
void sim_forget_page(vaddr_t address);

/* --- sim_watch.c ---------------------------------------------------------- */

void sim_watch_reset(void);

/* This CPU is about to use @one. */
void sim_watch_use(const struct translation *one);

/* What was cached under the PCID that is now current can be used again. */
void sim_watch_load(void);

#endif
