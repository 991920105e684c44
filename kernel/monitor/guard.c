/* SPDX-License-Identifier: MIT */
/* guard: the command about guarded objects, and crimes against them. */
#include <mm/guard.h>

#include <mm/kmalloc.h>
#include <mm/slab.h>
#include "kernel/console/console.h"
#include "kernel/lib/number.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/json.h"

/* --- crimes --------------------------------------------------------------- */

#define VICTIM_BYTES 64

/* Allocations after which one must have been guarded: several intervals. */
#define PATIENCE 64

/* Not inline: the compiler must not see what is wrong. */
MM_NOINLINE static void read_byte(const char *object, int64_t offset)
{
    (void)*(const volatile char *)(object + offset);
}

MM_NOINLINE static void write_byte(char *object, int64_t offset)
{
    *(volatile char *)(object + offset) = 1;
}

MM_NOINLINE static void release(void *object)
{
    kfree(object);
}

static void crime_read(char *object)
{
    release(object);
    read_byte(object, 8);
}

static void crime_write(char *object)
{
    release(object);
    write_byte(object, 8);
}

/* By one byte; in the object's own page it is seen when that is freed. */
static void crime_overflow(char *object)
{
    write_byte(object, VICTIM_BYTES);
    release(object);
}

static void crime_far(char *object)
{
    read_byte(object, VICTIM_BYTES + 7);
    release(object);
}

static void crime_underflow(char *object)
{
    write_byte(object, -1);
    release(object);
}

static void crime_twice(char *object)
{
    release(object);
    release(object);
}

static void crime_inside(char *object)
{
    release(object + 16);
    release(object);
}

static void crime_cache(char *object)
{
    struct slab_cache *cache = slab_create("other", VICTIM_BYTES, 0, NULL);

    if (cache != NULL) {
        slab_free(cache, object);
    }
    release(object);
}

static const struct {
    const char *name;
    void (*commit)(char *object);
} crimes[] = {
    {"read", crime_read},       {"write", crime_write},
    {"over", crime_overflow},   {"far", crime_far},
    {"under", crime_underflow}, {"twice", crime_twice},
    {"inside", crime_inside},   {"cache", crime_cache},
};
#define CRIMES "all read write over far under twice inside cache"

/* A guarded object at the upper edge of its page, where all is a fault. */
static char *find_victim(void)
{
    struct guard_object guarded;

    for (unsigned i = 0; i < PATIENCE; i++) {
        char *object = kmalloc(VICTIM_BYTES);
        if (object != NULL && guard_find((vaddr_t)object, &guarded) &&
            guarded.start % PAGE_BYTES != 0) {
            return object;
        }
        kfree(object);
    }
    return NULL;
}

/* What is allocated later is guarded as seldom as before. */
static bool commit_crime(const struct arguments *arguments, size_t index)
{
    struct guard_stats before;

    guard_stats(&before);
    char *victim = guard_enable(1) == MM_OK ? find_victim() : NULL;
    uint32_t usual = before.interval == 0 ? GUARD_INTERVAL : before.interval;
    if (victim == NULL || guard_enable(usual) != MM_OK) {
        return complain(arguments, "no object is guarded now");
    }
    crimes[index].commit(victim);
    return true;
}

static bool run_crime(const struct arguments *arguments)
{
    const char *word = arguments->word[0];
    bool wants_all = strcmp(word, "all") == 0;
    bool is_known = wants_all;
    bool is_done = true;

    for (size_t i = 0; i < sizeof(crimes) / sizeof(crimes[0]) && is_done; i++) {
        if (wants_all || strcmp(crimes[i].name, word) == 0) {
            is_known = true;
            is_done = commit_crime(arguments, i);
        }
    }
    return is_known ? is_done
                    : complain(arguments, "%s is none of " CRIMES, word);
}

/* --- guard ---------------------------------------------------------------- */

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
    {"crime", "", "KIND", "against a guarded object: ends in its report",
     CRIMES, 1, 1, false, run_crime},
};

const struct command_group command_guard = COMMAND_GROUP("Guards", commands);
