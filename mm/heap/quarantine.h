/* SPDX-License-Identifier: MIT */
/* quarantine: what waits to be free, debug builds; private to the heap. */
#ifndef MM_HEAP_QUARANTINE_H
#define MM_HEAP_QUARANTINE_H

#include <mm/quarantine.h>
#include "heap/pool.h"

/* Nothing waits, and nothing will. */
void quarantine_init(void);

/*
 * Let the freed @object wait; what need not wait any longer becomes free.
 * Return: false, and nothing was done: nothing is to wait.
 */
MM_MUST_CHECK bool quarantine_enter(void *object);

/* Objects of @pool that wait go to its slabs. */
void quarantine_drain(struct slab_pool *pool);

/* How many objects of @pool wait. */
unsigned quarantine_count(const struct slab_pool *pool);

#endif
