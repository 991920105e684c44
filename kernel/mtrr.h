/* SPDX-License-Identifier: MIT */
/* mtrr: how memory is cached, by its address and by its page. Pure. */
#ifndef KERNEL_MTRR_H
#define KERNEL_MTRR_H

#include <mm/types.h>

/* As MTRRs and the PAT encode them. [SDM-3A 12.12.2 "IA32_PAT MSR"] */
enum memory_type {
    MEMORY_UC = 0,
    MEMORY_WC = 1,
    MEMORY_WT = 4,
    MEMORY_WP = 5,
    MEMORY_WB = 6,
    MEMORY_UC_MINUS = 7,  /* PAT only: UC, unless the MTRRs say WC */
    MEMORY_UNDEFINED = 8, /* ranges that the manual does not let overlap */
    MEMORY_MIXED = 9      /* not the same everywhere in a page */
};

/* Ranges that are read; processors have 8 to 10. */
#define MTRR_VARIABLE_MAX 32
#define MTRR_FIXED        11 /* registers of 8 ranges each, below 1 MiB */

struct mtrr_range {
    uint64_t base;
    uint64_t mask;
};

/* The registers as they are. */
struct mtrr {
    uint64_t capabilities;
    uint64_t default_type;
    uint64_t fixed[MTRR_FIXED];
    struct mtrr_range variable[MTRR_VARIABLE_MAX];
    unsigned variable_count;
    uint64_t write_back_end; /* AMD: WB by default from 4 GiB up to here */
};

/* The processor, or a test's table. */
typedef uint64_t (*mtrr_read_fn)(uint32_t msr);

/*
 * Read the registers of this processor, which has MTRRs.
 * @is_amd: it has SYSCFG, too: AMD and Hygon, from family 0xf on.
 */
void mtrr_read(mtrr_read_fn read, bool is_amd, struct mtrr *out);

/*
 * The type of the @bytes at @physical: MEMORY_MIXED if it is not the same for
 * all of them.
 * @bytes: a power of two, at least a page; @physical is aligned to it
 * Cost: a look for each part of the block that its ranges tell apart; for each
 *       page, if it begins below 1 MiB.
 * Source: [SDM-3A 12.11.4.1 "MTRR Precedences"],
 *         [APM-2 3.2.1 "System Configuration Register (SYSCFG)"]
 */
enum memory_type mtrr_type(const struct mtrr *mtrr, paddr_t physical,
                           uint64_t bytes);

/* What the register @pat says for the index of a page. */
enum memory_type memory_type_of_pat(uint64_t pat, unsigned index);

/*
 * How the processor treats what its address and its page say.
 * Return: as @mtrr where that is undefined or mixed.
 * Source: [SDM-3A 12.5.2.2 "Selecting Memory Types for Pentium III and More
 *         Recent Processor Families"]
 */
enum memory_type memory_type_combine(enum memory_type mtrr,
                                     enum memory_type page);

/* "WB" "UC-" "undefined" */
const char *memory_type_name(enum memory_type type);

#endif
