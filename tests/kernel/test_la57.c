/* SPDX-License-Identifier: MIT */
/* la57: spaces of 47 or 56 bits, as the command line and the CPU will. */
#include "kernel/la57_option.h"

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/pt.h>
#include "base/check.h"
#include "kernel/cmdline.h"
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/smp.h"
#include "kernel/trap.h"
#include "tests/kernel/crew.h"
#include "tests/shared/once.h"
#include "tests/shared/test.h"

/*
 * At risk: start-up code reads the command line otherwise than C does; a CPU
 * that walks from another level than the rest; addresses above 2^47 that some
 * part takes for the kernel's, or cuts; tables of the fifth level that nobody
 * gives back. Provoked by pages at both sides of each power of two where
 * something could end, on all CPUs. All of it runs with 4 levels as well.
 */

static struct pt space;

/* The first address behind the user half. */
static vaddr_t half_end(void)
{
    return (vaddr_t)1 << (pte_shift(pt_features.levels) - 1);
}

/* Pages of the user half; those with 4 levels come first. */
static const vaddr_t pages[] = {
    UINT64_C(0x0000000000001000), UINT64_C(0x000000007ffff000),
    UINT64_C(0x0000123456789000), UINT64_C(0x00007ffffffff000),
    UINT64_C(0x0000800000000000), /* 2^47: from here on 5 levels */
    UINT64_C(0x0000fffffffff000), UINT64_C(0x0001000000000000),
    UINT64_C(0x0012345678abc000), UINT64_C(0x007ffffffffff000),
    UINT64_C(0x0080000000000000), UINT64_C(0x00fffffffffff000),
};
#define PAGES (sizeof(pages) / sizeof(pages[0]))

static size_t page_count(void)
{
    size_t count = 0;

    while (count < PAGES && pages[count] < half_end()) {
        count++;
    }
    return count;
}

TEST(la57, the_levels_are_those_of_the_command_line)
{
    bool is_wanted = la57_option_wants_five(cmdline_get("la57"));

    CHECK_EQUAL(cpu_levels(), is_wanted && cpu_features.has_la57 ? 5 : 4);
    CHECK_EQUAL(pt_features.levels, cpu_levels());
    CHECK_EQUAL(page_count(), cpu_levels() == 5 ? PAGES : 4);
}

/* --- what one CPU sees of all pages --------------------------------------- */

struct view {
    struct probe probe[PAGES];
    bool is_read[PAGES];
    unsigned levels;
};

static void look(void *argument)
{
    struct view *view = argument;

    tlb_switch(&space.tlb);
    view->levels = cpu_levels();
    for (size_t i = 0; i < page_count(); i++) {
        view->is_read[i] =
            probe_read64((const void *)pages[i], &view->probe[i]);
    }
    tlb_switch(&pt_kernel.tlb);
}

static void check_view(const struct view *view, bool is_mapped)
{
    CHECK_EQUAL(view->levels, pt_features.levels);
    for (size_t i = 0; i < page_count(); i++) {
        CHECK_EQUAL(view->is_read[i], is_mapped);
        if (is_mapped) {
            CHECK_EQUAL(view->probe[i].value, pages[i] + 1);
        } else {
            CHECK_EQUAL(view->probe[i].vector, TRAP_PAGE);
            CHECK_EQUAL(view->probe[i].address, pages[i]);
        }
    }
}

/* Each CPU in turn: all see all pages, or none sees any. */
static void check_views(bool is_mapped)
{
    static struct view view;

    for (unsigned cpu = 0; cpu < smp_possible(); cpu++) {
        if (smp_is_online(cpu)) {
            enum mm_status status = smp_call(cpu, look, &view);

            ASSERT(status == MM_OK);
            CHECK_HELPER(check_view(&view, is_mapped));
        }
    }
}

static bool map_all(void)
{
    for (size_t i = 0; i < page_count(); i++) {
        if (!crew_map(&space, pages[i], pages[i] + 1)) {
            return false;
        }
    }
    return true;
}

static bool unmap_all(void)
{
    for (size_t i = 0; i < page_count(); i++) {
        if (!crew_unmap(&space, pages[i])) {
            return false;
        }
    }
    return true;
}

static void come_and_go(void)
{
    struct walk walk;

    CHECK(map_all());
    walk_address(space.root, pages[page_count() - 1], &walk);
    CHECK_EQUAL(walk.count, pt_features.levels);
    CHECK_EQUAL(walk.step[0].level, pt_features.levels - 1);
    CHECK_EQUAL(walk.step[0].index, PTE_TABLE_COUNT / 2 - 1);
    CHECK_HELPER(check_views(true));
    CHECK(unmap_all());
    CHECK_HELPER(check_views(false));
    CHECK_EQUAL(atomic_load(&space.tables), 1);
}

TEST(la57, pages_of_the_whole_half_come_and_go_on_every_cpu)
{
    CHECK_EQUAL(pt_init(&space), MM_OK);
    come_and_go();
    pt_fini(&space);
}

/* What the runner finds afterwards is a frame that is missing. */
TEST(la57, a_space_goes_with_all_it_has)
{
    CHECK_EQUAL(pt_init(&space), MM_OK);
    bool is_mapped = map_all();
    pt_fini(&space);
    CHECK(is_mapped);
}

/* A promise over the whole half costs entries of the top table only. */
TEST(la57, the_whole_half_is_one_promise)
{
    vaddr_t start = pte_span(pt_features.levels - 1);

    CHECK_EQUAL(pt_init(&space), MM_OK);
    enum mm_status status = once_promise(&space, start, half_end() - start,
                                         PT_ZERO, pt_attr(PT_WRITE));
    uint64_t tables = atomic_load(&space.tables);
    pt_fini(&space);
    CHECK_EQUAL(status, MM_OK);
    CHECK_EQUAL(tables, 1);
}

/* --- edges ---------------------------------------------------------------- */

static void try_beyond(void)
{
    vaddr_t beyond[] = {half_end(), -half_end() - PAGE_BYTES};
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct probe probe;

    for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
        CHECK_EQUAL(
            pt_open(&space, beyond[i], beyond[i] + PAGE_BYTES, &batch, &cursor),
            MM_EINVAL);
        CHECK(!probe_read8((const void *)beyond[i], &probe));
        CHECK_EQUAL(probe.vector, TRAP_PROTECTION);
    }
    CHECK_EQUAL(pt_open(&space, half_end() - PAGE_BYTES,
                        half_end() + PAGE_BYTES, &batch, &cursor),
                MM_EINVAL);
    CHECK(!probe_read8((const void *)(half_end() - 1), &probe));
    CHECK_EQUAL(probe.vector, TRAP_PAGE);
}

TEST(la57, addresses_beyond_the_half_are_refused)
{
    CHECK_EQUAL(pt_init(&space), MM_OK);
    tlb_switch(&space.tlb);
    try_beyond();
    tlb_switch(&pt_kernel.tlb);
    pt_fini(&space);
}

/* The kernel's half was copied before: what it leads to is shared. */
TEST(la57, blocks_made_later_are_seen_in_every_space)
{
    CHECK_EQUAL(pt_init(&space), MM_OK);
    uint64_t *block = kmap_alloc(3 * MiB, KMAP_LAZY, "la57 test");
    bool is_there = block != NULL;
    struct probe probe = {0};

    tlb_switch(&space.tlb);
    is_there = is_there && probe_write64(block, 57, &probe);
    is_there = is_there && probe_read64(block, &probe);
    tlb_switch(&pt_kernel.tlb);
    kmap_free(block);
    pt_fini(&space);
    CHECK(is_there);
    CHECK_EQUAL(probe.value, 57);
}

/* With 5 levels the layout hangs from the last entry of the root alone. */
TEST(la57, the_kernel_half_begins_where_it_does_with_4_levels)
{
    const pte_t *root = phys_to_virt(pfn_to_phys(pt_kernel.root));
    unsigned used = 0;

    for (unsigned i = 0; i < PTE_TABLE_COUNT; i++) {
        used += pte_is_absent(root[i]) ? 0 : 1;
    }
    CHECK(!pte_is_absent(root[PTE_TABLE_COUNT - 1]));
    CHECK(pt_features.levels == 5 ? used == 1 : used > 1);
}
