/* SPDX-License-Identifier: MIT */
/* scratch: 2 MiB of kernel addresses whose entries a test may forge. */
#include "tests/kernel/scratch.h"

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "base/memory.h"
#include "kernel/entry.h"

#define LARGE_ORDER 9
#define LARGE_BYTES (2 * MiB)
#define INSN_RET    0xc3

/* Let user access through the levels above 1, or put back what was there. */
static void open_upper_levels(struct scratch *scratch)
{
    for (unsigned level = 2; level < pt_features.levels; level++) {
        volatile pte_t *entry = entry_find(scratch->address, level);
        scratch->saved[level].v = entry->v;
        entry->v |= PTE_US;
    }
    scratch->upper = entry_find(scratch->address, 1);
    scratch->saved[1].v = scratch->upper->v;
}

bool scratch_init(struct scratch *scratch)
{
    scratch->block = kmap_alloc(2 * LARGE_BYTES, KMAP_LAZY, "scratch");
    scratch->table = frame_alloc(0, FRAME_KERNEL, FRAME_ZEROED);
    scratch->large = frame_alloc(LARGE_ORDER, FRAME_KERNEL, FRAME_ANY);
    scratch->upper = NULL;
    if (scratch->block == NULL || pfn_is_none(scratch->table) ||
        pfn_is_none(scratch->large)) {
        scratch_fini(scratch);
        return false;
    }
    memset(phys_to_virt(pfn_to_phys(scratch->large)), INSN_RET, LARGE_BYTES);
    scratch->address = align_up((vaddr_t)scratch->block, LARGE_BYTES);
    open_upper_levels(scratch);
    return true;
}

void scratch_fini(struct scratch *scratch)
{
    if (scratch->upper != NULL) {
        scratch->upper->v = scratch->saved[1].v;
        for (unsigned level = 2; level < pt_features.levels; level++) {
            entry_find(scratch->address, level)->v = scratch->saved[level].v;
        }
        tlb_flush_all();
    }
    kmap_free(scratch->block);
    if (!pfn_is_none(scratch->table)) {
        frame_free(scratch->table, 0);
    }
    if (!pfn_is_none(scratch->large)) {
        frame_free(scratch->large, LARGE_ORDER);
    }
}

void scratch_set_upper(struct scratch *scratch, pte_t entry)
{
    scratch->upper->v = entry.v;
    tlb_flush_all();
}

void scratch_set_lower(struct scratch *scratch, pte_t entry)
{
    volatile pte_t *table = phys_to_virt(pfn_to_phys(scratch->table));

    table[0].v = entry.v;
    tlb_flush_all();
}
