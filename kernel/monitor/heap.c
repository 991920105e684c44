/* SPDX-License-Identifier: MIT */
/* heap: commands about the heap, and counters of everything. */
#include <mm/fault.h>
#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/slab.h>
#include <mm/tlb.h>
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/irq.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/json.h"

/* --- slabinfo ------------------------------------------------------------- */

static void print_cache_json(const struct slab_stats *stats)
{
    json_begin("slabinfo");
    json_text("name", stats->name);
    json_number("active_objs", stats->live);
    json_number("cached_objs", stats->cached);
    json_number("num_objs", stats->slabs * stats->slab_objects);
    json_number("objsize", stats->object_bytes);
    json_number("stride", stats->stride_bytes);
    json_number("objperslab", stats->slab_objects);
    json_number("pagesperslab", stats->slab_frames);
    json_number("num_slabs", stats->slabs);
    json_number("allocs", stats->allocs);
    json_number("frees", stats->frees);
    json_number("failures", stats->failures);
    json_end();
}

static void print_cache(const struct slab_stats *stats)
{
    printk("%-17s %13lu %10lu %9lu %12lu %14lu %7lu %8lu\n", stats->name,
           stats->live, stats->slabs * stats->slab_objects, stats->object_bytes,
           stats->slab_objects, stats->slab_frames, stats->slabs,
           stats->cached);
}

/* Without -a only caches that have memory: there are some sixty classes. */
static bool run_slabinfo(const struct arguments *arguments)
{
    bool wants_all = arguments->count > 0;
    const struct slab_cache *cache = NULL;
    struct slab_stats stats;
    unsigned hidden = 0;

    if (wants_all && strcmp(arguments->word[0], "-a") != 0) {
        return complain(arguments, "-a, not %s", arguments->word[0]);
    }
    if (!arguments->wants_json) {
        printk("# name            <active_objs> <num_objs> <objsize> "
               "<objperslab> <pagesperslab> <slabs> <cached>\n");
    }
    while ((cache = slab_next(cache)) != NULL) {
        slab_stats(cache, &stats);
        if (arguments->wants_json) {
            print_cache_json(&stats);
        } else if (wants_all || stats.slabs > 0) {
            print_cache(&stats);
        } else {
            hidden++;
        }
    }
    if (hidden > 0) {
        printk("# and %u without a slab: slabinfo -a\n", hidden);
    }
    return true;
}

/* --- vmstat --------------------------------------------------------------- */

static void print_counter(const char *name, uint64_t value)
{
    printk("%-24s %lu\n", name, value);
}

static void print_frames(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    print_counter("nr_free_pages", stats.free);
    print_counter("nr_slab_pages", stats.by_type[FRAME_SLAB]);
    print_counter("nr_page_table_pages", stats.by_type[FRAME_TABLE]);
    print_counter("nr_kmap_pages", stats.by_type[FRAME_KMAP]);
    print_counter("nr_record_pages", stats.metadata);
    print_counter("pgalloc", stats.allocs);
    print_counter("pgfree", stats.frees);
    print_counter("pgalloc_fail", stats.failures);
    print_counter("pcp_refill", stats.refills);
    print_counter("pcp_drain_all", stats.drains);
    print_counter("reclaim", stats.reclaims);
    print_counter("pgzero_filled", stats.zeroed_filled);
    print_counter("pgzero_hit", stats.zeroed_hits);
    print_counter("pgzero_miss", stats.zeroed_misses);
}

static void print_faults(void)
{
    static const char *const name[FAULT_RESULTS] = {
        [FAULT_RESOLVED] = "pgfault_zeroed",
        [FAULT_UNSHARED] = "pgfault_unshared",
        [FAULT_SPURIOUS] = "pgfault_spurious",
        [FAULT_NULL] = "pgfault_null",
        [FAULT_GUARD] = "pgfault_guard",
        [FAULT_NOT_MAPPED] = "pgfault_not_mapped",
        [FAULT_READ_ONLY] = "pgfault_read_only",
        [FAULT_NO_EXECUTE] = "pgfault_no_execute",
        [FAULT_RESERVED_BIT] = "pgfault_reserved_bit",
        [FAULT_SUPERVISOR] = "pgfault_supervisor",
        [FAULT_USER_EXEC] = "pgfault_user_exec",
        [FAULT_USER_ACCESS] = "pgfault_user_access",
        [FAULT_NO_ACCESS] = "pgfault_no_access",
        [FAULT_NO_MEMORY] = "pgfault_no_memory",
    };
    struct fault_stats stats;
    uint64_t sum = 0;

    fault_stats(&stats);
    for (unsigned i = 0; i < FAULT_RESULTS; i++) {
        sum += stats.count[i];
    }
    print_counter("pgfault", sum);
    for (unsigned i = 0; i < FAULT_RESULTS; i++) {
        print_counter(name[i], stats.count[i]);
    }
}

static void print_counters(void)
{
    struct tlb_stats tlb;

    print_frames();
    print_faults();
    tlb_stats(&tlb);
    print_counter("nr_tlb_commit", tlb.commits);
    print_counter("nr_tlb_local_flush_one", tlb.pages);
    print_counter("nr_tlb_local_flush_all", tlb.whole);
    print_counter("nr_tlb_released", tlb.released);
    print_counter("nr_tlb_remote_flush", tlb.interrupts);
    print_counter("nr_tlb_remote_flush_received", tlb.served);
}

/* Asleep for @seconds, or until a key is typed: then true. */
static bool is_stopped_within(uint64_t seconds)
{
    uint64_t end = irq_ticks() + seconds * IRQ_TIMER_HZ;

    while (irq_ticks() < end) {
        if (console_getchar_nonblocking() >= 0) {
            return true;
        }
        cpu_wait_for_interrupt();
    }
    return false;
}

/* An hour: what is longer was hardly meant. */
#define SECONDS_MAX 3600

static bool run_vmstat(const struct arguments *arguments)
{
    uint64_t seconds = 0;

    if (arguments->count > 0 &&
        !argument_number(arguments->word[0], &seconds)) {
        return false;
    }
    if (arguments->count > 0 && (seconds == 0 || seconds > SECONDS_MAX)) {
        return complain(arguments, "%lu is not between 1 and %u seconds",
                        seconds, SECONDS_MAX);
    }
    print_counters();
    while (seconds > 0 && !is_stopped_within(seconds)) {
        printk("\n");
        print_counters();
    }
    return true;
}

/* --- kmalloc, kfree ------------------------------------------------------- */

static bool run_kmalloc(const struct arguments *arguments)
{
    struct slab_place place;
    uint64_t bytes;

    if (!argument_number(arguments->word[0], &bytes)) {
        return false;
    }
    if (bytes == 0 || bytes > KMALLOC_MAX) {
        return complain(arguments, "%lu is not between 1 and %lu", bytes,
                        KMALLOC_MAX);
    }
    void *block = kmalloc(bytes);
    if (block == NULL) {
        return complain(arguments, "no memory for %lu bytes", bytes);
    }
    printk("0x%lx: %lu bytes usable", (vaddr_t)block, ksize(block));
    if (slab_find(block, &place)) {
        printk(", object %u of the slab at 0x%lx, cache %s\n", place.index,
               place.slab_start, place.cache_name);
    } else {
        printk(", a run of frames\n");
    }
    return true;
}

/* A wrong address would be a BUG report, which ends the machine. */
static bool is_live_block(vaddr_t address)
{
    struct slab_place place;
    pfn_t pfn = phys_to_pfn(virt_to_phys((const void *)address));

    if (slab_find((const void *)address, &place)) {
        return place.is_live && place.object == address &&
               strncmp(place.cache_name, "kmalloc-", 8) == 0;
    }
    return address % PAGE_BYTES == 0 &&
           frame_state(pfn) == FRAME_STATE_ALLOCATED &&
           record_of(pfn)->type == FRAME_LARGE &&
           record_of(pfn)->order != RECORD_TAIL;
}

static bool run_kfree(const struct arguments *arguments)
{
    uint64_t address;

    if (!argument_address(arguments->word[0], &address)) {
        return false;
    }
    if (address < LAYOUT_DIRECT || address >= LAYOUT_KMAP ||
        !is_live_block(address)) {
        return complain(arguments, "0x%lx is no live block of the heap",
                        address);
    }
    kfree((void *)address);
    printk("0x%lx is free\n", address);
    return true;
}

static const struct command commands[] = {
    {"slabinfo", "", "[-a]", "caches of equal objects", "-a", 0, 1, true,
     run_slabinfo},
    {"vmstat", "", "[SECS]",
     "counters: frames, faults, TLB; again every SECS until a key is typed", "",
     0, 1, false, run_vmstat},
    {"kmalloc", "", "BYTES", "allocate, and say where", "", 1, 1, false,
     run_kmalloc},
    {"kfree", "", "ADDR", "free what kmalloc gave", "", 1, 1, false, run_kfree},
};

const struct command_group command_heap = COMMAND_GROUP("Heap", commands);
