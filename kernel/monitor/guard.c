/* SPDX-License-Identifier: MIT */
/* guard: the command about guarded objects. */
#include <mm/guard.h>

#include "kernel/console/console.h"
#include "kernel/lib/number.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/json.h"

static void print_object(const struct guard_object *object)
{
    printk("  0x%lx %5lu  %-16s %s  allocated by %p", object->start,
           object->bytes, object->name, object->is_live ? "live " : "freed",
           (void *)object->alloc_site);
    if (!object->is_live) {
        printk(", freed by %p", (void *)object->free_site);
    }
    printk("\n");
}

static void print_objects(void)
{
    struct guard_object object;
    unsigned count = 0;

    for (unsigned i = 0; i < GUARD_OBJECTS; i++) {
        if (guard_look(i, &object)) {
            print_object(&object);
            count++;
        }
    }
    printk("%u guarded objects are live or watched\n", count);
}

static void print_state_json(const struct guard_stats *stats)
{
    json_begin("guard");
    json_number("interval", stats->interval);
    json_number("start", stats->start);
    json_number("bytes", stats->bytes);
    json_number("live", stats->live);
    json_number("freed", stats->freed);
    json_number("samples", stats->samples);
    json_number("passed", stats->passed);
    json_number("found", stats->found);
    json_end();
}

static void print_state(const struct guard_stats *stats)
{
    if (stats->bytes == 0) {
        printk("guards are off: guard N guards one object in N\n");
    } else {
        printk("one object in %u is guarded, in %lu KiB at 0x%lx, for %u\n",
               stats->interval, stats->bytes / KiB, stats->start,
               GUARD_OBJECTS);
    }
    printk("%lu live, %lu freed and watched, %lu since start; %lu more did "
           "not fit\n%lu crimes found\n",
           stats->live, stats->freed, stats->samples, stats->passed,
           stats->found);
}

static bool turn(const struct arguments *arguments)
{
    const char *word = arguments->word[0];
    uint64_t interval = 0;
    enum mm_status status;

    if (strcmp(word, "off") == 0) {
        status = guard_disable();
    } else if (number_parse(word, &interval) == MM_OK && interval > 0 &&
               interval <= GUARD_INTERVAL_MAX) {
        status = guard_enable((uint32_t)interval);
    } else {
        return complain(arguments, "off, list or 1 to %u, not %s",
                        GUARD_INTERVAL_MAX, word);
    }
    if (status == MM_EBUSY) {
        return complain(arguments, "no more are guarded, but some are live: "
                                   "guard list");
    }
    return status == MM_OK || complain(arguments, "no memory for the pool");
}

static bool run_guard(const struct arguments *arguments)
{
    struct guard_stats stats;

    if (arguments->count > 0 && strcmp(arguments->word[0], "list") == 0) {
        print_objects();
        return true;
    }
    if (arguments->count > 0 && !turn(arguments)) {
        return false;
    }
    guard_stats(&stats);
    if (arguments->wants_json) {
        print_state_json(&stats);
    } else {
        print_state(&stats);
    }
    return true;
}

static const struct command commands[] = {
    {"guard", "", "[list|N|off]", "heap objects between closed pages",
     "list off", 0, 1, true, run_guard},
};

const struct command_group command_guard = COMMAND_GROUP("Guards", commands);
