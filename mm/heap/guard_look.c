/* SPDX-License-Identifier: MIT */
/* guard_look: faults in the guards' pool, reports, and what is in it. */
/*
 * Locking: what is said of an object is read under the pool's lock, and
 * printed without it: it may have changed by then. A report opens the page of
 * an object under the lock, so that the page of a new object is not touched.
 */
#include "heap/guard_impl.h"

#include "base/bits.h"
#include "base/check.h"

/* --- words ---------------------------------------------------------------- */

void guard_describe_locked(const struct seat *seat, struct guard_object *out)
{
    *out = (struct guard_object){
        .start = seat_object(seat),
        .bytes = seat->bytes,
        .name = seat->pool == NULL ? "?" : seat->pool->name,
        .is_live = seat_state(seat) == SEAT_LIVE,
        .alloc_site = seat->alloc_site,
        .free_site = seat->free_site,
        .alloc_cpu = seat->alloc_cpu,
        .free_cpu = seat->free_cpu,
    };
}

void guard_report(const struct guard_object *object, const char *crime,
                  vaddr_t address, uintptr_t site)
{
    count(&guard_pool.found);
    port_bug("%s at 0x%lx (offset %d) by %p; guarded object 0x%lx (%u bytes, "
             "cache %s), allocated by %p on CPU %u, freed by %p on CPU %u",
             crime, (unsigned long)address, (int)(address - object->start),
             (void *)site, (unsigned long)object->start,
             (unsigned)object->bytes, object->name, (void *)object->alloc_site,
             object->alloc_cpu, (void *)object->free_site, object->free_cpu);
}

void guard_report_nowhere(const char *crime, vaddr_t address, uintptr_t site,
                          const char *why)
{
    count(&guard_pool.found);
    port_bug("%s at 0x%lx by %p: in the pool of guarded objects, page %u, %s",
             crime, (unsigned long)address, (void *)site,
             guard_page_index(address), why);
}

/* --- faults --------------------------------------------------------------- */

/*
 * The seat of the object that an access to guard page @page was meant for: the
 * nearer one of its neighbours; NULL if there was never any.
 */
static const struct seat *nearest_locked(unsigned page, vaddr_t address)
{
    unsigned guard = (unsigned)min_u64(page / 2, GUARD_OBJECTS);
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

static void report_beside(unsigned page, vaddr_t address,
                          enum guard_access access, uintptr_t ip)
{
    struct guard_object seen;
    uint64_t irq = lock_acquire(&guard_pool.lock);
    const struct seat *seat = nearest_locked(page, address);

    if (seat != NULL) {
        guard_describe_locked(seat, &seen);
    }
    lock_release(&guard_pool.lock, irq);
    if (seat == NULL) {
        guard_report_nowhere(crime_nowhere[access], address, ip,
                             GUARD_NEVER_USED);
    } else {
        guard_report(&seen,
                     address < seen.start ? crime_under[access]
                                          : crime_over[access],
                     address, ip);
    }
}

/* Is the page open, and does not allow @access still: execution? */
static bool is_refused(vaddr_t page, enum guard_access access)
{
    return guard_pool.pages->allows(page, GUARD_READ) &&
           !guard_pool.pages->allows(page, access);
}

static bool fault_beside(unsigned page, vaddr_t address,
                         enum guard_access access, uintptr_t ip)
{
    if (is_refused(align_down(address, PAGE_BYTES), access)) {
        return false;
    }
    report_beside(page, address, access, ip);
    guard_pool.pages->open(align_down(address, PAGE_BYTES));
    /* Release: pairs with close_guards(), which closes what it finds open. */
    atomic_store_explicit(&guard_pool.is_bared[page], true,
                          memory_order_release);
    return true;
}

static bool is_in_use(enum seat_state state)
{
    return state == SEAT_MAKING || state == SEAT_LIVE;
}

/*
 * Let the access be tried again. That of a live object is open; one that is
 * MAKING is about to be, but perhaps by whom this fault has interrupted.
 */
static void open_freed(const struct seat *seat)
{
    uint64_t irq = lock_acquire(&guard_pool.lock);

    if (seat_state(seat) != SEAT_LIVE) {
        guard_pool.pages->open(seat_page(seat));
    }
    lock_release(&guard_pool.lock, irq);
}

/*
 * The page was closed when it was touched. By now its seat may have another
 * object, which has nothing to do with it.
 */
static bool fault_inside(const struct seat *seat, vaddr_t address,
                         enum guard_access access, uintptr_t ip)
{
    struct guard_object seen;
    uint64_t irq = lock_acquire(&guard_pool.lock);
    enum seat_state state = seat_state(seat);

    /* No guard has closed it: some other fault. */
    bool is_foreign = state == SEAT_LIVE
                          ? !guard_pool.pages->allows(seat_page(seat), access)
                          : is_refused(seat_page(seat), access);

    guard_describe_locked(seat, &seen);
    lock_release(&guard_pool.lock, irq);
    if (is_foreign) {
        return false;
    }
    if (is_in_use(state)) {
        guard_report_nowhere(crime_after_free[access], address, ip,
                             "whose object has made room for another");
    } else if (state == SEAT_UNUSED) {
        guard_report_nowhere(crime_nowhere[access], address, ip,
                             GUARD_NEVER_USED);
    } else {
        guard_report(&seen, crime_after_free[access], address, ip);
    }
    open_freed(seat);
    return true;
}

bool guard_fault(vaddr_t address, enum guard_access access, uintptr_t ip)
{
    if (!guard_holds((const void *)address)) {
        return false;
    }
    const struct seat *seat = guard_seat_at(address);
    if (seat != NULL) {
        return fault_inside(seat, address, access, ip);
    }
    return fault_beside(guard_page_index(address), address, access, ip);
}

/* --- looking -------------------------------------------------------------- */

bool guard_look(unsigned index, struct guard_object *out)
{
    if (index >= GUARD_OBJECTS || counted(&guard_bytes) == 0 ||
        !seat_was_used(&guard_pool.seat[index])) {
        return false;
    }
    uint64_t irq = lock_acquire(&guard_pool.lock);
    guard_describe_locked(&guard_pool.seat[index], out);
    lock_release(&guard_pool.lock, irq);
    return true;
}

bool guard_find(vaddr_t address, struct guard_object *out)
{
    if (!guard_holds((const void *)address)) {
        return false;
    }
    const struct seat *seat = guard_seat_at(address);
    if (seat == NULL) {
        uint64_t irq = lock_acquire(&guard_pool.lock);
        seat = nearest_locked(guard_page_index(address), address);
        lock_release(&guard_pool.lock, irq);
    }
    return seat != NULL && guard_look(seat_index(seat), out);
}

bool guard_find_live(const struct slab_pool *pool, struct guard_object *out)
{
    bool is_found = false;
    uint64_t irq = lock_acquire(&guard_pool.lock);

    for (unsigned i = 0; i < GUARD_OBJECTS && !is_found; i++) {
        const struct seat *seat = &guard_pool.seat[i];
        is_found = seat->pool == pool && seat_state(seat) == SEAT_LIVE;
        if (is_found) {
            guard_describe_locked(seat, out);
        }
    }
    lock_release(&guard_pool.lock, irq);
    return is_found;
}

void guard_stats(struct guard_stats *out)
{
    uint64_t irq = lock_acquire(&guard_pool.lock);
    uint64_t bytes = counted(&guard_bytes);
    uint64_t freed = 0;

    for (unsigned i = 0; bytes > 0 && i < GUARD_OBJECTS; i++) {
        freed += seat_state(&guard_pool.seat[i]) == SEAT_FREED;
    }
    *out = (struct guard_stats){
        .interval =
            atomic_load_explicit(&guard_pool.interval, memory_order_relaxed),
        .start = bytes > 0 ? guard_pool_start() : 0,
        .bytes = bytes,
        .live = guard_pool.live,
        .freed = freed,
        .samples = counted(&guard_pool.samples),
        .passed = counted(&guard_pool.passed),
        .found = counted(&guard_pool.found),
    };
    lock_release(&guard_pool.lock, irq);
}

/* Under the lock a live object stays, and with it its page is open. */
static bool check_seat_locked(const struct seat *seat)
{
    const uint8_t *bad;

    if (seat_state(seat) != SEAT_LIVE) {
        return true;
    }
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
    bool is_sound = true;
    for (unsigned i = 0; i < GUARD_OBJECTS && is_sound; i++) {
        irq = lock_acquire(&guard_pool.lock);
        is_sound = check_seat_locked(&guard_pool.seat[i]);
        lock_release(&guard_pool.lock, irq);
    }
    return is_sound;
}
