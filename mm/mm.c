/* SPDX-License-Identifier: MIT */
/* mm: start-up order, sums over all modules, check everything. */
/*
 * Idea      mm_init() is a list of steps, each a function; the list is the
 *           order in which the parts come to depend on each other:
 *
 *             tables   frames for page tables are carved out of the map; the
 *                      direct map and the image are built and checked, and
 *                      only then loaded
 *             frames   their metadata may lie anywhere in RAM: the direct map
 *                      stands
 *             records  backed as frames are handed out; then the tables of
 *                      the first step get theirs
 *             heap     on the direct map
 *             maps     kernel addresses, with descriptors from the heap
 *
 * Locking   None. Records are backed inside any allocation, by several CPUs at
 *           once: a CPU that is stopped in it must not hold up the others.
 *
 * Cost      O(ranges of the map + large pages of RAM), and a bit for 2 MiB.
 */
#include <mm/mm.h>

#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"

static enum mm_stage stage; /* (I) */
static pfn_t kernel_root;   /* (C) after build_tables() */

enum mm_stage mm_stage(void)
{
    return stage;
}

/* A zeroed page out of the map, where phys_to_virt() works already. */
static pfn_t early_table(void *context)
{
    const struct mm_config *config = context;
    paddr_t address;

    if (memmap_carve(config->map, PAGE_BYTES, PAGE_BYTES, config->mapped_end,
                     "page tables", &address) != MM_OK) {
        return PFN_NONE;
    }
    memset(phys_to_virt(address), 0, PAGE_BYTES);
    return phys_to_pfn(address);
}

static pfn_t metadata_table(void *context)
{
    (void)context;
    return frame_alloc_metadata();
}

/*
 * The next piece of RAM at or above @from, neighbours taken together.
 * Carving goes on while the caller loops, so the map is asked anew each time.
 */
static bool next_ram(const struct memmap *map, uint64_t from, uint64_t *start,
                     uint64_t *end)
{
    bool found = false;

    for (size_t i = memmap_first_above(map, from); i < map->count; i++) {
        const struct memmap_range *range = &map->range[i];

        if (!memmap_is_ram(range->type)) {
            continue;
        }
        if (found && range->start != *end) {
            break;
        }
        *start = found ? *start : max_u64(range->start, from);
        *end = range->end;
        found = true;
    }
    return found;
}

static enum mm_status build_direct_map(const struct mm_config *config)
{
    struct pt_attr attr = pt_attr(PT_WRITE | PT_GLOBAL);
    enum mm_status status = MM_OK;
    uint64_t start = 0;
    uint64_t end = 0;

    while (status == MM_OK && next_ram(config->map, end, &start, &end)) {
        if (end > config->direct_bytes) {
            port_log("RAM at 0x%lx is beyond the direct map's 0x%lx bytes", end,
                     config->direct_bytes);
            return MM_ERANGE;
        }
        status = pt_install(kernel_root, config->direct_start + start,
                            phys_to_pfn(paddr_of(start)), end - start, attr,
                            early_table, (void *)config);
    }
    return status;
}

static enum mm_status build_segments(const struct mm_config *config)
{
    enum mm_status status = MM_OK;

    for (size_t i = 0; status == MM_OK && i < config->segment_count; i++) {
        const struct mm_segment *segment = &config->segment[i];

        status = pt_install(kernel_root, segment->start,
                            phys_to_pfn(segment->physical),
                            align_up(segment->bytes, PAGE_BYTES), segment->attr,
                            early_table, (void *)config);
        if (status != MM_OK) {
            port_log("segment %s at 0x%lx cannot be mapped: %s", segment->name,
                     segment->start, mm_status_name(status));
        }
    }
    return status;
}

/*
 * What spans 512 GiB of the kernel's half is made once and for all: with 4
 * levels these are top-level entries, and every space can copy them; with 5
 * all of them lie in one table that the spaces share. The arena and the record
 * array get one each.
 */
#define BELOW_512_GIB 2

static enum mm_status build_top_entries(const struct mm_config *config)
{
    enum mm_status status =
        pt_install_table(kernel_root, config->kmap_start, BELOW_512_GIB,
                         early_table, (void *)config);

    if (status == MM_OK && config->back == NULL) {
        status = pt_install_table(kernel_root, config->record_start,
                                  BELOW_512_GIB, early_table, (void *)config);
    }
    return status;
}

/* Tell the audit what start-up maps whoever has the frames. */
static void note_fixed(const struct mm_config *config)
{
    struct pt_range direct = {config->direct_start,
                              config->direct_start + config->direct_bytes};
    struct pt_range image = {UINT64_MAX, 0};

    for (size_t i = 0; i < config->segment_count; i++) {
        const struct mm_segment *segment = &config->segment[i];

        image.start = min_u64(image.start, segment->start);
        image.end = max_u64(image.end, segment->start + segment->bytes);
    }
    audit_set_fixed(direct, image);
}

/* Is there RAM that entries which are not present could name? */
static void warn_of_payloads(const struct memmap *map)
{
    uint64_t end = pt_payload_end << PAGE_SHIFT;

    if (memmap_ram_end(map) > end) {
        port_log("RAM above 0x%lx is within reach of L1TF: nothing from there "
                 "on is parked, but what is parked below may name it",
                 end);
    }
}

/* Build the final tables, look at them, load them. */
static enum mm_status start_tables(const struct mm_config *config)
{
    struct audit_refusal refusal;

    pt_quirks = config->quirks;
    pt_setup(&config->features);
    warn_of_payloads(config->map);
    note_fixed(config);
    tlb_init(config->tlb_parts);
    kernel_root = early_table((void *)config);
    if (pfn_is_none(kernel_root)) {
        return MM_ENOMEM;
    }
    enum mm_status status = build_direct_map(config);
    status = status == MM_OK ? build_segments(config) : status;
    status = status == MM_OK ? build_top_entries(config) : status;
    if (status != MM_OK) {
        return status;
    }
    if (!audit_before_load(kernel_root, config->need, config->need_count,
                           &refusal)) {
        port_log("the new page tables are refused: %s at 0x%lx %s",
                 refusal.name, refusal.address, refusal.text);
        return MM_EFAULT;
    }
    tlb_space_init(&pt_kernel.tlb, pfn_to_phys(kernel_root), true);
    tlb_cpu_online();
    return MM_OK;
}

/* Tables first: once they stand, the frame itself cannot be lost. */
static enum mm_status map_record_page(vaddr_t page)
{
    struct walk walk;

    walk_address(kernel_root, page, &walk);
    if (walk.state == PTE_PRESENT) {
        return MM_OK;
    }
    enum mm_status status =
        pt_install_table(kernel_root, page, 0, metadata_table, NULL);
    if (status != MM_OK) {
        return status;
    }
    pfn_t frame = frame_alloc_metadata();
    if (pfn_is_none(frame)) {
        return MM_ENOMEM;
    }
    status = pt_install(kernel_root, page, frame, PAGE_BYTES,
                        pt_attr(PT_WRITE | PT_GLOBAL), metadata_table, NULL);
    if (status != MM_OK) {
        frame_free_metadata(frame);
    }
    return status == MM_EEXIST ? MM_OK : status; /* another CPU was faster */
}

/* record_back_fn: one frame for each page of the array that has none. */
static enum mm_status map_records(vaddr_t start, vaddr_t end)
{
    enum mm_status status = MM_OK;

    for (vaddr_t page = start; status == MM_OK && page < end;
         page += PAGE_BYTES) {
        status = map_record_page(page);
    }
    return status;
}

static enum mm_status start_frames(const struct mm_config *config)
{
    uint64_t bytes = frame_metadata_bytes(config->map);
    paddr_t storage;
    enum mm_status status = memmap_carve(
        config->map, bytes, PAGE_BYTES, UINT64_MAX, "frame metadata", &storage);

    if (status != MM_OK) {
        port_log("no %lu KiB in one piece for frame metadata", (bytes / KiB));
        return status;
    }
    record_init((void *)config->record_start,
                config->back != NULL ? config->back : map_records);
    frame_init(config->map, phys_to_virt(storage));
    return pt_adopt(&pt_kernel, kernel_root, true);
}

static enum mm_status start_heap(const struct mm_config *config)
{
    enum mm_status status = slab_init();

    (void)config;
    return status == MM_OK ? kmalloc_init() : status;
}

/* Take from the direct map what an image segment does not allow either. */
static enum mm_status protect_alias(const struct mm_config *config,
                                    const struct mm_segment *segment)
{
    return pt_protect_kernel(config->direct_start + segment->physical.v,
                             align_up(segment->bytes, PAGE_BYTES),
                             pt_attr(PT_GLOBAL));
}

static enum mm_status start_maps(const struct mm_config *config)
{
    enum mm_status status =
        kmap_init(config->kmap_start, config->kmap_end, config->map);

    if (status == MM_OK) {
        kmap_join_shrinkers();
    }
    guard_setup(config->direct_start);
    for (size_t i = 0; status == MM_OK && i < config->segment_count; i++) {
        if ((config->segment[i].attr.flags & PT_WRITE) == 0) {
            status = protect_alias(config, &config->segment[i]);
        }
    }
    return status;
}

enum mm_status mm_init(const struct mm_config *config)
{
    static const struct {
        const char *name;
        enum mm_status (*start)(const struct mm_config *config);
        enum mm_stage reached;
    } step[] = {
        {"page tables", start_tables, MM_STAGE_TABLES},
        {"frames", start_frames, MM_STAGE_FRAMES},
        {"heap", start_heap, MM_STAGE_HEAP},
        {"kernel mappings", start_maps, MM_STAGE_MAPS},
    };

    stage = MM_STAGE_NOTHING;
    for (size_t i = 0; i < sizeof(step) / sizeof(step[0]); i++) {
        enum mm_status status = step[i].start(config);

        if (status != MM_OK) {
            port_log("start of %s failed: %s; %lu KiB of RAM are usable",
                     step[i].name, mm_status_name(status),
                     (memmap_bytes(config->map, MEMMAP_USABLE) / KiB));
            return status;
        }
        stage = step[i].reached;
    }
    return MM_OK;
}

bool mm_check(void)
{
    struct audit_verdict verdict;

    /* All are run, so that one log shows everything that is wrong. */
    bool frames = frame_check();
    bool slabs = slab_check();
    bool blocks = kmalloc_check();
    bool guards = guard_check();
    bool maps = kmap_check();
    bool tables = pt_audit(&pt_kernel, &verdict);

    if (!tables) {
        port_log("page tables: %lu writable and executable, %lu reserved "
                 "bits, %lu of freed frames, %lu wrong counts, %lu empty, "
                 "%lu lost, %lu aliases",
                 verdict.writable_exec, verdict.reserved_bits,
                 verdict.freed_frames, verdict.wrong_counts,
                 verdict.empty_tables, verdict.lost_tables,
                 verdict.aliases.rights + verdict.aliases.memory);
    }
    return frames && slabs && blocks && guards && maps && tables;
}
