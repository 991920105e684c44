/* SPDX-License-Identifier: MIT */
/* heap ops: any bytes are operations on the heap, beside a naive model. */
/*
 * The model is a list of who holds which bytes, and what stands in each. It is
 * asked whether a block overlaps another, whether contents are what was
 * written, and how many objects of a cache are live.
 */
#include "tests/shared/heap_ops_impl.h"

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/shrink.h>
#include "base/bits.h"
#include "base/memory.h"

#define CONSTRUCTED 0xc5

#define LARGE_MAX (64 * KiB)

/* Objects at once: as many as an exchange of magazines moves, and more. */
#define MANY 64

/* One such operation in so many drains: magazines shall be full, too. */
#define DRAIN_IN 64

/* Frees and other ends are more likely than each way to begin. */
static const uint8_t kind_of[32] = {
    HEAP_OP_KMALLOC,   HEAP_OP_KMALLOC,  HEAP_OP_KMALLOC, HEAP_OP_KMALLOC,
    HEAP_OP_KMALLOC,   HEAP_OP_KZALLOC,  HEAP_OP_KZALLOC, HEAP_OP_ARRAY,
    HEAP_OP_ALIGNED,   HEAP_OP_ALIGNED,  HEAP_OP_REALLOC, HEAP_OP_REALLOC,
    HEAP_OP_REALLOC,   HEAP_OP_REALLOC,  HEAP_OP_OBJECT,  HEAP_OP_OBJECT,
    HEAP_OP_OBJECT,    HEAP_OP_BULK,     HEAP_OP_OBJECTS, HEAP_OP_FREE,
    HEAP_OP_FREE,      HEAP_OP_FREE,     HEAP_OP_FREE,    HEAP_OP_FREE,
    HEAP_OP_FREE_BULK, HEAP_OP_FREE_ALL, HEAP_OP_LOOK,    HEAP_OP_LOOK,
    HEAP_OP_DRAIN,     HEAP_OP_SHRINK,   HEAP_OP_CPU,     HEAP_OP_WRONG,
};

/* An operation as bytes say it. */
struct heap_op {
    enum heap_op_what what;
    unsigned slot;
    uint64_t size;
    unsigned shape;
    unsigned shift; /* of an alignment */
    unsigned variant;
};

static struct heap_op decode(const uint8_t *bytes)
{
    return (struct heap_op){
        .what = (enum heap_op_what)kind_of[bytes[0] % 32],
        .slot = bytes[1] % HEAP_OPS_SLOTS,
        .size = bytes[2] | (uint64_t)bytes[3] << 8,
        .shape = bytes[4] % 8,
        .shift = bytes[5] % 14,
        .variant = bytes[6],
    };
}

static void construct(void *object)
{
    memset(object, CONSTRUCTED, 16); /* the smallest has so many */
}

/* --- who holds what ------------------------------------------------------- */

static bool check_alone(struct heap_ops *ops, const struct heap_held *one)
{
    for (unsigned i = 0; i < HEAP_OPS_SLOTS; i++) {
        const struct heap_held *other = &ops->held[i];
        if (other != one && other->block != NULL &&
            other->block < one->block + one->bytes &&
            one->block < other->block + other->bytes) {
            return heap_ops_differ(ops, "two blocks in the same bytes",
                                   (uintptr_t)one->block,
                                   (uintptr_t)other->block);
        }
    }
    return true;
}

/* Where it is and how long, as the heap says. */
static bool check_place(struct heap_ops *ops, const struct heap_held *held)
{
    struct slab_place place;

    if (held->cache == HEAP_OPS_CACHES && ksize(held->block) < held->bytes) {
        return heap_ops_differ(ops, "ksize", ksize(held->block), held->bytes);
    }
    if (slab_find(held->block + held->bytes - 1, &place) &&
        (place.object != (vaddr_t)held->block || !place.is_live)) {
        return heap_ops_differ(ops, "slab_find of a live block", place.object,
                               (uintptr_t)held->block);
    }
    return true;
}

/*
 * What an allocation of @bytes, which must succeed if there is memory, has
 * given is now in @held, which was empty.
 */
static bool accept(struct heap_ops *ops, struct heap_held *held, void *block,
                   uint64_t bytes, uint64_t alignment)
{
    if (block == NULL) {
        ops->failures++;
        return ops->may_fail || heap_ops_differ(ops, "no memory for", bytes, 0);
    }
    held->block = block;
    held->bytes = bytes;
    if (!is_aligned(virt_to_phys(block).v, alignment)) {
        return heap_ops_differ(ops, "misaligned block", (uintptr_t)block,
                               alignment);
    }
    return check_alone(ops, held);
}

static uint64_t natural_alignment(uint64_t bytes)
{
    uint64_t own = is_power_of_two(bytes) ? bytes : 16;

    return min_u64(max_u64(own, 16), PAGE_BYTES);
}

/* Nobody holds it any more: as it is to be when it is freed. */
static void *forget(struct heap_ops *ops, struct heap_held *held)
{
    struct heap_ops_cache *cache = &ops->cache[held->cache % HEAP_OPS_CACHES];
    uint8_t *block = held->block;

    held->block = NULL;
    if (held->cache < HEAP_OPS_CACHES) {
        cache->live--;
        if (cache->is_constructed) {
            construct(block);
        }
    }
    return block;
}

static bool let_go(struct heap_ops *ops, struct heap_held *held)
{
    bool is_right = heap_ops_check_contents(ops, held, held->bytes);
    void *block = forget(ops, held);

    if (held->cache == HEAP_OPS_CACHES) {
        kfree(block);
    } else {
        slab_free(ops->cache[held->cache].cache, block);
    }
    return is_right;
}

/* --- sizes ---------------------------------------------------------------- */

static uint64_t size_of(const struct heap_op *op)
{
    uint64_t class;

    switch (op->shape) {
    case 0:
    case 1:
    case 2:
    case 3:
        return 1 + op->size % 256;
    case 4:
        return 1 + op->size % 2048;
    case 5:
        return 1 + op->size % (op->variant % 4 == 0 ? KMALLOC_SLAB_MAX : 300);
    case 6: /* beside the edge of a class */
        class = kmalloc_class_bytes(1 + op->size % KMALLOC_SLAB_MAX);
        return class - 1 + op->variant % 3;
    default:
        return op->variant % 8 == 0 ? 1 + op->size % LARGE_MAX
                                    : 1 + op->size % 512;
    }
}

/* --- operations ----------------------------------------------------------- */

static bool do_allocate(struct heap_ops *ops, const struct heap_op *op)
{
    struct heap_held *held = &ops->held[op->slot];
    uint64_t bytes = size_of(op);
    uint64_t alignment = natural_alignment(bytes);
    void *block;

    if (held->block != NULL && !let_go(ops, held)) {
        return false;
    }
    held->cache = HEAP_OPS_CACHES;
    switch (op->what) {
    case HEAP_OP_KZALLOC:
        block = kzalloc(bytes);
        break;
    case HEAP_OP_ARRAY:
        block = kmalloc_array(1 + op->variant % 5, bytes);
        bytes *= 1 + op->variant % 5;
        alignment = natural_alignment(bytes);
        break;
    case HEAP_OP_ALIGNED:
        alignment = UINT64_C(1) << op->shift;
        block = kmalloc_aligned(bytes, alignment);
        break;
    default:
        block = kmalloc(bytes);
        break;
    }
    if (!accept(ops, held, block, bytes, alignment)) {
        return false;
    }
    if (block == NULL) {
        return true;
    }
    if ((op->what == HEAP_OP_KZALLOC || op->what == HEAP_OP_ARRAY) &&
        !heap_ops_check_filled(ops, block, bytes, 0)) {
        return false;
    }
    heap_ops_sign(ops, held);
    return true;
}

static bool do_realloc(struct heap_ops *ops, const struct heap_op *op)
{
    struct heap_held *held = &ops->held[op->slot];
    struct heap_held old = *held;
    uint64_t bytes = size_of(op);

    if (old.block != NULL && old.cache != HEAP_OPS_CACHES) {
        return true;
    }
    void *block = krealloc(old.block, bytes);
    if (block == NULL) { /* the old one stays */
        ops->failures++;
        return (ops->may_fail ||
                heap_ops_differ(ops, "no memory for", bytes, 1)) &&
               (old.block == NULL ||
                heap_ops_check_contents(ops, &old, old.bytes));
    }
    held->block = NULL;
    held->cache = HEAP_OPS_CACHES;
    if (!accept(ops, held, block, bytes, natural_alignment(bytes)) ||
        (old.block != NULL &&
         !heap_ops_check_contents(ops, held, min_u64(old.bytes, bytes)))) {
        return false;
    }
    heap_ops_sign(ops, held);
    return true;
}

/* The cache that the operation is about, made if there is none. */
static struct heap_ops_cache *cache_for(struct heap_ops *ops,
                                        const struct heap_op *op)
{
    static const char *const name[HEAP_OPS_CACHES] = {"ops-0", "ops-1", "ops-2",
                                                      "ops-3"};
    unsigned index = op->variant % HEAP_OPS_CACHES;
    struct heap_ops_cache *cache = &ops->cache[index];

    if (cache->cache == NULL) {
        cache->bytes = 16 + op->size % (op->shape < 6 ? 500 : 5000);
        cache->alignment =
            op->shift < 4 ? 0 : UINT64_C(1) << min_u64(op->shift, 12);
        cache->is_constructed = op->variant / HEAP_OPS_CACHES % 2 != 0;
        cache->live = 0;
        cache->cache = slab_create(name[index], cache->bytes, cache->alignment,
                                   cache->is_constructed ? construct : NULL);
    }
    return cache;
}

/* @object, or NULL, is what @held, which was empty, has got of a cache. */
static bool accept_object(struct heap_ops *ops, unsigned index,
                          struct heap_held *held, void *object)
{
    struct heap_ops_cache *cache = &ops->cache[index];

    held->cache = index;
    if (!accept(ops, held, object, cache->bytes,
                max_u64(cache->alignment, 16))) {
        return false;
    }
    if (object == NULL) {
        return true;
    }
    cache->live++;
    if (cache->is_constructed &&
        !heap_ops_check_filled(ops, object, 16, CONSTRUCTED)) {
        return false;
    }
    heap_ops_sign(ops, held);
    return true;
}

static struct heap_held *slot_at(struct heap_ops *ops, unsigned slot)
{
    return &ops->held[slot % HEAP_OPS_SLOTS];
}

/* One after the other. */
static bool take_objects(struct heap_ops *ops, const struct heap_op *op,
                         unsigned count)
{
    unsigned index = op->variant % HEAP_OPS_CACHES;
    bool is_right = true;

    for (unsigned i = 0; i < count && is_right; i++) {
        struct heap_held *held = slot_at(ops, op->slot + i);
        is_right = (held->block == NULL || let_go(ops, held)) &&
                   accept_object(ops, index, held,
                                 slab_alloc(ops->cache[index].cache));
    }
    return is_right;
}

/* All at once, or none. */
static bool take_bulk(struct heap_ops *ops, const struct heap_op *op,
                      unsigned count)
{
    unsigned index = op->variant % HEAP_OPS_CACHES;
    void *object[MANY];
    bool is_right = true;

    for (unsigned i = 0; i < count && is_right; i++) {
        struct heap_held *held = slot_at(ops, op->slot + i);
        is_right = held->block == NULL || let_go(ops, held);
    }
    if (!is_right) {
        return false;
    }
    if (!slab_alloc_bulk(ops->cache[index].cache, count, object)) {
        ops->failures++;
        return ops->may_fail ||
               heap_ops_differ(ops, "no bulk of", count, index);
    }
    for (unsigned i = 0; i < count && is_right; i++) {
        is_right =
            (object[i] != NULL ||
             heap_ops_differ(ops, "no object in a bulk", i, count)) &&
            accept_object(ops, index, slot_at(ops, op->slot + i), object[i]);
    }
    return is_right;
}

static bool do_objects(struct heap_ops *ops, const struct heap_op *op)
{
    struct heap_ops_cache *cache = cache_for(ops, op);
    unsigned count = op->what == HEAP_OP_OBJECT ? 1 : 1 + op->variant % MANY;

    if (cache->cache == NULL) {
        ops->failures++;
        return ops->may_fail ||
               heap_ops_differ(ops, "no cache of", cache->bytes, 0);
    }
    return op->what == HEAP_OP_BULK ? take_bulk(ops, op, count)
                                    : take_objects(ops, op, count);
}

/* Where a slot of the row has none of the cache, there stands NULL. */
static bool do_free_bulk(struct heap_ops *ops, const struct heap_op *op)
{
    unsigned index = op->variant % HEAP_OPS_CACHES;
    unsigned count = 1 + op->size % MANY;
    void *object[MANY] = {NULL};
    bool is_right = true;

    if (ops->cache[index].cache == NULL) {
        return true;
    }
    for (unsigned i = 0; i < count; i++) {
        struct heap_held *held = slot_at(ops, op->slot + i);
        if (held->block != NULL && held->cache == index) {
            is_right =
                heap_ops_check_contents(ops, held, held->bytes) && is_right;
            object[i] = forget(ops, held);
        }
    }
    slab_free_bulk(ops->cache[index].cache, object, count);
    return is_right;
}

static bool end_cache(struct heap_ops *ops, unsigned index)
{
    struct heap_ops_cache *cache = &ops->cache[index];

    if (cache->cache == NULL) {
        return true;
    }
    if (cache->live != 0) {
        return heap_ops_differ(ops, "objects of a cache that nobody holds",
                               index, cache->live);
    }
    if (slab_destroy(cache->cache) != MM_OK) {
        return heap_ops_differ(ops, "an empty cache is not destroyed", index,
                               0);
    }
    cache->cache = NULL;
    return true;
}

static bool do_free_all(struct heap_ops *ops, const struct heap_op *op)
{
    unsigned index = op->variant % HEAP_OPS_CACHES;
    unsigned count = 1 + op->size % HEAP_OPS_SLOTS;
    bool is_cache = op->shape < 2;
    bool is_right = true;

    for (unsigned i = 0; i < HEAP_OPS_SLOTS && is_right; i++) {
        struct heap_held *held = &ops->held[i];
        bool is_meant =
            is_cache ? held->cache == index
                     : (i + HEAP_OPS_SLOTS - op->slot) % HEAP_OPS_SLOTS < count;
        if (held->block != NULL && is_meant) {
            is_right = let_go(ops, held);
        }
    }
    return is_right && (!is_cache || end_cache(ops, index));
}

static bool do_look(struct heap_ops *ops, const struct heap_op *op)
{
    const struct heap_held *held = &ops->held[op->slot];

    return held->block == NULL ||
           (check_place(ops, held) &&
            heap_ops_check_contents(ops, held, held->bytes));
}

/* What cannot be had is not had, and nothing happens. */
static bool do_wrong(struct heap_ops *ops, const struct heap_op *op)
{
    const uint64_t too_much = KMALLOC_MAX + 1 + op->size;
    void *got[] = {
        kmalloc(0),
        kzalloc(too_much),
        kmalloc(UINT64_MAX - op->size),
        kmalloc_array(UINT64_MAX / 16, 17 + op->size),
        kmalloc_array(UINT64_C(1) << 32, UINT64_C(1) << 32),
        kmalloc_aligned(1 + op->size, 24),
        kmalloc_aligned(1 + op->size, 2 * KMALLOC_MAX),
        kmalloc_aligned(UINT64_MAX, 4096),
        krealloc(NULL, too_much),
    };

    for (unsigned i = 0; i < sizeof(got) / sizeof(got[0]); i++) {
        if (got[i] != NULL) {
            return heap_ops_differ(ops, "an impossible size was granted", i,
                                   (uintptr_t)got[i]);
        }
    }
    kfree(NULL);
    return krealloc(NULL, 0) == NULL;
}

static bool perform(struct heap_ops *ops, const struct heap_op *op)
{
    struct heap_held *held = &ops->held[op->slot];

    switch (op->what) {
    case HEAP_OP_REALLOC:
        return do_realloc(ops, op);
    case HEAP_OP_OBJECT:
    case HEAP_OP_OBJECTS:
    case HEAP_OP_BULK:
        return do_objects(ops, op);
    case HEAP_OP_FREE:
        return held->block == NULL || let_go(ops, held);
    case HEAP_OP_FREE_ALL:
        return do_free_all(ops, op);
    case HEAP_OP_FREE_BULK:
        return do_free_bulk(ops, op);
    case HEAP_OP_LOOK:
        return do_look(ops, op);
    case HEAP_OP_DRAIN:
        if (op->variant % DRAIN_IN == 0) {
            slab_drain();
        }
        return true;
    case HEAP_OP_SHRINK:
        if (op->variant % DRAIN_IN == 0) {
            (void)shrink_reclaim(1 + op->size);
        }
        return true;
    case HEAP_OP_CPU:
        if (ops->set_cpu != NULL) {
            ops->set_cpu(op->variant % ops->cpus);
        }
        return true;
    case HEAP_OP_WRONG:
        return do_wrong(ops, op);
    default:
        return do_allocate(ops, op);
    }
}

bool heap_ops_step(struct heap_ops *ops, const uint8_t *bytes)
{
    struct heap_op op = decode(bytes);

    if (!perform(ops, &op)) {
        return heap_ops_differ(ops, "operation", op.what, op.slot);
    }
    ops->done[op.what]++;
    return true;
}

/* --- as a whole ----------------------------------------------------------- */

static uint64_t heap_frames_now(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    return stats.by_type[FRAME_SLAB] + stats.by_type[FRAME_LARGE];
}

/* What all CPUs keep goes back. */
static void drain_all(const struct heap_ops *ops)
{
    for (unsigned cpu = ops->cpus; cpu-- > 0;) {
        if (ops->set_cpu != NULL) {
            ops->set_cpu(cpu);
        }
        slab_drain();
    }
}

void heap_ops_init(struct heap_ops *ops, unsigned cpus,
                   void (*set_cpu)(unsigned cpu))
{
    memset(ops, 0, sizeof(*ops));
    ops->cpus = cpus;
    ops->is_alone = true;
    ops->set_cpu = set_cpu;
    drain_all(ops);
    ops->frames = heap_frames_now();
}

bool heap_ops_compare(struct heap_ops *ops)
{
    struct slab_stats stats;

    for (unsigned i = 0; i < HEAP_OPS_SLOTS; i++) {
        const struct heap_held *held = &ops->held[i];
        if (held->block != NULL &&
            (!heap_ops_check_contents(ops, held, held->bytes) ||
             !check_place(ops, held))) {
            return false;
        }
    }
    for (unsigned i = 0; i < HEAP_OPS_CACHES; i++) {
        const struct heap_ops_cache *cache = &ops->cache[i];
        if (cache->cache == NULL) {
            continue;
        }
        slab_stats(cache->cache, &stats);
        if (stats.live != cache->live ||
            stats.allocs - stats.frees != cache->live) {
            return heap_ops_differ(ops, "live objects of a cache", stats.live,
                                   cache->live);
        }
    }
    return (slab_check() && kmalloc_check()) ||
           heap_ops_differ(ops, "slab_check or kmalloc_check", 0, 0);
}

bool heap_ops_fini(struct heap_ops *ops)
{
    /* While others are at it, their slabs are not to be looked at. */
    bool is_right = !ops->is_alone || heap_ops_compare(ops);

    for (unsigned i = 0; i < HEAP_OPS_SLOTS && is_right; i++) {
        is_right = ops->held[i].block == NULL || let_go(ops, &ops->held[i]);
    }
    for (unsigned i = 0; i < HEAP_OPS_CACHES && is_right; i++) {
        is_right = end_cache(ops, i);
    }
    drain_all(ops);
    if (is_right && ops->is_alone && heap_frames_now() != ops->frames) {
        return heap_ops_differ(ops, "frames that the heap keeps",
                               heap_frames_now(), ops->frames);
    }
    return is_right;
}

bool heap_ops_run(struct heap_ops *ops, const uint8_t *bytes, size_t size,
                  uint64_t every, size_t *out_done)
{
    size_t count = size / HEAP_OP_BYTES;
    bool is_right = true;

    for (*out_done = 0; is_right && *out_done < count; ++*out_done) {
        is_right = heap_ops_step(ops, bytes + *out_done * HEAP_OP_BYTES) &&
                   ((*out_done + 1) % every != 0 || heap_ops_compare(ops));
    }
    return is_right;
}
