/* SPDX-License-Identifier: MIT */
/* trace: how much memory a heap holds, for what is alive in it. */
/*
 * Idea   Phases, each with its own sizes. In each the live objects grow to
 *        TOP_BYTES and shrink at random to BOTTOM_BYTES: what is left of one
 *        phase lies scattered where the next one needs other sizes. Objects are
 *        written from end to end, since the system counts what was touched.
 *        Held is what the program has more than before the first object.
 */
#include <stdio.h>
#include <string.h>

#include "bench/native/native.h"

#define TOP_BYTES    (UINT64_C(64) << 20)
#define BOTTOM_BYTES (TOP_BYTES / 8)
#define STEP_BYTES   (UINT64_C(1) << 20) /* from one look to the next */
#define MOST_OBJECTS (UINT64_C(1) << 22)
#define MIB          1048576.0

static const struct {
    size_t least;
    size_t most;
} phases[] = {{16, 64}, {64, 512}, {512, 4096}, {8, 2048}};

struct trace {
    struct native_worker random;
    struct {
        void *object;
        size_t bytes;
    } * alive;
    uint64_t count;
    uint64_t bytes; /* alive */
    uint64_t start; /* held before the first object */
    uint64_t next_look;
    double ratios; /* sum of held / live */
    unsigned looks;
};

static uint64_t held(const struct trace *trace)
{
    uint64_t now = native.held_bytes();

    return now > trace->start ? now - trace->start : 0;
}

static void look(struct trace *trace)
{
    trace->ratios += (double)held(trace) / (double)trace->bytes;
    trace->looks++;
}

static void grow(struct trace *trace, size_t least, size_t most)
{
    uint64_t next = trace->bytes + STEP_BYTES;

    while (trace->bytes < TOP_BYTES && trace->count < MOST_OBJECTS) {
        size_t bytes =
            native_between(native_random(&trace->random), least, most);
        void *object = native_object(bytes);
        memset(object, 1, bytes);
        trace->alive[trace->count].object = object;
        trace->alive[trace->count++].bytes = bytes;
        trace->bytes += bytes;
        if (trace->bytes >= next) {
            look(trace);
            next += STEP_BYTES;
        }
    }
}

/* Free objects at random until no more than @bytes are alive. */
static void shrink(struct trace *trace, uint64_t bytes)
{
    uint64_t next = trace->bytes - STEP_BYTES;

    while (trace->count > 0 && trace->bytes > bytes) {
        uint64_t i = native_below(native_random(&trace->random), trace->count);
        native.free(trace->alive[i].object);
        trace->bytes -= trace->alive[i].bytes;
        trace->alive[i] = trace->alive[--trace->count];
        if (trace->bytes <= next && trace->bytes > 0) {
            look(trace);
            next = trace->bytes > STEP_BYTES ? next - STEP_BYTES : 0;
        }
    }
}

void native_trace(void)
{
    struct trace trace = {.random = {.random = NATIVE_SEED}};

    if (native.held_bytes == NULL) {
        return;
    }
    native.enter(0);
    trace.alive = native_own(MOST_OBJECTS * sizeof(trace.alive[0]));
    trace.start = native.held_bytes();
    for (unsigned i = 0; i < sizeof(phases) / sizeof(phases[0]); i++) {
        grow(&trace, phases[i].least, phases[i].most);
        shrink(&trace, BOTTOM_BYTES);
    }
    native_print("held / live, mean", "ratio", trace.ratios / trace.looks);
    while (trace.count > 0) {
        native.free(trace.alive[--trace.count].object);
    }
    native_print("held, all freed", "MiB", (double)held(&trace) / MIB);
    native.trim();
    native_print("held, freed, trimmed", "MiB", (double)held(&trace) / MIB);
}
