/* SPDX-License-Identifier: MIT */
/* sim_watch: is anything used, or let go, that a CPU may not use any more? */
/*
 * Owns      the list of changes that are under way.
 *
 * Idea      The simulation sees what no kernel can: all TLBs at once. It needs
 *           no knowledge of the protocol, only of its contract. A change is
 *           under way from pt_open() to the end of tlb_commit(); these calls,
 *           and those that hand out and take back frames, come by here.
 *
 * Rules     W1  a translation that is used says what the tables say, or lies
 *               within a change that is under way.
 *           W2  after tlb_commit() no CPU can use what the batch was about and
 *               the tables do not say, but for changes begun since.
 *           W3  a frame or table that is released, and one that is handed out,
 *               can be reached through nothing that any CPU has cached and
 *               could use; nor is it the loaded root, nor on a descent's way.
 *           W4  a PCID that becomes current has nothing stale under it.
 *           W5  an idle CPU uses kernel addresses only. It may walk tables on
 *               a guess all the same.
 */
#include "tests/host/sim_watch.h"

#include <string.h>

#include <mm/port.h>
#include "base/bits.h"
#include "map/kmap_impl.h"
#include "tests/host/sim.h"
#include "tests/host/sim_cpus.h"
#include "tests/host/sim_mmu_impl.h"

/* More than CPUs that change something at once in any test. */
#define SIM_CHANGES 64

/* What one batch is about. */
struct change {
    const struct tlb_batch *batch; /* NULL: none */
    uint64_t opened_at;            /* numbers that count up */
    uint64_t closed_at;
    pfn_t root;
    bool is_kernel;
    struct tlb_range opened; /* by pt_open() */
    bool is_whole;           /* all that was opened; else the ranges only */
    bool has_tables;
    unsigned range_count;
    struct tlb_range range[TLB_BATCH_RANGES];
};

static struct change change[SIM_CHANGES];
static unsigned next_change;
static uint64_t now;
static bool is_watching;

void sim_watch_reset(void)
{
    memset(change, 0, sizeof(change));
    next_change = 0;
    now = 0;
    is_watching = false;
}

void sim_set_watching(bool on)
{
    is_watching = on;
}

/* --- changes -------------------------------------------------------------- */

static struct change *find_change(const struct tlb_batch *batch)
{
    for (unsigned i = 0; i < SIM_CHANGES; i++) {
        if (change[i].batch == batch) {
            return &change[i];
        }
    }
    return NULL;
}

/* A test may drop a batch: then the oldest place is taken. */
static struct change *new_change(const struct tlb_batch *batch)
{
    struct change *one = find_change(batch);

    one = one != NULL ? one : find_change(NULL);
    if (one == NULL) {
        one = &change[next_change++ % SIM_CHANGES];
    }
    *one = (struct change){.batch = batch};
    return one;
}

static bool overlaps(const struct tlb_range *range, vaddr_t start, vaddr_t last)
{
    return start <= range->end - 1 && range->start <= last;
}

/*
 * Does the change say anything about [start, last] under @root? Tables (@what)
 * may have gone from all that was opened.
 */
static bool covers(const struct change *one, pfn_t root, vaddr_t start,
                   vaddr_t last, enum pte_state what)
{
    if (one->batch == NULL ||
        (!one->is_kernel && !pfn_equal(one->root, root))) {
        return false;
    }
    if (one->is_whole || (what == PTE_TABLE && one->has_tables)) {
        return overlaps(&one->opened, start, last);
    }
    for (unsigned i = 0; i < one->range_count; i++) {
        if (overlaps(&one->range[i], start, last)) {
            return true;
        }
    }
    return false;
}

/* Is a change of [start, last] under way that was begun after @since? */
static bool is_changing(uint64_t since, pfn_t root, vaddr_t start, vaddr_t last,
                        enum pte_state what)
{
    for (unsigned i = 0; i < SIM_CHANGES; i++) {
        if (change[i].opened_at > since &&
            covers(&change[i], root, start, last, what)) {
            return true;
        }
    }
    return false;
}

/* From now on [start, end) is being changed. */
static void note_open(const struct pt *pt, vaddr_t start, vaddr_t end,
                      const struct tlb_batch *batch)
{
    sim_lock();
    struct change *one = new_change(batch);
    one->root = pt->root;
    one->is_kernel = pt->is_kernel;
    one->opened = (struct tlb_range){start, end, 0};
    one->is_whole = true;
    one->opened_at = ++now;
    sim_unlock();
}

enum mm_status __wrap_pt_open(struct pt *pt, vaddr_t start, vaddr_t end,
                              struct tlb_batch *batch, struct pt_cursor *out)
{
    enum mm_status status = __real_pt_open(pt, start, end, batch, out);

    if (status == MM_OK) {
        note_open(pt, start, end, batch);
    }
    return status;
}

/* What lies between the two counts as open, too: less is found there. */
enum mm_status __wrap_pt_open_two(struct pt *pt, vaddr_t start, vaddr_t end,
                                  vaddr_t start2, vaddr_t end2,
                                  struct tlb_batch *batch,
                                  struct pt_cursor *out)
{
    enum mm_status status =
        __real_pt_open_two(pt, start, end, start2, end2, batch, out);

    if (status == MM_OK) {
        note_open(pt, min_u64(start, start2), max_u64(end, end2), batch);
    }
    return status;
}

/* From now on only what the batch has collected is being changed. */
static void narrow(struct change *one, const struct tlb_batch *batch)
{
    one->is_whole = batch->whole;
    one->has_tables = batch->tables;
    one->range_count = batch->range_count;
    for (unsigned i = 0; i < batch->range_count; i++) {
        one->range[i] = batch->range[i];
    }
    if (!one->is_whole && !one->has_tables && one->range_count == 0) {
        one->batch = NULL;
    }
}

void __wrap_pt_close(struct pt_cursor *cursor)
{
    sim_lock();
    struct change *one = find_change(cursor->batch);
    if (one != NULL) {
        narrow(one, cursor->batch);
        one->closed_at = ++now;
    }
    sim_unlock();
    __real_pt_close(cursor);
}

/* --- what is stale -------------------------------------------------------- */

/*
 * Does @one allow or mean what the tables no longer say? Another size counts
 * too: a small and a large translation of one address at once are a machine
 * check on some processors (AMD erratum 383).
 */
/* Do the tables say, by @walk, what @one does? */
static bool is_so(const struct walk *walk, const struct translation *one)
{
    pte_t entry = walk->step[walk->count - 1].entry;

    return walk->state == PTE_PRESENT &&
           walk->step[walk->count - 1].level == one->level &&
           pfn_equal(phys_to_pfn(walk->physical), one->pfn) &&
           (!one->is_dirty || (entry.v & PTE_D) != 0) &&
           (!one->is_writable || walk->is_writable) &&
           (!one->is_executable || walk->is_executable) &&
           (!one->is_user || walk->is_user);
}

static bool is_stale_translation(const struct sim_tlb *tlb,
                                 const struct translation *one)
{
    struct walk walk;

    walk_address(sim_root(tlb), one->start, &walk);
    return !is_so(&walk, one);
}

static bool is_stale_shortcut(const struct sim_tlb *tlb,
                              const struct shortcut *one)
{
    struct walk walk;

    walk_address(sim_root(tlb), one->start, &walk);
    for (unsigned i = 0; i < walk.count; i++) {
        if (pfn_equal(phys_to_pfn(walk.step[i].table), one->table)) {
            return false;
        }
    }
    return true;
}

static bool is_kernel_address(vaddr_t address)
{
    return (address >> 63) != 0;
}

/* Could the CPU use @one now, on a guess too if it is idle? */
static bool can_use(const struct sim_tlb *tlb, const struct translation *one)
{
    return (one->is_global || one->pcid == sim_pcid(tlb)) &&
           (!tlb->is_lazy || is_kernel_address(one->start));
}

static bool can_walk(const struct sim_tlb *tlb, const struct shortcut *one)
{
    return one->pcid == sim_pcid(tlb);
}

static vaddr_t last_of(vaddr_t start, unsigned level)
{
    return start + (pte_span(level) - 1);
}

static unsigned cpu_number(const struct sim_tlb *tlb)
{
    return (unsigned)(tlb - sim_tlb);
}

unsigned sim_stale(void)
{
    unsigned stale = 0;

    sim_lock();
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        const struct sim_tlb *tlb = &sim_tlb[cpu];

        for (unsigned i = 0; i < tlb->translations; i++) {
            const struct translation *one = &tlb->translation[i];
            stale +=
                can_use(tlb, one) && is_stale_translation(tlb, one) ? 1 : 0;
        }
        for (unsigned i = 0; i < tlb->shortcuts; i++) {
            const struct shortcut *one = &tlb->shortcut[i];
            stale += can_walk(tlb, one) && is_stale_shortcut(tlb, one) ? 1 : 0;
        }
    }
    sim_unlock();
    return stale;
}

/* --- W1, W5: use ---------------------------------------------------------- */

void sim_watch_use(const struct translation *one)
{
    const struct sim_tlb *tlb = sim_this_tlb();

    if (tlb->is_lazy && !is_kernel_address(one->start)) {
        port_bug("CPU %u is idle, but uses 0x%lx", sim_cpu(), one->start);
    }
    sim_lock();
    bool is_legal = !is_watching || !is_stale_translation(tlb, one) ||
                    is_changing(0, sim_root(tlb), one->start,
                                last_of(one->start, one->level), PTE_PRESENT);
    sim_unlock();
    if (!is_legal) {
        port_bug("CPU %u used a stale translation of 0x%lx to frame 0x%lx",
                 sim_cpu(), one->start, one->pfn.v);
    }
}

/* --- W2, W4: what CPUs could use ------------------------------------------ */

/* Where to look for what is stale and in no change that is under way. */
struct search {
    const struct change *scope; /* NULL: everywhere */
    uint64_t since;             /* no excuse by changes begun before */
    const char *when;
};

static void complain(const struct search *search, const struct sim_tlb *tlb,
                     const char *what, vaddr_t start, pfn_t pfn)
{
    port_bug("CPU %u can still use a stale %s of 0x%lx, frame 0x%lx, %s",
             cpu_number(tlb), what, start, pfn.v, search->when);
}

/*
 * Must [start, last] be clean, as far as the search goes? Ways to tables only
 * if some have gone: else idle CPUs may not have been asked.
 */
static bool is_asked(const struct search *search, pfn_t root, vaddr_t start,
                     vaddr_t last, enum pte_state what)
{
    const struct change *scope = search->scope;

    if (scope != NULL && ((what == PTE_TABLE && !scope->has_tables) ||
                          !covers(scope, root, start, last, what))) {
        return false;
    }
    return !is_changing(search->since, root, start, last, what);
}

/* In a small block that was freed? It waits for a flush; W1 and W3 watch it. */
static bool is_kept(const struct walk *walk, vaddr_t address)
{
    return address - SIM_KMAP < 512 * GiB &&
           kmap_entry_is_kept(walk->step[walk->count - 1].entry);
}

static void search_translations(const struct search *search,
                                const struct sim_tlb *tlb)
{
    pfn_t root = sim_root(tlb);

    for (unsigned i = 0; i < tlb->translations; i++) {
        const struct translation *one = &tlb->translation[i];
        vaddr_t last = last_of(one->start, one->level);
        struct walk walk; /* once: the block may be had again meanwhile */

        walk_address(root, one->start, &walk);
        if (can_use(tlb, one) && !is_so(&walk, one) &&
            is_asked(search, root, one->start, last, PTE_PRESENT) &&
            !is_kept(&walk, one->start)) {
            complain(search, tlb, "translation", one->start, one->pfn);
        }
    }
}

static void search_shortcuts(const struct search *search,
                             const struct sim_tlb *tlb)
{
    pfn_t root = sim_root(tlb);

    for (unsigned i = 0; i < tlb->shortcuts; i++) {
        const struct shortcut *one = &tlb->shortcut[i];
        vaddr_t last = last_of(one->start, one->level + 1);

        if (can_walk(tlb, one) && is_stale_shortcut(tlb, one) &&
            is_asked(search, root, one->start, last, PTE_TABLE)) {
            complain(search, tlb, "way to a table", one->start, one->table);
        }
    }
}

void sim_watch_load(void)
{
    static const struct search search = {.when = "after CR3 was loaded"};

    if (is_watching) {
        search_translations(&search, sim_this_tlb());
        search_shortcuts(&search, sim_this_tlb());
    }
}

/* What a batch that no pt_open() has begun is about: all, if not ranges. */
static struct change change_of(const struct tlb_batch *batch)
{
    struct change one = {.batch = batch,
                         .root = phys_to_pfn(batch->space->root),
                         .is_kernel = batch->space->is_kernel,
                         .opened = {0, 0, 0}};

    narrow(&one, batch);
    return one;
}

void __wrap_tlb_commit(struct tlb_batch *batch)
{
    struct change scope = change_of(batch);

    __real_tlb_commit(batch);
    sim_lock();
    struct change *mine = find_change(batch);
    if (mine != NULL) {
        scope = *mine;
        mine->batch = NULL;
    }
    struct search search = {&scope, scope.closed_at, "after tlb_commit()"};
    for (unsigned cpu = 0; is_watching && cpu < port_cpu_count(); cpu++) {
        search_translations(&search, &sim_tlb[cpu]);
        search_shortcuts(&search, &sim_tlb[cpu]);
    }
    sim_unlock();
}

/* --- W3: frames that come and go ------------------------------------------ */

static bool is_among(pfn_t start, uint64_t frames, pfn_t first, uint64_t count)
{
    return ranges_overlap(first.v, first.v + count, start.v, start.v + frames);
}

static uint64_t frames_of(const struct translation *one)
{
    return pte_span(one->level) >> PAGE_SHIFT;
}

/* Complain if @tlb leads to one of the frames, which were @what. */
static void look_for(const struct sim_tlb *tlb, pfn_t pfn, uint64_t frames,
                     const char *what)
{
    unsigned cpu = cpu_number(tlb);

    for (unsigned i = 0; i < tlb->translations; i++) {
        const struct translation *one = &tlb->translation[i];

        if (one->is_owned && can_use(tlb, one) &&
            is_among(pfn, frames, one->pfn, frames_of(one))) {
            port_bug("frame 0x%lx was %s before 0x%lx was invalidated on "
                     "CPU %u",
                     one->pfn.v, what, one->start, cpu);
        }
    }
    for (unsigned i = 0; i < tlb->shortcuts; i++) {
        const struct shortcut *one = &tlb->shortcut[i];

        if (can_walk(tlb, one) && is_among(pfn, frames, one->table, 1)) {
            port_bug("table 0x%lx was %s before CPU %u forgot the way to it",
                     one->table.v, what, cpu);
        }
    }
    for (unsigned i = 0; i < tlb->descended; i++) {
        if (is_among(pfn, frames, tlb->descent[i], 1)) {
            port_bug("table 0x%lx was %s while CPU %u descends through it",
                     tlb->descent[i].v, what, cpu);
        }
    }
    if (is_among(pfn, frames, sim_root(tlb), 1)) {
        port_bug("table 0x%lx was %s while CPU %u has it in CR3",
                 sim_root(tlb).v, what, cpu);
    }
}

static void look_on_all(pfn_t pfn, unsigned order, const char *what)
{
    sim_lock();
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        look_for(&sim_tlb[cpu], pfn, UINT64_C(1) << order, what);
    }
    sim_unlock();
}

void __wrap_frame_free(pfn_t pfn, unsigned order)
{
    sim_serialize();
    if (is_watching) {
        look_on_all(pfn, order, "released");
    }
    __real_frame_free(pfn, order);
}

pfn_t __wrap_frame_alloc_at(const char *site, unsigned order,
                            enum frame_type type, unsigned flags)
{
    sim_serialize();
    pfn_t pfn = __real_frame_alloc_at(site, order, type, flags);

    if (is_watching && !pfn_is_none(pfn)) {
        look_on_all(pfn, order, "handed out");
    }
    return pfn;
}

void __wrap_frame_free_bulk(const pfn_t *frames, unsigned count)
{
    sim_serialize();
    for (unsigned i = 0; is_watching && i < count; i++) {
        look_on_all(frames[i], 0, "released");
    }
    __real_frame_free_bulk(frames, count);
}

void __wrap_frame_free_row(pfn_t first, unsigned count)
{
    sim_serialize();
    for (unsigned i = 0; is_watching && i < count; i++) {
        look_on_all(pfn_add(first, i), 0, "released");
    }
    __real_frame_free_row(first, count);
}

unsigned __wrap_frame_alloc_bulk_at(const char *site, pfn_t *out,
                                    unsigned count, enum frame_type type,
                                    unsigned flags)
{
    sim_serialize();
    unsigned taken = __real_frame_alloc_bulk_at(site, out, count, type, flags);

    for (unsigned i = 0; is_watching && i < taken; i++) {
        look_on_all(out[i], 0, "handed out");
    }
    return taken;
}

unsigned sim_cached(pfn_t start, uint64_t frames)
{
    unsigned cached = 0;

    sim_lock();
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        const struct sim_tlb *tlb = &sim_tlb[cpu];

        for (unsigned i = 0; i < tlb->translations; i++) {
            const struct translation *one = &tlb->translation[i];
            cached += can_use(tlb, one) &&
                              is_among(start, frames, one->pfn, frames_of(one))
                          ? 1
                          : 0;
        }
        for (unsigned i = 0; i < tlb->shortcuts; i++) {
            const struct shortcut *one = &tlb->shortcut[i];
            cached +=
                can_walk(tlb, one) && is_among(start, frames, one->table, 1)
                    ? 1
                    : 0;
        }
    }
    sim_unlock();
    return cached;
}

/* --- idle CPUs ------------------------------------------------------------ */

void __wrap_tlb_begin_lazy(void)
{
    sim_this_tlb()->is_lazy = true;
    __real_tlb_begin_lazy();
}

/* This CPU may use again what it has loaded; it must be fit to be used. */
static void wake_up(void)
{
    static const struct search search = {.when = "after idling"};

    sim_lock();
    sim_this_tlb()->is_lazy = false;
    if (is_watching) {
        search_translations(&search, sim_this_tlb());
        search_shortcuts(&search, sim_this_tlb());
    }
    sim_unlock();
}

void __wrap_tlb_end_lazy(void)
{
    __real_tlb_end_lazy();
    wake_up();
}

void __wrap_tlb_switch(struct tlb_space *space)
{
    __real_tlb_switch(space);
    if (sim_this_tlb()->is_lazy) {
        wake_up();
    }
}
