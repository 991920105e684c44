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

static bool run_audit(const struct arguments *arguments)
{
    struct audit_verdict verdict;
    bool is_sound = pt_audit(&pt_kernel, &verdict);
    const struct audit_aliases *aliases = &verdict.aliases;
    const struct {
        uint64_t count;
        const char *what;
    } fault[] = {
        {verdict.writable_exec, "entries are writable and executable"},
        {aliases->rights, "mappings let write what another one executes"},
        {aliases->memory, "mappings share frames, but not the memory type"},
        {verdict.freed_frames, "entries own frames that are free"},
        {verdict.reserved_bits, "entries have bits that this CPU refuses"},
        {verdict.damaged, "entries have bits that no state has"},
        {verdict.wrong_counts, "tables have another number of entries than "
                               "their record says"},
        {verdict.empty_tables, "tables are empty and should be gone"},
        {verdict.lost_tables, "tables are reachable but not counted, or the "
                              "other way round"},
    };

    (void)arguments;
    printk("%8lu tables; leaves: %lu of 4K, %lu of 2M, %lu of 1G; %lu "
           "promises\n",
           verdict.tables, verdict.leaves[0], verdict.leaves[1],
           verdict.leaves[2], verdict.promises);
    for (size_t i = 0; i < sizeof(fault) / sizeof(fault[0]); i++) {
        printk("%8lu %s\n", fault[i].count, fault[i].what);
    }
    if (aliases->rights + aliases->memory > 0) {
        printk("the first that share a frame: 0x%lx and 0x%lx\n",
               aliases->address[0], aliases->address[1]);
    }
    printk("%s\n", is_sound ? "sound" : "NOT SOUND");
    return is_sound;
}

/* --- ptdiff --------------------------------------------------------------- */

/* What the tables were when ptdiff last took them. */
static struct {
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

static bool take_tables(const struct arguments *arguments)
{
    size_t room = SPARE_RUNS;

    drop_tables();
    audit_extents(&pt_kernel, 0, 0, count_run, &room);
    taken.run = kmalloc(room * sizeof(taken.run[0]));
    if (taken.run == NULL) {
        return complain(arguments, "no memory for %lu ranges, %s", room,
                        explain_bytes(room * sizeof(taken.run[0])).text);
    }
    taken.room = room;
    audit_extents(&pt_kernel, 0, 0, take_run, NULL);
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
        return take_tables(arguments);
    }
    if (strcmp(word, "drop") == 0) {
        drop_tables();
        return true;
    }
    return complain(arguments, "take, drop or nothing, not %s", word);
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
    changes_init(&changes, taken.run, taken.count, report_change, &difference);
    audit_extents(&pt_kernel, 0, 0, changes_add, &changes);
    changes_end(&changes);
    if (!arguments->wants_json) {
        printk("%lu range%s changed\n", difference.count,
               difference.count == 1 ? " has" : "s have");
    }
    return true;
}

static const struct command commands[] = {
    {"audit", "wx", "", "what must never be in tables: W^X, aliases, counts",
     "", 0, 0, false, run_audit},
    {"ptdiff", "", "[take|drop]", "what has changed since ptdiff take",
     "take drop", 0, 1, true, run_ptdiff},
};

const struct command_group command_audit =
    COMMAND_GROUP("Page tables at large", commands);
