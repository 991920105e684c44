/* SPDX-License-Identifier: MIT */
/* fixup: finds the way out of an access that was allowed to fault. */
#include "kernel/fixup.h"

#include "kernel/image.h"
#include "kernel/trap.h"

struct fixup {
    uint64_t access;
    uint64_t resume;
    uint64_t tells; /* 1: registers say what happened; 0: they stay */
};

/* The section fixup_table, bounded by linker.ld. A handful: no sorting. */
extern const struct fixup __start_fixup_table[];
extern const struct fixup __stop_fixup_table[];

static const struct fixup *find(uint64_t access)
{
    for (const struct fixup *fixup = __start_fixup_table;
         fixup < __stop_fixup_table; fixup++) {
        if (fixup->access == access) {
            return fixup;
        }
    }
    return NULL;
}

/*
 * Was it the fetch of the first instruction after a CALL? Then the stack has
 * only grown by the return address, and the CPU has put the frame right below
 * it, aligned to 16 bytes: reading there is safe.
 */
static bool is_fetch_of_target(const struct trap_frame *frame)
{
    uint64_t frame_end = (uint64_t)(uintptr_t)(frame + 1);

    return !image_has_code(frame->rip) && frame->rsp >= frame_end &&
           frame->rsp - frame_end < 16;
}

static void resume(struct trap_frame *frame, const struct fixup *fixup)
{
    frame->rip = fixup->resume;
    if (fixup->tells == 0) {
        return;
    }
    frame->rax = frame->vector;
    frame->rdx = frame->error;
    frame->rcx = frame->cr2;
}

bool fixup_apply(struct trap_frame *frame)
{
    const struct fixup *fixup = find(frame->rip);

    if (frame->vector != TRAP_PAGE && frame->vector != TRAP_PROTECTION &&
        frame->vector != TRAP_STACK) {
        return false;
    }
    if (fixup == NULL && is_fetch_of_target(frame)) {
        fixup = find(*(const uint64_t *)(uintptr_t)frame->rsp);
        frame->rsp += fixup != NULL ? 8 : 0; /* as if the CALL returned */
    }
    if (fixup == NULL) {
        return false;
    }
    resume(frame, fixup);
    return true;
}
