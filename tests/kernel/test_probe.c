/* SPDX-License-Identifier: MIT */
/* probe: accesses that fault come back with what the processor said. */
#include "tests/shared/test.h"

#include <mm/fault.h>
#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/port.h>
#include <mm/pt.h>
#include <mm/record.h>
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/image.h"
#include "kernel/layout.h"
#include "kernel/trap.h"

/*
 * At risk: a fix-up that resumes at the wrong place, loses a register or
 * reports another fault than its own; and protections that were never turned
 * on. Provoked by one access for each reason to refuse, and by blocks that
 * kfree() has no record of.
 */

static int answer(void)
{
    return 42;
}

static volatile uint64_t data = 7;
static const uint64_t constant = 9;

TEST(probe, what_is_allowed_works)
{
    struct probe probe;

    CHECK(probe_read64((const void *)&data, &probe));
    CHECK_EQUAL(probe.value, 7);
    CHECK(probe_write64((void *)&data, 8, &probe));
    CHECK_EQUAL(data, 8);
    CHECK(probe_write8((void *)&data, 7, &probe));
    CHECK(probe_read8((const void *)&data, &probe));
    CHECK_EQUAL(probe.value, 7);
    CHECK(probe_exec((const void *)(uintptr_t)answer, &probe));
}

TEST(probe, page_zero_is_not_mapped)
{
    struct probe probe;

    CHECK(!probe_read8((const void *)8, &probe));
    CHECK_EQUAL(probe.vector, TRAP_PAGE);
    CHECK_EQUAL(probe.error, 0);
    CHECK_EQUAL(probe.address, 8);
    CHECK(!probe_write64((void *)16, 1, &probe));
    CHECK_EQUAL(probe.error, FAULT_W);
}

TEST(probe, constants_and_code_are_read_only)
{
    struct probe probe;

    CHECK(!probe_write64((void *)(uintptr_t)&constant, 1, &probe));
    CHECK_EQUAL(probe.vector, TRAP_PAGE);
    CHECK_EQUAL(probe.error, FAULT_P | FAULT_W);
    CHECK(!probe_write8((void *)(uintptr_t)answer, 1, &probe));
    CHECK_EQUAL(probe.error, FAULT_P | FAULT_W);
    CHECK_EQUAL(constant, 9);
}

TEST(probe, data_does_not_execute)
{
    struct probe probe;

    if (!cpu_features.has_nx) {
        return; /* nothing refuses it */
    }
    CHECK(!probe_exec((const void *)&data, &probe));
    CHECK_EQUAL(probe.vector, TRAP_PAGE);
    CHECK_EQUAL(probe.error, FAULT_P | FAULT_I);
    CHECK_EQUAL(probe.address, (uintptr_t)&data);
    /* The code of this function, seen through the direct map. */
    uint64_t physical = image_physical((const void *)(uintptr_t)answer);
    CHECK(!probe_exec((const void *)(LAYOUT_DIRECT + physical), &probe));
    CHECK_EQUAL(probe.error, FAULT_P | FAULT_I);
}

TEST(probe, addresses_between_the_halves_are_refused)
{
    vaddr_t half = (vaddr_t)1 << (pte_shift(pt_features.levels) - 1);
    const void *between = (const void *)half;
    struct probe probe;

    CHECK(!probe_read64(between, &probe));
    CHECK_EQUAL(probe.vector, TRAP_PROTECTION);
    CHECK_EQUAL(probe.error, 0);
    CHECK(!probe_exec(between, &probe));
}

TEST(probe, the_stack_stands_on_a_guard)
{
    struct probe probe;

    for (unsigned i = 0; i < STACK_COUNT; i++) {
        vaddr_t bottom = image_stack_start((enum image_stack)i);
        CHECK(probe_read8((const void *)bottom, &probe));
        CHECK(!probe_read8((const void *)(bottom - 1), &probe));
        CHECK(image_is_stack_guard(bottom - 1));
        CHECK(!image_is_stack_guard(bottom));
    }
}

/* Numbers that linker.ld and C headers both have. */
extern char IMAGE_VIRTUAL[];
extern char kernel_stack_end[];

TEST(probe, linker_script_and_headers_agree)
{
    CHECK_EQUAL((uintptr_t)IMAGE_VIRTUAL, LAYOUT_IMAGE);
    CHECK_EQUAL((uintptr_t)kernel_stack_end, image_stack_end(STACK_KERNEL));
    CHECK_EQUAL((uintptr_t)stacks_end,
                image_stack_end((enum image_stack)(STACK_COUNT - 1)));
}

TEST(probe, the_start_up_mapping_is_gone)
{
    struct probe probe;

    CHECK(!probe_read8((const void *)UINT64_C(0x100000), &probe));
    CHECK(!probe_read8((const void *)UINT64_C(0xb8000), &probe));
}

/* The first of a block of frames that have no records; else behind them all. */
static pfn_t frame_without_record(void)
{
    pfn_t pfn = pfn_of(0);

    while (pfn.v < record_frames && record_exists(pfn)) {
        pfn = pfn_add(pfn, RECORD_BLOCK_FRAMES);
    }
    return pfn;
}

/* A machine that has used all of its RAM already has no such frame. */
TEST(probe, a_frame_without_a_record_is_none_of_the_heap)
{
    pfn_t without = frame_without_record();
    uint32_t value = 7;

    CHECK_EQUAL(cpu_peek32(&value), 7);
    CHECK_EQUAL(cpu_peek32((const uint32_t *)LAYOUT_DIRECT - 1), 0);
    if (without.v < record_frames) {
        printk("# frame 0x%lx has no record\n", (unsigned long)without.v);
        CHECK_EQUAL(port_peek((const uint32_t *)record_of(without)), 0);
        kfree(phys_to_virt(pfn_to_phys(without)));
        CHECK_BUG("free of a foreign pointer");
    }
    kfree(phys_to_virt(pfn_to_phys(pfn_of(record_frames))));
    CHECK_BUG("free of a foreign pointer");
}
