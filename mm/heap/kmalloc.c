/* SPDX-License-Identifier: MIT */
/* kmalloc: memory of any size, from size classes or runs of frames. */
/*
 * Owns: the caches of the size classes, and large blocks.
 *
 * Idea: a size is rounded up to a multiple of 1/8 of its power of two, at
 * least of 16: eight classes a doubling. A class is then at most 1/9 larger
 * than the smallest size above the class before, below the 12.5 % promised.
 * (Four a doubling would waste up to 1/5: 160 bytes for 129.) All objects of a
 * class are aligned to the largest power of two that divides it, so rounding a
 * size up to a multiple of an alignment is enough to have that alignment.
 *
 * Picture, sizes -> table -> classes:
 *
 *   size - 1 >> 4:   0   1   2  ...  15   16     17     ...  511
 *                    16  32  48 ...  256  288    288    ...  8192
 *
 * A larger block is the smallest run of 2^n frames that holds it; the record
 * of its first frame has type FRAME_LARGE and the exact size as owner.
 *
 * Invariants:
 *   I1  kmalloc_number_of[i] is the number of the class of size 16 (i + 1)
 *
 * Locking: none of its own. Context: any, but kmalloc_init().
 * Cost: as slab; large blocks as frame. krealloc copies if the class changes.
 * Limits: the contents of a large block are not poisoned; its red zone is what
 * the run of frames has more than was asked for, RED_ZONE_MAX bytes at most.
 */
#include <mm/kmalloc.h>

#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"
#include "heap/guard.h"
#include "heap/magazine.h"
#include "heap/slab_impl.h"

#define STEPS_A_DOUBLING 8
#define NAME_BYTES       16
#define RED_ZONE_MAX     256

uint16_t kmalloc_number_of[KMALLOC_SIZES];
static char class_name[KMALLOC_CLASSES][NAME_BYTES]; /* (I) "kmalloc-160" */

/*
 * (C) What a quick free knows of a class, by the number in the records of its
 * slabs' frames: their descriptors lie anywhere, and need not be read. Of
 * number 0, no class, nothing can be freed so.
 */
static struct quick_class {
    uint32_t above;            /* bits of an address above those in a slab */
    uint32_t reciprocal;       /* of the stride; 0: no quick free */
    uint32_t minus_reciprocal; /* 2^32 - that */
    struct slab_cache *cache;
} MM_ALIGNED(32) quick_class[1 + KMALLOC_CLASSES];

/* Of entry i the number is i * sizeof(void *). */
static inline struct quick_class *class_at(uint64_t number)
{
    return (struct quick_class *)((char *)quick_class +
                                  number *
                                      (sizeof(*quick_class) / sizeof(void *)));
}

uint64_t kmalloc_class_bytes(uint64_t bytes)
{
    ASSERT(bytes > 0 && bytes <= KMALLOC_SLAB_MAX);
    uint64_t power = UINT64_C(1) << highest_bit((bytes - 1) | 1);

    return align_up(bytes, max_u64(power / STEPS_A_DOUBLING, KMALLOC_STEP));
}

/* "kmalloc-" and the size. */
static void name_class(char *name, uint64_t bytes)
{
    static const char prefix[] = "kmalloc-";
    unsigned length = sizeof(prefix) - 1;

    memcpy(name, prefix, length);
    for (uint64_t rest = bytes; rest > 0; rest /= 10) {
        length++;
    }
    name[length] = '\0';
    for (uint64_t rest = bytes; rest > 0; rest /= 10) {
        name[--length] = (char)('0' + rest % 10);
    }
}

/* Make the class with @number, of blocks of @bytes. */
static MM_MUST_CHECK enum mm_status make_class(uint64_t number, uint64_t bytes)
{
    char *name = class_name[number / sizeof(void *) - 1];

    name_class(name, bytes);
    struct slab_cache *cache = slab_create_kind(
        POOL_KMALLOC, name, bytes, UINT64_C(1) << lowest_bit(bytes), NULL);
    if (cache == NULL) {
        return MM_ENOMEM;
    }
    cache->pool.number = (uint16_t)number;
    *class_at(number) = (struct quick_class){
        .above = ~(uint32_t)((PAGE_BYTES << cache->pool.order) - 1),
        .reciprocal = cache->pool.quick,
        .minus_reciprocal = 0 - cache->pool.quick,
        .cache = cache,
    };
    return MM_OK;
}

/* Take down what kmalloc_init() made before it failed. */
static void destroy_classes(void)
{
    for (unsigned i = 1; i <= KMALLOC_CLASSES && quick_class[i].cache != NULL;
         i++) {
        enum mm_status status = slab_destroy(quick_class[i].cache);
        ASSERT(status == MM_OK);
    }
}

enum mm_status kmalloc_init(void)
{
    memset(quick_class, 0, sizeof(quick_class));
    for (uint64_t size = KMALLOC_STEP; size <= KMALLOC_SLAB_MAX;
         size += KMALLOC_STEP) {
        uint64_t number = kmalloc_number(size);
        kmalloc_number_of[size / KMALLOC_STEP - 1] = (uint16_t)number;
        if (class_at(number)->cache == NULL &&
            make_class(number, kmalloc_class_bytes(size)) != MM_OK) {
            destroy_classes();
            return MM_ENOMEM;
        }
    }
    return MM_OK;
}

struct slab_cache *kmalloc_cache_of(uint64_t bytes)
{
    return class_at(kmalloc_number(bytes))->cache;
}

static struct frame_record *large_record(const void *block)
{
    return record_of(phys_to_pfn(virt_to_phys(block)));
}

static uint64_t large_bytes(const void *block)
{
    return PAGE_BYTES << large_record(block)->order;
}

/* Where the red zone behind @bytes of a large block ends. */
static char *red_zone_end(void *block, uint64_t bytes)
{
    return (char *)block + min_u64(bytes + RED_ZONE_MAX, large_bytes(block));
}

/* Note the size and draw the red zone behind it. */
static void large_set(struct frame_record *record, void *block, uint64_t bytes)
{
    record->owner = bytes;
    if (MM_DEBUG) {
        char *start = (char *)block + bytes;
        memset(start, POISON_TAIL,
               (size_t)(red_zone_end(block, bytes) - start));
    }
}

static void large_verify(void *block, uintptr_t site)
{
    uint64_t bytes = large_record(block)->owner;
    const uint8_t *bad;

    if (!poison_is_intact((char *)block + bytes, red_zone_end(block, bytes),
                          POISON_TAIL, &bad)) {
        port_bug("overflow: byte 0x%lx is 0x%x, expected 0x%x; large block "
                 "0x%lx of 0x%lx bytes, seen by %p",
                 (unsigned long)bad, *bad, POISON_TAIL, (unsigned long)block,
                 (unsigned long)bytes, (void *)site);
    }
}

static inline void *large_alloc(unsigned order, uint64_t bytes, unsigned flags)
{
    pfn_t pfn = frame_alloc(order, FRAME_LARGE, flags | FRAME_MAY_RECLAIM);

    if (pfn_is_none(pfn)) {
        return NULL;
    }
    void *block = phys_to_virt(pfn_to_phys(pfn));
    large_set(record_of(pfn), block, bytes);
    return block;
}

/* @room >= @bytes decides how many frames. */
static MM_NOINLINE void *large_alloc_any(uint64_t room, uint64_t bytes,
                                         unsigned flags)
{
    if (room - 1 >= KMALLOC_MAX) { /* 0 wraps */
        return NULL;
    }
    return large_alloc(kmalloc_order(room), bytes, flags);
}

void *kmalloc_large(unsigned order, uint64_t bytes)
{
    return large_alloc(order, bytes, FRAME_ANY);
}

static inline void large_free(void *block, uintptr_t site)
{
    struct frame_record *record = large_record(block);

    if (MM_DEBUG) {
        large_verify(block, site);
    }
    record->owner = 0; /* nobody's, if a leak scan comes before it is free */
    frame_free_record(record);
}

#if MAGAZINE_RESTARTS

/* The slow ways of x86_64/magazine.asm. */
void *kmalloc_refill(uint64_t number, uint64_t bytes, uintptr_t site)
{
    return magazine_refill(class_at(number)->cache, bytes, site);
}

void *kmalloc_look(uint64_t number, uint64_t bytes, uintptr_t site,
                   void *object)
{
    return magazine_look(class_at(number)->cache, bytes, site, object);
}

void kmalloc_flush(void *object, uint64_t number)
{
    magazine_flush(class_at(number)->cache, object);
}

/* An object of a class, for who has called the function this is a part of. */
static MM_INLINE void *take(uint64_t number, uint64_t bytes)
{
    return kmalloc_for(number, bytes, MM_CALLER());
}

static MM_INLINE void give(uint64_t number, void *block)
{
    kmalloc_push(block, number);
}

#else

void *kmalloc_from(uint64_t number, uint64_t bytes)
{
    return magazine_alloc(class_at(number)->cache, bytes);
}

static MM_INLINE void *take(uint64_t number, uint64_t bytes)
{
    return magazine_alloc(class_at(number)->cache, bytes);
}

static MM_INLINE void give(uint64_t number, void *block)
{
    magazine_free(class_at(number)->cache, slab_around(block), block);
}

#endif

/* @room >= @bytes decides the class; @flags are for large blocks. */
static MM_INLINE void *allocate(uint64_t room, uint64_t bytes, unsigned flags)
{
    if (MM_LIKELY(room - 1 < KMALLOC_SLAB_MAX)) { /* 0 wraps */
        return take(kmalloc_number_of[(room - 1) / KMALLOC_STEP], bytes);
    }
    return large_alloc_any(room, bytes, flags);
}

void *kmalloc_any(uint64_t bytes)
{
    if (MM_LIKELY(bytes - 1 < KMALLOC_SLAB_MAX)) { /* 0 wraps */
        /* The last thing that is done: a jump, which needs no call site. */
        return kmalloc_from(kmalloc_number_of[(bytes - 1) / KMALLOC_STEP],
                            bytes);
    }
    return large_alloc_any(bytes, bytes, FRAME_ANY);
}

static MM_INLINE void *allocate_zeroed(uint64_t bytes)
{
    void *block = allocate(bytes, bytes, FRAME_ZEROED);

    if (block != NULL && bytes <= KMALLOC_SLAB_MAX) {
        memset(block, 0, bytes);
    }
    return block;
}

void *kzalloc(uint64_t bytes)
{
    return allocate_zeroed(bytes);
}

void *kmalloc_array(uint64_t count, uint64_t bytes)
{
    uint64_t product;

    if (!checked_mul(count, bytes, &product)) {
        return NULL;
    }
    return allocate_zeroed(product);
}

void *kmalloc_sum(uint64_t head, uint64_t count, uint64_t bytes)
{
    uint64_t product;

    if (!checked_mul(count, bytes, &product) || product > KMALLOC_MAX ||
        head > KMALLOC_MAX) {
        return NULL;
    }
    return allocate(head + product, head + product, FRAME_ANY);
}

void *kmalloc_aligned(uint64_t bytes, uint64_t alignment)
{
    if (bytes == 0 || bytes > KMALLOC_MAX || !is_power_of_two(alignment) ||
        alignment > KMALLOC_MAX) {
        return NULL;
    }
    return allocate(align_up(bytes, alignment), bytes, FRAME_ANY);
}

/* The first byte of an object of a size class? Any address is allowed. */
static bool is_small(const void *block)
{
    return heap_has_type(block, FRAME_SLAB) &&
           slab_around(block)->pool->kind == POOL_KMALLOC &&
           slab_is_object(slab_around(block), block);
}

/* The first byte of a large block? Any address is allowed. */
static bool is_large(const void *block)
{
    return heap_has_type(block, FRAME_LARGE) &&
           is_aligned((vaddr_t)block, PAGE_BYTES);
}

/*
 * The large block that @address, any number, lies in, or NULL. Only its first
 * frame's record tells; a block is aligned to its size.
 */
static const void *large_around(const void *address)
{
    uint64_t at = virt_to_phys(address).v;

    for (unsigned order = 0; order <= MM_MAX_ORDER; order++) {
        uint64_t offset = at % (PAGE_BYTES << order);
        const void *block = (const void *)((vaddr_t)address - offset);

        if (is_large(block) && offset < large_bytes(block)) {
            return block;
        }
    }
    return NULL;
}

/* @block is no live block: say what it is instead. */
static void report_block(enum report_deed deed, const void *block,
                         uintptr_t site)
{
    const void *large = large_around(block);

    if (guard_holds(block)) {
        guard_report_block(block, site);
    } else if (large != NULL) {
        port_bug("%s of an interior pointer 0x%lx: 0x%lx bytes into the "
                 "large block 0x%lx of 0x%lx bytes, by %p",
                 report_deed_name(deed), (unsigned long)block,
                 (unsigned long)((vaddr_t)block - (vaddr_t)large),
                 (unsigned long)large,
                 (unsigned long)large_record(large)->owner, (void *)site);
    } else {
        report_pointer(deed, NULL, block, site);
    }
}

/* Neither quick nor large, if it is a block at all. */
static MM_NOINLINE void free_odd(void *block, uintptr_t site)
{
    if (is_small(block)) {
        struct slab *slab = slab_around(block);
        magazine_free_noted(cache_of(slab->pool), slab, block, site);
    } else if (block != NULL && !guard_free(block, NULL, site)) {
        report_block(REPORT_FREE, block, site);
    }
}

/* No quick free: the rest of kfree(). Large blocks need no stack. */
static MM_NOINLINE void free_other(void *block, uintptr_t site)
{
    if ((uint8_t)heap_what(block) == FRAME_LARGE &&
        is_aligned((vaddr_t)block, PAGE_BYTES)) {
        large_free(block, site);
    } else {
        free_odd(block, site);
    }
}

/*
 * Does an object of @class begin at @block, in a frame of one of its slabs? If
 * so, it has so many strides to the end of the frames, where the last object
 * ends, and the negative of these bytes is what the expression in parentheses
 * is: see slab_starts_object().
 */
static inline bool starts_of_class(const struct quick_class *class,
                                   const void *block)
{
    return ((uint32_t)(vaddr_t)block | class->above) * class->minus_reciprocal <
           class->reciprocal;
}

static MM_INLINE void free_block(void *block)
{
    uint32_t what = heap_what(block);
    uint64_t number = what >> 16;

    if (MM_UNLIKELY((uint8_t)what != FRAME_SLAB ||
                    !starts_of_class(class_at(number), block) ||
                    (MM_DEBUG && !is_small(block)))) {
        free_other(block, MM_CALLER());
        return;
    }
    give(number, block);
}

void kfree(void *block)
{
    free_block(block);
}

/* The slab of a small block; NULL for anything else. */
static struct slab *small_slab(const void *block)
{
    return is_small(block) ? slab_around(block) : NULL;
}

/* Debug builds: what was asked for, since behind it lies the red zone. */
static uint64_t usable_bytes(const struct slab *slab, const void *block)
{
    if (guard_holds(block)) {
        return guard_size(block);
    }
    if (slab == NULL) {
        return MM_DEBUG ? large_record(block)->owner : large_bytes(block);
    }
    return MM_DEBUG ? slab->track[slab_index(slab, block)].bytes
                    : slab->pool->object_bytes;
}

/* Is @block live, as far as this build can know? Else report it. */
static bool is_live_block(const struct slab *slab, const void *block,
                          uintptr_t site)
{
    bool is_live = slab == NULL ? is_large(block) || guard_size(block) > 0
                                : slab_is_out(slab, slab_index(slab, block));

    if (MM_DEBUG && slab != NULL) {
        is_live = slab->track[slab_index(slab, block)].is_live;
    } else if (pool_notes_states && slab != NULL) {
        is_live = atomic_load_explicit(
            slab_state(slab, slab_index(slab, block)), memory_order_relaxed);
    }
    if (!is_live) {
        report_block(REPORT_USE, block, site);
    }
    return is_live;
}

uint64_t ksize(const void *block)
{
    const struct slab *slab = small_slab(block);

    return is_live_block(slab, block, MM_CALLER()) ? usable_bytes(slab, block)
                                                   : 0;
}

/* Does @block have room for @bytes without being much too large? */
static bool fits_in_place(const struct slab *slab, const void *block,
                          uint64_t bytes)
{
    if (bytes > KMALLOC_SLAB_MAX) {
        return is_large(block) && bytes <= KMALLOC_MAX &&
               PAGE_BYTES << kmalloc_order(bytes) == large_bytes(block);
    }
    return slab != NULL &&
           slab->pool->object_bytes == kmalloc_class_bytes(bytes);
}

static void resize_in_place(const struct slab *slab, void *block,
                            uint64_t bytes, uintptr_t site)
{
    if (MM_DEBUG && slab != NULL) {
        poison_resize(block, bytes);
    } else if (slab == NULL) {
        if (MM_DEBUG) {
            large_verify(block, site);
        }
        large_set(large_record(block), block, bytes);
    }
}

void *krealloc(void *block, uint64_t bytes)
{
    uintptr_t site = MM_CALLER();

    if (block == NULL) {
        return allocate(bytes, bytes, FRAME_ANY);
    }
    if (bytes == 0) {
        free_block(block);
        return NULL;
    }
    const struct slab *slab = small_slab(block);
    if (!is_live_block(slab, block, site)) {
        return NULL;
    }
    if (fits_in_place(slab, block, bytes)) {
        resize_in_place(slab, block, bytes, site);
        return block;
    }
    void *larger = allocate(bytes, bytes, FRAME_ANY);
    if (larger != NULL) {
        memcpy(larger, block, min_u64(bytes, usable_bytes(slab, block)));
        free_block(block);
    }
    return larger;
}

bool kmalloc_check(void)
{
    for (uint64_t i = 0; i < KMALLOC_SIZES; i++) {
        uint64_t size = KMALLOC_STEP * (i + 1);
        const struct slab_pool *pool =
            &class_at(kmalloc_number_of[i])->cache->pool;
        CHECK_OR_FAIL(pool->object_bytes == kmalloc_class_bytes(size) && // I1
                          pool->number == kmalloc_number_of[i],
                      "size %u has the class %s", (unsigned)size, pool->name);
    }
    return true;
}
