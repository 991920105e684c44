/* SPDX-License-Identifier: MIT */
/* table: waiting for the lock of a page table. */
#include "map/table.h"

#include "base/lock.h"

void table_wait(const struct frame_record *record, uint8_t ticket)
{
    /* Else this CPU holds it, and would wait for itself. */
    ASSERT(port_cpu_count() > 1);
    /* Acquire: pairs with the release store in table_unlock(). */
    while (atomic_load_explicit(&record->served, memory_order_acquire) !=
           ticket) {
        lock_serve();
        port_relax();
    }
}
