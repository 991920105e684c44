/* SPDX-License-Identifier: MIT */
/* Tests of what this kernel does for the frame allocator. */
/*
 * At risk: memory that the heap keeps while others go without, frames said to
 * be zero that are not, RAM that cannot leave a machine at work, or is used
 * after it has. Provoked with the kernel's own hooks, idle loops and all CPUs.
 */
#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/shrink.h>
#include <mm/slab.h>
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/smp.h"
#include "tests/kernel/crew.h"
#include "tests/kernel/hoard.h"
#include "tests/shared/figures.h"

/* Turns of waiting for an idle CPU. */
#define PATIENCE 100000

/* With so many frames for each CPU there are trees where nobody sits. */
#define RICH_FRAMES 8192

#define BLOCKS      64
#define BLOCK_BYTES (4 * KiB)

static struct frame_stats before;

static void look(void)
{
    kmap_purge(); /* else a reclaim may give back more than was taken */
    slab_drain();
    note_frames(&before);
}

static void nothing_is_lost(void)
{
    slab_drain();
    compare_frames(&before);
}

static _Atomic bool is_over; /* others may end what they do */

static void nothing(void *argument)
{
    (void)argument;
}

static bool is_rich(void)
{
    return before.managed >= RICH_FRAMES * smp_possible();
}

/* --- reclaim -------------------------------------------------------------- */

/* Objects that nobody uses: the heap keeps some of them, and a slab. */
static bool fill_heap(void)
{
    void *block[BLOCKS];
    unsigned count = 0;

    while (count < BLOCKS && (block[count] = kmalloc(BLOCK_BYTES)) != NULL) {
        count++;
    }
    for (unsigned i = 0; i < count; i++) {
        kfree(block[i]);
    }
    return count == BLOCKS;
}

TEST(shortage, the_heap_gives_back_what_it_keeps)
{
    struct hoard hoard;

    if (!hoard_is_wanted()) {
        return;
    }
    CHECK_HELPER(look());
    CHECK(fill_heap());
    hoard_init(&hoard);
    hoard_take_all(&hoard, hoard_order());
    pfn_t without = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    pfn_t with = frame_alloc(0, FRAME_KERNEL, FRAME_MAY_RECLAIM);
    if (!pfn_is_none(with)) {
        frame_free(with, 0);
    }
    hoard_free(&hoard);
    CHECK(pfn_is_none(without));
    CHECK(!pfn_is_none(with));
    struct frame_stats now;
    frame_stats(&now);
    CHECK(now.reclaims > before.reclaims);
    CHECK_HELPER(nothing_is_lost());
}

/* Drained while it makes a slab: what is in hand stays whole. */
TEST(shortage, the_heap_reclaims_from_itself)
{
    struct frame_stats now;
    struct hoard hoard;
    void *block[BLOCKS];

    if (!hoard_is_wanted()) {
        return;
    }
    CHECK_HELPER(look());
    void *first = kmalloc(BLOCK_BYTES / 2); /* it has a magazine now */
    CHECK(first != NULL && fill_heap());
    hoard_init(&hoard);
    hoard_take_all(&hoard, hoard_order());
    /* From a class with a magazine, which is refilled, and drained meanwhile.
     */
    unsigned count = 0;
    while (count < BLOCKS &&
           (block[count] = kmalloc(BLOCK_BYTES / 2)) != NULL) {
        count++;
    }
    bool is_sound = slab_check();
    for (unsigned i = 0; i < count; i++) {
        kfree(block[i]);
    }
    kfree(first);
    hoard_free(&hoard);
    frame_stats(&now);
    CHECK(count > 0);
    CHECK(is_sound && slab_check());
    CHECK(now.reclaims > before.reclaims);
    CHECK_HELPER(nothing_is_lost());
}

static void fill_on_another(void *argument)
{
    *(bool *)argument = fill_heap();
}

/* Objects in the magazines of a CPU that has nothing to do with it. */
TEST(shortage, magazines_of_another_cpu_come_back)
{
    unsigned other = smp_first_other();
    struct shrink_info info;
    struct hoard hoard;
    bool success = false;

    if (other == smp_possible() || !hoard_is_wanted()) {
        return;
    }
    CHECK_HELPER(look());
    CHECK_EQUAL(smp_call(other, fill_on_another, &success), MM_OK);
    CHECK(success && shrink_look(0, &info));
    slab_drain();
    CHECK(frames_of(FRAME_SLAB) > before.by_type[FRAME_SLAB]);
    hoard_init(&hoard);
    hoard_take_all(&hoard, hoard_order());
    pfn_t without = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    pfn_t with = frame_alloc(0, FRAME_KERNEL, FRAME_MAY_RECLAIM);
    uint64_t slabs = frames_of(FRAME_SLAB);
    if (!pfn_is_none(with)) {
        frame_free(with, 0);
    }
    hoard_free(&hoard);
    CHECK(pfn_is_none(without));
    CHECK(!pfn_is_none(with));
    CHECK(slabs <= before.by_type[FRAME_SLAB]);
    uint64_t freed = info.freed;
    CHECK(shrink_look(0, &info) && info.freed > freed);
    CHECK_HELPER(nothing_is_lost());
}

TEST(shortage, idle_cpus_give_back_when_it_is_low)
{
    unsigned other = smp_first_other();
    struct frame_stats now;
    bool success = false;

    if (other == smp_possible()) {
        return;
    }
    CHECK_HELPER(look());
    CHECK_EQUAL(smp_call(other, fill_on_another, &success), MM_OK);
    CHECK(success);
    frame_stats(&now);
    CHECK(now.by_type[FRAME_SLAB] > before.by_type[FRAME_SLAB]);
    const struct frame_watermarks low = {0, now.free, now.managed};
    const struct frame_watermarks none = {0};
    CHECK_EQUAL(frame_set_watermarks(&low), MM_OK);
    idle_resume();
    pfn_t pfn = frame_alloc(1, FRAME_KERNEL, FRAME_ANY); /* wakes them */
    for (unsigned i = 0; i < PATIENCE; i++) {
        slab_drain();
        frame_stats(&now);
        if (now.by_type[FRAME_SLAB] <= before.by_type[FRAME_SLAB]) {
            break;
        }
        cpu_irq_window();
    }
    idle_suspend();
    CHECK_EQUAL(frame_set_watermarks(&none), MM_OK);
    if (!pfn_is_none(pfn)) {
        frame_free(pfn, 1);
    }
    CHECK(now.by_type[FRAME_SLAB] <= before.by_type[FRAME_SLAB]);
    CHECK_HELPER(nothing_is_lost());
}

#define ASKS 1000

/* Who keeps asking finds those awake that it has woken, or with nothing. */
TEST(shortage, who_has_nothing_to_give_is_left_asleep)
{
    unsigned others = crew_others();
    uint64_t woken = 0;

    CHECK_HELPER(look());
    crew_run(nothing, NULL); /* from now on they may have something */
    idle_resume();
    for (unsigned i = 0; i < ASKS; i++) {
        woken += idle_ask_for_memory();
        for (unsigned turn = 0; turn < ASKS / 10; turn++) {
            cpu_irq_window();
        }
    }
    idle_suspend();
    CHECK(woken <= others * (ASKS / 10));
    CHECK_HELPER(nothing_is_lost());
}

#define MARGIN 512 /* frames that others can have, fewer than a block */
#define ROUNDS 100

/* Slabs come and go. */
static void use_heap(void *argument)
{
    (void)argument;
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        (void)fill_heap();
        cpu_pause(); /* under -icount the others get no turn without */
    }
    slab_drain();
}

/* Have the heap keep a slab that only a drain of this CPU sets free. */
static bool keep_slab(struct slab_cache *cache)
{
    void *object = slab_alloc(cache);

    slab_free(cache, object);
    return object != NULL;
}

/* Fail to get a block that a mark bars. How often was reclaim asked? */
static uint64_t count_reclaims(void)
{
    uint64_t reclaims = figures().reclaims;
    pfn_t pfn = frame_alloc(MM_MAX_ORDER, FRAME_KERNEL, FRAME_MAY_RECLAIM);

    if (!pfn_is_none(pfn)) {
        frame_free(pfn, MM_MAX_ORDER);
    }
    return figures().reclaims - reclaims;
}

/*
 * When something came back it is tried again, whatever another CPU has taken
 * meanwhile; the mark does not bar the few frames that it takes.
 */
TEST(shortage, what_others_take_is_not_held_against_reclaim)
{
    unsigned other = smp_first_other();
    const struct frame_watermarks none = {0};
    uint64_t given_up = 0;

    CHECK_HELPER(look());
    if (other == smp_possible() || !is_rich()) {
        return;
    }
    struct slab_cache *cache = slab_create("kept", BLOCK_BYTES, 0, NULL);
    CHECK(cache != NULL);
    uint64_t mark = figures().free - MARGIN;
    const struct frame_watermarks marks = {mark, mark, mark};
    CHECK_EQUAL(frame_set_watermarks(&marks), MM_OK);
    is_over = false;
    enum mm_status status = smp_run(other, use_heap, NULL);
    for (unsigned i = 0; i < ROUNDS && status == MM_OK; i++) {
        given_up += keep_slab(cache) && count_reclaims() < 2 ? 1 : 0;
    }
    atomic_store_explicit(&is_over, true, memory_order_relaxed);
    smp_wait(other);
    CHECK_EQUAL(frame_set_watermarks(&none), MM_OK);
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK_EQUAL(status, MM_OK);
    CHECK_EQUAL(given_up, 0);
    CHECK_HELPER(nothing_is_lost());
}

/* --- cleared ahead -------------------------------------------------------- */

/* Frames that come next are dirty. */
static void make_dirty(struct hoard *hoard, unsigned count)
{
    hoard_init(hoard);
    while (hoard->blocks < count && hoard_take(hoard, 0)) {
        *(uint64_t *)phys_to_virt(pfn_to_phys(hoard->last)) = UINT64_MAX;
    }
    hoard_free(hoard);
}

TEST(shortage, frames_cleared_ahead_are_zero)
{
    struct frame_stats now;
    struct hoard hoard;
    pfn_t zeroed[16];
    unsigned zero = 0;

    CHECK_HELPER(look());
    make_dirty(&hoard, 256);
    idle_resume();
    while (idle_work()) {
    }
    idle_suspend();
    frame_stats(&now);
    CHECK(now.zeroed >= 16);
    CHECK(now.zeroed_filled > 0);
    for (unsigned i = 0; i < 16; i++) {
        zeroed[i] = frame_alloc(0, FRAME_KERNEL, FRAME_ZEROED);
        CHECK(!pfn_is_none(zeroed[i]));
        zero += frames_are_zero(zeroed[i], 1) ? 1 : 0;
    }
    struct frame_stats after;
    frame_stats(&after);
    for (unsigned i = 0; i < 16; i++) {
        frame_free(zeroed[i], 0);
    }
    CHECK_EQUAL(zero, 16);
    CHECK_EQUAL(after.zeroed, now.zeroed - 16);
    CHECK_EQUAL(after.zeroed_hits, now.zeroed_hits + 16);
    CHECK_EQUAL(after.zeroed_misses, now.zeroed_misses);
    CHECK_HELPER(nothing_is_lost());
}

TEST(shortage, idle_cpus_clear_frames)
{
    struct frame_stats now;

    CHECK_HELPER(look());
    if (crew_others() == 0 || !is_rich()) {
        return; /* what they could clear would be taken from others */
    }
    crew_run(nothing, NULL); /* they wake, and will be idle again */
    frame_drain();
    frame_stats(&before);
    idle_resume();
    idle_ask_for_memory();
    for (unsigned i = 0; i < PATIENCE; i++) {
        frame_stats(&now);
        if (now.zeroed_filled > before.zeroed_filled) {
            break;
        }
        cpu_irq_window();
    }
    idle_suspend();
    CHECK(now.zeroed_filled > before.zeroed_filled);
    CHECK_HELPER(nothing_is_lost());
}

/* --- RAM that leaves and comes back --------------------------------------- */

#define GONE_ORDER 10
#define TRIES      1000

/* Keeps allocating and freeing, a few at a time. */
static void churn(void *argument)
{
    (void)argument;
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        pfn_t frame[8];

        for (unsigned i = 0; i < 8; i++) {
            frame[i] = frame_alloc(i % 4, FRAME_KERNEL, FRAME_ANY);
        }
        for (unsigned i = 0; i < 8; i++) {
            if (!pfn_is_none(frame[i])) {
                frame_free(frame[i], i % 4);
            }
        }
        cpu_pause();
    }
}

/* Take a block out of use that was free a moment ago. */
static bool remove_some(pfn_t *out_start)
{
    for (unsigned i = 0; i < TRIES; i++) {
        pfn_t pfn = frame_alloc(GONE_ORDER, FRAME_KERNEL, FRAME_ANY);
        pfn_t busy;

        if (pfn_is_none(pfn)) {
            return false;
        }
        frame_free(pfn, GONE_ORDER);
        *out_start = pfn;
        if (frame_remove(pfn, pfn_add(pfn, UINT64_C(1) << GONE_ORDER), &busy) ==
            MM_OK) {
            return true;
        }
        cpu_irq_window();
    }
    return false;
}

/* Gone, and back; what is allocated meanwhile lies elsewhere. */
static void leave_and_return(void)
{
    pfn_t start = PFN_NONE;
    struct frame_stats now;

    CHECK(remove_some(&start));
    frame_stats(&now);
    pfn_t end = pfn_add(start, UINT64_C(1) << GONE_ORDER);
    bool is_gone = frame_state(start) == FRAME_STATE_OFFLINE &&
                   frame_state(pfn_of(end.v - 1)) == FRAME_STATE_OFFLINE;
    enum mm_status again = frame_remove(start, end, NULL);
    enum mm_status status = frame_add(start, end);
    CHECK(is_gone);
    CHECK_EQUAL(again, MM_EINVAL);
    CHECK_EQUAL(status, MM_OK);
    CHECK_EQUAL(now.managed, before.managed - (UINT64_C(1) << GONE_ORDER));
}

TEST(shortage, ram_leaves_and_comes_back_at_work)
{
    CHECK_HELPER(look());
    pfn_t probe = frame_alloc(GONE_ORDER, FRAME_KERNEL, FRAME_ANY);
    if (pfn_is_none(probe)) {
        return; /* a machine in pieces */
    }
    if (!is_rich()) {
        frame_free(probe, GONE_ORDER);
        return; /* the others may have the block by the time */
    }
    frame_free(probe, GONE_ORDER);
    is_over = false;
    crew_start(churn, NULL);
    for (unsigned i = 0; i < 10 && !test_has_failed(); i++) {
        leave_and_return();
    }
    atomic_store_explicit(&is_over, true, memory_order_relaxed);
    crew_wait();
    CHECK_HELPER(nothing_is_lost());
}

TEST(shortage, ram_in_use_stays)
{
    pfn_t busy = PFN_NONE;

    CHECK_HELPER(look());
    pfn_t pfn = frame_alloc(3, FRAME_KERNEL, FRAME_ANY);
    CHECK(!pfn_is_none(pfn));
    enum mm_status status = frame_remove(pfn, pfn_add(pfn, 8), &busy);
    frame_free(pfn, 3);
    CHECK_EQUAL(status, MM_EBUSY);
    CHECK(pfn_equal(busy, pfn));
    CHECK_HELPER(nothing_is_lost());
}
