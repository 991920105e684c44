/* SPDX-License-Identifier: MIT */
/* tlb_option: which parts of the TLB's design the command line leaves in. */
#ifndef KERNEL_TLB_OPTION_H
#define KERNEL_TLB_OPTION_H

#include <mm/types.h>

/*
 * enum tlb_parts for mm_config: what the processor has, without what
 * tlb=nopcid,noinvpcid,nolazy,noranges takes away. Words that are none of
 * these are named in a warning.
 * Context: after cpu_protect() and cmdline_init().
 */
unsigned tlb_option_parts(void);

#endif
