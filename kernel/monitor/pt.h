/* SPDX-License-Identifier: MIT */
/* pt: a range of the tables, as the monitor's commands show it. */
#ifndef KERNEL_MONITOR_PT_H
#define KERNEL_MONITOR_PT_H

#include <mm/audit.h>
#include <mm/pt.h>
#include "kernel/explain.h"

/* "rw-sg WB  2M": rights, user or supervisor, global, memory type, size. */
struct explain_text pt_run_text(const struct audit_run *run);

/* End of the lower half. */
vaddr_t pt_half_end(void);

/* The space that is loaded here; NULL after a sentence: there is none. */
struct arguments;
const struct pt *pt_loaded_space(const struct arguments *arguments);

/* A line of pt. */
void pt_print_run(const struct audit_run *run);

/* The members of a line of pt -j, for the object that was begun. */
void pt_json_run(const struct audit_run *run);

#endif
