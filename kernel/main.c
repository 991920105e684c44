/* SPDX-License-Identifier: MIT */
/* main: start-up, in order. */
#include "kernel/kernel.h"

#include <mm/quarantine.h>

#include "kernel/boot_info.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/gdt.h"
#include "kernel/guard_option.h"
#include "kernel/irq.h"
#include "kernel/heap_option.h"
#include "kernel/la57_option.h"
#include "kernel/lib/format.h"
#include "kernel/memory.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"
#include "kernel/symbols.h"
#include "kernel/trap.h"

/* Freed objects that wait on a CPU, debug builds: 64 of 1 KiB. */
#define QUARANTINE_BYTES (64 * KiB)

uint64_t kernel_start_clock;

static void read_boot_info(uint32_t magic, uint64_t physical)
{
    enum mm_status status = boot_info_read(magic, physical);

    cmdline_init(boot_info.command_line);
    memory_show_screen();
    switch (status) {
    case MM_OK:
        break;
    case MM_EINVAL:
        give_up("the boot loader is not a Multiboot2 one: it left 0x%x in "
                "EAX, not 0x%x.",
                magic, MB2_LOADER_MAGIC);
    case MM_ENOENT:
        give_up("the boot loader gave no memory map.");
    default:
        give_up("the boot information at 0x%lx is damaged.", physical);
    }
    if (!boot_info.is_complete) {
        printk("warning: the boot information breaks off; what follows the "
               "break is ignored\n");
    }
    if (boot_info.command_line_bytes >= CMDLINE_MAX) {
        printk("warning: the command line has %lu bytes; what follows byte "
               "%d is ignored\n",
               boot_info.command_line_bytes, CMDLINE_MAX - 1);
    }
}

MM_NORETURN void kernel_main(uint32_t magic, uint64_t boot_information)
{
    kernel_start_clock = cpu_rdtsc();
    percpu_init();
    format_name = symbol_find;
    console_init();
    printk(KERNEL_NAME "\n");

    /* From here on a mistake is a report and not a reset. */
    cpu_detect();
    gdt_init(&percpu_this()->gdt, percpu_this()->stack_end);
    trap_init();
    cpu_protect();
    irq_init();

    read_boot_info(magic, boot_information);
    printk("loaded by %s: %s\n", boot_info.loader, boot_info.command_line);
    printk("CPU: %s %s, %u levels of page tables\n", cpu_features.vendor,
           cpu_features.brand, cpu_levels());
    la57_option_check();
    heap_option_apply();

    smp_find();
    memory_init();
    if (quarantine_set(QUARANTINE_BYTES) != MM_OK) {
        printk("warning: no memory to let freed objects wait\n");
    }
    guard_option_start();
    smp_start();
    kernel_run();
}
