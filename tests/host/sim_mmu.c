/* SPDX-License-Identifier: MIT */
/* The simulated MMU: walks real tables, remembers what a TLB would. */
#include "tests/host/sim_mmu.h"

#include <stdio.h>
#include <string.h>

#include <mm/frame.h>
#include <mm/port.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/host/sim_port.h"

#define SIM_TLB_ENTRIES   8192
#define SIM_TABLE_ENTRIES 4096

/* One translation as a TLB keeps it [SDM-3A 4.10.2 "TLBs"]. */
struct translation {
    bool is_valid;
    bool is_global;
    bool is_owned; /* by a mapping that must not let the frame go */
    bool is_writable;
    bool is_executable;
    bool is_user;
    uint64_t root;
    vaddr_t start;
    unsigned level;
    pfn_t pfn;
};

/* A way to a table [SDM-3A 4.10.3 "Paging-Structure Caches"]. */
struct shortcut {
    bool is_valid;
    bool is_writable;
    bool is_executable;
    bool is_user;
    uint64_t root;
    vaddr_t start; /* of what the table translates */
    unsigned level;
    pfn_t table;
};

static struct translation tlb[SIM_TLB_ENTRIES];
static struct shortcut tables[SIM_TABLE_ENTRIES];
static unsigned tlb_used;
static unsigned tables_used;
static struct sim_mmu_counts counts;
static struct walk_rules rules;
static paddr_t root;
static enum fault_result last_fault;
static bool checks_release;

void sim_mmu_reset(void)
{
    memset(tlb, 0, sizeof(tlb));
    memset(tables, 0, sizeof(tables));
    tlb_used = 0;
    tables_used = 0;
    memset(&counts, 0, sizeof(counts));
    rules = (struct walk_rules){true, true, true, true};
    root = paddr_of(0);
    last_fault = FAULT_RESOLVED;
    checks_release = false;
}

void sim_set_rules(struct walk_rules new_rules)
{
    rules = new_rules;
}

void sim_check_release(bool on)
{
    checks_release = on;
}

struct sim_mmu_counts sim_mmu_counts(void)
{
    return counts;
}

enum fault_result sim_last_fault(void)
{
    return last_fault;
}

/*
 * A frame or table that is free while a cached translation still leads to it
 * was released before its invalidation.
 */
static void look_for_early_release(void)
{
    for (unsigned i = 0; checks_release && i < tlb_used; i++) {
        if (tlb[i].is_valid && tlb[i].is_owned &&
            frame_state(tlb[i].pfn) != FRAME_STATE_ALLOCATED) {
            port_bug("frame 0x%llx was released before 0x%llx was "
                     "invalidated",
                     (unsigned long long)tlb[i].pfn.v,
                     (unsigned long long)tlb[i].start);
        }
    }
    for (unsigned i = 0; checks_release && i < tables_used; i++) {
        enum frame_state state;

        if (!tables[i].is_valid) {
            continue;
        }
        state = frame_state(tables[i].table);
        if (state == FRAME_STATE_FREE || state == FRAME_STATE_CACHED) {
            port_bug("table 0x%llx was released before the paging-structure "
                     "caches were flushed",
                     (unsigned long long)tables[i].table.v);
        }
    }
}

static void forget_tables(void)
{
    for (unsigned i = 0; i < tables_used; i++) {
        if (tables[i].root == root.v) {
            tables[i].is_valid = false;
        }
    }
}

void mmu_invlpg(vaddr_t address)
{
    counts.pages++;
    look_for_early_release();
    for (unsigned i = 0; i < tlb_used; i++) {
        if (tlb[i].is_valid && (tlb[i].is_global || tlb[i].root == root.v) &&
            align_down(address, pte_span(tlb[i].level)) == tlb[i].start) {
            tlb[i].is_valid = false;
        }
    }
    forget_tables();
}

paddr_t mmu_read_root(void)
{
    return root;
}

void mmu_write_root(paddr_t new_root)
{
    counts.roots++;
    look_for_early_release();
    for (unsigned i = 0; i < tlb_used; i++) {
        tlb[i].is_valid = tlb[i].is_valid && tlb[i].is_global;
    }
    memset(tables, 0, sizeof(tables));
    tables_used = 0;
    root = new_root;
}

void mmu_flush_all(void)
{
    counts.whole++;
    look_for_early_release();
    memset(tlb, 0, sizeof(tlb));
    memset(tables, 0, sizeof(tables));
    tlb_used = 0;
    tables_used = 0;
}

static struct translation *find_translation(vaddr_t address)
{
    for (unsigned i = 0; i < tlb_used; i++) {
        if (tlb[i].is_valid && (tlb[i].is_global || tlb[i].root == root.v) &&
            align_down(address, pte_span(tlb[i].level)) == tlb[i].start) {
            return &tlb[i];
        }
    }
    return NULL;
}

/* The cached table closest to the leaf for @address. */
static const struct shortcut *find_shortcut(vaddr_t address)
{
    const struct shortcut *best = NULL;

    for (unsigned i = 0; i < tables_used; i++) {
        const struct shortcut *one = &tables[i];

        if (one->is_valid && one->root == root.v &&
            align_down(address, pte_span(one->level + 1)) == one->start &&
            (best == NULL || one->level < best->level)) {
            best = one;
        }
    }
    return best;
}

static void keep_shortcut(const struct shortcut *one)
{
    if (tables_used == SIM_TABLE_ENTRIES) {
        port_panic("the simulated paging-structure cache is full");
    }
    tables[tables_used++] = *one;
}

static void keep_translation(const struct translation *one)
{
    unsigned slot = 0;

    while (slot < tlb_used && tlb[slot].is_valid) {
        slot++;
    }
    if (slot == SIM_TLB_ENTRIES) {
        port_panic("the simulated TLB is full");
    }
    if (slot == tlb_used) {
        tlb_used++;
    }
    tlb[slot] = *one;
}

/* Does @one allow @access under the rules that are on? */
static enum walk_verdict judge(const struct translation *one, unsigned access)
{
    struct walk walk = {.count = 1,
                        .state = PTE_PRESENT,
                        .is_writable = one->is_writable,
                        .is_executable = one->is_executable,
                        .is_user = one->is_user};

    walk.step[0].entry = pte_make_leaf(0, one->pfn, pt_attr(PT_EXEC));
    return walk_judge(&walk, access, &rules, NULL);
}

/* Walk from the best cached table on; fills @one and the caches. */
static enum walk_verdict fill(vaddr_t address, unsigned access,
                              struct translation *one)
{
    struct shortcut at = {true,
                          true,
                          true,
                          true,
                          root.v,
                          0,
                          pt_features.levels - 1,
                          phys_to_pfn(root)};
    const struct shortcut *best = find_shortcut(address);

    if (best != NULL) {
        at = *best;
    }
    for (;;) {
        const pte_t *table = phys_to_virt(pfn_to_phys(at.table));
        pte_t entry = table[pte_index(address, at.level)];

        if (!pte_is_present(entry)) {
            return WALK_NOT_PRESENT;
        }
        if (walk_reserved_bits(entry, at.level) != 0) {
            return WALK_RESERVED_BIT;
        }
        at.is_writable = at.is_writable && (entry.v & PTE_RW);
        at.is_user = at.is_user && (entry.v & PTE_US);
        at.is_executable =
            at.is_executable && !(rules.nx && (entry.v & PTE_XD));
        if (!pte_is_table(entry, at.level)) {
            *one = (struct translation){
                .is_valid = true,
                .is_global = pt_features.has_global && (entry.v & PTE_G),
                .is_owned = (entry.v & PTE_OWN) != 0,
                .is_writable = at.is_writable,
                .is_executable = at.is_executable,
                .is_user = at.is_user,
                .root = root.v,
                .start = align_down(address, pte_span(at.level)),
                .level = at.level,
                .pfn = pte_pfn(entry, at.level)};
            enum walk_verdict verdict = judge(one, access);
            if (verdict == WALK_ALLOWED) {
                keep_translation(one);
            }
            return verdict;
        }
        at.table = pte_pfn(entry, at.level);
        at.start = align_down(address, pte_span(at.level));
        at.level--;
        keep_shortcut(&at);
    }
}

void sim_walk_ahead(vaddr_t address)
{
    struct translation one;

    (void)fill(address, WALK_READ, &one);
}

/* A denied access makes the CPU forget what it had for the page. */
static void forget_after_fault(vaddr_t address)
{
    struct translation *one;

    while ((one = find_translation(address)) != NULL) {
        one->is_valid = false;
    }
    forget_tables();
}

enum walk_verdict sim_translate(vaddr_t address, unsigned access, paddr_t *out)
{
    struct translation *cached = find_translation(address);
    struct translation one;
    enum walk_verdict verdict;

    if (!pt_is_canonical(address)) {
        return WALK_NON_CANONICAL;
    }
    if (cached != NULL) {
        one = *cached;
        verdict = judge(&one, access);
    } else {
        verdict = fill(address, access, &one);
    }
    if (verdict != WALK_ALLOWED) {
        forget_after_fault(address);
        return verdict;
    }
    *out = paddr_of(pfn_to_phys(one.pfn).v +
                    (address & (pte_span(one.level) - 1)));
    return WALK_ALLOWED;
}

static uint32_t error_code(enum walk_verdict verdict, unsigned access)
{
    uint32_t code = access; /* W, U and I stand at the same bits */

    if (verdict == WALK_RESERVED_BIT) {
        return code | FAULT_P | FAULT_RSVD;
    }
    return verdict == WALK_NOT_PRESENT ? code : code | FAULT_P;
}

/* How often an instruction may fault before it is stuck. */
#define SIM_TRIES 4

static bool touch(vaddr_t address, unsigned access, paddr_t *out)
{
    for (unsigned try = 0; try < SIM_TRIES; try++) {
        enum walk_verdict verdict = sim_translate(address, access, out);
        struct walk walk;

        if (verdict == WALK_ALLOWED) {
            return true;
        }
        if (verdict == WALK_NON_CANONICAL) {
            return false; /* #GP: the fault handler is not asked */
        }
        struct fault fault = {.address = address,
                              .code = error_code(verdict, access),
                              .rules = rules};
        uint64_t irq = port_irq_save();
        last_fault = fault_handle(&fault, &walk);
        port_irq_restore(irq);
        if (last_fault != FAULT_RESOLVED && last_fault != FAULT_SPURIOUS) {
            return false;
        }
    }
    port_bug("access 0x%x to 0x%llx faults for ever", access,
             (unsigned long long)address);
    return false;
}

bool sim_read(vaddr_t address, uint8_t *out)
{
    paddr_t physical;

    if (!touch(address, WALK_READ, &physical)) {
        return false;
    }
    *out = *(uint8_t *)phys_to_virt(physical);
    return true;
}

bool sim_write(vaddr_t address, uint8_t value)
{
    paddr_t physical;

    if (!touch(address, WALK_WRITE, &physical)) {
        return false;
    }
    *(uint8_t *)phys_to_virt(physical) = value;
    return true;
}

bool sim_execute(vaddr_t address)
{
    paddr_t physical;

    return touch(address, WALK_EXEC, &physical);
}

/*
 * Does @one allow or mean what the tables no longer say? Another size counts
 * too: a small and a large translation of one address at once are a machine
 * check on some processors (AMD erratum 383).
 */
static bool is_stale(const struct translation *one)
{
    struct walk walk;

    walk_address(pfn_of(one->root >> PAGE_SHIFT), one->start, &walk);
    return walk.state != PTE_PRESENT ||
           walk.step[walk.count - 1].level != one->level ||
           !pfn_equal(phys_to_pfn(walk.physical), one->pfn) ||
           (one->is_writable && !walk.is_writable) ||
           (one->is_executable && !walk.is_executable) ||
           (one->is_user && !walk.is_user);
}

unsigned sim_stale(void)
{
    unsigned stale = 0;

    for (unsigned i = 0; i < tlb_used; i++) {
        stale += tlb[i].is_valid && is_stale(&tlb[i]) ? 1 : 0;
    }
    for (unsigned i = 0; i < tables_used; i++) {
        const struct shortcut *one = &tables[i];
        struct walk walk;
        bool is_reached = false;

        walk_address(pfn_of(one->root >> PAGE_SHIFT), one->start, &walk);
        for (unsigned step = 0; step < walk.count; step++) {
            is_reached =
                is_reached ||
                pfn_equal(phys_to_pfn(walk.step[step].table), one->table);
        }
        stale += one->is_valid && !is_reached ? 1 : 0;
    }
    return stale;
}

unsigned sim_cached(pfn_t start, uint64_t frames)
{
    unsigned cached = 0;

    for (unsigned i = 0; i < tlb_used; i++) {
        uint64_t end = tlb[i].pfn.v + (pte_span(tlb[i].level) >> PAGE_SHIFT);

        cached += tlb[i].is_valid && ranges_overlap(tlb[i].pfn.v, end, start.v,
                                                    start.v + frames)
                      ? 1
                      : 0;
    }
    for (unsigned i = 0; i < tables_used; i++) {
        cached +=
            tables[i].is_valid && tables[i].table.v - start.v < frames ? 1 : 0;
    }
    return cached;
}
