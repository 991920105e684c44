/* SPDX-License-Identifier: MIT */
/* walk: one address through the tables, step by step, as the CPU goes. */
#ifndef MM_WALK_H
#define MM_WALK_H

#include <mm/types.h>
#include "x86_64/pte.h"

/* What the processor can do; filled in once by the host from CPUID. */
struct pt_features {
    unsigned levels;        /* 4 or 5 */
    unsigned physical_bits; /* MAXPHYADDR, 32 .. 52 */
    bool has_nx;            /* EFER.NXE is on; else every page can execute */
    bool has_1g;            /* leaves at level 2 */
    bool has_global;        /* CR4.PGE is on */
};

/* (C) after pt_setup(). */
extern struct pt_features pt_features;

/* Tell the library what the CPU can do, before any walk; after pt_quirks. */
void pt_setup(const struct pt_features *features);

/*
 * Errata. The first two are met when a page changes its size while both sizes
 * may be cached: map/size.c says what is done about them.
 */
enum pt_quirk {
    PT_QUIRK_MULTIMATCH = 1 << 0, /* a machine check (AMD family 10h: 383) */
    PT_QUIRK_MULTIHIT = 1 << 1,   /* the same, of code (CVE-2018-12207) */
    PT_QUIRK_L1TF = 1 << 2        /* speculates past P=0 (CVE-2018-3620) */
};

extern unsigned pt_quirks; /* (C) enum pt_quirk; the host sets it, or none */

/*
 * (C) Frames and payloads from here on are in no entry that is not present: the
 * inverse would name RAM. Half of what the cache looks at, which is MAXPHYADDR
 * or more, where the CPU has L1TF [Foreshadow18]; else PTE_PAYLOAD_END.
 */
extern uint64_t pt_payload_end;

/*
 * May pages with these flags (PT_USER, PT_EXEC) be made large in use? Without
 * NX all of them can be executed.
 */
bool pt_may_resize(unsigned flags);

/* Does @address have the bits above the top level equal to its sign? */
static inline bool pt_is_canonical(vaddr_t address)
{
    /* From the highest translated bit up, all bits are that bit. */
    int64_t sign = (int64_t)address >> (pte_shift(pt_features.levels) - 1);

    return sign == 0 || sign == -1;
}

/* Largest level a leaf may have on this CPU: 1 or 2. */
unsigned pt_max_leaf(void);

/* What was tried, or-ed; the bits of the #PF error code that ask for it. */
enum walk_access {
    WALK_READ = 0,
    WALK_WRITE = 1 << 1,
    WALK_USER = 1 << 2,
    WALK_EXEC = 1 << 4
};

/* Why an access fails. */
enum walk_verdict {
    WALK_ALLOWED,
    WALK_NON_CANONICAL, /* the CPU raises #GP (#SS for stack), not #PF */
    WALK_NOT_PRESENT,
    WALK_RESERVED_BIT, /* a bit that must be zero is set */
    WALK_READ_ONLY,
    WALK_NO_EXECUTE,
    WALK_SUPERVISOR, /* user access to a kernel page */
    WALK_USER_EXEC,  /* SMEP: the kernel executes a user page */
    WALK_USER_ACCESS /* SMAP: the kernel touches a user page */
};

struct walk_step {
    unsigned level;
    paddr_t table; /* physical address of the table */
    unsigned index;
    pte_t entry;
};

struct walk {
    vaddr_t address;
    unsigned count;                    /* steps taken, 0 if non-canonical */
    struct walk_step step[PTE_LEVELS]; /* from the top level down */
    enum pte_state state;              /* of the last entry */
    bool is_writable;                  /* rights of all levels together */
    bool is_executable;
    bool is_user;
    paddr_t physical; /* PRESENT: where @address goes */
};

/* How the processor checks; which of these are on. */
struct walk_rules {
    bool write_protect; /* CR0.WP */
    bool nx;            /* EFER.NXE */
    bool smep;
    bool smap; /* CR4.SMAP and EFLAGS.AC clear */
};

/*
 * Read the entries on the way to @address from the tables under @root.
 * Reads memory only; tables with a frame beyond MAXPHYADDR end the walk.
 */
void walk_address(pfn_t root, vaddr_t address, struct walk *out);

/*
 * Would @access succeed, and if not, at which step does it fail?
 * @out_step: index into walk->step of the entry to blame; may be NULL.
 * Order of checks: canonical, present and reserved bits from the top, rights.
 * Source: [SDM-3A 4.6 "Access Rights", 4.7 "Page-Fault Exceptions"]
 */
enum walk_verdict walk_judge(const struct walk *walk, unsigned access,
                             const struct walk_rules *rules,
                             unsigned *out_step);

/* Bits of @entry that must be zero at @level on this CPU but are not. */
uint64_t walk_reserved_bits(pte_t entry, unsigned level);

/* "page is read-only", for a sentence. */
const char *walk_verdict_text(enum walk_verdict verdict);
/* "PT" "PD" "PDPT" "PML4" "PML5" */
const char *walk_level_name(unsigned level);

#endif
