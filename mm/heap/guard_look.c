/* SPDX-License-Identifier: MIT */
/* guard_look: faults in the guards' pool, reports, and what is in it. */
/*
 * Locking: none but for counts; a report about an object that another CPU
 * frees at this moment may be out of date.
 */
#include "heap/guard_impl.h"

#include "base/bits.h"
#include "base/check.h"

/* --- words ---------------------------------------------------------------- */

static const char *seat_name(const struct seat *seat)
{
    return seat->pool == NULL ? "?" : seat->pool->name;
}

/* @crime was committed at @address, by @site. */
void guard_report(const struct seat *seat, const char *crime, vaddr_t address,
                  uintptr_t site)
{
    count(&guard_pool.found);
    port_bug("%s at 0x%lx (offset %d) by %p; guarded object 0x%lx (%u bytes, "
             "cache %s), allocated by %p on CPU %u, freed by %p on CPU %u",
             crime, (unsigned long)address, (int)(address - seat_object(seat)),
             (void *)site, (unsigned long)seat_object(seat), seat->bytes,
             seat_name(seat), (void *)seat->alloc_site, seat->alloc_cpu,
             (void *)seat->free_site, seat->free_cpu);
}

/* The same where there is no object to speak of. */
void guard_report_nowhere(const char *crime, vaddr_t address, uintptr_t site)
{
    count(&guard_pool.found);
    port_bug("%s at 0x%lx by %p: in the pool of guarded objects, page %u, "
             "where none has ever been",
             crime, (unsigned long)address, (void *)site,
             guard_page_index(address));
}

/* --- faults --------------------------------------------------------------- */

/*
 * The object that an access to guard page @guard was meant for: the nearer one
 * of its neighbours; NULL if there was never any.
 */
static const struct seat *nearest(unsigned guard, vaddr_t address)
{
    const struct seat *before = guard == 0 ? NULL : &guard_pool.seat[guard - 1];
    const struct seat *behind =
        guard == GUARD_OBJECTS ? NULL : &guard_pool.seat[guard];

    before = before != NULL && seat_was_used(before) ? before : NULL;
    behind = behind != NULL && seat_was_used(behind) ? behind : NULL;
    if (before == NULL || behind == NULL) {
        return before != NULL ? before : behind;
    }
    return address - (seat_object(before) + before->bytes) <=
                   seat_object(behind) - address
               ? before
               : behind;
}

static const char *const crime_after_free[] = {
    [GUARD_READ] = "use after free: read",
    [GUARD_WRITE] = "use after free: write",
    [GUARD_EXEC] = "use after free: execution",
};
static const char *const crime_over[] = {
    [GUARD_READ] = "overflow: read",
    [GUARD_WRITE] = "overflow: write",
    [GUARD_EXEC] = "overflow: execution",
};
static const char *const crime_under[] = {
    [GUARD_READ] = "underflow: read",
    [GUARD_WRITE] = "underflow: write",
    [GUARD_EXEC] = "underflow: execution",
};
static const char *const crime_nowhere[] = {
    [GUARD_READ] = "invalid read",
    [GUARD_WRITE] = "invalid write",
    [GUARD_EXEC] = "invalid execution",
};

static void report_beside(const struct seat *seat, vaddr_t address,
                          enum guard_access access, uintptr_t ip)
{
    if (seat == NULL) {
        guard_report_nowhere(crime_nowhere[access], address, ip);
    } else {
        guard_report(seat,
                     address < seat_object(seat) ? crime_under[access]
                                                 : crime_over[access],
                     address, ip);
    }
}

bool guard_fault(vaddr_t address, enum guard_access access, uintptr_t ip)
{
    if (!guard_holds((const void *)address)) {
        return false;
    }
    unsigned page = guard_page_index(address);
    if (guard_is_page(page)) {
        unsigned guard = (unsigned)min_u64(page / 2, GUARD_OBJECTS);
        report_beside(nearest(guard, address), address, access, ip);
        atomic_store_explicit(&guard_pool.is_bared[guard], true,
                              memory_order_relaxed);
    } else if (seat_state(&guard_pool.seat[page / 2]) == SEAT_LIVE) {
        return false; /* nothing has closed it: some other fault */
    } else if (seat_was_used(&guard_pool.seat[page / 2])) {
        guard_report(&guard_pool.seat[page / 2], crime_after_free[access],
                     address, ip);
    } else {
        guard_report_nowhere(crime_nowhere[access], address, ip);
    }
    guard_pool.pages->open(align_down(address, PAGE_BYTES));
    return true;
}

/* --- looking -------------------------------------------------------------- */

static void describe(const struct seat *seat, struct guard_object *out)
{
    *out = (struct guard_object){
        .start = seat_object(seat),
        .bytes = seat->bytes,
        .name = seat_name(seat),
        .is_live = seat_state(seat) == SEAT_LIVE,
        .alloc_site = seat->alloc_site,
        .free_site = seat->free_site,
        .alloc_cpu = seat->alloc_cpu,
        .free_cpu = seat->free_cpu,
    };
}

bool guard_look(unsigned index, struct guard_object *out)
{
    if (index >= GUARD_OBJECTS || counted(&guard_bytes) == 0 ||
        !seat_was_used(&guard_pool.seat[index])) {
        return false;
    }
    describe(&guard_pool.seat[index], out);
    return true;
}

bool guard_find(vaddr_t address, struct guard_object *out)
{
    if (!guard_holds((const void *)address)) {
        return false;
    }
    unsigned page = guard_page_index(address);
    const struct seat *seat =
        guard_is_page(page)
            ? nearest((unsigned)min_u64(page / 2, GUARD_OBJECTS), address)
            : &guard_pool.seat[page / 2];
    return seat != NULL && guard_look(seat_index(seat), out);
}

bool guard_find_live(const struct slab_pool *pool, struct guard_object *out)
{
    for (unsigned i = 0; i < GUARD_OBJECTS; i++) {
        if (guard_pool.seat[i].pool == pool && guard_look(i, out) &&
            out->is_live) {
            return true;
        }
    }
    return false;
}

void guard_stats(struct guard_stats *out)
{
    bool has_pool = counted(&guard_bytes) != 0;
    uint64_t irq = lock_acquire(&guard_pool.lock);
    uint64_t freed = 0;

    for (unsigned i = 0; has_pool && i < GUARD_OBJECTS; i++) {
        freed += seat_state(&guard_pool.seat[i]) == SEAT_FREED;
    }
    *out = (struct guard_stats){
        .interval =
            atomic_load_explicit(&guard_pool.interval, memory_order_relaxed),
        .start = has_pool ? guard_pool_start() : 0,
        .bytes = counted(&guard_bytes),
        .live = guard_pool.live,
        .freed = freed,
        .samples = counted(&guard_pool.samples),
        .passed = counted(&guard_pool.passed),
        .found = counted(&guard_pool.found),
    };
    lock_release(&guard_pool.lock, irq);
}

static bool check_seat(const struct seat *seat)
{
    const uint8_t *bad;
    const char *damage = guard_find_damage(seat, &bad);

    CHECK_OR_FAIL(seat->offset + seat->bytes <= PAGE_BYTES && // I4
                      (seat->pool == NULL ||
                       is_aligned(seat->offset, seat->pool->alignment)),
                  "guarded object 0x%lx of %u bytes is out of place",
                  (unsigned long)seat_object(seat), seat->bytes);
    CHECK_OR_FAIL(damage == NULL,
                  "%s at 0x%lx; guarded object 0x%lx of %u bytes, allocated "
                  "by %p",
                  damage, (unsigned long)bad, (unsigned long)seat_object(seat),
                  seat->bytes, (void *)seat->alloc_site);
    return true;
}

/* Seats on the list; more than there are if it is a circle. */
static unsigned count_listed_locked(void)
{
    unsigned listed = 0;

    for (unsigned i = guard_pool.first;
         i != SEAT_NONE && listed <= GUARD_OBJECTS;
         i = guard_pool.seat[i].next) {
        listed++;
    }
    return listed;
}

bool guard_check(void)
{
    if (counted(&guard_bytes) == 0) {
        return true;
    }
    uint64_t irq = lock_acquire(&guard_pool.lock);
    unsigned listed = count_listed_locked();
    uint32_t out = guard_pool.live;
    lock_release(&guard_pool.lock, irq);

    CHECK_OR_FAIL(listed + out == GUARD_OBJECTS, // I1, I2
                  "%u free seats and %u live of %u guarded objects", listed,
                  out, GUARD_OBJECTS);
    for (unsigned i = 0; i < GUARD_OBJECTS; i++) {
        if (seat_state(&guard_pool.seat[i]) == SEAT_LIVE &&
            !check_seat(&guard_pool.seat[i])) {
            return false;
        }
    }
    return true;
}
