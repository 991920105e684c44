/* SPDX-License-Identifier: MIT */
/* slab: caches of equal objects. Never reads or writes a free object. */
/*
 * Owns: the list of caches.
 *
 * Idea: three tiers [Bonwick94], [Bonwick01], of which each knows only the one
 * below it: a magazine a CPU and a central store (magazine.c), slabs cut from
 * frames (pool.c). Magazines are arrays of pointers and slabs have bitmaps
 * beside them: no free object is read or written, so nothing in it can be
 * corrupted to take the heap over, and none of its cache lines is fetched.
 * In debug builds poison.c writes patterns into free objects and looks at
 * them again, and knows at once when an object is freed twice; in release
 * builds the slab's bitmap knows when the object comes back to it.
 *
 * Invariants:
 *   I1  live + cached = objects out of their slabs, and guarded ones
 *
 * Locking: caches_lock is outermost, for the list. It is held while all caches
 * are drained or checked. Under it the locks of stores and of pools are taken,
 * never two of them together. The frame allocator takes no lock.
 *
 * Context: everything but slab_create() and slab_destroy() may be called from
 * interrupts, too; all memory lies in the direct map.
 *
 * Limits: a constructor, and port_bug(), may not use the cache they are called
 * for: its magazine is in their caller's hands.
 */
#include <mm/slab.h>

#include <mm/shrink.h>
#include "base/bits.h"
#include "base/check.h"
#include "heap/guard.h"
#include "heap/magazine.h"
#include "heap/slab_impl.h"

static struct lock caches_lock = LOCK_INIT(LOCK_RANK_CACHES);
static struct slab_cache *first_cache; /* (N) new ones come last */

/* @a - @b, or 0: the two are read while others are at work. */
static uint64_t less_or_none(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* --- under pressure ------------------------------------------------------- */

/* As many slabs of a cache as the objects that nobody uses would fill. */
static uint64_t count_idle(void *context)
{
    uint64_t frames = 0;
    uint64_t irq = lock_acquire(&caches_lock);

    (void)context;
    for (const struct slab_cache *cache = first_cache; cache != NULL;
         cache = cache->next) {
        struct slab_stats stats;

        slab_stats(cache, &stats);
        /* Guarded objects are live, too, but in no slab. */
        uint64_t idle =
            less_or_none(stats.slabs * stats.slab_objects, stats.live);
        frames += idle / stats.slab_objects * stats.slab_frames;
    }
    lock_release(&caches_lock, irq);
    return frames;
}

/*
 * Counted is what went back, and not what is left: another CPU may take slabs
 * meanwhile. What others give back counts as well; the caller may have that.
 */
static uint64_t drain_for(void (*drain)(void))
{
    uint64_t before =
        atomic_load_explicit(&pool_frames_freed, memory_order_relaxed);

    drain();
    return atomic_load_explicit(&pool_frames_freed, memory_order_relaxed) -
           before;
}

static uint64_t scan_heap(void *context, uint64_t frames)
{
    (void)context;
    (void)frames; /* there is no more to be had than all */
    return drain_for(slab_drain);
}

static uint64_t drain_cpu(void *context)
{
    (void)context;
    return drain_for(slab_drain);
}

static struct shrinker heap_shrinker = {
    .name = "heap",
    .priority = SHRINK_SPARE,
    .count = count_idle,
    .scan = scan_heap,
    .drain = drain_cpu,
};

/* --- caches --------------------------------------------------------------- */

void slab_note_states(void)
{
    pool_notes_states = true;
}

enum mm_status slab_init(void)
{
    lock_init(&caches_lock, LOCK_RANK_CACHES);
    first_cache = NULL;
    guard_init();
    quarantine_init();
    pool_start();
    shrink_init();
    shrink_register(&heap_shrinker);
    return MM_OK;
}

/* What alignment 0 means: the object's own power of two, or 16. */
static uint64_t natural_alignment(uint64_t bytes)
{
    return is_power_of_two(bytes) ? bytes : POOL_MIN_ALIGNMENT;
}

static void append_cache(struct slab_cache *cache)
{
    uint64_t irq = lock_acquire(&caches_lock);
    struct slab_cache **link = &first_cache;

    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = cache;
    lock_release(&caches_lock, irq);
}

static void remove_cache(struct slab_cache *cache)
{
    uint64_t irq = lock_acquire(&caches_lock);
    struct slab_cache **link = &first_cache;

    while (*link != cache) {
        ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = cache->next;
    lock_release(&caches_lock, irq);
}

struct slab_cache *slab_create_kind(enum pool_kind kind, const char *name,
                                    uint64_t bytes, uint64_t alignment,
                                    void (*constructor)(void *))
{
    struct slab_cache *cache =
        pool_side_alloc_or_reclaim(magazine_cache_bytes());

    if (cache == NULL) {
        return NULL;
    }
    pool_init(&cache->pool, kind, name, bytes, alignment);
    cache->pool.constructor = constructor;
    magazine_init(cache);
    append_cache(cache);
    return cache;
}

struct slab_cache *slab_create(const char *name, uint64_t bytes,
                               uint64_t alignment, void (*constructor)(void *))
{
    if (bytes == 0 || bytes > POOL_MAX_BYTES || alignment > PAGE_BYTES ||
        (alignment != 0 && !is_power_of_two(alignment))) {
        return NULL;
    }
    if (alignment == 0) {
        alignment = natural_alignment(bytes);
    }
    return slab_create_kind(POOL_CACHE, name, bytes, alignment, constructor);
}

/* Of @live objects the first that is in a slab; the magazines are empty. */
static void report_live(const struct slab_cache *cache, unsigned live)
{
    const struct slab *slab = NULL;
    unsigned index = 0;

    for (unsigned list = POOL_LISTS; list-- > POOL_PARTIAL && slab == NULL;) {
        slab = cache->pool.list[list];
    }
    while (!slab_is_out(slab, index)) {
        index++;
    }
    port_bug("slab_destroy: cache %s has %u live objects; one is 0x%lx (slab "
             "0x%lx, index %u), allocated by %p",
             cache->pool.name, live, (unsigned long)slab_object(slab, index),
             (unsigned long)slab->frames, index,
             (void *)report_alloc_site(slab, index));
}

/* The same if none is in a slab. */
static void report_guarded(const struct slab_cache *cache, unsigned live)
{
    struct guard_object one = {0};

    (void)guard_find_live(&cache->pool, &one);
    port_bug("slab_destroy: cache %s has %u live objects, all guarded; one is "
             "0x%lx, allocated by %p on CPU %u",
             cache->pool.name, live, (unsigned long)one.start,
             (void *)one.alloc_site, one.alloc_cpu);
}

/* All back to the frames, unless there are live objects: that is reported. */
static MM_MUST_CHECK enum mm_status take_down(struct slab_cache *cache)
{
    quarantine_drain(&cache->pool);
    magazine_drain_all(cache);
    unsigned live = (unsigned)cache->pool.out + guard_count_live(&cache->pool);
    if (cache->pool.out > 0) {
        report_live(cache, live);
        return MM_EBUSY;
    }
    if (live > 0) {
        report_guarded(cache, live);
        return MM_EBUSY;
    }
    guard_forget(&cache->pool);
    ASSERT(cache->pool.slabs == 0);
    return MM_OK;
}

enum mm_status slab_destroy(struct slab_cache *cache)
{
    /* Off the list: a drain elsewhere may have its objects in hand till then.
     */
    remove_cache(cache);
    enum mm_status status = take_down(cache);

    if (status == MM_OK) {
        pool_side_free(cache);
    } else {
        append_cache(cache);
    }
    return status;
}

#if !MAGAZINE_RESTARTS
void *slab_alloc(struct slab_cache *cache)
{
    return magazine_alloc(cache, 0);
}
#endif

/*
 * Is @object the first byte of an object of @cache? Any address is allowed.
 * @reciprocal: the pool's, or 0: then the answer is no.
 */
static inline bool is_own(const struct slab_cache *cache, uint32_t reciprocal,
                          const void *object)
{
    return (uint8_t)heap_what(object) == FRAME_SLAB &&
           slab_around(object)->pool == &cache->pool &&
           slab_starts_object(slab_around(object), reciprocal, object);
}

/* No quick free: the rest of slab_free(). */
static MM_NOINLINE void free_other(struct slab_cache *cache, void *object,
                                   uintptr_t site)
{
    if (is_own(cache, cache->pool.reciprocal, object)) {
        magazine_free_noted(cache, slab_around(object), object, site);
    } else if (object != NULL && !guard_free(object, &cache->pool, site)) {
        report_free(&cache->pool, object, site);
    }
}

void slab_free(struct slab_cache *cache, void *object)
{
    if (MM_UNLIKELY(!is_own(cache, cache->pool.quick, object))) {
        free_other(cache, object, MM_CALLER());
        return;
    }
    magazine_free(cache, slab_around(object), object);
}

bool slab_alloc_bulk(struct slab_cache *cache, unsigned count,
                     void **out_objects)
{
    unsigned made = magazine_alloc_bulk(cache, out_objects, count, MM_CALLER());

    if (made < count) {
        slab_free_bulk(cache, out_objects, made);
    }
    return made == count;
}

/* May the first so many of @objects go back with no more than a push? */
static unsigned count_quick(const struct slab_cache *cache,
                            void *const *objects, unsigned count)
{
    unsigned quick = 0;

    while (quick < count && is_own(cache, cache->pool.quick, objects[quick])) {
        quick++;
    }
    return quick;
}

void slab_free_bulk(struct slab_cache *cache, void *const *objects,
                    unsigned count)
{
    unsigned done = 0;

    while (done < count) {
        void *object = objects[done];

        if (MM_DEBUG && is_own(cache, cache->pool.quick, object)) {
            /* Each alone: it may be free already, or have to wait. */
            magazine_free(cache, slab_around(object), object);
            done++;
            continue;
        }
        unsigned quick = count_quick(cache, objects + done, count - done);
        magazine_push_bulk(cache, objects + done, quick);
        done += quick;
        if (done < count) {
            free_other(cache, objects[done++], MM_CALLER());
        }
    }
}

void slab_drain(void)
{
    uint64_t irq = lock_acquire(&caches_lock);

    for (struct slab_cache *cache = first_cache; cache != NULL;
         cache = cache->next) {
        quarantine_drain(&cache->pool);
        magazine_drain(cache);
    }
    lock_release(&caches_lock, irq);
    pool_side_trim();
}

void slab_stats(const struct slab_cache *cache, struct slab_stats *out)
{
    const struct slab_pool *pool = &cache->pool;
    uint64_t cached;
    uint64_t allocs;

    magazine_sum(cache, &cached, &allocs);
    cached += quarantine_count(pool);
    uint64_t guarded = guard_count_live(pool);
    uint64_t out_count = pool->out; /* once: others may be at work */
    cached = min_u64(cached, out_count);
    uint64_t live = out_count - cached + guarded; // I1
    *out = (struct slab_stats){
        .name = pool->name,
        .object_bytes = pool->object_bytes,
        .stride_bytes = pool->stride,
        .slab_objects = pool->objects,
        .slab_frames = UINT64_C(1) << pool->order,
        .slabs = pool->slabs,
        .live = live,
        .cached = cached,
        .allocs = allocs,
        .frees = less_or_none(allocs, live),
        .failures = cache->store.failures,
        .exchanges = cache->store.exchanges,
    };
}

const struct slab_cache *slab_next(const struct slab_cache *cache)
{
    return cache == NULL ? first_cache : cache->next;
}

/* Debug builds know; else what is out and not cached is live. */
static bool is_live(const struct slab *slab, unsigned index)
{
    if (slab->track != NULL) {
        return slab->track[index].is_live;
    }
    if (slab->pool->states > 0) {
        return atomic_load_explicit(slab_state(slab, index),
                                    memory_order_relaxed);
    }
    return slab_is_out(slab, index) &&
           (slab->pool->kind == POOL_SIDE ||
            !magazine_holds(cache_of(slab->pool), slab_object(slab, index)));
}

bool slab_find(const void *address, struct slab_place *out)
{
    const struct slab *slab = slab_of(address);

    if (slab == NULL || (vaddr_t)address - slab->start >= slab->pool->span) {
        return false;
    }
    unsigned index = slab_index(slab, address);
    *out = (struct slab_place){
        .cache = slab->pool->kind == POOL_SIDE ? NULL : cache_of(slab->pool),
        .cache_name = slab->pool->name,
        .slab_start = slab->frames,
        .object = (vaddr_t)slab_object(slab, index),
        .object_bytes = slab->pool->object_bytes,
        .index = index,
        .is_live = is_live(slab, index),
        .alloc_site = report_alloc_site(slab, index),
        .free_site = report_free_site(slab, index),
    };
    return true;
}

/* Debug builds: live objects by their tracks. I1 */
static bool check_live(const struct slab_cache *cache)
{
    uint64_t tracked = guard_count_live(&cache->pool);
    struct slab_stats stats;

    slab_stats(cache, &stats);
    for (enum pool_list list = 0; list < POOL_LISTS; list++) {
        for (const struct slab *slab = cache->pool.list[list]; slab != NULL;
             slab = slab->next) {
            tracked += poison_count_live(slab);
        }
    }
    CHECK_OR_FAIL(tracked == stats.live,
                  "%s: %u live objects, but %u out and not cached", stats.name,
                  (unsigned)tracked, (unsigned)stats.live);
    return true;
}

static bool check_cache(struct slab_cache *cache)
{
    return pool_check(&cache->pool) && magazine_check(cache) &&
           (!MM_DEBUG || check_live(cache));
}

bool slab_check(void)
{
    bool is_sound = pool_side_check();
    uint64_t irq = lock_acquire(&caches_lock);

    for (struct slab_cache *cache = first_cache; cache != NULL && is_sound;
         cache = cache->next) {
        is_sound = check_cache(cache);
    }
    lock_release(&caches_lock, irq);
    return is_sound;
}
