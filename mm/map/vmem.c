/* SPDX-License-Identifier: MIT */
/* vmem: an arena that hands out ranges of integers (here: of addresses). */
/*
 * Owns: arenas and their boundary tags.
 *
 * Idea: [Bonwick01 "Vmem Implementation"]. A tag describes a segment, and
 * the segments of an arena stand in address order, so that a freed segment
 * finds its neighbours in one step and becomes one with them. Free segments
 * are also on the list of their size, list n for [2^n, 2^(n+1)) quanta; any
 * segment of a higher list will do for a size of list n (instant fit), so the
 * first one of the lowest filled list is taken without a search. Allocated
 * segments are in a hash instead: only an address that was handed out is
 * found there, and the tag knows the size the caller should have named.
 *
 * Picture, F free and A allocated; a gap is what nobody added:
 *
 *   first -> [F 2][A 1][A 5][F 9]  gap  [A 4][F 1]
 *              |                |               |
 *        lists[1]         lists[3]        lists[0]
 *
 * Invariants: I1 to I6, where vmem_check() walks them.
 *
 * Locking: one lock an arena, held for pointer work only. Tags and larger
 * hash tables are taken before the lock and given back after it.
 *
 * Cost: allocation and free O(1); where no higher list is filled, a search
 * through segments of about the right size. One tag of 64 bytes a segment.
 *
 * Limits: free segments are reused last in, first out, not by best fit.
 * Small sizes can be kept by CPU, before the lock: vmem_keep.c.
 */
#include "map/vmem_impl.h"

#include <mm/kmalloc.h>
#include <mm/slab.h>
#include "base/check.h"

/* An allocation cuts a segment into at most three: two tags more. */
#define TAGS_TO_CUT 2

/* Tags of no arena: on their way in before the lock, or out after it. */
struct spare {
    struct vmem_tag *tag[TAGS_TO_CUT];
    unsigned count;
};

/* A mean of two tags in each bucket before the hash grows. */
#define TAGS_PER_BUCKET 2

/* --- tags and where they hang --------------------------------------------- */

static void spare_drop(struct vmem *vmem, struct spare *spare)
{
    while (spare->count > 0) {
        slab_free(vmem->tags, spare->tag[--spare->count]);
    }
}

static bool spare_take(struct vmem *vmem, struct spare *spare, unsigned count)
{
    while (spare->count < count) {
        struct vmem_tag *tag = slab_alloc(vmem->tags);
        if (tag == NULL) {
            spare_drop(vmem, spare);
            return false;
        }
        spare->tag[spare->count++] = tag;
    }
    return true;
}

/* Enter @tag into the address order above @below; NULL: at the bottom. */
static void insert_above(struct vmem *vmem, struct vmem_tag *below,
                         struct vmem_tag *tag)
{
    tag->below = below;
    tag->above = below != NULL ? below->above : vmem->first;
    if (tag->above != NULL) {
        tag->above->below = tag;
    }
    if (below != NULL) {
        below->above = tag;
    } else {
        vmem->first = tag;
    }
}

static void remove_tag(struct vmem *vmem, struct vmem_tag *tag)
{
    if (tag->above != NULL) {
        tag->above->below = tag->below;
    }
    if (tag->below != NULL) {
        tag->below->above = tag->above;
    } else {
        vmem->first = tag->above;
    }
}

static void list_add(struct vmem *vmem, struct vmem_tag *tag)
{
    unsigned list = list_of(vmem, tag->size);

    tag->is_allocated = false;
    tag->owner = NULL;
    chain(&vmem->lists[list], tag);
    vmem->filled |= UINT64_C(1) << list;
}

static void list_remove(struct vmem *vmem, struct vmem_tag *tag)
{
    unsigned list = list_of(vmem, tag->size);

    unchain(tag);
    if (vmem->lists[list] == NULL) {
        vmem->filled &= ~(UINT64_C(1) << list);
    }
}

static void hash_add(struct vmem *vmem, struct vmem_tag *tag)
{
    ASSERT(tag->owner == NULL); /* list_add() saw to that */
    tag->is_allocated = true;
    tag->is_kept = false;
    chain(bucket_of(vmem, tag->start), tag);
    vmem->allocated++;
}

static void hash_remove(struct vmem *vmem, struct vmem_tag *tag)
{
    unchain(tag);
    vmem->allocated--;
}

static struct vmem_tag *hash_find(struct vmem *vmem, uint64_t address)
{
    struct vmem_tag *tag = *bucket_of(vmem, address);

    while (tag != NULL && tag->start != address) {
        tag = tag->next;
    }
    return tag;
}

/* Segments from which on more buckets are worth their memory. */
static uint64_t crowd_of(const struct vmem *vmem)
{
    return (uint64_t)TAGS_PER_BUCKET << vmem->bucket_shift;
}

/* Move every tag to the buckets at @larger, twice as many; give the old. */
static struct vmem_tag **hash_move(struct vmem *vmem, struct vmem_tag **larger)
{
    struct vmem_tag **old = vmem->buckets;
    uint64_t count = UINT64_C(1) << vmem->bucket_shift;

    vmem->buckets = larger;
    vmem->bucket_shift++;
    for (uint64_t i = 0; i < count; i++) {
        while (old[i] != NULL) {
            struct vmem_tag *tag = old[i];
            unchain(tag);
            chain(bucket_of(vmem, tag->start), tag);
        }
    }
    return old;
}

/*
 * More buckets than 2^@shift, if there is memory for them. The old ones serve
 * as well, only slower, so that failing here is no failure. It is tried again
 * when there are twice as many segments: a table may be too large for good,
 * and asking costs more than the search it would save.
 */
static void hash_grow(struct vmem *vmem, unsigned shift)
{
    struct vmem_tag **unused =
        kmalloc_array(UINT64_C(2) << shift, sizeof(*unused));

    uint64_t irq = lock_acquire(&vmem->lock);
    if (unused == NULL) {
        vmem->crowd = max_u64(vmem->crowd, 2 * vmem->allocated);
    } else if (vmem->bucket_shift == shift) { /* else somebody was faster */
        unused = hash_move(vmem, unused);
        vmem->crowd = crowd_of(vmem);
    }
    lock_release(&vmem->lock, irq);
    if (unused != vmem->few) {
        kfree(unused);
    }
}

/* --- the arena ------------------------------------------------------------ */

void vmem_init(struct vmem *vmem, const char *name, uint64_t quantum)
{
    ASSERT(is_power_of_two(quantum));
    *vmem = (struct vmem){
        .name = name, .quantum = quantum, .quantum_shift = lowest_bit(quantum)};
    lock_init(&vmem->lock, LOCK_RANK_ARENA);
    vmem->buckets = vmem->few;
    vmem->bucket_shift = highest_bit(VMEM_BUCKETS);
    vmem->crowd = crowd_of(vmem);
}

void vmem_fini(struct vmem *vmem)
{
    vmem_drain(vmem);
    if (vmem->allocated > 0) {
        port_bug("vmem_fini: %s has %lu segments allocated (%lu bytes)",
                 vmem->name, vmem->allocated, vmem->total - vmem->free);
        return;
    }
    while (vmem->first != NULL) {
        struct vmem_tag *tag = vmem->first;
        remove_tag(vmem, tag);
        slab_free(vmem->tags, tag);
    }
    if (vmem->buckets != vmem->few) {
        kfree(vmem->buckets);
    }
    if (vmem->tags != NULL && slab_destroy(vmem->tags) != MM_OK) {
        port_bug("vmem_fini: %s has lost tags", vmem->name);
    }
    vmem_keep_end(vmem);
    vmem_init(vmem, vmem->name, vmem->quantum);
}

/* Enter @tag as a free segment, one with those it touches. */
static void join(struct vmem *vmem, struct vmem_tag *tag, struct spare *spare)
{
    struct vmem_tag *below = tag->below;
    struct vmem_tag *above = tag->above;

    if (below != NULL && !below->is_allocated && end_of(below) == tag->start) {
        list_remove(vmem, below);
        remove_tag(vmem, below);
        tag->start = below->start;
        tag->size += below->size;
        spare->tag[spare->count++] = below;
    }
    if (above != NULL && !above->is_allocated && end_of(tag) == above->start) {
        list_remove(vmem, above);
        remove_tag(vmem, above);
        tag->size += above->size;
        spare->tag[spare->count++] = above;
    }
    list_add(vmem, tag);
}

/* The highest segment that begins at or below @address, or NULL. */
static struct vmem_tag *find_below(struct vmem *vmem, uint64_t address)
{
    struct vmem_tag *below = NULL;

    for (struct vmem_tag *tag = vmem->first;
         tag != NULL && tag->start <= address; tag = tag->above) {
        below = tag;
    }
    return below;
}

static bool add_locked(struct vmem *vmem, uint64_t start, uint64_t size,
                       struct spare *spare)
{
    struct vmem_tag *below = find_below(vmem, start);
    struct vmem_tag *above = below != NULL ? below->above : vmem->first;

    if ((below != NULL && end_of(below) > start) ||
        (above != NULL && start + size > above->start)) {
        return false;
    }
    struct vmem_tag *tag = spare->tag[--spare->count];
    tag->start = start;
    tag->size = size;
    insert_above(vmem, below, tag);
    join(vmem, tag, spare);
    vmem->total += size;
    vmem->free += size;
    return true;
}

enum mm_status vmem_add(struct vmem *vmem, uint64_t start, uint64_t size)
{
    struct spare spare = {{NULL}, 0};
    uint64_t end;

    if (size == 0 || !is_aligned(start | size, vmem->quantum) ||
        !checked_add(start, size, &end)) {
        return MM_EINVAL;
    }
    if (vmem->tags == NULL) {
        vmem->tags = slab_create("vmem tag", sizeof(struct vmem_tag), 0, NULL);
    }
    if (vmem->tags == NULL || !spare_take(vmem, &spare, 1)) {
        return MM_ENOMEM;
    }
    uint64_t irq = lock_acquire(&vmem->lock);
    bool is_new = add_locked(vmem, start, size, &spare);
    lock_release(&vmem->lock, irq);
    spare_drop(vmem, &spare);
    return is_new ? MM_OK : MM_EINVAL;
}

/* --- allocation ----------------------------------------------------------- */

/*
 * Where in the free segment @tag would an allocation start, if it fits? When
 * align_up() wraps, what is skipped reaches to 2^64: more than any segment.
 */
static bool fits(const struct vmem_tag *tag, uint64_t size, uint64_t alignment,
                 uint64_t *out_start)
{
    uint64_t start = align_up(tag->start, alignment);
    uint64_t skipped = start - tag->start;

    *out_start = start;
    return skipped <= tag->size && tag->size - skipped >= size;
}

/* The first segment of the lowest list whose segments all have @size. */
static struct vmem_tag *find_instant(const struct vmem *vmem, uint64_t size)
{
    bool is_exact = is_power_of_two(size / vmem->quantum);
    unsigned list = list_of(vmem, size) + (is_exact ? 0 : 1);
    uint64_t filled = vmem->filled & ~low_bits(list);

    return filled == 0 ? NULL : vmem->lists[lowest_bit(filled)];
}

/* Search what instant fit could not promise: each free segment of @size. */
static struct vmem_tag *find_search(const struct vmem *vmem, uint64_t size,
                                    uint64_t alignment, uint64_t *out_start)
{
    uint64_t filled = vmem->filled & ~low_bits(list_of(vmem, size));

    for (; filled != 0; filled &= filled - 1) {
        for (struct vmem_tag *tag = vmem->lists[lowest_bit(filled)];
             tag != NULL; tag = tag->next) {
            if (fits(tag, size, alignment, out_start)) {
                return tag;
            }
        }
    }
    return NULL;
}

static struct vmem_tag *find(const struct vmem *vmem, uint64_t size,
                             uint64_t alignment, uint64_t *out_start)
{
    uint64_t sure; /* so large that it holds @size wherever it starts */

    if (checked_add(size, alignment - vmem->quantum, &sure)) {
        struct vmem_tag *tag = find_instant(vmem, sure);
        if (tag != NULL) {
            bool is_sure = fits(tag, size, alignment, out_start);
            ASSERT(is_sure);
            return tag;
        }
    }
    return find_search(vmem, size, alignment, out_start);
}

/* Enter [start, end) above @below as a free segment with a spare tag. */
static void add_rest(struct vmem *vmem, struct vmem_tag *below, uint64_t start,
                     uint64_t end, struct spare *spare)
{
    ASSERT(spare->count > 0);
    struct vmem_tag *rest = spare->tag[--spare->count];

    rest->start = start;
    rest->size = end - start;
    insert_above(vmem, below, rest);
    list_add(vmem, rest);
}

/* Allocate [start, start + size) out of the free segment @tag. */
static void cut(struct vmem *vmem, struct vmem_tag *tag, uint64_t start,
                uint64_t size, struct spare *spare)
{
    uint64_t low = tag->start;
    uint64_t high = end_of(tag);

    ASSERT(!tag->is_allocated && low <= start && size <= high - start);
    list_remove(vmem, tag);
    tag->start = start;
    tag->size = size;
    if (low < start) {
        add_rest(vmem, tag->below, low, start, spare);
    }
    if (start + size < high) {
        add_rest(vmem, tag, start + size, high, spare);
    }
    hash_add(vmem, tag);
    vmem->free -= size;
}

/* @size in whole quanta; false if there is none or it overflows. */
static bool round_size(const struct vmem *vmem, uint64_t *size)
{
    uint64_t sum;

    if (*size == 0 || !checked_add(*size, vmem->quantum - 1, &sum)) {
        return false;
    }
    *size = align_down(sum, vmem->quantum);
    return true;
}

enum mm_status vmem_arena_alloc(struct vmem *vmem, uint64_t size,
                                uint64_t alignment, uint64_t *out)
{
    struct spare spare = {{NULL}, 0};

    ASSERT(alignment == 0 || is_power_of_two(alignment));
    alignment = max_u64(alignment, vmem->quantum);
    if (!round_size(vmem, &size)) {
        return MM_EINVAL;
    }
    if (vmem->tags == NULL || !spare_take(vmem, &spare, TAGS_TO_CUT)) {
        return MM_ENOMEM;
    }
    uint64_t irq = lock_acquire(&vmem->lock);
    uint64_t start;
    struct vmem_tag *tag = find(vmem, size, alignment, &start);
    if (tag != NULL) {
        cut(vmem, tag, start, size, &spare);
        *out = start;
    }
    unsigned shift = vmem->bucket_shift;
    bool is_crowded = vmem->allocated >= vmem->crowd;
    lock_release(&vmem->lock, irq);
    spare_drop(vmem, &spare);
    if (is_crowded) {
        hash_grow(vmem, shift);
    }
    return tag != NULL ? MM_OK : MM_ENOMEM;
}

/* --- allocated segments --------------------------------------------------- */

void vmem_arena_free(struct vmem *vmem, uint64_t address, uint64_t size)
{
    struct spare spare = {{NULL}, 0};
    uint64_t found = 0;
    bool is_sane = round_size(vmem, &size);

    uint64_t irq = lock_acquire(&vmem->lock);
    struct vmem_tag *tag = hash_find(vmem, address);
    if (tag != NULL) {
        found = tag->size;
    }
    bool is_kept = tag != NULL && tag->is_kept;
    bool is_right = is_sane && found == size && !is_kept;
    if (is_right) {
        hash_remove(vmem, tag);
        join(vmem, tag, &spare);
        vmem->free += size;
    }
    lock_release(&vmem->lock, irq);
    spare_drop(vmem, &spare);
    if (found == 0) {
        port_bug("vmem_free: %s has no segment at 0x%lx (size 0x%lx)",
                 vmem->name, address, size);
    } else if (is_kept) {
        port_bug(
            "vmem_free: %s at 0x%lx (size 0x%lx) is free already, and kept",
            vmem->name, address, size);
    } else if (!is_right) {
        port_bug("vmem_free: %s at 0x%lx has size 0x%lx, not 0x%lx", vmem->name,
                 address, found, size);
    }
}

bool vmem_note_kept(struct vmem *vmem, uint64_t address, uint64_t size,
                    enum vmem_note note)
{
    uint64_t irq = lock_acquire(&vmem->lock);
    struct vmem_tag *tag = hash_find(vmem, address);
    bool is_right = tag != NULL && tag->size == size && tag->owner == NULL &&
                    tag->is_kept == (note == VMEM_TAKEN);

    if (is_right) {
        tag->is_kept = note == VMEM_KEPT;
    }
    lock_release(&vmem->lock, irq);
    return is_right;
}

uint64_t vmem_size(struct vmem *vmem, uint64_t address)
{
    uint64_t irq = lock_acquire(&vmem->lock);
    struct vmem_tag *tag = hash_find(vmem, address);
    uint64_t size = tag != NULL ? tag->size : 0;

    lock_release(&vmem->lock, irq);
    return size;
}

bool vmem_set_owner(struct vmem *vmem, uint64_t address, void *owner)
{
    uint64_t irq = lock_acquire(&vmem->lock);
    struct vmem_tag *tag = hash_find(vmem, address);
    bool is_right = tag != NULL && tag->owner == NULL;

    if (is_right) {
        tag->owner = owner;
    }
    lock_release(&vmem->lock, irq);
    return is_right;
}

static bool report_tag(const struct vmem_tag *tag, vmem_fn report,
                       void *context)
{
    struct vmem_segment segment = {tag->start, tag->size, tag->is_allocated,
                                   tag->owner};

    return report(context, &segment);
}

bool vmem_look(struct vmem *vmem, uint64_t address, vmem_fn report,
               void *context)
{
    uint64_t irq = lock_acquire(&vmem->lock);
    struct vmem_tag *tag = hash_find(vmem, address);
    bool result = tag != NULL && report_tag(tag, report, context);

    lock_release(&vmem->lock, irq);
    return result;
}

static bool walk_locked(struct vmem *vmem, vmem_fn report, void *context)
{
    bool goes_on = true;

    for (struct vmem_tag *tag = vmem->first; tag != NULL && goes_on;
         tag = tag->above) {
        goes_on = report_tag(tag, report, context);
    }
    return goes_on;
}

bool vmem_walk(struct vmem *vmem, vmem_fn report, void *context)
{
    uint64_t irq = lock_acquire(&vmem->lock);
    bool goes_on = walk_locked(vmem, report, context);

    lock_release(&vmem->lock, irq);
    return goes_on;
}

bool vmem_try_walk(struct vmem *vmem, unsigned turns, vmem_fn report,
                   void *context)
{
    uint64_t irq;

    if (!lock_try_acquire(&vmem->lock, turns, &irq)) {
        return false;
    }
    bool goes_on = walk_locked(vmem, report, context);
    lock_release(&vmem->lock, irq);
    return goes_on;
}

void vmem_stats(struct vmem *vmem, struct vmem_stats *out)
{
    uint64_t irq = lock_acquire(&vmem->lock);

    *out = (struct vmem_stats){vmem->total, vmem->free, vmem->allocated, 0};
    lock_release(&vmem->lock, irq);
    out->kept = vmem_kept_count(vmem);
}
