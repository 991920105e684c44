/* SPDX-License-Identifier: MIT */
/* slab: commands that look into slabs, and find what is wrong there. */
/*
 * Picture, `slab info`: a character for each object, in the order of addresses
 *
 *   0x... [##o.#...]   # live   o free, at hand for a CPU   . free in the slab
 *
 * Locking  A picture is drawn under the pool's lock and printed outside. What
 *          other CPUs have at hand may change meanwhile. `slab contains` takes
 *          no lock: who asks about a slab that goes is told what was.
 */
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/mm.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "heap/magazine.h"
#include "kernel/console/console.h"
#include "kernel/leaks.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/json.h"

/* Slabs of one cache that are shown; the rest is counted. */
#define SLABS_SHOWN 32

enum state { LIVE, AT_HAND, IN_SLAB, STATES };

static const char state_sign[] = "#o.";
static const char *const state_name[STATES] = {
    "live", "free, at hand for a CPU", "free in the slab"};

static enum state state_of(const struct slab *slab, unsigned index)
{
    struct slab_place place;

    if (!slab_is_out(slab, index)) {
        return IN_SLAB;
    }
    return slab_find(slab_object(slab, index), &place) && place.is_live
               ? LIVE
               : AT_HAND;
}

/* --- one slab ------------------------------------------------------------- */

/* What is shown of a slab, as it was at one moment. */
struct picture {
    const struct slab_pool *pool;
    vaddr_t frames;
    vaddr_t first; /* object */
    uint64_t out;
    char strip[POOL_MAX_OBJECTS + 1];
};

/* The caller holds the pool's lock, or knows that the slab stays. */
static void draw(const struct slab *slab, struct picture *out)
{
    unsigned count = slab->pool->objects;

    out->pool = slab->pool;
    out->frames = slab->frames;
    out->first = slab->start;
    out->out = slab->out_count;
    for (unsigned i = 0; i < count; i++) {
        out->strip[i] = state_sign[state_of(slab, i)];
    }
    out->strip[count] = '\0';
}

static void print_strip(const struct picture *picture)
{
    printk("0x%lx %3u of %3u out [%s]\n", picture->frames,
           (unsigned)picture->out, picture->pool->objects, picture->strip);
}

static void print_strip_json(const struct picture *picture)
{
    json_begin("slab");
    json_text("cache", picture->pool->name);
    json_hex("slab", picture->frames);
    json_hex("first", picture->first);
    json_number("objsize", picture->pool->object_bytes);
    json_number("stride", picture->pool->stride);
    json_number("objects", picture->pool->objects);
    json_number("out", picture->out);
    json_text("strip", picture->strip);
    json_end();
}

static void print_picture(const struct picture *picture)
{
    const struct slab_pool *pool = picture->pool;

    printk("slab at 0x%lx: cache %s, %u objects of %u bytes, %u bytes apart, "
           "the first at 0x%lx, in %u frames\n",
           picture->frames, pool->name, pool->objects, pool->object_bytes,
           pool->stride, picture->first, 1u << pool->order);
    print_strip(picture);
}

/* The slab that @address lies in; NULL: in none, which is said. */
static struct slab *find_slab(const struct arguments *arguments,
                              uint64_t address)
{
    struct slab *slab = NULL;

    if (address >= LAYOUT_DIRECT && address < LAYOUT_KMAP) {
        slab = slab_of((const void *)address);
    }
    if (slab == NULL) {
        complain(arguments, "0x%lx is in no slab (try: page ADDR)", address);
    }
    return slab;
}

/* --- slab contains -------------------------------------------------------- */

static void print_object(const char *title, const struct slab *slab,
                         unsigned index)
{
    if (index >= slab->pool->objects) {
        printk("%s: the end of the slab\n", title);
        return;
    }
    printk("%s: 0x%lx, index %u: %s", title, (vaddr_t)slab_object(slab, index),
           index, state_name[state_of(slab, index)]);
    if (report_alloc_site(slab, index) != 0) {
        printk(", allocated by %p", (void *)report_alloc_site(slab, index));
    }
    if (report_free_site(slab, index) != 0) {
        printk(", freed by %p", (void *)report_free_site(slab, index));
    }
    printk("\n");
}

static void print_object_json(const struct slab *slab, unsigned index,
                              uint64_t address)
{
    vaddr_t object = (vaddr_t)slab_object(slab, index);

    json_begin("object");
    json_hex("address", address);
    json_hex("object", object);
    json_number("offset", address - object);
    json_number("index", index);
    json_number("objsize", slab->pool->object_bytes);
    json_hex("slab", slab->frames);
    json_text("cache", slab->pool->name);
    json_text("state", state_name[state_of(slab, index)]);
    json_hex("allocated_by", report_alloc_site(slab, index));
    json_hex("freed_by", report_free_site(slab, index));
    json_end();
}

static void print_guarded_json(const struct guard_object *guarded,
                               uint64_t address)
{
    json_begin("guarded");
    json_hex("address", address);
    json_hex("object", guarded->start);
    json_number("objsize", guarded->bytes);
    json_text("cache", guarded->name);
    json_text("state", guarded->is_live ? "live" : "freed");
    json_hex("allocated_by", guarded->alloc_site);
    json_hex("freed_by", guarded->free_site);
    json_end();
}

/* The address may lie before the object. */
static void print_guarded(const struct guard_object *guarded, uint64_t address)
{
    printk("0x%lx: offset %d of a guarded object of %lu bytes, cache %s, at "
           "0x%lx: %s, allocated by %p",
           address, (int)(address - guarded->start), guarded->bytes,
           guarded->name, guarded->start, guarded->is_live ? "live" : "freed",
           (void *)guarded->alloc_site);
    if (!guarded->is_live) {
        printk(", freed by %p", (void *)guarded->free_site);
    }
    printk("\n");
}

static bool run_contains(const struct arguments *arguments)
{
    struct guard_object guarded;
    uint64_t address;

    if (!argument_address(arguments->word[1], &address)) {
        return false;
    }
    if (guard_find(address, &guarded)) {
        if (arguments->wants_json) {
            print_guarded_json(&guarded, address);
        } else {
            print_guarded(&guarded, address);
        }
        return true;
    }
    const struct slab *slab = find_slab(arguments, address);
    if (slab == NULL) {
        return false;
    }
    if (address - slab->start >= slab->pool->span) {
        return complain(arguments,
                        "0x%lx is in the slab at 0x%lx (cache %s), but in no "
                        "object",
                        address, slab->frames, slab->pool->name);
    }
    unsigned index = slab_index(slab, (const void *)address);
    if (arguments->wants_json) {
        print_object_json(slab, index, address);
        return true;
    }
    printk("0x%lx: %lu bytes into an object of %u bytes, cache %s, slab "
           "0x%lx\n",
           address, address - (vaddr_t)slab_object(slab, index),
           slab->pool->object_bytes, slab->pool->name, slab->frames);
    print_object("object", slab, index);
    print_object("before", slab, index - 1);
    print_object("behind", slab, index + 1);
    return true;
}

/* --- slab info ------------------------------------------------------------ */

/* The names of some caches are two words. */
static bool is_named(const char *name, const struct arguments *arguments)
{
    const char *first = arguments->word[1];
    size_t length = strlen(first);

    if (strncmp(name, first, length) != 0) {
        return false;
    }
    if (arguments->count == 2) {
        return name[length] == '\0';
    }
    return name[length] == ' ' &&
           strcmp(name + length + 1, arguments->word[2]) == 0;
}

static const struct slab_cache *cache_named(const struct arguments *arguments)
{
    const struct slab_cache *cache = slab_next(NULL);

    while (cache != NULL && !is_named(cache->pool.name, arguments)) {
        cache = slab_next(cache);
    }
    return cache;
}

/* Slab number @number of @pool, as it is now. False: there are not so many. */
static bool draw_nth(struct slab_pool *pool, unsigned number,
                     struct picture *out)
{
    uint64_t irq = lock_acquire(&pool->lock);
    unsigned count = 0;
    bool found = false;

    for (enum pool_list list = 0; list < POOL_LISTS && !found; list++) {
        for (const struct slab *slab = pool->list[list]; slab != NULL && !found;
             slab = slab->next) {
            found = count == number;
            if (found) {
                draw(slab, out);
            }
            count++;
        }
    }
    lock_release(&pool->lock, irq);
    return found;
}

static bool print_slabs(const struct arguments *arguments,
                        const struct slab_cache *cache)
{
    struct slab_pool *pool = (struct slab_pool *)&cache->pool; /* its lock */
    struct picture picture;

    for (unsigned i = 0; i < SLABS_SHOWN && draw_nth(pool, i, &picture); i++) {
        if (arguments->wants_json) {
            print_strip_json(&picture);
        } else {
            print_strip(&picture);
        }
    }
    if (!arguments->wants_json) {
        printk("%s: %lu slabs, %d shown at most; # live, o free at hand, . "
               "free\n",
               pool->name, pool->slabs, SLABS_SHOWN);
    }
    return true;
}

static bool run_info(const struct arguments *arguments)
{
    const struct slab_cache *cache = cache_named(arguments);
    struct picture picture;
    uint64_t address;

    if (cache != NULL) {
        return print_slabs(arguments, cache);
    }
    if (arguments->count > 2) {
        return complain(arguments, "there is no cache %s %s",
                        arguments->word[1], arguments->word[2]);
    }
    if (!argument_address(arguments->word[1], &address)) {
        return complain(arguments, "and it is no cache (try: slabinfo -a)");
    }
    struct slab *slab = find_slab(arguments, address);
    if (slab == NULL) {
        return false;
    }
    uint64_t irq = lock_acquire(&slab->pool->lock);
    draw(slab, &picture);
    lock_release(&slab->pool->lock, irq);
    if (arguments->wants_json) {
        print_strip_json(&picture);
    } else {
        print_picture(&picture);
    }
    return true;
}

static bool run_slab(const struct arguments *arguments)
{
    if (strcmp(arguments->word[0], "info") == 0) {
        return run_info(arguments);
    }
    if (strcmp(arguments->word[0], "contains") == 0 && arguments->count == 2) {
        return run_contains(arguments);
    }
    return complain(arguments, "info CACHE|ADDR or contains ADDR, not %s",
                    arguments->word[0]);
}

/* --- leaks, heapcheck ----------------------------------------------------- */

static void print_leaks_json(const struct leaks *leaks)
{
    for (unsigned i = 0; i < leaks->count; i++) {
        const struct leak_group *group = &leaks->group[i];

        json_begin("leak");
        json_text("cache", group->cache);
        json_number("bytes", group->bytes);
        json_number("count", group->count);
        json_hex("example", (uint64_t)(uintptr_t)group->example);
        json_hex("allocated_by", group->site);
        json_end();
    }
}

static bool run_leaks(const struct arguments *arguments)
{
    const struct leaks *leaks = leaks_find();

    if (leaks == NULL) {
        return complain(arguments, "no memory, too many slabs, or another "
                                   "processor goes on");
    }
    if (arguments->wants_json) {
        print_leaks_json(leaks);
    } else {
        (void)leaks_print(leaks);
        printk("%lu of %lu live objects are leaked, %lu bytes; %lu KiB were "
               "read\n",
               leaks->totals.leaked, leaks->totals.live,
               leaks->totals.leaked_bytes,
               leaks->totals.words * sizeof(uint64_t) / KiB);
    }
    leaks_forget();
    return true;
}

static bool run_heapcheck(const struct arguments *arguments)
{
    bool is_sound = slab_check();

    is_sound = kmalloc_check() && is_sound;
    is_sound = guard_check() && is_sound;
    if (!is_sound) {
        return complain(arguments, "the heap is damaged (above)");
    }
    printk("sound: bitmaps, counts, lists, magazines%s\n",
           MM_DEBUG ? ", red zones and free objects"
                    : "; red zones only in debug builds");
    return true;
}

static const struct command commands[] = {
    {"slab", "", "info CACHE|ADDR, contains ADDR",
     "slabs with a strip of their objects; the object at ADDR", "info contains",
     2, 3, true, run_slab},
    {"leaks", "", "", "live objects that nobody can reach", "", 0, 0, true,
     run_leaks},
    {"heapcheck", "", "", "every slab, red zone and free object is looked at",
     "", 0, 0, false, run_heapcheck},
};

const struct command_group command_slab = COMMAND_GROUP("Slabs", commands);
