/* SPDX-License-Identifier: MIT */
/* The simulated MMUs: what CPUs cache, and the instructions that forget. */
/*
 * Rules     [SDM-3A 4.10.4.1 "Operations that Invalidate TLBs and
 *           Paging-Structure Caches"], each instruction read as a promise: it
 *           forgets what the manual says it does and keeps all else.
 */
#include "tests/host/sim_mmu_impl.h"

#include <stdatomic.h>

#include <mm/port.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/host/sim_cpus.h"
#include "x86_64/mmu.h"

struct sim_tlb sim_tlb[MM_MAX_CPUS];

static struct walk_rules rules;
static unsigned parts; /* TLB_PCID, TLB_INVPCID: what the CPUs have */
static atomic_flag lock = ATOMIC_FLAG_INIT;

/*
 * ThreadSanitizer sees no access of this file, but the calls of memcpy() that
 * a compiler makes of assignments.
 */
#ifdef SIM_TSAN
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

static void begin_unseen(void)
{
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}

static void end_unseen(void)
{
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#else
static void begin_unseen(void)
{
}

static void end_unseen(void)
{
}
#endif

void sim_lock(void)
{
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire)) {
        sim_yield();
    }
    begin_unseen();
}

void sim_unlock(void)
{
    end_unseen();
    atomic_flag_clear_explicit(&lock, memory_order_release);
}

void sim_mmu_reset(void)
{
    atomic_flag_clear(&lock);
    for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
        struct sim_tlb *tlb = &sim_tlb[i];

        tlb->cr3 = 0;
        tlb->is_pcid_on = false;
        tlb->is_lazy = false;
        tlb->last_fault = FAULT_RESOLVED;
        tlb->counts = (struct sim_mmu_counts){0};
        tlb->descended = 0;
        tlb->translations = 0;
        tlb->shortcuts = 0;
    }
    rules = (struct walk_rules){true, true, true, true};
    parts = TLB_PCID | TLB_INVPCID;
    sim_watch_reset();
}

void sim_set_rules(struct walk_rules new_rules)
{
    rules = new_rules;
}

const struct walk_rules *sim_rules(void)
{
    return &rules;
}

void sim_set_parts(unsigned new_parts)
{
    parts = new_parts;
}

struct sim_tlb *sim_this_tlb(void)
{
    return &sim_tlb[sim_cpu()];
}

pfn_t sim_root(const struct sim_tlb *tlb)
{
    return phys_to_pfn(paddr_of(tlb->cr3 & ~MMU_CR3_PCID));
}

unsigned sim_pcid(const struct sim_tlb *tlb)
{
    return tlb->is_pcid_on ? (unsigned)(tlb->cr3 & MMU_CR3_PCID) : 0;
}

struct sim_mmu_counts sim_mmu_counts_of(unsigned cpu)
{
    return sim_tlb[cpu].counts;
}

struct sim_mmu_counts sim_mmu_counts(void)
{
    struct sim_mmu_counts sum = {0};

    for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
        const struct sim_mmu_counts *one = &sim_tlb[i].counts;

        sum.pages += one->pages;
        sum.roots += one->roots;
        sum.kept += one->kept;
        sum.whole += one->whole;
        for (unsigned type = 0; type < 4; type++) {
            sum.invpcid[type] += one->invpcid[type];
        }
    }
    return sum;
}

/* --- forgetting ----------------------------------------------------------- */

/* What an instruction forgets: of one PCID or all, of one page or all. */
struct scope {
    bool is_every_pcid;
    bool has_globals;
    bool is_every_page;
    unsigned pcid;
    vaddr_t page;
};

static bool has_translation(const struct scope *scope,
                            const struct translation *one)
{
    bool is_tagged = one->is_global
                         ? scope->has_globals
                         : scope->is_every_pcid || one->pcid == scope->pcid;

    return is_tagged &&
           (scope->is_every_page ||
            align_down(scope->page, pte_span(one->level)) == one->start);
}

static bool has_shortcut(const struct scope *scope, const struct shortcut *one)
{
    return (scope->is_every_pcid || one->pcid == scope->pcid) &&
           (scope->is_every_page ||
            align_down(scope->page, pte_span(one->level + 1)) == one->start);
}

static void forget_translations(struct sim_tlb *tlb, struct scope scope)
{
    for (unsigned i = tlb->translations; i-- > 0;) {
        if (has_translation(&scope, &tlb->translation[i])) {
            tlb->translation[i] = tlb->translation[--tlb->translations];
        }
    }
}

static void forget_shortcuts(struct sim_tlb *tlb, struct scope scope)
{
    for (unsigned i = tlb->shortcuts; i-- > 0;) {
        if (has_shortcut(&scope, &tlb->shortcut[i])) {
            tlb->shortcut[i] = tlb->shortcut[--tlb->shortcuts];
        }
    }
}

static void forget(struct sim_tlb *tlb, struct scope scope)
{
    forget_translations(tlb, scope);
    forget_shortcuts(tlb, scope);
}

/* All these instructions wait until earlier stores can be seen by all. */
static struct sim_tlb *begin(void)
{
    sim_serialize();
    sim_lock();
    return sim_this_tlb();
}

static void end(void)
{
    sim_unlock();
    sim_step();
}

uint64_t mmu_read_cr3(void)
{
    return sim_this_tlb()->cr3;
}

void mmu_write_cr3(uint64_t cr3)
{
    struct sim_tlb *tlb = begin();
    uint64_t frame = ~(MMU_CR3_PCID | MMU_CR3_KEEP);

    if (!tlb->is_pcid_on && (cr3 & ~frame) != 0) {
        port_bug("CR3 0x%lx has a PCID, but CR4.PCIDE is off", cr3);
    }
    if ((cr3 & frame) >> pt_features.physical_bits != 0) {
        port_bug("CR3 0x%lx has reserved bits", cr3);
    }
    tlb->cr3 = cr3 & ~MMU_CR3_KEEP;
    if (cr3 & MMU_CR3_KEEP) {
        tlb->counts.kept++;
    } else {
        tlb->counts.roots++;
        forget(tlb,
               (struct scope){.is_every_page = true, .pcid = sim_pcid(tlb)});
    }
    sim_watch_load();
    end();
}

void mmu_enable_pcid(void)
{
    struct sim_tlb *tlb = begin();

    if ((parts & TLB_PCID) == 0 || (tlb->cr3 & MMU_CR3_PCID) != 0) {
        port_bug("CR4.PCIDE: %s",
                 parts & TLB_PCID ? "CR3 names a PCID" : "the CPU has none");
    }
    tlb->is_pcid_on = true;
    end();
}

void mmu_invlpg(vaddr_t address)
{
    struct sim_tlb *tlb = begin();
    unsigned pcid = sim_pcid(tlb);

    tlb->counts.pages++;
    forget_translations(
        tlb,
        (struct scope){.has_globals = true, .pcid = pcid, .page = address});
    forget_shortcuts(tlb, (struct scope){.is_every_page = true, .pcid = pcid});
    end();
}

void mmu_invpcid(unsigned type, uint64_t pcid, vaddr_t address)
{
    struct sim_tlb *tlb = begin();

    if ((parts & TLB_INVPCID) == 0) {
        port_bug("INVPCID, but the CPU has none");
    }
    if (type > MMU_INVPCID_ALL || pcid > MMU_CR3_PCID ||
        !pt_is_canonical(address) || (pcid != 0 && !tlb->is_pcid_on)) {
        port_bug("INVPCID type %u, PCID %lu, address 0x%lx", type, pcid,
                 address);
    }
    tlb->counts.invpcid[type & 3]++;
    forget(tlb, (struct scope){.is_every_pcid = type >= MMU_INVPCID_ALL_GLOBAL,
                               .has_globals = type == MMU_INVPCID_ALL_GLOBAL,
                               .is_every_page = type != MMU_INVPCID_ADDRESS,
                               .pcid = (unsigned)pcid,
                               .page = address});
    end();
}

void mmu_flush_all(void)
{
    struct sim_tlb *tlb = begin();

    tlb->counts.whole++;
    tlb->translations = 0;
    tlb->shortcuts = 0;
    end();
}

/* [SDM-3A 4.10.4.1]: so that a fault does not come again without a reason. */
void sim_forget_page(vaddr_t address)
{
    struct sim_tlb *tlb = begin();

    forget(tlb, (struct scope){.has_globals = true,
                               .pcid = sim_pcid(tlb),
                               .page = address});
    end();
}

void sim_forget_translation(vaddr_t address)
{
    struct sim_tlb *tlb = begin();

    forget_translations(tlb, (struct scope){.has_globals = true,
                                            .pcid = sim_pcid(tlb),
                                            .page = address});
    end();
}

/* --- filling -------------------------------------------------------------- */

bool sim_find(vaddr_t address, struct translation *out)
{
    const struct sim_tlb *tlb = sim_this_tlb();
    unsigned pcid = sim_pcid(tlb);

    for (unsigned i = 0; i < tlb->translations; i++) {
        const struct translation *one = &tlb->translation[i];

        if ((one->is_global || one->pcid == pcid) &&
            align_down(address, pte_span(one->level)) == one->start) {
            *out = *one;
            return true;
        }
    }
    return false;
}

/* The cached table closest to the leaf for @address; the root if there is none.
 */
static struct shortcut find_shortcut(const struct sim_tlb *tlb, vaddr_t address)
{
    struct shortcut best = {.is_writable = true,
                            .is_executable = true,
                            .is_user = true,
                            .pcid = sim_pcid(tlb),
                            .level = pt_features.levels - 1,
                            .table = sim_root(tlb)};

    for (unsigned i = 0; i < tlb->shortcuts; i++) {
        const struct shortcut *one = &tlb->shortcut[i];

        if (one->pcid == best.pcid && one->level < best.level &&
            align_down(address, pte_span(one->level + 1)) == one->start) {
            best = *one;
        }
    }
    return best;
}

static void keep_shortcut(struct sim_tlb *tlb, const struct shortcut *one)
{
    sim_lock();
    if (tlb->shortcuts == SIM_SHORTCUTS) {
        port_panic("the simulated paging-structure cache is full");
    }
    tlb->shortcut[tlb->shortcuts++] = *one;
    sim_unlock();
}

static void keep_translation(struct sim_tlb *tlb, const struct translation *one)
{
    sim_lock();
    if (tlb->translations == SIM_TRANSLATIONS) {
        port_panic("the simulated TLB is full");
    }
    tlb->translation[tlb->translations++] = *one;
    sim_unlock();
}

enum walk_verdict sim_judge(const struct translation *one, unsigned access)
{
    struct walk walk = {.count = 1,
                        .state = PTE_PRESENT,
                        .is_writable = one->is_writable,
                        .is_executable = one->is_executable,
                        .is_user = one->is_user};

    walk.step[0].entry = pte_make_leaf(0, one->pfn, pt_attr(PT_EXEC));
    return walk_judge(&walk, access, &rules, NULL);
}

static void narrow_rights(struct shortcut *at, pte_t entry)
{
    at->is_writable = at->is_writable && (entry.v & PTE_RW);
    at->is_user = at->is_user && (entry.v & PTE_US);
    at->is_executable = at->is_executable && !(rules.nx && (entry.v & PTE_XD));
}

static struct translation translate(const struct shortcut *at, vaddr_t address,
                                    pte_t entry)
{
    return (struct translation){
        .is_global = pt_features.has_global && (entry.v & PTE_G),
        .is_owned = (entry.v & PTE_OWN) != 0,
        .is_writable = at->is_writable,
        .is_executable = at->is_executable,
        .is_user = at->is_user,
        .is_dirty = (entry.v & PTE_D) != 0,
        .pcid = at->pcid,
        .start = align_down(address, pte_span(at->level)),
        .level = at->level,
        .pfn = pte_pfn(entry, at->level)};
}

/*
 * Use the leaf @entry: A is set, and D by a write [SDM-3A 4.8 "Accessed and
 * Dirty Flags"].
 * Return: false if the entry has changed meanwhile.
 */
static bool use_leaf(struct sim_tlb *tlb, const struct shortcut *at,
                     vaddr_t address, pte_t entry, unsigned access,
                     struct translation *out, enum walk_verdict *out_verdict)
{
    uint64_t bits = PTE_A | (access & WALK_WRITE ? PTE_D : 0);

    *out = translate(at, address, (pte_t){entry.v | bits});
    *out_verdict = sim_judge(out, access);
    if (*out_verdict != WALK_ALLOWED) {
        return true;
    }
    if (!sim_mark_entry(at->table, pte_index(address, at->level), entry,
                        bits)) {
        return false;
    }
    keep_translation(tlb, out);
    return true;
}

/* Between the reads of two entries other CPUs do what they like. */
enum walk_verdict sim_fill(vaddr_t address, unsigned access,
                           struct translation *out)
{
    struct sim_tlb *tlb = sim_this_tlb();
    struct shortcut at = find_shortcut(tlb, address);

    for (;;) {
        pte_t entry = sim_read_entry(at.table, pte_index(address, at.level));

        sim_step();
        if (!pte_is_present(entry)) {
            return WALK_NOT_PRESENT;
        }
        if (walk_reserved_bits(entry, at.level) != 0) {
            return WALK_RESERVED_BIT;
        }
        struct shortcut above = at;
        narrow_rights(&at, entry);
        if (!pte_is_table(entry, at.level)) {
            enum walk_verdict verdict;

            if (use_leaf(tlb, &at, address, entry, access, out, &verdict)) {
                return verdict;
            }
            at = above; /* look again */
            continue;
        }
        at.table = pte_pfn(entry, at.level);
        at.start = align_down(address, pte_span(at.level));
        at.level--;
        keep_shortcut(tlb, &at);
    }
}

void sim_walk_ahead(vaddr_t address)
{
    struct translation one;

    if (!sim_find(address, &one)) {
        (void)sim_fill(address, WALK_READ, &one);
    }
}

/* --- descents ------------------------------------------------------------- */

void sim_note_descent(pfn_t table)
{
    struct sim_tlb *tlb = sim_this_tlb();

    sim_lock();
    if (tlb->descended < SIM_DESCENT) {
        tlb->descent[tlb->descended++] = table;
    }
    sim_unlock();
}

void sim_end_descent(void)
{
    sim_lock();
    sim_this_tlb()->descended = 0;
    sim_unlock();
}
