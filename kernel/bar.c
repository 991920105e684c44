/* SPDX-License-Identifier: MIT */
/* bar: the machine's physical memory as a line of characters, with sums. */
#include "kernel/bar.h"

#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/explain.h"

/* Characters that both the framebuffer's font and VGA text have. */
static const char *const sign[MEMMAP_TYPES] = {
    [MEMMAP_HOLE] = " ",
    [MEMMAP_USABLE] = "\xe2\x96\x91", /* light shade */
    [MEMMAP_RECLAIM] = "r",
    [MEMMAP_ACPI] = "A",
    [MEMMAP_KERNEL] = "\xe2\x96\x88", /* full block */
    [MEMMAP_OFFLINE] = "o",
    [MEMMAP_FRAMEBUFFER] = "F",
    [MEMMAP_RESERVED] = "\xe2\x96\x92", /* medium shade */
    [MEMMAP_BAD] = "!",
};

/* Bytes of each type in [start, end). */
static void sum_cell(const struct memmap *map, uint64_t start, uint64_t end,
                     uint64_t bytes[MEMMAP_TYPES])
{
    for (size_t i = memmap_first_above(map, start);
         i < map->count && map->range[i].start < end; i++) {
        const struct memmap_range *range = &map->range[i];

        bytes[range->type] +=
            min_u64(range->end, end) - max_u64(range->start, start);
    }
}

static const char *cell_sign(const struct memmap *map, uint64_t start,
                             uint64_t end)
{
    uint64_t bytes[MEMMAP_TYPES] = {0};
    unsigned shown = MEMMAP_HOLE;

    sum_cell(map, start, end, bytes);
    for (unsigned type = 0; type < MEMMAP_TYPES; type++) {
        /* Free RAM and reserved windows must be most of it. */
        bool is_plain = type == MEMMAP_USABLE || type == MEMMAP_RESERVED;
        uint64_t least = (end - start) / (is_plain ? 2 : 8);
        if (bytes[type] > 0 && bytes[type] >= least) {
            shown = type;
        }
    }
    return sign[shown];
}

static void print_legend(const struct memmap *map)
{
    unsigned printed = 0;

    for (unsigned type = MEMMAP_USABLE; type < MEMMAP_TYPES; type++) {
        uint64_t bytes = memmap_bytes(map, (enum memmap_type)type);
        if (bytes > 0) {
            printk("%s%s %s %s", printed % 4 == 0 ? "\n  " : "   ", sign[type],
                   memmap_type_name((enum memmap_type)type),
                   explain_bytes(bytes).text);
            printed++;
        }
    }
    printk("\n");
}

void bar_print(const struct memmap *map)
{
    uint64_t end = max_u64(memmap_ram_end(map), PAGE_BYTES * BAR_CELLS);

    printk("  0 [");
    for (unsigned i = 0; i < BAR_CELLS; i++) {
        printk("%s",
               cell_sign(map, end / BAR_CELLS * i, end / BAR_CELLS * (i + 1)));
    }
    printk("] %s", explain_bytes(end).text);
    print_legend(map);
}
