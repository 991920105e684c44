/* SPDX-License-Identifier: MIT */
/* protect: what the processor enforces is on, and the tables make use of it. */
#include "tests/shared/test.h"

#include <mm/audit.h>
#include <mm/fault.h>
#include <mm/mm.h>
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/gdt.h"
#include "kernel/image.h"
#include "kernel/lib/string.h"
#include "kernel/trap.h"

/*
 * At risk: a protection the processor has but nobody turned on, or a second
 * way to the same frame that the first one's rights do not bind. Provoked by
 * reading the registers back, and by writing to code and constants through
 * the direct map.
 */

TEST(protect, control_registers_have_all_there_is)
{
    uint64_t cr4 = cpu_read_cr4();

    CHECK((cpu_read_cr0() & CR0_WP) != 0);
    CHECK_EQUAL((cr4 & CR4_SMEP) != 0, cpu_features.has_smep);
    CHECK_EQUAL((cr4 & CR4_SMAP) != 0, cpu_features.has_smap);
    CHECK_EQUAL((cr4 & CR4_UMIP) != 0, cpu_features.has_umip);
    CHECK_EQUAL((cr4 & CR4_MCE) != 0, cpu_features.has_mce);
    CHECK_EQUAL((cr4 & CR4_PGE) != 0, cpu_features.has_pge);
    CHECK_EQUAL((cpu_rdmsr(MSR_EFER) & EFER_NXE) != 0, cpu_features.has_nx);
    CHECK((cpu_read_flags() & RFLAGS_AC) == 0);
}

TEST(protect, memory_types_are_as_the_codec_counts_them)
{
    if (cpu_features.has_pat) {
        CHECK_EQUAL(cpu_rdmsr(MSR_PAT), PTE_PAT_LAYOUT);
    }
}

/* [SDM-3A 6.14.1 "64-Bit Mode IDT"]: 16 bytes a gate, IST in byte 4. */
static unsigned ist_of(unsigned vector)
{
    const uint8_t *gate = (const uint8_t *)trap_idt_address() + vector * 16;

    return gate[4] & 7;
}

/* [SDM-3A 8.7 "Task Management in 64-bit Mode"]: IST1 at byte 36. */
static uint64_t ist_stack(unsigned ist)
{
    uint64_t top;

    memcpy(&top, (const uint8_t *)gdt_tss_address() + 36 + (ist - 1) * 8, 8);
    return top;
}

TEST(protect, faults_without_a_stack_bring_their_own)
{
    static const struct {
        unsigned vector;
        enum image_stack stack;
    } own[] = {
        {TRAP_DOUBLE_FAULT, STACK_DOUBLE_FAULT},
        {TRAP_NMI, STACK_NMI},
        {TRAP_MACHINE_CHECK, STACK_MACHINE_CHECK},
    };

    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        unsigned ist = ist_of(own[i].vector);
        CHECK(ist != 0);
        CHECK_EQUAL(ist_stack(ist), image_stack_end(own[i].stack));
    }
    CHECK_EQUAL(ist_of(TRAP_PAGE), 0);
}

/* The direct map's address of a byte of the image. */
static void *alias_of(const void *pointer)
{
    return phys_to_virt(paddr_of(image_physical(pointer)));
}

static const uint64_t constant = 11;

TEST(protect, code_and_constants_have_no_writable_alias)
{
    void *const alias[] = {
        alias_of(text_start),
        alias_of(&constant),
        alias_of(symbols_start),
    };
    struct probe probe;

    for (size_t i = 0; i < sizeof(alias) / sizeof(alias[0]); i++) {
        CHECK(probe_read64(alias[i], &probe));
        CHECK(!probe_write64(alias[i], 0, &probe));
        CHECK_EQUAL(probe.vector, TRAP_PAGE);
        CHECK_EQUAL(probe.error, FAULT_P | FAULT_W);
    }
    CHECK_EQUAL(*(volatile const uint64_t *)&constant, 11);
}

TEST(protect, data_has_the_same_bytes_by_both_ways)
{
    static volatile uint64_t data = 1;
    volatile uint64_t *alias = alias_of((const void *)(vaddr_t)&data);

    *alias = 2;
    CHECK_EQUAL(data, 2);
}

static bool is_sound_run(void *context, const struct audit_run *run)
{
    uint64_t *bad = context;
    unsigned both = PT_WRITE | PT_EXEC;

    if (run->state != PTE_PRESENT) {
        return true;
    }
    if ((run->attr.flags & PT_USER) != 0 || run->start < PAGE_BYTES ||
        (pt_features.has_nx && (run->attr.flags & both) == both)) {
        *bad = run->start;
        return false;
    }
    return true;
}

TEST(protect, no_page_is_writable_and_executable)
{
    struct audit_verdict verdict;
    uint64_t bad = 0;

    audit_runs(&pt_kernel, 0, 0, is_sound_run, &bad);
    CHECK_EQUAL(bad, 0);
    CHECK(pt_audit(&pt_kernel, &verdict));
    CHECK(verdict.tables > 0);
    CHECK(verdict.leaves[0] > 0);
}

TEST(protect, everything_is_sound)
{
    CHECK(mm_check());
}
