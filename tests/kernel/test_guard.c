/* SPDX-License-Identifier: MIT */
/* Tests of guarded objects where crimes are real page faults. */
#include <mm/fault.h>
#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/mm.h>
#include <mm/port.h>
#include <mm/slab.h>
#include <mm/walk.h>
#include "base/memory.h"
#include "kernel/entry.h"
#include "kernel/explain.h"
#include "tests/shared/test.h"

/*
 * At risk: a fault that ends in a panic instead of a report, an access that is
 * not tried again, a pool that the heap never uses or never gives back, and a
 * direct map that stays in pieces. Provoked by committing each crime, with
 * every object guarded, in the build as it is.
 */

#define BYTES    64
#define PATIENCE 1000

/* What the command line asked for, put back by finish(). */
static uint32_t usual;
static bool was_on;

static struct guard_stats stats(void)
{
    struct guard_stats now;

    guard_stats(&now);
    return now;
}

static void start(void)
{
    was_on = stats().bytes != 0;
    usual = stats().interval;
    CHECK_EQUAL(guard_enable(1), MM_OK);
}

static void finish(void)
{
    if (was_on) {
        CHECK_EQUAL(guard_enable(usual), MM_OK);
    } else {
        CHECK_EQUAL(guard_disable(), MM_OK);
    }
}

/* A guarded object whose end is the end of its page; or whose start is. */
static char *alloc_at(uint64_t offset)
{
    for (unsigned i = 0; i < PATIENCE; i++) {
        struct guard_object object;
        char *block = kmalloc(BYTES);

        if (guard_find((vaddr_t)block, &object) &&
            object.start % PAGE_BYTES == offset) {
            return block;
        }
        kfree(block);
    }
    return NULL;
}

/* Not inline: the compiler must not see what is wrong. */
MM_NOINLINE static char read_at(const char *address)
{
    return *(const volatile char *)address;
}

MM_NOINLINE static void write_at(char *address)
{
    *(volatile char *)address = 42;
}

#define UPPER (PAGE_BYTES - BYTES)
#define LOWER 0

TEST(guard, kernel_goes_on_after_each_report)
{
    CHECK_HELPER(start());
    char *object = alloc_at(UPPER);
    CHECK(object != NULL);
    memset(object, 1, BYTES);
    CHECK_EQUAL(ksize(object), BYTES);
    uint64_t found = stats().found;

    write_at(object + BYTES);
    CHECK_BUG("overflow: write at ");
    CHECK_EQUAL(read_at(object + BYTES), 42); /* it was tried again */
    kfree(object);
    (void)read_at(object + 5);
    CHECK_BUG("use after free: read at ");
    object = alloc_at(UPPER);
    kfree(object);
    write_at(object);
    CHECK_BUG("use after free: write at ");
    object = alloc_at(LOWER);
    CHECK(object != NULL);
    (void)read_at(object - 8);
    CHECK_BUG("underflow: read at ");
    kfree(object);
    CHECK_EQUAL(stats().found, found + 4);
    CHECK(mm_check());
    CHECK_HELPER(finish());
}

TEST(guard, frees_are_checked)
{
    CHECK_HELPER(start());
    char *object = alloc_at(UPPER);
    CHECK(object != NULL);
    struct slab_cache *cache = slab_create("guard test", BYTES, 0, NULL);
    CHECK(cache != NULL);

    kfree(object + 1);
    CHECK_BUG("free of an interior pointer");
    slab_free(cache, object);
    CHECK_BUG("free to the wrong cache");
    object[-1] = 1;
    kfree(object);
    CHECK_BUG("underflow: write at ");
    kfree(object);
    CHECK_BUG("double free");
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
    CHECK_HELPER(finish());
}

/* Blocks grow and shrink, guarded or not, and keep what is in them. */
TEST(guard, contents_survive_krealloc)
{
    CHECK_HELPER(start());
    for (unsigned i = 0; i < 200; i++) {
        uint64_t bytes = 1 + i * 7 % 300;
        char *block = kmalloc(bytes);
        CHECK(block != NULL);
        memset(block, (int)i, bytes);
        block = krealloc(block, 2 * bytes);
        CHECK(block != NULL && block[0] == (char)i &&
              block[bytes - 1] == (char)i);
        CHECK(ksize(block) >= 2 * bytes);
        block = krealloc(block, bytes / 2 + 1);
        CHECK(block != NULL && block[bytes / 2] == (char)i);
        kfree(block);
        CHECK(guard_check());
    }
    CHECK_HELPER(finish());
}

/* The level of what stands at @address. */
static unsigned level_at(vaddr_t address)
{
    struct walk walk;

    return explain_walk(address, &walk) ? walk.step[walk.count - 1].level : 0;
}

TEST(guard, direct_map_is_split_and_merged)
{
    struct guard_stats before = stats();

    for (unsigned i = 0; i < GUARD_OBJECTS; i++) {
        struct guard_object object;
        if (guard_look(i, &object) && object.is_live) {
            return; /* somebody's: the pool stays */
        }
    }
    CHECK_EQUAL(guard_disable(), MM_OK);
    CHECK_EQUAL(guard_enable(1), MM_OK);
    vaddr_t pool = stats().start;
    CHECK_EQUAL(level_at(pool), 0);
    CHECK_EQUAL(level_at(pool + PAGE_BYTES), 0);
    CHECK_EQUAL(guard_disable(), MM_OK);
    CHECK((level_at(pool) >= 1) == pt_may_resize(0));
    CHECK(mm_check());
    if (before.bytes != 0) {
        CHECK_EQUAL(guard_enable(before.interval), MM_OK);
    }
}
