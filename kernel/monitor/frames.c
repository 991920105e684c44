/* SPDX-License-Identifier: MIT */
/* frames: commands that change what the frame allocator has. */
#include <mm/frame.h>
#include <mm/shrink.h>
#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/lib/string.h"
#include "kernel/memory.h"
#include "kernel/monitor/command.h"

/* --- frame offline, frame online ------------------------------------------ */

/* Whole pages [start, end) of physical addresses. */
static bool read_range(const struct arguments *arguments, pfn_t *out_start,
                       pfn_t *out_end)
{
    uint64_t start;
    uint64_t end;

    if (!argument_number(arguments->word[1], &start) ||
        !argument_number(arguments->word[2], &end)) {
        return false;
    }
    if (!is_aligned(start | end, PAGE_BYTES)) {
        return complain(arguments, "0x%lx-0x%lx are no whole pages", start,
                        end);
    }
    *out_start = phys_to_pfn(paddr_of(start));
    *out_end = phys_to_pfn(paddr_of(end));
    return true;
}

static bool take_offline(const struct arguments *arguments, pfn_t start,
                         pfn_t end)
{
    pfn_t busy = PFN_NONE;

    switch (frame_remove(start, end, &busy)) {
    case MM_OK:
        printk("offline: %lu frames from 0x%lx on\n", end.v - start.v,
               pfn_to_phys(start).v);
        return true;
    case MM_EBUSY:
        return complain(arguments, "0x%lx is in use (page 0x%lx)",
                        pfn_to_phys(busy).v, pfn_to_phys(busy).v);
    case MM_ENOMEM:
        return complain(arguments,
                        "the watermarks want more to be left, or the memory "
                        "map has no room for 0x%lx-0x%lx",
                        pfn_to_phys(start).v, pfn_to_phys(end).v);
    default:
        return complain(arguments,
                        "not all of 0x%lx-0x%lx is usable RAM (iomem)",
                        pfn_to_phys(start).v, pfn_to_phys(end).v);
    }
}

static bool take_online(const struct arguments *arguments, pfn_t start,
                        pfn_t end)
{
    switch (frame_add(start, end)) {
    case MM_OK:
        printk("online: %lu frames from 0x%lx on\n", end.v - start.v,
               pfn_to_phys(start).v);
        return true;
    case MM_ENOMEM:
        return complain(arguments, "the memory map has no room for 0x%lx-0x%lx",
                        pfn_to_phys(start).v, pfn_to_phys(end).v);
    case MM_EBUSY:
        return complain(arguments,
                        "another CPU has begun to use a part of 0x%lx-0x%lx",
                        pfn_to_phys(start).v, pfn_to_phys(end).v);
    default:
        return complain(arguments,
                        "not all of 0x%lx-0x%lx is RAM out of use (iomem)",
                        pfn_to_phys(start).v, pfn_to_phys(end).v);
    }
}

/* All of it: the kernel's own RAM is kept back as well. */
static bool is_offline(pfn_t start, pfn_t end)
{
    uint64_t at = pfn_to_phys(start).v;

    while (at < pfn_to_phys(end).v) {
        const struct memmap_range *range =
            memmap_find(memory_map(), paddr_of(at));
        if (range == NULL || range->type != MEMMAP_OFFLINE) {
            return false;
        }
        at = range->end;
    }
    return true;
}

static bool run_frame(const struct arguments *arguments)
{
    const char *what = arguments->word[0];
    pfn_t start = PFN_NONE;
    pfn_t end = PFN_NONE;

    if (!read_range(arguments, &start, &end)) {
        return false;
    }
    if (start.v >= end.v) {
        return complain(arguments, "nothing lies between 0x%lx and 0x%lx",
                        pfn_to_phys(start).v, pfn_to_phys(end).v);
    }
    if (strcmp(what, "offline") == 0) {
        return take_offline(arguments, start, end);
    }
    if (strcmp(what, "online") != 0) {
        return complain(arguments, "offline or online, not %s", what);
    }
    return is_offline(start, end)
               ? take_online(arguments, start, end)
               : complain(arguments, "0x%lx-0x%lx is not offline",
                          pfn_to_phys(start).v, pfn_to_phys(end).v);
}

/* --- watermarks ----------------------------------------------------------- */

static bool run_watermarks(const struct arguments *arguments)
{
    struct frame_watermarks marks;
    uint64_t *const mark[] = {&marks.min, &marks.low, &marks.high};

    frame_watermarks(&marks);
    if (arguments->count != 0 && arguments->count != 3) {
        return complain(arguments, "all three of MIN LOW HIGH, or none");
    }
    for (unsigned i = 0; i < arguments->count; i++) {
        if (!argument_number(arguments->word[i], mark[i])) {
            return false;
        }
    }
    if (frame_set_watermarks(&marks) != MM_OK) {
        return complain(arguments,
                        "%lu %lu %lu do not ascend, or are more than all "
                        "frames",
                        marks.min, marks.low, marks.high);
    }
    printk("min %lu, low %lu, high %lu frames\n", marks.min, marks.low,
           marks.high);
    return true;
}

/* --- shrink --------------------------------------------------------------- */

static void print_shrinkers(void)
{
    struct shrink_info info;

    printk("shrinker        priority   frames      asked      freed\n");
    for (unsigned i = 0; shrink_look(i, &info); i++) {
        printk("%-15s %-8s %8lu %10lu %10lu\n", info.name,
               shrink_priority_name(info.priority), info.count, info.asked,
               info.freed);
    }
}

/* As an allocation would that finds nothing. */
static bool run_shrink(const struct arguments *arguments)
{
    uint64_t frames = UINT64_MAX;

    if (arguments->count == 0) {
        print_shrinkers();
        return true;
    }
    if (strcmp(arguments->word[0], "all") != 0 &&
        !argument_number(arguments->word[0], &frames)) {
        return false;
    }
    printk("%lu frames freed\n", shrink_reclaim(frames));
    return true;
}

/* --- inject --------------------------------------------------------------- */

#if MM_INJECT

#define SITE_BYTES 64

static char site[SITE_BYTES]; /* stays: <mm/frame.h> */

static bool read_site(const struct arguments *arguments,
                      struct frame_injection *out)
{
    size_t length = strlen(arguments->word[2]);

    if (length >= sizeof(site)) {
        return complain(arguments, "no function has a name of %lu characters",
                        length);
    }
    memcpy(site, arguments->word[2], length + 1);
    out->site = site;
    return true;
}

static bool turn_off(const struct arguments *arguments)
{
    const char *const *word = arguments->word;

    if (arguments->count > 1) {
        return complain(arguments, "off stands alone, without %s%s%s", word[1],
                        arguments->count > 2 ? " " : "",
                        arguments->count > 2 ? word[2] : "");
    }
    frame_inject_set(NULL);
    return true;
}

static bool run_inject(const struct arguments *arguments)
{
    struct frame_injection injection = {0};
    uint64_t number = 0;

    if (arguments->count == 0) {
        printk("%lu allocations looked at, %lu made to fail\n",
               frame_inject_count(), frame_inject_failed());
        return true;
    }
    const char *what = arguments->word[0];
    if (strcmp(what, "off") == 0) {
        return turn_off(arguments);
    }
    if (arguments->count < 2) {
        return complain(arguments, "%s which? A number is missing", what);
    }
    if (!argument_number(arguments->word[1], &number)) {
        return false;
    }
    if (number == 0) {
        return complain(arguments, "%s 0 is none; inject off says so", what);
    }
    if (strcmp(what, "nth") == 0) {
        injection.nth = number;
    } else if (strcmp(what, "every") == 0) {
        injection.every = number;
    } else {
        return complain(arguments, "nth, every or off, not %s", what);
    }
    if (arguments->count == 3 && !read_site(arguments, &injection)) {
        return false;
    }
    frame_inject_set(&injection);
    return true;
}

#else

static bool run_inject(const struct arguments *arguments)
{
    return complain(arguments, "this build cannot: make DEBUG=1");
}

#endif

static const struct command commands[] = {
    {"frame", "", "offline|online START END",
     "take RAM out of use, or back: physical addresses", "offline online", 3, 3,
     false, run_frame},
    {"watermarks", "", "[MIN LOW HIGH]",
     "free frames at which memory is short; 0 0 0: none", "", 0, 3, false,
     run_watermarks},
    {"shrink", "drop_caches", "[FRAMES|all]",
     "who keeps memory for comfort; have them give it back", "all", 0, 1, false,
     run_shrink},
    {"inject", "", "[nth|every N [FUNCTION]]",
     "let allocations of frames fail, or off; how many did", "nth every off", 0,
     3, false, run_inject},
};

const struct command_group command_frames = COMMAND_GROUP("Frames", commands);
