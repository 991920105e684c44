/* SPDX-License-Identifier: MIT */
/* tlb_shoot: one CPU makes others forget, and waits until they have. */
/*
 * Owns      requests, inboxes, and the waiting.
 *
 * Picture   initiator                           target
 *             change entries, close cursor
 *             generation + 1       <---.
 *             read who is in the set   |          in the set, or a later
 *             put bit into inbox  ---> |  --->    switch reads the generation
 *             interrupt               the bit     take the whole inbox
 *             forget, here                        forget, there
 *             serve the own inbox                 awaiting - 1
 *             until awaiting is 0
 *             release frames and tables
 *
 * Idea      There is one request a CPU, since it waits for the end of each;
 *           so nothing is allocated and nothing can overflow. An inbox is a
 *           set of the CPUs whose request is to be read: a bit is put in and
 *           taken out by one instruction. Only who finds the word empty sends
 *           an interrupt; all others find one on its way.
 *           Who waits has interrupts off, and so may whom it waits for: it
 *           waits, too. Therefore each serves its own inbox while it waits.
 *           And nobody holds a lock then: whom it waits for may be spinning
 *           for that lock with interrupts off.
 *
 * Grace     A table is released after this. Who descends without a lock has
 * period    interrupts off, and is in the set: it has the space loaded, or
 *           visits it, or the tables are the kernel's, where all are. So it
 *           has answered only after its descent; docs/locking.md has the
 *           argument and the exceptions.
 *
 * Locking   None. Waiting is bounded by how long others keep interrupts off.
 *
 * Cost      O(CPUs in the set) interrupts. [Black89] has the first of such
 *           protocols, with a lock and a barrier in place of generations.
 */
#include <mm/frame.h>
#include <mm/shrink.h>
#include "map/tlb_impl.h"

#include "base/bits.h"
#include "base/check.h"
#include "base/lock.h"

/*
 * Turns of waiting after which the CPUs that do not answer are named, once.
 * A PAUSE takes some 40 to 140 cycles: about half a second.
 */
#define PATIENCE (UINT32_C(1) << 24)

/* Does @cpu need no interrupt for @batch, because it is idle in the space? */
static bool is_spared(const struct tlb_cpu *cpu, const struct tlb_batch *batch)
{
    /* Pairs with the exchange in end_lazy(). */
    return tlb_has(TLB_LAZY) && !batch->tables && !batch->space->is_kernel &&
           atomic_load_explicit(&cpu->is_lazy, memory_order_seq_cst);
}

/* Put the request of CPU @me before @target, and see that it is noticed. */
static void post(struct tlb_cpu *cpu, unsigned me, unsigned target)
{
    _Atomic uint64_t *word = &tlb_cpu[target].inbox.word[me / 64];

    atomic_fetch_add_explicit(&cpu->request.awaiting, 1, memory_order_relaxed);
    /* Release: pairs with the acquire in serve(); the request is complete. */
    uint64_t others = atomic_fetch_or_explicit(word, UINT64_C(1) << (me % 64),
                                               memory_order_release);
    if (others == 0) {
        tlb_add(&cpu->count.interrupts, 1);
        port_send_tlb_interrupt(target);
    }
}

/* The CPUs of word @i of the space's set, but for @me. */
static uint64_t others_of(const struct tlb_space *space, unsigned i,
                          unsigned me)
{
    /* After the generation was raised: see tlb_cpu.c. */
    uint64_t cpus =
        atomic_load_explicit(&space->cpus.word[i], memory_order_seq_cst);

    return i == me / 64 ? cpus & ~(UINT64_C(1) << (me % 64)) : cpus;
}

static MM_NOINLINE bool is_alone_of_many(const struct tlb_space *space,
                                         unsigned me)
{
    uint64_t others = 0;

    for (unsigned i = 0; i < tlb_words; i++) {
        others |= others_of(space, i, me);
    }
    return others == 0;
}

/* Is @me the only one that could have @space cached? */
static inline bool is_alone(const struct tlb_space *space, unsigned me)
{
    return MM_LIKELY(tlb_words == 1) ? others_of(space, 0, me % 64) == 0
                                     : is_alone_of_many(space, me);
}

/* Post the request of CPU @me to all who must have it. */
static MM_NOINLINE void post_all(struct tlb_cpu *cpu, unsigned me)
{
    const struct tlb_batch *batch = cpu->request.batch;

    for (unsigned i = 0; i < tlb_words; i++) {
        uint64_t targets = others_of(batch->space, i, me);

        for (; targets != 0; targets &= targets - 1) {
            unsigned target = i * 64 + lowest_bit(targets);

            if (is_spared(&tlb_cpu[target], batch)) {
                tlb_add(&cpu->count.spared, 1);
            } else {
                post(cpu, me, target);
            }
        }
    }
}

/* Answer the request of CPU @initiator; it may be gone afterwards. */
static void answer(struct tlb_cpu *cpu, unsigned initiator)
{
    struct tlb_request *request = &tlb_cpu[initiator].request;

    tlb_apply(cpu, request->batch, request->generation);
    tlb_add(&cpu->count.served, 1);
    /* Release: pairs with the acquire in await(); the flush is made. */
    atomic_fetch_sub_explicit(&request->awaiting, 1, memory_order_release);
}

/* Answer all who wait for this CPU. */
static inline void serve(struct tlb_cpu *cpu)
{
    for (unsigned i = 0; i < tlb_words; i++) {
        _Atomic uint64_t *word = &cpu->inbox.word[i];

        if (atomic_load_explicit(word, memory_order_relaxed) == 0) {
            continue;
        }
        /* Acquire: pairs with the release in post(). */
        uint64_t initiators =
            atomic_exchange_explicit(word, 0, memory_order_acquire);
        for (; initiators != 0; initiators &= initiators - 1) {
            answer(cpu, i * 64 + lowest_bit(initiators));
        }
    }
}

/* Make all flushes of the kernel's tables that were begun until now. */
static void catch_up(struct tlb_cpu *cpu)
{
    struct tlb_batch everything;

    tlb_batch_init(&everything, tlb_kernel);
    everything.whole = true;
    tlb_apply(
        cpu, &everything,
        atomic_load_explicit(&tlb_kernel->generation, memory_order_seq_cst));
}

/* What tlb_begin_flush() asks for. */
static MM_NOINLINE void catch_up_late(struct tlb_cpu *cpu)
{
    /* Acquire: pairs with the exchange in tlb_begin_flush(). */
    atomic_exchange_explicit(&cpu->is_late, false, memory_order_acquire);
    catch_up(cpu);
}

/* Apart: what tlb_interrupt() keeps across it would be saved and restored. */
static MM_NOINLINE void serve_interrupt(struct tlb_cpu *cpu)
{
    serve(cpu);
}

void tlb_interrupt(void)
{
    struct tlb_cpu *cpu = tlb_this_cpu();

    if (MM_UNLIKELY(
            atomic_load_explicit(&cpu->is_late, memory_order_relaxed))) {
        catch_up_late(cpu);
    }
    serve_interrupt(cpu);
}

static void name_the_silent(unsigned me)
{
    for (unsigned i = 0; i < port_cpu_count(); i++) {
        if (cpu_set_has(&tlb_cpu[i].inbox, me)) {
            port_log("tlb: CPU %u waits for CPU %u, which has had interrupts "
                     "off for %u turns",
                     me, i, PATIENCE);
        }
    }
}

/* Wait for all answers to the request of CPU @me. */
static MM_NOINLINE void await(struct tlb_cpu *cpu, unsigned me)
{
    uint32_t turns = 0;

    /* Acquire: pairs with the release in answer(). */
    while (atomic_load_explicit(&cpu->request.awaiting, memory_order_acquire) !=
           0) {
        serve(cpu);
        frame_interrupt(); /* an allocation may wait for this CPU, too */
        shrink_interrupt();
        port_relax();
        turns++;
        if (turns == PATIENCE) {
            name_the_silent(me);
        }
    }
}

/* The flush @generation that @batch is, here and wherever else it must be. */
static MM_NOINLINE void shoot_all(struct tlb_cpu *cpu, unsigned me,
                                  const struct tlb_batch *batch,
                                  uint64_t generation)
{
    cpu->request.batch = batch;
    cpu->request.generation = generation;
    post_all(cpu, me);
    tlb_apply(cpu, batch, generation);
    await(cpu, me);
}

/* Without ranges, or with too many pages, it is a flush of the whole space. */
static inline void choose_way(struct tlb_batch *batch)
{
    if (batch->range_count == 0 || batch->pages > tlb_ceiling ||
        !tlb_has(TLB_RANGES)) {
        batch->whole = true;
    }
}

uint64_t tlb_shoot(struct tlb_batch *batch)
{
    choose_way(batch);
    uint64_t irq = port_irq_save();
    unsigned me = port_cpu();
    struct tlb_cpu *cpu = &tlb_cpu[me];

    ASSERT_SLOW(lock_count_held() == 0); /* see Idea */
    ASSERT_SLOW(!cpu->is_visiting);      /* see Grace period */
    /*
     * A full barrier: the entries were changed before, the set is read after
     * it. Pairs with load() and end_lazy().
     */
    uint64_t generation =
        1 + atomic_fetch_add_explicit(&batch->space->generation, 1,
                                      memory_order_seq_cst);
    if (is_alone(batch->space, me)) {
        tlb_apply(cpu, batch, generation);
    } else {
        shoot_all(cpu, me, batch, generation);
    }
    tlb_add(&cpu->count.commits, 1);
    tlb_add(&cpu->count.released, batch->chain.count + batch->shared_count);
    port_irq_restore(irq);
    return generation;
}

/* --- without waiting ------------------------------------------------------ */

uint64_t tlb_begin_flush(void)
{
    uint64_t irq = port_irq_save();
    unsigned me = port_cpu();
    /* As in tlb_shoot(). */
    uint64_t flush = 1 + atomic_fetch_add_explicit(&tlb_kernel->generation, 1,
                                                   memory_order_seq_cst);

    for (unsigned i = 0; i < tlb_words; i++) {
        uint64_t targets = others_of(tlb_kernel, i, me);

        for (; targets != 0; targets &= targets - 1) {
            unsigned target = i * 64 + lowest_bit(targets);

            /* Release: pairs with the exchange in catch_up_late(). */
            if (!atomic_exchange_explicit(&tlb_cpu[target].is_late, true,
                                          memory_order_acq_rel)) {
                port_send_tlb_interrupt(target);
            }
        }
    }
    catch_up(&tlb_cpu[me]);
    port_irq_restore(irq);
    return flush;
}

bool tlb_has_ended(uint64_t flush)
{
    bool has_ended = true;

    for (unsigned i = 0; i < port_cpu_count() && has_ended; i++) {
        const struct tlb_cpu *cpu = &tlb_cpu[i];

        /*
         * In the set it is before it flushes for the first time: is_online
         * comes only after that. Acquire: pairs with set_generation().
         */
        has_ended = !cpu_set_has(&tlb_kernel->cpus, i) ||
                    atomic_load_explicit(&cpu->slot[TLB_KERNEL_SLOT].generation,
                                         memory_order_acquire) >= flush;
    }
    return has_ended;
}
