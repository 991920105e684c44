/* SPDX-License-Identifier: MIT */
/* tlb_cpu: what this CPU has cached, and how it is made to forget. */
/*
 * Owns      every INVLPG, INVPCID and CR3 load.
 *
 * Idea      A space counts its flushes; a slot remembers the last that was
 *           made here. Equal means that nothing stale is cached; one behind,
 *           that the ranges of one batch are enough; further behind, that
 *           some are missing, and all of the space is forgotten. So a CPU that
 *           did not run a space, or was idle in it, needs no message: it
 *           compares two numbers when it comes back. (Linux has had the same
 *           since 4.14 in mm->context.tlb_gen.)
 *
 *           A switch must not fall between two stools: it enters the space's
 *           set first and reads the generation then. A flush counts first and
 *           reads the set then. Both orders are full barriers, so at least one
 *           of the two sees the other: the CPU is interrupted, or it reads the
 *           new generation, and what it caches from then on is new. (On x86 a
 *           locked instruction orders all that is before it and after it; C11
 *           promises that of fences only.)
 *
 * Rules     [SDM-3A 4.10.4.1 "Operations that Invalidate TLBs and
 *           Paging-Structure Caches"]: INVLPG forgets one page, in all PCIDs if
 *           it is global, and all paging-structure entries, but those of the
 *           current PCID only. Kernel tables are reached through every PCID:
 *           when one of them is freed, all PCIDs must forget their way to it.
 *
 * Invariants
 *   I1  slot.generation is not above what was flushed here: it is read before
 *       the flush, and stored after it.
 *   I2  a space that a CPU has loaded, lazily or not, has the CPU in its set.
 *   I3  slots other than the kernel's have different ids, or 0.
 *
 * Locking   None: each CPU changes its own, with interrupts off.
 *
 * Limits    Seven spaces a CPU keep their translations with PCIDs. They need
 *           global pages (CR4.PGE): a kernel page is invalidated once, not
 *           once a PCID.
 */
#include "map/tlb_impl.h"

#include "base/check.h"
#include "x86_64/mmu.h"
#include "x86_64/pte.h"

struct tlb_cpu tlb_cpu[MM_MAX_CPUS];

/* --- slots ---------------------------------------------------------------- */

static uint64_t slot_id(const struct tlb_cpu *cpu, unsigned number)
{
    return atomic_load_explicit(&cpu->slot[number].id, memory_order_relaxed);
}

static uint64_t slot_generation(const struct tlb_cpu *cpu, unsigned number)
{
    return atomic_load_explicit(&cpu->slot[number].generation,
                                memory_order_relaxed);
}

static void set_generation(struct tlb_cpu *cpu, unsigned number,
                           uint64_t generation)
{
    /* Release: who sees the number knows that the flush was made. */
    atomic_store_explicit(&cpu->slot[number].generation, generation,
                          memory_order_release);
}

static void set_id(struct tlb_cpu *cpu, unsigned number, uint64_t id)
{
    atomic_store_explicit(&cpu->slot[number].id, id, memory_order_relaxed);
}

static unsigned current_slot(const struct tlb_cpu *cpu)
{
    return atomic_load_explicit(&cpu->current, memory_order_relaxed);
}

static void set_current(struct tlb_cpu *cpu, unsigned number)
{
    atomic_store_explicit(&cpu->current, number, memory_order_relaxed);
}

static unsigned slot_count(void)
{
    return tlb_has(TLB_PCID) ? TLB_SLOTS : TLB_KERNEL_SLOT + 2;
}

/* The slot that has @space, or TLB_NO_SLOT. */
static unsigned find_slot(const struct tlb_cpu *cpu,
                          const struct tlb_space *space)
{
    if (space->is_kernel) {
        return TLB_KERNEL_SLOT;
    }
    for (unsigned i = TLB_KERNEL_SLOT + 1; i < slot_count(); i++) {
        if (slot_id(cpu, i) == space->id) {
            return i;
        }
    }
    return TLB_NO_SLOT;
}

/* A slot for a space that has none: they are taken in turn. */
static unsigned take_slot(struct tlb_cpu *cpu)
{
    unsigned number = cpu->victim + 1;

    cpu->victim = number < slot_count() ? number : TLB_KERNEL_SLOT + 1;
    return cpu->victim;
}

static uint64_t cr3_of(const struct tlb_space *space, unsigned number)
{
    return space->root.v | (tlb_has(TLB_PCID) ? number : 0);
}

static struct tlb_space *loaded_space(const struct tlb_cpu *cpu)
{
    return atomic_load_explicit(&cpu->loaded, memory_order_relaxed);
}

/*
 * For the oracle: entries of @space that are no older than @generation may be
 * used here from now on; with NULL, none but the kernel's.
 */
static inline void use(struct tlb_cpu *cpu, const struct tlb_space *space,
                       uint64_t generation)
{
    if (!MM_DEBUG) {
        return;
    }
    uint64_t stamp = space != NULL ? tlb_stamp(space, generation) : 0;

    /* Release: pairs with the acquire in is_behind(). */
    atomic_store_explicit(&cpu->usable, stamp, memory_order_release);
}

/* Flush @generation of @space, and all before it, are made in its slot. */
static inline void set_made(struct tlb_cpu *cpu, unsigned number,
                            const struct tlb_space *space, uint64_t generation)
{
    set_generation(cpu, number, generation);
    if (number == current_slot(cpu)) {
        use(cpu, space, generation);
    }
}

/* --- forgetting ----------------------------------------------------------- */

static void flush_everything(void)
{
    if (tlb_has(TLB_INVPCID)) {
        mmu_invpcid(MMU_INVPCID_ALL_GLOBAL, 0, 0);
    } else {
        mmu_flush_all();
    }
}

/* Forget what a space has cached in @number. False: only a switch can. */
static bool flush_slot(struct tlb_cpu *cpu, unsigned number)
{
    if (tlb_has(TLB_INVPCID)) {
        mmu_invpcid(MMU_INVPCID_CONTEXT, number, 0);
    } else if (number == current_slot(cpu)) {
        mmu_write_cr3(cr3_of(loaded_space(cpu), number));
    } else {
        return false;
    }
    tlb_add(&cpu->count.whole, 1);
    return true;
}

/* Forget the ranges of @batch, in the space that is loaded or the kernel's. */
static inline void flush_ranges(struct tlb_cpu *cpu,
                                const struct tlb_batch *batch)
{
    for (unsigned i = 0; i < batch->range_count; i++) {
        const struct tlb_range *range = &batch->range[i];
        uint64_t span = pte_span(range->level);
        vaddr_t end = range->end;

        for (vaddr_t page = range->start; page != end; page += span) {
            mmu_invlpg(page);
        }
    }
    tlb_add(&cpu->count.pages, batch->pages);
}

/* The same in a space that is cached under @pcid and not loaded. */
static void flush_ranges_of(struct tlb_cpu *cpu, unsigned pcid,
                            const struct tlb_batch *batch)
{
    for (unsigned i = 0; i < batch->range_count; i++) {
        const struct tlb_range *range = &batch->range[i];
        uint64_t span = pte_span(range->level);

        for (vaddr_t page = range->start; page != range->end; page += span) {
            mmu_invpcid(MMU_INVPCID_ADDRESS, pcid, page);
        }
    }
    tlb_add(&cpu->count.pages, batch->pages);
}

/* Every PCID has its own way to tables that are the kernel's. */
static MM_NOINLINE void flush_ways_to_kernel(void)
{
    if (tlb_has(TLB_INVPCID)) {
        mmu_invpcid(MMU_INVPCID_ALL, 0, 0);
    } else if (tlb_has(TLB_PCID)) {
        mmu_flush_all();
    }
}

/* Forget what @batch says of the space in @number. False: only a switch can. */
static bool flush_space(struct tlb_cpu *cpu, unsigned number,
                        const struct tlb_batch *batch)
{
    if (batch->whole) {
        return flush_slot(cpu, number);
    }
    if (number == current_slot(cpu)) {
        flush_ranges(cpu, batch); /* takes the ways to freed tables along */
        return true;
    }
    if (tlb_has(TLB_INVPCID) && !batch->tables) {
        flush_ranges_of(cpu, number, batch);
        return true;
    }
    return flush_slot(cpu, number);
}

/* --- loading -------------------------------------------------------------- */

/*
 * Load @space. What its slot has cached is kept if it is up to date (I1); the
 * kernel's slot is always: flushes of the kernel's pages come as requests.
 */
static void load(struct tlb_cpu *cpu, struct tlb_space *space)
{
    unsigned me = port_cpu();
    struct tlb_space *old = loaded_space(cpu);

    ASSERT_SLOW(!cpu->is_visiting);
    use(cpu, NULL, 0);
    if (!space->is_kernel) {
        cpu_set_add(&space->cpus, me); /* I2; see Idea */
    }
    /* A full barrier stands before: pairs with tlb_shoot(). */
    uint64_t now =
        atomic_load_explicit(&space->generation, memory_order_seq_cst);
    unsigned number = find_slot(cpu, space);
    bool is_known = tlb_has(TLB_PCID) && number != TLB_NO_SLOT;
    bool is_kept =
        is_known && (space->is_kernel || slot_generation(cpu, number) == now);
    if (number == TLB_NO_SLOT) {
        number = take_slot(cpu);
    }
    mmu_write_cr3(cr3_of(space, number) | (is_kept ? MMU_CR3_KEEP : 0));
    if (!tlb_has(TLB_PCID)) {
        set_id(cpu, TLB_KERNEL_SLOT + 1, 0); /* CR3 has forgotten it */
    }
    set_current(cpu, number);
    atomic_store_explicit(&cpu->loaded, space, memory_order_relaxed);
    if (!space->is_kernel) {
        set_id(cpu, number, space->id);
        set_made(cpu, number, space, now);
    }
    if (old != NULL && !old->is_kernel) {
        cpu_set_remove(&old->cpus, me);
    }
    tlb_add(&cpu->count.kept, is_kept ? 1 : 0);
    tlb_add(&cpu->count.caught_up, is_known && !is_kept ? 1 : 0);
}

/* Make up for the flushes that this CPU was spared. */
static void catch_up(struct tlb_cpu *cpu)
{
    struct tlb_space *space = loaded_space(cpu);
    /* Full barriers on both sides: pairs with tlb_shoot(). */
    uint64_t now =
        atomic_load_explicit(&space->generation, memory_order_seq_cst);

    if (space->is_kernel) {
        return;
    }
    if (slot_generation(cpu, current_slot(cpu)) != now) {
        bool is_done = flush_slot(cpu, current_slot(cpu));

        ASSERT(is_done); /* the current slot can be flushed always */
        tlb_add(&cpu->count.caught_up, 1);
    }
    set_made(cpu, current_slot(cpu), space, now);
}

/*
 * Use the loaded space again. A full barrier: either a flush sees that this
 * CPU is back, or this CPU sees that flush's generation. Pairs with
 * tlb_shoot().
 */
static bool end_lazy(struct tlb_cpu *cpu)
{
    return atomic_load_explicit(&cpu->is_lazy, memory_order_relaxed) &&
           atomic_exchange_explicit(&cpu->is_lazy, false, memory_order_seq_cst);
}

void tlb_switch(struct tlb_space *space)
{
    uint64_t irq = port_irq_save();
    struct tlb_cpu *cpu = tlb_this_cpu();
    bool was_lazy = end_lazy(cpu);

    if (space != loaded_space(cpu)) {
        tlb_add(&cpu->count.switches, 1);
        load(cpu, space);
    } else if (was_lazy) {
        catch_up(cpu);
    }
    port_irq_restore(irq);
}

struct tlb_space *tlb_loaded(void)
{
    return loaded_space(tlb_this_cpu());
}

bool tlb_is_loaded(const struct tlb_space *space)
{
    uint64_t irq = port_irq_save();
    bool is_loaded = loaded_space(tlb_this_cpu()) == space;

    port_irq_restore(irq);
    return is_loaded;
}

/*
 * The kernel's tables are a bare necessity: nothing but them is loaded, and
 * what was cached before, by whatever, is forgotten.
 */
void tlb_cpu_online(void)
{
    struct tlb_cpu *cpu = tlb_this_cpu();

    ASSERT(tlb_kernel != NULL);
    ASSERT(!atomic_load_explicit(&cpu->is_online, memory_order_relaxed));
    cpu_set_add(&tlb_kernel->cpus, port_cpu());
    uint64_t now =
        atomic_load_explicit(&tlb_kernel->generation, memory_order_seq_cst);
    mmu_write_cr3(tlb_kernel->root.v);
    if (tlb_has(TLB_PCID)) {
        mmu_enable_pcid();
    }
    flush_everything();
    set_id(cpu, TLB_KERNEL_SLOT, tlb_kernel->id);
    set_generation(cpu, TLB_KERNEL_SLOT, now);
    set_current(cpu, TLB_KERNEL_SLOT);
    cpu->victim = TLB_KERNEL_SLOT;
    atomic_store_explicit(&cpu->loaded, tlb_kernel, memory_order_relaxed);
    /* Release: pairs with the acquire loads of who looks at this CPU. */
    atomic_store_explicit(&cpu->is_online, true, memory_order_release);
}

/* --- idle CPUs ------------------------------------------------------------ */

void tlb_begin_lazy(void)
{
    uint64_t irq = port_irq_save();
    struct tlb_cpu *cpu = tlb_this_cpu();

    use(cpu, NULL, 0);
    /* Seen late, it costs an interrupt too many. */
    atomic_store_explicit(&cpu->is_lazy, true, memory_order_release);
    port_irq_restore(irq);
}

void tlb_end_lazy(void)
{
    uint64_t irq = port_irq_save();
    struct tlb_cpu *cpu = tlb_this_cpu();

    if (end_lazy(cpu)) {
        catch_up(cpu);
    }
    port_irq_restore(irq);
}

/* --- visitors ------------------------------------------------------------- */

bool tlb_begin_visit(struct tlb_space *space)
{
    struct tlb_cpu *cpu = tlb_this_cpu();

    if (space->is_kernel) {
        return false;
    }
    ASSERT_SLOW(!cpu->is_visiting);
    if (loaded_space(cpu) == space) {
        return false;
    }
    cpu->is_visiting = true;
    /* A full barrier: what is read now, a flush that missed us has changed. */
    cpu_set_add(&space->cpus, port_cpu());
    return true;
}

void tlb_end_visit(struct tlb_space *space, bool is_visit)
{
    if (is_visit) {
        tlb_this_cpu()->is_visiting = false;
        cpu_set_remove(&space->cpus, port_cpu());
    }
}

/* --- what others ask ------------------------------------------------------ */

/*
 * A request to a CPU that is idle in the space. It may walk tables on a guess
 * as long as they are loaded, so it leaves when one goes; it is not disturbed
 * again then. All else it will catch up with. Return: is that all?
 */
static bool is_done_idle(struct tlb_cpu *cpu, const struct tlb_batch *batch)
{
    if (batch->tables) {
        load(cpu, tlb_kernel);
    }
    return batch->tables || tlb_has(TLB_LAZY);
}

/* Flush @generation is not the next here, or has no ranges. */
static MM_NOINLINE void apply_all_to_kernel(struct tlb_cpu *cpu,
                                            uint64_t generation)
{
    if (slot_generation(cpu, TLB_KERNEL_SLOT) >= generation) {
        tlb_add(&cpu->count.overtaken, 1);
        return;
    }
    /* Requests in between are on their way: this answers them, too. */
    generation =
        atomic_load_explicit(&tlb_kernel->generation, memory_order_seq_cst);
    flush_everything();
    tlb_add(&cpu->count.whole, 1);
    set_generation(cpu, TLB_KERNEL_SLOT, generation);
}

/* The kernel's pages: used by every CPU, whatever it has loaded. */
static inline void apply_to_kernel(struct tlb_cpu *cpu,
                                   const struct tlb_batch *batch,
                                   uint64_t generation)
{
    if (slot_generation(cpu, TLB_KERNEL_SLOT) + 1 != generation ||
        batch->whole) {
        apply_all_to_kernel(cpu, generation);
        return;
    }
    flush_ranges(cpu, batch);
    if (batch->tables) {
        flush_ways_to_kernel();
    }
    set_generation(cpu, TLB_KERNEL_SLOT, generation);
}

static MM_NOINLINE void apply_to_space(struct tlb_cpu *cpu,
                                       const struct tlb_batch *batch,
                                       uint64_t generation)
{
    struct tlb_space *space = batch->space;
    unsigned number = find_slot(cpu, space);

    if (number == TLB_NO_SLOT) {
        return;
    }
    if (number == current_slot(cpu) &&
        atomic_load_explicit(&cpu->is_lazy, memory_order_relaxed) &&
        is_done_idle(cpu, batch)) {
        return;
    }
    uint64_t seen = slot_generation(cpu, number);
    if (seen >= generation) {
        tlb_add(&cpu->count.overtaken, 1);
        return;
    }
    if (seen + 1 == generation) {
        if (flush_space(cpu, number, batch)) {
            set_made(cpu, number, space, generation);
        }
        return;
    }
    /* As above. */
    generation = atomic_load_explicit(&space->generation, memory_order_seq_cst);
    if (flush_slot(cpu, number)) {
        set_made(cpu, number, space, generation);
        tlb_add(&cpu->count.caught_up, 1);
    }
}

/*
 * The usual case of that: the space is loaded and in use here, the flush is
 * the next, and has ranges. INVLPG takes the ways to freed tables along.
 */
static inline bool apply_to_loaded(struct tlb_cpu *cpu,
                                   const struct tlb_batch *batch,
                                   uint64_t generation)
{
    unsigned number = current_slot(cpu);

    if (loaded_space(cpu) != batch->space || batch->whole ||
        slot_generation(cpu, number) + 1 != generation ||
        atomic_load_explicit(&cpu->is_lazy, memory_order_relaxed)) {
        return false;
    }
    flush_ranges(cpu, batch);
    set_made(cpu, number, batch->space, generation);
    return true;
}

void tlb_apply(struct tlb_cpu *cpu, const struct tlb_batch *batch,
               uint64_t generation)
{
    if (batch->space->is_kernel) {
        apply_to_kernel(cpu, batch, generation);
    } else if (!apply_to_loaded(cpu, batch, generation)) {
        apply_to_space(cpu, batch, generation);
    }
}

void tlb_flush_all(void)
{
    uint64_t irq = port_irq_save();

    tlb_add(&tlb_this_cpu()->count.whole, 1);
    flush_everything();
    port_irq_restore(irq);
}

/* --- looking -------------------------------------------------------------- */

void tlb_cpu_look(unsigned cpu, struct tlb_cpu_state *out)
{
    const struct tlb_cpu *it = &tlb_cpu[cpu];

    *out = (struct tlb_cpu_state){
        /* Acquire: pairs with tlb_cpu_online(). */
        .is_online = atomic_load_explicit(&it->is_online, memory_order_acquire),
        .is_lazy = atomic_load_explicit(&it->is_lazy, memory_order_relaxed),
    };
    unsigned number = current_slot(it);
    out->space = slot_id(it, number);
    out->generation = slot_generation(it, number);
    out->pcid = tlb_has(TLB_PCID) ? number : 0;
}

void tlb_cpu_stats(unsigned cpu, struct tlb_stats *out)
{
    const struct tlb_counters *count = &tlb_cpu[cpu].count;
    memory_order order = memory_order_relaxed;

    *out = (struct tlb_stats){
        .commits = atomic_load_explicit(&count->commits, order),
        .pages = atomic_load_explicit(&count->pages, order),
        .whole = atomic_load_explicit(&count->whole, order),
        .switches = atomic_load_explicit(&count->switches, order),
        .kept = atomic_load_explicit(&count->kept, order),
        .released = atomic_load_explicit(&count->released, order),
        .interrupts = atomic_load_explicit(&count->interrupts, order),
        .spared = atomic_load_explicit(&count->spared, order),
        .served = atomic_load_explicit(&count->served, order),
        .overtaken = atomic_load_explicit(&count->overtaken, order),
        .caught_up = atomic_load_explicit(&count->caught_up, order),
    };
}

void tlb_stats(struct tlb_stats *out)
{
    *out = (struct tlb_stats){0};
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        struct tlb_stats one;

        tlb_cpu_stats(cpu, &one);
        out->commits += one.commits;
        out->pages += one.pages;
        out->whole += one.whole;
        out->switches += one.switches;
        out->kept += one.kept;
        out->released += one.released;
        out->interrupts += one.interrupts;
        out->spared += one.spared;
        out->served += one.served;
        out->overtaken += one.overtaken;
        out->caught_up += one.caught_up;
    }
}
