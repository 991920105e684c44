/* SPDX-License-Identifier: MIT */
/* changes: two listings compared, beside a page-by-page account. */
/*
 * At risk: a page that is reported twice, or not at all, or against the wrong
 * frame, where ranges begin and end at different pages. Provoked by random
 * tables of a few pages, also at the end of memory, as extents and as pages.
 */
#include "kernel/monitor/changes.h"

#include <string.h>

#include "tests/shared/test.h"

#define PAGES 40

/* 0: nothing. Else a kind of entry, for frame or number `at`. */
struct page {
    unsigned kind;
    uint64_t at;
};

enum kind { NOTHING, READ_ONLY, WRITABLE, PARKED, OBJECT, GUARD, KINDS };

static vaddr_t window; /* address of the first page */
static struct page then[PAGES];
static struct page now[PAGES];
static struct page seen[PAGES][2]; /* as reported: then, now */
static bool is_reported[PAGES];
static struct test_random source;

static struct audit_run run_of(unsigned index, const struct page *page)
{
    struct audit_run run = {.start = window + index * PAGE_BYTES,
                            .bytes = PAGE_BYTES,
                            .state = PTE_PRESENT,
                            .pfn = PFN_NONE};

    switch (page->kind) {
    case WRITABLE:
        run.attr.flags = PT_WRITE;
        break;
    case PARKED:
        run.state = PTE_PARKED;
        break;
    case OBJECT:
    case GUARD:
        run.state = PTE_PROMISE;
        run.promise = page->kind == OBJECT ? PT_OBJECT : PT_GUARD;
        run.payload = page->kind == OBJECT ? page->at : 0;
        return run;
    default:
        break;
    }
    run.pfn = pfn_of(page->at);
    return run;
}

static struct page page_of(const struct audit_run *run, unsigned index)
{
    if (run->state == PTE_PROMISE) {
        return run->promise == PT_GUARD
                   ? (struct page){GUARD, 0}
                   : (struct page){OBJECT, run->payload + index};
    }
    unsigned kind = run->state == PTE_PARKED            ? PARKED
                    : (run->attr.flags & PT_WRITE) != 0 ? WRITABLE
                                                        : READ_ONLY;
    return (struct page){kind, run->pfn.v + index};
}

static bool are_alike(const struct page *a, const struct page *b)
{
    return a->kind == b->kind && (a->kind == NOTHING || a->at == b->at);
}

/* Extents of @pages, as audit_extents() makes them; how many. */
static size_t list_extents(const struct page *pages, struct audit_run *out)
{
    size_t count = 0;

    for (unsigned i = 0; i < PAGES; i++) {
        bool goes_on =
            i > 0 && pages[i - 1].kind == pages[i].kind &&
            (pages[i].kind == GUARD || pages[i].at == pages[i - 1].at + 1);
        if (pages[i].kind == NOTHING) {
            continue;
        }
        if (goes_on) {
            out[count - 1].bytes += PAGE_BYTES;
        } else {
            out[count] = run_of(i, &pages[i]);
            count++;
        }
    }
    return count;
}

static void note(void *context, const struct audit_run *before,
                 const struct audit_run *after)
{
    const struct audit_run *any = before != NULL ? before : after;
    unsigned first = (unsigned)((any->start - window) / PAGE_BYTES);

    (void)context;
    if (before != NULL && after != NULL &&
        (before->start != after->start || before->bytes != after->bytes)) {
        test_fail(__FILE__, __LINE__, "not the same range");
    }
    for (unsigned i = 0; i < any->bytes / PAGE_BYTES; i++) {
        const struct page nothing = {NOTHING, 0};

        if (is_reported[first + i]) {
            test_fail(__FILE__, __LINE__, "page %u twice", first + i);
        }
        is_reported[first + i] = true;
        seen[first + i][0] = before != NULL ? page_of(before, i) : nothing;
        seen[first + i][1] = after != NULL ? page_of(after, i) : nothing;
    }
}

static void compare(void)
{
    static struct audit_run extent[2][PAGES];
    size_t count = list_extents(then, extent[0]);
    size_t count_now = list_extents(now, extent[1]);
    struct changes changes;

    memset(is_reported, 0, sizeof(is_reported));
    changes_init(&changes, extent[0], count, note, NULL);
    for (size_t i = 0; i < count_now; i++) {
        CHECK(changes_add(&changes, &extent[1][i]));
    }
    changes_end(&changes);
    for (unsigned i = 0; i < PAGES && !test_has_failed(); i++) {
        CHECK_EQUAL(is_reported[i], !are_alike(&then[i], &now[i]));
        if (is_reported[i]) {
            CHECK(are_alike(&seen[i][0], &then[i]));
            CHECK(are_alike(&seen[i][1], &now[i]));
        }
    }
}

static void change_at_random(struct page *pages)
{
    unsigned first = (unsigned)test_random_below(&source, PAGES);
    unsigned count = 1 + (unsigned)test_random_below(&source, 8);
    unsigned kind = (unsigned)test_random_below(&source, KINDS);
    uint64_t at = test_random_below(&source, 2) ? first : 100;

    for (unsigned i = first; i < first + count && i < PAGES; i++) {
        pages[i] = (struct page){kind, kind == GUARD ? 0 : at + i - first};
    }
}

static void compare_at_random(void)
{
    for (unsigned round = 0; round < 3000; round++) {
        memset(then, 0, sizeof(then));
        for (unsigned i = 0; i < 8; i++) {
            change_at_random(then);
        }
        memcpy(now, then, sizeof(now));
        for (unsigned i = (unsigned)test_random_below(&source, 5); i > 0; i--) {
            change_at_random(now);
        }
        CHECK_HELPER(compare());
    }
}

TEST(changes, each_page_that_differs_is_told_once)
{
    test_random_init(&source, test_seed());
    window = UINT64_C(0xffffc00000000000);
    CHECK_HELPER(compare_at_random());
    window = UINT64_C(0) - PAGES * PAGE_BYTES; /* up to 2^64 */
    CHECK_HELPER(compare_at_random());
    window = 0;
    CHECK_HELPER(compare_at_random());
}

static unsigned pieces;

static void count_pieces(void *context, const struct audit_run *before,
                         const struct audit_run *after)
{
    (void)context;
    (void)before;
    (void)after;
    pieces++;
}

/* A large page that became 512 small ones has changed, though it maps alike. */
TEST(changes, the_size_of_pages_counts)
{
    struct audit_run large = {.start = 2 * MiB,
                              .bytes = 2 * MiB,
                              .state = PTE_PRESENT,
                              .level = 1,
                              .pfn = pfn_of(512)};
    struct audit_run small = large;
    struct changes changes;

    small.level = 0;
    pieces = 0;
    changes_init(&changes, &large, 1, count_pieces, NULL);
    CHECK(changes_add(&changes, &small));
    changes_end(&changes);
    CHECK_EQUAL(pieces, 1);
    changes_init(&changes, &large, 1, count_pieces, NULL);
    CHECK(changes_add(&changes, &large));
    changes_end(&changes);
    CHECK_EQUAL(pieces, 1);
}
