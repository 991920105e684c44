/* SPDX-License-Identifier: MIT */
/* frame short: marks and the hook of the allocator, and what they allow. */
#ifndef TESTS_FUZZ_FRAME_SHORT_H
#define TESTS_FUZZ_FRAME_SHORT_H

#include <mm/frame.h>
#include "tests/fuzz/fuzz.h"

/* No marks, no hook: for a machine that starts. */
void short_forget(void);

/* Flags of an allocation that begins: the hook is asked only if they say so. */
unsigned short_take_flags(struct fuzz_input *input);

/* May @frames not be handed out, since too little would be left? */
bool short_is_barred(uint64_t frames, unsigned flags);

/* An allocation has found nothing: it must have been so. */
void short_check_refusal(unsigned order, unsigned flags);

/* It has found something, and has not asked without end. */
void short_check_calls(void);

/* Other marks, or none; another hook, or none. */
void short_call_marks(struct fuzz_input *input);
void short_call_hook(struct fuzz_input *input);

#endif
