/* SPDX-License-Identifier: MIT */
/* report: words for what is wrong with a pointer. */
/*
 * Idea: the fast paths only ask whether all is well. If not, they come here,
 * where time does not matter, and each crime gets a sentence of its own with
 * all values: pointer, object, cache, slab, index, call sites (debug builds;
 * 0 elsewhere). The neighbours are named before it, a line each, since who has
 * overwritten an object is often one of them, and a report may be the end. A
 * report changes nothing.
 *
 * Locking: none taken. Descriptors are read without the pool's lock; a report
 * about an object that another CPU frees at this moment may be out of date.
 */
#include "heap/report.h"

#include "heap/poison.h"

uintptr_t report_alloc_site(const struct slab *slab, unsigned index)
{
    return slab->track == NULL ? 0 : slab->track[index].alloc_site;
}

uintptr_t report_free_site(const struct slab *slab, unsigned index)
{
    return slab->track == NULL ? 0 : slab->track[index].free_site;
}

/* @which: "before" or "behind" */
static void report_neighbour(const struct slab *slab, unsigned index,
                             const char *which)
{
    if (index >= slab->pool->objects) { /* also less than 0 */
        port_log("%s it: the end of the slab", which);
        return;
    }
    bool is_live = slab->track != NULL ? slab->track[index].is_live
                                       : slab_is_out(slab, index);
    const char *state = slab->track != NULL ? "free" : "in its slab";

    port_log("%s it: object 0x%lx (index %u), %s, allocated by %p, "
             "freed by %p",
             which, (unsigned long)slab_object(slab, index), index,
             is_live ? (slab->track != NULL ? "live" : "out") : state,
             (void *)report_alloc_site(slab, index),
             (void *)report_free_site(slab, index));
}

void report_neighbours(const struct slab *slab, unsigned index)
{
    report_neighbour(slab, index - 1, "before");
    report_neighbour(slab, index + 1, "behind");
}

/* What lies at @address that is no slab. */
static const char *what_is_at(const void *address)
{
    switch (frame_state(phys_to_pfn(virt_to_phys(address)))) {
    case FRAME_STATE_FREE:
    case FRAME_STATE_CACHED:
        return "a free frame";
    case FRAME_STATE_ALLOCATED:
        return "a frame of another owner, type ";
    case FRAME_STATE_METADATA:
        return "metadata of the frame allocator";
    case FRAME_STATE_OFFLINE:
    case FRAME_STATE_RESERVED:
        return "reserved RAM";
    case FRAME_STATE_NO_RAM:
        break;
    }
    return "no RAM of the direct map";
}

/* The word for the type of the frame there, "" if it is not handed out. */
static const char *type_at(const void *address)
{
    pfn_t pfn = phys_to_pfn(virt_to_phys(address));

    if (frame_state(pfn) != FRAME_STATE_ALLOCATED) {
        return "";
    }
    enum frame_type type = (enum frame_type)record_of(pfn)->type;
    return type == FRAME_NONE ? "unknown: inside a block"
                              : frame_type_name(type);
}

/* @address is in @slab, but before or behind all objects. */
static bool is_outside_objects(const struct slab *slab, const void *address)
{
    return (vaddr_t)address - slab->start >= slab->pool->span;
}

/* How each deed is told. */
static const struct words {
    const char *name;
    const char *after_free; /* of an object that was freed */
    const char *elsewhere;  /* of another cache's object */
    const char *to;         /* the cache */
} words_for[] = {
    [REPORT_FREE] = {"free", "double free", "free to the wrong cache", "to"},
    [REPORT_USE] = {"use", "use after free", "use in the wrong cache", "in"},
};

const char *report_deed_name(enum report_deed deed)
{
    return words_for[deed].name;
}

/* Who has committed it, and with which cache in mind. */
struct suspect {
    const struct words *words;
    const char *where;
    uintptr_t site;
};

static void report_inside(const struct slab *slab, const void *object,
                          const struct suspect *by)
{
    unsigned index = slab_index(slab, object);
    const char *start = slab_object(slab, index);

    report_neighbours(slab, index);
    port_bug("%s of an interior pointer 0x%lx: 0x%x bytes into object 0x%lx "
             "(%u bytes, cache %s, slab 0x%lx, index %u of %u) %s %s by %p, "
             "allocated by %p, last freed by %p",
             by->words->name, (unsigned long)object,
             (unsigned)((const char *)object - start), (unsigned long)start,
             slab->pool->object_bytes, slab->pool->name,
             (unsigned long)slab->frames, index, slab->pool->objects,
             by->words->to, by->where, (void *)by->site,
             (void *)report_alloc_site(slab, index),
             (void *)report_free_site(slab, index));
}

/* The first byte of an object, but of another cache or not out. */
static void report_object(const struct slab *slab, const void *object,
                          const char *crime, const struct suspect *by)
{
    unsigned index = slab_index(slab, object);

    report_neighbours(slab, index);
    port_bug("%s of object 0x%lx (%u bytes, cache %s, slab 0x%lx, index %u of "
             "%u) %s %s by %p, allocated by %p, last freed by %p",
             crime, (unsigned long)object, slab->pool->object_bytes,
             slab->pool->name, (unsigned long)slab->frames, index,
             slab->pool->objects, by->words->to, by->where, (void *)by->site,
             (void *)report_alloc_site(slab, index),
             (void *)report_free_site(slab, index));
}

void report_pointer(enum report_deed deed, const struct slab_pool *expected,
                    const void *object, uintptr_t site)
{
    const struct words *words = &words_for[deed];
    const struct suspect by = {
        words, expected == NULL ? "kmalloc" : expected->name, site};
    const struct slab *slab = slab_of(object);

    if (slab == NULL) {
        port_bug("%s of a foreign pointer 0x%lx %s %s by %p: there is %s%s",
                 words->name, (unsigned long)object, words->to, by.where,
                 (void *)site, what_is_at(object), type_at(object));
    } else if (is_outside_objects(slab, object)) {
        port_bug("%s of 0x%lx %s %s by %p: outside all objects of slab "
                 "0x%lx (cache %s)",
                 words->name, (unsigned long)object, words->to, by.where,
                 (void *)site, (unsigned long)slab->frames, slab->pool->name);
    } else if (!slab_is_object(slab, object)) {
        report_inside(slab, object, &by);
    } else if (!pool_is_expected(expected, slab->pool)) {
        report_object(slab, object, words->elsewhere, &by);
    } else {
        report_object(slab, object, words->after_free, &by);
    }
}

void report_free(const struct slab_pool *expected, const void *object,
                 uintptr_t site)
{
    report_pointer(REPORT_FREE, expected, object, site);
}
