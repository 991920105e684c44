/* SPDX-License-Identifier: MIT */
/* access: touch kernel memory that may fault, in both worlds. */
#ifndef TESTS_SHARED_ACCESS_H
#define TESTS_SHARED_ACCESS_H

#include <mm/types.h>

/*
 * The kernel uses its probes; on the host kernel addresses mean something to
 * the simulated MMU only, so that no pointer of kmap may be dereferenced.
 */

/* A machine with everything up: the host makes a new one, the kernel is one. */
void access_boot(void);

/* One byte. Return: false if the access ended in an error. */
MM_MUST_CHECK bool access_read(const void *address, uint8_t *out);
MM_MUST_CHECK bool access_write(void *address, uint8_t value);

#endif
