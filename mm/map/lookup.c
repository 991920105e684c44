/* SPDX-License-Identifier: MIT */
/* lookup: one address, without a lock. */
#include <mm/pt.h>

#include "map/table.h"

/*
 * The descent of pt_lookup(): no table on its way may be released. With
 * @levels a constant each turn is a copy of its own that knows its level.
 */
static inline struct pt_leaf descend(const struct pt *pt, vaddr_t address,
                                     unsigned levels)
{
    pte_t entry = {pt->tlb.root.v};

    MM_UNROLL(5)
    for (unsigned level = levels - 1; level > 0; level--) {
        entry = table_look(entry, address, level);
        if (!pte_leads_on(entry)) {
            return (struct pt_leaf){entry, level};
        }
    }
    return (struct pt_leaf){table_look(entry, address, 0), 0};
}

/* Tables of a space, which this CPU may not have loaded. */
static MM_NOINLINE struct pt_leaf visit(struct pt *pt, vaddr_t address)
{
    bool is_visit = tlb_begin_visit(&pt->tlb);
    struct pt_leaf leaf = descend(pt, address, pt_features.levels);

    tlb_end_visit(&pt->tlb, is_visit);
    return leaf;
}

/* pt_lookup() with tables of @levels levels. */
static inline struct pt_leaf look_up(struct pt *pt, vaddr_t address,
                                     unsigned levels)
{
    uint64_t half = UINT64_C(1) << (pte_shift(levels) - 1);

    if ((address + half) >> pte_shift(levels) != 0) { /* not canonical */
        return (struct pt_leaf){{0}, 0};
    }
    /* Every CPU is in the kernel's set. */
    return pt->is_kernel ? descend(pt, address, levels) : visit(pt, address);
}

struct pt_leaf pt_lookup(struct pt *pt, vaddr_t address)
{
    return pt_features.levels == 4 ? look_up(pt, address, 4)
                                   : look_up(pt, address, 5);
}

struct pt *pt_of(vaddr_t address)
{
    struct tlb_space *loaded = tlb_loaded();

    if (address >> 63 || loaded->is_kernel) {
        return &pt_kernel;
    }
    return (struct pt *)((char *)loaded - offsetof(struct pt, tlb));
}
