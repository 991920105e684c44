/* SPDX-License-Identifier: MIT */
/* Which cursors run side by side, and which take turns. */
/*
 * At risk: a lock that is taken too high, so that all the work on tables is
 * done by one CPU at a time, and nobody notices; or too low, so that two have
 * the same entry. One CPU holds a cursor open, for as long as it likes; the
 * other opens, changes and closes its own. If it must wait, it does until the
 * first one closes, and not longer.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <mm/audit.h>
#include <mm/frame.h>
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/test.h"

#define RAM_BYTES (64 * MiB)

/* What is called waiting: so often another thread could have gone on. */
#define TURNS 2000

static struct pt space;

struct range {
    vaddr_t start;
    uint64_t bytes;
};

static struct range other;
static _Atomic bool has_opened;
static _Atomic bool is_done;

static void yield(void)
{
    sched_yield();
}

static const struct sim_driver driver = {.relax = yield};

/* Open, change and close a range as CPU 1. */
static void *change_other(void *context)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct pt_entry entry;

    (void)context;
    sim_set_cpu(1);
    if (pt_open(&space, other.start, other.start + other.bytes, &batch,
                &cursor) == MM_OK) {
        atomic_store(&has_opened, true);
        pt_query(&cursor, other.start, &entry);
        if (pt_protect(&cursor, other.start, other.bytes, pt_attr(0)) ==
            MM_OK) {
            atomic_store(&is_done, entry.state != PTE_ABSENT);
        }
        pt_close(&cursor);
        tlb_commit(&batch);
    }
    return NULL;
}

/* Pages at both ends of the range, so that there are tables. */
static void populate(struct range range)
{
    vaddr_t page[] = {range.start, range.start + range.bytes - PAGE_BYTES};
    struct tlb_batch batch;
    struct pt_cursor cursor;

    CHECK_EQUAL(pt_open(&space, range.start, range.start + range.bytes, &batch,
                        &cursor),
                MM_OK);
    for (unsigned i = 0; i < 2; i++) {
        enum mm_status status =
            pt_promise(&cursor, page[i], PAGE_BYTES, PT_ZERO, pt_attr(0), 0);
        CHECK_EQUAL(status, MM_OK);
    }
    pt_close(&cursor);
    tlb_commit(&batch);
}

/* Does the other go on while this one has @mine open? */
static void hold(struct range mine, struct range others, bool must_wait)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    pthread_t thread;

    other = others;
    atomic_store(&has_opened, false);
    atomic_store(&is_done, false);
    CHECK_EQUAL(
        pt_open(&space, mine.start, mine.start + mine.bytes, &batch, &cursor),
        MM_OK);
    CHECK_EQUAL(pthread_create(&thread, NULL, change_other, NULL), 0);
    for (unsigned i = 0; must_wait && i < TURNS; i++) {
        sched_yield();
    }
    bool has_waited = !atomic_load(&has_opened);
    if (!must_wait) {
        /* For ever, if it waits: the runner ends that. */
        CHECK_EQUAL(pthread_join(thread, NULL), 0);
    }
    pt_close(&cursor);
    tlb_commit(&batch);
    if (must_wait) {
        CHECK_EQUAL(pthread_join(thread, NULL), 0);
    }
    CHECK(atomic_load(&is_done));
    CHECK(!must_wait || has_waited);
}

static const struct {
    struct range a;
    struct range b;
    bool must_wait;
} pairs[] = {
    /* tables of level 0, 1 and 2 of their own */
    {{GiB, PAGE_BYTES}, {GiB + 2 * MiB, PAGE_BYTES}, false},
    {{GiB, 2 * MiB - PAGE_BYTES}, {GiB + 2 * MiB, MiB}, false},
    {{GiB, PAGE_BYTES}, {3 * GiB, PAGE_BYTES}, false},
    {{GiB, GiB - PAGE_BYTES}, {3 * GiB, GiB - PAGE_BYTES}, false},
    {{GiB, PAGE_BYTES}, {2 * TiB, PAGE_BYTES}, false},
    {{TiB, 511 * GiB}, {TiB + 512 * GiB, 4 * PAGE_BYTES}, false},
    /* one is all of what a table says: its entry may change, too */
    {{GiB, 2 * MiB}, {GiB + 2 * MiB, 2 * MiB}, true},
    /* the same page, a part, from the other side, the whole */
    {{GiB, PAGE_BYTES}, {GiB, PAGE_BYTES}, true},
    {{GiB, 2 * MiB}, {GiB + MiB, PAGE_BYTES}, true},
    {{GiB + MiB, PAGE_BYTES}, {GiB, 2 * GiB}, true},
    {{GiB, 2 * GiB}, {GiB + 2 * MiB, PAGE_BYTES}, true},
    {{GiB + PAGE_BYTES, 3 * MiB}, {GiB + 2 * MiB, 4 * MiB}, true},
    {{GiB, 4 * TiB}, {2 * TiB, PAGE_BYTES}, true},
};

TEST(pt_order_threads, ranges_without_common_tables_run_side_by_side)
{
    sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
    CHECK_EQUAL(pt_init(&space), MM_OK);
    for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        CHECK_HELPER(populate(pairs[i].a));
        CHECK_HELPER(populate(pairs[i].b));
    }
    sim_set_driver(&driver);
    for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        CHECK_HELPER(hold(pairs[i].a, pairs[i].b, pairs[i].must_wait));
        CHECK_HELPER(hold(pairs[i].b, pairs[i].a, pairs[i].must_wait));
    }
    sim_set_driver(NULL);
    struct audit_verdict verdict;
    CHECK(pt_audit(&space, &verdict));
    pt_fini(&space);
}
