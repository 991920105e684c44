/* SPDX-License-Identifier: MIT */
/* The constants a host may choose at compile time, with their limits. */
#ifndef MM_CONFIG_H
#define MM_CONFIG_H

/* Poison, red zones, call sites and the checks that walk whole structures. */
#ifndef MM_DEBUG
#define MM_DEBUG 0
#endif

/* Build in the choke point at which tests make allocations fail. */
#ifndef MM_INJECT
#define MM_INJECT 0
#endif

/* log2 of the entries in one page table; proofs shrink it (hardware: 9). */
#ifndef MM_TABLE_BITS
#define MM_TABLE_BITS 9
#endif

/* Processors the data structures provide for (local APIC ids below 255). */
#ifndef MM_MAX_CPUS
#define MM_MAX_CPUS 255
#endif

/* Largest block frame_alloc() hands out: 2^10 frames, 4 MiB. */
#define MM_MAX_ORDER 10

#endif
