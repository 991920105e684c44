/* SPDX-License-Identifier: MIT */
/* hold: what a CPU keeps, taken by that CPU or by who drains all. */
#ifndef MM_MAP_HOLD_H
#define MM_MAP_HOLD_H

#include <stdatomic.h>

#include <mm/port.h>
#include "base/compiler.h"

/*
 * Cheaper than a lock, since only who drains is ever in the way of the CPU
 * itself. Who has it waits for nobody and takes nothing, so it counts as an
 * innermost lock of any rank. Context of all: interrupts off.
 */
struct hold {
    _Atomic bool is_taken;
};

static inline void hold_take(struct hold *hold)
{
    /* Acquire: pairs with the release in hold_drop(). */
    while (MM_UNLIKELY(atomic_exchange_explicit(&hold->is_taken, true,
                                                memory_order_acquire))) {
        port_relax();
    }
}

static inline void hold_drop(struct hold *hold)
{
    /* Release: pairs with the acquire in hold_take(). */
    atomic_store_explicit(&hold->is_taken, false, memory_order_release);
}

#endif
