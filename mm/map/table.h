/* SPDX-License-Identifier: MIT */
/* table: a page of entries, and what its frame record says of it. */
#ifndef MM_MAP_TABLE_H
#define MM_MAP_TABLE_H

#include <mm/port.h>
#include <mm/record.h>
#include "base/check.h"
#include "x86_64/pte.h"

/*
 * record.entries of a table: how many of its entries are not absent, and
 * marks. Whoever holds the table's lock is the only writer.
 */
#define TABLE_COUNT  0x3ffu
#define TABLE_PINNED 0x400u  /* it stays when it is empty */
#define TABLE_GONE   0x800u  /* nothing leads to it any more */
#define TABLE_KEPT   0x1000u /* it stays until all it translates is unmapped */

_Static_assert(MM_MAX_CPUS <= UINT8_MAX, "tickets of a table are bytes");

/* The table page as memory. */
static inline pte_t *table_at(pfn_t table)
{
    return phys_to_virt(pfn_to_phys(table));
}

/*
 * What the table of @level that @entry leads to says of @address, for who may
 * not have locked it.
 */
static inline pte_t table_look(pte_t entry, vaddr_t address, unsigned level)
{
    uint64_t offset = pte_index(address, level) * sizeof(pte_t);
    const _Atomic uint64_t *slot =
        phys_to_virt(paddr_of((entry.v & PTE_FRAME) + offset));

    /* Pairs with cursor_swap(): what the entry points to is complete. */
    return (pte_t){atomic_load_explicit(slot, memory_order_acquire)};
}

/* The entry at @slot as it is now; the CPU may set A and D at any time. */
static inline pte_t slot_entry(const pte_t *slot)
{
    return (pte_t){atomic_load_explicit((const _Atomic uint64_t *)&slot->v,
                                        memory_order_relaxed)};
}

static inline unsigned table_marks(pfn_t table)
{
    return atomic_load_explicit(&record_of(table)->entries,
                                memory_order_relaxed);
}

static inline unsigned table_count(pfn_t table)
{
    return table_marks(table) & TABLE_COUNT;
}

/* Has it nothing to say, and no reason to stay? */
static inline bool table_is_spare(pfn_t table)
{
    return (table_marks(table) & (TABLE_COUNT | TABLE_PINNED | TABLE_KEPT)) ==
           0;
}

/* A plain store: see above. */
static inline void table_set_marks(pfn_t table, unsigned marks)
{
    atomic_store_explicit(&record_of(table)->entries, (uint16_t)marks,
                          memory_order_relaxed);
}

/*
 * A new table, not yet hooked: held by the caller, so that whoever finds it
 * waits until the cursor that made it is closed.
 */
static inline void table_init_held(pfn_t table, unsigned marks)
{
    struct frame_record *record = record_of(table);

    record->owner = 0;
    atomic_store_explicit(&record->next, 1, memory_order_relaxed);
    table_set_marks(table, marks);
}

/* Wait until @ticket is served. */
void table_wait(const struct frame_record *record, uint8_t ticket);

/*
 * A ticket lock, as base/lock.h. Tables are locked from the top down, and
 * those beside each other from the left: no circle of waiting closes.
 * Context: interrupts off, and inside: the table cannot be released meanwhile
 *          (docs/locking.md, Grace period).
 */
static inline void table_lock(pfn_t table)
{
    struct frame_record *record = record_of(table);
    uint8_t ticket =
        atomic_fetch_add_explicit(&record->next, 1, memory_order_relaxed);

    /* Acquire: pairs with the release store in table_unlock(). */
    if (MM_UNLIKELY(atomic_load_explicit(&record->served,
                                         memory_order_acquire) != ticket)) {
        table_wait(record, ticket);
    }
}

static inline void table_unlock(pfn_t table)
{
    struct frame_record *record = record_of(table);
    uint8_t ticket =
        atomic_load_explicit(&record->served, memory_order_relaxed);

    ASSERT_SLOW(ticket !=
                atomic_load_explicit(&record->next, memory_order_relaxed));
    /* Pairs with the acquire load in table_lock(). */
    atomic_store_explicit(&record->served, (uint8_t)(ticket + 1),
                          memory_order_release);
}

/* Nothing leads to it any more: who waits for it looks again from the root. */
static inline void table_retire(pfn_t table)
{
    table_set_marks(table, table_marks(table) | TABLE_GONE);
    table_unlock(table);
}

#endif
