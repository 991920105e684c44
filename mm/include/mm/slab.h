/* SPDX-License-Identifier: MIT */
/* slab: caches of equal objects. Never reads or writes a free object. */
#ifndef MM_SLAB_H
#define MM_SLAB_H

#include <mm/types.h>

struct slab_cache;

struct slab_stats {
    const char *name;
    uint64_t object_bytes; /* asked for */
    uint64_t stride_bytes; /* taken, with alignment and red zones */
    uint64_t slab_objects; /* objects in a slab */
    uint64_t slab_frames;  /* frames in a slab, a power of two */
    uint64_t slabs;
    uint64_t live;   /* objects in callers' hands */
    uint64_t cached; /* free objects in magazines and central store */
    uint64_t allocs;
    uint64_t frees;
    uint64_t failures;
    uint64_t exchanges; /* of magazines with the store */
};

/* Where an address lies in the heap; for `slab contains` and reports. */
struct slab_place {
    const struct slab_cache *cache;
    const char *cache_name;
    vaddr_t slab_start;
    vaddr_t object; /* first byte of the object around the address */
    uint64_t object_bytes;
    unsigned index;       /* which object of the slab */
    bool is_live;         /* in a caller's hands */
    uintptr_t alloc_site; /* debug builds: who allocated and freed it, or 0 */
    uintptr_t free_site;
};

/*
 * Note of each object whether it is in a caller's hands: a second free is then
 * reported at once in release builds, too. Every allocation and free takes its
 * slow way for that. For all caches, before slab_init().
 */
void slab_note_states(void);

/* Before everything else in the heap; after frame_init(). */
MM_MUST_CHECK enum mm_status slab_init(void);

/*
 * Make a cache of objects of @bytes (1 .. 8192), each aligned to @alignment
 * (a power of two up to 4096; 0 = 16 or the object's own power of two).
 * @constructor is run once on each object when its slab is made, not at each
 * allocation: callers free objects in the constructed state. May be NULL. Of
 * those that are guarded (mm/guard.h) it makes a new one each time.
 * @name is kept by pointer.
 * Return: NULL if the arguments are out of range or memory is short.
 */
MM_MUST_CHECK struct slab_cache *slab_create(const char *name, uint64_t bytes,
                                             uint64_t alignment,
                                             void (*constructor)(void *));

/*
 * Take down an empty cache. With live objects: a bug report with their number
 * and one of them, and MM_EBUSY; the cache stays.
 * Context: ordinary code; nobody else uses the cache meanwhile.
 */
MM_MUST_CHECK enum mm_status slab_destroy(struct slab_cache *cache);

/*
 * Return: an object, NULL if out of memory.
 * Context: any, also interrupts. Never faults. Enters page tables, for one
 *          entry, if the object is to be guarded (mm/guard.h).
 * Cost: a decrement and a load; every half a magazine's worth a copy of so many
 * pointers, every magazine's worth an exchange.
 */
MM_MUST_CHECK void *slab_alloc(struct slab_cache *cache);

/*
 * Foreign and interior pointers and a pointer of another cache are bug reports
 * that change nothing. So is a second free: in debug builds and after
 * slab_note_states() at once, else when the object returns from the magazines
 * to its slab; until then it may be handed out twice. NULL is allowed.
 */
void slab_free(struct slab_cache *cache, void *object);

/*
 * For hosts with MM_PORT_RESTARTS: an interrupt has come before the instruction
 * at @ip was executed. Return: where to go on instead; mostly @ip.
 * Context: interrupts off.
 */
vaddr_t slab_restart(vaddr_t ip);

/*
 * For the same hosts: what lies at GS:16 of processor @cpu, SLAB_CPU_BYTES at
 * @area, is the heap's from now on, for ever.
 * Context: once a processor, before it uses the heap: magazines that it had
 * would be lost. slab_init() may come before or after.
 */
#define SLAB_CPU_BYTES 456
void slab_cpu_init(unsigned cpu, void *area);

/*
 * @count objects at once, with interrupts off all the time.
 * Return: false: memory is short, and there are none.
 */
MM_MUST_CHECK bool slab_alloc_bulk(struct slab_cache *cache, unsigned count,
                                   void **out_objects);
/* slab_free() of each. */
void slab_free_bulk(struct slab_cache *cache, void *const *objects,
                    unsigned count);

/*
 * Give what this CPU's magazines and the central stores hold back to the
 * slabs, and empty slabs to the frames.
 * Context: also interrupts; no lock of the heap held.
 */
void slab_drain(void);

/* Exact while others rest; else about right, and nothing below 0. */
void slab_stats(const struct slab_cache *cache, struct slab_stats *out);
/*
 * Walk all caches: start with NULL; returns NULL after the last.
 * Context: no cache is destroyed meanwhile.
 */
const struct slab_cache *slab_next(const struct slab_cache *cache);
/* Is @address in a slab, and where? */
bool slab_find(const void *address, struct slab_place *out);

/*
 * Bitmaps, counts and lists agree in every slab; debug: poison intact.
 * Context: while others rest.
 */
bool slab_check(void);

#endif
