/* SPDX-License-Identifier: MIT */
/* machine: commands about the machine, and about this kernel. */
#include "kernel/cpu.h"

#include <mm/walk.h>
#include "kernel/bench.h"
#include "kernel/boot_info.h"
#include "kernel/console/console.h"
#include "kernel/kernel.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/monitor/tlb_geometry.h"
#include "kernel/selftest.h"
#include "kernel/shutdown.h"
#include "kernel/tour.h"
#include "tests/shared/test.h"

/* --- version, dmesg ------------------------------------------------------- */

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static bool run_version(const struct arguments *arguments)
{
    (void)arguments;
    printk(KERNEL_NAME ", %s build by " COMPILER "\n",
           MM_DEBUG ? "debug" : "release");
    printk("loaded by %s, command line: %s\n", boot_info.loader,
           boot_info.command_line);
    return true;
}

static bool run_dmesg(const struct arguments *arguments)
{
    (void)arguments;
    log_read(console_show);
    return true;
}

/* --- cpuinfo -------------------------------------------------------------- */

/* Names of the features that the processor has, or of those it lacks. */
static void print_features(const char *title, unsigned is_there)
{
    const struct {
        const char *name;
        unsigned is_there;
    } features[] = {
        {"nx", cpu_features.has_nx},
        {"pdpe1gb", cpu_features.has_1g},
        {"pge", cpu_features.has_pge},
        {"pat", cpu_features.has_pat},
        {"mtrr", cpu_features.has_mtrr},
        {"pcid", cpu_features.has_pcid},
        {"invpcid", cpu_features.has_invpcid},
        {"smep", cpu_features.has_smep},
        {"smap", cpu_features.has_smap},
        {"umip", cpu_features.has_umip},
        {"la57", cpu_features.has_la57},
        {"x2apic", cpu_features.has_x2apic},
        {"rdrand", cpu_features.has_rdrand},
        {"mce", cpu_features.has_mce},
        {"hypervisor", cpu_features.has_hypervisor},
    };

    printk("%-14s:", title);
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        if (features[i].is_there == is_there) {
            printk(" %s", features[i].name);
        }
    }
    printk("\n");
}

static struct tlb_leaf read_leaf(uint32_t leaf, uint32_t subleaf)
{
    bool is_extended = (leaf >> 31) != 0;
    struct tlb_leaf out = {0};

    if (leaf <= (is_extended ? cpu_features.max_extended_leaf
                             : cpu_features.max_leaf)) {
        struct cpuid id = cpu_cpuid(leaf, subleaf);
        out = (struct tlb_leaf){id.eax, id.ebx, id.ecx, id.edx};
    }
    return out;
}

static void print_ways(unsigned ways)
{
    if (ways == TLB_FULLY) {
        printk("fully associative\n");
    } else if (ways == 0) {
        printk("ways not said\n");
    } else {
        printk("%u-way\n", ways);
    }
}

static void print_tlbs(void)
{
    static const char *const kinds[] = {
        [TLB_DATA] = "data",
        [TLB_INSTRUCTION] = "instruction",
        [TLB_UNIFIED] = "unified",
    };
    static const char *const sizes[] = {" 4K", " 2M", " 4M", " 1G"};
    struct tlb_geometry tlb[TLB_GEOMETRY_MAX];
    unsigned count = tlb_geometry(read_leaf, tlb);

    if (count == 0) {
        printk("%-14s: CPUID does not say\n", "TLB");
    }
    for (unsigned i = 0; i < count; i++) {
        printk("%-14s: L%u %-11s %5u entries for", "TLB", tlb[i].level,
               kinds[tlb[i].kind], tlb[i].entries);
        for (unsigned size = 0; size < 4; size++) {
            if ((tlb[i].pages & (1u << size)) != 0) {
                printk("%s", sizes[size]);
            }
        }
        printk(" pages, ");
        print_ways(tlb[i].ways);
    }
}

static bool run_cpuinfo(const struct arguments *arguments)
{
    (void)arguments;
    printk("%-14s: %s\n", "vendor_id", cpu_features.vendor);
    printk("%-14s: %s\n", "model name", cpu_features.brand);
    printk("%-14s: %u, model %u, stepping %u\n", "cpu family",
           cpu_features.family, cpu_features.model, cpu_features.stepping);
    print_features("flags", 1);
    print_features("not there", 0);
    printk("%-14s: %u bits physical, %u bits virtual; %u levels in use\n",
           "address sizes", cpu_features.physical_bits,
           cpu_features.linear_bits, pt_features.levels);
    printk("%-14s: cr0 0x%lx, cr3 0x%lx, cr4 0x%lx, efer 0x%lx\n", "control",
           cpu_read_cr0(), cpu_read_cr3(), cpu_read_cr4(), cpu_rdmsr(MSR_EFER));
    print_tlbs();
    return true;
}

/* --- test, bench, tour ---------------------------------------------------- */

static bool run_test(const struct arguments *arguments)
{
    const char *what = arguments->count > 0 ? arguments->word[0] : "all";

    if (strcmp(what, "-l") == 0) {
        test_list();
        return true;
    }
    return must_be_first(arguments) &&
           selftest_run(strcmp(what, "all") == 0 ? "" : what);
}

static bool run_bench(const struct arguments *arguments)
{
    return must_be_first(arguments) &&
           bench_run(arguments->count > 0 ? arguments->word[0] : "");
}

static bool run_tour(const struct arguments *arguments)
{
    (void)arguments;
    return tour_run();
}

/* --- the end -------------------------------------------------------------- */

static bool run_reboot(const struct arguments *arguments)
{
    (void)arguments;
    shutdown_reboot();
}

/* A script gets here only if everything before has worked. */
static bool run_poweroff(const struct arguments *arguments)
{
    (void)arguments;
    if (cmdline_is("exit", "debug")) {
        shutdown_debug_exit(SHUTDOWN_PASSED);
    }
    shutdown_poweroff();
}

static const struct command commands[] = {
    {"version", "", "", "this kernel, and who loaded it", "", 0, 0, false,
     run_version},
    {"dmesg", "", "", "everything printed so far", "", 0, 0, false, run_dmesg},
    {"cpuinfo", "cr", "", "the processor, and its TLBs", "", 0, 0, false,
     run_cpuinfo},
    {"tour", "", "", "the memory subsystem on one screen", "", 0, 0, false,
     run_tour},
    {"test", "", "[-l|NAME|all]", "run tests by the start of their name",
     "all -l", 0, 1, false, run_test},
    {"bench", "", "[NAME]", "what operations cost", "", 0, 1, false, run_bench},
    {"reboot", "", "", "start again", "", 0, 0, false, run_reboot},
    {"poweroff", "quit exit", "", "turn the machine off", "", 0, 0, false,
     run_poweroff},
};

const struct command_group command_machine = COMMAND_GROUP("Machine", commands);
