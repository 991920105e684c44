/* SPDX-License-Identifier: MIT */
/* Tests of kept kernel blocks whose frames go when memory is short. */
#include <string.h>

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/pt.h>
#include <mm/shrink.h>
#include "base/bits.h"
#include "x86_64/mmu.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"
#include "tests/shared/test.h"

/*
 * At risk: a frame that is let go of while some CPU can still reach it, an
 * allocation that fails while frames are kept, one that waits for a CPU for
 * ever, a block that is lost between the steps. Provoked by CPUs that have
 * cached what was freed, one of them with its interrupts off, by machines all
 * of whose frames are in use, and by more empty blocks than there is room for.
 */

#define RAM_BYTES (64 * MiB)
#define CPUS      3
#define KEPT      64 /* pages */

static const struct frame_reclaim hooks = {.reclaim = shrink_reclaim};
static pfn_t frame[RAM_BYTES / PAGE_BYTES];
static unsigned taken;
static uint64_t frames_before;

static void boot(void)
{
    sim_boot_cpus(RAM_BYTES, CPUS, SIM_ALL_PARTS);
    kmap_keep(KEPT);
    taken = 0;
    frames_before = frames_of(FRAME_KMAP);
}

static void end(void)
{
    struct kmap_stats kmap;

    CHECK(kmap_check());
    kmap_purge();
    kmap_stats(&kmap);
    CHECK_EQUAL(kmap.blocks, 0);
    CHECK_EQUAL(kmap.kept_pages, 0);
    CHECK_EQUAL(kmap.arena_free, kmap.arena_bytes);
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames_before);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK(kmap_check());
}

static vaddr_t new_block(unsigned pages)
{
    return (vaddr_t)kmap_alloc(pages * PAGE_BYTES, KMAP_EAGER, "shrink");
}

/* A block that was freed on @cpu, and is cached by all. */
static void keep_on(unsigned cpu, unsigned pages)
{
    vaddr_t block = new_block(pages);
    uint8_t value;

    for (unsigned i = 0; i < CPUS; i++) {
        sim_set_cpu(i);
        CHECK(sim_read(block + (pages - 1) * PAGE_BYTES, &value));
    }
    sim_set_cpu(cpu);
    kmap_free((void *)block);
    sim_set_cpu(0);
}

/* More than the heap has, which is asked first. */
static void ask_all(void)
{
    shrink_reclaim(UINT64_MAX);
}

static void use_up(void)
{
    pfn_t pfn;

    while (!pfn_is_none(pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY))) {
        frame[taken++] = pfn;
    }
}

static void free_all(void)
{
    while (taken > 0) {
        frame_free(frame[--taken], 0);
    }
}

static bool look(struct shrink_info *out)
{
    for (unsigned i = 0; shrink_look(i, out); i++) {
        if (strcmp(out->name, "kmap") == 0) {
            return true;
        }
    }
    return false;
}

TEST(kmap_shrink, what_all_cpus_keep_goes_when_memory_is_short)
{
    struct shrink_info info;

    CHECK_HELPER(boot());
    frame_set_reclaim(&hooks);
    uint64_t kept = 0;
    for (unsigned i = 0; i < CPUS; i++) {
        CHECK_HELPER(keep_on(i, 4 + i)); /* no two CPUs the same block */
        kept += 4 + i;
    }
    CHECK(look(&info));
    CHECK_EQUAL(info.count, kept);
    use_up();
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames_before + kept);
    for (unsigned i = 0; i < kept; i++) {
        pfn_t pfn = frame_alloc(0, FRAME_KERNEL, FRAME_MAY_RECLAIM);
        CHECK(!pfn_is_none(pfn));
        frame[taken++] = pfn;
    }
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames_before);
    CHECK(look(&info));
    CHECK_EQUAL(info.freed, kept);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK(kmap_check());
    free_all();
    frame_set_reclaim(NULL);
    CHECK_HELPER(end());
}

/* The blocks are empty then, and had again where they were freed. */
TEST(kmap_shrink, blocks_stay_where_they_were)
{
    CHECK_HELPER(boot());
    vaddr_t block = new_block(3);
    kmap_free((void *)block);
    ask_all();
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames_before);
    CHECK(kmap_check());
    CHECK_EQUAL(new_block(3), block);
    kmap_free((void *)block);
    CHECK_HELPER(end());
}

/* Nobody waits for it for long, and what it may reach stays. */
TEST(kmap_shrink, a_cpu_that_does_not_answer_gets_time)
{
    CHECK_HELPER(boot());
    CHECK_HELPER(keep_on(1, 5));
    sim_set_cpu(2);
    uint64_t irq = port_irq_save();
    sim_set_cpu(0);
    for (unsigned i = 0; i < 2; i++) {
        ask_all();
        CHECK_EQUAL(frames_of(FRAME_KMAP), frames_before + 5);
        CHECK(kmap_check());
    }
    /* What is kept meanwhile waits for the next flush. */
    CHECK_HELPER(keep_on(1, 2));
    sim_set_cpu(2);
    port_irq_restore(irq);
    sim_set_cpu(0);
    ask_all();
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames_before);
    CHECK_HELPER(end());
}

TEST(kmap_shrink, a_purge_takes_what_was_set_aside)
{
    CHECK_HELPER(boot());
    CHECK_HELPER(keep_on(1, 5));
    sim_set_cpu(2);
    uint64_t irq = port_irq_save();
    sim_set_cpu(0);
    ask_all();
    sim_set_cpu(2);
    port_irq_restore(irq);
    sim_set_cpu(0);
    CHECK_EQUAL(kmap_purge(), 5);
    ask_all();
    CHECK_HELPER(end());
}

TEST(kmap_shrink, no_more_empty_blocks_are_kept_than_may_be)
{
    static vaddr_t block[400];
    unsigned count = sizeof(block) / sizeof(block[0]);

    CHECK_HELPER(boot());
    kmap_keep(count);
    for (unsigned i = 0; i < count; i++) {
        block[i] = new_block(1);
    }
    for (unsigned i = 0; i < count; i++) {
        kmap_free((void *)block[i]);
    }
    ask_all();
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames_before);
    CHECK(kmap_check());
    kmap_keep(1);
    kmap_free((void *)new_block(2)); /* has all flushed */
    struct kmap_stats kmap;
    kmap_stats(&kmap);
    CHECK(kmap.kept_pages < count);
    CHECK_HELPER(end());
}

/* --- a CPU that is just coming up ------------------------------------------
 */

static vaddr_t fresh_block;
static unsigned steps_online;
static uint64_t frames_then;
static uint64_t cached_then;

static void free_after_flush(void)
{
    uint8_t value;

    if (++steps_online != 4) {
        return;
    }
    (void)sim_read(fresh_block, &value); /* CPU 1 may load it on a guess */
    paddr_t physical;
    sim_translate(fresh_block, WALK_READ, &physical);
    pfn_t pfn = phys_to_pfn(physical);
    sim_set_cpu(0);
    kmap_free((void *)fresh_block);
    ask_all();
    frames_then = frames_of(FRAME_KMAP);
    cached_then = sim_cached(pfn, 1);
    sim_set_cpu(1);
}

TEST(kmap_shrink, a_cpu_that_comes_up_keeps_no_translation)
{
    static const struct sim_driver driver = {.step = free_after_flush};

    sim_boot(RAM_BYTES);
    kmap_keep(KEPT);
    frames_before = frames_of(FRAME_KMAP);
    fresh_block = new_block(1);
    steps_online = 0;
    sim_set_cpu_count(2);
    sim_set_cpu(1);
    uint64_t irq = port_irq_save();
    mmu_write_cr3(pt_kernel.tlb.root.v);
    sim_set_driver(&driver);
    steps_online = 1;
    tlb_cpu_online();
    sim_set_driver(NULL);
    port_irq_restore(irq);
    sim_set_cpu(0);
    CHECK(steps_online >= 4);
    CHECK(cached_then == 0 || frames_then == frames_before + 1);
}
