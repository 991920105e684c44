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

bool argument_walk(const struct arguments *arguments, const char *word,
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

    if (!argument_walk(arguments, arguments->word[0], &walk)) {
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

    if (!argument_walk(arguments, arguments->word[0], &walk)) {
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

static const struct command commands[] = {
    {"pagewalk", "walk vtop", "ADDR", "an address through each level", "", 1, 1,
     false, run_pagewalk},
    {"v2p", "", "ADDR", "virtual to physical address", "", 1, 1, false,
     run_v2p},
    {"p2v", "", "ADDR", "physical address to the virtual ones", "", 1, 1, false,
     run_p2v},
};

const struct command_group command_tables =
    COMMAND_GROUP("Translation", commands);
