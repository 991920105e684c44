/* SPDX-License-Identifier: MIT */
/* Tests of an arena of kernel addresses that is full of what is kept. */
#include <mm/kmap.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/test.h"

/*
 * At risk: a block or window that is refused for want of addresses, while all
 * of the arena is free but kept by CPUs for the next small block. Provoked by
 * an arena of 64 pages, with blocks of one page in all of it that are freed.
 */

#define RAM_BYTES   (64 * MiB)
#define DEVICE      UINT64_C(0xfd000000) /* no RAM there */
#define ARENA_PAGES 64

static uint64_t kept_pages(void)
{
    struct kmap_stats kmap;

    kmap_stats(&kmap);
    return kmap.kept_pages;
}

enum content { FRAMES, WINDOWS };

static void *frames(uint64_t bytes, unsigned flags)
{
    return kmap_alloc(bytes, flags, "frames");
}

static void *window(uint64_t offset, uint64_t bytes)
{
    return kmap_mmio(paddr_of(DEVICE + offset), bytes, PT_UC, "window");
}

/* Blocks of one page in all of the arena; then they are free, and kept. */
static void fill_arena(enum content content)
{
    void *block[ARENA_PAGES];
    unsigned count = 0;

    sim_boot(RAM_BYTES);
    CHECK(kmap_init(SIM_KMAP, SIM_KMAP + ARENA_PAGES * PAGE_BYTES, sim_map()) ==
          MM_OK);
    kmap_keep(ARENA_PAGES);
    do {
        block[count] = content == WINDOWS ? window(count * MiB, PAGE_BYTES)
                                          : frames(PAGE_BYTES, KMAP_EAGER);
    } while (block[count] != NULL && ++count < ARENA_PAGES);
    CHECK(count >= ARENA_PAGES / 4 && count < ARENA_PAGES);
    while (count > 0) {
        kmap_free(block[--count]);
    }
    CHECK(kept_pages() >= ARENA_PAGES / 4);
}

/* Small and large, and all of it. */
static void check_size(uint64_t bytes, enum content content)
{
    CHECK_HELPER(fill_arena(content));
    void *block = frames(bytes, KMAP_EAGER);
    CHECK(block != NULL && kmap_check());
    kmap_free(block);
    CHECK_HELPER(fill_arena(content));
    block = frames(bytes, KMAP_LAZY);
    CHECK(block != NULL && kmap_check());
    kmap_free(block);
    CHECK_HELPER(fill_arena(content));
    block = window(16, bytes - 16);
    CHECK(block != NULL && kmap_check());
    kmap_free(block);
    CHECK(window(0, ARENA_PAGES * PAGE_BYTES) == NULL);
    CHECK(kmap_check());
}

TEST(kmap_full, what_is_kept_goes_before_addresses_are_refused)
{
    static const uint64_t pages[] = {1, 2, 16, ARENA_PAGES - 2};

    for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        CHECK_HELPER(check_size(pages[i] * PAGE_BYTES, FRAMES));
        CHECK_HELPER(check_size(pages[i] * PAGE_BYTES, WINDOWS));
    }
}

/* Of empty blocks no frame comes back, and they are worth it all the same. */
TEST(kmap_full, empty_blocks_give_back_their_addresses)
{
    CHECK_HELPER(fill_arena(WINDOWS));
    kmap_keep(1);
    kmap_free(window(0, 2 * PAGE_BYTES)); /* has all flushed */
    CHECK(kept_pages() > 0);
    CHECK(frames((ARENA_PAGES - 2) * PAGE_BYTES, KMAP_EAGER) != NULL);
    CHECK_EQUAL(kept_pages(), 0);
    CHECK(kmap_check());
}
