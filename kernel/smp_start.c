/* SPDX-License-Identifier: MIT */
/* smp_start: the other processors: counted by ACPI, started one and all. */
/*
 * Idea     All are started at the same time: INIT to each, one delay, the
 *          start-up interrupt to each. So 255 take little longer than 2.
 *
 *          A processor takes its stack and everything else from the entry
 *          with its APIC id, and first makes itself safe: its own GDT, TSS
 *          and stacks with guards, then every protection that the first one
 *          has. Only then it asks to join, and only then it touches what is
 *          shared:
 *
 *            NONE --INIT--> STARTING --it is in time--> JOINING --> ONLINE
 *                              |  \--it is not like the first--> REFUSED
 *                              \--patience ends--> LEFT_OUT --it comes--> LATE
 *
 *          Both ways out of STARTING are a compare-exchange: one wins.
 *
 * Locking  The first processor writes the entries before it starts others.
 *
 * Limits   While one is left out, the page of start-up code and its tables
 *          stay, for it may still come.
 */
#include "kernel/smp.h"

#include <mm/frame.h>
#include <mm/port.h>
#include <mm/pt.h>
#include <mm/tlb.h>
#include "kernel/acpi.h"
#include "kernel/apic.h"
#include "kernel/boot_info.h"
#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/irq.h"
#include "kernel/lib/number.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"
#include "kernel/trampoline.h"

/* [SDM-3A 9.4.4.1 "Typical BSP Initialization Sequence"] */
#define INIT_MICROSECONDS    10000
#define STARTUP_MICROSECONDS 200
#define STARTUPS             2 /* the second is ignored by who has started */

/* Without another one arriving. Emulated ones wait for a busy host, too. */
#define PATIENCE_MICROSECONDS 2000000
#define LOOK_MICROSECONDS     100

/*
 * Errors of sending: checksum, not accepted, not redirectable, illegal vector.
 * [SDM-3A 11.5.3 "Error Handling"]
 */
#define SEND_ERRORS 0x35

/* --- what the assembly knows ---------------------------------------------- */

/* ap_entry.asm */
void ap_entry(void);

struct smp_entry {
    uint32_t apic_id;
    uint32_t is_claimed; /* by who came first with this id */
    struct percpu *cpu;  /* NULL: nothing was made for it */
};
_Static_assert(sizeof(struct smp_entry) == 16, "ap_entry.asm");

extern struct smp_entry smp_entries[MM_MAX_CPUS];
extern uint32_t smp_entry_count;
extern uint32_t smp_id_leaf;
extern uint64_t smp_root;

/* (C) after smp_find() but for the pointers; by number of the processor. */
struct smp_entry smp_entries[MM_MAX_CPUS];
uint32_t smp_entry_count = 1;
uint32_t smp_id_leaf; /* (C) CPUID leaf with the APIC id */
uint64_t smp_root;    /* (C) CR3 of the kernel's tables */

/* --- how many there are --------------------------------------------------- */

unsigned smp_possible(void)
{
    return smp_entry_count;
}

/* The boot tables show the first 4 GiB. */
static const void *map_table(const void *context, uint64_t physical,
                             uint64_t bytes)
{
    (void)context;
    return bytes <= LAYOUT_BOOT_MAPPED && physical <= LAYOUT_BOOT_MAPPED - bytes
               ? phys_to_virt(paddr_of(physical))
               : NULL;
}

/* cpus=N; as many as there can be without it. */
static uint64_t limit_of_command_line(void)
{
    const char *text = cmdline_get("cpus");
    uint64_t limit = MM_MAX_CPUS;

    if (text != NULL && (number_parse(text, &limit) != MM_OK || limit == 0)) {
        printk("warning: cpus=%s is no number of CPUs; all are used\n", text);
        return MM_MAX_CPUS;
    }
    return limit;
}

static bool is_listed(const struct acpi_cpus *cpus, uint32_t apic_id)
{
    for (unsigned i = 0; i < cpus->count; i++) {
        if (cpus->cpu[i].apic_id == apic_id) {
            return true;
        }
    }
    return false;
}

static void list_others(const struct acpi_cpus *cpus, uint64_t limit)
{
    uint32_t own = smp_entries[0].apic_id;

    for (unsigned i = 0; i < cpus->count && smp_entry_count < limit; i++) {
        if (cpus->cpu[i].apic_id != own && smp_entry_count < MM_MAX_CPUS) {
            smp_entries[smp_entry_count].apic_id = cpus->cpu[i].apic_id;
            smp_entry_count++;
        }
    }
}

void smp_find(void)
{
    static const struct acpi_source source = {map_table, NULL};
    static struct acpi_cpus cpus;
    const void *rsdp = boot_info.rsdp_bytes > 0 ? boot_info.rsdp : NULL;
    uint64_t limit = limit_of_command_line();
    enum mm_status status =
        acpi_read_cpus(&source, rsdp, boot_info.rsdp_bytes, &cpus);

    smp_id_leaf = cpu_apic_id_leaf();
    smp_entries[0].apic_id = percpu_this()->apic_id;
    if (cpus.complaint[0] != '\0') {
        printk("%s\n", cpus.complaint);
    }
    if (status != MM_OK) {
        return;
    }
    if (!is_listed(&cpus, smp_entries[0].apic_id)) {
        printk("ACPI: none of %u CPUs has the APIC id 0x%x of this one; one "
               "CPU is used\n",
               cpus.count, smp_entries[0].apic_id);
        return;
    }
    list_others(&cpus, limit);
}

/* --- what they need ------------------------------------------------------- */

static void leave_out(unsigned index, const char *reason)
{
    printk("CPU %u (APIC id 0x%x) is left out: %s\n", index,
           smp_entries[index].apic_id, reason);
}

/* Stacks may take half of the memory: processors without any are no use. */
static uint64_t affordable_cpus(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    return stats.free * PAGE_BYTES / 2 / (STACK_COUNT * STACK_BYTES);
}

/* Stacks and the rest for each. Return: how many can be started. */
static unsigned make_cpus(void)
{
    uint64_t affordable = affordable_cpus();
    unsigned made = 0;

    for (unsigned i = 1; i < smp_entry_count; i++) {
        struct smp_entry *entry = &smp_entries[i];

        if (!apic_can_reach(entry->apic_id)) {
            leave_out(i, "without x2APIC interrupts reach ids up to 254");
            continue;
        }
        if (made < affordable) {
            entry->cpu = percpu_create(i, entry->apic_id);
        }
        if (entry->cpu == NULL) {
            leave_out(i, "no memory for its stacks");
            continue;
        }
        made++;
    }
    return made;
}

/* --- starting them -------------------------------------------------------- */

/* What must be the same on each. */
struct registers {
    uint64_t cr0;
    uint64_t cr4;
    uint64_t efer;
    uint64_t pat;
};

static struct registers expected; /* (C) before others start */

static struct registers read_registers(void)
{
    return (struct registers){
        .cr0 = cpu_read_cr0(),
        .cr4 = cpu_read_cr4() & ~CR4_PCIDE, /* tlb_cpu_online() sets it */
        .efer = cpu_rdmsr(MSR_EFER),
        .pat = cpu_features.has_pat ? cpu_rdmsr(MSR_PAT) : 0,
    };
}

static unsigned state_of(const struct percpu *cpu)
{
    /* Acquire: pairs with the release in smp_enter() and refuse(). */
    return atomic_load_explicit(&cpu->state, memory_order_acquire);
}

/* Change @cpu's state if it is @from. */
static bool change_state(struct percpu *cpu, unsigned from, unsigned to)
{
    return atomic_compare_exchange_strong_explicit(
        &cpu->state, &from, to, memory_order_acq_rel, memory_order_acquire);
}

/* Processors in @state. */
static unsigned count_in(enum percpu_state state)
{
    unsigned count = 0;

    for (unsigned i = 1; i < smp_entry_count; i++) {
        const struct percpu *cpu = smp_entries[i].cpu;
        count += cpu != NULL && state_of(cpu) == (unsigned)state ? 1 : 0;
    }
    return count;
}

/*
 * late=N, for tests: processor N gets its start-up interrupt when it is too
 * late.
 */
static bool is_held_back(unsigned index)
{
    return index != 0 && cmdline_number("late", 0) == index;
}

static void send_inits(void)
{
    for (unsigned i = 1; i < smp_entry_count; i++) {
        struct percpu *cpu = smp_entries[i].cpu;

        if (cpu != NULL) {
            /* Release: all that was made for it is there. */
            atomic_store_explicit(&cpu->state, PERCPU_STARTING,
                                  memory_order_release);
            apic_send_init(cpu->apic_id);
        }
    }
    irq_delay(INIT_MICROSECONDS);
}

static void send_startups(paddr_t code)
{
    for (unsigned i = 1; i < smp_entry_count; i++) {
        const struct percpu *cpu = smp_entries[i].cpu;

        if (cpu != NULL && state_of(cpu) == PERCPU_STARTING &&
            !is_held_back(i)) {
            apic_send_startup(cpu->apic_id, code);
        }
    }
    irq_delay(STARTUP_MICROSECONDS);
}

/* Until all have come, or none has for a while. */
static void wait_for_them(void)
{
    unsigned missing = count_in(PERCPU_STARTING) + count_in(PERCPU_JOINING);
    uint64_t waited = 0;

    while (missing > 0 && waited < PATIENCE_MICROSECONDS) {
        irq_delay(LOOK_MICROSECONDS);
        waited += LOOK_MICROSECONDS;
        unsigned joining = count_in(PERCPU_JOINING);
        unsigned now = count_in(PERCPU_STARTING) + joining;
        if (joining > 0 && waited >= PATIENCE_MICROSECONDS) {
            printk("CPUs: %u on the way in; there is no way back\n", joining);
            waited = 0;
        }
        if (now < missing) {
            missing = now;
            waited = 0;
        }
    }
}

/* A late processor comes out of start-up code, and must find it. */
static void send_late_startup(struct percpu *cpu, paddr_t code)
{
    apic_send_startup(cpu->apic_id, code);
    for (unsigned waited = 0;
         waited < PATIENCE_MICROSECONDS && state_of(cpu) == PERCPU_LEFT_OUT;
         waited += LOOK_MICROSECONDS) {
        irq_delay(LOOK_MICROSECONDS);
    }
    printk("CPU %u has %s too late\n", cpu->index,
           state_of(cpu) == PERCPU_LATE ? "come, and halted:"
                                        : "not come even");
}

/* Say who is missing, and why. */
static void conclude(unsigned index, paddr_t code)
{
    struct percpu *cpu = smp_entries[index].cpu;

    if (cpu == NULL) {
        return;
    }
    if (change_state(cpu, PERCPU_STARTING, PERCPU_LEFT_OUT)) {
        leave_out(index, "it did not answer");
    }
    if (state_of(cpu) == PERCPU_REFUSED) {
        printk("CPU %u (APIC id 0x%x) is left out: its %s is 0x%lx, and "
               "0x%lx on CPU 0\n",
               index, cpu->apic_id, cpu->refusal.name, cpu->refusal.here,
               cpu->refusal.there);
        /* Halted, it could still walk the kernel's tables on a guess. */
        apic_send_init(cpu->apic_id);
    }
    if (is_held_back(index)) {
        send_late_startup(cpu, code);
    }
}

static void start_them(paddr_t code)
{
    expected = read_registers();
    smp_root = pfn_to_phys(pt_kernel.root).v;
    (void)apic_take_errors();
    send_inits();
    for (unsigned i = 0; i < STARTUPS; i++) {
        send_startups(code);
    }
    wait_for_them();
    uint32_t errors = apic_take_errors() & SEND_ERRORS;
    if (errors != 0) {
        printk("CPUs: the local APIC reports errors 0x%x in sending\n", errors);
    }
    for (unsigned i = 1; i < smp_entry_count; i++) {
        conclude(i, code);
    }
}

static void say_problem(const char *problem)
{
    printk("CPUs: %s; one CPU is used\n", problem);
}

static bool start_apic(void)
{
    switch (apic_init()) {
    case MM_OK:
        return true;
    case MM_ENOENT:
        say_problem("the local APIC is off");
        return false;
    case MM_EINVAL:
        say_problem("the local APIC has another id than CPUID says");
        return false;
    default:
        say_problem("no window onto the local APIC");
        return false;
    }
}

static bool make_start_code(struct trampoline *trampoline)
{
    enum mm_status status = trampoline_make(trampoline, ap_entry);

    if (status != MM_OK) {
        say_problem(status == MM_ENOENT
                        ? "the firmware leaves no page below 640 KiB free for "
                          "start-up code"
                        : "no memory for start-up code");
    }
    return status == MM_OK;
}

void smp_start(void)
{
    struct trampoline trampoline;

    if (smp_entry_count == 1 || !start_apic() || make_cpus() == 0 ||
        !make_start_code(&trampoline)) {
        return;
    }
    start_them(trampoline.page);
    if (count_in(PERCPU_LEFT_OUT) + count_in(PERCPU_LATE) == 0) {
        trampoline_free(&trampoline);
    }
    printk("CPUs: %u of %u are online, with %s\n", smp_count(), smp_entry_count,
           apic_is_x2() ? "x2APIC" : "xAPIC");
}

/* --- their side ----------------------------------------------------------- */

/* This processor is not like the first: say so to who waits, and halt. */
MM_NORETURN static void refuse(struct percpu *cpu,
                               const struct cpu_difference *difference)
{
    cpu->refusal = *difference;
    (void)change_state(cpu, PERCPU_STARTING, PERCPU_REFUSED);
    smp_stop();
}

static bool find_other_register(const struct percpu *cpu,
                                struct cpu_difference *out)
{
    struct registers found = read_registers();
    const struct cpu_difference pair[] = {
        {"CR0", found.cr0, expected.cr0},     {"CR4", found.cr4, expected.cr4},
        {"EFER", found.efer, expected.efer},  {"PAT", found.pat, expected.pat},
        {"APIC id", apic_id(), cpu->apic_id},
    };

    for (size_t i = 0; i < sizeof(pair) / sizeof(pair[0]); i++) {
        if (pair[i].here != pair[i].there) {
            *out = pair[i];
            return true;
        }
    }
    return false;
}

/* Nothing shared is written before JOINING. */
MM_NORETURN void smp_enter(struct percpu *cpu)
{
    struct cpu_difference difference;

    percpu_load(cpu);
    gdt_init(&cpu->gdt, cpu->stack_end);
    trap_load();
    if (cpu_find_difference(&difference)) {
        refuse(cpu, &difference);
    }
    cpu_protect();
    apic_start();
    if (find_other_register(cpu, &difference)) {
        refuse(cpu, &difference);
    }
    if (!change_state(cpu, PERCPU_STARTING, PERCPU_JOINING)) {
        (void)change_state(cpu, PERCPU_LEFT_OUT, PERCPU_LATE);
        smp_stop();
    }
    tlb_cpu_online();
    /* Release: pairs with the acquire of who finds it online. */
    atomic_store_explicit(&cpu->state, PERCPU_ONLINE, memory_order_release);
    smp_idle(cpu);
}
