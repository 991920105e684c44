/* SPDX-License-Identifier: MIT */
/* leaks: what the kernel's own roots are, and the scan in words. */
/*
 * Owns     what the last scan has found.
 *
 * Idea     Roots are variables of the image, of each stack the part in use,
 *          with the registers of who stands still on it, and all that blocks
 *          of kmap hold. What lies below a stack pointer is not read: it has
 *          pointers to what was freed, or lost, long ago.
 *
 * Locking  Nobody else runs: smp_freeze().
 */
#include "kernel/leaks.h"

#include <mm/audit.h>
#include <mm/port.h>
#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/image.h"
#include "kernel/lib/string.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"

/* with_registers.asm */
void with_registers(void (*function)(void *argument, vaddr_t stack),
                    void *argument);

static struct leaks found;

/* All variables but those that name what is leaked. */
static void scan_image(void)
{
    leak_scan(data_start, &found);
    leak_scan(&found + 1, data_end);
}

/* @own: where this processor's stack is in use from. */
static void scan_stacks(vaddr_t own)
{
    for (unsigned i = 0; i < smp_possible(); i++) {
        const struct percpu *cpu = percpu_of(i);

        if (cpu != NULL && smp_is_online(i)) {
            vaddr_t start = cpu == percpu_this() ? own : cpu->still_at;
            leak_scan((const void *)start,
                      (const void *)cpu->stack_end[STACK_KERNEL]);
        }
    }
}

static bool is_stack(vaddr_t address)
{
    for (unsigned i = 0; i < smp_possible(); i++) {
        const struct percpu *cpu = percpu_of(i);

        for (unsigned k = 0; cpu != NULL && k < STACK_COUNT; k++) {
            if (cpu->stack_end[k] - address - 1 < STACK_BYTES) {
                return true;
            }
        }
    }
    return false;
}

/* Memory of a block, read where the direct map shows it. */
static bool scan_extent(void *context, const struct audit_run *run)
{
    (void)context;
    if ((run->state == PTE_PRESENT || run->state == PTE_PARKED) &&
        (run->attr.flags & PT_OWNED) != 0 && !is_stack(run->start)) {
        const char *start = phys_to_virt(pfn_to_phys(run->pfn));
        leak_scan(start, start + run->bytes);
    }
    return true;
}

static void scan(void *context, vaddr_t stack)
{
    bool *is_done = context;

    *is_done = leak_begin() == MM_OK;
    if (!*is_done) {
        return;
    }
    scan_image();
    scan_stacks(stack);
    audit_extents(&pt_kernel, LAYOUT_KMAP, LAYOUT_KMAP_END, scan_extent, NULL);
    found.count = leak_end(found.group, LEAKS_GROUPS, &found.totals);
}

const struct leaks *leaks_find(void)
{
    bool is_done = false;
    uint64_t irq;

    if (smp_freeze(&irq) != MM_OK) {
        return NULL;
    }
    with_registers(scan, &is_done);
    smp_thaw(irq);
    return is_done ? &found : NULL;
}

void leaks_forget(void)
{
    memset(&found, 0, sizeof(found));
}

uint64_t leaks_print(const struct leaks *leaks)
{
    for (unsigned i = 0; i < leaks->count; i++) {
        const struct leak_group *group = &leaks->group[i];

        printk("leaked: %lu of %lu bytes (%s), one is 0x%lx", group->count,
               group->bytes, group->cache, (vaddr_t)group->example);
        if (group->site != 0) {
            printk(", allocated by %p", (void *)group->site);
        }
        printk("\n");
    }
    if (leaks->totals.ungrouped > 0) {
        printk("leaked: %lu more\n", leaks->totals.ungrouped);
    }
    return leaks->totals.leaked;
}
