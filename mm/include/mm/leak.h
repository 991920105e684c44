/* SPDX-License-Identifier: MIT */
/* leak: live objects that nobody can reach any more. */
#ifndef MM_LEAK_H
#define MM_LEAK_H

#include <mm/types.h>

/* Leaked objects that are alike. */
struct leak_group {
    const char *cache; /* its name, or "large block" */
    uintptr_t site;    /* who allocated them; 0 if this build does not know */
    uint64_t bytes;    /* of each: asked for, where that is known */
    uint64_t count;
    const void *example;
};

struct leak_totals {
    uint64_t live; /* objects, guarded ones too, and large blocks */
    uint64_t leaked;
    uint64_t leaked_bytes;
    uint64_t ungrouped; /* leaked, and of a group there was no room for */
    uint64_t words;     /* read */
    uint64_t rescans;   /* times the list of what is to be read was too short */
};

/*
 * A scan is leak_begin(), leak_scan() of all roots, leak_end(): what no root
 * leads to, directly or through other live objects, is leaked. Any aligned
 * word counts as a pointer that is an address in a live object, at its start
 * or inside; so a number that looks like one can hide a leak.
 *
 * Roots that the library finds by itself: frames of type FRAME_KERNEL and the
 * names of caches. The host's are its variables, its stacks with what was in
 * the registers, and kernel memory behind tables (FRAME_KMAP).
 *
 * Not seen are pointers that are not stored as they are (shifted, inverted),
 * that are not aligned to 8 bytes, or that lead behind the end of their object
 * and to no byte of it.
 *
 * Context of all three: nobody else runs, and interrupts are off. Other CPUs
 * stand still where theirs were on: what they have in hand is a root by their
 * stacks and registers, and what is just made, drained or destroyed there is
 * passed by. What magazines and stores keep goes back to the slabs.
 *
 * leak_begin() returns MM_OK; MM_ENOMEM: no frames for marks; MM_ERANGE: more
 * than 131071 slabs. If it fails, there is no scan.
 */
MM_MUST_CHECK enum mm_status leak_begin(void);

/* Read [start, end), which must be mapped. */
void leak_scan(const void *start, const void *end);

/*
 * Follow what was found to its end.
 * @out: up to @max groups, in the order in which they were met
 * Return: how many were written.
 * Cost: O(bytes of live objects), times 1 + rescans.
 */
unsigned leak_end(struct leak_group *out, unsigned max,
                  struct leak_totals *totals);

#endif
