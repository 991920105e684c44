/* SPDX-License-Identifier: MIT */
/* pool_look: are bitmaps, lists, counts and records of a pool right? */
/*
 * The invariants stand in pool.c. Locking: the pool's own.
 */
#include "base/bits.h"
#include "base/check.h"
#include "heap/poison.h"
#include "heap/pool.h"

static bool check_records(const struct slab *slab)
{
    pfn_t first = phys_to_pfn(virt_to_phys((void *)slab->frames));

    for (uint64_t i = 0; i < (UINT64_C(1) << slab->pool->order); i++) {
        const struct frame_record *record = record_of(pfn_add(first, i));
        CHECK_OR_FAIL(
            record->type == FRAME_SLAB && record->owner == (uintptr_t)slab &&
                atomic_load_explicit(&record->entries, memory_order_relaxed) ==
                    slab->pool->number,
            "frame 0x%lx of slab 0x%lx (%s) has type %u", // I3
            (unsigned long)(first.v + i), (unsigned long)slab->frames,
            slab->pool->name, record->type);
    }
    return true;
}

static bool check_slab(const struct slab *slab, enum pool_list list)
{
    unsigned bits = 0;

    for (unsigned i = 0; i < POOL_MAX_OBJECTS / 64; i++) {
        bits += count_bits(slab->out[i]);
    }
    CHECK_OR_FAIL(slab_list(slab) == list, "slab 0x%lx (%s) on list %u", // I1
                  (unsigned long)slab->frames, slab->pool->name, list);
    CHECK_OR_FAIL(bits ==
                      slab->out_count + POOL_MAX_OBJECTS - slab->pool->objects,
                  "slab 0x%lx (%s): %u bits, %u objects out", // I2
                  (unsigned long)slab->frames, slab->pool->name, bits,
                  (unsigned)slab->out_count);
    if (slab->track != NULL && !poison_check_slab(slab)) {
        return false;
    }
    return check_records(slab);
}

static bool check_locked(const struct slab_pool *pool)
{
    uint64_t slabs = 0;
    uint64_t out = 0;

    for (enum pool_list list = 0; list < POOL_LISTS; list++) {
        for (const struct slab *slab = pool->list[list]; slab != NULL;
             slab = slab->next) {
            CHECK_OR_FAIL(slab->pool == pool && slabs < pool->slabs,
                          "list %u of %s is broken", list, pool->name);
            if (!check_slab(slab, list)) {
                return false;
            }
            slabs++;
            out += slab->out_count;
        }
    }
    CHECK_OR_FAIL(slabs == pool->slabs && out == pool->out, // I4
                  "%s: %u slabs for %u, %u objects out for %u", pool->name,
                  (unsigned)slabs, (unsigned)pool->slabs, (unsigned)out,
                  (unsigned)pool->out);
    const struct slab *empty = pool->list[POOL_EMPTY];
    CHECK_OR_FAIL(empty == NULL || empty->next == NULL, // I5
                  "%s keeps more than one empty slab", pool->name);
    return true;
}

bool pool_check(struct slab_pool *pool)
{
    uint64_t irq = lock_acquire(&pool->lock);
    bool is_sound = check_locked(pool);

    lock_release(&pool->lock, irq);
    return is_sound;
}
