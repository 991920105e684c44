/* SPDX-License-Identifier: MIT */
/* recover: faults that are answered, and mappings that change under use. */
#include "tests/shared/test.h"

#include <mm/audit.h>
#include <mm/fault.h>
#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/mm.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "kernel/cpu.h"
#include "kernel/entry.h"
#include "kernel/explain.h"
#include "kernel/fixup.h"
#include "kernel/lib/string.h"
#include "kernel/trap.h"
#include "tests/shared/figures.h"
#include "tests/shared/once.h"

/*
 * At risk: an error code read wrongly, a promise not kept, an invalidation
 * that is missing (TCG and hardware then go on with the old translation), or
 * rights that stay what they were. Provoked on the live tables; each test
 * takes back what it did.
 */

static void *new_page(unsigned flags)
{
    return kmap_alloc(PAGE_BYTES, flags, "recover test");
}

/* --- every kind of fault comes back with its name --------------------------
 */

/* What the explanation would say of the fault in @probe. */
static enum fault_result result_of(const struct probe *probe)
{
    struct walk_rules rules = explain_rules();
    struct walk walk;
    unsigned blame;

    if (!explain_walk(probe->address, &walk)) {
        return FAULT_RESULTS;
    }
    return explain_fault(&walk, (uint32_t)probe->error, &rules, &blame);
}

TEST(recover, guards_on_both_sides_of_a_block)
{
    char *block = new_page(KMAP_EAGER);
    struct kmap_info info;
    struct probe probe;

    CHECK(block != NULL);
    uint64_t before = faults_of(FAULT_GUARD);
    bool above = probe_write8(block + PAGE_BYTES, 1, &probe);
    bool found = kmap_find(probe.address, &info);
    enum fault_result result = result_of(&probe);
    struct probe below;
    bool is_read = probe_read8(block - 1, &below);
    kmap_free(block);
    CHECK(!above);
    CHECK_EQUAL(probe.vector, TRAP_PAGE);
    CHECK_EQUAL(probe.error, FAULT_W);
    CHECK(found && info.is_guard);
    CHECK_EQUAL(result, FAULT_GUARD);
    CHECK(!is_read);
    CHECK_EQUAL(below.error, 0);
    CHECK_EQUAL(faults_of(FAULT_GUARD), before + 2);
}

TEST(recover, freed_blocks_are_not_mapped)
{
    char *block = new_page(KMAP_EAGER);
    struct probe probe;

    CHECK(block != NULL);
    block[0] = 1;
    kmap_free(block);
    kmap_purge();
    CHECK(!probe_read8(block, &probe));
    CHECK_EQUAL(probe.error, 0);
    CHECK_EQUAL(result_of(&probe), FAULT_NOT_MAPPED);
}

TEST(recover, a_forged_reserved_bit_is_named)
{
    struct probe probe;

    if (cpu_features.physical_bits >= 52) {
        return; /* the processor has all address bits */
    }
    char *page = new_page(KMAP_EAGER);
    CHECK(page != NULL);
    volatile pte_t *entry = entry_find((vaddr_t)page, 0);
    uint64_t saved = entry->v;
    entry->v |= UINT64_C(1) << 51;
    entry_invalidate((vaddr_t)page);
    bool is_read = probe_read8(page, &probe);
    enum fault_result result = result_of(&probe);
    struct audit_verdict verdict;
    bool is_clean = pt_audit(&pt_kernel, &verdict);
    entry->v = saved;
    entry_invalidate((vaddr_t)page);
    kmap_free(page);
    CHECK(!is_read);
    CHECK((probe.error & FAULT_RSVD) != 0);
    CHECK_EQUAL(result, FAULT_RESERVED_BIT);
    CHECK(!is_clean);
    CHECK_EQUAL(verdict.reserved_bits, 1);
}

/* --- promises ------------------------------------------------------------- */

TEST(recover, a_lazy_block_comes_to_life_zeroed)
{
    uint64_t before = faults_of(FAULT_RESOLVED);
    char *block = kmap_alloc(64 * PAGE_BYTES, KMAP_LAZY, "recover test");
    struct frame_stats start;
    struct frame_stats end;

    CHECK(block != NULL);
    frame_stats(&start);
    unsigned sum = 0;
    for (uint64_t i = 0; i < PAGE_BYTES; i++) {
        sum += (unsigned char)block[5 * PAGE_BYTES + i];
    }
    block[9 * PAGE_BYTES] = 1;
    frame_stats(&end);
    kmap_free(block);
    CHECK_EQUAL(sum, 0);
    CHECK_EQUAL(end.by_type[FRAME_KMAP] - start.by_type[FRAME_KMAP], 2);
    CHECK_EQUAL(faults_of(FAULT_RESOLVED), before + 2);
}

/* --- rights change under use ---------------------------------------------- */

static bool set_rights(void *page, unsigned flags)
{
    return once_protect(&pt_kernel, (vaddr_t)page, PAGE_BYTES,
                        pt_attr(flags)) == MM_OK;
}

TEST(recover, rights_go_and_come_back_at_once)
{
    char *page = new_page(KMAP_EAGER);
    struct probe probe;

    CHECK(page != NULL);
    page[0] = 1; /* the TLB has it, writable */
    bool done = set_rights(page, PT_READ);
    bool wrote = probe_write8(page, 2, &probe);
    char kept = page[0];
    done = set_rights(page, PT_WRITE) && done;
    struct probe again;
    bool wrote_again = probe_write8(page, 3, &again);
    char last = page[0];
    kmap_free(page);
    CHECK(done);
    CHECK(!wrote);
    CHECK_EQUAL(probe.error, FAULT_P | FAULT_W);
    CHECK_EQUAL(kept, 1);
    CHECK(wrote_again);
    CHECK_EQUAL(last, 3);
}

/* --- the TLB remembers ---------------------------------------------------- */

/* QEMU's emulated CPU keeps each entry until it is told. */
static bool is_tcg(void)
{
    struct cpuid id = cpu_cpuid(0x40000000, 0);

    return cpu_features.has_hypervisor && memcmp(&id.ebx, "TCGT", 4) == 0;
}

struct remapped {
    uint64_t stale; /* read after the entry changed */
    uint64_t fresh; /* read after tlb_commit() */
};

/* Lead @page to @other, which holds 2; the page's own frame holds 1. */
static struct remapped remap(volatile uint64_t *page, pfn_t other)
{
    volatile pte_t *entry = entry_find((vaddr_t)page, 0);
    uint64_t saved = entry->v;
    struct remapped seen;

    *page = 1;
    *(volatile uint64_t *)phys_to_virt(pfn_to_phys(other)) = 2;
    entry->v = (saved & ~PTE_FRAME) | pfn_to_phys(other).v;
    seen.stale = *page;
    entry_invalidate((vaddr_t)page);
    seen.fresh = *page;
    entry->v = saved;
    entry_invalidate((vaddr_t)page);
    return seen;
}

TEST(recover, a_translation_is_stale_until_the_commit)
{
    void *page = new_page(KMAP_EAGER);
    pfn_t other = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    struct remapped seen = {0, 0};

    if (page != NULL && !pfn_is_none(other)) {
        seen = remap(page, other);
    }
    if (!pfn_is_none(other)) {
        frame_free(other, 0);
    }
    kmap_free(page);
    CHECK_EQUAL(seen.fresh, 2);
    /* A virtual machine may forget translations by itself. */
    CHECK(seen.stale == 1 || !is_tcg());
}

/* --- large leaves --------------------------------------------------------- */

static unsigned leaf_level(vaddr_t address)
{
    struct walk walk;

    walk_address(pt_kernel.root, address, &walk);
    return walk.step[walk.count - 1].level;
}

/* Split the leaf over @address, look through it, merge it again. */
static void split_and_merge(volatile uint64_t *address)
{
    unsigned level = leaf_level((vaddr_t)address);
    vaddr_t start = align_down((vaddr_t)address, pte_span(level));
    uint64_t bytes = pte_span(level);
    struct once once;

    CHECK_EQUAL(once_open(&once, &pt_kernel, start, bytes), MM_OK);
    enum mm_status split =
        once_shut(&once, pt_split(&once.cursor, (vaddr_t)address));
    unsigned split_level = leaf_level((vaddr_t)address);
    uint64_t seen = *address;
    *address = 6;
    CHECK_EQUAL(once_open(&once, &pt_kernel, start, bytes), MM_OK);
    enum mm_status merged =
        once_shut(&once, pt_merge(&once.cursor, (vaddr_t)address, level));
    CHECK_EQUAL(split, MM_OK);
    CHECK_EQUAL(split_level, level - 1);
    CHECK_EQUAL(seen, 5);
    CHECK_EQUAL(merged, MM_OK);
    CHECK_EQUAL(leaf_level((vaddr_t)address), level);
    CHECK_EQUAL(*address, 6);
}

TEST(recover, a_direct_map_leaf_is_split_and_merged)
{
    pfn_t block = frame_alloc(9, FRAME_KERNEL, FRAME_ANY);

    CHECK(!pfn_is_none(block));
    volatile uint64_t *address = phys_to_virt(pfn_to_phys(block));
    *address = 5;
    /* Next to the kernel's image the direct map is in small pages. */
    if (leaf_level((vaddr_t)address) > 0) {
        split_and_merge(address);
    }
    frame_free(block, 9);
    CHECK(mm_check());
}
