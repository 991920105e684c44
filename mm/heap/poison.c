/* SPDX-License-Identifier: MIT */
/* poison: patterns in and around objects, debug builds. */
/*
 * Owns: the tracks beside the objects, and the patterns in free objects and
 * between objects. Called only where MM_DEBUG is on.
 *
 * Idea: fill what nobody may write with a known value, and look at it again
 * where a write would have to be seen: red zones when the object is freed,
 * free objects when they are used again or when their slab goes back to the
 * frames, everything in slab_check().
 *
 * Picture, the stride of one object; the tail begins at the byte behind the
 * size asked for, even if the size class has more:
 *
 *   ...bb bb][ object: asked for | cc cc ... cc cc][bb bb bb bb][ next object
 *       head                       tail              its head
 *
 * A constructed object keeps its contents while it is free, so that only its
 * red zones are watched.
 *
 * Invariants:
 *   I1  red zones hold their pattern, and a free object POISON_FREE
 *   I2  a live object is out of its slab
 *
 * Locking: none; a track belongs to whoever holds the object.
 * Cost: O(size) an allocation and a free.
 */
#include "heap/poison.h"

#include "base/check.h"
#include "base/memory.h"
#include "heap/report.h"

bool poison_is_intact(const void *start, const void *end, uint8_t value,
                      const uint8_t **out_bad)
{
    for (const uint8_t *byte = start; byte < (const uint8_t *)end; byte++) {
        if (*byte != value) {
            *out_bad = byte;
            return false;
        }
    }
    return true;
}

static void fill(void *start, const void *end, uint8_t value)
{
    memset(start, value, (size_t)((const char *)end - (const char *)start));
}

/* One object and what belongs to it. */
struct subject {
    const struct slab *slab;
    unsigned index;
    struct poison_track *track;
    uint8_t *head; /* red zone before the object */
    uint8_t *object;
    uint8_t *tail; /* red zone behind the bytes asked for */
    uint8_t *end;  /* of the tail, where the next head begins */
};

static struct subject subject_at(const struct slab *slab, unsigned index)
{
    struct poison_track *track = &slab->track[index];
    uint8_t *object = slab_object(slab, index);

    return (struct subject){
        .slab = slab,
        .index = index,
        .track = track,
        .head = object - POISON_HEAD_BYTES,
        .object = object,
        .tail = object + track->bytes,
        .end = object + slab->pool->stride - POISON_HEAD_BYTES,
    };
}

static struct subject subject_of(const struct slab *slab, const void *object)
{
    return subject_at(slab, slab_index(slab, object));
}

static bool is_poisoned(const struct subject *subject)
{
    return !subject->track->is_live && subject->slab->pool->constructor == NULL;
}

/* What is wrong, and the byte that shows it. */
struct damage {
    const char *what;
    const uint8_t *byte;
    uint8_t expected;
};

static bool find_damage(const struct subject *subject, struct damage *out)
{
    *out = (struct damage){"underflow", NULL, POISON_HEAD};
    if (!poison_is_intact(subject->head, subject->object, POISON_HEAD,
                          &out->byte)) {
        return true;
    }
    *out = (struct damage){"overflow", NULL, POISON_TAIL};
    if (!poison_is_intact(subject->tail, subject->end, POISON_TAIL,
                          &out->byte)) {
        return true;
    }
    *out = (struct damage){"use after free", NULL, POISON_FREE};
    return is_poisoned(subject) &&
           !poison_is_intact(subject->object, subject->tail, POISON_FREE,
                             &out->byte);
}

/* @say: port_bug or port_log. */
static void describe(const struct subject *subject, const struct damage *damage,
                     void (*say)(const char *format, ...))
{
    const struct slab_pool *pool = subject->slab->pool;

    report_neighbours(subject->slab, subject->index);
    say("%s: byte 0x%lx (offset %d) is 0x%x, expected 0x%x; object 0x%lx "
        "(%u bytes, cache %s, slab 0x%lx, index %u of %u), "
        "allocated by %p, freed by %p",
        damage->what, (unsigned long)damage->byte,
        (int)(damage->byte - subject->object), *damage->byte, damage->expected,
        (unsigned long)subject->object, subject->track->bytes, pool->name,
        (unsigned long)subject->slab->frames, subject->index, pool->objects,
        (void *)subject->track->alloc_site, (void *)subject->track->free_site);
}

static void report_damage(const struct subject *subject)
{
    struct damage damage;

    if (find_damage(subject, &damage)) {
        describe(subject, &damage, port_bug);
    }
}

static void draw_red_zones(const struct subject *subject)
{
    fill(subject->head, subject->object, POISON_HEAD);
    fill(subject->tail, subject->end, POISON_TAIL);
}

/* Make the object one that waits to be taken. */
static void make_free(struct slab *slab, unsigned index, uintptr_t site)
{
    struct poison_track *track = &slab->track[index];

    track->is_live = false;
    track->free_site = site;
    track->bytes = slab->pool->object_bytes;
    struct subject subject = subject_at(slab, index);
    draw_red_zones(&subject);
    if (is_poisoned(&subject)) {
        fill(subject.object, subject.tail, POISON_FREE);
    }
}

void poison_slab(struct slab *slab)
{
    for (unsigned i = 0; i < slab->pool->objects; i++) {
        slab->track[i].alloc_site = 0;
        make_free(slab, i, 0);
    }
}

void poison_on_alloc(void *object, uint64_t bytes, uintptr_t site)
{
    struct slab *slab = slab_of(object);
    struct subject before = subject_of(slab, object);

    ASSERT(bytes <= slab->pool->object_bytes);
    report_damage(&before);
    before.track->is_live = true;
    before.track->alloc_site = site;
    before.track->bytes = (uint32_t)bytes;
    struct subject subject = subject_of(slab, object);
    draw_red_zones(&subject);
    if (slab->pool->constructor == NULL) {
        fill(object, subject.tail, POISON_NEW);
    }
}

bool poison_on_free(struct slab *slab, void *object, uintptr_t site)
{
    struct subject subject = subject_of(slab, object);

    if (!subject.track->is_live) {
        return false;
    }
    report_damage(&subject);
    make_free(slab, subject.index, site);
    return true;
}

void poison_resize(void *object, uint64_t bytes)
{
    struct slab *slab = slab_of(object);
    struct subject before = subject_of(slab, object);

    ASSERT(before.track->is_live);
    ASSERT(bytes <= slab->pool->object_bytes);
    report_damage(&before);
    before.track->bytes = (uint32_t)bytes;
    struct subject subject = subject_of(slab, object);
    draw_red_zones(&subject);
    if (before.tail < subject.tail) {
        fill(before.tail, subject.tail, POISON_NEW);
    }
}

void poison_verify_slab(struct slab *slab)
{
    for (unsigned i = 0; i < slab->pool->objects; i++) {
        struct subject subject = subject_at(slab, i);
        report_damage(&subject);
    }
}

unsigned poison_count_live(const struct slab *slab)
{
    unsigned live = 0;

    for (unsigned i = 0; i < slab->pool->objects; i++) {
        live += slab->track[i].is_live ? 1 : 0;
    }
    return live;
}

bool poison_check_slab(const struct slab *slab)
{
    for (unsigned i = 0; i < slab->pool->objects; i++) {
        struct subject subject = subject_at(slab, i);
        struct damage damage;
        if (find_damage(&subject, &damage)) { // I1
            describe(&subject, &damage, port_log);
            return false;
        }
        CHECK_OR_FAIL(!subject.track->is_live || slab_is_out(slab, i), // I2
                      "object %u of slab 0x%lx (%s) is live and in", i,
                      (unsigned long)slab->frames, slab->pool->name);
    }
    return true;
}
