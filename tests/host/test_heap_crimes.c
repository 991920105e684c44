/* SPDX-License-Identifier: MIT */
/* Tests of the heap's detectives: each crime is committed, and reported. */
#include <string.h>

#include <mm/kmalloc.h>
#include <mm/leak.h>
#include <mm/slab.h>
#include "heap/poison.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

/*
 * At risk: a detective that is blind, or blames the wrong object. Provoked by
 * committing each crime of the table on a machine of its own and reading the
 * report; what a build does not promise to see stands there as NULL, and must
 * not be reported by chance either. After the crime objects go back to their
 * slabs and everything is looked at, which is what a build promises at the
 * latest.
 */

#define RAM_BYTES (16 * MiB)
#define BYTES     100 /* of the class 112: in release builds nobody's rest */

static struct slab_cache *cache;

/* Commit it; return the block that the report must name, NULL: any. */
typedef void *(*crime_fn)(char *block);

/*
 * Reads and writes behind the compiler's back: it may know what an allocator
 * is, and that nobody reads what was freed.
 */
static volatile char *at(char *block, long offset)
{
    return (volatile char *)((uintptr_t)block + (uintptr_t)offset);
}

static void *overflow_by_1(char *block)
{
    *at(block, BYTES) = 1;
    kfree(block);
    return block;
}

static void *overflow_by_8(char *block)
{
    for (long i = 0; i < 8; i++) {
        *at(block, BYTES + i) = 1;
    }
    kfree(block);
    return block;
}

/* The last byte of what the next object has before it. */
static void *underflow_by_1(char *block)
{
    *at(block, -1) = 1;
    kfree(block);
    return block;
}

static void *write_after_free(char *block)
{
    kfree(block);
    *at(block, BYTES / 2) = 1;
    return block;
}

/* Nobody reports it, but what is read says what it is. */
static void *read_after_free(char *block)
{
    memset(block, 7, BYTES);
    kfree(block);
    char expected = MM_DEBUG ? POISON_FREE : 7;
    return *at(block, BYTES / 2) == expected ? NULL : block;
}

static void *read_unwritten(char *block)
{
    return !MM_DEBUG || *at(block, BYTES - 1) == POISON_NEW ? NULL : block;
}

static void *double_free(char *block)
{
    kfree(block);
    kfree(block);
    return block;
}

/* The second free takes the block from its new owner, who is then blamed. */
static void *double_free_after_reuse(char *block)
{
    void *again = NULL;

    kfree(block);
    for (unsigned i = 0; i < POOL_MAX_OBJECTS && again != block; i++) {
        again = kmalloc(BYTES);
    }
    if (again != block) {
        return NULL;
    }
    kfree(block);
    kfree(again);
    return block;
}

static void *double_free_of_large(char *block)
{
    char *large = kmalloc(3 * PAGE_BYTES);

    kfree(block);
    kfree(large);
    kfree(large);
    return large;
}

static void *overflow_of_large(char *block)
{
    char *large = kmalloc(3 * PAGE_BYTES);

    kfree(block);
    *at(large, (long)(3 * PAGE_BYTES)) = 1;
    kfree(large);
    return large;
}

static void *wrong_cache(char *block)
{
    slab_free(cache, block);
    kfree(block);
    return block;
}

static void *kfree_of_an_object(char *block)
{
    void *object = slab_alloc(cache);

    kfree(block);
    kfree(object);
    slab_free(cache, object);
    return object;
}

static void *interior(char *block)
{
    kfree(block + 16);
    kfree(block);
    return block + 16;
}

static void *interior_of_large(char *block)
{
    char *large = kmalloc(3 * PAGE_BYTES);

    kfree(block);
    kfree(large + 8);
    kfree(large);
    return large + 8;
}

static void *foreign(char *block)
{
    static char not_ours[64];

    kfree(block);
    kfree(not_ours);
    return not_ours;
}

static void *foreign_frame(char *block)
{
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    void *page = phys_to_virt(pfn_to_phys(pfn));

    kfree(block);
    kfree(page);
    frame_free(pfn, 0);
    return page;
}

/* No report, but no block that is too small either. */
static void *size_overflow(char *block)
{
    uint64_t half = UINT64_C(1) << 32;
    void *wrapped = kmalloc_array(half, half + 1);

    kfree(block);
    return wrapped;
}

static void *size_resized_overflow(char *block)
{
    *at(block, BYTES) = 1;
    char *moved = krealloc(block, BYTES + 4);
    kfree(moved);
    return block;
}

static void *leak(char *block)
{
    struct leak_group group;
    struct leak_totals totals;

    leak_begin();
    bool is_named = leak_end(&group, 1, &totals) == 1 &&
                    group.example == block && totals.leaked == 1 &&
                    (group.site != 0) == (MM_DEBUG != 0);
    leak_begin();
    leak_scan(&block, &block + 1);
    bool is_quiet = leak_end(&group, 1, &totals) == 0;
    kfree(block);
    return is_named && is_quiet ? NULL : block;
}

/* No report: who commits it sees for himself, and returns NULL. */
#define SEEN ""

/* Reports that builds promise; NULL: none. */
static const struct {
    const char *name;
    crime_fn commit;
    const char *debug;
    const char *release;
} crimes[] = {
    {"overflow by 1", overflow_by_1, "overflow: byte", NULL},
    {"overflow by 8", overflow_by_8, "overflow: byte", NULL},
    {"underflow by 1", underflow_by_1, "underflow: byte", NULL},
    {"overflow, then resized", size_resized_overflow, "overflow: byte", NULL},
    {"write after free", write_after_free, "use after free: byte", NULL},
    {"read after free", read_after_free, SEEN, SEEN},
    {"read of what was never written", read_unwritten, SEEN, SEEN},
    {"double free", double_free, "double free of object",
     "double free of object"},
    {"double free after reuse", double_free_after_reuse,
     "double free of object", "double free of object"},
    {"double free of a large block", double_free_of_large, "foreign pointer",
     "foreign pointer"},
    {"overflow of a large block", overflow_of_large, "overflow: byte", NULL},
    {"free to the wrong cache", wrong_cache, "wrong cache", "wrong cache"},
    {"object of a cache to kfree", kfree_of_an_object, "wrong cache",
     "wrong cache"},
    {"interior pointer", interior, "interior pointer", "interior pointer"},
    {"interior pointer of a large block", interior_of_large, "interior pointer",
     "interior pointer"},
    {"foreign pointer", foreign, "foreign pointer", "foreign pointer"},
    {"frame of another owner", foreign_frame, "another owner, type user",
     "another owner, type user"},
    {"size that overflows", size_overflow, SEEN, SEEN},
    {"leak", leak, SEEN, SEEN},
};

/* What every build does at the latest. */
static void look_at_everything(void)
{
    slab_drain();
    (void)slab_check();
}

static void judge(size_t i)
{
    const char *expected = MM_DEBUG ? crimes[i].debug : crimes[i].release;
    char address[32];

    sim_boot_heap(RAM_BYTES);
    cache = slab_create("other", BYTES, 0, NULL);
    char *block = kmalloc(BYTES);
    CHECK(cache != NULL && block != NULL);
    void *victim = crimes[i].commit(block);
    look_at_everything();
    if (expected == NULL || expected[0] == '\0') {
        CHECK(expected == NULL || victim == NULL);
        CHECK(!test_take_bug(""));
        return;
    }
    test_format(address, sizeof(address), "0x%lx", (unsigned long)victim);
    CHECK(test_contains(test_last_bug(), address));
    CHECK_BUG(expected);
}

TEST(heap_crimes, each_is_reported_as_promised)
{
    for (size_t i = 0; i < sizeof(crimes) / sizeof(crimes[0]); i++) {
        judge(i);
        if (test_has_failed()) {
            test_fail(__FILE__, __LINE__, "crime: %s", crimes[i].name);
            return;
        }
    }
}
