/* SPDX-License-Identifier: MIT */
/* entry: changes a page-table entry behind the library's back. */
#ifndef KERNEL_ENTRY_H
#define KERNEL_ENTRY_H

#include "x86_64/pte.h"

/*
 * For the tour, `fault rsvd` and tests that must see what the processor does
 * with an entry. Everything else goes through the cursor of mm/pt.h.
 */

/*
 * The entry of @level on the way to @address in the kernel's tables.
 * Return: NULL if the walk ends above @level.
 */
volatile pte_t *entry_find(vaddr_t address, unsigned level);

/* Forget the translations of the page at @address, as tlb.h does it. */
void entry_invalidate(vaddr_t address);

#endif
