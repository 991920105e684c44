/* SPDX-License-Identifier: MIT */
/* audit: runs, extents and aliases of tables whose mappings are known. */
/*
 * At risk: two mappings that share frames and must not, in any order, of any
 * size, overlapping by a page; more of them than are remembered at once; and
 * complaints about what is allowed. Provoked by examples at each rule, and by
 * random mappings of a few frames beside a page-by-page account.
 */
#include "tests/host/space_scene.h"

#include <string.h>

#define WINDOW     (SIM_KMAP + GiB) /* in the kernel's half */
#define WINDOW_END (WINDOW + GiB)
#define USER       GiB
#define TEXT       UINT64_C(0xffffffff80000000)

/* Map @bytes of devices, @page pages behind the first of them. */
static void map_device(vaddr_t address, uint64_t page, uint64_t bytes,
                       unsigned flags, enum pt_memory memory)
{
    struct pt_attr attr = {(uint8_t)flags, (uint8_t)memory, 0};

    CHECK_EQUAL(
        once_map(&pt_kernel, address, pfn_of(DEVICE_PFN + page), bytes, attr),
        MM_OK);
}

/* --- runs and extents ----------------------------------------------------- */

struct list {
    unsigned count;
    struct audit_run run[8];
};

static bool collect(void *context, const struct audit_run *run)
{
    struct list *list = context;

    if (list->count < 8) {
        list->run[list->count] = *run;
    }
    list->count++;
    return true;
}

TEST(audit, extents_end_where_frames_do)
{
    struct list runs = {0};
    struct list extents = {0};

    sim_boot(RAM);
    CHECK_HELPER(map_device(WINDOW, 7, 3 * PAGE_BYTES, 0, PT_WB));
    CHECK_HELPER(
        map_device(WINDOW + 3 * PAGE_BYTES, 20, 2 * PAGE_BYTES, 0, PT_WB));
    audit_runs(&pt_kernel, WINDOW, WINDOW_END, collect, &runs);
    audit_extents(&pt_kernel, WINDOW, WINDOW_END, collect, &extents);
    CHECK_EQUAL(runs.count, 1);
    CHECK_EQUAL(runs.run[0].bytes, 5 * PAGE_BYTES);
    CHECK(!runs.run[0].is_contiguous);
    CHECK_EQUAL(extents.count, 2);
    CHECK_EQUAL(extents.run[0].bytes, 3 * PAGE_BYTES);
    CHECK(extents.run[0].is_contiguous);
    CHECK_EQUAL(extents.run[1].start, WINDOW + 3 * PAGE_BYTES);
    CHECK_EQUAL(extents.run[1].pfn.v, DEVICE_PFN + 20);
}

TEST(audit, promises_of_an_object_count_up)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct list list = {0};

    sim_boot(RAM);
    CHECK_EQUAL(pt_open(&pt_kernel, WINDOW, WINDOW_END, &batch, &cursor),
                MM_OK);
    CHECK_EQUAL(
        pt_promise(&cursor, WINDOW, 4 * MiB, PT_OBJECT, pt_attr(0), 1000),
        MM_OK);
    CHECK_EQUAL(
        pt_promise(&cursor, WINDOW + 4 * MiB, MiB, PT_OBJECT, pt_attr(0), 5),
        MM_OK);
    pt_close(&cursor);
    tlb_commit(&batch);
    /* From inside a large promise on. */
    audit_extents(&pt_kernel, WINDOW + MiB, WINDOW_END, collect, &list);
    CHECK_EQUAL(list.count, 2);
    CHECK_EQUAL(list.run[0].payload, 1000 + MiB / PAGE_BYTES);
    CHECK_EQUAL(list.run[0].bytes, 3 * MiB);
    CHECK_EQUAL(list.run[1].payload, 5);
}

/* --- aliases: examples ---------------------------------------------------- */

static struct audit_aliases found;

static bool has_aliases(uint64_t rights, uint64_t memory)
{
    bool is_clean = audit_aliases(&pt_kernel, &found);
    bool is_as_told = found.rights == rights && found.memory == memory;

    if (!is_as_told) {
        test_fail(__FILE__, __LINE__, "%lu by rights, %lu by memory type",
                  found.rights, found.memory);
    }
    return is_as_told && is_clean == (rights + memory == 0);
}

TEST(audit, code_that_is_writable_elsewhere_is_found)
{
    struct audit_verdict verdict;
    struct walk walk;

    sim_boot(RAM);
    CHECK(has_aliases(0, 0));
    walk_address(pt_kernel.root, TEXT + 3 * PAGE_BYTES, &walk);
    pfn_t code = phys_to_pfn(walk.physical);
    CHECK_EQUAL(once_map(&pt_kernel, WINDOW, code, PAGE_BYTES, pt_attr(0)),
                MM_OK);
    CHECK(has_aliases(0, 0)); /* to read it does no harm */
    CHECK_EQUAL(once_map(&pt_kernel, WINDOW + PAGE_BYTES, code, PAGE_BYTES,
                         pt_attr(PT_WRITE)),
                MM_OK);
    CHECK(has_aliases(1, 0));
    CHECK_EQUAL(found.address[0], TEXT + 3 * PAGE_BYTES);
    CHECK_EQUAL(found.address[1], WINDOW + PAGE_BYTES);
    CHECK(!pt_audit(&pt_kernel, &verdict));
    CHECK_EQUAL(verdict.aliases.rights, 1);
    CHECK_EQUAL(verdict.writable_exec, 0);
}

TEST(audit, memory_types_that_differ_are_found)
{
    sim_boot(RAM);
    CHECK_HELPER(map_device(WINDOW, 0, 16 * PAGE_BYTES, PT_WRITE, PT_UC));
    CHECK_HELPER(map_device(WINDOW + MiB, 0, 16 * PAGE_BYTES, 0, PT_UC));
    CHECK(has_aliases(0, 0)); /* twice, but alike */
    CHECK_HELPER(map_device(WINDOW + 2 * MiB, 15, 4 * PAGE_BYTES, 0, PT_WC));
    CHECK(has_aliases(0, 2)); /* each pair once */
    CHECK_EQUAL(found.address[0], WINDOW + 2 * MiB);
    CHECK_EQUAL(found.address[1], WINDOW + 15 * PAGE_BYTES);
    CHECK_HELPER(map_device(WINDOW + 3 * MiB, 16, PAGE_BYTES, 0, PT_WB));
    CHECK(has_aliases(0, 3)); /* of two devices, one has the frame */
    CHECK_EQUAL(once_unmap(&pt_kernel, WINDOW + 2 * MiB, MiB), MM_OK);
    CHECK(has_aliases(0, 0));
}

/* One mapping is large, the other a page in its middle. */
TEST(audit, a_page_of_a_large_one_is_found)
{
    sim_boot(RAM);
    CHECK_HELPER(map_device(WINDOW, 0, 4 * MiB, PT_WRITE, PT_WB));
    CHECK_HELPER(map_device(WINDOW + 8 * MiB, 700, PAGE_BYTES, 0, PT_UC));
    CHECK(has_aliases(0, 1));
    CHECK_EQUAL(found.address[0], WINDOW + 8 * MiB);
    CHECK_EQUAL(found.address[1], WINDOW + 700 * PAGE_BYTES);
}

/* More than are remembered at once, and the last one is the bad one. */
TEST(audit, any_number_of_devices_is_compared)
{
    const unsigned devices = 100;
    const uint64_t stride = 4 * PAGE_BYTES;

    sim_boot(RAM);
    for (unsigned i = 0; i < devices; i++) {
        CHECK_HELPER(map_device(WINDOW + i * stride, 2 * i, PAGE_BYTES,
                                PT_WRITE, i % 2 ? PT_UC : PT_WC));
    }
    CHECK(has_aliases(0, 0));
    for (unsigned i = 0; i < devices; i++) {
        vaddr_t other = WINDOW + MiB * 2;

        CHECK_HELPER(map_device(other, 2 * i, PAGE_BYTES, 0, PT_WB));
        CHECK(has_aliases(0, 1));
        CHECK_EQUAL(found.address[0], WINDOW + i * stride);
        CHECK_EQUAL(once_unmap(&pt_kernel, other, PAGE_BYTES), MM_OK);
    }
}

/* The kernel fills what user mode executes; user mode must not. */
TEST(audit, user_code_is_writable_for_the_kernel_alone)
{
    struct pt_attr code = pt_attr(PT_EXEC | PT_USER);
    struct audit_verdict verdict;

    CHECK_HELPER(start());
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    CHECK_EQUAL(once_map(&space, USER, pfn, PAGE_BYTES, code), MM_OK);
    CHECK(audit_aliases(&space, &found)); /* the direct map has it, too */
    CHECK_EQUAL(once_map(&space, USER + PAGE_BYTES, pfn, PAGE_BYTES,
                         pt_attr(PT_WRITE | PT_USER)),
                MM_OK);
    CHECK(!audit_aliases(&space, &found));
    CHECK_EQUAL(found.rights, 1);
    CHECK(pt_audit(&space, &verdict)); /* which is the space's own choice */
    CHECK(audit_aliases(&pt_kernel, &found));
    CHECK_HELPER(finish());
    frame_free(pfn, 0);
}

/* Uncached in a space, cached in the direct map. */
TEST(audit, a_space_is_compared_with_the_kernel)
{
    struct pt_attr uncached = {PT_WRITE | PT_USER, PT_UC, 0};

    CHECK_HELPER(start());
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    CHECK_EQUAL(once_map(&space, USER, pfn, PAGE_BYTES, uncached), MM_OK);
    CHECK(!audit_aliases(&space, &found));
    CHECK_EQUAL(found.memory, 1);
    CHECK_EQUAL(found.address[0], USER);
    CHECK_EQUAL(found.address[1], SIM_DIRECT + pfn_to_phys(pfn).v);
    CHECK_HELPER(finish());
    frame_free(pfn, 0);
}

TEST(audit, without_nx_rights_say_nothing)
{
    static const struct pt_features no_nx = {4, 40, false, true, true};

    sim_boot_with(RAM, &no_nx);
    CHECK(has_aliases(0, 0));
}

/* --- aliases: a page-by-page account -------------------------------------- */

#define PAGES  48
#define FRAMES 40

struct page {
    bool is_present;
    uint64_t frame;
    struct pt_attr attr;
};

static struct page model[PAGES];
static struct test_random source;

static void map_at_random(void)
{
    static const unsigned flags[] = {0, PT_WRITE, PT_EXEC, 0};
    static const enum pt_memory memory[] = {PT_WB, PT_WB, PT_WB, PT_UC, PT_WC};
    unsigned first = (unsigned)test_random_below(&source, PAGES);
    unsigned count = 1 + (unsigned)test_random_below(&source, 4);
    uint64_t frame = test_random_below(&source, FRAMES);
    struct pt_attr attr = {(uint8_t)flags[test_random_below(&source, 4)],
                           (uint8_t)memory[test_random_below(&source, 5)], 0};

    for (unsigned i = first; i < first + count && i < PAGES; i++) {
        vaddr_t address = WINDOW + i * PAGE_BYTES;

        if (model[i].is_present) {
            CHECK_EQUAL(once_unmap(&pt_kernel, address, PAGE_BYTES), MM_OK);
        }
        model[i] = (struct page){true, frame + i - first, attr};
        CHECK_HELPER(map_device(address, model[i].frame, PAGE_BYTES, attr.flags,
                                (enum pt_memory)attr.memory));
    }
}

/* Does the model have a pair that shares a frame and clashes so? */
static bool clashes(bool (*is_bad)(const struct page *a, const struct page *b))
{
    for (unsigned i = 0; i < PAGES; i++) {
        for (unsigned k = 0; k < PAGES; k++) {
            if (i != k && model[i].is_present && model[k].is_present &&
                model[i].frame == model[k].frame &&
                is_bad(&model[i], &model[k])) {
                return true;
            }
        }
    }
    return false;
}

static bool by_rights(const struct page *a, const struct page *b)
{
    return (a->attr.flags & PT_EXEC) != 0 && (b->attr.flags & PT_WRITE) != 0;
}

static bool by_memory(const struct page *a, const struct page *b)
{
    return a->attr.memory != b->attr.memory;
}

/* The pair that is named shares a frame, and is not one page. */
static void check_named_pair(void)
{
    struct walk walk[2];

    for (unsigned i = 0; i < 2; i++) {
        walk_address(pt_kernel.root, found.address[i], &walk[i]);
        CHECK_EQUAL(walk[i].state, PTE_PRESENT);
    }
    CHECK_EQUAL(walk[0].physical.v, walk[1].physical.v);
    CHECK(found.address[0] != found.address[1]);
}

TEST(audit, aliases_are_those_of_a_naive_account)
{
    unsigned clean = 0;
    unsigned seen = 0;

    test_random_init(&source, test_seed());
    for (unsigned round = 0; round < 60; round++) {
        sim_boot(RAM);
        memset(model, 0, sizeof(model));
        for (unsigned i = 0; i < 12; i++) {
            CHECK_HELPER(map_at_random());
            bool is_clean = audit_aliases(&pt_kernel, &found);
            CHECK_EQUAL(found.rights > 0, clashes(by_rights));
            CHECK_EQUAL(found.memory > 0, clashes(by_memory));
            if (!is_clean) {
                CHECK_HELPER(check_named_pair());
            }
            clean += is_clean ? 1 : 0;
            seen += is_clean ? 0 : 1;
        }
    }
    CHECK(clean > 50 && seen > 50);
}
