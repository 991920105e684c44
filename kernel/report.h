/* SPDX-License-Identifier: MIT */
/* report: an exception in words. */
#ifndef KERNEL_REPORT_H
#define KERNEL_REPORT_H

#include <mm/types.h>

struct trap_frame;

/*
 * What happened, where, why, what to try. Prints; returns.
 * Context: any stage of start-up; reads whatever may be damaged by probes.
 */
void report_exception(const struct trap_frame *frame);

#endif
