/* SPDX-License-Identifier: MIT */
/* frame_model: which frames are free, in the simplest way: a byte a frame. */
#ifndef TESTS_HOST_FRAME_MODEL_H
#define TESTS_HOST_FRAME_MODEL_H

#include <mm/frame.h>

enum model_state {
    MODEL_FOREIGN, /* no RAM, or not the allocator's */
    MODEL_FREE,
    MODEL_USED,
    MODEL_METADATA,
    MODEL_OFFLINE
};

/* Frames as the machine has them that has just started, and their number. */
void model_init(uint64_t frames);

enum model_state model_look(uint64_t frame);
uint64_t model_count(enum model_state state);
/* Are all frames of [start, end) in @state? */
bool model_is_all(uint64_t start, uint64_t end, enum model_state state);
/* The first that is not, or @end. */
uint64_t model_first_not(uint64_t start, uint64_t end, enum model_state state);

/* All of [start, end) changes; false, unchanged, if one is not @from. */
bool model_change(uint64_t start, uint64_t end, enum model_state from,
                  enum model_state to);

/* End of the memory that @flags allow, in frames. */
uint64_t model_limit(unsigned flags);
/* Is there such a run of free frames inside one zone that @flags allow? */
bool model_has_run(uint64_t frames, uint64_t alignment, unsigned flags);

/*
 * Ask frame_state() of each @stride-th frame from @first on. What holds
 * metadata now is noted so. Return: the first frame that is not as it should
 * be, or PFN_NONE.
 */
pfn_t model_compare(uint64_t first, uint64_t stride);

#endif
