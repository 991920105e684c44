/* SPDX-License-Identifier: MIT */
/* supply: what a fault is given: a zeroed page, a large one, its own copy. */
#ifndef MM_SPACE_SUPPLY_H
#define MM_SPACE_SUPPLY_H

#include <mm/fault.h>
#include <mm/pt.h>

/*
 * Keep the zero promise @step, which a walk to @address of @pt has found: by a
 * large page, if the promise is as large, the pages are user pages and a block
 * is to be had, else by one of 4 KiB.
 * Return: FAULT_RESOLVED; FAULT_SPURIOUS: another CPU was faster;
 * FAULT_NO_MEMORY.
 */
enum fault_result supply_page(struct pt *pt, vaddr_t address,
                              const struct walk_step *step);

/*
 * Let the page at @address, which is copied on write, be written to: as it is,
 * if nobody else holds it, else by a copy of 4 KiB.
 * Return: FAULT_UNSHARED; FAULT_SPURIOUS; FAULT_NO_MEMORY.
 */
enum fault_result supply_copy(struct pt *pt, vaddr_t address);

#endif
