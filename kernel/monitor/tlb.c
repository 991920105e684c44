/* SPDX-License-Identifier: MIT */
/* tlb: commands about processors and what they have cached. */
#include <mm/tlb.h>

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/entry.h"
#include "kernel/explain.h"
#include "kernel/fixup.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"

/* --- tlb stats, flush ----------------------------------------------------- */

static bool print_stats(void)
{
    struct tlb_stats stats;
    unsigned parts = tlb_parts();

    tlb_stats(&stats);
    printk("in use              %s%s%s%s\n", parts & TLB_PCID ? "PCIDs, " : "",
           parts & TLB_INVPCID ? "INVPCID, " : "",
           parts & TLB_LAZY ? "idle CPUs are spared, " : "",
           parts & TLB_RANGES ? "ranges" : "whole spaces only");
    printk("batches committed   %lu\n", stats.commits);
    printk("pages invalidated   %lu\n", stats.pages);
    printk("whole flushes       %lu (above %u pages, or when tables go)\n",
           stats.whole, tlb_ceiling);
    printk("frames released     %lu\n", stats.released);
    printk("spaces loaded       %lu, %lu of them with what was cached\n",
           stats.switches, stats.kept);
    printk("interrupts sent     %lu; %lu spared, the CPU was idle\n",
           stats.interrupts, stats.spared);
    printk("requests answered   %lu; %lu were overtaken by a later flush\n",
           stats.served, stats.overtaken);
    printk("caught up           %lu\n", stats.caught_up);
    return true;
}

static bool forget(void)
{
    tlb_flush_all();
    printk("this CPU has forgotten every translation\n");
    return true;
}

/* --- tlb probe ------------------------------------------------------------ */

/* Does what a read sees agree with what the tables say now? */
static bool probe(const struct arguments *arguments)
{
    struct walk walk;
    struct probe seen;
    struct probe stored;

    if (!argument_walk(arguments, arguments->word[1], &walk)) {
        return false;
    }
    vaddr_t address = align_down(walk.address, 8);
    bool is_mapped = walk.state == PTE_PRESENT;
    /* A promise would be kept by the read: there is nothing stale to see. */
    if (walk.state == PTE_PROMISE) {
        printk("0x%lx is a promise: a read would change the tables\n", address);
        return true;
    }
    bool is_read = probe_read64((const void *)address, &seen);
    if (!is_mapped) {
        printk("tables: no translation; a read: %s\n",
               is_read ? "SUCCEEDS through a stale translation"
                       : "faults, too");
        return !is_read;
    }
    printk("tables: 0x%lx -> 0x%lx\n", walk.address, walk.physical.v);
    void *alias = phys_to_virt(paddr_of(align_down(walk.physical.v, 8)));
    if (!is_read || !probe_read64(alias, &stored)) {
        return complain(arguments, "%s cannot be read",
                        is_read ? "the frame" : "the address");
    }
    printk("a read sees 0x%lx, the frame holds 0x%lx: %s\n", seen.value,
           stored.value,
           seen.value == stored.value ? "they agree" : "STALE translation");
    return seen.value == stored.value;
}

/* --- tlb demo ------------------------------------------------------------- */

#define OLD_VALUE UINT64_C(0x01d01d01d01d01d0)
#define NEW_VALUE UINT64_C(0x2ef2ef2ef2ef2ef2)

struct remote_read {
    vaddr_t address;
    uint64_t value;
};

static void read_there(void *argument)
{
    struct remote_read *read = argument;

    read->value = *(volatile const uint64_t *)read->address;
}

/* What @cpu reads at @address. */
static uint64_t read_on(unsigned cpu, vaddr_t address)
{
    struct remote_read read = {address, 0};

    return smp_call(cpu, read_there, &read) == MM_OK ? read.value : 0;
}

static void say_read(const char *when, unsigned cpu, uint64_t value)
{
    printk("  %s CPU %u reads %016lx: %s\n", when, cpu, value,
           value == NEW_VALUE ? "the new frame" : "the old frame");
}

/*
 * Lead @page to @frame, tell this CPU and not the other, and then tell it.
 * The entry is put back, by the rules, at the end.
 */
static bool show_shootdown(vaddr_t page, pfn_t frame, unsigned other)
{
    unsigned me = port_cpu();
    volatile pte_t *entry = entry_find(page, 0);
    pte_t old = {entry->v};
    struct tlb_stats before;
    struct tlb_stats after;

    *(uint64_t *)page = OLD_VALUE;
    *(uint64_t *)phys_to_virt(pfn_to_phys(frame)) = NEW_VALUE;
    printk("0x%lx is mapped to frame 0x%lx; both CPUs read it.\n", page,
           pte_pfn(old, 0).v);
    say_read("now", other, read_on(other, page));
    printk("CPU %u changes the entry to frame 0x%lx and forgets the page, "
           "but tells nobody.\n",
           me, frame.v);
    entry->v = (old.v & ~PTE_FRAME) | pfn_to_phys(frame).v;
    tlb_flush_all();
    say_read("now", me, *(volatile const uint64_t *)page);
    uint64_t stale = read_on(other, page);
    say_read("now", other, stale);
    printk(stale == OLD_VALUE
               ? "CPU %u is stale: were frame 0x%lx given to somebody else, "
                 "it would read and write there.\n"
               : "CPU %u had forgotten the old frame 0x%lx by itself; no "
                 "program may rely on that.\n",
           other, pte_pfn(old, 0).v);
    tlb_stats(&before);
    entry_invalidate(page);
    tlb_stats(&after);
    printk("tlb_commit(): %lu interrupts sent, %lu requests answered, %lu "
           "pages invalidated.\n",
           after.interrupts - before.interrupts, after.served - before.served,
           after.pages - before.pages);
    uint64_t fresh = read_on(other, page);
    say_read("now", other, fresh);
    entry->v = old.v;
    entry_invalidate(page);
    return fresh == NEW_VALUE;
}

static bool demonstrate(const struct arguments *arguments)
{
    unsigned other = smp_first_other();

    if (!must_be_first(arguments)) {
        return false;
    }
    if (other == smp_possible()) {
        return complain(arguments, "the demo needs a second CPU (in QEMU: "
                                   "make run CPUS=2)");
    }
    void *page = kmap_alloc(PAGE_BYTES, KMAP_EAGER, "tlb demo");
    pfn_t frame = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    bool success = page != NULL && !pfn_is_none(frame);
    if (success) {
        success = show_shootdown((vaddr_t)page, frame, other);
    } else {
        complain(arguments, "no memory for two frames");
    }
    if (!pfn_is_none(frame)) {
        frame_free(frame, 0);
    }
    kmap_free(page);
    return success;
}

/* --- tlb ceiling ---------------------------------------------------------- */

/* Pages in use: what a whole flush makes the CPU walk to again. */
#define WORKING_PAGES 256
#define MOST_PAGES    128
#define TRIES         32

/* Invalidate @pages pages, one by one up to the ceiling; then use them all. */
static uint64_t time_of_flush(vaddr_t block, unsigned pages)
{
    struct tlb_batch batch;
    uint64_t best = UINT64_MAX;

    for (unsigned try = 0; try < TRIES; try++) {
        uint64_t start = cpu_rdtsc();

        tlb_batch_init(&batch, &pt_kernel.tlb);
        tlb_batch_range(&batch, block, block + pages * PAGE_BYTES, 0);
        tlb_commit(&batch);
        for (unsigned i = 0; i < WORKING_PAGES; i++) {
            (void)*(volatile char *)(block + i * PAGE_BYTES);
        }
        best = min_u64(best, cpu_rdtsc() - start);
    }
    return best;
}

/* From how many pages on is one whole flush the cheaper one, here? */
static bool measure_ceiling(const struct arguments *arguments)
{
    unsigned saved = tlb_ceiling;
    unsigned pages = 1;
    void *block =
        kmap_alloc(WORKING_PAGES * PAGE_BYTES, KMAP_EAGER, "tlb ceiling");

    if (block == NULL) {
        return complain(arguments, "no memory for %d pages", WORKING_PAGES);
    }
    tlb_ceiling = 0;
    uint64_t whole = time_of_flush((vaddr_t)block, 1);
    printk("a whole flush, and %d pages used again: %lu %s\n", WORKING_PAGES,
           whole, cpu_clock_unit());
    tlb_ceiling = MOST_PAGES;
    uint64_t ranges = time_of_flush((vaddr_t)block, pages);
    printk("%4u page, the same used: %lu\n", pages, ranges);
    while (ranges < whole && pages < MOST_PAGES) {
        pages *= 2;
        ranges = time_of_flush((vaddr_t)block, pages);
        printk("%4u pages one by one, the same used: %lu\n", pages, ranges);
    }
    tlb_ceiling = saved;
    kmap_free(block);
    printk(ranges < whole ? "%u pages one by one are still cheaper"
                          : "%u pages one by one are dearer",
           pages);
    printk("; the ceiling is %u\n", saved);
    return true;
}

static bool run_tlb(const struct arguments *arguments)
{
    const char *what = arguments->count > 0 ? arguments->word[0] : "stats";

    if (strcmp(what, "stats") == 0) {
        return print_stats();
    }
    if (strcmp(what, "flush") == 0) {
        return forget();
    }
    if (strcmp(what, "demo") == 0) {
        return demonstrate(arguments);
    }
    if (strcmp(what, "ceiling") == 0) {
        return measure_ceiling(arguments);
    }
    if (strcmp(what, "probe") == 0) {
        return arguments->count == 2
                   ? probe(arguments)
                   : complain(arguments, "probe needs an address");
    }
    return complain(arguments,
                    "stats, flush, probe ADDR, demo or ceiling, not %s", what);
}

/* --- cpus ----------------------------------------------------------------- */

static const char *what_it_does(unsigned cpu, bool is_lazy)
{
    if (!smp_is_online(cpu)) {
        return "left out";
    }
    if (cpu == port_cpu()) {
        return "this one";
    }
    return is_lazy ? "idle" : "at work";
}

static bool run_cpus(const struct arguments *arguments)
{
    (void)arguments;
    printk("cpu  apic  state      space generation pcid   sent answered\n");
    for (unsigned i = 0; i < smp_possible(); i++) {
        const struct percpu *cpu = percpu_of(i);
        struct tlb_cpu_state state;
        struct tlb_stats stats;

        if (cpu == NULL) {
            printk("%3u     -  left out\n", i);
            continue;
        }
        tlb_cpu_look(i, &state);
        tlb_cpu_stats(i, &stats);
        printk("%3u %5u  %-9s %6lu %10lu %4u %6lu %8lu\n", i, cpu->apic_id,
               what_it_does(i, state.is_lazy), state.space, state.generation,
               state.pcid, stats.interrupts, stats.served);
    }
    return true;
}

/* --- on ------------------------------------------------------------------- */

struct errand {
    const struct arguments *arguments;
    bool success;
};

static void run_errand(void *argument)
{
    struct errand *errand = argument;

    errand->success =
        command_run(errand->arguments->word + 1, errand->arguments->count - 1);
}

static bool run_on(const struct arguments *arguments)
{
    struct errand errand = {arguments, false};
    uint64_t cpu;

    if (!must_be_first(arguments) ||
        !argument_number(arguments->word[0], &cpu)) {
        return false;
    }
    enum mm_status status = cpu < smp_possible()
                                ? smp_call((unsigned)cpu, run_errand, &errand)
                                : MM_EINVAL;
    if (status != MM_OK) {
        return complain(arguments,
                        "CPU %lu cannot be given work (%s; see: "
                        "cpus)",
                        cpu, mm_status_name(status));
    }
    return errand.success;
}

static const struct command commands[] = {
    {"cpus", "", "", "every processor: what it does and has loaded", "", 0, 0,
     false, run_cpus},
    {"on", "", "CPU COMMAND...", "run a command on another processor", "", 2,
     WORDS_MAX - 1, false, run_on},
    {"tlb", "", "[stats|flush|demo|...]",
     "counters; forget all; probe ADDR; demo; ceiling",
     "stats flush probe demo ceiling", 0, 2, false, run_tlb},
};

const struct command_group command_tlb = COMMAND_GROUP("Processors", commands);
