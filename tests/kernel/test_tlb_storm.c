/* SPDX-License-Identifier: MIT */
/* tlb: all CPUs map, unmap, protect and read at once. */
#include "tests/shared/test.h"

#include <stdatomic.h>

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/pt.h>
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/smp.h"
#include "tests/kernel/crew.h"

/*
 * At risk: everything that two CPUs can do to one page at the same time.
 * Provoked by random operations on few pages. A page always holds its own
 * number in every word, whatever frame it has; so whoever reads another
 * number, or a word of nobody, has used a translation that was taken away.
 * What a CPU writes to is its own for a moment, by a flag a page.
 */

#define PAGES     16
#define USER_BASE UINT64_C(0x40000000)
/* Operations of all CPUs together: about a second under TCG. */
#define OPERATIONS 1600

static struct {
    struct pt *pt;
    vaddr_t base;
    _Atomic bool is_taken[PAGES]; /* by who changes the page now */
    bool is_mapped[PAGES];        /* by who has taken it */
} field[3];

static _Atomic uint64_t wrong_reads;
static _Atomic uint64_t good_reads;
static _Atomic uint64_t failures;
static _Atomic uint64_t last_wrong;

/* The word that page @page of field @which holds. */
static uint64_t word_of(unsigned which, unsigned page)
{
    return UINT64_C(0x5709a00000000000) | (uint64_t)which << 32 | page;
}

static void note(bool is_right)
{
    if (!is_right) {
        atomic_fetch_add(&failures, 1);
    }
}

static void read_page(unsigned which, unsigned page)
{
    struct probe probe;
    vaddr_t address = field[which].base + page * PAGE_BYTES + 8 * page;

    if (!probe_read64((void *)address, &probe)) {
        return; /* nobody has mapped it now */
    }
    if (probe.value == word_of(which, page)) {
        atomic_fetch_add(&good_reads, 1);
    } else {
        atomic_store(&last_wrong, probe.value);
        atomic_fetch_add(&wrong_reads, 1);
    }
}

/* Read-only now: a write must fail here, whatever the TLB had. */
static void protect_page(unsigned which, unsigned page, bool can_write)
{
    vaddr_t at = field[which].base + page * PAGE_BYTES;
    struct probe probe;

    note(crew_protect(field[which].pt, at, 0));
    if (can_write) {
        note(!probe_write64((void *)at, word_of(which, page), &probe));
    }
    note(crew_protect(field[which].pt, at, PT_WRITE));
    if (can_write) {
        note(probe_write64((void *)at, word_of(which, page), &probe));
    }
}

/* Map, unmap or protect the page, if nobody else is at it. */
static void change_page(unsigned which, unsigned page, uint64_t choice,
                        bool can_write)
{
    vaddr_t at = field[which].base + page * PAGE_BYTES;
    bool *is_mapped = &field[which].is_mapped[page];

    if (atomic_exchange(&field[which].is_taken[page], true)) {
        return;
    }
    if (!*is_mapped) {
        *is_mapped = crew_map(field[which].pt, at, word_of(which, page));
    } else if (choice < 2) {
        note(crew_unmap(field[which].pt, at));
        *is_mapped = false;
    } else {
        protect_page(which, page, can_write);
    }
    atomic_store(&field[which].is_taken[page], false);
}

/* The kernel's pages always, and those of the space that is loaded. */
static void storm(void *argument)
{
    struct test_random random;
    unsigned loaded = 0;
    unsigned rounds = OPERATIONS / (crew_others() + 1);

    test_random_init(&random, test_seed() + (uint64_t)(uintptr_t)argument +
                                  1000003 * (uint64_t)port_cpu());
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t what = test_random_below(&random, 16);
        unsigned page = (unsigned)test_random_below(&random, PAGES);
        unsigned which = (unsigned)test_random_below(&random, 3);

        if (what == 0) {
            loaded = which;
            tlb_switch(&field[loaded].pt->tlb);
        } else if (what < 8) {
            read_page(what % 2 == 0 ? loaded : 0, page);
        } else {
            change_page(which, page, what % 4, which == 0 || which == loaded);
        }
    }
    tlb_switch(&pt_kernel.tlb);
}

static bool begin_storm(struct pt *first, struct pt *second)
{
    void *block = kmap_alloc(PAGES * PAGE_BYTES, KMAP_LAZY, "tlb storm");

    if (block == NULL) {
        return false;
    }
    atomic_store(&wrong_reads, 0);
    atomic_store(&good_reads, 0);
    atomic_store(&failures, 0);
    field[0].pt = &pt_kernel;
    field[0].base = (vaddr_t)block;
    field[1].pt = first;
    field[1].base = USER_BASE;
    field[2].pt = second;
    field[2].base = USER_BASE;
    for (unsigned page = 0; page < PAGES; page++) {
        for (unsigned which = 0; which < 3; which++) {
            field[which].is_mapped[page] = false;
        }
        /* No promise: a read of what is not mapped must not map it. */
        note(crew_unmap(&pt_kernel, (vaddr_t)block + page * PAGE_BYTES));
    }
    return pt_init(first) == MM_OK && pt_init(second) == MM_OK;
}

TEST(tlb_storm, no_cpu_reads_what_was_taken_away)
{
    static struct pt first;
    static struct pt second;
    struct audit_verdict verdict;

    CHECK(begin_storm(&first, &second));
    for (uint64_t round = 0; round < 3; round++) {
        crew_run(storm, (void *)round);
    }
    pt_fini(&first);
    pt_fini(&second);
    bool is_sound = pt_audit(&pt_kernel, &verdict);
    kmap_free((void *)field[0].base);
    CHECK_EQUAL(atomic_load(&failures), 0);
    CHECK(atomic_load(&good_reads) > 0);
    if (atomic_load(&wrong_reads) > 0) {
        CHECK_EQUAL(atomic_load(&last_wrong), 0);
    }
    CHECK_EQUAL(atomic_load(&wrong_reads), 0);
    CHECK(is_sound);
}
