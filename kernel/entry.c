/* SPDX-License-Identifier: MIT */
/* entry: changes a page-table entry behind the library's back. */
#include "kernel/entry.h"

#include <mm/port.h>
#include <mm/pt.h>
#include "base/bits.h"

volatile pte_t *entry_find(vaddr_t address, unsigned level)
{
    struct walk walk;

    walk_address(pt_kernel.root, address, &walk);
    for (unsigned i = 0; i < walk.count; i++) {
        if (walk.step[i].level == level) {
            pte_t *table = phys_to_virt(walk.step[i].table);
            return &table[walk.step[i].index];
        }
    }
    return NULL;
}

void entry_invalidate(vaddr_t address)
{
    vaddr_t page = align_down(address, PAGE_BYTES);
    struct tlb_batch batch;

    tlb_batch_init(&batch, &pt_kernel.tlb);
    tlb_batch_range(&batch, page, page + PAGE_BYTES, 0);
    tlb_commit(&batch);
}
