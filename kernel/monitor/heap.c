/* SPDX-License-Identifier: MIT */
/* heap: commands about caches and blocks. */
#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/json.h"

/* --- slabinfo ------------------------------------------------------------- */

static void print_cache_json(const struct slab_stats *stats)
{
    json_begin("slabinfo");
    json_text("name", stats->name);
    json_number("active_objs", stats->live);
    json_number("cached_objs", stats->cached);
    json_number("num_objs", stats->slabs * stats->slab_objects);
    json_number("objsize", stats->object_bytes);
    json_number("stride", stats->stride_bytes);
    json_number("objperslab", stats->slab_objects);
    json_number("pagesperslab", stats->slab_frames);
    json_number("num_slabs", stats->slabs);
    json_number("allocs", stats->allocs);
    json_number("frees", stats->frees);
    json_number("failures", stats->failures);
    json_end();
}

static void print_cache(const struct slab_stats *stats)
{
    printk("%-17s %13lu %10lu %9lu %12lu %14lu %7lu %8lu\n", stats->name,
           stats->live, stats->slabs * stats->slab_objects, stats->object_bytes,
           stats->slab_objects, stats->slab_frames, stats->slabs,
           stats->cached);
}

/* Without -a only caches that have memory: there are some sixty classes. */
static bool run_slabinfo(const struct arguments *arguments)
{
    bool wants_all = arguments->count > 0;
    const struct slab_cache *cache = NULL;
    struct slab_stats stats;
    unsigned hidden = 0;

    if (wants_all && strcmp(arguments->word[0], "-a") != 0) {
        return complain(arguments, "-a shows all caches; what is %s?",
                        arguments->word[0]);
    }
    if (!arguments->wants_json) {
        printk("# name            <active_objs> <num_objs> <objsize> "
               "<objperslab> <pagesperslab> <slabs> <cached>\n");
    }
    while ((cache = slab_next(cache)) != NULL) {
        slab_stats(cache, &stats);
        if (arguments->wants_json) {
            print_cache_json(&stats);
        } else if (wants_all || stats.slabs > 0) {
            print_cache(&stats);
        } else {
            hidden++;
        }
    }
    if (hidden > 0) {
        printk("# and %u without a slab: slabinfo -a\n", hidden);
    }
    return true;
}

/* --- slabtop -------------------------------------------------------------- */

/* More caches than a screen has lines for. */
#define TOP_CACHES  20
#define TOP_SECONDS 2

#define TITLE_COLUMNS 10 /* for what is counted */

struct top {
    uint64_t caches;
    uint64_t active_caches;
    uint64_t objects;
    uint64_t active;
    uint64_t slabs;
    uint64_t active_slabs;
    uint64_t bytes;
    uint64_t active_bytes;
    unsigned count;
    struct slab_stats line[TOP_CACHES]; /* the largest, sorted */
};

static uint64_t cache_bytes(const struct slab_stats *stats)
{
    return stats->slabs * stats->slab_frames * PAGE_BYTES;
}

/* Keep the largest caches; of equals the first. */
static void top_insert(struct top *top, const struct slab_stats *stats)
{
    unsigned at = top->count;

    while (at > 0 && cache_bytes(&top->line[at - 1]) < cache_bytes(stats)) {
        if (at < TOP_CACHES) {
            top->line[at] = top->line[at - 1];
        }
        at--;
    }
    if (at < TOP_CACHES) {
        top->line[at] = *stats;
        top->count += top->count < TOP_CACHES ? 1 : 0;
    }
}

static void top_add(struct top *top, const struct slab_stats *stats)
{
    uint64_t used = div_round_up(stats->live, stats->slab_objects);

    top->caches++;
    top->active_caches += stats->live > 0 ? 1 : 0;
    top->objects += stats->slabs * stats->slab_objects;
    top->active += stats->live;
    top->slabs += stats->slabs;
    top->active_slabs += used;
    top->bytes += cache_bytes(stats);
    top->active_bytes += stats->live * stats->object_bytes;
    if (stats->slabs > 0) {
        top_insert(top, stats);
    }
}

static uint64_t tenths(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : part * 1000 / whole;
}

static void print_used(const char *title, uint64_t active, uint64_t total)
{
    uint64_t share = tenths(active, total);

    printk(" Active / Total %s (%% used)%*s: %lu / %lu (%lu.%lu%%)\n", title,
           TITLE_COLUMNS - (int)strlen(title), "", active, total, share / 10,
           share % 10);
}

/* As slabtop(1) of Linux shows it; used slabs are what the objects need. */
static void print_top(void)
{
    static struct top top; /* too large for the stack */
    const struct slab_cache *cache = NULL;
    struct slab_stats stats;

    memset(&top, 0, sizeof(top));
    while ((cache = slab_next(cache)) != NULL) {
        slab_stats(cache, &stats);
        top_add(&top, &stats);
    }
    print_used("Objects", top.active, top.objects);
    print_used("Slabs", top.active_slabs, top.slabs);
    print_used("Caches", top.active_caches, top.caches);
    print_used("KiB", top.active_bytes / KiB, top.bytes / KiB);
    printk("\n  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME\n");
    for (unsigned i = 0; i < top.count; i++) {
        const struct slab_stats *line = &top.line[i];
        uint64_t objects = line->slabs * line->slab_objects;

        printk("%6lu %6lu %3lu%% %8lu %6lu %8lu %9luK %s\n", objects,
               line->live, tenths(line->live, objects) / 10, line->object_bytes,
               line->slabs, line->slab_objects, cache_bytes(line) / KiB,
               line->name);
    }
}

/* Home, and clear from there: the new picture covers the old. */
#define CLEAR "\x1b[H\x1b[J"

static bool run_slabtop(const struct arguments *arguments)
{
    if (arguments->count > 0 && strcmp(arguments->word[0], "-o") != 0) {
        return complain(arguments, "-o shows them once; what is %s?",
                        arguments->word[0]);
    }
    if (arguments->count > 0) {
        print_top();
        return true;
    }
    do {
        console_show(CLEAR, sizeof(CLEAR) - 1);
        print_top();
    } while (!wait_for_key(TOP_SECONDS));
    return true;
}

/* --- kmalloc, kfree ------------------------------------------------------- */

static bool run_kmalloc(const struct arguments *arguments)
{
    struct guard_object guarded;
    struct slab_place place;
    uint64_t bytes;

    if (!argument_number(arguments->word[0], &bytes)) {
        return false;
    }
    if (bytes == 0 || bytes > KMALLOC_MAX) {
        return complain(arguments, "%lu is not between 1 and %lu", bytes,
                        KMALLOC_MAX);
    }
    void *block = kmalloc(bytes);
    if (block == NULL) {
        return complain(arguments, "no memory for %lu bytes", bytes);
    }
    printk("0x%lx: %lu bytes usable", (vaddr_t)block, ksize(block));
    if (guard_find((vaddr_t)block, &guarded)) {
        printk(", guarded, in place of one of cache %s\n", guarded.name);
    } else if (slab_find(block, &place)) {
        printk(", object %u of the slab at 0x%lx, cache %s\n", place.index,
               place.slab_start, place.cache_name);
    } else {
        printk(", a run of frames\n");
    }
    return true;
}

/* What lies around an address. */
struct block {
    vaddr_t start;
    const char *cache; /* NULL: a run of frames */
    bool is_live;
};

static bool find_run(vaddr_t address, struct block *out)
{
    pfn_t pfn = phys_to_pfn(virt_to_phys((const void *)address));

    *out = (struct block){align_down(address, PAGE_BYTES), NULL, true};
    return frame_state(pfn) == FRAME_STATE_ALLOCATED &&
           record_of(pfn)->type == FRAME_LARGE &&
           record_of(pfn)->order != RECORD_TAIL;
}

static bool find_block(vaddr_t address, struct block *out)
{
    struct guard_object guarded;
    struct slab_place place;

    if (address < LAYOUT_DIRECT || address >= LAYOUT_KMAP) {
        return false;
    }
    if (guard_find(address, &guarded)) {
        *out = (struct block){guarded.start, guarded.name, guarded.is_live};
        return true;
    }
    if (slab_find((const void *)address, &place)) {
        *out = (struct block){place.object, place.cache_name, place.is_live};
        return true;
    }
    return find_run(address, out);
}

/* A wrong address would be a BUG report, which ends the machine. */
static bool run_kfree(const struct arguments *arguments)
{
    struct block block;
    uint64_t address;

    if (!argument_address(arguments->word[0], &address)) {
        return false;
    }
    if (!find_block(address, &block)) {
        return complain(arguments, "0x%lx is no live block of the heap",
                        address);
    }
    if (block.cache != NULL && strncmp(block.cache, "kmalloc-", 8) != 0) {
        return complain(arguments,
                        "0x%lx is no block of kmalloc, but of cache %s",
                        address, block.cache);
    }
    if (!block.is_live) {
        return complain(arguments, "the block at 0x%lx is free already",
                        block.start);
    }
    if (block.start != address) {
        return complain(arguments, "0x%lx is %ld bytes into the block at 0x%lx",
                        address, (int64_t)(address - block.start), block.start);
    }
    kfree((void *)address);
    printk("0x%lx is free\n", address);
    return true;
}

static const struct command commands[] = {
    {"slabinfo", "", "[-a]", "caches of equal objects", "-a", 0, 1, true,
     run_slabinfo},
    {"slabtop", "", "[-o]", "caches by size, until a key is typed; -o: once",
     "-o", 0, 1, false, run_slabtop},
    {"kmalloc", "", "BYTES", "allocate, and say where", "", 1, 1, false,
     run_kmalloc},
    {"kfree", "", "ADDR", "free what kmalloc gave", "", 1, 1, false, run_kfree},
};

const struct command_group command_heap = COMMAND_GROUP("Heap", commands);
