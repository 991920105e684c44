/* SPDX-License-Identifier: MIT */
/* scratch: 2 MiB of kernel addresses whose entries a test may forge. */
#ifndef TESTS_KERNEL_SCRATCH_H
#define TESTS_KERNEL_SCRATCH_H

#include "x86_64/pte.h"

struct scratch {
    void *block;             /* lazy kmap block that lends the addresses */
    vaddr_t address;         /* 2 MiB-aligned, inside it */
    volatile pte_t *upper;   /* the entry of level 1 for all of it */
    pte_t saved[PTE_LEVELS]; /* entries of the levels above, as they were */
    pfn_t table;             /* for level 0; not hooked in yet */
    pfn_t large;             /* 2 MiB of RAM, filled with RET instructions */
};

/* False if memory is short. The levels above allow user access. */
MM_MUST_CHECK bool scratch_init(struct scratch *scratch);
/* Put everything back. */
void scratch_fini(struct scratch *scratch);

/* Set the entry of level 1, forgetting what the processor knows. */
void scratch_set_upper(struct scratch *scratch, pte_t entry);
/* The same for the first entry of the table. */
void scratch_set_lower(struct scratch *scratch, pte_t entry);

#endif
