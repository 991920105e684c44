/* SPDX-License-Identifier: MIT */
/* schedule_undo: what instrumented code writes, written back. */
#ifndef TESTS_HOST_SCHEDULE_UNDO_H
#define TESTS_HOST_SCHEDULE_UNDO_H

/* Note what is in memory before it is written, from now on; again. */
void undo_begin(void);
/* Do not: what is written now remains. */
void undo_pause(void);
/* All memory as it was at the first undo_begin() since the last of these. */
void undo_all(void);

#endif
