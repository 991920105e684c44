/* SPDX-License-Identifier: MIT */
/* native: what the workloads ask of an allocator, and what they share. */
#ifndef BENCH_NATIVE_H
#define BENCH_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NATIVE_NONE    UINTPTR_MAX /* no block */
#define NATIVE_THREADS 2           /* the most that a row uses */

/*
 * The allocator under test: one in each program. All calls of a workload go
 * through these pointers, so that a call costs every allocator the same.
 */
struct native_allocator {
    /* Before anything else; @ram_bytes may be allocated as frames. */
    void (*start)(uint64_t ram_bytes, unsigned threads);
    /* This thread is number @thread from now on; before it allocates. */
    void (*enter)(unsigned thread);
    /* After the last call. Return: is the allocator sound? */
    bool (*check)(void);

    void *(*alloc)(size_t bytes); /* NULL: there is no heap */
    void (*free)(void *object);
    void (*trim)(void);           /* give back what can be; NULL: cannot say */
    uint64_t (*held_bytes)(void); /* now in the hands of the heap */

    /* Blocks of 2^order times 4 KiB, aligned to that; or NATIVE_NONE. */
    uintptr_t (*frame_alloc)(unsigned order);
    void (*frame_free)(uintptr_t block, unsigned order);
    void (*frame_drain)(void);        /* NULL: it keeps none by itself */
    uint64_t (*frames_managed)(void); /* NULL: as many as one asks for */
    uint64_t (*metadata_bytes)(void); /* set aside at start; or NULL */
    void (*start_frames)(void);       /* the frames' start again; or NULL */
};
extern struct native_allocator native;

/* A thread at work. */
struct native_worker {
    unsigned thread;
    uint64_t random;  /* state; never 0 */
    uint64_t count;   /* blocks of a batch, or slots */
    size_t bytes;     /* of an object */
    unsigned order;   /* of a block of frames */
    uint32_t *turn;   /* a random order of the batch */
    void **object;    /* count of them */
    uintptr_t *block; /* count of them */
    uint64_t result;  /* picoseconds of the chunk */
};

/* A workload. run() makes at least @pairs allocations and releases. */
struct native_work {
    void (*set_up)(struct native_worker *worker);
    uint64_t (*run)(struct native_worker *worker, uint64_t pairs); /* made */
    unsigned threads;
    unsigned order;
    size_t bytes;
    uint64_t count; /* of a batch; 0: what the workload makes of the RAM */
};

/* A line of the table, or several that are measured together. */
struct native_row {
    const char *name;
    const char *group; /* "heap" or "frames" */
    const struct native_work *work;
    void (*measure)(void); /* if it is no work: prints by native_print() */
};

/* NULL-terminated names; the rows of each part. */
extern const struct native_row native_heap_rows[];
extern const struct native_row native_frame_rows[];

extern uint64_t native_ram_bytes;

/* The rows that are no work; native_row.measure() of theirs. */
void native_trace(void);
void native_sparse(void);
void native_metadata(void);
void native_start_up(void);

/* Print a figure of row @name in @unit. */
void native_print(const char *name, const char *unit, double value);
/* Say why, and end the program: a figure would be wrong. */
_Noreturn void native_fail(const char *why);

/* The numbers behind all rows, in a sentence. */
void native_about(void);

/* Where random numbers of a workload begin; the same for every allocator. */
#define NATIVE_SEED UINT64_C(0x9e3779b97f4a7c15)

/* Nanoseconds a pair takes in the median chunk of @work. */
double native_measure(const struct native_work *work);

/* xorshift64 [Marsaglia03]: a few instructions, the same for everybody. */
static inline uint64_t native_random(struct native_worker *worker)
{
    uint64_t x = worker->random;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    worker->random = x;
    return x;
}

/* The upper half of @random as a number below @limit < 2^32. */
static inline uint64_t native_below(uint64_t random, uint64_t limit)
{
    return ((random >> 32) * limit) >> 32;
}

/* The lower half of @random as a number from @least to @most. */
static inline size_t native_between(uint64_t random, size_t least, size_t most)
{
    return least + (size_t)(((random & UINT32_MAX) * (most - least + 1)) >> 32);
}

/* An object, its first word written. */
static inline void *native_object(size_t bytes)
{
    uint64_t *object = native.alloc(bytes);

    if (object == NULL) {
        native_fail("out of memory");
    }
    *(volatile uint64_t *)object = bytes;
    return object;
}

/* A block of frames; it is not touched. */
static inline uintptr_t native_block(unsigned order)
{
    uintptr_t block = native.frame_alloc(order);

    if (block == NATIVE_NONE) {
        native_fail("out of frames");
    }
    return block;
}

/* Memory for the workload itself, written once; never freed. */
void *native_own(size_t bytes);
/* worker->turn: the numbers 0 .. count-1 in random order. */
void native_shuffle(struct native_worker *worker);

#endif
