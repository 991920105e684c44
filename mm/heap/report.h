/* SPDX-License-Identifier: MIT */
/* report: words for what is wrong with a pointer; private to the heap. */
#ifndef MM_HEAP_REPORT_H
#define MM_HEAP_REPORT_H

#include "heap/pool.h"

/* What somebody did with a pointer. */
enum report_deed {
    REPORT_FREE,
    REPORT_USE /* resized it, or asked for its size */
};

/* The deed in a word. */
const char *report_deed_name(enum report_deed deed);

/*
 * @object cannot go back to @expected (NULL: to kmalloc): find out why and
 * report it with all values. @site is who tried, or 0.
 */
void report_pointer(enum report_deed deed, const struct slab_pool *expected,
                    const void *object, uintptr_t site);
/* The same of a free. */
void report_free(const struct slab_pool *expected, const void *object,
                 uintptr_t site);

/* A line for the object before, and one for that behind. */
void report_neighbours(const struct slab *slab, unsigned index);

/* Who allocated and freed the object, 0 if that is not recorded. */
uintptr_t report_alloc_site(const struct slab *slab, unsigned index);
uintptr_t report_free_site(const struct slab *slab, unsigned index);

#endif
