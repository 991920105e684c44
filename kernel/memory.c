/* SPDX-License-Identifier: MIT */
/* memory: hands the machine over to the memory subsystem. */
#include "kernel/memory.h"

#include <mm/frame.h>
#include <mm/mm.h>
#include <mm/shrink.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "kernel/boot_info.h"
#include "kernel/console/console.h"
#include "kernel/console/screen.h"
#include "kernel/cpu.h"
#include "kernel/gdt.h"
#include "kernel/idle.h"
#include "kernel/image.h"
#include "kernel/layout.h"
#include "kernel/panic.h"
#include "kernel/tlb_option.h"
#include "kernel/trap.h"

/* With less than this, tables, metadata and heap have no room. */
#define NEEDED_BYTES (5 * MiB)

#define SEGMENTS_MAX (5 + STACK_COUNT)
#define NEEDS_MAX    (5 + STACK_COUNT)

static struct memmap map;

static struct mm_segment segment[SEGMENTS_MAX];
static size_t segment_count;
static struct audit_need need[NEEDS_MAX];
static size_t need_count;

const struct memmap *memory_map(void)
{
    return &map;
}

/* --- the screen ----------------------------------------------------------- */

static uint64_t screen_bytes(void)
{
    const struct boot_framebuffer *screen = &boot_info.framebuffer;

    return (uint64_t)screen->pitch * screen->height;
}

static bool has_screen(void)
{
    return boot_info.framebuffer.kind != SCREEN_NONE &&
           screen_bytes() <= LAYOUT_SCREEN_BYTES - PAGE_BYTES;
}

/* Where the screen can be written now; NULL if nowhere. */
static void *screen_base(void)
{
    uint64_t address = boot_info.framebuffer.address;

    if (mm_stage() >= MM_STAGE_TABLES) {
        return (void *)(uintptr_t)(LAYOUT_SCREEN + address % PAGE_BYTES);
    }
    if (address + screen_bytes() > LAYOUT_BOOT_MAPPED) {
        return NULL;
    }
    return phys_to_virt(paddr_of(address));
}

void memory_show_screen(void)
{
    static bool was_shown;
    void *base = has_screen() ? screen_base() : NULL;

    if (base == NULL) {
        screen_use(NULL);
        return;
    }
    screen_use(boot_info.framebuffer.kind == SCREEN_TEXT
                   ? vga_driver(base)
                   : fb_driver(&boot_info.framebuffer, base));
    if (!was_shown) {
        was_shown = true;
        log_read(screen_write);
    }
}

/* --- what mm_init() is told ----------------------------------------------- */

static void add_segment(const char *name, vaddr_t start, vaddr_t end,
                        unsigned flags)
{
    ASSERT(segment_count < SEGMENTS_MAX);
    segment[segment_count] = (struct mm_segment){
        .name = name,
        .start = start,
        .bytes = end - start,
        .physical = paddr_of(start - LAYOUT_IMAGE),
        .attr = pt_attr(flags | PT_GLOBAL),
    };
    segment_count += end > start ? 1 : 0;
}

/* Is everything in [start, end) RAM? */
static bool is_all_ram(uint64_t start, uint64_t end)
{
    while (start < end) {
        const struct memmap_range *range = memmap_find(&map, paddr_of(start));

        if (range == NULL || !memmap_is_ram(range->type)) {
            return false;
        }
        start = range->end;
    }
    return true;
}

/*
 * The end of what is mapped of .data: if there is RAM behind it, to the end of
 * a large page. What else lies there may be written by its direct map, too.
 */
static vaddr_t data_mapped_end(void)
{
    vaddr_t end = align_up((vaddr_t)data_end, pte_span(1));

    return is_all_ram(image_physical(data_start), end - LAYOUT_IMAGE)
               ? end
               : (vaddr_t)data_end;
}

/* Written in bursts and never read: write combining. */
static void add_screen(void)
{
    uint64_t start = align_down(boot_info.framebuffer.address, PAGE_BYTES);
    uint64_t end = boot_info.framebuffer.address + screen_bytes();

    ASSERT(segment_count < SEGMENTS_MAX);
    segment[segment_count] = (struct mm_segment){
        .name = "screen",
        .start = LAYOUT_SCREEN,
        .bytes = align_up(end - start, PAGE_BYTES),
        .physical = paddr_of(start),
        .attr = {PT_WRITE | PT_GLOBAL, PT_WC, 0},
    };
    segment_count++;
}

/* The guard pages below the stacks are left out: nothing maps them. */
static void list_segments(void)
{
    segment_count = 0;
    add_segment(".text", (vaddr_t)text_start, (vaddr_t)text_end, PT_EXEC);
    add_segment(".rodata", (vaddr_t)rodata_start, (vaddr_t)rodata_end, 0);
    add_segment(".data", (vaddr_t)data_start, data_mapped_end(), PT_WRITE);
    add_segment(".symbols", (vaddr_t)symbols_start, (vaddr_t)symbols_end, 0);
    for (unsigned i = 0; i < STACK_COUNT; i++) {
        enum image_stack stack = (enum image_stack)i;

        add_segment(image_stack_name(stack), image_stack_start(stack),
                    image_stack_end(stack), PT_WRITE);
    }
    if (has_screen()) {
        add_screen();
    }
}

static void add_need(const char *name, vaddr_t address, unsigned flags)
{
    ASSERT(need_count < NEEDS_MAX);
    need[need_count] = (struct audit_need){
        .name = name,
        .address = address,
        .flags = flags,
        .pfn = pfn_of((address - LAYOUT_IMAGE) >> PAGE_SHIFT),
    };
    need_count++;
}

/* What the next instructions and the next fault cannot do without. */
static void list_needs(void)
{
    need_count = 0;
    add_need("code that loads CR3", (vaddr_t)memory_init, PT_EXEC);
    add_need("fault handler", (vaddr_t)trap_dispatch, PT_EXEC);
    add_need("IDT", trap_idt_address(), 0);
    add_need("GDT", gdt_address(), 0);
    add_need("TSS", gdt_tss_address(), 0);
    for (unsigned i = 0; i < STACK_COUNT; i++) {
        enum image_stack stack = (enum image_stack)i;

        add_need(image_stack_name(stack), image_stack_end(stack) - 8, PT_WRITE);
    }
}

static struct mm_config config_of(void)
{
    struct mm_config config = {
        .map = &map,
        .mapped_end = LAYOUT_BOOT_MAPPED,
        .segment = segment,
        .need = need,
        .direct_start = LAYOUT_DIRECT,
        .direct_bytes = LAYOUT_DIRECT_BYTES,
        .kmap_start = LAYOUT_KMAP,
        .kmap_end = LAYOUT_KMAP_END,
        .record_start = LAYOUT_RECORDS,
        .tlb_parts = tlb_option_parts(),
    };

    list_segments();
    list_needs();
    config.segment_count = segment_count;
    config.need_count = need_count;
    cpu_pt_features(&config.features);
    config.quirks = cpu_pt_quirks();
    return config;
}

/* --- start-up ------------------------------------------------------------- */

static void build_map(void)
{
    struct memmap_limits limits = {
        .physical_end = min_u64(UINT64_C(1) << cpu_features.physical_bits,
                                LAYOUT_DIRECT_BYTES),
        .mapped_end = LAYOUT_BOOT_MAPPED,
    };
    enum mm_status status = memmap_build(boot_info_memory(), &limits, &map);

    if (status != MM_OK) {
        give_up("the firmware reports %lu MiB of RAM, of which no range can "
                "be used (%s).",
                boot_info.ram_bytes / MiB, mm_status_name(status));
    }
    if (memmap_bytes(&map, MEMMAP_USABLE) < NEEDED_BYTES) {
        give_up("it needs at least %lu MiB of free RAM; the firmware "
                "reports %lu MiB, of which %lu MiB are free.",
                NEEDED_BYTES / MiB, boot_info.ram_bytes / MiB,
                memmap_bytes(&map, MEMMAP_USABLE) / MiB);
    }
}

/*
 * Give what only start-up needed to the allocator, range by range; from the
 * end, since what frame_add() does to the list happens from there on.
 */
static void give_back(void)
{
    uint64_t bytes = 0;

    for (size_t i = map.count; i > 0; i--) {
        struct memmap_range range = map.range[i - 1];
        if (range.type == MEMMAP_RECLAIM &&
            frame_add(phys_to_pfn(paddr_of(range.start)),
                      phys_to_pfn(paddr_of(range.end))) == MM_OK) {
            bytes += range.end - range.start;
        }
    }
    printk("start-up: %lu KiB of boot memory given back\n", bytes / KiB);
}

/* --- shortage ------------------------------------------------------------- */

static void wake_idle(void)
{
    (void)idle_ask_for_memory();
}

/*
 * No watermarks are set: with none, whoever asks gets the last frame, and the
 * sum over all CPUs that they are compared with is not paid for.
 */
static const struct frame_reclaim reclaim_hooks = {
    .reclaim = shrink_reclaim,
    .wake = wake_idle,
};

/* --- start-up, in order --------------------------------------------------- */

void memory_init(void)
{
    build_map();
    struct mm_config config = config_of();
    screen_use(NULL); /* while tables change; the text is not lost */
    enum mm_status status = mm_init(&config);
    memory_show_screen();
    if (status != MM_OK) {
        give_up("the memory subsystem did not come up (%s, stage %d); the "
                "reason is in the line above.",
                mm_status_name(status), (int)mm_stage());
    }
    frame_set_reclaim(&reclaim_hooks);
    give_back();
}
