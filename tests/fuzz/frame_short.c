/* SPDX-License-Identifier: MIT */
/* frame short: marks and the hook of the allocator, and what they allow. */
#include "tests/fuzz/frame_short.h"

#include "tests/fuzz/frame_model.h"

#define FLAGS         32   /* all sets of enum frame_flags */
#define MARK_DISTANCE 1200 /* frames */
#define MAX_RECLAIM   20   /* blocks, in one call of the hook */
/* Calls of the hook in one allocation, as the allocator has it. */
#define RECLAIM_TRIES 8

static struct frame_watermarks marks;

/* The hook: what it does, and what it must not see. */
static struct {
    unsigned blocks; /* it frees so many each time, if there are */
    bool lies;       /* it says that it freed something when it did not */
    bool may_be_asked;
    bool is_inside;
    unsigned calls;
} hook;

static uint64_t reclaim(uint64_t frames)
{
    uint64_t freed = 0;

    FUZZ_CHECK(hook.may_be_asked && !hook.is_inside && frames > 0);
    hook.is_inside = true;
    for (unsigned i = 0; i < hook.blocks && model.blocks > 0; i++) {
        struct block *last = &model.block[model.blocks - 1];
        if (last->refs != 1) {
            break;
        }
        freed += UINT64_C(1) << last->order;
        frame_free(last->pfn, last->order);
        model_forget(model.blocks - 1);
    }
    hook.is_inside = false;
    hook.calls++;
    return freed == 0 && hook.lies ? 1 : freed;
}

static void wake(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    FUZZ_CHECK(stats.free - stats.cached < marks.low);
}

static const struct frame_reclaim hooks = {reclaim, wake};

unsigned short_take_flags(struct fuzz_input *input)
{
    unsigned flags = fuzz_choose(input, FLAGS);

    hook.may_be_asked = (flags & FRAME_MAY_RECLAIM) != 0;
    hook.calls = 0;
    return flags;
}

bool short_is_barred(uint64_t frames, unsigned flags)
{
    return marks.high != 0 && (flags & FRAME_RESERVE) == 0 &&
           model.free < marks.min + frames;
}

void short_check_refusal(unsigned order, unsigned flags)
{
    FUZZ_CHECK(short_is_barred(UINT64_C(1) << order, flags) ||
               !model_has_block(order, flags));
}

void short_call_marks(struct fuzz_input *input)
{
    struct frame_watermarks wanted;

    /* Just below what is free, that they are hit. */
    wanted.min = fuzz_take(input, 2) % MARK_DISTANCE;
    wanted.min = model.free > wanted.min ? model.free - wanted.min : 0;
    wanted.low = wanted.min + fuzz_take(input, 1) * 4;
    wanted.high = wanted.low + fuzz_take(input, 1) * 4;
    if (fuzz_choose(input, 3) == 0) {
        wanted = (struct frame_watermarks){0};
    }
    enum mm_status status = frame_set_watermarks(&wanted);
    FUZZ_EQUAL(status, wanted.high <= model.managed ? MM_OK : MM_EINVAL);
    marks = status == MM_OK ? wanted : marks;
}

void short_call_hook(struct fuzz_input *input)
{
    hook.blocks = fuzz_choose(input, MAX_RECLAIM);
    hook.lies = fuzz_choose(input, 4) == 0;
    frame_set_reclaim(fuzz_choose(input, 4) == 0 ? NULL : &hooks);
}

void short_forget(void)
{
    memset(&marks, 0, sizeof(marks));
    memset(&hook, 0, sizeof(hook));
}

void short_check_calls(void)
{
    FUZZ_CHECK(hook.calls <= RECLAIM_TRIES);
}
