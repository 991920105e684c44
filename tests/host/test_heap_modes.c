/* SPDX-License-Identifier: MIT */
/* Tests of the heap in all its modes: figures stay right, wild frees do none.
 */
/*
 * At risk: figures that drift, an object that is not as its constructor left
 * it or belongs to two, where guards, noted states, the quarantine, failures,
 * drains and bulks meet; and a pointer to anything at all that is taken for an
 * object. Provoked by random work of two CPUs, interrupted by the same,
 * beside counts of its own; and by pointers near and far from what is live and
 * what was freed, to all that takes one.
 */
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/quarantine.h>
#include <mm/shrink.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "base/memory.h"
#include "heap/pool.h"
#include "tests/host/sim.h"
#include "tests/shared/figures.h"

#define RAM_BYTES  (24 * MiB)
#define QUARANTINE (20 * KiB)
#define INTERVAL   5

/* A bit each; without any: as a release kernel is by default. */
enum mode { GUARDED = 1, WAITING = 2, NOTED = 4, MODES = 8 };

static const struct frame_reclaim hooks = {.reclaim = shrink_reclaim};

static void boot(unsigned mode)
{
    pool_notes_states = (mode & NOTED) != 0;
    sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
    frame_set_reclaim(&hooks);
    CHECK_EQUAL(quarantine_set((mode & WAITING) != 0 ? QUARANTINE : 0), MM_OK);
    if ((mode & GUARDED) != 0) {
        CHECK_EQUAL(guard_enable(INTERVAL), MM_OK);
    }
}

/* --- figures -------------------------------------------------------------- */

#define CACHES      4
#define HELD        400
#define MANY        100
#define STEPS       600
#define CHECK_EVERY 200
#define SIGN        UINT64_C(0x5151515151515151)

/* A cache, what is held of it, and what it should say of itself. */
static struct account {
    struct slab_cache *cache;
    uint64_t bytes;
    uint64_t allocs;
    uint64_t failures;
    unsigned count;
    bool is_built; /* its objects have SIGN while they are free */
    void *held[HELD];
} account[CACHES];

static struct test_random outer;
static struct test_random inner;
static uint64_t errors;

static void construct(void *object)
{
    *(uint64_t *)object = SIGN;
}

/* Each object has its own address in it, which no two owners can both see. */
static void note_got(struct account *own, void *object)
{
    uint64_t *word = object;

    errors += own->is_built && *word != SIGN;
    memset(object, 0xee, own->bytes);
    *word = (uint64_t)object;
    own->held[own->count++] = object;
    own->allocs++;
}

static void *let_go(struct account *own, uint64_t index)
{
    uint64_t *word = own->held[index];

    errors += *word != (uint64_t)word;
    *word = SIGN;
    own->held[index] = own->held[--own->count];
    return word;
}

/* Interrupts come in between, and take places as long as there is room. */
static bool has_room(const struct account *own)
{
    return own->count + 2 * MANY <= HELD;
}

static void get_some(struct account *own, uint64_t count)
{
    for (; count > 0 && has_room(own); count--) {
        void *object = slab_alloc(own->cache);
        if (object == NULL) {
            own->failures++;
            return;
        }
        note_got(own, object);
    }
}

static void get_bulk(struct account *own, unsigned count)
{
    void *object[MANY];

    if (!has_room(own)) {
        return;
    }
    if (!slab_alloc_bulk(own->cache, count, object)) {
        own->failures++;
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        note_got(own, object[i]);
    }
}

static void free_bulk(struct account *own, unsigned count)
{
    void *object[MANY];
    unsigned done = 0;

    for (; done < count && own->count > 0; done++) {
        object[done] = let_go(own, own->count - 1);
    }
    slab_free_bulk(own->cache, object, done);
}

static void act(struct test_random *random)
{
    struct account *own = &account[test_random_below(random, CACHES)];
    uint64_t wide = test_random_below(random, 5) == 0 ? MANY : 10;
    unsigned count = 1 + (unsigned)test_random_below(random, wide);

    switch (test_random_below(random, 12)) {
    case 0:
        slab_drain();
        break;
    case 1:
        (void)shrink_reclaim(1 + test_random_below(random, 5000));
        break;
    case 2:
    case 3:
        get_bulk(own, count);
        break;
    case 4:
        free_bulk(own, count);
        break;
    case 5:
    case 6:
    case 7:
    case 8:
        get_some(own, count);
        break;
    default:
        for (; count > 0 && own->count > 0; count--) {
            uint64_t index = test_random_below(random, own->count);
            slab_free(own->cache, let_go(own, index));
        }
        break;
    }
}

static void interrupt(void)
{
    static bool is_inside;

    if (!is_inside && test_random_below(&inner, 4) == 0) {
        is_inside = true;
        act(&inner);
        is_inside = false;
    }
}

static void compare(void)
{
    struct slab_stats stats;

    for (unsigned i = 0; i < CACHES; i++) {
        slab_stats(account[i].cache, &stats);
        CHECK_EQUAL(stats.live, account[i].count);
        CHECK_EQUAL(stats.frees, stats.allocs - stats.live);
        CHECK_EQUAL(stats.failures, account[i].failures);
        /* A bulk that fails has had some. */
        CHECK(stats.allocs == account[i].allocs ||
              (stats.failures > 0 && stats.allocs > account[i].allocs));
    }
    CHECK_EQUAL(errors, 0);
    CHECK_HELPER(check_heap());
}

static void open_accounts(void)
{
    static const uint64_t size[CACHES] = {16, 100, 1024, 8192};

    memset(account, 0, sizeof(account));
    errors = 0;
    for (unsigned i = 0; i < CACHES; i++) {
        account[i].is_built = i % 2 == 1;
        account[i].bytes = size[i];
        account[i].cache = slab_create("own", size[i], 0,
                                       account[i].is_built ? construct : NULL);
        CHECK(account[i].cache != NULL);
    }
}

static void close_accounts(void)
{
    for (unsigned i = 0; i < CACHES; i++) {
        while (account[i].count > 0) {
            slab_free(account[i].cache, let_go(&account[i], 0));
        }
    }
    CHECK_HELPER(compare());
    for (unsigned i = 0; i < CACHES; i++) {
        CHECK_EQUAL(slab_destroy(account[i].cache), MM_OK);
    }
    CHECK_HELPER(check_heap());
}

/* @starve: frame allocations fail now and then. */
static void work(uint64_t starve)
{
    CHECK_HELPER(open_accounts());
    test_random_init(&outer, test_seed() + starve);
    test_random_init(&inner, test_seed() + starve + 1);
    sim_set_interrupt(interrupt);
    for (unsigned step = 1; step <= STEPS; step++) {
        if (starve > 0 && step % starve == 0) {
            frame_inject(1 + test_random_below(&outer, 3));
        }
        sim_set_cpu((unsigned)test_random_below(&outer, 2));
        act(&outer);
        if (step % CHECK_EVERY == 0) {
            sim_set_interrupt(NULL);
            CHECK_HELPER(compare());
            sim_set_interrupt(interrupt);
        }
    }
    sim_set_interrupt(NULL);
    frame_inject(0);
    CHECK_HELPER(close_accounts());
}

static void work_in_all_modes(void)
{
    for (unsigned mode = 0; mode < MODES; mode++) {
        CHECK_HELPER(boot(mode));
        CHECK_HELPER(work(0));
        CHECK_HELPER(boot(mode));
        CHECK_HELPER(work(13));
    }
}

TEST(heap_modes, figures_do_not_drift)
{
    work_in_all_modes();
    pool_notes_states = false;
}

/* --- wild pointers -------------------------------------------------------- */

#define BLOCKS   2000
#define POINTERS 8000

static void *block[2][BLOCKS];    /* live ones, and freed ones; or NULL */
static uint64_t bytes_of[BLOCKS]; /* 0: an object of the cache */
static struct slab_cache *wild_cache;

static bool is_block(const void *address, unsigned freed)
{
    bool found = false;

    for (unsigned i = 0; i < BLOCKS && !found; i++) {
        found = block[freed][i] == address;
    }
    return found;
}

static void free_block(unsigned i)
{
    void *object = block[0][i];

    block[1][i] = object;
    block[0][i] = NULL;
    if (bytes_of[i] == 0) {
        slab_free(wild_cache, object);
    } else {
        kfree(object);
    }
}

/* A third are objects, a third of all are freed again. */
static void fill_heap(struct test_random *random)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        uint64_t wide = test_random_below(random, 50) == 0 ? 30000 : 400;
        bytes_of[i] = i % 3 == 0 ? 0 : 1 + test_random_below(random, wide);
        block[0][i] =
            i % 3 == 0 ? slab_alloc(wild_cache) : kmalloc(bytes_of[i]);
        block[1][i] = NULL;
        CHECK(block[0][i] != NULL);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (test_random_below(random, 3) == 0) {
            free_block(i);
        }
    }
}

/* Anything, anywhere in RAM and behind it, or near something. */
static void *wild_pointer(struct test_random *random)
{
    vaddr_t near = (vaddr_t)
        block[test_random_below(random, 2)][test_random_below(random, BLOCKS)];
    uint64_t anywhere = test_random_below(random, 2 * RAM_BYTES);

    switch (test_random_below(random, 6)) {
    case 0:
        return (void *)test_random_next(random);
    case 1:
        return phys_to_virt(paddr_of(anywhere));
    case 2:
        return phys_to_virt(paddr_of(align_down(anywhere, PAGE_BYTES)));
    case 3:
        return (void *)(near + test_random_below(random, 64));
    case 4:
        return (void *)(near - test_random_below(random, 10000));
    default:
        return (void *)near;
    }
}

static void commit(struct test_random *random, void *pointer)
{
    switch (test_random_below(random, 4)) {
    case 0:
        kfree(pointer);
        break;
    case 1:
        slab_free(wild_cache, pointer);
        break;
    case 2:
        CHECK_EQUAL(ksize(pointer), 0);
        break;
    default:
        CHECK(krealloc(pointer, test_random_below(random, 20000) + 1) == NULL);
        break;
    }
    CHECK_BUG("");
}

static void go_wild(unsigned mode)
{
    struct test_random random;
    struct slab_place place;

    CHECK_HELPER(boot(mode));
    test_random_init(&random, test_seed() + mode);
    wild_cache = slab_create("wild", 72, 8, NULL);
    CHECK(wild_cache != NULL);
    CHECK_HELPER(fill_heap(&random));
    for (unsigned i = 0; i < POINTERS; i++) {
        void *pointer = wild_pointer(&random);
        bool is_live = is_block(pointer, 0);
        bool is_found = slab_find(pointer, &place);
        CHECK(!is_found || (place.object <= (vaddr_t)pointer &&
                            (vaddr_t)pointer < place.object + 2 * PAGE_BYTES +
                                                   place.object_bytes));
        CHECK(!is_found || !is_live || place.is_live);
        /* What was freed is known as such at once by some builds alone. */
        bool is_known = MM_DEBUG || (mode & NOTED) != 0 || !is_found ||
                        place.object != (vaddr_t)pointer;
        if (pointer != NULL && !is_live && is_known) {
            CHECK_HELPER(commit(&random, pointer));
        }
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (block[0][i] != NULL) {
            CHECK(bytes_of[i] == 0 || ksize(block[0][i]) >= bytes_of[i]);
            free_block(i);
        }
    }
    CHECK_EQUAL(slab_destroy(wild_cache), MM_OK);
    CHECK_HELPER(check_heap());
}

TEST(heap_modes, every_wild_pointer_is_reported)
{
    for (unsigned mode = 0; mode < MODES && !test_has_failed(); mode++) {
        go_wild(mode);
    }
    pool_notes_states = false;
}
