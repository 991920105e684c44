/* SPDX-License-Identifier: MIT */
/* lookup: one address, without a lock. */
#include <mm/pt.h>

#include "map/table.h"

/* The descent of pt_lookup(): no table on its way may be released. */
static bool descend(pfn_t table, vaddr_t address, pfn_t *out_pfn,
                    struct pt_attr *out_attr)
{
    for (unsigned level = pt_features.levels - 1;; level--) {
        const pte_t *slot = &table_at(table)[pte_index(address, level)];
        /* Pairs with cursor_swap(): what the entry points to is complete. */
        pte_t entry = {atomic_load_explicit((const _Atomic uint64_t *)&slot->v,
                                            memory_order_acquire)};

        if (!pte_is_present(entry)) {
            return false;
        }
        if (pte_is_leaf(entry, level)) {
            uint64_t inside = address & (pte_span(level) - 1);

            *out_pfn = pfn_add(pte_pfn(entry, level), inside >> PAGE_SHIFT);
            *out_attr = pte_attr(entry, level);
            return true;
        }
        table = pte_table(entry);
    }
}

bool pt_lookup(struct pt *pt, vaddr_t address, pfn_t *out_pfn,
               struct pt_attr *out_attr)
{
    if (!pt_is_canonical(address)) {
        return false;
    }
    bool is_visit = tlb_begin_visit(&pt->tlb);
    bool is_present = descend(pt->root, address, out_pfn, out_attr);
    tlb_end_visit(&pt->tlb, is_visit);
    return is_present;
}

struct pt *pt_of(vaddr_t address)
{
    struct tlb_space *loaded = tlb_loaded();

    if (address >> 63 || loaded->is_kernel) {
        return &pt_kernel;
    }
    return (struct pt *)((char *)loaded - offsetof(struct pt, tlb));
}
