/* SPDX-License-Identifier: MIT */
/* vmstat: counters of everything. */
#include <mm/fault.h>
#include <mm/frame.h>
#include <mm/tlb.h>
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/irq.h"
#include "kernel/monitor/command.h"

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

bool wait_for_key(uint64_t seconds)
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
    while (seconds > 0 && !wait_for_key(seconds)) {
        printk("\n");
        print_counters();
    }
    return true;
}

static const struct command commands[] = {
    {"vmstat", "", "[SECS]",
     "counters: frames, faults, TLB; again every SECS until a key is typed", "",
     0, 1, false, run_vmstat},
};

const struct command_group command_vmstat = COMMAND_GROUP("Counters", commands);
