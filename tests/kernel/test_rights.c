/* SPDX-License-Identifier: MIT */
/* rights: the walk's judgement is the processor's, for every kind of entry. */
#include "tests/shared/test.h"

#include <mm/fault.h>
#include <mm/port.h>
#include <mm/pt.h>
#include "kernel/cpu.h"
#include "kernel/explain.h"
#include "kernel/fixup.h"
#include "kernel/trap.h"
#include "tests/kernel/scratch.h"

/*
 * At risk: walk_judge() tells another story than the processor: the fault
 * handler would call a real error spurious (and try for ever), reports and
 * `explain` would lie. Provoked by forging all combinations of P, W, U and XD
 * at two levels, as 4 KiB and 2 MiB pages, trying each access, and comparing
 * result and error code with what the walk predicts.
 */

/* Bit n of a combination stands for this bit of the entry. */
static const uint64_t entry_bits[] = {PTE_P, PTE_RW, PTE_US, PTE_XD};
#define COMBINATIONS (1u << (sizeof(entry_bits) / sizeof(entry_bits[0])))

/* Behind the RET that an execution meets. */
#define DATA_OFFSET 64

static const unsigned accesses[] = {WALK_READ, WALK_WRITE, WALK_EXEC};

static unsigned tried; /* accesses so far */

/*
 * A non-present entry keeps its kind field zero, or it would be a promise
 * that the fault handler keeps.
 */
static pte_t entry_of(unsigned combination, pfn_t pfn, uint64_t more)
{
    uint64_t bits = pfn_to_phys(pfn).v;

    for (unsigned i = 0; 1u << i < COMBINATIONS; i++) {
        bits |= (combination & (1u << i)) != 0 ? entry_bits[i] : 0;
    }
    bits |= (bits & PTE_P) != 0 ? PTE_A | PTE_D | more : 0;
    return (pte_t){bits};
}

static bool try_access(vaddr_t address, unsigned access, struct probe *out)
{
    switch (access) {
    case WALK_WRITE:
        return probe_write64((void *)(address + DATA_OFFSET), tried, out);
    case WALK_EXEC:
        return probe_exec((const void *)address, out);
    default:
        return probe_read64((const void *)(address + DATA_OFFSET), out);
    }
}

/* QEMU 7.2 leaves P clear where a reserved bit is set; hardware sets it. */
static uint64_t comparable(uint64_t code)
{
    return (code & FAULT_RSVD) != 0 ? code & ~(uint64_t)FAULT_P : code;
}

static void compare(const struct scratch *scratch, unsigned access)
{
    struct walk_rules rules = explain_rules();
    struct probe probe;
    struct walk walk;
    unsigned blame;

    walk_address(pt_kernel.root, scratch->address, &walk);
    enum walk_verdict verdict = walk_judge(&walk, access, &rules, &blame);
    bool succeeded = try_access(scratch->address, access, &probe);
    tried++;
    if (succeeded != (verdict == WALK_ALLOWED)) {
        test_fail(__FILE__, __LINE__,
                  "access 0x%x %s, but the walk says: %s (last entry 0x%lx)",
                  access, succeeded ? "works" : "faults",
                  walk_verdict_text(verdict),
                  walk.step[walk.count - 1].entry.v);
        return;
    }
    if (succeeded) {
        return;
    }
    CHECK_EQUAL(probe.vector, TRAP_PAGE);
    CHECK_EQUAL(comparable(probe.error),
                comparable(explain_error_code(verdict, access, &rules)));
    CHECK_EQUAL(probe.address,
                scratch->address + (access == WALK_EXEC ? 0 : DATA_OFFSET));
}

static void compare_all(const struct scratch *scratch)
{
    for (size_t i = 0; i < sizeof(accesses) / sizeof(accesses[0]); i++) {
        CHECK_HELPER(compare(scratch, accesses[i]));
    }
}

static void try_small_pages(struct scratch *scratch)
{
    for (unsigned upper = 0; upper < COMBINATIONS; upper++) {
        scratch_set_upper(scratch, entry_of(upper, scratch->table, 0));
        for (unsigned lower = 0; lower < COMBINATIONS; lower++) {
            scratch_set_lower(scratch, entry_of(lower, scratch->large, 0));
            CHECK_HELPER(compare_all(scratch));
        }
    }
}

TEST(rights, small_pages_are_judged_as_the_cpu_does)
{
    struct scratch scratch;

    tried = 0;
    CHECK(scratch_init(&scratch));
    try_small_pages(&scratch);
    scratch_fini(&scratch);
    CHECK(test_has_failed() || tried == COMBINATIONS * COMBINATIONS * 3);
}

static void try_large_pages(struct scratch *scratch, uint64_t more)
{
    for (unsigned upper = 0; upper < COMBINATIONS; upper++) {
        scratch_set_upper(scratch,
                          entry_of(upper, scratch->large, PTE_PS | more));
        CHECK_HELPER(compare_all(scratch));
    }
}

TEST(rights, large_pages_are_judged_as_the_cpu_does)
{
    struct scratch scratch;

    CHECK(scratch_init(&scratch));
    try_large_pages(&scratch, 0);
    scratch_fini(&scratch);
}

/* Bit 13 of a 2 MiB leaf, and an address bit the processor lacks. */
TEST(rights, reserved_bits_come_before_rights)
{
    struct scratch scratch;

    CHECK(scratch_init(&scratch));
    try_large_pages(&scratch, UINT64_C(1) << 13);
    if (!test_has_failed() && pt_features.physical_bits < 52) {
        try_large_pages(&scratch, UINT64_C(1) << 51);
    }
    scratch_fini(&scratch);
}

/* What a write through a forged page changed is in the frame. */
TEST(rights, an_allowed_write_arrives)
{
    struct scratch scratch;
    struct probe probe;

    CHECK(scratch_init(&scratch));
    const volatile uint64_t *frame = phys_to_virt(pfn_to_phys(scratch.large));
    scratch_set_upper(&scratch, (pte_t){pfn_to_phys(scratch.large).v | PTE_P |
                                        PTE_RW | PTE_A | PTE_D | PTE_PS});
    bool succeeded = probe_write64((void *)scratch.address, 77, &probe);
    uint64_t value = *frame;
    scratch_fini(&scratch);
    CHECK(succeeded);
    CHECK_EQUAL(value, 77);
}
