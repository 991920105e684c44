/* SPDX-License-Identifier: MIT */
/* Page tables against a naive page-by-page model and the simulated MMU. */
/*
 * At risk: an operation on a range that says something else at one page of
 * it, or beside it; a large entry split or merged wrongly; a translation left
 * in a TLB; a table or frame lost or released early; a failure that leaves a
 * trace. So random operations of all kinds and sizes run beside an array that
 * has one word for each page, with a TLB that never forgets by itself, and
 * every allocation is made to fail.
 */
#include "tests/host/space_scene.h"

#include <string.h>

#include "base/bits.h"

/* The window: around 1 GiB, so that levels 0 to 3 are crossed. */
#define WINDOW_PAGES 4096u
#define WINDOW       (GiB - WINDOW_PAGES / 2 * PAGE_BYTES)
#define WINDOW_END   (WINDOW + WINDOW_PAGES * PAGE_BYTES)

struct page {
    enum pte_state state;
    enum pt_promise promise;
    uint64_t payload;
    pfn_t pfn;
    struct pt_attr attr;
};

static struct page model[WINDOW_PAGES];
static struct test_random randomness;

static uint64_t below(uint64_t limit)
{
    return test_random_below(&randomness, limit);
}

static vaddr_t page_address(unsigned page)
{
    return WINDOW + page * PAGE_BYTES;
}

static void start_model(void)
{
    memset(model, 0, sizeof(model));
    test_random_init(&randomness, test_seed());
    start();
}

/* What an access must come to, from the model alone. */
static enum walk_verdict expected_verdict(const struct page *page,
                                          unsigned access)
{
    unsigned flags = page->attr.flags;
    bool by_user = (access & WALK_USER) != 0;

    if (page->state != PTE_PRESENT) {
        return WALK_NOT_PRESENT;
    }
    if (by_user && !(flags & PT_USER)) {
        return WALK_SUPERVISOR;
    }
    if (access & WALK_EXEC) {
        if (!(flags & PT_EXEC)) {
            return WALK_NO_EXECUTE;
        }
        return (flags & PT_USER) && !by_user ? WALK_USER_EXEC : WALK_ALLOWED;
    }
    if ((flags & PT_USER) && !by_user) {
        return WALK_USER_ACCESS;
    }
    return (access & WALK_WRITE) && !(flags & PT_WRITE) ? WALK_READ_ONLY
                                                        : WALK_ALLOWED;
}

static unsigned random_access(void)
{
    static const unsigned kind[] = {WALK_READ, WALK_WRITE, WALK_EXEC};

    return kind[below(3)] | (below(2) ? WALK_USER : 0);
}

/* One access through the TLB: it must do what the model says. */
static void touch(unsigned index)
{
    unsigned access = random_access();
    uint64_t inside = below(PAGE_BYTES);
    paddr_t physical;
    enum walk_verdict verdict =
        sim_translate(page_address(index) + inside, access, &physical);

    CHECK_EQUAL(verdict, expected_verdict(&model[index], access));
    if (verdict == WALK_ALLOWED) {
        CHECK_EQUAL(physical.v, pfn_to_phys(model[index].pfn).v + inside);
    }
}

static void compare_page(unsigned index, const struct pt_entry *entry)
{
    const struct page *page = &model[index];
    uint64_t pages = (page_address(index) - entry->start) >> PAGE_SHIFT;

    CHECK_EQUAL(entry->state, page->state);
    if (page->state == PTE_ABSENT) {
        return;
    }
    CHECK(pt_attr_equal(entry->attr, page->attr));
    if (page->state == PTE_PRESENT) {
        CHECK_EQUAL(entry->pfn.v + pages, page->pfn.v);
        return;
    }
    CHECK_EQUAL(entry->promise, page->promise);
    uint64_t step = page->promise == PT_OBJECT ? pages : 0;
    CHECK_EQUAL(entry->payload + step, page->payload);
}

static void compare_all(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct pt_entry entry;

    CHECK_EQUAL(pt_open(&space, WINDOW, WINDOW_END, &batch, &cursor), MM_OK);
    for (unsigned i = 0; i < WINDOW_PAGES && !test_has_failed(); i++) {
        pt_query(&cursor, page_address(i), &entry);
        compare_page(i, &entry);
    }
    pt_close(&cursor);
}

static struct pt_attr random_attr(void)
{
    static const unsigned flags[] = {
        0, PT_WRITE, PT_EXEC, PT_USER, PT_USER | PT_WRITE, PT_USER | PT_EXEC};
    static const enum pt_memory memory[] = {PT_WB, PT_WB, PT_WC, PT_UC};
    struct pt_attr attr = {(uint8_t)flags[below(6)], (uint8_t)memory[below(4)],
                           (uint8_t)below(256)};

    return attr;
}

struct extent {
    unsigned first;
    unsigned count;
};

/* All sizes: single pages, odd runs, whole aligned 2 MiB. */
static struct extent random_extent(void)
{
    struct extent extent;

    switch (below(4)) {
    case 0:
        extent.first = (unsigned)below(WINDOW_PAGES);
        extent.count = 1;
        break;
    case 1:
        extent.first = (unsigned)below(WINDOW_PAGES / 512) * 512;
        extent.count = 512 * (1 + (unsigned)below(2));
        break;
    default:
        extent.first = (unsigned)below(WINDOW_PAGES);
        extent.count = 1 + (unsigned)below(700);
        break;
    }
    if (extent.count > WINDOW_PAGES - extent.first) {
        extent.count = WINDOW_PAGES - extent.first;
    }
    return extent;
}

static bool model_is_vacant(struct extent extent)
{
    for (unsigned i = 0; i < extent.count; i++) {
        enum pte_state state = model[extent.first + i].state;
        if (state == PTE_PRESENT || state == PTE_PARKED) {
            return false;
        }
    }
    return true;
}

static void model_set(struct extent extent, struct page page)
{
    for (unsigned i = 0; i < extent.count; i++) {
        struct page *one = &model[extent.first + i];

        *one = page;
        one->pfn = pfn_add(page.pfn, page.state == PTE_PRESENT ? i : 0);
        if (page.state == PTE_PROMISE && page.promise == PT_OBJECT) {
            one->payload = page.payload + i;
        }
    }
}

static enum mm_status random_map(struct pt_cursor *cursor, struct extent extent)
{
    struct page page = {.state = PTE_PRESENT, .attr = random_attr()};
    enum mm_status status;

    /* Half of the time alike modulo 2 MiB, so that large leaves arise. */
    page.pfn = pfn_of(DEVICE_PFN + (below(2) ? extent.first : below(5000)));
    status = pt_map(cursor, page_address(extent.first), page.pfn,
                    extent.count * PAGE_BYTES, page.attr);
    if (!model_is_vacant(extent)) {
        return status == MM_EEXIST ? MM_EEXIST : MM_EFAULT;
    }
    if (status == MM_OK) {
        model_set(extent, page);
    }
    return status;
}

static enum mm_status random_promise(struct pt_cursor *cursor,
                                     struct extent extent)
{
    struct page page = {.state = PTE_PROMISE, .attr = random_attr()};
    enum mm_status status;

    page.promise = (enum pt_promise)below(4);
    page.payload = page.promise == PT_OBJECT ? below(1 << 20) : 0;
    status = pt_promise(cursor, page_address(extent.first),
                        extent.count * PAGE_BYTES, page.promise, page.attr,
                        page.payload);
    if (!model_is_vacant(extent)) {
        return status == MM_EEXIST ? MM_EEXIST : MM_EFAULT;
    }
    if (status == MM_OK) {
        model_set(extent, page);
    }
    return status;
}

static enum mm_status random_protect(struct pt_cursor *cursor,
                                     struct extent extent)
{
    struct pt_attr attr = random_attr();
    enum mm_status status = pt_protect(cursor, page_address(extent.first),
                                       extent.count * PAGE_BYTES, attr);

    for (unsigned i = 0; status == MM_OK && i < extent.count; i++) {
        struct page *page = &model[extent.first + i];
        if (page->state != PTE_ABSENT) {
            page->attr.flags = attr.flags;
            page->attr.memory = attr.memory;
        }
    }
    return status;
}

static enum mm_status random_unmap(struct pt_cursor *cursor,
                                   struct extent extent)
{
    vaddr_t begin = page_address(extent.first);
    vaddr_t reached;
    enum mm_status status =
        pt_unmap(cursor, begin, extent.count * PAGE_BYTES, &reached);

    if (status == MM_OK) {
        model_set(extent, (struct page){.state = PTE_ABSENT});
        return reached == begin + extent.count * PAGE_BYTES ? MM_OK : MM_EFAULT;
    }
    return status;
}

/* Neither changes what anything means. */
static enum mm_status random_resize(struct pt_cursor *cursor,
                                    struct extent extent)
{
    vaddr_t address = page_address(extent.first);

    if (below(2)) {
        enum mm_status status = pt_split(cursor, address);
        return status == MM_ENOENT ? MM_OK : status;
    }
    enum mm_status status = pt_merge(cursor, address, 1);
    return status == MM_ENOENT || status == MM_EINVAL ? MM_OK : status;
}

static enum mm_status random_step(struct pt_cursor *cursor)
{
    struct extent extent = random_extent();

    switch (below(10)) {
    case 0:
    case 1:
    case 2:
        return random_map(cursor, extent);
    case 3:
    case 4:
        return random_promise(cursor, extent);
    case 5:
    case 6:
        return random_protect(cursor, extent);
    case 7:
    case 8:
        return random_unmap(cursor, extent);
    default:
        return random_resize(cursor, extent);
    }
}

/* One operation in its own cursor; the lock covers more than it needs. */
static void step(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    CHECK_EQUAL(pt_open(&space, WINDOW, WINDOW_END, &batch, &cursor), MM_OK);
    enum mm_status status = random_step(&cursor);
    pt_close(&cursor);
    tlb_commit(&batch);
    CHECK(status == MM_OK || status == MM_EEXIST || status == MM_ENOMEM);
    CHECK_EQUAL(sim_stale(), 0);
}

static void warm_up(void)
{
    for (unsigned i = 0; i < 12 && !test_has_failed(); i++) {
        touch((unsigned)below(WINDOW_PAGES));
        if (!test_has_failed()) {
            sim_walk_ahead(page_address((unsigned)below(WINDOW_PAGES)));
        }
    }
}

TEST(pt_model, random_operations_match_a_naive_model)
{
    CHECK_HELPER(start_model());
    for (unsigned i = 0; i < 6000; i++) {
        CHECK_HELPER(warm_up());
        CHECK_HELPER(step());
        if (i % 64 == 0) {
            struct audit_verdict verdict;
            CHECK_HELPER(compare_all());
            CHECK(pt_audit(&space, &verdict));
        }
    }
    CHECK_HELPER(compare_all());
    CHECK_HELPER(finish());
}

/* Every allocation fails once in a while, and then nothing has changed. */
TEST(pt_model, failed_allocations_leave_no_trace)
{
    unsigned failures = 0;

    CHECK_HELPER(start_model());
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t tables = atomic_load(&space.tables);
        struct tlb_batch batch;
        struct pt_cursor cursor;

        frame_inject(1 + below(3));
        CHECK_EQUAL(pt_open(&space, WINDOW, WINDOW_END, &batch, &cursor),
                    MM_OK);
        enum mm_status status = random_step(&cursor);
        pt_close(&cursor);
        tlb_commit(&batch);
        frame_inject(0);
        CHECK(status == MM_OK || status == MM_EEXIST || status == MM_ENOMEM);
        if (status == MM_ENOMEM) {
            struct audit_verdict verdict;

            failures++;
            CHECK_HELPER(compare_all());
            CHECK(pt_audit(&space, &verdict));
            /* A split that went through stays; it says the same. */
            CHECK(atomic_load(&space.tables) <= tables + 2);
        }
    }
    CHECK(failures > 20);
    CHECK_HELPER(finish());
}
