/* SPDX-License-Identifier: MIT */
/* Page tables of 4 and of 5 levels, all over the addresses they reach. */
/*
 * At risk: an address above 2^47 that is cut, or taken for the kernel's; a
 * table of the fifth level that stays when it is empty; a tear-down that
 * counts pages where it should count entries; a kernel's half that is not the
 * same under each root. Provoked by pages spread at random over each half, at
 * its powers of two, on processors with and without NX and pages of 1 GiB.
 */
#include "tests/host/space_scene.h"

#include <mm/kmap.h>
#include <mm/mm.h>
#include <mm/port.h>
#include "base/bits.h"

static const struct pt_features processors[] = {
    {4, 40, true, true, true},    {5, 52, true, true, true},
    {5, 40, true, false, true},   {5, 40, false, true, true},
    {5, 40, false, false, false},
};
#define PROCESSORS (sizeof(processors) / sizeof(processors[0]))

#define FIVE (&processors[1])

static vaddr_t half_end(void)
{
    return UINT64_C(1) << (pte_shift(pt_features.levels) - 1);
}

static enum mm_status map_page(vaddr_t page, pfn_t frame)
{
    return once_map(&space, page, frame, PAGE_BYTES,
                    pt_attr(PT_WRITE | PT_OWNED));
}

/* --- pages all over a half ------------------------------------------------ */

#define SPREAD 300u

struct spread {
    vaddr_t page[SPREAD];
    pfn_t frame[SPREAD];
    unsigned count;
};

static bool is_new(const struct spread *spread, vaddr_t page)
{
    for (unsigned i = 0; i < spread->count; i++) {
        if (spread->page[i] == page) {
            return false;
        }
    }
    return page >= PAGE_BYTES && page < half_end();
}

static void add_page(struct spread *spread, vaddr_t page)
{
    if (spread->count == SPREAD || !is_new(spread, page)) {
        return;
    }
    pfn_t frame = frame_alloc(0, FRAME_USER, FRAME_ANY);

    CHECK(!pfn_is_none(frame));
    CHECK_EQUAL(map_page(page, frame), MM_OK);
    spread->page[spread->count] = page;
    spread->frame[spread->count] = frame;
    spread->count++;
}

/* Both sides of each power of two, then anywhere, near and far. */
static void fill_spread(struct spread *spread)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    spread->count = 0;
    for (unsigned bit = PAGE_SHIFT; bit <= 56; bit++) {
        vaddr_t edge = UINT64_C(1) << bit;

        CHECK_HELPER(add_page(spread, edge - PAGE_BYTES));
        CHECK_HELPER(add_page(spread, edge));
    }
    while (spread->count < SPREAD) {
        unsigned bits = (unsigned)test_random_below(&random, 57 - PAGE_SHIFT);
        vaddr_t page = test_random_next(&random) >> (64 - PAGE_SHIFT - bits);

        CHECK_HELPER(add_page(spread, align_down(page, PAGE_BYTES)));
    }
}

static void check_spread(const struct spread *spread)
{
    for (unsigned i = 0; i < spread->count; i++) {
        paddr_t physical;

        CHECK_EQUAL(sim_translate(spread->page[i] + 5, WALK_WRITE, &physical),
                    WALK_ALLOWED);
        CHECK_EQUAL(physical.v, pfn_to_phys(spread->frame[i]).v + 5);
    }
}

static void empty_spread(struct spread *spread)
{
    paddr_t physical;

    while (spread->count > 0) {
        spread->count--;
        vaddr_t page = spread->page[spread->count];

        CHECK_EQUAL(once_unmap(&space, page, PAGE_BYTES), MM_OK);
        CHECK_EQUAL(sim_translate(page, WALK_READ, &physical),
                    WALK_NOT_PRESENT);
    }
}

TEST(pt_levels, pages_all_over_the_half_come_and_go)
{
    static struct spread spread;

    for (unsigned i = 0; i < PROCESSORS; i++) {
        sim_boot_with(RAM, &processors[i]);
        CHECK_HELPER(start_space());
        CHECK_HELPER(fill_spread(&spread));
        CHECK_HELPER(check_spread(&spread));
        CHECK_HELPER(empty_spread(&spread));
        CHECK_EQUAL(atomic_load(&space.tables), 1);
        CHECK_EQUAL(sim_stale(), 0);
        CHECK_HELPER(finish());
    }
}

/* 2^44 pages would take years; the entries are few. */
TEST(pt_levels, a_spread_space_is_taken_down)
{
    static struct spread spread;
    struct frame_stats before;
    struct frame_stats after;

    for (unsigned i = 0; i < PROCESSORS; i++) {
        sim_boot_with(RAM, &processors[i]);
        frame_stats(&before);
        CHECK_HELPER(start_space());
        CHECK_HELPER(fill_spread(&spread));
        CHECK_HELPER(finish());
        frame_stats(&after);
        CHECK_EQUAL(after.by_type[FRAME_TABLE], before.by_type[FRAME_TABLE]);
        CHECK_EQUAL(after.by_type[FRAME_USER], before.by_type[FRAME_USER]);
    }
}

/* The page that needs a table of each level below the root. */
TEST(pt_levels, each_table_on_the_way_can_be_missing)
{
    for (unsigned i = 0; i < PROCESSORS; i++) {
        sim_boot_with(RAM, &processors[i]);
        CHECK_HELPER(start_space());
        vaddr_t page = half_end() - PAGE_BYTES;
        pfn_t frame = frame_alloc(0, FRAME_USER, FRAME_ANY);
        unsigned below_root = pt_features.levels - 1;

        for (unsigned nth = 1; nth <= below_root; nth++) {
            frame_inject(nth);
            CHECK_EQUAL(map_page(page, frame), MM_ENOMEM);
            frame_inject(0);
            CHECK_EQUAL(atomic_load(&space.tables), 1);
        }
        frame_inject(below_root + 1);
        CHECK_EQUAL(map_page(page, frame), MM_OK);
        frame_inject(0);
        CHECK_EQUAL(atomic_load(&space.tables), pt_features.levels);
        CHECK_HELPER(finish());
    }
}

/* --- ranges --------------------------------------------------------------- */

TEST(pt_levels, ranges_that_open_with_5_levels)
{
    static const struct {
        vaddr_t start;
        vaddr_t end;
        bool of_kernel;
        enum mm_status status;
    } table[] = {
        {PAGE_BYTES, UINT64_C(0x0100000000000000), false, MM_OK},
        {UINT64_C(0x7ffffffff000), UINT64_C(0x800000001000), false, MM_OK},
        {UINT64_C(0x00fffffffffff000), UINT64_C(0x0100000000001000), false,
         MM_EINVAL},
        {UINT64_C(0x0100000000000000), UINT64_C(0x0100000000001000), false,
         MM_EINVAL},
        {UINT64_C(0xff00000000000000), UINT64_C(0xff00000000001000), false,
         MM_EINVAL},
        {UINT64_C(0xfeffffffffffe000), UINT64_C(0xfefffffffffff000), true,
         MM_EINVAL},
        {UINT64_C(0xff00000000000000), UINT64_C(0xff00000000001000), true,
         MM_ERANGE},
        {UINT64_C(0xfffefffffffff000), UINT64_C(0xffff000000001000), true,
         MM_ERANGE},
        {SIM_KMAP, SIM_KMAP + 512 * GiB, true, MM_OK},
        {UINT64_C(0xffffffff80000000), UINT64_C(0xfffffffffffff000), true,
         MM_OK},
    };

    sim_boot_with(RAM, FIVE);
    CHECK_HELPER(start_space());
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct pt *pt = table[i].of_kernel ? &pt_kernel : &space;
        struct tlb_batch batch;
        struct pt_cursor cursor;

        CHECK_EQUAL(pt_open(pt, table[i].start, table[i].end, &batch, &cursor),
                    table[i].status);
        if (table[i].status == MM_OK) {
            pt_close(&cursor);
            tlb_commit(&batch);
        }
    }
    CHECK_HELPER(finish());
}

/* --- the kernel's half ---------------------------------------------------- */

/* The level of the table in which the walk to @address ends. */
static unsigned last_level(vaddr_t address)
{
    struct walk walk;

    walk_address(pt_kernel.root, address, &walk);
    return walk.step[walk.count - 1].level;
}

/* Made at start, so that no CPU ever sees an entry of 512 GiB change. */
TEST(pt_levels, the_arena_keeps_its_512_gib)
{
    for (unsigned i = 0; i < PROCESSORS; i++) {
        sim_boot_with(RAM, &processors[i]);
        CHECK_EQUAL(last_level(SIM_KMAP), 2);
        void *block = kmap_alloc(MiB, KMAP_EAGER, "levels");
        CHECK(block != NULL);
        CHECK_EQUAL(last_level((vaddr_t)block), 0);
        kmap_free(block);
        CHECK(last_level(SIM_KMAP) <= 2);
        CHECK(mm_check());
    }
}

/* A space is older than the block, and sees it. */
TEST(pt_levels, spaces_share_what_the_kernel_maps_later)
{
    uint8_t value = 0;

    for (unsigned i = 0; i < PROCESSORS; i++) {
        sim_boot_with(RAM, &processors[i]);
        CHECK_HELPER(start_space());
        vaddr_t block = (vaddr_t)kmap_alloc(4 * MiB, KMAP_LAZY, "levels");
        CHECK(block != 0);
        CHECK(sim_write(block + 3 * MiB, 57));
        CHECK(sim_read(block + 3 * MiB, &value));
        CHECK_EQUAL(value, 57);
        kmap_free((void *)block);
        CHECK_HELPER(finish());
    }
}

TEST(pt_levels, with_5_the_kernel_hangs_from_one_entry)
{
    sim_boot_with(RAM, FIVE);
    CHECK_HELPER(start_space());
    const pte_t *kernel = phys_to_virt(pfn_to_phys(pt_kernel.root));
    const pte_t *own = phys_to_virt(pfn_to_phys(space.root));

    for (unsigned i = 0; i < PTE_TABLE_COUNT - 1; i++) {
        CHECK(pte_is_absent(kernel[i]));
        CHECK(pte_is_absent(own[i]));
    }
    CHECK(pte_is_table(kernel[PTE_TABLE_COUNT - 1], 4));
    CHECK_EQUAL(own[PTE_TABLE_COUNT - 1].v, kernel[PTE_TABLE_COUNT - 1].v);
    CHECK_HELPER(finish());
}
