/* SPDX-License-Identifier: MIT */
/* pool: slabs of equal objects, straight from frames. */
/*
 * Owns: slabs and their descriptors; the lists of a pool; side storage.
 *
 * Idea: the third tier of the heap, below the CPUs' magazines and the central
 * store. A slab is a block of frames cut into equal objects. A bitmap in its
 * descriptor says which of them are out. The record of each of its frames
 * leads to the descriptor, so that any address finds slab and object in O(1),
 * and the objects themselves are neither read nor written.
 *
 * Picture:
 *
 *   frame records  [slab|tail|tail|tail]
 *                     |owner (all four)
 *                     v
 *   descriptor     {pool, start, out: 1101...}       in side storage
 *                          |
 *                          v
 *   frames         [rest][object 0][object 1][object 2]...
 *
 * Side storage holds what stands beside objects. Its own slabs begin with
 * their descriptor, so that it needs nothing from anybody but frames: growing
 * a pool takes at most one step down.
 *
 * Invariants:
 *   I1  a slab is on the list that its number of objects out says
 *   I2  out_count is the number of bits set below pool->objects; all above
 *       are set
 *   I3  every frame's record has type FRAME_SLAB, the slab as owner and the
 *       pool's number
 *   I4  slabs and out of the pool are the sums over its slabs
 *   I5  at most one empty slab is kept: an alternation of one allocation and
 *       one free then never makes and unmakes a slab each time
 *
 * Locking: one lock a pool, for bitmaps and lists. Frames and side storage are
 * taken and given back outside it, no lock is taken inside it.
 *
 * Cost: take and put O(1) an object. A slab loses at most 1/MOST_WASTE of its
 * bytes. What is taken comes from the densest slabs, so that sparse ones drain.
 *
 * Limits: where physical memory is too fragmented for the pool's order, it
 * does not fall back to smaller slabs. Constructors run with interrupts off.
 */
#include "heap/pool.h"

#include "base/bits.h"
#include "base/check.h"
#include "heap/poison.h"
#include "heap/report.h"

/*
 * A slab is the smallest block of frames of which less than that part is lost.
 * More objects in a slab would be more that hold it when most are gone.
 */
#define MOST_WASTE 6

_Atomic uint64_t pool_frames_freed; /* (A) */
bool pool_notes_states;

static struct slab_pool side[POOL_SIDE_SIZES];
static const char *const side_name[POOL_SIDE_SIZES] = {
    "side-64",   "side-128",  "side-256",  "side-512",
    "side-1024", "side-2048", "side-4096", "side-8192"};

/* How many objects fit in a slab of 2^order frames? */
static uint64_t objects_in(const struct slab_pool *pool, unsigned order)
{
    uint64_t bytes = PAGE_BYTES << order;

    return bytes > pool->first ? (bytes - pool->first) / pool->stride : 0;
}

/* Would a slab of that order lose more than 1/MOST_WASTE of its bytes? */
static bool wastes_much(const struct slab_pool *pool, unsigned order)
{
    uint64_t bytes = PAGE_BYTES << order;

    return (bytes - objects_in(pool, order) * pool->stride) * MOST_WASTE >
           bytes;
}

/* Where the objects stand, from object_bytes and alignment. */
static void lay_out(struct slab_pool *pool)
{
    uint64_t gap = pool->kind == POOL_SIDE ? 0 : POISON_GAP;
    uint64_t lead = pool->kind == POOL_SIDE ? sizeof(struct slab) : gap;

    pool->first = (uint32_t)align_up(lead, pool->alignment);
    pool->stride =
        (uint32_t)align_up(pool->object_bytes + gap, pool->alignment);
    pool->order = 0;
    while (pool->order < POOL_MAX_ORDER && wastes_much(pool, pool->order)) {
        pool->order++;
    }
    pool->objects =
        (uint32_t)min_u64(objects_in(pool, pool->order), POOL_MAX_OBJECTS);
    pool->states =
        pool_notes_states && pool->kind != POOL_SIDE ? pool->objects : 0;
    pool->span = pool->objects * pool->stride;
    pool->first = (uint32_t)((PAGE_BYTES << pool->order) - pool->span);
    pool->reciprocal = (uint32_t)div_round_up(UINT64_C(1) << 32, pool->stride);
    pool->quick = pool->states > 0 ? 0 : pool->reciprocal;
    ASSERT(pool->objects > 0);
    ASSERT(pool->first < pool->stride + lead); // slab_starts_object()
    ASSERT(pool->stride <= POOL_MAX_STRIDE);
}

void pool_init(struct slab_pool *pool, enum pool_kind kind, const char *name,
               uint64_t bytes, uint64_t alignment)
{
    ASSERT(bytes > 0 && bytes <= POOL_MAX_BYTES);
    ASSERT(is_power_of_two(alignment));
    *pool = (struct slab_pool){.kind = kind, .name = name};
    lock_init(&pool->lock, LOCK_RANK_POOL);
    pool->object_bytes = (uint32_t)bytes;
    pool->alignment = (uint32_t)max_u64(alignment, POOL_MIN_ALIGNMENT);
    lay_out(pool);
}

static void link_locked(struct slab_pool *pool, struct slab *slab)
{
    struct slab **head = &pool->list[slab_list(slab)];

    slab->previous = NULL;
    slab->next = *head;
    if (*head != NULL) {
        (*head)->previous = slab;
    }
    *head = slab;
}

static void unlink_locked(struct slab_pool *pool, struct slab *slab,
                          enum pool_list list)
{
    if (slab->previous != NULL) {
        slab->previous->next = slab->next;
    } else {
        ASSERT(pool->list[list] == slab); // I1
        pool->list[list] = slab->next;
    }
    if (slab->next != NULL) {
        slab->next->previous = slab->previous;
    }
}

/* The slab's count has changed: put it where it belongs now. */
static void relink_locked(struct slab_pool *pool, struct slab *slab,
                          enum pool_list before)
{
    if (slab_list(slab) != before) {
        unlink_locked(pool, slab, before);
        link_locked(pool, slab);
    }
}

/* What stands in the record of a frame of @slab, or of none. */
static struct frame_record *note_owner(pfn_t pfn, const struct slab *slab,
                                       uint16_t number)
{
    struct frame_record *record = record_of(pfn);

    record->owner = (uintptr_t)slab;
    atomic_store_explicit(&record->entries, number, memory_order_relaxed);
    return record;
}

/*
 * All frames of the slab say whose they are. Who reads that a frame is a slab's
 * finds its descriptor: an old pointer may be freed at any moment. So until
 * here, and from reset_records() on, they are kernel memory like any other.
 */
static void set_records(const struct slab *slab)
{
    pfn_t first = phys_to_pfn(virt_to_phys((void *)slab->frames));

    note_owner(first, slab, slab->pool->number);
    for (uint64_t i = 1; i < (UINT64_C(1) << slab->pool->order); i++) {
        struct frame_record *record =
            note_owner(pfn_add(first, i), slab, slab->pool->number);
        record->order = RECORD_TAIL;
        record_set_type(record, FRAME_SLAB);
    }
    frame_set_type(first, FRAME_SLAB);
}

static void reset_records(const struct slab *slab)
{
    pfn_t first = phys_to_pfn(virt_to_phys((void *)slab->frames));

    frame_set_type(first, FRAME_KERNEL);
    atomic_store_explicit(&record_of(first)->entries, 0, memory_order_relaxed);
    for (uint64_t i = 1; i < (UINT64_C(1) << slab->pool->order); i++) {
        struct frame_record *record = record_of(pfn_add(first, i));
        record_set_type(record, FRAME_NONE);
        record->order = 0;
        note_owner(pfn_add(first, i), NULL, 0);
    }
}

/* Frames for one slab, or 0. */
static vaddr_t frames_alloc(const struct slab_pool *pool, unsigned flags)
{
    pfn_t pfn = frame_alloc(pool->order, FRAME_KERNEL, flags);

    return pfn_is_none(pfn) ? 0 : (vaddr_t)phys_to_virt(pfn_to_phys(pfn));
}

static void frames_free(vaddr_t frames, unsigned order)
{
    atomic_fetch_add_explicit(&pool_frames_freed, UINT64_C(1) << order,
                              memory_order_relaxed);
    frame_free(phys_to_pfn(virt_to_phys((void *)frames)), order);
}

/* Make @frames a slab with all objects in, on no list yet. */
static void fill_in(struct slab *slab, struct slab_pool *pool, vaddr_t frames,
                    struct poison_track *track)
{
    *slab = (struct slab){.pool = pool,
                          .start = frames + pool->first,
                          .frames = frames,
                          .track = track};
    for (unsigned i = 0; i < POOL_MAX_OBJECTS / 64; i++) {
        unsigned objects = pool->objects > i * 64 ? pool->objects - i * 64 : 0;
        slab->out[i] = ~low_bits(objects);
    }
    for (unsigned i = 0; i < pool->states; i++) {
        atomic_init(slab_state(slab, i), false);
    }
    set_records(slab);
}

/* Up to @count objects of @slab; at least one is free. */
static unsigned take_from(struct slab *slab, void **out_objects, unsigned count)
{
    unsigned taken = 0;

    for (unsigned i = 0; i < POOL_MAX_OBJECTS / 64 && taken < count; i++) {
        uint64_t in = ~slab->out[i];
        for (; in != 0 && taken < count; in &= in - 1) {
            unsigned bit = lowest_bit(in);
            slab->out[i] |= UINT64_C(1) << bit;
            out_objects[taken++] = slab_object(slab, i * 64 + bit);
        }
    }
    slab->out_count += taken;
    return taken;
}

/* The densest slab with a free object, about, or NULL. */
static struct slab *open_slab_locked(const struct slab_pool *pool)
{
    struct slab *slab = NULL;

    for (unsigned list = POOL_FULL; list-- > 0 && slab == NULL;) {
        slab = pool->list[list];
    }
    return slab;
}

/*
 * Take free objects. The slab *@fresh, unless NULL, was made without the lock,
 * and others may have given objects back meanwhile: it joins the pool, and is
 * NULL then, only if it is needed. Else an empty slab would stand beside it.
 */
static unsigned take(struct slab_pool *pool, struct slab **fresh,
                     void **out_objects, unsigned count)
{
    unsigned taken = 0;
    uint64_t irq = lock_acquire(&pool->lock);

    while (taken < count) {
        struct slab *slab = open_slab_locked(pool);
        if (slab == NULL && *fresh != NULL) { // I5
            slab = *fresh;
            *fresh = NULL;
            link_locked(pool, slab);
            pool->slabs++;
        }
        if (slab == NULL) {
            break;
        }
        enum pool_list before = slab_list(slab);
        taken += take_from(slab, out_objects + taken, count - taken);
        relink_locked(pool, slab, before);
    }
    pool->out += taken;
    lock_release(&pool->lock, irq);
    return taken;
}

/*
 * One object back. Return: false, and nothing has changed, if it is none of
 * the pool's or not out. A slab that is not needed goes to *released.
 */
static bool put_one_locked(struct slab_pool *pool, void *object,
                           struct slab **released)
{
    struct slab *slab = slab_of(object);

    if (slab == NULL || slab->pool != pool || !slab_is_object(slab, object)) {
        return false;
    }
    unsigned index = slab_index(slab, object);
    if (!slab_is_out(slab, index)) {
        return false;
    }
    enum pool_list before = slab_list(slab);
    bool has_spare = pool->list[POOL_EMPTY] != NULL;
    slab->out[index / 64] &= ~(UINT64_C(1) << (index % 64));
    slab->out_count--;
    pool->out--;
    if (slab->out_count == 0 && has_spare) { // I5
        unlink_locked(pool, slab, before);
        pool->slabs--;
        slab->next = *released;
        *released = slab;
    } else {
        relink_locked(pool, slab, before);
    }
    return true;
}

/* Objects back until one is refused. Return: how many went. */
static unsigned put(struct slab_pool *pool, void *const *objects,
                    unsigned count, struct slab **released)
{
    unsigned done = 0;
    uint64_t irq = lock_acquire(&pool->lock);

    while (done < count && put_one_locked(pool, objects[done], released)) {
        done++;
    }
    lock_release(&pool->lock, irq);
    return done;
}

/* The empty slab, off its list; or NULL. */
static struct slab *take_empty(struct slab_pool *pool)
{
    uint64_t irq = lock_acquire(&pool->lock);
    struct slab *slab = pool->list[POOL_EMPTY];

    if (slab != NULL) {
        unlink_locked(pool, slab, POOL_EMPTY);
        slab->next = NULL;
        pool->slabs--;
    }
    lock_release(&pool->lock, irq);
    return slab;
}

/* Empty slabs of side storage, chained by next, back to the frames. */
static void release_side(struct slab *slab)
{
    while (slab != NULL) {
        struct slab *next = slab->next;
        reset_records(slab);
        frames_free(slab->frames, slab->pool->order);
        slab = next;
    }
}

/* The pool of the smallest size that holds @bytes. */
static struct slab_pool *side_pool(uint64_t bytes)
{
    ASSERT(bytes > 0 && bytes <= POOL_SIDE_MAX);
    unsigned shift = bytes == 1 ? 0 : highest_bit(bytes - 1) + 1;

    return &side[shift > POOL_SIDE_SHIFT ? shift - POOL_SIDE_SHIFT : 0];
}

static void *side_alloc(uint64_t bytes, unsigned flags)
{
    struct slab_pool *pool = side_pool(bytes);
    struct slab *fresh = NULL;
    void *storage;

    if (take(pool, &fresh, &storage, 1) == 1) {
        return storage;
    }
    vaddr_t frames = frames_alloc(pool, flags);
    if (frames == 0) {
        return NULL;
    }
    fresh = (struct slab *)frames;
    fill_in(fresh, pool, frames, NULL);
    unsigned taken = take(pool, &fresh, &storage, 1);
    ASSERT(taken == 1);
    release_side(fresh);
    return storage;
}

void *pool_side_alloc(uint64_t bytes)
{
    return side_alloc(bytes, FRAME_ANY);
}

void *pool_side_alloc_or_reclaim(uint64_t bytes)
{
    return side_alloc(bytes, FRAME_MAY_RECLAIM);
}

void pool_side_free(void *storage)
{
    struct slab *released = NULL;
    struct slab *slab = slab_of(storage);

    ASSERT(slab != NULL && slab->pool->kind == POOL_SIDE);
    unsigned done = put(slab->pool, &storage, 1, &released);
    ASSERT(done == 1);
    release_side(released);
}

void pool_start(void)
{
    for (unsigned i = 0; i < POOL_SIDE_SIZES; i++) {
        pool_init(&side[i], POOL_SIDE, side_name[i],
                  UINT64_C(1) << (POOL_SIDE_SHIFT + i),
                  UINT64_C(1) << POOL_SIDE_SHIFT);
    }
}

/* Each object in the state in which it waits to be taken. */
static void prepare_objects(struct slab *slab)
{
    if (MM_DEBUG) {
        poison_slab(slab);
    }
    if (slab->pool->constructor != NULL) {
        for (unsigned i = 0; i < slab->pool->objects; i++) {
            slab->pool->constructor(slab_object(slab, i));
        }
    }
    port_hide((const void *)slab->start, slab->pool->span);
}

/*
 * A slab with all objects in, on no list yet; or NULL. Reclaim may drain this
 * heap: of the cache nothing is in hand now that a drain would find
 * (magazine.c).
 */
static struct slab *slab_make(struct slab_pool *pool)
{
    struct poison_track *track = NULL;
    struct slab *slab =
        pool_side_alloc_or_reclaim(sizeof(*slab) + pool->states);

    if (slab == NULL) {
        return NULL;
    }
    if (MM_DEBUG) {
        track = pool_side_alloc_or_reclaim(pool->objects * sizeof(*track));
        if (track == NULL) {
            goto out_free_slab;
        }
    }
    vaddr_t frames = frames_alloc(pool, FRAME_MAY_RECLAIM);
    if (frames == 0) {
        goto out_free_track;
    }
    fill_in(slab, pool, frames, track);
    prepare_objects(slab);
    return slab;

out_free_track:
    if (track != NULL) {
        pool_side_free(track);
    }
out_free_slab:
    pool_side_free(slab);
    return NULL;
}

/* Empty slabs, chained by next, back to the frames. */
static void release(struct slab *slab)
{
    while (slab != NULL) {
        struct slab *next = slab->next;
        if (MM_DEBUG) {
            poison_verify_slab(slab);
        }
        port_show((const void *)slab->start, slab->pool->span);
        reset_records(slab);
        frames_free(slab->frames, slab->pool->order);
        if (MM_DEBUG) {
            pool_side_free(slab->track);
        }
        pool_side_free(slab);
        slab = next;
    }
}

unsigned pool_take(struct slab_pool *pool, void **out_objects, unsigned count)
{
    struct slab *fresh = NULL;
    unsigned taken = take(pool, &fresh, out_objects, count);

    if (taken > 0) {
        return taken;
    }
    fresh = slab_make(pool);
    taken = take(pool, &fresh, out_objects, count);
    release(fresh);
    return taken;
}

void pool_put(struct slab_pool *pool, void *const *objects, unsigned count)
{
    struct slab *released = NULL;
    unsigned done = 0;

    while (done < count) {
        done += put(pool, objects + done, count - done, &released);
        if (done < count) {
            /* Outside the lock: printing takes its time. */
            report_free(pool, objects[done++], 0);
        }
    }
    release(released);
}

void pool_trim(struct slab_pool *pool)
{
    release(take_empty(pool));
}

void pool_side_trim(void)
{
    for (unsigned i = 0; i < POOL_SIDE_SIZES; i++) {
        release_side(take_empty(&side[i]));
    }
}

bool pool_side_check(void)
{
    for (unsigned i = 0; i < POOL_SIDE_SIZES; i++) {
        if (!pool_check(&side[i])) {
            return false;
        }
    }
    return true;
}
