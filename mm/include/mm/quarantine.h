/* SPDX-License-Identifier: MIT */
/* quarantine: freed objects wait before they are used again, debug builds. */
#ifndef MM_QUARANTINE_H
#define MM_QUARANTINE_H

#include <mm/types.h>

/*
 * From now on the latest @bytes that each CPU has freed wait, with the poison
 * in them, before anybody gets them: so a write after free is noticed however
 * fast the heap would have used them again. 0, as slab_init() sets it: none
 * waits. What waits goes back to its slabs by slab_drain(). Release builds:
 * does nothing.
 * Return: MM_OK; MM_ENOMEM: nothing has changed.
 * Context: after kmalloc_init(); not by two CPUs at once.
 */
MM_MUST_CHECK enum mm_status quarantine_set(uint64_t bytes);

#endif
