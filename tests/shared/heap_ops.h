/* SPDX-License-Identifier: MIT */
/* heap ops: any bytes are operations on the heap, beside a naive model. */
#ifndef TESTS_SHARED_HEAP_OPS_H
#define TESTS_SHARED_HEAP_OPS_H

#include <mm/slab.h>
#include "tests/shared/test.h"

/*
 * As pt_ops.h has it: the same bytes do the same on the host, in the kernel and
 * for a fuzzer, and any operation can be left out.
 */
#define HEAP_OP_BYTES   8
#define HEAP_OPS_SLOTS  128
#define HEAP_OPS_CACHES 4

enum heap_op_what {
    HEAP_OP_KMALLOC,
    HEAP_OP_KZALLOC,
    HEAP_OP_ARRAY,
    HEAP_OP_ALIGNED,
    HEAP_OP_REALLOC,
    HEAP_OP_OBJECT,  /* one of a cache, which is made if it must */
    HEAP_OP_OBJECTS, /* many of them */
    HEAP_OP_BULK,    /* many by one call, or none */
    HEAP_OP_FREE,
    HEAP_OP_FREE_ALL,  /* of a cache, which goes, or of a row of slots */
    HEAP_OP_FREE_BULK, /* a cache's in a row of slots, by one call */
    HEAP_OP_LOOK,      /* contents, size and place of a block */
    HEAP_OP_DRAIN,
    HEAP_OP_SHRINK,
    HEAP_OP_CPU,   /* the next ones run on another */
    HEAP_OP_WRONG, /* sizes that cannot be had */
    HEAP_OP_KINDS
};

/* A block in one's hands. */
struct heap_held {
    uint8_t *block; /* NULL: none */
    uint64_t bytes; /* asked for */
    uint8_t sign;   /* of its contents */
    unsigned cache; /* HEAP_OPS_CACHES: kmalloc's */
};

struct heap_ops_cache {
    struct slab_cache *cache; /* NULL: none */
    uint64_t bytes;
    uint64_t alignment;
    bool is_constructed;
    uint64_t live;
};

struct heap_ops {
    unsigned cpus; /* that this can be */
    void (*set_cpu)(unsigned cpu);
    struct heap_held held[HEAP_OPS_SLOTS];
    struct heap_ops_cache cache[HEAP_OPS_CACHES];
    uint64_t frames;              /* of the heap before it began */
    uint64_t done[HEAP_OP_KINDS]; /* operations that took effect */
    uint64_t failures;            /* for lack of memory */
    bool is_alone;                /* nobody else uses the heap */
    bool may_fail;                /* some allocations are made to fail */
    uint8_t next_sign;
    bool has_failed;
    char reason[200];
};

/*
 * @cpus, @set_cpu: CPUs that this can be in turn; 1 and NULL: it stays where it
 * is.
 */
void heap_ops_init(struct heap_ops *ops, unsigned cpus,
                   void (*set_cpu)(unsigned cpu));

/*
 * Do the operation that these HEAP_OP_BYTES say.
 * Return: false if something is not as the model says: ops->reason tells.
 */
bool heap_ops_step(struct heap_ops *ops, const uint8_t *bytes);

/* Look at every byte, every slab and every number. Return: the same. */
bool heap_ops_compare(struct heap_ops *ops);

/* Free all: no frame is missing. Return: the same. */
bool heap_ops_fini(struct heap_ops *ops);

/* All of @size bytes, with a comparison each @every operations. */
bool heap_ops_run(struct heap_ops *ops, const uint8_t *bytes, size_t size,
                  uint64_t every, size_t *out_done);

#endif
