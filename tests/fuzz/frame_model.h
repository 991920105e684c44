/* SPDX-License-Identifier: MIT */
/* frame model: what the frame allocator must have, kept naively. */
#ifndef TESTS_FUZZ_FRAME_MODEL_H
#define TESTS_FUZZ_FRAME_MODEL_H

#include <mm/frame.h>

/* There are frames in [0, END_LOW) and HIGH_FRAMES from FIRST_HIGH on. */
#define END_LOW     UINT64_C(0x1a00)   /* 26 MiB */
#define DMA_END     UINT64_C(0x1000)   /* 16 MiB */
#define FIRST_HIGH  UINT64_C(0x100000) /* 4 GiB */
#define HIGH_FRAMES UINT64_C(0x980)
#define FRAMES      (END_LOW + HIGH_FRAMES)

#define MAX_BLOCKS 8192

/* Whose a frame is. */
enum use {
    USE_NONE, /* not the allocator's, and never to be */
    USE_KEPT, /* it could be added */
    USE_FREE,
    USE_TAKEN,
    USE_METADATA
};

struct block {
    pfn_t pfn;
    unsigned order;
    enum frame_type type;
    unsigned refs;
};

extern struct frame_model {
    uint64_t free;
    uint64_t managed;
    uint64_t metadata;
    struct block block[MAX_BLOCKS]; /* what is handed out, in no order */
    size_t blocks;
} model;

/* No frame is anybody's. */
void model_reset(void);

bool model_is_known(uint64_t frame);

/* All of @frames frames from @first on have @what. */
bool model_is_all(uint64_t first, uint64_t frames, enum use what);

/* Does any of [@first, @end) have one of @from to @to? */
bool model_has(uint64_t first, uint64_t end, enum use from, enum use to);

/* They must have @from, and now have @what. */
void model_set(uint64_t first, uint64_t frames, enum use from, enum use what);

/* Where frames for enum frame_flags @flags end. */
uint64_t model_end_of(unsigned flags);

/* Is there such a free block, whose records need no memory? */
bool model_has_block(unsigned order, unsigned flags);

/* Index of the block that begins at @frame, or model.blocks. */
size_t model_find(uint64_t frame);

/* A block has been handed out: look at its record, and keep it. */
void model_note(pfn_t pfn, unsigned order, enum frame_type type);

/* It has been given back. */
void model_forget(size_t index);

/* The allocator's figures are those here. */
void model_compare_counts(void);

/* So are its free blocks, if it keeps nothing back. */
void model_compare_blocks(void);

#endif
