/* SPDX-License-Identifier: MIT */
/* memory: commands about physical memory. */
#include "kernel/memory.h"

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/mm.h>
#include "base/bits.h"
#include "kernel/bar.h"
#include "kernel/console/console.h"
#include "kernel/explain.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/json.h"

/* --- iomem ---------------------------------------------------------------- */

static void print_range_json(const struct memmap_range *range)
{
    json_begin("iomem");
    json_hex("start", range->start);
    json_hex("end", range->end);
    json_number("bytes", range->end - range->start);
    json_text("type", memmap_type_name(range->type));
    json_text("reason", range->reason);
    json_text("owner", range->owner);
    json_end();
}

static void print_range(const struct memmap_range *range)
{
    printk("%012lx-%012lx %10s  %-11s %s%s%s\n", range->start, range->end - 1,
           explain_bytes(range->end - range->start).text,
           memmap_type_name(range->type), range->owner,
           range->owner[0] != '\0' ? ": " : "", range->reason);
}

static bool run_iomem(const struct arguments *arguments)
{
    const struct memmap *map = memory_map();

    for (size_t i = 0; i < map->count; i++) {
        if (arguments->wants_json) {
            print_range_json(&map->range[i]);
        } else {
            print_range(&map->range[i]);
        }
    }
    if (arguments->wants_json) {
        return true;
    }
    bar_print(map);
    if (map->clipped > 0) {
        printk("  %lu claim%s had to be corrected: see dmesg\n", map->clipped,
               map->clipped == 1 ? "" : "s");
    }
    return true;
}

/* --- meminfo -------------------------------------------------------------- */

struct amount {
    const char *name;
    uint64_t bytes;
    const char *what;
};

static void print_amount(const struct amount *amount)
{
    /* /proc/meminfo says kB and means KiB. */
    printk("%-14s %14lu kB   %s\n", amount->name, amount->bytes / KiB,
           amount->what);
}

struct event {
    const char *name;
    uint64_t count;
    const char *what;
};

/* How often, since start. */
static void print_events(const struct frame_stats *frames, bool wants_json)
{
    const struct event event[] = {
        {"ZeroedHits", frames->zeroed_hits, "zeroed frames that were ready"},
        {"ZeroedMisses", frames->zeroed_misses,
         "zeroed frames that were waited for"},
        {"ZeroedFilled", frames->zeroed_filled, "cleared by idle CPUs"},
        {"Drains", frames->drains, "times all CPUs were asked for frames"},
        {"Reclaims", frames->reclaims, "times the heap was asked for frames"},
        {"Failures", frames->failures, "allocations that found no memory"},
    };

    for (size_t i = 0; i < sizeof(event) / sizeof(event[0]); i++) {
        if (wants_json) {
            json_number(event[i].name, event[i].count);
        } else {
            printk("%-14s %14lu      %s\n", event[i].name, event[i].count,
                   event[i].what);
        }
    }
}

static bool run_meminfo(const struct arguments *arguments)
{
    const struct memmap *map = memory_map();
    struct frame_watermarks marks;
    struct frame_stats frames;
    struct kmap_stats kmap;

    frame_stats(&frames);
    frame_watermarks(&marks);
    kmap_stats(&kmap);
    const struct amount amount[] = {
        {"MemTotal", frames.managed * PAGE_BYTES, "the frame allocator's RAM"},
        {"MemFree", frames.free * PAGE_BYTES, "of it free"},
        {"PerCpuFree", frames.cached * PAGE_BYTES,
         "of that in the arrays of CPUs"},
        {"Zeroed", frames.zeroed * PAGE_BYTES, "of that cleared ahead"},
        {"Offline", memmap_bytes(map, MEMMAP_OFFLINE),
         "taken out of use: frame offline"},
        {"LowFree", marks.low * PAGE_BYTES,
         "below it idle CPUs give back memory; 0: never"},
        {"Slab", frames.by_type[FRAME_SLAB] * PAGE_BYTES, "objects: slabinfo"},
        {"LargeBlocks", frames.by_type[FRAME_LARGE] * PAGE_BYTES,
         "kmalloc above 8 KiB"},
        {"PageTables", frames.by_type[FRAME_TABLE] * PAGE_BYTES,
         "tables made since start-up"},
        {"Kmap", frames.by_type[FRAME_KMAP] * PAGE_BYTES,
         "frames behind kmap blocks"},
        {"Kernel", frames.by_type[FRAME_KERNEL] * PAGE_BYTES,
         "frames for anything else"},
        {"Records", frames.metadata * PAGE_BYTES, "what is known of frames"},
        {"SetAside", frames.set_aside_bytes,
         "bitfields and counters of frames"},
        {"KernelRam", memmap_bytes(map, MEMMAP_KERNEL),
         "image, first tables, modules, SetAside"},
        {"Reserved", memmap_bytes(map, MEMMAP_RESERVED), "the firmware's"},
        {"VmallocTotal", kmap.arena_bytes, "addresses for kmap"},
        {"VmallocUsed", kmap.arena_bytes - kmap.arena_free,
         "of them used, guards included"},
    };

    if (arguments->wants_json) {
        json_begin("meminfo");
        for (size_t i = 0; i < sizeof(amount) / sizeof(amount[0]); i++) {
            json_number(amount[i].name, amount[i].bytes);
        }
        print_events(&frames, true);
        json_end();
        return true;
    }
    for (size_t i = 0; i < sizeof(amount) / sizeof(amount[0]); i++) {
        print_amount(&amount[i]);
    }
    print_events(&frames, false);
    return true;
}

/* --- buddyinfo ------------------------------------------------------------ */

static bool run_buddyinfo(const struct arguments *arguments)
{
    (void)arguments;
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        uint64_t count[MM_MAX_ORDER + 1];

        frame_free_blocks((enum frame_zone)zone, count);
        printk("Node 0, zone %8s ", frame_zone_name((enum frame_zone)zone));
        for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
            printk("%6lu ", count[order]);
        }
        printk("\n");
    }
    return true;
}

/* --- page ----------------------------------------------------------------- */

/*
 * 0x... is an address (of the direct map or the image: what it leads to),
 * a decimal number that of a frame.
 */
static bool find_frame(const struct arguments *arguments, pfn_t *out)
{
    const char *word = arguments->word[0];
    bool is_number = word[0] >= '1' && word[0] <= '9';
    struct walk walk;
    uint64_t value;

    if (!argument_address(word, &value)) {
        return false;
    }
    if (is_number) {
        *out = pfn_of(value);
        return value <= UINT64_MAX >> PAGE_SHIFT ||
               complain(arguments, "frame %s is beyond 64 bits", word);
    }
    if (value < LAYOUT_DIRECT) {
        *out = phys_to_pfn(paddr_of(value));
        return true;
    }
    if (!explain_walk(value, &walk) || walk.state != PTE_PRESENT) {
        return complain(arguments, "nothing is mapped at 0x%lx", value);
    }
    *out = phys_to_pfn(walk.physical);
    return true;
}

static const char *state_name(enum frame_state state)
{
    switch (state) {
    case FRAME_STATE_FREE:
        return "free";
    case FRAME_STATE_CACHED:
        return "free, in a CPU's array";
    case FRAME_STATE_ALLOCATED:
        return "allocated";
    case FRAME_STATE_METADATA:
        return "records or their tables";
    case FRAME_STATE_OFFLINE:
        return "offline: taken out of use";
    case FRAME_STATE_RESERVED:
        return "RAM, not the allocator's";
    case FRAME_STATE_NO_RAM:
        return "no RAM";
    }
    return "unknown";
}

static void print_record(pfn_t pfn)
{
    const struct frame_record *record = record_of(pfn);
    enum frame_type type = (enum frame_type)record->type;

    if (record->order == RECORD_TAIL || type == FRAME_NONE) {
        printk("  record : inside a larger block\n");
        return;
    }
    printk("  record : %s, order %u (%s), %u references\n",
           frame_type_name(type), record->order,
           explain_bytes(PAGE_BYTES << record->order).text,
           atomic_load_explicit(&record->refs, memory_order_relaxed));
    if (type == FRAME_TABLE) {
        printk("  entries: %u in use\n", audit_table_entries(pfn));
    } else {
        printk("  owner  : 0x%lx\n", record->owner);
    }
}

static bool run_page(const struct arguments *arguments)
{
    const struct memmap_range *range;
    pfn_t pfn = PFN_NONE;

    if (!find_frame(arguments, &pfn)) {
        return false;
    }
    enum frame_state state = frame_state(pfn);
    printk("frame %lu (0x%lx), physical 0x%lx\n", pfn.v, pfn.v,
           pfn_to_phys(pfn).v);
    printk("  state  : %s\n", state_name(state));
    if (state == FRAME_STATE_ALLOCATED) {
        print_record(pfn);
    }
    range = memmap_find(memory_map(), pfn_to_phys(pfn));
    if (range == NULL) {
        printk("  map    : a hole: nothing was said about it\n");
        return true;
    }
    printk("  map    : %s 0x%lx-0x%lx: %s%s%s\n", memmap_type_name(range->type),
           range->start, range->end - 1, range->owner,
           range->owner[0] != '\0' ? ": " : "", range->reason);
    if (memmap_is_ram(range->type)) {
        printk("  mapped : 0x%lx (direct map)\n",
               LAYOUT_DIRECT + pfn_to_phys(pfn).v);
    }
    return true;
}

static const struct command commands[] = {
    {"iomem", "memmap", "", "physical memory: what each range is, and why", "",
     0, 0, true, run_iomem},
    {"meminfo", "free", "", "what RAM is used for", "", 0, 0, true,
     run_meminfo},
    {"buddyinfo", "buddydump", "", "free blocks by zone and order", "", 0, 0,
     false, run_buddyinfo},
    {"page", "", "ADDR|PFN", "a frame: its number, decimal, or an address 0x",
     "", 1, 1, false, run_page},
};

const struct command_group command_memory =
    COMMAND_GROUP("Physical memory", commands);
