/* SPDX-License-Identifier: MIT */
/* guard: one allocation in N lies between pages that nobody may touch. */
/*
 * Owns: the pool's seats, and what is known of the objects in them.
 *
 * Idea: after KFENCE [Kfence20]. Patterns around objects find a crime when the
 * object is freed, and cost every allocation. A page that cannot be touched
 * finds it at the instruction that commits it, and costs only the allocation
 * that has it. One in N is enough where a program runs long or often: with the
 * same crime in many places or runs, one of them meets a guarded object.
 *
 * Picture, pages of the pool; # nobody may touch:
 *
 *   page   0     1     2     3     4     5     6        509   510   511
 *        #####[   ooo]#####[ooo   ]###########[...  ...   ]##### #####
 *              seat 0       seat 1       seat 2 (free)
 *
 * An object stands at an edge of its page, mostly the upper one: a step over
 * it is a fault. On its other side, and where its alignment leaves a gap,
 * are bytes of a pattern, which are looked at when it is freed. Its page is
 * closed then, and seats are used again in turn, so that it stays closed for
 * as long as there are others.
 *
 * A pool that is full finds nothing more. What lives long fills it with time,
 * so when there is little room left, a call site that has a guarded object
 * already gets no other.
 *
 * Invariants:
 *   I1  UNUSED and FREED seats are those on the list, the longest there first
 *   I2  live is the number of the others
 *   I3  seen[] counts live objects by a hash of who allocated them
 *   I4  an object lies in the page of its seat, at the alignment of its cache
 *   I5  the pool of a FREED seat was its object's, and is NULL if its cache is
 *       gone; that of others is its object's
 *
 * Locking: one lock for the list, the counts and what is known of objects,
 * innermost in the heap. Pages are opened and closed outside it, by who has
 * made a seat MAKING or GOING and has it for himself.
 *
 * Cost: two visits to the page tables for an object, and its patterns.
 *
 * Limits: reads beside an object that stay in its page are not seen; see
 * guard_fault() for other CPUs.
 */
#include "heap/guard_impl.h"

#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"
#include "heap/poison.h"

/* The pattern on each side of an object; a fault sees what goes further. */
#define PATTERN       POISON_TAIL
#define PATTERN_BYTES UINT64_C(128)

/* One object in so many stands at the lower edge of its page. */
#define LOW_EDGE_IN 4

/* With this many live, who has one gets no second. */
#define CROWDED (GUARD_OBJECTS * 3 / 4)

_Atomic vaddr_t guard_start;
_Atomic uint64_t guard_bytes;
struct guard_pool guard_pool = {.lock = LOCK_INIT(LOCK_RANK_GUARD)};

/* --- the pattern ---------------------------------------------------------- */

/* The bytes around the object that are looked at when it is freed. */
struct fence {
    uint8_t *low; /* to the object */
    uint8_t *object;
    uint8_t *end; /* of the object, to high */
    uint8_t *high;
};

static struct fence fence_of(const struct seat *seat)
{
    vaddr_t page = seat_page(seat);
    vaddr_t object = seat_object(seat);
    vaddr_t end = object + seat->bytes;

    return (struct fence){
        .low = (uint8_t *)max_u64(page, object - PATTERN_BYTES),
        .object = (uint8_t *)object,
        .end = (uint8_t *)end,
        .high = (uint8_t *)min_u64(page + PAGE_BYTES, end + PATTERN_BYTES),
    };
}

static void draw_fence(const struct seat *seat)
{
    struct fence fence = fence_of(seat);

    memset(fence.low, PATTERN, (size_t)(fence.object - fence.low));
    memset(fence.end, PATTERN, (size_t)(fence.high - fence.end));
}

/* poison_is_intact(), by words where that can be. */
static bool is_intact(const uint8_t *start, const uint8_t *end,
                      const uint8_t **out_bad)
{
    const uint64_t word = UINT64_C(0x0101010101010101) * PATTERN;
    const uint8_t *at = start;

    if (is_aligned((vaddr_t)start, sizeof(word))) {
        while (end - at >= (ptrdiff_t)sizeof(word) &&
               *(const uint64_t *)(const void *)at == word) {
            at += sizeof(word);
        }
    }
    return poison_is_intact(at, end, PATTERN, out_bad);
}

const char *guard_find_damage(const struct seat *seat, const uint8_t **out_bad)
{
    struct fence fence = fence_of(seat);

    if (!is_intact(fence.end, fence.high, out_bad)) {
        return "overflow: write";
    }
    if (!is_intact(fence.low, fence.object, out_bad)) {
        return "underflow: write";
    }
    return NULL;
}

/* --- seats ---------------------------------------------------------------- */

static uint8_t *seen_of(uintptr_t site)
{
    return &guard_pool.seen[(site ^ (site >> 8)) % SEEN_SLOTS];
}

static bool is_crowded_locked(uintptr_t site)
{
    return guard_pool.live >= CROWDED && *seen_of(site) > 0;
}

/* Where in its page an object of @bytes stands. */
static uint16_t place(const struct slab_pool *pool, uint64_t bytes)
{
    if (counted(&guard_pool.samples) % LOW_EDGE_IN == LOW_EDGE_IN - 1) {
        return 0;
    }
    return (uint16_t)align_down(PAGE_BYTES - bytes, pool->alignment);
}

/* The seat free longest, MAKING one of @pool's; NULL if there is none. */
static struct seat *take_seat(const struct slab_pool *pool, uint64_t bytes,
                              uintptr_t site)
{
    struct seat *seat = NULL;
    uint64_t irq = lock_acquire(&guard_pool.lock);

    if (guard_pool.has_seats && guard_pool.first != SEAT_NONE &&
        !is_crowded_locked(site)) {
        seat = &guard_pool.seat[guard_pool.first];
        guard_pool.first = seat->next;
        seat->offset = place(pool, bytes);
        seat->bytes = (uint16_t)bytes;
        seat->alloc_cpu = (uint16_t)port_cpu();
        seat->alloc_site = site;
        seat->free_site = 0;
        seat->free_cpu = 0;
        seat->pool = pool; /* before the old one's cache can go: I5 */
        seat_set_state(seat, SEAT_MAKING);
        guard_pool.live++;
        (*seen_of(site))++;
    }
    lock_release(&guard_pool.lock, irq);
    return seat;
}

/* The object is gone, its page closed. */
static void give_seat(struct seat *seat)
{
    uint64_t irq = lock_acquire(&guard_pool.lock);

    seat->next = SEAT_NONE;
    if (guard_pool.first == SEAT_NONE) {
        guard_pool.first = (uint16_t)seat_index(seat);
    } else {
        guard_pool.seat[guard_pool.last].next = (uint16_t)seat_index(seat);
    }
    guard_pool.last = (uint16_t)seat_index(seat);
    seat_set_state(seat, SEAT_FREED);
    guard_pool.live--;
    (*seen_of(seat->alloc_site))--;
    lock_release(&guard_pool.lock, irq);
}

/* --- allocation ----------------------------------------------------------- */

/* Another number each time, evenly spread, but the same in each run. */
static uint32_t scatter(void)
{
    uint32_t draw =
        atomic_fetch_add_explicit(&guard_pool.draws, 1, memory_order_relaxed);

    return draw * UINT32_C(2654435769); /* 2^32 / golden ratio */
}

uint32_t guard_interval(void)
{
    uint64_t mean =
        atomic_load_explicit(&guard_pool.interval, memory_order_relaxed);

    if (mean == 0) {
        return 0;
    }
    /* From half of it to one and a half. */
    return (uint32_t)((mean + 1) / 2 + ((mean * scatter()) >> 32));
}

static bool fits(const struct slab_pool *pool)
{
    return pool->object_bytes <= PAGE_BYTES && pool->alignment <= PAGE_BYTES;
}

/* If a report has opened it. */
static void close_guard(unsigned page)
{
    _Atomic bool *is_bared = &guard_pool.is_bared[page];

    /* Acquire: pairs with guard_fault(), which has opened it before. */
    if (MM_UNLIKELY(atomic_load_explicit(is_bared, memory_order_acquire)) &&
        atomic_exchange_explicit(is_bared, false, memory_order_acquire)) {
        guard_pool.pages->close(guard_pool_start() + page * PAGE_BYTES);
    }
}

/* Those beside the seat; the last one has the pool's last page, too. */
static void close_guards(const struct seat *seat)
{
    unsigned page = guard_page_index(seat_page(seat));

    close_guard(page - 1);
    close_guard(page + 1);
    if (guard_is_page(page + 2)) {
        close_guard(page + 2);
    }
}

void *guard_alloc(const struct slab_pool *pool, uint64_t bytes, uintptr_t site)
{
    ASSERT(bytes > 0 && bytes <= pool->object_bytes);
    struct seat *seat = fits(pool) ? take_seat(pool, bytes, site) : NULL;

    if (seat == NULL) {
        count(&guard_pool.passed);
        return NULL;
    }
    count(&guard_pool.samples);
    close_guards(seat);
    guard_pool.pages->open(seat_page(seat));
    draw_fence(seat);
    void *object = (void *)seat_object(seat);
    if (pool->constructor != NULL) {
        pool->constructor(object);
    }
    seat_set_state(seat, SEAT_LIVE);
    return object;
}

/* --- freeing -------------------------------------------------------------- */

/* What is wrong with freeing the live object of @seat so, NULL if nothing. */
static const char *find_misuse(const struct seat *seat, const void *object,
                               const struct slab_pool *expected)
{
    if ((vaddr_t)object != seat_object(seat)) {
        return "free of an interior pointer";
    }
    return pool_is_expected(expected, seat->pool) ? NULL
                                                  : "free to the wrong cache";
}

/* What is wrong with freeing @object so; NULL, and nothing in @out: nothing. */
static const char *judge_locked(const struct seat *seat, const void *object,
                                const struct slab_pool *expected,
                                struct guard_object *out)
{
    const char *crime = seat_state(seat) == SEAT_LIVE
                            ? find_misuse(seat, object, expected)
                            : "double free";

    if (MM_UNLIKELY(crime != NULL)) {
        guard_describe_locked(seat, out);
    }
    return crime;
}

/* The same; if nothing is, the seat is GOING, for one alone. */
static const char *claim(struct seat *seat, const void *object,
                         const struct slab_pool *expected, uintptr_t site,
                         struct guard_object *out)
{
    uint64_t irq = lock_acquire(&guard_pool.lock);
    const char *crime = judge_locked(seat, object, expected, out);

    if (crime == NULL) {
        seat->free_site = site;
        seat->free_cpu = (uint16_t)port_cpu();
        seat_set_state(seat, SEAT_GOING);
    }
    lock_release(&guard_pool.lock, irq);
    return crime;
}

/* Whose object was overwritten, and is GOING. */
static void report_damage(const struct seat *seat, const char *damage,
                          const uint8_t *bad, uintptr_t site)
{
    struct guard_object seen;
    uint64_t irq = lock_acquire(&guard_pool.lock);

    guard_describe_locked(seat, &seen);
    lock_release(&guard_pool.lock, irq);
    guard_report(&seen, damage, (vaddr_t)bad, site);
}

/* @object lies in the page of @seat. */
static void free_in(struct seat *seat, const void *object,
                    const struct slab_pool *expected, uintptr_t site)
{
    const uint8_t *bad = object;
    struct guard_object seen;

    if (!seat_was_used(seat)) {
        guard_report_nowhere("free", (vaddr_t)object, site, GUARD_NEVER_USED);
        return;
    }
    const char *crime = claim(seat, object, expected, site, &seen);
    if (crime != NULL) {
        guard_report(&seen, crime, (vaddr_t)object, site);
        return;
    }
    const char *damage = guard_find_damage(seat, &bad);
    if (damage != NULL) {
        report_damage(seat, damage, bad, site);
    }
    guard_pool.pages->close(seat_page(seat));
    give_seat(seat);
}

bool guard_free(void *object, const struct slab_pool *expected, uintptr_t site)
{
    if (!guard_holds(object)) {
        return false;
    }
    struct seat *seat = guard_seat_at((vaddr_t)object);
    if (seat == NULL) {
        guard_report_nowhere("free", (vaddr_t)object, site, GUARD_NEVER_USED);
    } else {
        free_in(seat, object, expected, site);
    }
    return true;
}

/* --- what the heap asks --------------------------------------------------- */

/* judge_locked() of what need not lie in the page of a seat. */
static const char *judge_block(const struct seat *seat, const void *object,
                               struct guard_object *out)
{
    uint64_t irq = lock_acquire(&guard_pool.lock);
    const char *crime = judge_locked(seat, object, NULL, out);

    lock_release(&guard_pool.lock, irq);
    return crime;
}

uint64_t guard_size(const void *object)
{
    const struct seat *seat =
        guard_holds(object) ? guard_seat_at((vaddr_t)object) : NULL;
    struct guard_object seen;

    /* Who has the object reads its seat without the lock. */
    return seat != NULL && judge_block(seat, object, &seen) == NULL
               ? seat->bytes
               : 0;
}

void guard_report_block(const void *object, uintptr_t site)
{
    const struct seat *seat = guard_seat_at((vaddr_t)object);
    struct guard_object seen;

    if (seat == NULL || !seat_was_used(seat)) {
        guard_report_nowhere("free", (vaddr_t)object, site, GUARD_NEVER_USED);
        return;
    }
    const char *crime = judge_block(seat, object, &seen);
    if (crime != NULL) {
        guard_report(&seen, crime, (vaddr_t)object, site);
    }
}

unsigned guard_count_live(const struct slab_pool *pool)
{
    unsigned found_live = 0;
    uint64_t irq = lock_acquire(&guard_pool.lock);

    for (unsigned i = 0; i < GUARD_OBJECTS; i++) {
        enum seat_state state = seat_state(&guard_pool.seat[i]);
        found_live += state != SEAT_UNUSED && state != SEAT_FREED &&
                      guard_pool.seat[i].pool == pool;
    }
    lock_release(&guard_pool.lock, irq);
    return found_live;
}

void guard_forget(const struct slab_pool *pool)
{
    uint64_t irq = lock_acquire(&guard_pool.lock);

    for (unsigned i = 0; i < GUARD_OBJECTS; i++) {
        if (guard_pool.seat[i].pool == pool) {
            guard_pool.seat[i].pool = NULL;
        }
    }
    lock_release(&guard_pool.lock, irq);
}

/* --- the pool comes and goes ---------------------------------------------- */

void guard_init(void)
{
    lock_init(&guard_pool.lock, LOCK_RANK_GUARD);
    atomic_init(&guard_bytes, 0);
    atomic_init(&guard_pool.interval, 0);
    atomic_init(&guard_pool.draws, 0);
    atomic_init(&guard_pool.samples, 0);
    atomic_init(&guard_pool.passed, 0);
    atomic_init(&guard_pool.found, 0);
    guard_pool.live = 0;
    guard_pool.has_seats = false;
}

void guard_attach(vaddr_t start, const struct guard_pages *how)
{
    ASSERT(counted(&guard_bytes) == 0);
    uint64_t irq = lock_acquire(&guard_pool.lock);

    for (unsigned i = 0; i < GUARD_OBJECTS; i++) {
        guard_pool.seat[i] = (struct seat){.next = (uint16_t)(i + 1)};
    }
    for (unsigned i = 0; i < 1 << GUARD_ORDER; i++) {
        atomic_init(&guard_pool.is_bared[i], false);
    }
    memset(guard_pool.seen, 0, sizeof(guard_pool.seen));
    guard_pool.first = 0;
    guard_pool.last = GUARD_OBJECTS - 1;
    guard_pool.live = 0;
    guard_pool.pages = how;
    atomic_store_explicit(&guard_start, start, memory_order_relaxed);
    atomic_store_explicit(&guard_bytes, POOL_BYTES, memory_order_release);
    lock_release(&guard_pool.lock, irq);
}

void guard_set_interval(uint32_t allocations)
{
    atomic_store_explicit(&guard_pool.interval, allocations,
                          memory_order_relaxed);
}

void guard_begin(void)
{
    uint64_t irq = lock_acquire(&guard_pool.lock);

    guard_pool.has_seats = true;
    lock_release(&guard_pool.lock, irq);
}

vaddr_t guard_retire(void)
{
    uint64_t irq = lock_acquire(&guard_pool.lock);
    vaddr_t start = 0;

    if (guard_pool.live == 0 && guard_pool.has_seats) {
        guard_pool.has_seats = false;
        start = guard_pool_start();
    }
    lock_release(&guard_pool.lock, irq);
    return start;
}

void guard_detach(void)
{
    uint64_t irq = lock_acquire(&guard_pool.lock);

    ASSERT(!guard_pool.has_seats);
    atomic_store_explicit(&guard_bytes, 0, memory_order_relaxed);
    lock_release(&guard_pool.lock, irq);
}
