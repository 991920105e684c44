/* SPDX-License-Identifier: MIT */
/* trampoline: start-up code of CPUs, put where they begin. */
#ifndef KERNEL_TRAMPOLINE_H
#define KERNEL_TRAMPOLINE_H

#include "x86_64/pte.h"

/* The page of code, and the tables it runs on. */
struct trampoline {
    paddr_t page;            /* below 1 MiB */
    pfn_t table[PTE_LEVELS]; /* the root first */
    unsigned tables;
};

/*
 * Let a processor that starts in real mode at out->page go on at @entry, in
 * 64-bit mode, with this processor's CR0, EFER and levels of tables; their
 * upper half is the kernel's. RSP and GS are not set.
 * Return: MM_OK; MM_ENOENT: the firmware leaves no page free below 640 KiB;
 *         MM_ENOMEM. On failure nothing is left behind.
 */
MM_MUST_CHECK enum mm_status trampoline_make(struct trampoline *out,
                                             void (*entry)(void));

/* Give back the tables. Nobody may come any more. */
void trampoline_free(struct trampoline *trampoline);

#endif
