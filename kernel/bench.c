/* SPDX-License-Identifier: MIT */
/* bench: what operations cost, counted by the time stamp counter. */
/*
 * Idea: each operation runs SAMPLES times between two RDTSCs; the cost of an
 * empty measurement is taken off. The median says what is usual, the mean
 * shows the slow path that a batch pays for, the minimum the best case.
 *
 *   bench: NAME MEDIAN UNIT min MIN mean MEAN
 *
 * UNIT is "instructions" under QEMU's -icount, else "ticks".
 *
 * Limits: interrupts off; what takes several CPUs is in bench_cpus.c.
 */
#include "kernel/bench.h"

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/kmap.h>
#include <mm/pt.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "kernel/bench_impl.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/kernel.h"
#include "kernel/lib/string.h"
#include "kernel/memory.h"

#define SAMPLES     2000
#define BATCH       1000
#define RANGE_PAGES 16

/* Set up by prepare(), taken down by finish(). */
static struct {
    struct slab_cache *cache; /* objects of 200 bytes */
    vaddr_t range;            /* RANGE_PAGES of kernel addresses */
    pfn_t frame;              /* RANGE_PAGES frames in a row */
    uint64_t empty;           /* of a measurement of nothing */
} bench;

static uint64_t sample[SAMPLES];
static pfn_t frames[BATCH];
static void *blocks[BATCH];

/* --- operations: true if they worked -------------------------------------- */

static bool do_nothing(unsigned argument)
{
    (void)argument;
    return true;
}

static bool do_frame(unsigned order)
{
    pfn_t frame = frame_alloc(order, FRAME_KERNEL, FRAME_ANY);

    if (pfn_is_none(frame)) {
        return false;
    }
    frame_free(frame, order);
    return true;
}

static bool do_frame_zeroed(unsigned order)
{
    pfn_t frame = frame_alloc(order, FRAME_KERNEL, FRAME_ZEROED);

    if (pfn_is_none(frame)) {
        return false;
    }
    frame_free(frame, order);
    return true;
}

static bool do_kmalloc(unsigned bytes)
{
    void *block = kmalloc(bytes);

    kfree(block);
    return block != NULL;
}

static bool do_slab(unsigned argument)
{
    (void)argument;
    void *object = slab_alloc(bench.cache);

    slab_free(bench.cache, object);
    return object != NULL;
}

static bool do_kmap(unsigned pages)
{
    void *block = kmap_alloc(pages * PAGE_BYTES, KMAP_EAGER, "bench");

    kmap_free(block);
    return block != NULL;
}

/* Addresses and tables only, as Linux's vmap(); nothing is behind them. */
static bool do_window(unsigned pages)
{
    paddr_t hole = paddr_of(memmap_ram_end(memory_map()));
    void *window = kmap_mmio(hole, pages * PAGE_BYTES, PT_WB, "bench");

    kmap_free(window);
    return window != NULL;
}

static bool do_lookup(unsigned argument)
{
    struct pt_attr attr;
    pfn_t frame;

    (void)argument;
    return pt_lookup(&pt_kernel, (vaddr_t)do_lookup, &frame, &attr);
}

static bool do_flush(unsigned pages)
{
    struct tlb_batch batch;

    tlb_batch_init(&batch, &pt_kernel.tlb);
    tlb_batch_range(&batch, bench.range, bench.range + pages * PAGE_BYTES, 0);
    tlb_commit(&batch);
    return true;
}

static bool protect(unsigned pages, unsigned flags)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    uint64_t bytes = pages * PAGE_BYTES;

    if (pt_open(&pt_kernel, bench.range, bench.range + bytes, &batch,
                &cursor) != MM_OK) {
        return false;
    }
    enum mm_status status =
        pt_protect(&cursor, bench.range, bytes, pt_attr(flags));
    pt_close(&cursor);
    tlb_commit(&batch);
    return status == MM_OK;
}

/* Rights go and come in turn: an even number of runs leaves them as before. */
static bool do_protect(unsigned pages)
{
    static unsigned turn;

    turn ^= PT_WRITE;
    return protect(pages, turn ^ PT_WRITE);
}

static bool do_map(unsigned pages)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    uint64_t bytes = pages * PAGE_BYTES;
    vaddr_t end;

    if (pt_open(&pt_kernel, bench.range, bench.range + bytes, &batch,
                &cursor) != MM_OK) {
        return false;
    }
    bool success = pt_unmap(&cursor, bench.range, bytes, &end) == MM_OK;
    success = success && pt_map(&cursor, bench.range, bench.frame, bytes,
                                pt_attr(PT_WRITE | PT_GLOBAL)) == MM_OK;
    pt_close(&cursor);
    tlb_commit(&batch);
    return success;
}

/* --- measuring ------------------------------------------------------------ */

bool bench_is_wanted(const char *name, const char *pattern)
{
    return strncmp(name, pattern, strlen(pattern)) == 0;
}

void bench_print(const char *name, uint64_t value, const char *unit)
{
    printk("bench: %s %lu %s\n", name, value, unit);
}

static void print_time(const char *name, uint64_t ticks)
{
    bench_print(name, ticks, cpu_clock_unit());
}

static bool take_samples(const struct bench_subject *subject)
{
    for (unsigned i = 0; i < SAMPLES; i++) {
        if (subject->before != NULL && !subject->before(subject->argument)) {
            return false;
        }
        uint64_t start = cpu_rdtsc();
        bool success = subject->operation(subject->argument);
        sample[i] = cpu_rdtsc() - start;
        if (!success) {
            return false;
        }
    }
    return true;
}

/* Shell's sort, gaps halved: no recursion, and fast enough for SAMPLES. */
static void sort_samples(void)
{
    for (unsigned gap = SAMPLES / 2; gap > 0; gap /= 2) {
        for (unsigned i = gap; i < SAMPLES; i++) {
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

static uint64_t less(uint64_t value, uint64_t empty)
{
    return value > empty ? value - empty : 0;
}

static uint64_t empty_measurement(void)
{
    const struct bench_subject nothing = {.operation = do_nothing};

    if (!take_samples(&nothing)) {
        return 0;
    }
    sort_samples();
    return sample[SAMPLES / 2];
}

bool bench_measure(const struct bench_subject *subject)
{
    uint64_t empty = bench.empty;
    uint64_t sum = 0;

    if (!take_samples(subject)) {
        printk("%s: an operation failed: too little memory?\n", subject->name);
        return false;
    }
    sort_samples();
    for (unsigned i = 0; i < SAMPLES; i++) {
        sum += sample[i];
    }
    printk("bench: %s %lu %s min %lu mean %lu\n", subject->name,
           less(sample[SAMPLES / 2], empty), cpu_clock_unit(),
           less(sample[0], empty), less(sum / SAMPLES, empty));
    return true;
}

/* --- batches: the sum of BATCH operations, and their opposites -------------
 */

static bool batch_frames(void)
{
    unsigned count = 0;
    uint64_t start = cpu_rdtsc();

    for (; count < BATCH; count++) {
        frames[count] = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
        if (pfn_is_none(frames[count])) {
            break;
        }
    }
    for (unsigned i = 0; i < count; i++) {
        frame_free(frames[i], 0);
    }
    uint64_t ticks = cpu_rdtsc() - start;
    print_time("frame_batch_1000", ticks / BATCH);
    return count == BATCH;
}

static bool batch_kmalloc(void)
{
    unsigned count = 0;
    uint64_t start = cpu_rdtsc();

    for (; count < BATCH; count++) {
        blocks[count] = kmalloc(64);
        if (blocks[count] == NULL) {
            break;
        }
    }
    /* 7 and BATCH have no common divisor: each is freed once, out of order. */
    for (unsigned i = 0; i < count; i++) {
        kfree(blocks[(i * 7) % BATCH]);
        blocks[(i * 7) % BATCH] = NULL;
    }
    uint64_t ticks = cpu_rdtsc() - start;
    print_time("kmalloc_64_batch_1000", ticks / BATCH);
    for (unsigned i = 0; i < BATCH && count < BATCH; i++) {
        kfree(blocks[i]); /* it broke off: some are left */
    }
    return count == BATCH;
}

/* --- the list ------------------------------------------------------------- */

static const struct bench_subject subjects[] = {
    {"frame_order_0", NULL, do_frame, 0},
    {"frame_order_3", NULL, do_frame, 3},
    {"frame_order_9", NULL, do_frame, 9},
    {"frame_order_10", NULL, do_frame, 10},
    {"frame_zeroed", NULL, do_frame_zeroed, 0},
    {"kmalloc_64", NULL, do_kmalloc, 64},
    {"kmalloc_4096", NULL, do_kmalloc, 4096},
    {"kmalloc_16k", NULL, do_kmalloc, 16 * 1024},
    {"slab_200", NULL, do_slab, 0},
    {"pt_lookup", NULL, do_lookup, 0},
    {"tlb_flush_1", NULL, do_flush, 1},
    {"tlb_flush_16", NULL, do_flush, 16},
    {"pt_protect_1", NULL, do_protect, 1},
    {"pt_protect_16", NULL, do_protect, 16},
    {"pt_unmap_map_1", NULL, do_map, 1},
    {"pt_unmap_map_16", NULL, do_map, 16},
    {"kmap_window_1", NULL, do_window, 1},
    {"kmap_window_16", NULL, do_window, 16},
    {"kmap_alloc_1", NULL, do_kmap, 1},
    {"kmap_alloc_16", NULL, do_kmap, 16},
};
_Static_assert(SAMPLES % 2 == 0, "do_protect() leaves the rights as before");

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

/*
 * Once, at start: what kernel_main() and frame_init() have left.
 * Return: how many figures were wanted.
 */
static unsigned print_start(const char *pattern)
{
    unsigned run = 0;
    struct frame_stats stats;

    frame_stats(&stats);
    uint64_t ram = stats.managed * PAGE_BYTES;
    uint64_t set_aside = set_aside_bytes();
    uint64_t ppm = set_aside * 1000 / max_u64(ram / 1000, 1);
    if (bench_is_wanted("start_to_heap", pattern)) {
        print_time("start_to_heap", kernel_ready_clock - kernel_start_clock);
        run++;
    }
    if (bench_is_wanted("metadata_at_start", pattern)) {
        printk("bench: metadata_at_start %lu bytes\n", set_aside);
        run++;
    }
    if (bench_is_wanted("metadata_of_ram", pattern)) {
        printk("bench: metadata_of_ram %lu.%04lu percent\n", ppm / 10000,
               ppm % 10000);
        run++;
    }
    return run;
}

/* Pages for the table operations: frames of our own, in a block's place. */
static bool prepare(void)
{
    bench.frame = frame_alloc(4, FRAME_KERNEL, FRAME_ANY);
    bench.cache = slab_create("bench", 200, 0, NULL);
    bench.range =
        (vaddr_t)kmap_alloc(RANGE_PAGES * PAGE_BYTES, KMAP_LAZY, "bench range");
    return !pfn_is_none(bench.frame) && bench.cache != NULL &&
           bench.range != 0 && do_map(RANGE_PAGES);
}

static bool finish(void)
{
    bool success = true;

    kmap_free((void *)bench.range);
    if (!pfn_is_none(bench.frame)) {
        frame_free(bench.frame, 4);
    }
    if (bench.cache != NULL) {
        success = slab_destroy(bench.cache) == MM_OK;
    }
    return success;
}

static bool run_subjects(const char *pattern)
{
    unsigned run = print_start(pattern);
    bool success = true;
    unsigned more;

    bench.empty = empty_measurement();
    for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++) {
        if (bench_is_wanted(subjects[i].name, pattern)) {
            success = bench_measure(&subjects[i]) && success;
            run++;
        }
    }
    if (pattern[0] == '\0') {
        success = batch_frames() && success;
        success = batch_kmalloc() && success;
    }
    success = bench_cpus(pattern, &more) && success;
    run += more;
    if (run == 0) {
        printk("no figure has a name that begins with %s\n", pattern);
    }
    return success && run > 0;
}

bool bench_run(const char *pattern)
{
    bool success = prepare();

    if (success) {
        success = run_subjects(pattern);
    } else {
        printk("no memory for the measurements\n");
    }
    return finish() && success;
}
