/* SPDX-License-Identifier: MIT */
/* tables: commands about translations. */
#include <mm/pt.h>
#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/explain.h"
#include "kernel/fixup.h"
#include "kernel/image.h"
#include "kernel/lib/string.h"
#include "kernel/place.h"
#include "kernel/memory.h"
#include "kernel/monitor/command.h"

/* --- pagewalk ------------------------------------------------------------- */

static void print_effect(const struct walk *walk)
{
    unsigned level = walk->step[walk->count - 1].level;
    pte_t entry = walk->step[walk->count - 1].entry;

    printk("  all levels together: r%c%c %s, %s, %s page\n",
           walk->is_writable ? 'w' : '-', walk->is_executable ? 'x' : '-',
           walk->is_user ? "user" : "supervisor",
           explain_memory(pte_attr(entry, level).memory),
           explain_leaf_bytes(level));
    printk("  0x%lx -> physical 0x%lx (frame %s)\n", walk->address,
           walk->physical.v, explain_frame(phys_to_pfn(walk->physical)).text);
}

/* The walk to @word, or a sentence and false. */
static bool walk_to(const struct arguments *arguments, const char *word,
                    struct walk *out)
{
    uint64_t address;

    if (!argument_address(word, &address)) {
        return false;
    }
    if (!explain_walk(address, out)) {
        return complain(arguments,
                        "the tables on the way to 0x%lx cannot be "
                        "read",
                        address);
    }
    if (out->count == 0) {
        return complain(arguments,
                        "0x%lx is not canonical: bits %u to 63 differ", address,
                        pte_shift(pt_features.levels) - 1);
    }
    return true;
}

static bool run_pagewalk(const struct arguments *arguments)
{
    struct walk walk;
    struct walk_rules rules = explain_rules();
    unsigned blame;

    if (!walk_to(arguments, arguments->word[0], &walk)) {
        return false;
    }
    enum walk_verdict verdict = walk_judge(&walk, WALK_READ, &rules, &blame);
    bool is_reached = walk.state == PTE_PRESENT && verdict != WALK_RESERVED_BIT;
    explain_print_walk(&walk, is_reached ? EXPLAIN_NO_BLAME : blame, "  ");
    if (is_reached) {
        print_effect(&walk);
    } else {
        printk("  no translation: %s\n", walk_verdict_text(verdict));
    }
    printk("  the address is in: %s\n", place_text(walk.address).text);
    return true;
}

/* --- v2p, p2v ------------------------------------------------------------- */

static bool run_v2p(const struct arguments *arguments)
{
    struct walk walk;

    if (!walk_to(arguments, arguments->word[0], &walk)) {
        return false;
    }
    if (walk.state != PTE_PRESENT) {
        return complain(arguments,
                        "nothing is mapped at 0x%lx (try: pagewalk 0x%lx)",
                        walk.address, walk.address);
    }
    printk("0x%lx\n", walk.physical.v);
    return true;
}

static bool run_p2v(const struct arguments *arguments)
{
    uint64_t physical;
    uint64_t image = image_physical(image_start);
    uint64_t image_bytes = (uint64_t)(image_end - image_start);

    if (!argument_number(arguments->word[0], &physical)) {
        return false;
    }
    const struct memmap_range *range =
        memmap_find(memory_map(), paddr_of(physical));
    if (range == NULL || !memmap_is_ram(range->type)) {
        return complain(arguments,
                        "0x%lx is no RAM: the direct map does not have it",
                        physical);
    }
    printk("0x%lx  direct map\n", LAYOUT_DIRECT + physical);
    if (physical - image < image_bytes) {
        printk("0x%lx  kernel image\n", LAYOUT_IMAGE + physical);
    }
    return true;
}

/* --- tlb ------------------------------------------------------------------ */

static bool tlb_print_stats(void)
{
    struct tlb_stats stats;

    tlb_stats(&stats);
    printk("batches committed   %lu\n", stats.commits);
    printk("pages invalidated   %lu\n", stats.pages);
    printk("whole flushes       %lu (above %u pages, or when tables go)\n",
           stats.whole, tlb_ceiling);
    printk("spaces loaded       %lu\n", stats.switches);
    printk("frames released     %lu\n", stats.released);
    return true;
}

/* Does what a read sees agree with what the tables say now? */
static bool tlb_probe(const struct arguments *arguments)
{
    struct walk walk;
    struct probe seen;
    struct probe stored;

    if (!walk_to(arguments, arguments->word[1], &walk)) {
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

static bool run_tlb(const struct arguments *arguments)
{
    const char *what = arguments->count > 0 ? arguments->word[0] : "stats";

    if (strcmp(what, "stats") == 0) {
        return tlb_print_stats();
    }
    if (strcmp(what, "flush") == 0) {
        tlb_flush_all();
        printk("this CPU has forgotten every translation\n");
        return true;
    }
    if (strcmp(what, "probe") == 0) {
        return arguments->count == 2
                   ? tlb_probe(arguments)
                   : complain(arguments, "probe needs an address");
    }
    return complain(arguments, "stats, flush or probe ADDR, not %s", what);
}

static const struct command commands[] = {
    {"pagewalk", "walk vtop", "ADDR", "an address through each level", "", 1, 1,
     false, run_pagewalk},
    {"v2p", "", "ADDR", "virtual to physical address", "", 1, 1, false,
     run_v2p},
    {"p2v", "", "ADDR", "physical address to the virtual ones", "", 1, 1, false,
     run_p2v},
    {"tlb", "", "[stats|flush|probe ADDR]",
     "counters; forget all; read against walk", "stats flush probe", 0, 2,
     false, run_tlb},
};

const struct command_group command_tables =
    COMMAND_GROUP("Translation", commands);
