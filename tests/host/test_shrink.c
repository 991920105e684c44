/* SPDX-License-Identifier: MIT */
/* Tests of shrink: who keeps memory, and gives it back when it is short. */
/*
 * At risk: an allocation that fails while another CPU's magazines are full of
 * free objects; a shrinker that is called inside itself, without end, or after
 * it has left; a CPU that is waited for for ever. Provoked on machines all of
 * whose frames are in use, by shrinkers that count, lie, allocate and free
 * nothing, by a CPU with its interrupts off, and by each allocation failing.
 */
#include <mm/shrink.h>

#include <string.h>

#include <mm/port.h>
#include "tests/host/frame_scene.h"

#define OBJECT_BYTES 1024
#define OBJECTS      64

static pfn_t frame[SMALL_FRAMES];
static uint64_t taken; /* frames in frame[] */

static const struct frame_reclaim hooks = {.reclaim = shrink_reclaim};

static void boot(unsigned cpus)
{
    sim_boot_frames_on(SMALL_RAM, cpus);
    CHECK_EQUAL(slab_init(), MM_OK);
    CHECK_EQUAL(kmalloc_init(), MM_OK);
    frame_set_reclaim(&hooks);
    taken = 0;
}

static void use_up(void)
{
    taken = take_all(frame, 0, FRAME_ANY);
    CHECK_EQUAL(figures().free, 0);
}

static void free_some(uint64_t count)
{
    for (uint64_t i = 0; i < count && taken > 0; i++) {
        frame_free(frame[--taken], 0);
    }
}

/* --- a shrinker that does as it is told ----------------------------------- */

struct tame {
    struct shrinker shrinker;
    uint64_t gives;    /* frames it frees each time, while there are any */
    uint64_t pretends; /* frames that it says it has freed beside */
    bool allocates;    /* asks for memory itself, and for reclaim */
    unsigned calls;
    unsigned depth;
    uint64_t wanted; /* what the last call was asked for */
    unsigned turn;   /* when it was called last, of all calls */
    pfn_t got;
};

static unsigned turns;

static uint64_t count_tame(void *context)
{
    return ((struct tame *)context)->gives;
}

static uint64_t scan_tame(void *context, uint64_t frames)
{
    struct tame *tame = context;

    tame->calls++;
    tame->wanted = frames;
    tame->turn = ++turns;
    if (tame->depth++ > 0) {
        test_fail(__FILE__, __LINE__, "a shrinker is called inside itself");
    }
    if (!pfn_is_none(tame->got)) {
        frame_free(tame->got, 0);
    }
    if (tame->allocates) {
        tame->got = frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM);
    }
    free_some(tame->gives);
    tame->depth--;
    return tame->gives + tame->pretends;
}

static void enter(struct tame *tame, enum shrink_priority priority)
{
    tame->shrinker = (struct shrinker){.name = "tame",
                                       .priority = priority,
                                       .count = count_tame,
                                       .scan = scan_tame,
                                       .context = tame};
    tame->got = PFN_NONE;
    shrink_register(&tame->shrinker);
}

/* --- who is asked, and how often ------------------------------------------ */

TEST(shrink, they_are_asked_by_priority_until_there_is_enough)
{
    struct tame dear = {.gives = 2};
    struct tame first = {.gives = 1};
    struct tame second = {.gives = 3};
    struct tame late = {.gives = 1};
    struct shrink_info info;

    CHECK_HELPER(boot(1));
    enter(&dear, SHRINK_DEAR);
    enter(&first, SHRINK_CHEAP);
    enter(&second, SHRINK_CHEAP);
    CHECK_HELPER(use_up());
    turns = 0;
    CHECK_EQUAL(shrink_reclaim(3), 4);
    CHECK_EQUAL(first.turn, 1);
    CHECK_EQUAL(second.turn, 2);
    CHECK_EQUAL(second.wanted, 2);
    CHECK_EQUAL(dear.calls, 0);
    CHECK(shrink_look(0, &info) && strcmp(info.name, "heap") == 0);
    CHECK(shrink_look(2, &info) && info.asked == 1 && info.freed == 3);
    CHECK(shrink_look(3, &info) && info.priority == SHRINK_DEAR);
    CHECK_EQUAL(info.count, 2);
    CHECK(!shrink_look(4, &info));
    /* Who has left is not asked, who comes is. */
    shrink_unregister(&first.shrinker);
    enter(&late, SHRINK_CHEAP);
    CHECK_EQUAL(shrink_reclaim(5), 6);
    CHECK_EQUAL(first.calls, 1);
    CHECK(second.turn < late.turn && late.turn < dear.turn);
    CHECK(frame_check());
}

TEST(shrink, one_that_frees_nothing_is_not_asked_for_ever)
{
    struct tame tame = {.gives = 0};

    CHECK_HELPER(boot(1));
    enter(&tame, SHRINK_CHEAP);
    CHECK_HELPER(use_up());
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK(tame.calls >= 1 && tame.calls <= 2);
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(tame.calls <= 2);
    /* It lies: it is given up, too. */
    tame.calls = 0;
    tame.pretends = 1;
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK(tame.calls > 1 && tame.calls < 20);
    /* It gives: that is what the allocation gets. */
    tame.pretends = 0;
    tame.gives = 1;
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK(frame_check());
}

TEST(shrink, one_that_allocates_is_refused_recursion)
{
    struct tame tame = {.gives = 1, .allocates = true};

    CHECK_HELPER(boot(1));
    enter(&tame, SHRINK_CHEAP);
    CHECK_HELPER(use_up());
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(tame.calls, 1);
    CHECK(pfn_is_none(tame.got));
    /* Asked for without an allocation around it: the same. */
    CHECK_EQUAL(shrink_reclaim(1), 1);
    CHECK_EQUAL(tame.calls, 2);
    CHECK(pfn_is_none(tame.got));
    /* And when it is over, it may be called again. */
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(tame.calls, 3);
    CHECK(frame_check());
}

/* It uses the cache for which memory is looked for just now. */
static uint64_t scan_same_class(void *context, uint64_t frames)
{
    (void)context;
    (void)frames;
    kfree(kmalloc(OBJECT_BYTES));
    free_some(8);
    return 8;
}

TEST(shrink, one_may_use_the_cache_that_is_short)
{
    struct shrinker same = {.name = "same",
                            .priority = SHRINK_CHEAP,
                            .count = count_tame,
                            .scan = scan_same_class};
    struct tame tame = {.gives = 0};
    void *object[OBJECTS];

    CHECK_HELPER(boot(1));
    uint64_t heap = heap_frames();
    same.context = &tame;
    shrink_register(&same);
    object[0] = kmalloc(OBJECT_BYTES);
    CHECK_HELPER(use_up());
    for (unsigned i = 1; i < OBJECTS; i++) {
        object[i] = kmalloc(OBJECT_BYTES);
        CHECK(object[i] != NULL);
    }
    CHECK_HELPER(check_heap());
    for (unsigned i = 0; i < OBJECTS; i++) {
        kfree(object[i]);
    }
    CHECK_EQUAL(heap_frames(), heap);
}

/* --- one that frees objects, and no frames -------------------------------- */

/* What it lets go of lies in the heap, which was asked before it. */
struct generous {
    struct shrinker shrinker;
    unsigned count;
    void *object[OBJECTS];
};

static uint64_t scan_objects(void *context, uint64_t frames)
{
    struct generous *generous = context;

    (void)frames;
    while (generous->count > 0) {
        kfree(generous->object[--generous->count]);
    }
    return 0;
}

static void enter_generous(struct generous *generous, unsigned count)
{
    *generous = (struct generous){.shrinker = {.name = "generous",
                                               .priority = SHRINK_CHEAP,
                                               .count = count_tame,
                                               .scan = scan_objects,
                                               .context = generous}};
    while (generous->count < count) {
        generous->object[generous->count] = kmalloc(OBJECT_BYTES);
        CHECK(generous->object[generous->count++] != NULL);
    }
    shrink_register(&generous->shrinker);
}

TEST(shrink, objects_that_one_frees_become_frames)
{
    static struct generous generous;

    CHECK_HELPER(boot(1));
    CHECK_HELPER(enter_generous(&generous, OBJECTS));
    CHECK_HELPER(use_up());
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK_EQUAL(generous.count, 0);
    CHECK_HELPER(check_heap());
    CHECK(frame_check());
}

/* One object is no frame, but all that is wanted. */
TEST(shrink, an_object_that_one_frees_is_found)
{
    static struct generous generous;
    void *block[OBJECTS];
    unsigned count = 0;

    CHECK_HELPER(boot(1));
    CHECK_HELPER(enter_generous(&generous, OBJECTS));
    CHECK_HELPER(use_up());
    generous.count = 0; /* these stay */
    while (count < OBJECTS && (block[count] = kmalloc(OBJECT_BYTES)) != NULL) {
        count++;
    }
    CHECK(count < OBJECTS);
    generous.count = 1;
    CHECK(kmalloc(OBJECT_BYTES) == generous.object[0]);
    CHECK_HELPER(check_heap());
}

/* A slab of a frame needs another one now and then, for what is beside it. */
TEST(shrink, side_storage_is_reclaimed_for)
{
    struct tame tame = {.gives = 1};

    CHECK_HELPER(boot(1));
    struct slab_cache *cache = slab_create("page", 4000, 0, NULL);
    CHECK(cache != NULL);
    CHECK_HELPER(use_up());
    enter(&tame, SHRINK_CHEAP);
    while (taken > SMALL_FRAMES / 2) {
        CHECK(slab_alloc(cache) != NULL);
    }
    CHECK_HELPER(check_heap());
    CHECK(frame_check());
}

/* --- what other CPUs keep ------------------------------------------------- */

/* CPU @cpu has free objects, and with them slabs, that nobody uses. */
static void hoard_on(unsigned cpu)
{
    void *object[OBJECTS];

    sim_set_cpu(cpu);
    for (unsigned i = 0; i < OBJECTS; i++) {
        object[i] = kmalloc(OBJECT_BYTES);
        CHECK(object[i] != NULL);
    }
    for (unsigned i = 0; i < OBJECTS; i++) {
        kfree(object[i]);
    }
    /* The store and this CPU's part of it would be found anyway. */
    sim_set_cpu(0);
    slab_drain();
}

TEST(shrink, magazines_of_another_cpu_come_back_before_it_fails)
{
    CHECK_HELPER(boot(3));
    for (unsigned cpu = 1; cpu < 3; cpu++) {
        CHECK_HELPER(hoard_on(cpu));
        CHECK_HELPER(use_up());
        CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
        uint64_t sent = sim_interrupts(cpu);
        CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
        CHECK_EQUAL(sim_interrupts(cpu), sent + 1);
        /* The heap's own allocations get the rest. */
        void *block = kmalloc(OBJECT_BYTES);
        CHECK(block != NULL);
        kfree(block);
        CHECK(slab_check() && frame_check());
        free_some(taken);
    }
}

/* Asked for what its CPU keeps, it takes all memory there is. */
static uint64_t drain_greedy(void *context)
{
    struct tame *tame = context;

    tame->depth++; /* scan() would find itself called inside another one */
    taken += take_all(frame + taken, 0, FRAME_MAY_RECLAIM);
    tame->depth--;
    return 0;
}

TEST(shrink, one_that_allocates_in_a_drain_is_refused_recursion)
{
    struct tame tame = {.gives = 0};

    CHECK_HELPER(boot(2));
    CHECK_HELPER(hoard_on(1));
    CHECK_HELPER(use_up());
    enter(&tame, SHRINK_CHEAP);
    tame.shrinker.drain = drain_greedy;
    CHECK(shrink_reclaim(SMALL_FRAMES) > 0);
    CHECK_EQUAL(figures().free, 0);
    CHECK(tame.calls > 0);
    CHECK(slab_check() && frame_check());
}

/* The same of what was taken for many at once. */
TEST(shrink, what_bulks_leave_on_another_cpu_comes_back)
{
    void *few[2];

    CHECK_HELPER(boot(2));
    struct slab_cache *cache = slab_create("bulk", OBJECT_BYTES, 0, NULL);
    CHECK(cache != NULL);
    sim_set_cpu(1);
    CHECK(slab_alloc_bulk(cache, COUNT(few), few));
    slab_free_bulk(cache, few, COUNT(few));
    sim_set_cpu(0);
    slab_drain();
    CHECK_HELPER(use_up());
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    CHECK(slab_check() && frame_check());
}

/* While CPU 0 is filling a magazine, it is asked for what it has. */
static uint64_t scan_asked(void *context, uint64_t frames)
{
    struct tame *tame = context;

    (void)frames;
    if (tame->calls++ == 0) {
        sim_set_cpu(1);
        (void)shrink_reclaim(SMALL_FRAMES);
        sim_set_cpu(0);
        uint64_t irq = port_irq_save();
        shrink_interrupt(); /* as in a wait for another CPU */
        port_irq_restore(irq);
        free_some(8);
        return 8;
    }
    return 0;
}

/* What it has got since is asked for the next time. */
TEST(shrink, a_cpu_that_answers_in_a_refill_is_asked_again)
{
    struct tame tame = {.gives = 0};

    CHECK_HELPER(boot(2));
    tame.shrinker = (struct shrinker){.name = "asked",
                                      .priority = SHRINK_CHEAP,
                                      .count = count_tame,
                                      .scan = scan_asked,
                                      .context = &tame};
    struct slab_cache *cache = slab_create("refilled", OBJECT_BYTES, 0, NULL);
    CHECK(cache != NULL);
    CHECK_HELPER(use_up());
    shrink_register(&tame.shrinker);
    void *object = slab_alloc(cache);
    CHECK(object != NULL && tame.calls >= 1);
    uint64_t sent = sim_interrupts(0);
    sim_set_cpu(1);
    (void)shrink_reclaim(SMALL_FRAMES);
    sim_set_cpu(0);
    CHECK(sim_interrupts(0) > sent);
    CHECK(slab_check() && frame_check());
}

TEST(shrink, who_keeps_nothing_is_left_alone)
{
    CHECK_HELPER(boot(3));
    CHECK_HELPER(hoard_on(2));
    CHECK_HELPER(use_up());
    uint64_t sent = sim_interrupts(2) + 1;
    CHECK(shrink_reclaim(SMALL_FRAMES) > 0);
    CHECK_EQUAL(sim_interrupts(1), 0);
    CHECK_EQUAL(sim_interrupts(2), sent);
    (void)shrink_reclaim(SMALL_FRAMES);
    CHECK_EQUAL(sim_interrupts(2), sent);
    CHECK(slab_check() && frame_check());
}

TEST(shrink, a_cpu_that_does_not_answer_is_not_waited_for_twice)
{
    CHECK_HELPER(boot(2));
    CHECK_HELPER(hoard_on(1));
    CHECK_HELPER(use_up());
    sim_set_cpu(1);
    uint64_t irq = port_irq_save();
    sim_set_cpu(0);
    CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    uint64_t sent = sim_interrupts(1);
    for (unsigned i = 0; i < 50; i++) {
        CHECK(pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_MAY_RECLAIM)));
    }
    CHECK_EQUAL(sim_interrupts(1), sent);
    /* It answers all the same when it can. */
    sim_set_cpu(1);
    port_irq_restore(irq);
    sim_set_cpu(0);
    CHECK(!pfn_is_none(frame_alloc(0, FRAME_USER, FRAME_ANY)));
    CHECK(slab_check() && frame_check());
}

/* --- the k-th failure, also inside reclaim -------------------------------- */

static void *object[OBJECTS];
static unsigned objects;

/* Short of memory all the time; the first that fails ends it. */
static void live_in_want(void)
{
    objects = 0;
    while (objects < OBJECTS &&
           (object[objects] = kmalloc(OBJECT_BYTES)) != NULL) {
        objects++;
    }
    kfree(kmalloc(2 * PAGE_BYTES));
    while (objects > 0) {
        kfree(object[--objects]);
    }
    (void)shrink_reclaim(SMALL_FRAMES);
}

/* All there was before is free again. */
static void check_nothing_is_lost(uint64_t heap)
{
    CHECK_EQUAL(taken > 0, true);
    free_some(taken);
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        sim_set_cpu(cpu);
        slab_drain();
    }
    sim_set_cpu(0);
    CHECK_EQUAL(heap_frames(), heap);
    CHECK_EQUAL(frames_of(FRAME_KERNEL) + frames_of(FRAME_USER), 0);
    CHECK_HELPER(check_heap());
    CHECK(frame_check());
}

TEST(shrink, each_allocation_fails_also_inside_reclaim)
{
    uint64_t nth = 1;
    uint64_t tried;

    do {
        struct tame tame = {.gives = 1, .allocates = true};

        CHECK_HELPER(boot(2));
        uint64_t heap = heap_frames();
        CHECK_HELPER(hoard_on(1));
        CHECK_HELPER(use_up());
        enter(&tame, SHRINK_CHEAP);
        frame_inject(nth);
        live_in_want();
        tried = frame_inject_count();
        frame_inject(0);
        CHECK(slab_check());
        shrink_unregister(&tame.shrinker);
        CHECK(tame.calls > 0);
        if (!pfn_is_none(tame.got)) {
            frame_free(tame.got, 0);
        }
        CHECK_HELPER(check_nothing_is_lost(heap));
        nth++;
    } while (nth <= tried + 1);
    CHECK(nth > 10);
}
