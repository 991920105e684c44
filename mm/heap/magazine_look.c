/* SPDX-License-Identifier: MIT */
/* magazine_look: what magazines hold, seen from outside. */
/*
 * Idea: nobody stops for who looks: a magazine may go back to side storage
 * while it is read, and its memory may be anything by then. So a pointer to
 * one is followed only if it leads into a slab, which is RAM on the direct map
 * for ever; what stands there is taken for a number, or for another such
 * pointer; and no list is followed further than it can be long.
 *
 * Locking: none. Checks are for a heap at rest.
 */
#include "base/bits.h"
#include "base/check.h"
#include "heap/magazine.h"

/* A CPU has two. */
#define MOST_A_CPU 2

/* What is aligned as all side storage is has its head in one page. */
#define ARRAY_ALIGNMENT (UINT64_C(1) << POOL_SIDE_SHIFT)
_Static_assert(sizeof(struct magazine) < ARRAY_ALIGNMENT, "room_to_read()");

/* @magazine if it can be read; else, and for the one without room, NULL. */
static const struct magazine *readable(const struct magazine *magazine)
{
    bool is_there = magazine != NULL &&
                    is_aligned((vaddr_t)magazine, ARRAY_ALIGNMENT) &&
                    heap_has_type(magazine, FRAME_SLAB);

    return is_there ? magazine : NULL;
}

/* The lists of magazines: one for each CPU, and the full ones of the store. */
struct walk_list {
    const struct magazine *at;
    uint64_t left; /* it may be so much longer */
};

static struct walk_list list_of(const struct slab_cache *cache, unsigned list)
{
    if (list < port_cpu_count()) {
        return (struct walk_list){
            readable(*magazine_slot((struct slab_cache *)cache, list)),
            MOST_A_CPU};
    }
    return (struct walk_list){readable(cache->store.full), cache->store.depth};
}

static void step(struct walk_list *list)
{
    list->at = list->left-- > 1 ? readable(list->at->next) : NULL;
}

void magazine_sum(const struct slab_cache *cache, uint64_t *out_cached,
                  uint64_t *out_allocs)
{
    *out_cached = cache->store.count;
    *out_allocs = cache->store.allocs;
    for (unsigned i = 0; i < port_cpu_count(); i++) {
        for (struct walk_list list = list_of(cache, i); list.at != NULL;
             step(&list)) {
            *out_cached += magazine_count(list.at);
            *out_allocs += magazine_allocs(list.at);
        }
    }
}

/* So many pointers can be read: as long as one slab's page follows another. */
static uint64_t room_to_read(const struct magazine *array)
{
    vaddr_t end = (vaddr_t)array + POOL_SIDE_MAX;
    vaddr_t page = align_down((vaddr_t)array, PAGE_BYTES) + PAGE_BYTES;

    while (page < end && heap_has_type((void *)page, FRAME_SLAB)) {
        page += PAGE_BYTES;
    }
    return (min_u64(page, end) - (vaddr_t)array->object) / sizeof(void *);
}

static bool array_holds(const struct magazine *array, const void *object)
{
    uint64_t room = room_to_read(array);

    for (uint64_t i = 1; i < room && i <= magazine_count(array); i++) {
        if (array->object[i] == object) {
            return true;
        }
    }
    return false;
}

bool magazine_holds(const struct slab_cache *cache, const void *object)
{
    for (unsigned i = 0; i <= port_cpu_count(); i++) {
        for (struct walk_list list = list_of(cache, i); list.at != NULL;
             step(&list)) {
            if (array_holds(list.at, object)) {
                return true;
            }
        }
    }
    return false;
}

static bool check_array(const struct slab_cache *cache,
                        const struct magazine *array)
{
    const char *name = cache->pool.name;

    CHECK_OR_FAIL(array->object[0] == NULL &&
                      magazine_count(array) <= array->capacity, // I1
                  "%s: %u objects in room for %u", name, magazine_count(array),
                  array->capacity);
    for (uint32_t i = 1; i <= magazine_count(array); i++) {
        const void *object = array->object[i];
        const struct slab *slab = slab_of(object);
        CHECK_OR_FAIL(slab != NULL && slab->pool == &cache->pool &&
                          slab_is_object(slab, object) &&
                          slab_is_out(slab, slab_index(slab, object)), // I2
                      "%s holds 0x%lx, which is no object of it that is out",
                      name, (unsigned long)object);
    }
    return true;
}

bool magazine_check(const struct slab_cache *cache)
{
    for (unsigned i = 0; i <= port_cpu_count(); i++) {
        for (struct walk_list list = list_of(cache, i); list.at != NULL;
             step(&list)) {
            if (!check_array(cache, list.at)) {
                return false;
            }
        }
    }
    return store_check(cache);
}
