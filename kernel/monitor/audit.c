/* SPDX-License-Identifier: MIT */
/* audit: commands that judge and compare whole tables. */
#include <mm/audit.h>

#include <mm/kmalloc.h>
#include "kernel/console/console.h"
#include "kernel/explain.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/changes.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/json.h"
#include "kernel/monitor/pt.h"

/* --- audit ---------------------------------------------------------------- */

/* What is wrong with one set of tables; all zeroes where nothing is. */
static void print_verdict(const struct audit_verdict *verdict)
{
    const struct audit_aliases *aliases = &verdict->aliases;
    const struct {
        uint64_t count;
        const char *what;
    } fault[] = {
        {verdict->writable_exec, "entries are writable and executable"},
        {aliases->rights, "mappings let write what another one executes"},
        {aliases->memory, "mappings share frames, but not the memory type"},
        {verdict->freed_frames, "entries lead to frames that are free"},
        {verdict->reserved_bits, "entries have bits that this CPU refuses"},
        {verdict->damaged, "entries have bits that no state has"},
        {verdict->wrong_counts, "tables have another number of entries than "
                                "their record says"},
        {verdict->empty_tables, "tables are empty and should be gone"},
        {verdict->lost_tables, "tables are reachable but not counted, or the "
                               "other way round"},
    };

    for (size_t i = 0; i < sizeof(fault) / sizeof(fault[0]); i++) {
        printk("%8lu %s\n", fault[i].count, fault[i].what);
    }
    if (aliases->rights + aliases->memory > 0) {
        printk("the first that share a frame: 0x%lx and 0x%lx\n",
               aliases->address[0], aliases->address[1]);
    }
}

static void print_size(const struct audit_verdict *verdict)
{
    printk("%8lu tables; leaves: %lu of 4K, %lu of 2M, %lu of 1G; %lu "
           "promises\n",
           verdict->tables, verdict->leaves[0], verdict->leaves[1],
           verdict->leaves[2], verdict->promises);
}

/* All spaces; what is wrong is said of those with which something is. */
static bool audit_spaces(void)
{
    struct audit_verdict verdict;
    bool are_sound = true;

    for (struct pt *pt = pt_next(NULL); pt != NULL; pt = pt_next(pt)) {
        bool is_sound = pt_audit(pt, &verdict);

        printk("space with root 0x%lx%s\n", pfn_to_phys(pt->root).v,
               is_sound ? "" : ": NOT SOUND");
        print_size(&verdict);
        if (!is_sound) {
            print_verdict(&verdict);
        }
        are_sound = are_sound && is_sound;
    }
    return are_sound;
}

/* Frames that are looked at in one pass over all tables. */
#define HOLDERS_ROOM 16384

static bool audit_counts(void)
{
    uint32_t *room = kmalloc(HOLDERS_ROOM * sizeof(room[0]));
    struct audit_holders holders;

    if (room == NULL) {
        printk("no memory to count the holders of frames\n");
        return true;
    }
    bool is_sound = audit_holders(room, HOLDERS_ROOM, &holders);
    kfree(room);
    printk("%8lu entries own frames\n", holders.entries);
    printk("%8lu blocks have fewer holders than entries\n", holders.missing);
    printk("%8lu blocks have more\n", holders.extra);
    printk("%8lu tables have no way to them\n", holders.lost_tables);
    if (!pfn_is_none(holders.first)) {
        printk("the first such block: 0x%lx\n", pfn_to_phys(holders.first).v);
    }
    return is_sound;
}

static bool run_audit(const struct arguments *arguments)
{
    struct audit_verdict verdict;
    bool is_sound = pt_audit(&pt_kernel, &verdict);

    (void)arguments;
    print_size(&verdict);
    print_verdict(&verdict);
    is_sound = audit_spaces() && is_sound;
    is_sound = audit_counts() && is_sound;
    printk("%s\n", is_sound ? "sound" : "NOT SOUND");
    return is_sound;
}

/* --- ptdiff --------------------------------------------------------------- */

/* What the tables were when ptdiff last took them. */
static struct {
    const struct pt *pt;
    struct audit_run *run;
    size_t count;
    size_t room;
} taken;

static bool count_run(void *context, const struct audit_run *run)
{
    (void)run;
    ++*(size_t *)context;
    return true;
}

static bool take_run(void *context, const struct audit_run *run)
{
    (void)context;
    if (taken.count < taken.room) {
        taken.run[taken.count] = *run;
        taken.count++;
    }
    return taken.count < taken.room;
}

/*
 * Counted first. To allocate may change the tables under the frame records,
 * so there is room for more, and they are read once it is there.
 */
#define SPARE_RUNS 64

static void drop_tables(void)
{
    kfree(taken.run);
    taken.run = NULL;
    taken.count = 0;
}

/* Each extent of the half of the tables that is @pt's own. */
static void read_half(const struct pt *pt, audit_fn report, void *context)
{
    audit_extents(pt, 0, pt->is_kernel ? 0 : pt_half_end(), report, context);
}

static bool take_tables(const struct arguments *arguments, const struct pt *pt)
{
    size_t room = SPARE_RUNS;

    drop_tables();
    read_half(pt, count_run, &room);
    taken.run = kmalloc(room * sizeof(taken.run[0]));
    if (taken.run == NULL) {
        return complain(arguments, "no memory for %lu ranges, %s", room,
                        explain_bytes(room * sizeof(taken.run[0])).text);
    }
    taken.room = room;
    taken.pt = pt;
    read_half(pt, take_run, NULL);
    printk("%lu ranges are remembered; ptdiff shows what changes\n",
           taken.count);
    return true;
}

struct difference {
    bool wants_json;
    uint64_t count;
};

static void print_change(const struct audit_run *run, const char *sign,
                         const char *word, bool wants_json)
{
    if (run == NULL) {
        return;
    }
    if (wants_json) {
        json_begin("ptdiff");
        json_text("change", word);
        pt_json_run(run);
        json_end();
        return;
    }
    printk("%s ", sign);
    pt_print_run(run);
}

static void report_change(void *context, const struct audit_run *then,
                          const struct audit_run *now)
{
    struct difference *difference = context;
    bool wants_json = difference->wants_json;

    difference->count++;
    print_change(then, "-", now != NULL ? "before" : "removed", wants_json);
    print_change(now, "+", then != NULL ? "after" : "added", wants_json);
}

static bool change_taken(const struct arguments *arguments, const char *word)
{
    if (strcmp(word, "take") == 0) {
        return take_tables(arguments, &pt_kernel);
    }
    if (strcmp(word, "user") == 0) {
        const struct pt *pt = pt_loaded_space(arguments);

        return pt != NULL && take_tables(arguments, pt);
    }
    if (strcmp(word, "drop") == 0) {
        drop_tables();
        return true;
    }
    return complain(arguments, "take, user, drop or nothing, not %s", word);
}

/* Is @pt the kernel's, or one of the spaces that there are? */
static bool is_there(const struct pt *pt)
{
    const struct pt *space = pt_next(NULL);

    while (space != NULL && space != pt) {
        space = pt_next(space);
    }
    return pt == &pt_kernel || space != NULL;
}

static bool run_ptdiff(const struct arguments *arguments)
{
    struct difference difference = {.wants_json = arguments->wants_json};
    struct changes changes;

    if (arguments->count > 0) {
        return change_taken(arguments, arguments->word[0]);
    }
    if (taken.run == NULL) {
        return complain(arguments, "there is nothing to compare with: first "
                                   "ptdiff take");
    }
    if (!is_there(taken.pt)) {
        return complain(arguments, "the space is gone: ptdiff drop");
    }
    changes_init(&changes, taken.run, taken.count, report_change, &difference);
    read_half(taken.pt, changes_add, &changes);
    changes_end(&changes);
    if (!arguments->wants_json) {
        printk("%lu range%s changed\n", difference.count,
               difference.count == 1 ? " has" : "s have");
    }
    return true;
}

static const struct command commands[] = {
    {"audit", "wx", "",
     "what must never be in tables: W^X, aliases, counts, holders", "", 0, 0,
     false, run_audit},
    {"ptdiff", "", "[take|user|drop]",
     "what has changed since ptdiff take, or user: the loaded space",
     "take user drop", 0, 1, true, run_ptdiff},
};

const struct command_group command_audit =
    COMMAND_GROUP("Page tables at large", commands);
