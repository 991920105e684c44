/* SPDX-License-Identifier: MIT */
/* pt: page tables as a list of ranges: the kernel's, or those loaded. */
#include "kernel/monitor/pt.h"

#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/explain.h"
#include "kernel/image.h"
#include "kernel/lib/format.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/json.h"
#include "kernel/place.h"

/* What is shown of the tables, and the sums of what was. */
struct listing {
    bool wants_json;
    const char *filter;           /* letters of wxus: all must hold */
    const char *levels;           /* digits of levels to show, "" = all */
    const char *area;             /* of the latest line */
    uint64_t present[PTE_LEVELS]; /* bytes by level */
    uint64_t promised;
    uint64_t lines;
};

static bool has_right(const struct audit_run *run, char letter)
{
    unsigned flags = run->attr.flags;

    switch (letter) {
    case 'w':
        return (flags & PT_WRITE) != 0;
    case 'x':
        return (flags & PT_EXEC) != 0;
    case 'u':
        return (flags & PT_USER) != 0;
    default: /* s */
        return (flags & PT_USER) == 0;
    }
}

static bool is_wanted(const struct listing *listing,
                      const struct audit_run *run)
{
    if (listing->levels[0] != '\0') {
        const char level[2] = {(char)('0' + run->level), '\0'};
        const char *at = listing->levels;

        while (*at != '\0' && *at != level[0]) {
            at++;
        }
        if (*at == '\0' || run->state != PTE_PRESENT) {
            return false;
        }
    }
    for (const char *at = listing->filter; *at != '\0'; at++) {
        if (run->state != PTE_PRESENT || !has_right(run, *at)) {
            return false;
        }
    }
    return true;
}

static const char *state_name(const struct audit_run *run)
{
    static const char *const promise[] = {
        [PT_ZERO] = "zeroed on touch",
        [PT_OBJECT] = "object page on touch",
        [PT_GUARD] = "guard",
        [PT_GUARD_GROW] = "guard, may move",
    };

    switch (run->state) {
    case PTE_PROMISE:
        return promise[run->promise];
    case PTE_PARKED:
        return "parked";
    case PTE_SWAPPED:
        return "swapped";
    case PTE_DAMAGED:
        return "damaged";
    default:
        return run->is_contiguous ? "" : "scattered frames";
    }
}

void pt_json_run(const struct audit_run *run)
{
    bool is_present = run->state == PTE_PRESENT;
    bool has_payload = run->state == PTE_SWAPPED ||
                       (run->state == PTE_PROMISE && run->promise == PT_OBJECT);
    struct place place;

    place_find(run->start, &place);
    json_hex("start", run->start);
    json_hex("end", run->start + run->bytes - 1);
    json_bool("present", is_present);
    json_bool("write", has_right(run, 'w'));
    json_bool("exec", has_right(run, 'x'));
    json_bool("user", has_right(run, 'u'));
    json_bool("global", (run->attr.flags & PT_GLOBAL) != 0);
    json_bool("owned", (run->attr.flags & PT_OWNED) != 0);
    json_bool("cow", (run->attr.flags & PT_COW) != 0);
    json_text("memory", explain_memory(run->attr.memory));
    json_number("tag", run->attr.tag);
    json_number("level", run->level);
    if (is_present || run->state == PTE_PARKED) {
        json_hex("physical", pfn_to_phys(run->pfn).v);
    }
    if (has_payload) {
        json_number("payload", run->payload);
    }
    json_text("state", state_name(run));
    json_text("area", place.kind);
    json_text("name", place.name);
}

static const char *page_size_name(unsigned level)
{
    static const char *const name[PTE_LEVELS] = {"4K", "2M", "1G", "512G",
                                                 "256T"};

    return name[level];
}

/* rwx; execution is '-' where the CPU cannot forbid it and nobody asked. */
struct explain_text pt_run_text(const struct audit_run *run)
{
    struct explain_text out;

    if (run->state == PTE_PRESENT) {
        ksnprintf(out.text, sizeof(out.text), "r%c%c%c%c %-3s %2s",
                  has_right(run, 'w') ? 'w' : '-',
                  has_right(run, 'x') ? 'x' : '-',
                  has_right(run, 'u') ? 'u' : 's',
                  (run->attr.flags & PT_GLOBAL) != 0 ? 'g' : '-',
                  explain_memory(run->attr.memory), page_size_name(run->level));
    } else {
        ksnprintf(out.text, sizeof(out.text), "----- ---  -");
    }
    return out;
}

void pt_print_run(const struct audit_run *run)
{
    struct place place;

    place_find(run->start, &place);
    printk("%016lx-%016lx %10s %s  %s%s%s\n", run->start,
           run->start + run->bytes - 1, explain_bytes(run->bytes).text,
           pt_run_text(run).text, place.name, place.name[0] != '\0' ? " " : "",
           state_name(run));
}

static const char *area_title(const struct place *place)
{
    if (strncmp(place->kind, "guard of kmap", 13) == 0 ||
        strncmp(place->kind, "kmap", 4) == 0) {
        return "kmap";
    }
    if (strcmp(place->kind, "stack") == 0 ||
        strcmp(place->kind, "guard of stack") == 0) {
        return "kernel image";
    }
    return place->kind;
}

static bool list_run(void *context, const struct audit_run *run)
{
    struct listing *listing = context;
    struct place place;

    if (!is_wanted(listing, run)) {
        return true;
    }
    place_find(run->start, &place);
    if (run->state == PTE_PRESENT) {
        listing->present[run->level] += run->bytes;
    } else {
        listing->promised += run->bytes;
    }
    listing->lines++;
    if (listing->wants_json) {
        json_begin("pt");
        pt_json_run(run);
        json_end();
        return true;
    }
    if (strcmp(area_title(&place), listing->area) != 0) {
        listing->area = area_title(&place);
        printk("---[ %s ]---\n", listing->area);
    }
    pt_print_run(run);
    return true;
}

static void print_sums(const struct listing *listing)
{
    printk("%lu ranges; ", listing->lines);
    for (unsigned level = 0; level < PTE_LEVELS; level++) {
        if (listing->present[level] > 0) {
            printk("%s in %s pages, ",
                   explain_bytes(listing->present[level]).text,
                   page_size_name(level));
        }
    }
    printk("%s promised\n", explain_bytes(listing->promised).text);
    if (!pt_features.has_nx) {
        printk("no NX on this CPU: every page can be executed\n");
    }
}

/* Does @word consist of letters in @allowed only? */
static bool is_made_of(const char *word, const char *allowed)
{
    for (; *word != '\0'; word++) {
        const char *at = allowed;
        while (*at != '\0' && *at != *word) {
            at++;
        }
        if (*at == '\0') {
            return false;
        }
    }
    return true;
}

struct range {
    vaddr_t start;
    vaddr_t end; /* 0 = 2^64 */
};

vaddr_t pt_half_end(void)
{
    return (vaddr_t)1 << (pte_shift(pt_features.levels) - 1);
}

const struct pt *pt_loaded_space(const struct arguments *arguments)
{
    const struct pt *pt = pt_of(PAGE_BYTES);

    if (pt->is_kernel) {
        (void)complain(arguments, "no space is loaded here (try: space demo)");
        return NULL;
    }
    return pt;
}

/* -r, two addresses as they were typed; false after a sentence. */
static bool take_range(const struct arguments *arguments,
                       const char *const *word, struct range *range)
{
    vaddr_t ends[2]; /* first and last byte */

    if (!argument_address(word[0], &range->start) ||
        !argument_address(word[1], &range->end)) {
        return false;
    }
    if (range->start >= range->end) {
        return complain(arguments, "the range 0x%lx-0x%lx is empty",
                        range->start, range->end);
    }
    ends[0] = range->start;
    ends[1] = range->end - 1;
    for (unsigned i = 0; i < 2; i++) {
        if (!pt_is_canonical(ends[i])) {
            return complain(arguments,
                            "0x%lx is not canonical: bits %u to 63 differ",
                            ends[i], pte_shift(pt_features.levels) - 1);
        }
    }
    if (ends[0] >> 63 != ends[1] >> 63) {
        return complain(arguments, "0x%lx and 0x%lx are in different halves",
                        ends[0], ends[1]);
    }
    range->start = align_down(range->start, PAGE_BYTES);
    range->end = align_up(range->end, PAGE_BYTES);
    return true;
}

/* One option of pt and its values; false after a sentence. */
static bool take_option(const struct arguments *arguments, unsigned *at,
                        struct listing *listing, struct range *range)
{
    const char *const *word = &arguments->word[*at];
    unsigned left = arguments->count - *at - 1;

    if (strcmp(word[0], "-f") == 0 && left >= 1) {
        *at += 2;
        listing->filter = word[1];
        return is_made_of(word[1], "wxus") ||
               complain(arguments, "-f takes letters of wxus, not %s", word[1]);
    }
    if (strcmp(word[0], "-l") == 0 && left >= 1) {
        *at += 2;
        listing->levels = word[1];
        return is_made_of(word[1], "012") ||
               complain(arguments,
                        "-l takes levels 0 (4K), 1 (2M), 2 (1G), not %s",
                        word[1]);
    }
    if (strcmp(word[0], "-r") == 0 && left >= 2) {
        *at += 3;
        return take_range(arguments, &word[1], range);
    }
    if (strcmp(word[0], "-u") == 0) {
        *at += 1;
        *range = (struct range){PAGE_BYTES, pt_half_end()};
        return true;
    }
    return complain(arguments,
                    "%s is no option, or its value is missing: "
                    "-f wxus, -r FROM TO, -u, -l 012",
                    word[0]);
}

static bool run_pt(const struct arguments *arguments)
{
    struct listing listing = {.wants_json = arguments->wants_json,
                              .filter = "",
                              .levels = "",
                              .area = ""};
    struct range range = {0, 0};

    for (unsigned at = 0; at < arguments->count;) {
        if (!take_option(arguments, &at, &listing, &range)) {
            return false;
        }
    }
    bool is_lower = range.end != 0 && range.end >> 63 == 0;
    const struct pt *pt = is_lower ? pt_loaded_space(arguments) : &pt_kernel;
    if (pt == NULL) {
        return false;
    }
    /* Programs are told where each page leads. */
    if (arguments->wants_json) {
        audit_extents(pt, range.start, range.end, list_run, &listing);
        return true;
    }
    audit_runs(pt, range.start, range.end, list_run, &listing);
    print_sums(&listing);
    return true;
}

/* --- protect -------------------------------------------------------------- */

/* The rights @word asks for; false after a sentence. */
static bool take_rights(const struct arguments *arguments, const char *word,
                        unsigned *out)
{
    static const struct {
        const char *word;
        unsigned flags;
    } rights[] = {{"r", PT_READ}, {"rw", PT_WRITE}, {"none", PT_NONE}};

    for (size_t i = 0; i < sizeof(rights) / sizeof(rights[0]); i++) {
        if (strcmp(rights[i].word, word) == 0) {
            *out = rights[i].flags;
            return true;
        }
    }
    return complain(arguments, "%s is none of r rw none", word);
}

/* Code stays as it is; the rest is the user's risk. */
static bool run_protect(const struct arguments *arguments)
{
    uint64_t first;
    uint64_t bytes;
    unsigned flags = 0;

    if (!argument_address(arguments->word[0], &first) ||
        !argument_number(arguments->word[1], &bytes) ||
        !take_rights(arguments, arguments->word[2], &flags)) {
        return false;
    }
    vaddr_t start = align_down(first, PAGE_BYTES);
    if (bytes - 1 > UINT64_MAX - first) { /* 0 bytes are most of all */
        return complain(arguments, "0x%lx bytes from 0x%lx on are no range",
                        bytes, first);
    }
    vaddr_t end = align_up(first + bytes, PAGE_BYTES);
    if (start < (vaddr_t)text_end && (vaddr_t)text_start < end) {
        return complain(arguments, "0x%lx-0x%lx is code", start, end);
    }
    enum mm_status status =
        pt_protect_kernel(start, end - start, pt_attr(flags | PT_GLOBAL));
    if (status != MM_OK) {
        return complain(arguments, "0x%lx-0x%lx stays as it is: %s", start, end,
                        mm_status_name(status));
    }
    return true;
}

static const struct command commands[] = {
    {"protect", "", "ADDR BYTES r|rw|none",
     "rights of kernel pages: large ones are split, and merged again", "", 3, 3,
     false, run_protect},
    {"pt", "", "[-f wxus] [-u] [-r A B] [-l 012]",
     "the tables, equal neighbours merged; -u: of the loaded space",
     "-f -u -r -l", 0, 8, true, run_pt},
};

const struct command_group command_pt = COMMAND_GROUP("Page tables", commands);
