/* SPDX-License-Identifier: MIT */
/* leak: live objects that nobody can reach any more. */
/*
 * Owns: the marks of objects, and the list of those that are still to be read.
 *
 * Idea: the mark phase of a conservative garbage collector [Boehm88], as
 * Linux's kmemleak has it, for a world that stands still. Each word that is
 * read is looked up as reports look up a pointer: frame record, slab, index.
 * An object that is met for the first time is marked and put on the list, and
 * read in its turn. What is live and has no mark in the end is leaked.
 *
 * The list is short and no object is met through recursion. If it is full,
 * the object is marked and forgotten, and in the end all marked objects are
 * read once more; each such pass marks at least one object, or is the last.
 *
 * Invariants:
 *   I1  a marked object is live
 *   I2  a marked object was read, is on the list, or `is_cut_short`
 *
 * Marks of objects stand in frames that are taken for the scan: a bitmap a
 * slab, found by a number in its descriptor.
 *
 * A CPU may stand still where it makes or releases a slab, or destroys a cache,
 * with interrupts on: such slabs are on no list, have no number, and what is
 * in them is neither met nor judged.
 *
 * Locking: none: nobody else runs.
 * Cost: a word that is no pointer to RAM some ten instructions.
 * Limits: contents of free objects are not read, nor side storage, which has
 * pointers to everything. A pointer that only a magazine's array holds is to a
 * free object: magazines are empty while a scan goes on.
 */
#include <mm/leak.h>

#include "base/bits.h"
#include "base/check.h"
#include "heap/guard_impl.h"
#include "heap/magazine.h"
#include <mm/slab.h>

/*
 * Objects on the list. What is on it is inverted: the list itself lies among
 * the host's variables, which are roots.
 */
#define LIST_OBJECTS 1024

/* Words of marks a slab. */
#define MARK_WORDS (POOL_MAX_OBJECTS / 64)

static uint64_t *marks; /* of all slabs, while a scan goes on */
static pfn_t marks_frame;
static unsigned marks_order;

static uintptr_t list[LIST_OBJECTS];
static unsigned list_count;
static bool is_cut_short; /* an object found no room on the list */
static struct leak_totals sums;

/* --- marks ---------------------------------------------------------------- */

static bool is_live(const struct slab *slab, unsigned index)
{
    return slab->track != NULL ? slab->track[index].is_live
                               : slab_is_out(slab, index);
}

static uint64_t *marks_of(const struct slab *slab)
{
    return marks + (slab->number - UINT64_C(1)) * MARK_WORDS;
}

static bool is_marked(const struct slab *slab, unsigned index)
{
    return ((marks_of(slab)[index / 64] >> (index % 64)) & 1) != 0;
}

static uint64_t object_bytes(const struct slab *slab, unsigned index)
{
    return slab->track != NULL ? slab->track[index].bytes
                               : slab->pool->object_bytes;
}

static void remember(const void *object)
{
    if (list_count < LIST_OBJECTS) {
        list[list_count++] = ~(uintptr_t)object;
    } else {
        is_cut_short = true;
    }
}

static void meet_object(const void *address)
{
    const struct slab *slab = slab_around(address);

    if (slab == NULL || slab->number == 0 ||
        (vaddr_t)address - slab->start >= slab->pool->span) {
        return;
    }
    unsigned index = slab_index(slab, address);
    if (is_live(slab, index) && !is_marked(slab, index)) { // I1
        marks_of(slab)[index / 64] |= UINT64_C(1) << (index % 64);
        remember(slab_object(slab, index));
    }
}

/* The marks of large blocks: a field that page tables use otherwise. */
static bool is_large_marked(pfn_t block)
{
    return atomic_load_explicit(&record_of(block)->entries,
                                memory_order_relaxed) != 0;
}

static void large_mark(pfn_t block, uint16_t mark)
{
    atomic_store_explicit(&record_of(block)->entries, mark,
                          memory_order_relaxed);
}

static const void *large_start(pfn_t block)
{
    return phys_to_virt(pfn_to_phys(block));
}

static void meet_large(pfn_t block)
{
    if (!is_large_marked(block)) {
        large_mark(block, 1);
        remember(large_start(block));
    }
}

/* Guarded objects: what may be read of the pool is pages of those. */
static uint64_t guard_marked[GUARDS / 64];

static bool is_seat_marked(const struct seat *seat)
{
    unsigned index = seat_index(seat);

    return ((guard_marked[index / 64] >> (index % 64)) & 1) != 0;
}

static void meet_guarded(const void *address)
{
    const struct seat *seat = guard_seat_at((vaddr_t)address);

    if (seat != NULL && seat_state(seat) == SEAT_LIVE &&
        !is_seat_marked(seat)) {
        unsigned index = seat_index(seat);
        guard_marked[index / 64] |= UINT64_C(1) << (index % 64);
        remember((const void *)seat_object(seat));
    }
}

/*
 * @pfn is not the first frame of its block, and its record says nothing: see
 * where a block that holds it could begin.
 */
static void meet_inside(pfn_t pfn)
{
    for (unsigned order = 1; order <= MM_MAX_ORDER; order++) {
        pfn_t head = pfn_of(align_down(pfn.v, UINT64_C(1) << order));

        if (record_exists(head) && record_of(head)->type != FRAME_NONE) {
            if (record_of(head)->type == FRAME_LARGE &&
                record_of(head)->order >= order) {
                meet_large(head);
            }
            return;
        }
    }
}

/* @word may be a pointer. */
static void meet(uint64_t word)
{
    const void *address = (const void *)(uintptr_t)word;
    pfn_t pfn = phys_to_pfn(virt_to_phys(address));

    if (!record_exists(pfn)) {
        return;
    }
    switch (record_of(pfn)->type) {
    case FRAME_SLAB:
        meet_object(address);
        break;
    case FRAME_LARGE:
        meet_large(pfn);
        break;
    case FRAME_GUARD:
        meet_guarded(address);
        break;
    case FRAME_NONE:
        meet_inside(pfn);
        break;
    default:
        break;
    }
}

/* --- reading -------------------------------------------------------------- */

static void read_bytes(const void *start, uint64_t bytes)
{
    const uint64_t *word = start;
    uint64_t count = bytes / sizeof(*word);

    for (uint64_t i = 0; i < count; i++) {
        meet(word[i]);
    }
    sums.words += count;
}

/* An object at the end of its page need not begin at a multiple of 8. */
static void read_guarded(const struct seat *seat)
{
    vaddr_t start = align_up(seat_object(seat), sizeof(uint64_t));
    vaddr_t end = seat_object(seat) + seat->bytes;

    read_bytes((const void *)start, end > start ? end - start : 0);
}

static void read_block(const void *object)
{
    pfn_t pfn = phys_to_pfn(virt_to_phys(object));

    if (record_of(pfn)->type == FRAME_LARGE) {
        read_bytes(object, record_of(pfn)->owner);
        return;
    }
    if (record_of(pfn)->type == FRAME_GUARD) {
        read_guarded(guard_seat_at((vaddr_t)object));
        return;
    }
    const struct slab *slab = slab_around(object);
    read_bytes(object, object_bytes(slab, slab_index(slab, object)));
}

/* Until the list is empty; each object is put there once. */
static void read_list(void)
{
    while (list_count > 0) {
        list_count--;
        read_block((const void *)~list[list_count]);
    }
}

void leak_scan(const void *start, const void *end)
{
    vaddr_t first = align_up((vaddr_t)start, sizeof(uint64_t));

    if ((vaddr_t)end > first) {
        read_bytes((const void *)first, (vaddr_t)end - first);
        read_list();
    }
}

/* --- everything ----------------------------------------------------------- */

typedef void (*object_fn)(struct slab *slab, unsigned index);
typedef void (*block_fn)(pfn_t block);
typedef void (*seat_fn)(const struct seat *seat);

static void each_object_of(struct slab_cache *cache, object_fn visit)
{
    for (enum pool_list i = 0; i < POOL_LISTS; i++) {
        for (struct slab *slab = cache->pool.list[i]; slab != NULL;
             slab = slab->next) {
            for (unsigned k = 0; k < slab->pool->objects; k++) {
                if (is_live(slab, k)) {
                    visit(slab, k);
                }
            }
        }
    }
}

static struct slab_cache *next_cache(const struct slab_cache *cache)
{
    return (struct slab_cache *)slab_next(cache);
}

static void each_object(object_fn visit)
{
    for (struct slab_cache *cache = next_cache(NULL); cache != NULL;
         cache = next_cache(cache)) {
        each_object_of(cache, visit);
    }
}

static void each_guarded(seat_fn visit)
{
    for (unsigned i = 0; i < GUARD_OBJECTS; i++) {
        if (seat_state(&guard_pool.seat[i]) == SEAT_LIVE) {
            visit(&guard_pool.seat[i]);
        }
    }
}

/* The blocks of @type that begin in [start, end). Return: their frames. */
static uint64_t visit_blocks(uint64_t start, uint64_t end, enum frame_type type,
                             block_fn visit)
{
    uint64_t frames = 0;

    for (uint64_t i = start; i < end; i++) {
        const struct frame_record *record = record_of(pfn_of(i));
        if (record->type == type && record->order <= MM_MAX_ORDER) {
            frames += UINT64_C(1) << record->order;
            visit(pfn_of(i));
        }
    }
    return frames;
}

/* All blocks of @type: records are looked at until their frames are found. */
static void each_block(enum frame_type type, block_fn visit)
{
    struct frame_stats stats;
    uint64_t found = 0;

    frame_stats(&stats);
    for (uint64_t start = 0;
         start < record_frames && found < stats.by_type[type];
         start += RECORD_BLOCK_FRAMES) {
        if (record_exists(pfn_of(start))) {
            uint64_t end = min_u64(start + RECORD_BLOCK_FRAMES, record_frames);
            found += visit_blocks(start, end, type, visit);
        }
    }
}

static void unmark_large(pfn_t block)
{
    large_mark(block, 0);
}

static void read_frames(pfn_t block)
{
    if (!pfn_equal(block, marks_frame)) {
        read_bytes(large_start(block), PAGE_BYTES << record_of(block)->order);
        read_list();
    }
}

typedef void (*slab_fn)(struct slab *slab, uint64_t number);

/* Return: how many there are; they are numbered in this order, from 1 on. */
static uint64_t each_slab(slab_fn visit)
{
    uint64_t slabs = 0;

    for (struct slab_cache *cache = next_cache(NULL); cache != NULL;
         cache = next_cache(cache)) {
        for (enum pool_list i = 0; i < POOL_LISTS; i++) {
            for (struct slab *slab = cache->pool.list[i]; slab != NULL;
                 slab = slab->next) {
                visit(slab, ++slabs);
            }
        }
    }
    return slabs;
}

static void pass_by(struct slab *slab, uint64_t number)
{
    (void)slab;
    (void)number;
}

static void number_slab(struct slab *slab, uint64_t number)
{
    slab->number = (uint32_t)number;
}

static void unnumber_slab(struct slab *slab, uint64_t number)
{
    (void)number;
    slab->number = 0;
}

/* Bits for all slabs, none set; a slab knows which are its own. */
static enum mm_status make_marks(void)
{
    uint64_t slabs = each_slab(pass_by);
    uint64_t frames =
        div_round_up(slabs * MARK_WORDS * sizeof(*marks) + 1, PAGE_BYTES);
    unsigned order = frames == 1 ? 0 : highest_bit(frames - 1) + 1;

    if (order > MM_MAX_ORDER) {
        return MM_ERANGE;
    }
    marks_frame = frame_alloc(order, FRAME_KERNEL, FRAME_ZEROED);
    if (pfn_is_none(marks_frame)) {
        return MM_ENOMEM;
    }
    marks_order = order;
    marks = phys_to_virt(pfn_to_phys(marks_frame));
    (void)each_slab(number_slab);
    return MM_OK;
}

enum mm_status leak_begin(void)
{
    for (struct slab_cache *cache = next_cache(NULL); cache != NULL;
         cache = next_cache(cache)) {
        magazine_drain_all(cache);
    }
    enum mm_status status = make_marks();
    if (status != MM_OK) {
        return status;
    }
    list_count = 0;
    is_cut_short = false;
    sums = (struct leak_totals){0};
    each_block(FRAME_LARGE, unmark_large);
    for (unsigned i = 0; i < GUARDS / 64; i++) {
        guard_marked[i] = 0;
    }
    for (const struct slab_cache *cache = slab_next(NULL); cache != NULL;
         cache = slab_next(cache)) {
        meet((uintptr_t)cache->pool.name);
    }
    each_block(FRAME_KERNEL, read_frames);
    read_list();
    return MM_OK;
}

/* --- the end -------------------------------------------------------------- */

static void read_again(struct slab *slab, unsigned index)
{
    if (is_marked(slab, index)) {
        read_block(slab_object(slab, index));
        read_list();
    }
}

static void read_large_again(pfn_t block)
{
    if (is_large_marked(block)) {
        read_block(large_start(block));
        read_list();
    }
}

static void read_guarded_again(const struct seat *seat)
{
    if (is_seat_marked(seat)) {
        read_guarded(seat);
        read_list();
    }
}

static struct {
    struct leak_group *group;
    unsigned count;
    unsigned max;
} groups;

/* Put a leaked object to those that are like it. */
static void note(const char *cache, uintptr_t site, uint64_t bytes,
                 const void *object)
{
    sums.leaked++;
    sums.leaked_bytes += bytes;
    for (unsigned i = 0; i < groups.count; i++) {
        struct leak_group *group = &groups.group[i];
        if (group->cache == cache && group->site == site &&
            group->bytes == bytes) {
            group->count++;
            return;
        }
    }
    if (groups.count == groups.max) {
        sums.ungrouped++;
        return;
    }
    groups.group[groups.count++] =
        (struct leak_group){cache, site, bytes, 1, object};
}

static void judge_object(struct slab *slab, unsigned index)
{
    sums.live++;
    if (!is_marked(slab, index)) {
        note(slab->pool->name, report_alloc_site(slab, index),
             object_bytes(slab, index), slab_object(slab, index));
    }
}

/* Of no bytes: a CPU stands still where it makes the block, or frees it. */
static void judge_large(pfn_t block)
{
    uint64_t bytes = record_of(block)->owner;

    sums.live += bytes != 0;
    if (bytes != 0 && !is_large_marked(block)) {
        note("large block", 0, bytes, large_start(block));
    }
    large_mark(block, 0);
}

static void judge_guarded(const struct seat *seat)
{
    sums.live++;
    if (!is_seat_marked(seat)) {
        note(seat->pool->name, seat->alloc_site, seat->bytes,
             (const void *)seat_object(seat));
    }
}

unsigned leak_end(struct leak_group *out, unsigned max,
                  struct leak_totals *totals)
{
    while (is_cut_short) { // I2
        is_cut_short = false;
        sums.rescans++;
        each_object(read_again);
        each_block(FRAME_LARGE, read_large_again);
        each_guarded(read_guarded_again);
    }
    groups.group = out;
    groups.count = 0;
    groups.max = max;
    each_object(judge_object);
    each_block(FRAME_LARGE, judge_large);
    each_guarded(judge_guarded);
    (void)each_slab(unnumber_slab);
    frame_free(marks_frame, marks_order);
    *totals = sums;
    return groups.count;
}
