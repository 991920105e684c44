/* SPDX-License-Identifier: MIT */
/* tables: commands about translations. */
#include <mm/audit.h>
#include "kernel/console/console.h"
#include "kernel/explain.h"
#include "kernel/place.h"
#include "kernel/memory.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/pt.h"

/* --- pagewalk ------------------------------------------------------------- */

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
        explain_print_effect(&walk);
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

/* Mappings of one frame. */
struct search {
    paddr_t physical;
    const struct pt *pt; /* whose tables these are */
    unsigned found;
};

static bool show_mapping(void *context, const struct audit_run *run)
{
    struct search *search = context;
    uint64_t offset = search->physical.v - pfn_to_phys(run->pfn).v;
    bool has_frames = run->state == PTE_PRESENT || run->state == PTE_PARKED;
    struct place place;

    if (has_frames && offset < run->bytes) {
        place_find(run->start + offset, &place);
        printk("0x%lx  %s%s%s  %s", run->start + offset, place.kind,
               place.name[0] != '\0' ? " " : "", place.name,
               pt_run_text(run).text);
        if (!search->pt->is_kernel) {
            printk("  space 0x%lx", pfn_to_phys(search->pt->root).v);
        }
        printk("\n");
        search->found++;
    }
    return true;
}

/* Every virtual address of a physical one, found by looking at all tables. */
static bool run_p2v(const struct arguments *arguments)
{
    struct search search = {.pt = &pt_kernel};

    if (!argument_number(arguments->word[0], &search.physical.v)) {
        return false;
    }
    audit_extents(&pt_kernel, 0, 0, show_mapping, &search);
    for (struct pt *pt = pt_next(NULL); pt != NULL; pt = pt_next(pt)) {
        search.pt = pt;
        audit_extents(pt, 0, pt_half_end(), show_mapping, &search);
    }
    if (search.found > 0) {
        return true;
    }
    const struct memmap_range *range =
        memmap_find(memory_map(), search.physical);
    return complain(arguments, "0x%lx is mapped nowhere: it is %s",
                    search.physical.v,
                    range == NULL || !memmap_is_ram(range->type)
                        ? "no RAM"
                        : memmap_type_name(range->type));
}

static const struct command commands[] = {
    {"pagewalk", "walk vtop", "ADDR", "an address through each level", "", 1, 1,
     false, run_pagewalk},
    {"v2p", "", "ADDR", "virtual to physical address", "", 1, 1, false,
     run_v2p},
    {"p2v", "alias", "PHYSICAL", "physical address to all virtual ones", "", 1,
     1, false, run_p2v},
};

const struct command_group command_tables =
    COMMAND_GROUP("Translation", commands);
