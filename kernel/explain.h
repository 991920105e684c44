/* SPDX-License-Identifier: MIT */
/* explain: words for addresses, entries and walks. */
#ifndef KERNEL_EXPLAIN_H
#define KERNEL_EXPLAIN_H

#include <mm/fault.h>
#include <mm/walk.h>

/* A line of words, by value: no storage to share. */
struct explain_text {
    char text[160];
};

/* Whose a frame is: table (order 0, 1 holder), or what the map says. */
struct explain_text explain_frame(pfn_t pfn);

/* "table rwx accessed" or "2 MiB rw- WB global accessed dirty" */
struct explain_text explain_entry(pte_t entry, unsigned level);

/* "WB" "WC" "UC" "WP" "WT": what a page of that index says. */
const char *explain_memory(unsigned memory);

/*
 * "WC: page WC, MTRRs UC": how the memory that @walk leads to is cached on
 * this processor. @walk: present
 */
struct explain_text explain_memory_type(const struct walk *walk);

/* "4 KiB" "2 MiB" "1 GiB" */
const char *explain_leaf_bytes(unsigned level);

/* "1.5 GiB", at most one decimal, rounded down. */
struct explain_text explain_bytes(uint64_t bytes);

/*
 * Walk the loaded tables by probes first, so that damaged ones cannot fault.
 * Return: false if they cannot be read, or before anything is known of them.
 */
MM_MUST_CHECK bool explain_walk(vaddr_t address, struct walk *out);

#define EXPLAIN_NO_BLAME PTE_LEVELS

/*
 * One line a level, @title before the first and as many blanks before the
 * others. @blame: the step to mark, or EXPLAIN_NO_BLAME.
 */
void explain_print_walk(const struct walk *walk, unsigned blame,
                        const char *title);

/*
 * Lines about what all levels make together: rights, memory type, where the
 * address goes and whose the frame is. @walk: present
 */
void explain_print_effect(const struct walk *walk);

/* What this processor checks now; the kernel runs with EFLAGS.AC clear. */
struct walk_rules explain_rules(void);

/* The error code of the #PF that @verdict on @access raises. */
uint32_t explain_error_code(enum walk_verdict verdict, unsigned access,
                            const struct walk_rules *rules);

/*
 * What fault_handle() would say of the access, without doing anything.
 * @code: the processor's error code; enum walk_access is a part of it.
 * @out_blame: the step to blame.
 */
enum fault_result explain_fault(const struct walk *walk, uint32_t code,
                                const struct walk_rules *rules,
                                unsigned *out_blame);

#endif
