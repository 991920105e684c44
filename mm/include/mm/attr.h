/* SPDX-License-Identifier: MIT */
/* attr: what a mapping allows, in words no processor manual is needed for. */
#ifndef MM_ATTR_H
#define MM_ATTR_H

#include <mm/types.h>

/*
 * The order of the bits is that of an entry's: three shifts bring all of them
 * there (x86_64/pte.h).
 */
enum pt_flags {
    PT_READ = 0, /* every mapping can be read */
    PT_WRITE = 1 << 0,
    PT_USER = 1 << 1,
    PT_NONE = 1 << 2,       /* no access; a frame that is there is parked.
                               Never with PT_WRITE or PT_EXEC */
    PT_GLOBAL = 1 << 3,     /* same in every space: survives a CR3 load */
    PT_COW = 1 << 4,        /* write means copy first; never with PT_WRITE */
    PT_OWNED = 1 << 5,      /* the mapping holds a reference on each frame */
    PT_EXEC = 1 << 6,       /* never together with PT_WRITE */
    PT_FLAGS = (1 << 7) - 1 /* all of them; others are refused */
};

/* Memory types; the value is the index into the PAT (see PTE_PAT_LAYOUT). */
enum pt_memory {
    PT_WB = 0, /* write back: RAM */
    PT_WC = 1, /* write combining: framebuffers */
    PT_UC = 3, /* uncacheable: device registers */
    PT_WP = 5,
    PT_WT = 7
};

/* Passed by value; equal bytes mean equal rights. */
struct pt_attr {
    uint8_t flags;  /* enum pt_flags */
    uint8_t memory; /* enum pt_memory */
    uint8_t tag;    /* the owner's own 8 bits; survive in every state */
};

static inline struct pt_attr pt_attr(unsigned flags)
{
    return (struct pt_attr){(uint8_t)flags, PT_WB, 0};
}

static inline bool pt_attr_equal(struct pt_attr a, struct pt_attr b)
{
    return a.flags == b.flags && a.memory == b.memory && a.tag == b.tag;
}

/* What a non-present entry will become when it is touched. */
enum pt_promise {
    PT_ZERO,      /* a zeroed frame of its own */
    PT_OBJECT,    /* a page of an object; payload: the owner's number */
    PT_GUARD,     /* nothing, ever: a touch is an error with a name */
    PT_GUARD_GROW /* a guard that may move down: stack growth */
};

#endif
