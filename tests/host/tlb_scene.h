/* SPDX-License-Identifier: MIT */
/* A machine with some CPUs, one space, and what flushes of it have cost. */
#ifndef TESTS_HOST_TLB_SCENE_H
#define TESTS_HOST_TLB_SCENE_H

#include "tests/host/space_scene.h"

#define BASE        UINT64_C(0x40000000)
#define KERNEL_PAGE (SIM_KMAP + 64 * GiB)

/* What a CPU has done to forget. */
struct tlb_cost {
    uint64_t pages;   /* single ones */
    uint64_t flushes; /* of more than that, loads of CR3 included */
};

static inline struct tlb_cost cost_of(struct sim_mmu_counts counts)
{
    return (struct tlb_cost){counts.pages + counts.invpcid[0],
                             counts.roots + counts.whole + counts.invpcid[1] +
                                 counts.invpcid[2] + counts.invpcid[3]};
}

static inline struct tlb_cost cost_since(struct tlb_cost before)
{
    struct tlb_cost now = cost_of(sim_mmu_counts());

    return (struct tlb_cost){now.pages - before.pages,
                             now.flushes - before.flushes};
}

/* @cpus CPUs with @parts; the space is there, but loaded nowhere. */
static inline void start_cpus(unsigned cpus, unsigned parts)
{
    sim_boot_cpus(RAM, cpus, parts);
    CHECK_EQUAL(pt_init(&space), MM_OK);
}

/* Is a part in use? */
static inline bool has_part(enum tlb_parts part)
{
    return (tlb_parts() & (unsigned)part) != 0;
}

/* New frames in @pages pages of @pt from @start on. */
static inline void map_pages(struct pt *pt, vaddr_t start, unsigned pages)
{
    struct pt_attr attr = pt_attr(PT_WRITE | PT_OWNED);
    struct tlb_batch batch;
    struct pt_cursor cursor;

    CHECK_EQUAL(pt_open(pt, start, start + pages * PAGE_BYTES, &batch, &cursor),
                MM_OK);
    for (unsigned i = 0; i < pages; i++) {
        CHECK_EQUAL(pt_map(&cursor, start + i * PAGE_BYTES,
                           frame_alloc(0, FRAME_USER, FRAME_ANY), PAGE_BYTES,
                           attr),
                    MM_OK);
    }
    pt_close(&cursor);
    tlb_commit(&batch);
}

static inline void unmap_pages(struct pt *pt, vaddr_t start, unsigned pages)
{
    CHECK_EQUAL(once_unmap(pt, start, pages * PAGE_BYTES), MM_OK);
}

/*
 * The kernel keeps a table whose page was unmapped: a large promise takes its
 * place, and goes, and the page beyond.
 */
static inline void release_kernel_table(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t end = KERNEL_PAGE + 2 * MiB;

    CHECK_HELPER(map_pages(&pt_kernel, end, 1));
    CHECK_EQUAL(pt_open(&pt_kernel, KERNEL_PAGE, end + MiB, &batch, &cursor),
                MM_OK);
    CHECK_EQUAL(
        pt_promise(&cursor, KERNEL_PAGE, 2 * MiB, PT_GUARD, pt_attr(0), 0),
        MM_OK);
    CHECK_EQUAL(pt_unmap(&cursor, KERNEL_PAGE, 3 * MiB, &end), MM_OK);
    pt_close(&cursor);
    tlb_commit(&batch);
}

/* Every page is in the TLB of this CPU afterwards. */
static inline void touch_pages(vaddr_t start, unsigned pages)
{
    paddr_t physical;

    for (unsigned i = 0; i < pages; i++) {
        CHECK_EQUAL(
            sim_translate(start + i * PAGE_BYTES, WALK_WRITE, &physical),
            WALK_ALLOWED);
    }
}

/* Play @cpu and load @what. */
static inline void load_on(unsigned cpu, struct pt *what)
{
    sim_set_cpu(cpu);
    tlb_switch(&what->tlb);
    sim_set_cpu(0);
}

/* All CPUs back to the kernel's tables; then finish(). */
static inline void finish_cpus(void)
{
    for (unsigned cpu = 0; cpu < port_cpu_count(); cpu++) {
        load_on(cpu, &pt_kernel);
    }
    finish();
}

#endif
