/* SPDX-License-Identifier: MIT */
/* Bring a simulated machine up, as far as a test wants it. */
#include "tests/host/sim.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/mm.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "tests/host/sim_mmu.h"
#include "x86_64/mmu.h"

#define LOW_END    (UINT64_C(1) * MiB)
#define IO_HOLE    (UINT64_C(3) * GiB)
#define ABOVE_HOLE (UINT64_C(4) * GiB)

/* As on a PC whose image was loaded at 2 MiB. */
#define IMAGE_START    UINT64_C(0xffffffff80000000)
#define IMAGE_PHYSICAL (2 * MiB)
#define TEXT_BYTES     (64 * KiB)
#define DATA_BYTES     (128 * KiB)

static struct memmap map;

#define RECORD_BYTES (SIM_PHYSICAL_END / PAGE_BYTES * 16)

static char *records; /* reserved once: 16 bytes a possible frame */
static _Atomic bool is_backed[RECORD_BYTES / PAGE_BYTES];
static bool record_backing_fails;

struct memmap *sim_map(void)
{
    return &map;
}

struct claims {
    const struct memmap_claim *claim;
    size_t count;
};

static bool next_claim(const void *context, size_t index,
                       struct memmap_claim *out)
{
    const struct claims *claims = context;

    if (index >= claims->count) {
        return false;
    }
    *out = claims->claim[index];
    return true;
}

enum mm_status sim_build_map(const struct memmap_claim *claim, size_t count,
                             uint64_t physical_end, uint64_t mapped_end,
                             struct memmap *out)
{
    struct claims claims = {claim, count};
    struct memmap_source source = {next_claim, &claims};
    struct memmap_limits limits = {physical_end, mapped_end};

    return memmap_build(&source, &limits, out);
}

void sim_boot_map(uint64_t ram_bytes)
{
    uint64_t low = min_u64(ram_bytes, IO_HOLE);
    const struct memmap_claim claim[] = {
        {0, low, MEMMAP_USABLE, "RAM", ""},
        {0, LOW_END, MEMMAP_RESERVED, "below 1 MiB", ""},
        {IMAGE_PHYSICAL, TEXT_BYTES + DATA_BYTES, MEMMAP_KERNEL, "image", ""},
        {ABOVE_HOLE, ram_bytes - low, MEMMAP_USABLE, "RAM", ""},
    };
    bool is_above = ram_bytes > low;

    sim_reset(low);
    if (is_above) {
        sim_add_ram(ABOVE_HOLE, ram_bytes - low);
    }
    if (sim_build_map(claim, is_above ? 4 : 3, SIM_PHYSICAL_END, ABOVE_HOLE,
                      &map) != MM_OK) {
        port_panic("no memory map for %llu bytes",
                   (unsigned long long)ram_bytes);
    }
}

void sim_fail_record_backing(bool fail)
{
    record_backing_fails = fail;
}

/*
 * One metadata frame for each page, as the kernel does it. Of two that back
 * the same page at once, a thread or an interrupt, both pay; nothing is
 * written, so a record that is in use meanwhile stays as it is.
 */
static enum mm_status back_records(vaddr_t start, vaddr_t end)
{
    for (vaddr_t page = start; page < end; page += PAGE_BYTES) {
        _Atomic bool *backed =
            &is_backed[(page - (vaddr_t)records) / PAGE_BYTES];
        if (atomic_load(backed)) {
            continue;
        }
        if (record_backing_fails || pfn_is_none(frame_alloc_metadata())) {
            return MM_ENOMEM;
        }
        mprotect((void *)page, PAGE_BYTES, PROT_READ | PROT_WRITE);
        atomic_store(backed, true);
    }
    return MM_OK;
}

/* The record array of a fresh machine: reserved, nothing readable. */
static void reset_records(void)
{
    record_backing_fails = false;
    if (records == NULL) {
        records = mmap(NULL, RECORD_BYTES, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (records == MAP_FAILED) {
            port_panic("no address space for records");
        }
    }
    madvise(records, RECORD_BYTES, MADV_DONTNEED);
    mprotect(records, RECORD_BYTES, PROT_NONE);
    memset(is_backed, 0, sizeof(is_backed));
    record_init(records, back_records);
}

void sim_boot_frames_on(uint64_t ram_bytes, unsigned cpus)
{
    paddr_t storage;

    sim_boot_map(ram_bytes);
    sim_set_cpu_count(cpus);
    uint64_t bytes = frame_metadata_bytes(&map);
    if (memmap_carve(&map, bytes, PAGE_BYTES, SIM_PHYSICAL_END,
                     "frame metadata", &storage) != MM_OK) {
        port_panic("no room for frame metadata");
    }
    reset_records();
    frame_init(&map, phys_to_virt(storage));
}

void sim_boot_frames(uint64_t ram_bytes)
{
    sim_boot_frames_on(ram_bytes, 1);
}

void sim_boot_heap(uint64_t ram_bytes)
{
    sim_boot_frames(ram_bytes);
    if (slab_init() != MM_OK || kmalloc_init() != MM_OK) {
        port_panic("the heap does not start");
    }
}

static const struct pt_features plain = {
    .levels = 4,
    .physical_bits = 40,
    .has_nx = true,
    .has_1g = true,
    .has_global = true,
};

/* Without global pages there is no use for PCIDs. */
static unsigned usable_parts(const struct pt_features *features, unsigned parts)
{
    return features->has_global ? parts
                                : parts & ~(unsigned)(TLB_PCID | TLB_INVPCID);
}

static enum mm_status try_boot(uint64_t ram_bytes,
                               const struct pt_features *features,
                               unsigned cpus, unsigned parts)
{
    const struct mm_segment segment[] = {
        {".text", IMAGE_START, TEXT_BYTES, paddr_of(IMAGE_PHYSICAL),
         pt_attr(PT_EXEC | PT_GLOBAL)},
        {".data", IMAGE_START + TEXT_BYTES, DATA_BYTES,
         paddr_of(IMAGE_PHYSICAL + TEXT_BYTES), pt_attr(PT_WRITE | PT_GLOBAL)},
    };
    const struct audit_need need[] = {
        {"code", IMAGE_START, PT_EXEC, phys_to_pfn(paddr_of(IMAGE_PHYSICAL))},
        {"data", IMAGE_START + TEXT_BYTES, PT_WRITE, PFN_NONE},
    };
    struct mm_config config = {
        .map = &map,
        .features = *features,
        .tlb_parts = usable_parts(features, parts),
        .mapped_end = ABOVE_HOLE,
        .segment = segment,
        .segment_count = sizeof(segment) / sizeof(segment[0]),
        .need = need,
        .need_count = sizeof(need) / sizeof(need[0]),
        .direct_start = SIM_DIRECT,
        .direct_bytes = 64 * TiB,
        .kmap_start = SIM_KMAP,
        .kmap_end = SIM_KMAP + 512 * GiB,
        .back = back_records,
    };

    sim_boot_map(ram_bytes);
    sim_set_cpu_count(cpus);
    sim_set_parts(parts);
    reset_records();
    config.record_start = (vaddr_t)records;
    struct walk_rules rules = {true, features->has_nx, true, true};
    sim_set_rules(rules);
    enum mm_status status = mm_init(&config);
    sim_set_watching(status == MM_OK);
    return status;
}

enum mm_status sim_try_boot(uint64_t ram_bytes,
                            const struct pt_features *features)
{
    return try_boot(ram_bytes, features, 1, SIM_ALL_PARTS);
}

void sim_boot_with(uint64_t ram_bytes, const struct pt_features *features)
{
    if (sim_try_boot(ram_bytes, features) != MM_OK) {
        port_panic("the simulated machine does not start");
    }
}

void sim_boot(uint64_t ram_bytes)
{
    sim_boot_with(ram_bytes, &plain);
}

const unsigned sim_part_sets[SIM_PART_SETS] = {
    SIM_ALL_PARTS,
    SIM_ALL_PARTS & ~TLB_INVPCID,
    TLB_LAZY | TLB_RANGES,
    TLB_PCID | TLB_INVPCID | TLB_RANGES,
    SIM_ALL_PARTS & ~TLB_RANGES,
    0,
};

/* As the trampoline leaves it: the kernel's tables loaded, nothing cached. */
static void start_cpu(unsigned cpu)
{
    sim_set_cpu(cpu);
    uint64_t irq = port_irq_save();
    mmu_write_cr3(pt_kernel.tlb.root.v);
    tlb_cpu_online();
    port_irq_restore(irq);
}

void sim_boot_cpus(uint64_t ram_bytes, unsigned cpus, unsigned parts)
{
    if (try_boot(ram_bytes, &plain, cpus, parts) != MM_OK) {
        port_panic("the simulated machine does not start");
    }
    for (unsigned cpu = 1; cpu < cpus; cpu++) {
        start_cpu(cpu);
    }
    sim_set_cpu(0);
}
