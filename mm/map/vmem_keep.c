/* SPDX-License-Identifier: MIT */
/* vmem_keep: small segments that were freed, kept by CPU. */
/*
 * Idea      Quantum caches [Bonwick01 "Quantum Caching"]: most allocations are
 *           of few quanta, so each CPU has an array of free addresses for each
 *           such size. A segment in it stays allocated for the arena, in the
 *           hash and in its place among the tags; so it costs neither the lock
 *           nor a tag to take it again. An array that is full gives half back.
 *           When the arena has no room, all arrays go back to it first.
 *
 * Locking   An array is held (hold.h) by its CPU, or by who drains all; never
 *           together with the arena's lock.
 *
 * Cost      A few instructions; each MAGAZINE / 2 frees beyond, as many times
 *           that of the arena.
 *
 * Limits    Where MM_DEBUG is off, a wrong free is found out when the array
 *           gives the segment back; until then it may be handed out.
 */
#include "map/vmem_impl.h"

#include <mm/kmalloc.h>
#include "base/check.h"
#include "map/hold.h"

/* Addresses of a size that a CPU keeps. */
#define MAGAZINE 16

struct magazine {
    unsigned count;
    uint64_t address[MAGAZINE];
};

/* (P) of the CPU that holds it. */
struct vmem_kept {
    struct hold hold;
    struct magazine magazine[]; /* (P) by quanta - 1 */
};

enum mm_status vmem_keep(struct vmem *vmem, unsigned quanta)
{
    unsigned cpus = port_cpu_count();

    ASSERT(quanta > 0 && vmem->kept_quanta == 0 && vmem->allocated == 0);
    vmem->kept = kmalloc_array(cpus, sizeof(vmem->kept[0]));
    if (vmem->kept == NULL) {
        return MM_ENOMEM;
    }
    for (unsigned i = 0; i < cpus; i++) {
        vmem->kept[i] = kzalloc(sizeof(struct vmem_kept) +
                                quanta * sizeof(struct magazine));
        if (vmem->kept[i] == NULL) {
            vmem_keep_end(vmem);
            return MM_ENOMEM;
        }
    }
    vmem->kept_quanta = quanta;
    return MM_OK;
}

void vmem_keep_end(struct vmem *vmem)
{
    for (unsigned i = 0; vmem->kept != NULL && i < port_cpu_count(); i++) {
        kfree(vmem->kept[i]);
    }
    kfree(vmem->kept);
    vmem->kept = NULL;
    vmem->kept_quanta = 0;
}

/* The whole quanta of @size, less 1: an index, if it is below kept_quanta. */
static inline uint64_t index_of(const struct vmem *vmem, uint64_t size)
{
    /* Of 0, and of what wraps around, it is too large. */
    return ((size + vmem->quantum - 1) >> vmem->quantum_shift) - 1;
}

static inline struct vmem_kept *take_mine(struct vmem *vmem, uint64_t *out_irq)
{
    *out_irq = port_irq_save();
    struct vmem_kept *mine = vmem->kept[port_cpu()];

    hold_take(&mine->hold);
    return mine;
}

static inline void drop(struct vmem_kept *kept, uint64_t irq)
{
    hold_drop(&kept->hold);
    port_irq_restore(irq);
}

/* Up to @limit of the addresses that are kept longest. Return: how many. */
static unsigned take_oldest(struct magazine *magazine, uint64_t *out,
                            unsigned limit)
{
    unsigned count = (unsigned)min_u64(magazine->count, limit);

    for (unsigned i = 0; i < magazine->count; i++) {
        if (i < count) {
            out[i] = magazine->address[i];
        } else {
            magazine->address[i - count] = magazine->address[i];
        }
    }
    magazine->count -= count;
    return count;
}

static void give_back(struct vmem *vmem, uint64_t quanta, uint64_t *address,
                      unsigned count)
{
    uint64_t size = quanta << vmem->quantum_shift;

    for (unsigned i = 0; i < count; i++) {
        bool is_right =
            !MM_DEBUG || vmem_note_kept(vmem, address[i], size, VMEM_TAKEN);
        ASSERT(is_right); /* I7 */
        vmem_arena_free(vmem, address[i], size);
    }
}

/* Return: was anything kept? */
static bool drain(struct vmem *vmem)
{
    bool found = false;

    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        for (unsigned i = 0; i < vmem->kept_quanta; i++) {
            struct vmem_kept *kept = vmem->kept[cpu];
            uint64_t address[MAGAZINE];
            uint64_t irq = port_irq_save();

            hold_take(&kept->hold);
            unsigned count = take_oldest(&kept->magazine[i], address, MAGAZINE);
            drop(kept, irq);
            give_back(vmem, i + 1, address, count);
            found = found || count > 0;
        }
    }
    return found;
}

void vmem_drain(struct vmem *vmem)
{
    (void)drain(vmem);
}

static MM_NOINLINE enum mm_status alloc_slow(struct vmem *vmem, uint64_t size,
                                             uint64_t alignment, uint64_t *out)
{
    enum mm_status status = vmem_arena_alloc(vmem, size, alignment, out);

    if (status == MM_ENOMEM && drain(vmem)) {
        status = vmem_arena_alloc(vmem, size, alignment, out);
    }
    return status;
}

enum mm_status vmem_alloc(struct vmem *vmem, uint64_t size, uint64_t alignment,
                          uint64_t *out)
{
    uint64_t index = index_of(vmem, size);

    if (index >= vmem->kept_quanta || alignment > vmem->quantum) {
        return alloc_slow(vmem, size, alignment, out);
    }
    uint64_t irq;
    struct vmem_kept *mine = take_mine(vmem, &irq);
    struct magazine *magazine = &mine->magazine[index];
    unsigned count = magazine->count;
    if (MM_UNLIKELY(count == 0)) {
        drop(mine, irq);
        return alloc_slow(vmem, size, alignment, out);
    }
    *out = magazine->address[count - 1];
    magazine->count = count - 1;
    drop(mine, irq);
    if (MM_DEBUG) {
        bool is_right = vmem_note_kept(
            vmem, *out, (index + 1) << vmem->quantum_shift, VMEM_TAKEN);
        ASSERT(is_right); /* I7 */
    }
    return MM_OK;
}

/* Half of a full magazine goes back. */
static MM_NOINLINE void free_slow(struct vmem *vmem, uint64_t address,
                                  uint64_t index)
{
    uint64_t oldest[MAGAZINE / 2];
    uint64_t irq;
    struct vmem_kept *mine = take_mine(vmem, &irq);
    struct magazine *magazine = &mine->magazine[index];
    unsigned count = 0;

    if (magazine->count == MAGAZINE) {
        count = take_oldest(magazine, oldest, MAGAZINE / 2);
    }
    magazine->address[magazine->count++] = address;
    drop(mine, irq);
    give_back(vmem, index + 1, oldest, count);
}

void vmem_free(struct vmem *vmem, uint64_t address, uint64_t size)
{
    uint64_t index = index_of(vmem, size);

    /* What is wrong is for the arena to report. */
    if (index >= vmem->kept_quanta ||
        (MM_DEBUG &&
         !vmem_note_kept(vmem, address, (index + 1) << vmem->quantum_shift,
                         VMEM_KEPT))) {
        vmem_arena_free(vmem, address, size);
        return;
    }
    uint64_t irq;
    struct vmem_kept *mine = take_mine(vmem, &irq);
    struct magazine *magazine = &mine->magazine[index];
    unsigned count = magazine->count;
    if (MM_UNLIKELY(count == MAGAZINE)) {
        drop(mine, irq);
        free_slow(vmem, address, index);
        return;
    }
    magazine->address[count] = address;
    magazine->count = count + 1;
    drop(mine, irq);
}

uint64_t vmem_kept_count(struct vmem *vmem)
{
    uint64_t sum = 0;

    for (unsigned cpu = 0; vmem->kept_quanta > 0 && cpu < port_cpu_count();
         cpu++) {
        uint64_t irq = port_irq_save();

        hold_take(&vmem->kept[cpu]->hold);
        for (unsigned i = 0; i < vmem->kept_quanta; i++) {
            sum += vmem->kept[cpu]->magazine[i].count;
        }
        drop(vmem->kept[cpu], irq);
    }
    return sum;
}

/* Note it of all that the CPU keeps. Return: could it be, of each? */
static bool note_all(struct vmem *vmem, const struct vmem_kept *kept,
                     enum vmem_note note)
{
    bool is_right = true;

    for (unsigned i = 0; i < vmem->kept_quanta; i++) {
        const struct magazine *magazine = &kept->magazine[i];
        uint64_t size = (i + UINT64_C(1)) << vmem->quantum_shift;

        for (unsigned j = 0; j < magazine->count; j++) {
            is_right = vmem_note_kept(vmem, magazine->address[j], size, note) &&
                       is_right;
        }
    }
    return is_right;
}

/* Notes say who keeps what. Where none are made, they are here; else unmade. */
bool vmem_check_kept(struct vmem *vmem)
{
    unsigned cpus = vmem->kept_quanta > 0 ? port_cpu_count() : 0;
    bool is_right = true;

    for (unsigned i = 0; i < cpus; i++) {
        is_right =
            note_all(vmem, vmem->kept[i], MM_DEBUG ? VMEM_TAKEN : VMEM_KEPT) &&
            is_right;
    }
    for (unsigned i = 0; i < cpus; i++) {
        (void)note_all(vmem, vmem->kept[i], MM_DEBUG ? VMEM_KEPT : VMEM_TAKEN);
    }
    CHECK_OR_FAIL(is_right, "I7: %s: a segment is kept that is not to be had",
                  vmem->name);
    return true;
}
