/* SPDX-License-Identifier: MIT */
/* tour: what the memory subsystem does, shown on one screen. */
/*
 * Idea: seven steps, each a function that does something real, says what it
 * did, and takes back what it took. The time behind a heading is that of the
 * work alone, without the printing.
 *
 * Limits: about 45 lines of 100 columns, and no key is waited for, so that
 * the same text serves a terminal, a log and a picture.
 */
#include "kernel/tour.h"

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/mm.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "kernel/bar.h"
#include "kernel/boot_info.h"
#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/entry.h"
#include "kernel/explain.h"
#include "kernel/place.h"
#include "kernel/fixup.h"
#include "kernel/kernel.h"
#include "kernel/memory.h"

/* What is written to the two frames of the TLB step. */
#define OLD_VALUE UINT64_C(0x01d01d01d01d01d0)
#define NEW_VALUE UINT64_C(0x2ef2ef2ef2ef2ef2)

#define SLAB_OBJECT_BYTES 200
#define SLAB_OBJECTS_MAX  64

/* Bold, unless the command line says nocolor. */
static void print_heading(unsigned number, const char *text, uint64_t ticks)
{
    bool is_plain = cmdline_get("nocolor") != NULL;

    printk("%s%u  %-66s%s %10lu %s\n", is_plain ? "" : "\x1b[1m", number, text,
           is_plain ? "" : "\x1b[0m", ticks, cpu_clock_unit());
}

/* --- memory --------------------------------------------------------------- */

static bool show_verdict(void)
{
    struct frame_stats stats;
    uint64_t start = cpu_rdtsc();
    bool is_sound = mm_check();
    uint64_t ticks = cpu_rdtsc() - start;

    frame_stats(&stats);
    printk("\n" KERNEL_NAME ": %s of RAM, %lu frames free, memory up after "
           "%lu %s; all structures %s\n",
           explain_bytes(boot_info.ram_bytes).text, stats.free,
           kernel_ready_clock - kernel_start_clock, cpu_clock_unit(),
           is_sound ? "sound" : "DAMAGED (above)");
    print_heading(1, "What the firmware says, sorted; checked: every structure",
                  ticks);
    bar_print(memory_map());
    return is_sound;
}

static bool show_frames(void)
{
    struct frame_stats stats;
    uint64_t start = cpu_rdtsc();
    pfn_t frame = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    uint64_t ticks = cpu_rdtsc() - start;

    if (pfn_is_none(frame)) {
        printk("no frame is free\n");
        return false;
    }
    print_heading(2, "A frame taken and given back", ticks);
    printk("  frame 0x%lx: %s\n", frame.v, explain_frame(frame).text);
    frame_free(frame, 0);
    frame_stats(&stats);
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        if (stats.zone_managed[zone] > 0) {
            printk("  zone %-6s %9lu frames, %9lu free\n",
                   frame_zone_name((enum frame_zone)zone),
                   stats.zone_managed[zone], stats.zone_free[zone]);
        }
    }
    return true;
}

/* --- translation ---------------------------------------------------------- */

static bool show_walk(void)
{
    vaddr_t address = (vaddr_t)tour_run;
    struct walk walk;
    uint64_t start = cpu_rdtsc();
    walk_address(pt_kernel.root, address, &walk);
    uint64_t ticks = cpu_rdtsc() - start;

    print_heading(3, "An address, level by level: this function, tour_run",
                  ticks);
    explain_print_walk(&walk, EXPLAIN_NO_BLAME, "  ");
    printk("  virtual 0x%lx is physical 0x%lx; all levels together: r%c%c\n",
           address, walk.physical.v, walk.is_writable ? 'w' : '-',
           walk.is_executable ? 'x' : '-');
    return walk.state == PTE_PRESENT && !walk.is_writable;
}

static uint64_t read_value(vaddr_t address)
{
    return *(volatile const uint64_t *)address;
}

/*
 * Point the page's entry at @frame without telling the processor, and see
 * what it believes before and after the invalidation.
 */
static bool remap(vaddr_t page, pfn_t frame)
{
    volatile pte_t *entry = entry_find(page, 0);
    pte_t old = {entry->v};

    *(uint64_t *)page = OLD_VALUE;
    *(uint64_t *)phys_to_virt(pfn_to_phys(frame)) = NEW_VALUE;
    uint64_t start = cpu_rdtsc();
    entry->v = (old.v & ~PTE_FRAME) | pfn_to_phys(frame).v;
    uint64_t stale = read_value(page);
    entry_invalidate(page);
    uint64_t fresh = read_value(page);
    uint64_t ticks = cpu_rdtsc() - start;
    entry->v = old.v;
    entry_invalidate(page);

    print_heading(4, "A page mapped, written, and mapped to another frame",
                  ticks);
    printk("  0x%lx: entry changed from frame 0x%lx to 0x%lx\n", page,
           pte_pfn(old, 0).v, frame.v);
    printk("  before INVLPG a read gives %016lx: %s\n", stale,
           stale == OLD_VALUE ? "stale, the TLB still has the old frame"
                              : "this CPU had forgotten the old frame by "
                                "itself");
    printk("  after  INVLPG a read gives %016lx: %s\n", fresh,
           fresh == NEW_VALUE ? "the new frame" : "WRONG");
    printk("  (no CPU watches the tables; QEMU keeps a TLB in software and "
           "shows the same)\n");
    return fresh == NEW_VALUE;
}

static bool show_stale(void)
{
    void *page = kmap_alloc(PAGE_BYTES, KMAP_EAGER, "tour");
    pfn_t frame = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    bool success = false;

    if (page != NULL && !pfn_is_none(frame)) {
        success = remap((vaddr_t)page, frame);
    }
    if (!pfn_is_none(frame)) {
        frame_free(frame, 0);
    }
    kmap_free(page);
    return success;
}

/* --- a fault -------------------------------------------------------------- */

static bool provoke(char *block)
{
    struct walk_rules rules = explain_rules();
    struct probe probe;
    struct walk walk;
    unsigned blame;
    uint64_t start = cpu_rdtsc();
    bool succeeded = probe_write8(block + PAGE_BYTES, 1, &probe);
    uint64_t ticks = cpu_rdtsc() - start;

    print_heading(5, "A fault: one byte written past the end of a block",
                  ticks);
    if (succeeded || !explain_walk(probe.address, &walk)) {
        printk("  nothing stopped it\n");
        return false;
    }
    enum fault_result result =
        explain_fault(&walk, (uint32_t)probe.error, &rules, &blame);
    printk("  page fault at 0x%lx, error code 0x%lx: %s\n", probe.address,
           probe.error, fault_result_text(result));
    explain_print_walk(&walk, blame, "  ");
    printk("  %s\n  try: %s\n", place_text(probe.address).text,
           fault_result_advice(result));
    return result == FAULT_GUARD;
}

static bool show_fault(void)
{
    char *block = kmap_alloc(PAGE_BYTES, KMAP_LAZY, "tour");
    bool success = block != NULL && provoke(block);

    kmap_free(block);
    return success;
}

/* --- the heap ------------------------------------------------------------- */

struct filling {
    struct slab_cache *cache;
    void *object[SLAB_OBJECTS_MAX];
    unsigned count;
    unsigned capacity; /* objects in a slab */
    vaddr_t slab;      /* where the first object's slab begins */
    uint64_t ticks;
};

static bool fill_to(struct filling *filling, unsigned count)
{
    while (filling->count < count) {
        uint64_t start = cpu_rdtsc();
        void *object = slab_alloc(filling->cache);
        filling->ticks += cpu_rdtsc() - start;
        if (object == NULL) {
            return false;
        }
        filling->object[filling->count] = object;
        filling->count++;
    }
    return true;
}

/* One character an object of the first slab. */
static void print_strip(const struct filling *filling)
{
    bool is_taken[SLAB_OBJECTS_MAX] = {false};
    struct slab_place place;

    for (unsigned i = 0; i < filling->count; i++) {
        if (slab_find(filling->object[i], &place) &&
            place.slab_start == filling->slab &&
            place.index < SLAB_OBJECTS_MAX) {
            is_taken[place.index] = true;
        }
    }
    printk("  0x%lx [", filling->slab);
    for (unsigned i = 0; i < filling->capacity; i++) {
        /* full block, light shade */
        printk(is_taken[i] ? "\xe2\x96\x88" : "\xe2\x96\x91");
    }
    printk("] %u of %u objects\n", filling->count, filling->capacity);
}

static bool fill_slab(struct filling *filling)
{
    struct slab_stats stats;
    struct slab_place place;

    slab_stats(filling->cache, &stats);
    filling->capacity = (unsigned)min_u64(stats.slab_objects, SLAB_OBJECTS_MAX);
    if (!fill_to(filling, 1) || !slab_find(filling->object[0], &place)) {
        return false;
    }
    filling->slab = place.slab_start;
    uint64_t first = filling->ticks;
    print_heading(6, "A slab filling with objects of 200 bytes", first);
    print_strip(filling);
    if (!fill_to(filling, filling->capacity / 2)) {
        return false;
    }
    print_strip(filling);
    if (!fill_to(filling, filling->capacity)) {
        return false;
    }
    print_strip(filling);
    printk("  the first object took %lu %s and made the slab, the others "
           "%lu each\n",
           first, cpu_clock_unit(),
           (filling->ticks - first) / max_u64(filling->capacity - 1, 1));
    return true;
}

static bool show_slab(void)
{
    struct filling filling = {
        .cache = slab_create("tour", SLAB_OBJECT_BYTES, 0, NULL),
    };
    bool success = filling.cache != NULL && fill_slab(&filling);

    for (unsigned i = 0; i < filling.count; i++) {
        slab_free(filling.cache, filling.object[i]);
    }
    if (filling.cache != NULL && slab_destroy(filling.cache) != MM_OK) {
        success = false;
    }
    return success;
}

/* -------------------------------------------------------------------------- */

bool tour_run(void)
{
    bool (*const step[])(void) = {show_verdict, show_frames, show_walk,
                                  show_stale,   show_fault,  show_slab};
    bool success = true;

    for (size_t i = 0; i < sizeof(step) / sizeof(step[0]); i++) {
        if (!step[i]()) {
            printk("  this step FAILED\n");
            success = false;
        }
    }
    printk("The clock is RDTSC: it counts instructions under QEMU's -icount, "
           "else about cycles.\n");
    return success;
}
