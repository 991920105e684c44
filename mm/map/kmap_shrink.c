/* SPDX-License-Identifier: MIT */
/* kmap_shrink: frames that are kept go back when memory is short. */
/*
 * Idea      A flush is needed first, and who asks for memory may be in an
 *           interrupt or hold a lock of the host: it must not wait for all
 *           other CPUs. So what waits for a flush is set aside, one is begun,
 *           and the frames go when each CPU has made it: as a rule some turns
 *           later, else when memory is asked for next. The blocks are empty
 *           then, where they were.
 *
 * Locking   What a CPU keeps (kmap_keep.c) is taken for one step each. One CPU
 *           is at work here at a time; others do not wait for it, either.
 *
 * Cost      A whole flush on each CPU, whatever it has used.
 *
 * Limits    The addresses of blocks, their descriptors and tables stay until a
 *           purge: to take them back is to wait.
 */
#include "map/kmap_impl.h"

#include <mm/shrink.h>

/* Turns in which CPUs that have interrupts on have answered long ago. */
#define FLUSH_TURNS 2000

/* Of what was set aside, before the number of its flush is known. */
#define NOT_BEGUN UINT64_MAX

static _Atomic bool is_at_work; /* (A) some CPU is in scan() */

static struct ready *take_of(unsigned cpu, uint64_t *out_irq)
{
    *out_irq = port_irq_save();
    struct ready *ready = &kmap_ready[cpu];

    hold_take(&ready->hold);
    return ready;
}

/* What waits for a flush, of all CPUs. Return: is there any? */
static bool set_aside(void)
{
    bool found = false;

    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        uint64_t irq;
        struct ready *ready = take_of(cpu, &irq);

        if (ready->leaving == NULL && ready->waiting > 0) {
            ready->leaving = ready_take_waiting(ready);
            ready->flush = NOT_BEGUN;
            found = true;
        }
        ready_drop(ready, irq);
    }
    return found;
}

/* All that was set aside just now waits for @flush. */
static void note_flush(uint64_t flush)
{
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        uint64_t irq;
        struct ready *ready = take_of(cpu, &irq);

        if (ready->flush == NOT_BEGUN) {
            ready->flush = flush;
        }
        ready_drop(ready, irq);
    }
}

/* What @cpu has set aside, if all have made the flush. */
static struct kmap_block *take_flushed(unsigned cpu)
{
    uint64_t irq;
    struct ready *ready = take_of(cpu, &irq);
    struct kmap_block *list = NULL;

    if (ready->leaving != NULL && tlb_has_ended(ready->flush)) {
        list = ready->leaving;
        ready->leaving = NULL;
    }
    ready_drop(ready, irq);
    return list;
}

/* Those of @list for which there is no room are as windows that were closed. */
static void return_empties(unsigned cpu, struct kmap_block *list)
{
    uint64_t irq;
    struct ready *ready = take_of(cpu, &irq);

    while (list != NULL) {
        struct kmap_block *block = ready_pop(&list);
        unsigned pages = block_pages(block);

        if (ready->empties < EMPTIES_MAX) {
            ready_push(&ready->empty[pages - 1], block);
            ready->empties++;
        } else {
            ready_push(&ready->stale, block);
            ready->waiting += pages;
        }
    }
    ready_drop(ready, irq);
}

static uint64_t release_flushed(void)
{
    uint64_t frames = 0;

    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        struct kmap_block *list = take_flushed(cpu);
        struct tlb_batch batch;

        tlb_batch_init(&batch, &pt_kernel.tlb);
        frames += ready_release(list, &batch);
        return_empties(cpu, list);
    }
    return frames;
}

static uint64_t flush_and_release(void)
{
    if (!set_aside()) {
        return 0;
    }
    uint64_t flush = tlb_begin_flush();

    note_flush(flush);
    for (unsigned i = 0; i < FLUSH_TURNS && !tlb_has_ended(flush); i++) {
        port_relax();
    }
    return release_flushed();
}

static uint64_t scan(void *context, uint64_t frames)
{
    (void)context;
    /* Acquire: pairs with the release below. */
    if (atomic_exchange_explicit(&is_at_work, true, memory_order_acquire)) {
        return 0;
    }
    uint64_t freed = release_flushed();

    if (freed < frames) {
        freed += flush_and_release();
    }
    atomic_store_explicit(&is_at_work, false, memory_order_release);
    return freed;
}

/* Without what was set aside: that was asked for. */
static uint64_t count(void *context)
{
    uint64_t frames = 0;

    (void)context;
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        uint64_t irq;
        struct ready *ready = take_of(cpu, &irq);

        frames += ready->waiting;
        for (const struct kmap_block *window = ready->stale; window != NULL;
             window = window->next) {
            frames -= block_pages(window);
        }
        ready_drop(ready, irq);
    }
    return frames;
}

void kmap_join_shrinkers(void)
{
    static struct shrinker shrinker;

    shrinker = (struct shrinker){
        .name = "kmap", .priority = SHRINK_SPARE, .count = count, .scan = scan};
    atomic_init(&is_at_work, false);
    shrink_register(&shrinker);
}
