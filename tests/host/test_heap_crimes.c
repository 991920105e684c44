/* SPDX-License-Identifier: MIT */
/* Tests of the heap's detectives: each crime is committed, and reported. */
#include <stdio.h>
#include <string.h>

#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/leak.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "heap/poison.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
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
#define PATIENCE  100 /* every one may be guarded */
#define BYTES     100 /* of the class 112: in release builds nobody's rest */

static struct slab_cache *cache;
static bool is_guarded; /* the victim lies between closed pages */

/* Commit it; return the block that the report must name, NULL: any. */
typedef void *(*crime_fn)(char *block);

/* Before a page is touched, what the kernel does on a fault there. */
static void touch(const char *address, unsigned access)
{
    vaddr_t mapped = SIM_DIRECT + virt_to_phys(address).v;
    paddr_t physical;

    if (is_guarded &&
        sim_translate(mapped, access, &physical) != WALK_ALLOWED) {
        CHECK(guard_fault((vaddr_t)address,
                          access == WALK_WRITE ? GUARD_WRITE : GUARD_READ, 0));
    }
}

/*
 * Reads and writes behind the compiler's back: it may know what an allocator
 * is, and that nobody reads what was freed. And behind the sanitizer's, which
 * would have the last word (test_hidden.c).
 */
static void poke(char *block, long offset)
{
    volatile char *at = (volatile char *)((vaddr_t)block + (vaddr_t)offset);

    port_show((const char *)at, 1);
    touch((const char *)at, WALK_WRITE);
    *at = 1;
}

static char peek(char *block, long offset)
{
    volatile char *at = (volatile char *)((vaddr_t)block + (vaddr_t)offset);

    port_show((const char *)at, 1);
    touch((const char *)at, WALK_READ);
    return *at;
}

static void *overflow_by_1(char *block)
{
    poke(block, BYTES);
    kfree(block);
    return block;
}

static void *overflow_by_8(char *block)
{
    for (long i = 0; i < 8; i++) {
        poke(block, BYTES + i);
    }
    kfree(block);
    return block;
}

/* The last byte of what the next object has before it. */
static void *underflow_by_1(char *block)
{
    poke(block, -1);
    kfree(block);
    return block;
}

static void *write_after_free(char *block)
{
    kfree(block);
    poke(block, BYTES / 2);
    return block;
}

/* Nobody reports it, but what is read says what it is. */
static void *read_after_free(char *block)
{
    memset(block, 7, BYTES);
    kfree(block);
    char expected = MM_DEBUG ? POISON_FREE : 7;
    char seen = peek(block, BYTES / 2);
    return seen == expected || is_guarded ? NULL : block;
}

static void *read_unwritten(char *block)
{
    return !MM_DEBUG || peek(block, BYTES - 1) == POISON_NEW ? NULL : block;
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
    poke(large, (long)(3 * PAGE_BYTES));
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
    poke(block, BYTES);
    char *moved = krealloc(block, BYTES + 4);
    kfree(moved);
    return block;
}

static void *leak(char *block)
{
    struct leak_group group;
    struct leak_totals totals;

    bool is_named = leak_begin() == MM_OK &&
                    leak_end(&group, 1, &totals) == 1 &&
                    group.example == block && totals.leaked == 1 &&
                    (group.site != 0) == (MM_DEBUG != 0);
    if (leak_begin() != MM_OK) {
        return block;
    }
    leak_scan(&block, &block + 1);
    bool is_quiet = leak_end(&group, 1, &totals) == 0;
    kfree(block);
    return is_named && is_quiet ? NULL : block;
}

/* No report: who commits it sees for himself, and returns NULL. */
#define SEEN ""

/* Reports that are promised; NULL: none. */
static const struct {
    const char *name;
    crime_fn commit;
    const char *debug;
    const char *release;
    const char *guarded; /* in every build, if the victim was chosen */
} crimes[] = {
    {"overflow by 1", overflow_by_1, "overflow: byte", NULL,
     "overflow: write at"},
    {"overflow by 8", overflow_by_8, "overflow: byte", NULL,
     "overflow: write at"},
    {"underflow by 1", underflow_by_1, "underflow: byte", NULL,
     "underflow: write at"},
    {"overflow, then resized", size_resized_overflow, "overflow: byte", NULL,
     "overflow: write at"},
    {"write after free", write_after_free, "use after free: byte", NULL,
     "use after free: write at"},
    {"read after free", read_after_free, SEEN, SEEN, "use after free: read at"},
    {"read of what was never written", read_unwritten, SEEN, SEEN, NULL},
    {"double free", double_free, "double free of object",
     "double free of object", "double free at"},
    {"double free after reuse", double_free_after_reuse,
     "double free of object", "double free of object", NULL},
    {"double free of a large block", double_free_of_large, "foreign pointer",
     "foreign pointer", "foreign pointer"},
    {"overflow of a large block", overflow_of_large, "overflow: byte", NULL,
     NULL},
    {"free to the wrong cache", wrong_cache, "wrong cache", "wrong cache",
     "wrong cache"},
    {"object of a cache to kfree", kfree_of_an_object, "wrong cache",
     "wrong cache", "wrong cache"},
    {"interior pointer", interior, "interior pointer", "interior pointer",
     "interior pointer"},
    {"interior pointer of a large block", interior_of_large, "interior pointer",
     "interior pointer", "interior pointer"},
    {"foreign pointer", foreign, "foreign pointer", "foreign pointer",
     "foreign pointer"},
    {"frame of another owner", foreign_frame, "another owner, type user",
     "another owner, type user", "another owner, type user"},
    {"size that overflows", size_overflow, SEEN, SEEN, SEEN},
    {"leak", leak, SEEN, SEEN, NULL},
};

/* What every build does at the latest. */
static void look_at_everything(void)
{
    slab_drain();
    (void)slab_check();
}

static char *victim(void)
{
    struct guard_object found;
    char *block = kmalloc(BYTES);

    for (unsigned i = 0; is_guarded && i < PATIENCE && block != NULL &&
                         !guard_find((vaddr_t)block, &found);
         i++) {
        kfree(block);
        block = kmalloc(BYTES);
    }
    return block;
}

static void boot(void)
{
    if (is_guarded) {
        sim_boot(RAM_BYTES);
        CHECK_EQUAL(guard_enable(1), MM_OK);
    } else {
        sim_boot_heap(RAM_BYTES);
    }
    cache = slab_create("other", BYTES, 0, NULL);
    CHECK(cache != NULL);
}

static void judge(size_t i, const char *expected)
{
    char address[32];

    CHECK_HELPER(boot());
    char *block = victim();
    CHECK(block != NULL);
    char *named = crimes[i].commit(block);
    look_at_everything();
    if (expected == NULL) { /* guards see more than they promise */
        CHECK(!test_take_bug("") || is_guarded);
    } else if (expected[0] == '\0') {
        CHECK(named == NULL && !test_take_bug(""));
    } else {
        test_format(address, sizeof(address), "0x%lx", (unsigned long)named);
        CHECK(named == NULL || test_contains(test_last_bug(), address));
        CHECK_BUG(expected);
    }
}

static void judge_all(void)
{
    for (size_t i = 0; i < sizeof(crimes) / sizeof(crimes[0]); i++) {
        judge(i, is_guarded ? crimes[i].guarded
                 : MM_DEBUG ? crimes[i].debug
                            : crimes[i].release);
        if (test_has_failed()) {
            fprintf(stderr, "# crime: %s\n", crimes[i].name);
            return;
        }
    }
}

TEST(heap_crimes, each_is_reported_as_promised)
{
    is_guarded = false;
    judge_all();
}

TEST(heap_crimes, guards_see_more)
{
    is_guarded = true;
    judge_all();
    is_guarded = false;
}
