/* SPDX-License-Identifier: MIT */
/* misuse: what must not be done to the heap, done, to see the report. */
/*
 * Who calls `misuse` is told at once, or by the command behind it: what only
 * shows when memory is looked at again is followed by that look.
 */
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "base/memory.h"
#include "kernel/console/console.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"

#define VICTIM_BYTES 100

static char *victim(void)
{
    return kmalloc(VICTIM_BYTES);
}

/* For who waits for a report; a victim may be guarded by chance. */
static void say_who_sees(const char *crime)
{
    if (!MM_DEBUG) {
        printk("only debug builds have red zones and poison; in this one "
               "guards see it: crime %s\n",
               crime);
    }
}

static void misuse_overflow(char *block)
{
    block[VICTIM_BYTES] = 1;
    kfree(block);
    say_who_sees("over");
}

static void misuse_underflow(char *block)
{
    block[-1] = 1;
    kfree(block);
    say_who_sees("under");
}

static void misuse_use_after_free(char *block)
{
    kfree(block);
    block[VICTIM_BYTES / 2] = 1;
    (void)slab_check();
    say_who_sees("write");
}

static void misuse_double_free(char *block)
{
    kfree(block);
    kfree(block);
    slab_drain();
}

static void misuse_interior(char *block)
{
    kfree(block + sizeof(uint64_t));
}

static void misuse_foreign(char *block)
{
    static uint64_t no_block;

    kfree(block);
    kfree(&no_block);
}

static void misuse_wrong_cache(char *block)
{
    struct slab_cache *cache = slab_create("misused", VICTIM_BYTES, 0, NULL);

    if (cache != NULL) {
        slab_free(cache, block);
    }
}

/* Nothing has a pointer to it any more: see `leaks`. */
static void misuse_leak(char *block)
{
    printk("0x%lx is lost; see leaks\n", (vaddr_t)block);
}

static const struct {
    const char *kind;
    void (*commit)(char *block);
} kinds[] = {
    {"overflow", misuse_overflow},  {"underflow", misuse_underflow},
    {"uaf", misuse_use_after_free}, {"double", misuse_double_free},
    {"interior", misuse_interior},  {"foreign", misuse_foreign},
    {"cache", misuse_wrong_cache},  {"leak", misuse_leak},
};
#define KINDS "overflow underflow uaf double interior foreign cache leak"

static bool run_misuse(const struct arguments *arguments)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].kind, arguments->word[0]) == 0) {
            char *block = victim();
            if (block == NULL) {
                return complain(arguments, "no memory for a victim");
            }
            kinds[i].commit(block);
            return true;
        }
    }
    return complain(arguments, "%s is none of " KINDS, arguments->word[0]);
}

static const struct command commands[] = {
    {"misuse", "", "KIND", "misuse the heap: most end in a report", KINDS, 1, 1,
     false, run_misuse},
};

const struct command_group command_misuse = COMMAND_GROUP("Misuse", commands);
