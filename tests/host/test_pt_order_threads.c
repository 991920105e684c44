/* SPDX-License-Identifier: MIT */
/* Which cursors run side by side, and which take turns. */
/*
 * At risk: a lock that is taken too high, so that all the work on tables is
 * done by one CPU at a time, and nobody notices; or too low, so that two have
 * the same entry. One CPU holds a cursor open, for as long as it likes; the
 * other opens, changes and closes its own. If it must wait, it does until the
 * first one closes, and not longer.
 */
#include <sched.h>
#include <stdatomic.h>

#include <mm/audit.h>
#include <mm/frame.h>
#include "tests/host/players.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"

#define RAM_BYTES (64 * MiB)

/* What is called waiting: so often another thread could have gone on. */
#define TURNS 2000

static struct pt space;

struct range {
    vaddr_t start;
    uint64_t bytes;
};

/* What is tried: CPU 0 has one open, CPU 1 changes the other. */
static struct range held;
static struct range other;
static bool must_wait;
static _Atomic bool is_held;
static _Atomic bool has_opened;
static _Atomic bool is_done;

static void wait_for(_Atomic bool *what)
{
    while (!atomic_load(what)) {
        sched_yield();
    }
}

static bool open_range(struct range range, struct tlb_batch *batch,
                       struct pt_cursor *out)
{
    return pt_open(&space, range.start, range.start + range.bytes, batch,
                   out) == MM_OK;
}

/* Does the other go on while this one has its range open? */
static void hold(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    player_expect(open_range(held, &batch, &cursor));
    atomic_store(&is_held, true);
    for (unsigned i = 0; must_wait && i < TURNS; i++) {
        sched_yield();
    }
    player_expect(!must_wait || !atomic_load(&has_opened));
    if (!must_wait) {
        wait_for(&is_done); /* for ever, if it waits: the runner ends that */
    }
    pt_close(&cursor);
    tlb_commit(&batch);
}

static void change_other(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct pt_entry entry;

    wait_for(&is_held);
    player_expect(open_range(other, &batch, &cursor));
    atomic_store(&has_opened, true);
    pt_query(&cursor, other.start, &entry);
    player_expect(entry.state != PTE_ABSENT);
    player_expect(pt_protect(&cursor, other.start, other.bytes, pt_attr(0)) ==
                  MM_OK);
    pt_close(&cursor);
    tlb_commit(&batch);
    atomic_store(&is_done, true);
}

static void act(void)
{
    if (player_me()->cpu == 0) {
        hold();
    } else {
        change_other();
    }
}

/* Pages at both ends of the range, so that there are tables. */
static void populate(struct range range)
{
    vaddr_t page[] = {range.start, range.start + range.bytes - PAGE_BYTES};
    struct tlb_batch batch;
    struct pt_cursor cursor;

    CHECK(open_range(range, &batch, &cursor));
    for (unsigned i = 0; i < 2; i++) {
        enum mm_status status =
            pt_promise(&cursor, page[i], PAGE_BYTES, PT_ZERO, pt_attr(0), 0);
        CHECK_EQUAL(status, MM_OK);
    }
    pt_close(&cursor);
    tlb_commit(&batch);
}

static void try_pair(struct range first, struct range second, bool they_meet)
{
    held = first;
    other = second;
    must_wait = they_meet;
    atomic_store(&is_held, false);
    atomic_store(&has_opened, false);
    atomic_store(&is_done, false);
    players_run(2, act);
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
    for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        CHECK_HELPER(try_pair(pairs[i].a, pairs[i].b, pairs[i].must_wait));
        CHECK_HELPER(try_pair(pairs[i].b, pairs[i].a, pairs[i].must_wait));
    }
    struct audit_verdict verdict;
    CHECK(pt_audit(&space, &verdict));
    pt_fini(&space);
}
