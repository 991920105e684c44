/* SPDX-License-Identifier: MIT */
/* schedule_words: which words of memory several CPUs use. */
#ifndef TESTS_HOST_SCHEDULE_WORDS_H
#define TESTS_HOST_SCHEDULE_WORDS_H

#include "tests/host/schedule.h"

#define WORD_BYTES 8

/* None yet; nobody ever looks at the @bytes from @owned on. */
void words_forget(const void *owned, uint64_t bytes);
/* @cpu makes an access; can another CPU tell it? */
bool words_note(const struct schedule_access *access, unsigned cpu);
/* Has a word become shared since the last call? */
bool words_have_grown(void);

#endif
