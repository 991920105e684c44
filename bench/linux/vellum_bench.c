/* SPDX-License-Identifier: MIT */
/* vellum_bench: what Linux's memory operations cost, as kernel/bench.c has it.
 */
/*
 * Idea: the same frame as ours: each operation is called through a pointer
 * between two readings of the clock, and an empty one is taken off. Under
 * QEMU's -icount a tick is an instruction. Interrupts are on: the timer hits a
 * few samples, which the mean shows and the median does not.
 *
 * Rows go to QEMU's debug console: NAME,MINIMUM,MEDIAN,MEAN.
 * Functions that Linux keeps to itself are passed by address: init.c.
 */
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/vmalloc.h>
#include <asm/msr.h>
#include <asm/tlbflush.h>

#define SAMPLES     2000
#define WARM_UP     64
#define BATCH       1000
#define BATCHES     20
#define WARM_UPS    3 /* batches */
#define RANGE_PAGES 16
#define SEED        12345
#define DEBUG_PORT  0xe9

static unsigned long flush_tlb_kernel_range_at;
static unsigned long set_memory_ro_at;
static unsigned long set_memory_rw_at;
module_param(flush_tlb_kernel_range_at, ulong, 0);
module_param(set_memory_ro_at, ulong, 0);
module_param(set_memory_rw_at, ulong, 0);

struct subject {
    const char *name;
    void (*before)(unsigned int argument); /* not measured; or NULL */
    void (*operation)(unsigned int argument);
    unsigned int argument;
};

static u64 sample[SAMPLES];
static u64 empty;
static void *block[BATCH];
static struct page *page[BATCH];
static unsigned int shuffled[BATCH];
static struct kmem_cache *cache;
static struct page *range_page[RANGE_PAGES];
static void *range;
static volatile size_t variable_size = 64;

/* --- operations ----------------------------------------------------------- */

static void do_nothing(unsigned int argument)
{
}

static void do_frame_0(unsigned int argument)
{
    __free_page(alloc_page(GFP_KERNEL));
}

static void do_frame(unsigned int order)
{
    __free_pages(alloc_pages(GFP_KERNEL, order), order);
}

static void do_frame_zeroed(unsigned int argument)
{
    free_page(get_zeroed_page(GFP_KERNEL));
}

/* Of a constant size: the compiler must not see through the pair. */
static __always_inline void kmalloc_pair(size_t bytes)
{
    void *object = kmalloc(bytes, GFP_KERNEL);

    OPTIMIZER_HIDE_VAR(object);
    kfree(object);
}

static void do_kmalloc_8(unsigned int argument)
{
    kmalloc_pair(8);
}

static void do_kmalloc_64(unsigned int argument)
{
    kmalloc_pair(64);
}

static void do_kmalloc_512(unsigned int argument)
{
    kmalloc_pair(512);
}

static void do_kmalloc_1024(unsigned int argument)
{
    kmalloc_pair(1024);
}

static void do_kmalloc_4096(unsigned int argument)
{
    kmalloc_pair(4096);
}

static void do_kmalloc_16k(unsigned int argument)
{
    kmalloc_pair(16384);
}

static void do_kmalloc_variable(unsigned int argument)
{
    kmalloc_pair(variable_size);
}

static void do_slab(unsigned int argument)
{
    kmem_cache_free(cache, kmem_cache_alloc(cache, GFP_KERNEL));
}

static void do_vmalloc(unsigned int bytes)
{
    vfree(vmalloc(bytes));
}

static void do_vmap(unsigned int pages)
{
    vunmap(vmap(range_page, pages, VM_MAP, PAGE_KERNEL));
}

static void do_walk(unsigned int argument)
{
    OPTIMIZER_HIDE_VAR(range);
    range_page[0] = vmalloc_to_page(range);
}

static void do_flush(unsigned int pages)
{
    void (*flush)(unsigned long start, unsigned long end) =
        (void *)flush_tlb_kernel_range_at;

    flush((unsigned long)range, (unsigned long)range + pages * PAGE_SIZE);
}

static void set_writable(unsigned int pages)
{
    int (*set)(unsigned long address, int pages) = (void *)set_memory_rw_at;

    set((unsigned long)range, (int)pages);
}

static void do_protect(unsigned int pages)
{
    int (*set)(unsigned long address, int pages) = (void *)set_memory_ro_at;

    set((unsigned long)range, (int)pages);
}

/* --- measuring ------------------------------------------------------------ */

static void print(const char *format, ...)
{
    char line[128];
    va_list arguments;

    va_start(arguments, format);
    vscnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    for (const char *c = line; *c != '\0'; c++) {
        outb(*c, DEBUG_PORT);
    }
}

static int compare(const void *a, const void *b)
{
    u64 x = *(const u64 *)a;
    u64 y = *(const u64 *)b;

    return x < y ? -1 : x > y;
}

/* Of @count samples of @each operations. */
static void report(const char *name, unsigned int count, unsigned int each)
{
    u64 sum = 0;

    sort(sample, count, sizeof(sample[0]), compare, NULL);
    for (unsigned int i = 0; i < count; i++) {
        sum += sample[i] - empty;
    }
    print("%s,%llu,%llu,%llu\n", name, (sample[0] - empty) / each,
          (sample[count / 2] - empty) / each, sum / count / each);
}

static void take_samples(const struct subject *subject)
{
    for (int i = -WARM_UP; i < SAMPLES; i++) {
        if (subject->before != NULL) {
            subject->before(subject->argument);
        }
        u64 start = rdtsc_ordered();
        subject->operation(subject->argument);
        u64 end = rdtsc_ordered();
        sample[max(i, 0)] = end - start;
        cond_resched();
    }
}

static void measure(const struct subject *subject)
{
    take_samples(subject);
    report(subject->name, SAMPLES, 1);
}

static void measure_empty(void)
{
    static const struct subject nothing = {"nothing", NULL, do_nothing, 0};

    take_samples(&nothing);
    sort(sample, SAMPLES, sizeof(sample[0]), compare, NULL);
    empty = sample[0];
}

/* --- batches: BATCH operations, then their opposites ---------------------- */

static void batch_frames(unsigned int argument)
{
    for (unsigned int i = 0; i < BATCH; i++) {
        page[i] = alloc_page(GFP_KERNEL);
    }
    for (unsigned int i = 0; i < BATCH; i++) {
        __free_page(page[i]);
    }
}

/* It may stop early; there is no such call for giving back. */
static void bulk_frames(unsigned int argument)
{
    unsigned long count = 0;

    memset(page, 0, sizeof(page));
    while (count < BATCH) {
        count = alloc_pages_bulk_array(GFP_KERNEL, BATCH, page);
    }
    for (unsigned int i = 0; i < BATCH; i++) {
        __free_page(page[i]);
    }
}

static void batch_kmalloc_64(unsigned int argument)
{
    for (unsigned int i = 0; i < BATCH; i++) {
        block[i] = kmalloc(64, GFP_KERNEL);
    }
    for (unsigned int i = 0; i < BATCH; i++) {
        kfree(block[shuffled[i]]);
    }
}

static void batch_kmalloc_1024(unsigned int argument)
{
    for (unsigned int i = 0; i < BATCH; i++) {
        block[i] = kmalloc(1024, GFP_KERNEL);
    }
    for (unsigned int i = 0; i < BATCH; i++) {
        kfree(block[shuffled[i]]);
    }
}

/* The same order as kernel/bench.c has. */
static void shuffle(void)
{
    u32 random = SEED;

    for (unsigned int i = 0; i < BATCH; i++) {
        shuffled[i] = i;
    }
    for (unsigned int i = BATCH - 1; i > 0; i--) {
        random = random * 1664525 + 1013904223;
        swap(shuffled[i], shuffled[(random >> 8) % (i + 1)]);
    }
}

static void measure_batch(const struct subject *subject)
{
    for (int i = -WARM_UPS; i < BATCHES; i++) {
        u64 start = rdtsc_ordered();
        subject->operation(subject->argument);
        u64 end = rdtsc_ordered();
        sample[max(i, 0)] = end - start;
        cond_resched();
    }
    report(subject->name, BATCHES, BATCH);
}

/* --- the list ------------------------------------------------------------- */

static const struct subject subjects[] = {
    {"frame_order_0", NULL, do_frame_0, 0},
    {"frame_order_3", NULL, do_frame, 3},
    {"frame_order_9", NULL, do_frame, 9},
    {"frame_order_10", NULL, do_frame, 10},
    {"frame_zeroed_cleared", NULL, do_frame_zeroed, 0},
    {"kmalloc_8", NULL, do_kmalloc_8, 0},
    {"kmalloc_64", NULL, do_kmalloc_64, 0},
    {"kmalloc_512", NULL, do_kmalloc_512, 0},
    {"kmalloc_1024", NULL, do_kmalloc_1024, 0},
    {"kmalloc_4096", NULL, do_kmalloc_4096, 0},
    {"kmalloc_variable", NULL, do_kmalloc_variable, 0},
    {"kmalloc_16k", NULL, do_kmalloc_16k, 0},
    {"slab_200", NULL, do_slab, 0},
    {"kmap_alloc_1", NULL, do_vmalloc, PAGE_SIZE},
    {"kmap_alloc_16", NULL, do_vmalloc, 16 * PAGE_SIZE},
    {"kmap_window_1", NULL, do_vmap, 1},
    {"kmap_window_16", NULL, do_vmap, 16},
    {"pt_lookup", NULL, do_walk, 0},
    {"tlb_flush_1", NULL, do_flush, 1},
    {"tlb_flush_16", NULL, do_flush, 16},
    {"pt_protect_1", set_writable, do_protect, 1},
    {"pt_protect_16", set_writable, do_protect, 16},
};

static const struct subject batches[] = {
    {"frame_batch_1000", NULL, batch_frames, 0},
    {"frame_bulk_1000", NULL, bulk_frames, 0},
    {"kmalloc_64_batch_1000", NULL, batch_kmalloc_64, 0},
    {"kmalloc_1024_batch_1000", NULL, batch_kmalloc_1024, 0},
};

static bool prepare(void)
{
    for (unsigned int i = 0; i < RANGE_PAGES; i++) {
        range_page[i] = alloc_page(GFP_KERNEL);
        if (range_page[i] == NULL) {
            return false;
        }
    }
    /* An odd size, and named: merged with no other cache. */
    cache = kmem_cache_create("vellum_bench", 200, 0, SLAB_HWCACHE_ALIGN, NULL);
    range = vmalloc(RANGE_PAGES * PAGE_SIZE);
    return cache != NULL && range != NULL && flush_tlb_kernel_range_at != 0 &&
           set_memory_ro_at != 0 && set_memory_rw_at != 0;
}

/* Takes nothing down: the machine ends soon. */
static int __init vellum_bench_init(void)
{
    if (!prepare()) {
        print("# the module has no memory, or not the addresses it needs\n");
        return -ENOMEM;
    }
    print("frame_metadata,%zu,%zu,%zu\n", sizeof(struct page),
          sizeof(struct page), sizeof(struct page));
    shuffle();
    measure_empty();
    for (size_t i = 0; i < ARRAY_SIZE(subjects); i++) {
        measure(&subjects[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(batches); i++) {
        measure_batch(&batches[i]);
    }
    return 0;
}

module_init(vellum_bench_init);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("What Linux's memory operations cost");
