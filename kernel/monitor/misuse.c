/* SPDX-License-Identifier: MIT */
/* misuse: what must not be done to the heap, done, to see the report. */
/*
 * Against a block as any other by `misuse`: some is seen at once, some when
 * memory is looked at again, which follows. Against a guarded object by
 * `crime`: there the access itself is seen.
 */
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "base/memory.h"
#include "kernel/console/console.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"

static void misuse_read(char *block, uint64_t bytes)
{
    kfree(block);
    (void)*(volatile char *)(block + bytes / 2);
}

static void misuse_far(char *block, uint64_t bytes)
{
    (void)*(volatile char *)(block + bytes + 7);
    kfree(block);
}

static void misuse_overflow(char *block, uint64_t bytes)
{
    block[bytes] = 1;
    kfree(block);
}

static void misuse_underflow(char *block, uint64_t bytes)
{
    (void)bytes;
    block[-1] = 1;
    kfree(block);
}

static void misuse_use_after_free(char *block, uint64_t bytes)
{
    kfree(block);
    *(volatile char *)(block + bytes / 2) = 1;
}

static void misuse_double_free(char *block, uint64_t bytes)
{
    (void)bytes;
    kfree(block);
    kfree(block);
}

static void misuse_interior(char *block, uint64_t bytes)
{
    (void)bytes;
    kfree(block + sizeof(uint64_t));
    kfree(block);
}

static void misuse_wrong_cache(char *block, uint64_t bytes)
{
    struct slab_cache *cache = slab_create("misused", bytes, 0, NULL);

    if (cache != NULL) {
        slab_free(cache, block);
    }
    kfree(block);
}

static void misuse_foreign(char *block, uint64_t bytes)
{
    static uint64_t no_block;

    (void)bytes;
    kfree(block);
    kfree(&no_block);
}

/* Nothing has a pointer to it any more: see `leaks`. */
static void misuse_leak(char *block, uint64_t bytes)
{
    (void)bytes;
    printk("0x%lx is lost; see leaks\n", (vaddr_t)block);
}

static const struct {
    const char *name;
    void (*commit)(char *block, uint64_t bytes);
} kinds[] = {
    {"read", misuse_read},          {"far", misuse_far},
#define FIRST_MISUSE 2 /* a read is seen by a guard only */
    {"overflow", misuse_overflow},  {"underflow", misuse_underflow},
    {"uaf", misuse_use_after_free}, {"double", misuse_double_free},
#define FIRST_SURE 5 /* those before: by poison or guards only */
    {"interior", misuse_interior},  {"cache", misuse_wrong_cache},
#define CRIMES 8 /* the others concern no object */
    {"foreign", misuse_foreign},    {"leak", misuse_leak},
};
#define KINDS   (sizeof(kinds) / sizeof(kinds[0]))
#define BY_BOTH "overflow underflow uaf double interior cache"

/* The kind of that name in [first, end); @end: there is none. */
static size_t find_kind(const char *name, size_t first, size_t end)
{
    while (first < end && strcmp(kinds[first].name, name) != 0) {
        first++;
    }
    return first;
}

#define MISUSE_KINDS BY_BOTH " foreign leak"
#define BLOCK_BYTES  100

static bool run_misuse(const struct arguments *arguments)
{
    const char *word = arguments->word[0];
    size_t kind = find_kind(word, FIRST_MISUSE, KINDS);

    if (kind == KINDS) {
        return complain(arguments, "%s is none of " MISUSE_KINDS, word);
    }
    char *block = kmalloc(BLOCK_BYTES);
    if (block == NULL) {
        return complain(arguments, "no memory for a victim");
    }
    kinds[kind].commit(block, BLOCK_BYTES);
    if (slab_check()) { /* else it has been said */
        slab_drain();
    }
    if (kind < FIRST_SURE && !MM_DEBUG) {
        printk("only debug builds have red zones and poison; in this one "
               "guards see it: crime %s\n",
               word);
    }
    return true;
}

#define CRIME_KINDS  "all read far " BY_BOTH
#define OBJECT_BYTES 64

/* Allocations after which one must have been guarded: several intervals. */
#define PATIENCE 64

/* What is allocated behind it is guarded as seldom as before. */
static enum mm_status restore(const struct guard_stats *before)
{
    return guard_enable(before->interval == 0 ? GUARD_INTERVAL
                                              : before->interval);
}

/* A guarded object at the upper edge of its page, where all is a fault. */
static char *find_victim(void)
{
    struct guard_object guarded;

    for (unsigned i = 0; i < PATIENCE; i++) {
        char *object = kmalloc(OBJECT_BYTES);
        if (object != NULL && guard_find((vaddr_t)object, &guarded) &&
            guarded.start % PAGE_BYTES != 0) {
            return object;
        }
        kfree(object);
    }
    return NULL;
}

static bool run_crime(const struct arguments *arguments)
{
    const char *word = arguments->word[0];
    bool wants_all = strcmp(word, "all") == 0;
    size_t kind = wants_all ? 0 : find_kind(word, 0, CRIMES);
    size_t end = wants_all ? CRIMES : kind + 1;

    if (kind == CRIMES) {
        return complain(arguments, "%s is none of " CRIME_KINDS, word);
    }
    struct guard_stats before;
    guard_stats(&before);
    for (; kind < end; kind++) {
        char *object = guard_enable(1) == MM_OK ? find_victim() : NULL;
        if (object == NULL || restore(&before) != MM_OK) {
            return complain(arguments, "no object is guarded now");
        }
        kinds[kind].commit(object, OBJECT_BYTES);
    }
    return true;
}

static const struct command commands[] = {
    {"misuse", "", "KIND", "misuse the heap: most end in a report",
     MISUSE_KINDS, 1, 1, false, run_misuse},
    {"crime", "", "KIND", "against a guarded object: ends in its report",
     CRIME_KINDS, 1, 1, false, run_crime},
};

const struct command_group command_misuse = COMMAND_GROUP("Misuse", commands);
