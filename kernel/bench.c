/* SPDX-License-Identifier: MIT */
/* bench: what operations cost, counted by the time stamp counter. */
/*
 * Idea: each operation runs SAMPLES times between two RDTSCs, after some runs
 * that are not counted; the cost of an empty measurement is taken off. The
 * median says what is usual, the mean shows the slow path that a batch pays
 * for, the minimum the best case.
 *
 *   bench: NAME FIGURE UNIT min MINIMUM median MEDIAN mean MEAN
 *
 * UNIT is "instructions" under QEMU's -icount, else "ticks".
 *
 * Limits: interrupts off; what takes several CPUs is in bench_cpus.c.
 */
#include "kernel/bench.h"

#include <mm/frame.h>
#include "base/bits.h"
#include "kernel/bench_impl.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/kernel.h"
#include "kernel/lib/string.h"
#include "kernel/memory.h"

#define SAMPLES  2000
#define BATCHES  20
#define WARM_UP  64 /* of SAMPLES; even, as SAMPLES: see bench_map.c */
#define WARM_UPS 3  /* of BATCHES */
_Static_assert(SAMPLES % 2 == 0 && WARM_UP % 2 == 0, "bench_map.c");

static uint64_t sample[SAMPLES];
static uint64_t empty; /* what a measurement of nothing takes */

bool bench_is_wanted(const char *name, const char *pattern)
{
    return strncmp(name, pattern, strlen(pattern)) == 0;
}

void bench_print(const char *name, uint64_t value, const char *unit)
{
    printk("bench: %s %lu %s\n", name, value, unit);
}

/* The last @count of @count + @warm_up runs. */
static bool take_samples(const struct bench_subject *subject, unsigned warm_up,
                         unsigned count)
{
    for (unsigned i = 0; i < warm_up + count; i++) {
        if (subject->before != NULL && !subject->before(subject->argument)) {
            return false;
        }
        uint64_t start = cpu_rdtsc();
        bool success = subject->operation(subject->argument);
        sample[i < warm_up ? 0 : i - warm_up] = cpu_rdtsc() - start;
        if (!success) {
            return false;
        }
    }
    return true;
}

/* Shell's sort, gaps halved: no recursion, and fast enough for SAMPLES. */
static void sort_samples(unsigned count)
{
    for (unsigned gap = count / 2; gap > 0; gap /= 2) {
        for (unsigned i = gap; i < count; i++) {
            uint64_t value = sample[i];
            unsigned at = i;
            while (at >= gap && sample[at - gap] > value) {
                sample[at] = sample[at - gap];
                at -= gap;
            }
            sample[at] = value;
        }
    }
}

static uint64_t less_empty(uint64_t value)
{
    return value > empty ? value - empty : 0;
}

/* Of @count samples of @each operations. */
static void sum_up(unsigned count, unsigned each, struct bench_figures *out)
{
    uint64_t sum = 0;

    sort_samples(count);
    for (unsigned i = 0; i < count; i++) {
        sum += less_empty(sample[i]);
    }
    out->minimum = less_empty(sample[0]) / each;
    out->median = less_empty(sample[count / 2]) / each;
    out->mean = sum / count / each;
}

static bool do_nothing(unsigned argument)
{
    (void)argument;
    return true;
}

static bool measure_empty(void)
{
    const struct bench_subject nothing = {.operation = do_nothing};
    struct bench_figures figures;

    empty = 0;
    if (!bench_take(&nothing, &figures)) {
        return false;
    }
    empty = figures.median;
    return true;
}

static bool complain(const struct bench_subject *subject)
{
    printk("%s: an operation failed: too little memory?\n", subject->name);
    return false;
}

bool bench_take(const struct bench_subject *subject, struct bench_figures *out)
{
    if (!take_samples(subject, WARM_UP, SAMPLES)) {
        return complain(subject);
    }
    sum_up(SAMPLES, 1, out);
    return true;
}

static void print_all(const char *name, uint64_t value,
                      const struct bench_figures *figures)
{
    printk("bench: %s %lu %s min %lu median %lu mean %lu\n", name, value,
           cpu_clock_unit(), figures->minimum, figures->median, figures->mean);
}

bool bench_measure(const struct bench_subject *subject)
{
    struct bench_figures figures;

    if (!bench_take(subject, &figures)) {
        return false;
    }
    print_all(subject->name, figures.median, &figures);
    return true;
}

bool bench_measure_batch(const struct bench_subject *subject)
{
    struct bench_figures figures;

    if (!take_samples(subject, WARM_UPS, BATCHES)) {
        return complain(subject);
    }
    sum_up(BATCHES, BENCH_BATCH, &figures);
    print_all(subject->name, figures.mean, &figures);
    return true;
}

bool bench_list(const struct bench_subject *subjects, size_t count,
                bench_measure_fn measure, const char *pattern, unsigned *run)
{
    bool success = true;

    for (size_t i = 0; i < count; i++) {
        if (bench_is_wanted(subjects[i].name, pattern)) {
            success = measure(&subjects[i]) && success;
            ++*run;
        }
    }
    return success;
}

/* --- start-up ------------------------------------------------------------- */

/* Carved out of the map by memmap_build() and mm_init(), tables included. */
static uint64_t set_aside_bytes(void)
{
    static const char *const owner[] = {"memory map", "page tables",
                                        "frame metadata"};
    const struct memmap *map = memory_map();
    uint64_t bytes = 0;

    for (size_t i = 0; i < map->count; i++) {
        for (size_t j = 0; j < sizeof(owner) / sizeof(owner[0]); j++) {
            if (strcmp(map->range[i].owner, owner[j]) == 0) {
                bytes += map->range[i].end - map->range[i].start;
            }
        }
    }
    return bytes;
}

/* "bench: @name 0.1306 @unit": @part / @whole with four decimals. */
static void print_ratio(const char *name, uint64_t part, uint64_t whole,
                        const char *unit)
{
    const uint64_t scale = 10000;
    uint64_t value = part / max_u64(whole / scale, 1);

    printk("bench: %s %lu.%04lu %s\n", name, value / scale, value % scale,
           unit);
}

static void print_start_clock(void)
{
    bench_print("start_to_heap", kernel_ready_clock - kernel_start_clock,
                cpu_clock_unit());
}

static void print_set_aside(void)
{
    bench_print("metadata_at_start", set_aside_bytes(), "bytes");
}

static void print_set_aside_of_ram(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    print_ratio("metadata_of_ram", set_aside_bytes() * 100,
                stats.managed * PAGE_BYTES, "percent");
}

/* The frame allocator's alone; records come later, where frames are used. */
static void print_set_aside_of_frame(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    print_ratio("frame_metadata", stats.set_aside_bytes, stats.managed,
                "bytes/frame");
}

static void print_record_bytes(void)
{
    bench_print("frame_record", sizeof(struct frame_record), "bytes/frame");
}

/* Once, at start: what kernel_main() and frame_init() have left. */
static void print_start(const char *pattern, unsigned *run)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } figure[] = {
        {"start_to_heap", print_start_clock},
        {"metadata_at_start", print_set_aside},
        {"metadata_of_ram", print_set_aside_of_ram},
        {"frame_metadata", print_set_aside_of_frame},
        {"frame_record", print_record_bytes},
    };

    for (size_t i = 0; i < sizeof(figure) / sizeof(figure[0]); i++) {
        if (bench_is_wanted(figure[i].name, pattern)) {
            figure[i].print();
            ++*run;
        }
    }
}

bool bench_run(const char *pattern)
{
    unsigned run = 0;

    print_start(pattern, &run);
    /* The clock counts what idle processors do, too. */
    idle_suspend();
    bool success = measure_empty();
    success = success && bench_frames(pattern, &run);
    success = success && bench_heap(pattern, &run);
    success = success && bench_guard(pattern, &run);
    success = success && bench_maps(pattern, &run);
    success = success && bench_tables(pattern, &run);
    success = success && bench_cpus(pattern, &run);
    idle_resume();
    if (success && run == 0) {
        printk("no figure has a name that begins with %s\n", pattern);
    }
    return success && run > 0;
}
