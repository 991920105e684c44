/* SPDX-License-Identifier: MIT */
/* slab_impl: what kmalloc needs of slab beyond its contract. */
#ifndef MM_HEAP_SLAB_IMPL_H
#define MM_HEAP_SLAB_IMPL_H

#include "heap/pool.h"
#include <mm/slab.h>

/* slab_create() with arguments that are known to be good. */
MM_MUST_CHECK struct slab_cache *slab_create_kind(enum pool_kind kind,
                                                  const char *name,
                                                  uint64_t bytes,
                                                  uint64_t alignment,
                                                  void (*constructor)(void *));

#endif
