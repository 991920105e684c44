/* SPDX-License-Identifier: MIT */
/* leaks: what the kernel's own roots are, and the scan in words. */
#ifndef KERNEL_LEAKS_H
#define KERNEL_LEAKS_H

#include <mm/leak.h>

#define LEAKS_GROUPS 32

struct leaks {
    struct leak_totals totals;
    unsigned count; /* of the groups */
    struct leak_group group[LEAKS_GROUPS];
};

/*
 * Stop the others, and scan from all variables, stacks and registers. What is
 * found stays until leaks_forget(): it is no root itself.
 * Return: NULL if another processor does not stand still, or for want of
 * memory. Context: as smp_freeze(), no lock held.
 */
const struct leaks *leaks_find(void);
void leaks_forget(void);

/* A line for each group. Return: how many objects are leaked. */
uint64_t leaks_print(const struct leaks *leaks);

#endif
