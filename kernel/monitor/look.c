/* SPDX-License-Identifier: MIT */
/* look: commands that look at an address. */
#include <mm/slab.h>
#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/explain.h"
#include "kernel/fixup.h"
#include "kernel/image.h"
#include "kernel/lib/string.h"
#include "kernel/memory.h"
#include "kernel/place.h"
#include "kernel/monitor/command.h"
#include "kernel/symbols.h"

#define DUMP_BYTES   64 /* without a count */
#define DUMP_MOST    (64 * KiB)
#define DUMP_COLUMNS 16

/* --- x -------------------------------------------------------------------- */

/* Read up to a line of bytes; how many could be read. */
static unsigned read_bytes(vaddr_t address, unsigned count, uint8_t *out)
{
    struct probe probe;
    unsigned i;

    for (i = 0; i < count; i++) {
        if (!probe_read8((const void *)(address + i), &probe)) {
            break;
        }
        out[i] = (uint8_t)probe.value;
    }
    return i;
}

/* @address is what x was asked about: with xp, a physical one. */
static void print_bytes(uint64_t address, const uint8_t *bytes, unsigned count)
{
    printk("%016lx ", address);
    for (unsigned i = 0; i < DUMP_COLUMNS; i++) {
        if (i < count) {
            printk(" %02x", bytes[i]);
        } else {
            printk("   ");
        }
    }
    printk("  ");
    for (unsigned i = 0; i < count; i++) {
        bool is_plain = bytes[i] >= ' ' && bytes[i] < 0x7f;
        printk("%c", is_plain ? bytes[i] : '.');
    }
    printk("\n");
}

static bool complain_unreadable(const struct arguments *arguments,
                                uint64_t address, bool is_physical)
{
    if (!is_physical) {
        return complain(arguments, "0x%lx cannot be read (try: explain 0x%lx)",
                        address, address);
    }
    const struct memmap_range *range =
        memmap_find(memory_map(), paddr_of(address));
    if (range != NULL && memmap_is_ram(range->type)) {
        return complain(arguments, "0x%lx cannot be read (try: page 0x%lx)",
                        address, address);
    }
    return complain(arguments, "0x%lx is no RAM: %s", address,
                    range != NULL ? range->reason
                                  : "nothing in the memory map");
}

/* Dump @bytes that begin at @address of memory, seen @offset higher. */
static bool dump(const struct arguments *arguments, uint64_t address,
                 uint64_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        uint8_t line[DUMP_COLUMNS];
        unsigned wanted = (unsigned)min_u64(bytes, DUMP_COLUMNS);
        unsigned count = read_bytes(address + offset, wanted, line);

        if (count > 0) {
            print_bytes(address, line, count);
        }
        if (count < wanted) {
            return complain_unreadable(arguments, address + count, offset != 0);
        }
        address += count;
        bytes -= count;
    }
    return true;
}

/* x, and xp: through the direct map, where the RAM is. */
static bool run_x(const struct arguments *arguments)
{
    bool is_physical = strcmp(arguments->name, "xp") == 0;
    uint64_t address;
    uint64_t bytes = DUMP_BYTES;

    if (!argument_address(arguments->word[0], &address) ||
        (arguments->count > 1 &&
         !argument_number(arguments->word[1], &bytes))) {
        return false;
    }
    if (bytes == 0) {
        return complain(arguments, "0 bytes leave nothing to show");
    }
    if (bytes > DUMP_MOST) {
        return complain(arguments, "%lu bytes are more than %lu", bytes,
                        DUMP_MOST);
    }
    if (is_physical && (address >= LAYOUT_DIRECT_BYTES ||
                        bytes > LAYOUT_DIRECT_BYTES - address)) {
        return complain(arguments,
                        "0x%lx is no physical address in reach: they end "
                        "at 0x%lx",
                        address >= LAYOUT_DIRECT_BYTES ? address
                                                       : LAYOUT_DIRECT_BYTES,
                        LAYOUT_DIRECT_BYTES);
    }
    return dump(arguments, address, bytes, is_physical ? LAYOUT_DIRECT : 0);
}

/* --- explain -------------------------------------------------------------- */

/* Which of the six kinds of access to judge. */
struct question {
    bool asks_read;
    bool asks_write;
    bool asks_exec;
    bool asks_kernel;
    bool asks_user;
};

static bool read_question(const struct arguments *arguments,
                          struct question *out)
{
    *out = (struct question){0};
    for (unsigned i = 1; i < arguments->count; i++) {
        const char *word = arguments->word[i];

        if (word[0] == '\0' || word[1] != '\0') {
            return complain(arguments, "r, w, x, u or k, not %s", word);
        }
        switch (word[0]) {
        case 'r':
            out->asks_read = true;
            break;
        case 'w':
            out->asks_write = true;
            break;
        case 'x':
            out->asks_exec = true;
            break;
        case 'u':
            out->asks_user = true;
            break;
        case 'k':
            out->asks_kernel = true;
            break;
        default:
            return complain(arguments, "r, w, x, u or k, not %s", word);
        }
    }
    if (!out->asks_read && !out->asks_write && !out->asks_exec) {
        out->asks_read = out->asks_write = out->asks_exec = true;
    }
    if (!out->asks_kernel && !out->asks_user) {
        out->asks_kernel = out->asks_user = true;
    }
    return true;
}

/* What the fault handler does about what is no error. */
static const char *const remedy[] = {
    [FAULT_RESOLVED] = "the fault handler supplies a zeroed frame",
    [FAULT_UNSHARED] = "the fault handler gives a copy, or the page itself",
    [FAULT_SPURIOUS] = "the fault handler has it tried again",
};

/* "kernel write: faults, error code 0x3: page is read-only, by PD[145]" */
static void judge(const struct walk *walk, unsigned access)
{
    struct walk_rules rules = explain_rules();
    unsigned blame;
    enum walk_verdict verdict = walk_judge(walk, access, &rules, &blame);
    enum fault_result result = explain_fault(walk, access, &rules, &blame);

    printk("  %-6s %-7s: ", (access & WALK_USER) != 0 ? "user" : "kernel",
           (access & WALK_EXEC) != 0    ? "execute"
           : (access & WALK_WRITE) != 0 ? "write"
                                        : "read");
    if (verdict == WALK_ALLOWED) {
        printk("works\n");
        return;
    }
    if (verdict == WALK_NON_CANONICAL) {
        printk("#GP: %s\n", walk_verdict_text(verdict));
        return;
    }
    const struct walk_step *step = &walk->step[blame];
    printk("#PF, error code 0x%x: %s, by %s[%u]\n",
           explain_error_code(verdict, access, &rules),
           walk_verdict_text(verdict), walk_level_name(step->level),
           step->index);
    if (fault_is_settled(result)) {
        printk("                  and %s\n", remedy[result]);
    } else {
        printk("                  an error: %s\n", fault_result_text(result));
    }
}

static void judge_all(const struct walk *walk, const struct question *question)
{
    static const unsigned origins[] = {0, WALK_USER};

    for (size_t i = 0; i < sizeof(origins) / sizeof(origins[0]); i++) {
        bool is_user = origins[i] == WALK_USER;

        if (!(is_user ? question->asks_user : question->asks_kernel)) {
            continue;
        }
        if (question->asks_read) {
            judge(walk, origins[i] | WALK_READ);
        }
        if (question->asks_write) {
            judge(walk, origins[i] | WALK_WRITE);
        }
        if (question->asks_exec) {
            judge(walk, origins[i] | WALK_EXEC);
        }
    }
}

static void print_symbol(vaddr_t address)
{
    const char *name;
    const char *file;
    uint64_t offset;
    unsigned line;

    if (symbol_find(address, &name, &offset)) {
        printk("  code: %s+0x%lx", name, offset);
        if (symbol_line(address, &file, &line)) {
            printk(" (%s:%u)", file, line);
        }
        printk("\n");
    }
}

static void print_object(vaddr_t address)
{
    struct slab_place place;

    if (address >= LAYOUT_DIRECT && address < LAYOUT_KMAP &&
        slab_find((const void *)address, &place)) {
        printk("  heap: 0x%lx bytes into object %u of cache %s (%lu bytes, "
               "%s)\n",
               address - place.object, place.index, place.cache_name,
               place.object_bytes, place.is_live ? "live" : "free");
    }
}

static bool run_explain(const struct arguments *arguments)
{
    struct walk_rules rules = explain_rules();
    struct question question;
    struct walk walk;
    uint64_t address;

    if (!argument_address(arguments->word[0], &address) ||
        !read_question(arguments, &question)) {
        return false;
    }
    if (!explain_walk(address, &walk)) {
        return complain(arguments,
                        "the tables on the way to 0x%lx cannot be read",
                        address);
    }
    printk("0x%lx is in: %s\n", address, place_text(address).text);
    print_symbol(address);
    print_object(address);
    explain_print_walk(&walk, EXPLAIN_NO_BLAME, "  ");
    if (walk.state == PTE_PRESENT &&
        walk_judge(&walk, WALK_READ, &rules, NULL) != WALK_RESERVED_BIT) {
        explain_print_effect(&walk);
    }
    judge_all(&walk, &question);
    return true;
}

static const struct command commands[] = {
    {"x", "xp dumpvm", "ADDR [BYTES]", "hexdump (xp: of a physical address)",
     "", 1, 2, false, run_x},
    {"explain", "", "ADDR [r|w|x] [u|k]", "what an access would do, and why",
     "", 1, 6, false, run_explain},
};

const struct command_group command_look = COMMAND_GROUP("Addresses", commands);
