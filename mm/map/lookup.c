/* SPDX-License-Identifier: MIT */
/* lookup: one address, without a lock. */
#include <mm/pt.h>

#include "map/table.h"

/* The descent of pt_lookup(): no table on its way may be released. */
static inline struct pt_leaf descend(const struct pt *pt, vaddr_t address)
{
    const pte_t *table = table_at(pt->root);
    unsigned level = pt_features.levels - 1;

    for (;; level--) {
        pte_t entry = table_look(table, address, level);

        if ((entry.v & (PTE_P | PTE_PS)) != PTE_P || level == 0) {
            return (struct pt_leaf){entry, level};
        }
        table = table_under(entry);
    }
}

/* Tables of a space, which this CPU may not have loaded. */
static MM_NOINLINE struct pt_leaf visit(struct pt *pt, vaddr_t address)
{
    bool is_visit = tlb_begin_visit(&pt->tlb);
    struct pt_leaf leaf = descend(pt, address);

    tlb_end_visit(&pt->tlb, is_visit);
    return leaf;
}

struct pt_leaf pt_lookup(struct pt *pt, vaddr_t address)
{
    if (!pt_is_canonical(address)) {
        return (struct pt_leaf){{0}, 0};
    }
    /* Every CPU is in the kernel's set. */
    return pt->is_kernel ? descend(pt, address) : visit(pt, address);
}

struct pt *pt_of(vaddr_t address)
{
    struct tlb_space *loaded = tlb_loaded();

    if (address >> 63 || loaded->is_kernel) {
        return &pt_kernel;
    }
    return (struct pt *)((char *)loaded - offsetof(struct pt, tlb));
}
