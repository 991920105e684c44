/* SPDX-License-Identifier: MIT */
/* fixup: touch an address that may fault, and get an answer instead. */
#ifndef KERNEL_FIXUP_H
#define KERNEL_FIXUP_H

#include <mm/types.h>

struct trap_frame;

/* What a probe met. */
struct probe {
    uint64_t value;   /* read, when nothing faulted */
    uint64_t vector;  /* of the exception: TRAP_PAGE, TRAP_PROTECTION, ... */
    uint64_t error;   /* its error code */
    uint64_t address; /* CR2, when it was a page fault */
};

/*
 * One access each. False if it faulted (#PF that nobody could resolve, #GP,
 * #SS); @out then has vector, error code and address.
 * Context: any.
 */
MM_MUST_CHECK bool probe_read8(const void *address, struct probe *out);
MM_MUST_CHECK bool probe_read64(const void *address, struct probe *out);
MM_MUST_CHECK bool probe_write8(void *address, uint8_t value,
                                struct probe *out);
MM_MUST_CHECK bool probe_write64(void *address, uint64_t value,
                                 struct probe *out);
/* Call @address, as a function without arguments. */
MM_MUST_CHECK bool probe_exec(const void *address, struct probe *out);

/*
 * For trap.c: if the fault in @frame is one that a probe, or cpu_peek32(),
 * waits for, let @frame return to its way out.
 */
bool fixup_apply(struct trap_frame *frame);

#endif
