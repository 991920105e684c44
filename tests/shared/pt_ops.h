/* SPDX-License-Identifier: MIT */
/* pt ops: any bytes are operations on page tables, beside a naive model. */
#ifndef TESTS_SHARED_PT_OPS_H
#define TESTS_SHARED_PT_OPS_H

#include "tests/shared/pt_model.h"
#include "tests/shared/test.h"

/*
 * The same bytes do the same, whoever makes them: a generator with a seed, a
 * fuzzer, or a file of what once failed; on the host and in the kernel. Each
 * operation is eight bytes that depend on nothing before them, so that any of
 * them can be left out.
 */
#define PT_OP_BYTES 8

enum pt_op_what {
    PT_OP_MAP,      /* frames that are not owned, as those of a device */
    PT_OP_OWN,      /* new frames */
    PT_OP_PROMISE,  /* */
    PT_OP_PROTECT,  /* */
    PT_OP_UNMAP,    /* */
    PT_OP_MOVE,     /* */
    PT_OP_COPY,     /* into the other space, which begins anew if it must */
    PT_OP_AGE,      /* */
    PT_OP_COLLAPSE, /* or pt_protect_kernel() */
    PT_OP_SPLIT,    /* */
    PT_OP_MERGE,    /* */
    PT_OP_FAULT,    /* keep a promise, or copy what is copied on write */
    PT_OP_TOUCH,    /* read, write or execute all pages of a range */
    PT_OP_SWITCH,   /* load the space */
    PT_OP_WRONG,    /* arguments that must be refused */
    PT_OP_KINDS
};

/* An operation as bytes say it. */
struct pt_op {
    enum pt_op_what what;
    unsigned space;
    bool is_exact;    /* locks its range; else all there is */
    bool stays_open;  /* the next one may go on with the same cursor */
    unsigned shape;   /* of the range: enum in pt_ops.c */
    unsigned variant; /* 0..15 */
    unsigned first;   /* a cell, or near an edge */
    unsigned size;
    unsigned extra; /* rights, frames, payload; where to */
};

/* What one access sees, and what it writes. */
struct pt_sight {
    struct tlb_space *space; /* in: what is loaded here */
    bool has_memory;         /* in: the word there may be touched */
    uint64_t word;           /* out: read; in: to be written */
    pfn_t pfn; /* out: the frame it went to; PFN_NONE: not known */
};

/* Where the spaces are loaded: a simulated MMU, or a real one. */
struct pt_world {
    struct walk_rules rules;
    unsigned accesses; /* enum walk_access that it can make, or-ed */
    bool is_exact;     /* knows each verdict; else refusals are alike */
    bool is_alone;     /* nobody else changes the spaces */
    bool has_handler;  /* an access that faults is handled first */
    /* One access to @address in the space that is loaded. */
    enum walk_verdict (*access)(vaddr_t address, unsigned access,
                                struct pt_sight *sight);
    /* Have @address cached without an access; NULL: that cannot be done. */
    void (*guess)(vaddr_t address);
    /* No CPU has @space loaded any more; NULL: nothing to do but here. */
    void (*leave)(struct tlb_space *space);
    /* What is wrong beside, in words; NULL: nothing, or nobody knows. */
    const char *(*complaint)(void);
};

/* The kernel's tables are loaded, and neither space. */
#define PT_OPS_NONE PT_SPACES

struct pt_ops {
    const struct pt_world *world;
    struct pt *space[PT_SPACES];
    bool is_used[PT_SPACES]; /* loaded since it began */
    unsigned loaded;         /* a space, or PT_OPS_NONE */
    bool is_sharing;         /* it never ends space 0, which has others in it */
    bool is_kernel;          /* space 0 is the kernel's: all that is used */
    struct pt_model model;
    struct pt_every *every; /* NULL: a few pages are looked at each time */

    /* What is open now. */
    unsigned open; /* a space, or PT_OPS_NONE */
    bool is_all;
    unsigned held; /* operations under this cursor */
    struct tlb_batch batch;
    struct pt_cursor cursor;

    struct test_random random; /* which cells to look at */
    uint64_t next_word;
    uint64_t done[PT_OP_KINDS]; /* operations that took effect */
    uint64_t failures;          /* for lack of memory */
    bool may_fail;              /* some allocations are made to fail */
    bool is_unsure;             /* one has: compare everything */
    bool has_failed;
    char reason[200];
};

/*
 * Both spaces begin, at @space[0] and [1], and are loaded nowhere.
 * @memory: pt_model_bytes(layout) bytes that stay the interpreter's.
 * Return: false if there is no memory for tables.
 */
MM_MUST_CHECK bool pt_ops_init(struct pt_ops *ops, const struct pt_world *world,
                               const struct pt_layout *layout, struct pt *space,
                               void *memory);
/*
 * The same where others have @shared in use, too: it neither begins nor ends
 * here; the second space, at @own, does. If @shared is the kernel's, all
 * operations are on that; @own is loaded now and then, and stays empty.
 */
MM_MUST_CHECK bool pt_ops_join(struct pt_ops *ops, const struct pt_world *world,
                               const struct pt_layout *layout,
                               struct pt *shared, struct pt *own, void *memory);

/*
 * From here on look at every address after each operation; nobody else changes
 * the spaces. Right after pt_ops_init().
 * @memory: pt_every_bytes(layout) bytes that stay the interpreter's.
 */
void pt_ops_see_every(struct pt_ops *ops, void *memory);
size_t pt_every_bytes(const struct pt_layout *layout);

/*
 * Do the operation that these PT_OP_BYTES say, and look at a few pages.
 * Return: false if something is not as the model says: ops->reason tells.
 */
bool pt_ops_step(struct pt_ops *ops, const uint8_t *bytes);

/* Look at every page, every record and table. Return: as pt_ops_step(). */
bool pt_ops_compare(struct pt_ops *ops);

/* Everything unmapped, the spaces ended. Return: as pt_ops_step(). */
bool pt_ops_fini(struct pt_ops *ops);

/* All of @size bytes, with a comparison each so many and at the end. */
bool pt_ops_run(struct pt_ops *ops, const uint8_t *bytes, size_t size,
                size_t *out_done);

struct pt_op pt_op_decode(const uint8_t *bytes);
/* "move space 0, ..." for who reads it. */
void pt_op_describe(const struct pt_ops *ops, const uint8_t *bytes, char *out,
                    size_t size);

/* @size random bytes of operations. */
void pt_ops_generate(struct test_random *random, uint8_t *out, size_t size);

#endif
