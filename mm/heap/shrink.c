/* SPDX-License-Identifier: MIT */
/* shrink: who keeps memory for comfort, and gives it back when it is short. */
/*
 * Owns: the list of shrinkers; what each CPU is asked to drain.
 *
 * Idea: memory that could be done without is kept all over: in slabs, in
 * caches, by CPUs. Before an allocation fails that may reclaim, all who keep
 * some are asked, those first for whom it is cheapest. What a CPU keeps is
 * touched by that CPU alone, with interrupts off; so another one is asked by
 * the interrupt it gives frames back in, and waited for.
 *
 * Locking: list_lock, for the list; never held while a shrinker is called. One
 * that is called has users, and stays on the list for as long: who unregisters
 * it waits. So a walk may go on from it. Who waits for others drains what it
 * keeps itself meanwhile, and gives back frames: two that are short do not wait
 * for each other. It holds no lock, but one of the host's, perhaps, around its
 * allocation: a CPU that spins for that one with interrupts off does not
 * answer, which is why the wait has an end (docs/locking.md).
 *
 * Cost: nothing until memory is short, but a test in each refill.
 *
 * Limits: a CPU that does not answer in SHRINK_PATIENCE turns keeps what it
 * has until it does; nobody waits for it again before.
 */
#include <mm/shrink.h>

#include <mm/frame.h>
#include <mm/port.h>
#include "base/check.h"
#include "base/lock.h"

/* Turns of waiting for all other CPUs; they have interrupts on long before. */
#ifndef SHRINK_PATIENCE
#define SHRINK_PATIENCE (UINT32_C(1) << 20)
#endif

/* What a CPU keeps, and whether it was asked for it. */
enum drain_state {
    KEEPS_NOTHING,
    KEEPS,
    IS_ASKED,
    IS_SILENT /* asked, and not waited for any more */
};

static struct lock list_lock = LOCK_INIT(LOCK_RANK_SHRINK);
static struct shrinker *first_shrinker;        /* (L) */
static _Atomic uint32_t drain_of[MM_MAX_CPUS]; /* (A) enum drain_state */
static _Atomic bool is_shrinking[MM_MAX_CPUS]; /* (A) reclaims or drains */
static _Atomic uint64_t drained[MM_MAX_CPUS];  /* (A) frames, so far */

void shrink_init(void)
{
    lock_init(&list_lock, LOCK_RANK_SHRINK);
    first_shrinker = NULL;
    for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
        atomic_init(&drain_of[i], KEEPS_NOTHING);
        atomic_init(&is_shrinking[i], false);
        atomic_init(&drained[i], 0);
    }
}

const char *shrink_priority_name(enum shrink_priority priority)
{
    static const char *const name[SHRINK_PRIORITIES] = {"spare", "cheap",
                                                        "dear"};

    return priority < SHRINK_PRIORITIES ? name[priority] : "unknown";
}

/* --- the list ------------------------------------------------------------- */

void shrink_register(struct shrinker *shrinker)
{
    ASSERT(shrinker->scan != NULL && shrinker->count != NULL);
    ASSERT(shrinker->priority < SHRINK_PRIORITIES);
    uint64_t irq = lock_acquire(&list_lock);
    struct shrinker **link = &first_shrinker;

    while (*link != NULL && (*link)->priority <= shrinker->priority) {
        ASSERT(*link != shrinker);
        link = &(*link)->next;
    }
    shrinker->users = 0;
    shrinker->is_leaving = false;
    atomic_init(&shrinker->asked, 0);
    atomic_init(&shrinker->freed, 0);
    shrinker->next = *link;
    *link = shrinker;
    lock_release(&list_lock, irq);
}

static void unlink_locked(const struct shrinker *shrinker)
{
    struct shrinker **link = &first_shrinker;

    while (*link != shrinker) {
        ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = shrinker->next;
}

/* Off the list, unless somebody is calling it. */
static bool try_unlink(struct shrinker *shrinker)
{
    uint64_t irq = lock_acquire(&list_lock);
    bool is_free = shrinker->users == 0;

    shrinker->is_leaving = true;
    if (is_free) {
        unlink_locked(shrinker);
    }
    lock_release(&list_lock, irq);
    return is_free;
}

/* A turn of waiting for others, who may wait for this CPU. */
static void serve_others(void)
{
    uint64_t irq = port_irq_save();

    frame_interrupt();
    shrink_interrupt();
    port_irq_restore(irq);
    port_relax();
}

void shrink_unregister(struct shrinker *shrinker)
{
    while (!try_unlink(shrinker)) {
        serve_others();
    }
}

/*
 * The next that may be called, and it stays until next_shrinker() is called
 * with it. @before: NULL at first. Return: NULL after the last.
 */
static struct shrinker *next_shrinker(struct shrinker *before)
{
    uint64_t irq = lock_acquire(&list_lock);
    struct shrinker *next = before == NULL ? first_shrinker : before->next;

    while (next != NULL && next->is_leaving) {
        next = next->next;
    }
    if (next != NULL) {
        next->users++;
    }
    if (before != NULL) {
        before->users--;
    }
    lock_release(&list_lock, irq);
    return next;
}

/* It may leave: the walk ends here. */
static void let_go(struct shrinker *shrinker)
{
    uint64_t irq = lock_acquire(&list_lock);

    shrinker->users--;
    lock_release(&list_lock, irq);
}

bool shrink_look(unsigned index, struct shrink_info *out)
{
    struct shrinker *shrinker = next_shrinker(NULL);

    for (; shrinker != NULL && index > 0; index--) {
        shrinker = next_shrinker(shrinker);
    }
    if (shrinker == NULL) {
        return false;
    }
    *out = (struct shrink_info){
        .name = shrinker->name,
        .priority = shrinker->priority,
        .count = shrinker->count(shrinker->context),
        .asked = atomic_load_explicit(&shrinker->asked, memory_order_relaxed),
        .freed = atomic_load_explicit(&shrinker->freed, memory_order_relaxed),
    };
    let_go(shrinker);
    return true;
}

static void note_freed(struct shrinker *shrinker, uint64_t frames)
{
    atomic_fetch_add_explicit(&shrinker->freed, frames, memory_order_relaxed);
}

/* --- what CPUs keep ------------------------------------------------------- */

void shrink_note_kept(void)
{
    _Atomic uint32_t *mine = &drain_of[port_cpu()];
    uint32_t before = KEEPS_NOTHING;

    if (MM_UNLIKELY(atomic_load_explicit(mine, memory_order_relaxed) ==
                    KEEPS_NOTHING)) {
        atomic_compare_exchange_strong_explicit(
            mine, &before, KEEPS, memory_order_relaxed, memory_order_relaxed);
    }
}

/* All that this CPU keeps. Interrupts are off. */
static uint64_t drain_here(void)
{
    uint64_t freed = 0;
    _Atomic bool *mine = &is_shrinking[port_cpu()];
    bool is_inside = atomic_exchange_explicit(mine, true, memory_order_relaxed);

    for (struct shrinker *shrinker = next_shrinker(NULL); shrinker != NULL;
         shrinker = next_shrinker(shrinker)) {
        if (shrinker->drain != NULL) {
            uint64_t frames = shrinker->drain(shrinker->context);

            note_freed(shrinker, frames);
            freed += frames;
        }
    }
    frame_drain(); /* what was freed here shall count elsewhere */
    if (!is_inside) {
        atomic_store_explicit(mine, false, memory_order_relaxed);
    }
    return freed;
}

void shrink_interrupt(void)
{
    unsigned me = port_cpu();

    if (MM_LIKELY(atomic_load_explicit(&drain_of[me], memory_order_relaxed) <
                  IS_ASKED)) {
        return;
    }
    uint64_t freed = drain_here();
    atomic_fetch_add_explicit(&drained[me], freed, memory_order_relaxed);
    /* Release: pairs with the acquire in await(): what was kept is free. */
    atomic_store_explicit(&drain_of[me], KEEPS_NOTHING, memory_order_release);
}

/* Ask @cpu if it keeps something. Return: is there somebody to wait for? */
static bool ask(unsigned cpu)
{
    uint32_t before = KEEPS;

    if (atomic_compare_exchange_strong_explicit(&drain_of[cpu], &before,
                                                IS_ASKED, memory_order_relaxed,
                                                memory_order_relaxed)) {
        port_send_frame_interrupt(cpu);
        return true;
    }
    return before == IS_ASKED;
}

/* Wait until @cpu has drained, or until @turns are over. */
static void await(unsigned cpu, uint32_t *turns)
{
    uint32_t asked = IS_ASKED;

    for (; *turns > 0; --*turns) {
        /* Acquire: pairs with the release in shrink_interrupt(). */
        if (atomic_load_explicit(&drain_of[cpu], memory_order_acquire) !=
            IS_ASKED) {
            return;
        }
        serve_others();
    }
    /* Nobody waits for it again before it has answered. */
    (void)atomic_compare_exchange_strong_explicit(
        &drain_of[cpu], &asked, IS_SILENT, memory_order_relaxed,
        memory_order_relaxed);
}

static uint64_t drained_by_all(void)
{
    uint64_t frames = 0;

    for (unsigned i = 0; i < port_cpu_count(); i++) {
        frames += atomic_load_explicit(&drained[i], memory_order_relaxed);
    }
    return frames;
}

/* Have the other CPUs drain. Return: has anybody? @out_freed: frames. */
static bool drain_others(uint64_t *out_freed)
{
    uint64_t before = drained_by_all();
    uint64_t irq = port_irq_save();
    unsigned me = port_cpu();
    uint32_t turns = SHRINK_PATIENCE;
    bool has_asked = false;

    for (unsigned i = 0; i < port_cpu_count(); i++) {
        has_asked = (i != me && ask(i)) || has_asked;
    }
    port_irq_restore(irq);
    for (unsigned i = 0; has_asked && i < port_cpu_count(); i++) {
        if (i != me) {
            await(i, &turns);
        }
    }
    *out_freed = drained_by_all() - before;
    return has_asked;
}

/* --- reclaim -------------------------------------------------------------- */

/* Each once, until there are enough. */
static uint64_t scan_all(uint64_t frames)
{
    struct shrinker *shrinker = next_shrinker(NULL);
    uint64_t freed = 0;

    while (shrinker != NULL && freed < frames) {
        uint64_t got = shrinker->scan(shrinker->context, frames - freed);

        atomic_fetch_add_explicit(&shrinker->asked, 1, memory_order_relaxed);
        note_freed(shrinker, got);
        freed += got;
        shrinker = next_shrinker(shrinker);
    }
    if (shrinker != NULL) {
        let_go(shrinker);
    }
    return freed;
}

/*
 * From this CPU. Objects that shrinkers have freed are kept by the heap, which
 * was asked before them.
 */
static uint64_t reclaim_here(uint64_t frames)
{
    uint64_t freed = scan_all(frames);

    if (freed < frames) {
        uint64_t irq = port_irq_save();
        freed += drain_here();
        port_irq_restore(irq);
    }
    return freed;
}

/* From this CPU, then from the others. */
static uint64_t reclaim(uint64_t frames)
{
    uint64_t freed = reclaim_here(frames);
    uint64_t by_others;

    if (freed < frames && drain_others(&by_others)) {
        freed += by_others;
        freed += freed < frames ? reclaim_here(frames - freed) : 0;
    }
    return freed;
}

uint64_t shrink_reclaim(uint64_t frames)
{
    uint64_t irq = port_irq_save();
    _Atomic bool *mine = &is_shrinking[port_cpu()];
    bool is_inside = atomic_exchange_explicit(mine, true, memory_order_relaxed);

    port_irq_restore(irq);
    if (is_inside) {
        return 0;
    }
    uint64_t freed = reclaim(frames);
    /* Of the CPU it began on, wherever this goes on. */
    atomic_store_explicit(mine, false, memory_order_relaxed);
    return freed;
}
