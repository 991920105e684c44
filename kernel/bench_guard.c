/* SPDX-License-Identifier: MIT */
/* bench_guard: what it costs that one heap object in N is guarded. */
/*
 * Idea: a mixed workload (blocks of 8 to 2048 bytes that live for a while, and
 * of each the first word is written) is counted with guards off and then as
 * users have them, long enough for each size to have had its turns. The
 * difference, over the first, is the overhead.
 */
#include "kernel/bench_impl.h"

#include <mm/guard.h>
#include <mm/kmalloc.h>
#include "kernel/cpu.h"

#define SLOTS    1000
#define SEED     12345
#define WARM_UP  200000 /* pairs; until each size has been guarded */
#define MEASURED 1000000
#define MILLION  1000000

#define BYTES_MIN 8
#define BYTES_MAX 2048

struct mix {
    uint32_t random;
    uint64_t *slot[SLOTS];
};

static struct mix mix;

static uint32_t next_random(uint32_t below)
{
    mix.random = mix.random * UINT32_C(1664525) + UINT32_C(1013904223);
    return (uint32_t)(((uint64_t)(mix.random >> 8) * below) >> 24);
}

/* @pairs times: another block in some slot, in place of what was there. */
static bool churn(unsigned pairs)
{
    for (unsigned i = 0; i < pairs; i++) {
        uint64_t **slot = &mix.slot[next_random(SLOTS)];

        kfree(*slot);
        *slot = kmalloc(BYTES_MIN + next_random(BYTES_MAX - BYTES_MIN + 1));
        if (*slot == NULL) {
            return false;
        }
        **slot = i;
    }
    return true;
}

static void free_all(void)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        kfree(mix.slot[i]);
        mix.slot[i] = NULL;
    }
}

/* What the clock counts of the same MEASURED pairs; 0 if memory is short. */
static uint64_t measure_mix(void)
{
    mix.random = SEED;
    bool success = churn(WARM_UP);
    uint64_t start = cpu_rdtsc();
    success = success && churn(MEASURED);
    uint64_t end = cpu_rdtsc();

    free_all();
    return success ? end - start : 0;
}

/* Guards as they were: of @interval, or off. */
static bool set_guards(uint32_t interval)
{
    if (interval != 0) {
        return guard_enable(interval) == MM_OK;
    }
    return guard_disable() != MM_EINVAL; /* busy: off all the same */
}

static bool print_overhead(void)
{
    bool success = set_guards(0);
    uint64_t without = measure_mix();

    success = success && set_guards(GUARD_INTERVAL);
    uint64_t with = success ? measure_mix() : 0;
    if (without == 0 || with == 0) {
        return false;
    }
    bench_print("heap_mixed", without / MEASURED, cpu_clock_unit());
    bench_print("heap_mixed_guarded", with / MEASURED, cpu_clock_unit());
    bench_print("guard_overhead",
                with > without ? (with - without) / (without / MILLION) : 0,
                "ppm");
    return true;
}

/* Guarded or not: with an interval of 1 it is. */
static bool do_guarded_pair(unsigned bytes)
{
    void *block = kmalloc(bytes);

    kfree(block);
    return block != NULL;
}

bool bench_guard(const char *pattern, unsigned *run)
{
    static const struct bench_subject pair = {"guarded_pair_64", NULL,
                                              do_guarded_pair, 64};
    struct guard_stats usual;
    bool success = true;

    guard_stats(&usual);
    if (bench_is_wanted("guard_overhead", pattern)) {
        success = print_overhead();
        *run += 3;
    }
    if (bench_is_wanted(pair.name, pattern)) {
        success = success && set_guards(1) && bench_measure(&pair);
        ++*run;
    }
    return set_guards(usual.interval) && success;
}
