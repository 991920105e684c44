/* SPDX-License-Identifier: MIT */
/* smp: every processor is as safe as the first, and does what it is told. */
#include "kernel/smp.h"

#include <stdatomic.h>

#include <mm/fault.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include "kernel/apic.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/lib/string.h"
#include "kernel/percpu.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

/*
 * At risk: a processor that runs on another one's stack or tables, or without
 * a protection that the first has; a wake-up or an NMI that is lost; lines
 * that mix. Provoked by asking each processor what it has, by letting it try
 * what is forbidden, and by many short requests. With one processor the tests
 * ask that one.
 */

/* --- what each one has ---------------------------------------------------- */

struct answer {
    unsigned index;
    uint32_t apic;
    const struct percpu *own;
    uint64_t rsp;
    uint64_t gdt;
    uint64_t idt;
    uint64_t cr0;
    uint64_t cr3;
    uint64_t cr4;
    uint64_t efer;
    uint64_t pat;
    uint64_t flags;
};

static void give_answer(void *argument)
{
    struct answer *answer = argument;

    *answer = (struct answer){
        .index = port_cpu(),
        .apic = cpu_apic_id(),
        .own = percpu_this(),
        .rsp = cpu_read_rsp(),
        .gdt = cpu_read_gdt().base,
        .idt = cpu_read_idt().base,
        .cr0 = cpu_read_cr0(),
        .cr3 = cpu_read_cr3(),
        .cr4 = cpu_read_cr4(),
        .efer = cpu_rdmsr(MSR_EFER),
        .pat = cpu_features.has_pat ? cpu_rdmsr(MSR_PAT) : 0,
        .flags = cpu_read_flags(),
    };
}

static void check_own(unsigned cpu)
{
    const struct percpu *own = percpu_of(cpu);
    struct answer answer;

    CHECK_EQUAL(smp_call(cpu, give_answer, &answer), MM_OK);
    CHECK_EQUAL(answer.index, cpu);
    CHECK(answer.own == own && own->self == own);
    CHECK_EQUAL(answer.apic, own->apic_id);
    CHECK(answer.rsp < own->stack_end[STACK_KERNEL] &&
          answer.rsp > own->stack_end[STACK_KERNEL] - STACK_BYTES);
    CHECK_EQUAL(answer.gdt, (uintptr_t)own->gdt.entry);
    CHECK_EQUAL(answer.idt, trap_idt_address());
}

TEST(smp, each_has_its_own)
{
    for (unsigned cpu = 0; cpu < smp_possible(); cpu++) {
        if (smp_is_online(cpu)) {
            CHECK_HELPER(check_own(cpu));
        }
    }
}

static void check_registers(unsigned cpu, const struct answer *first)
{
    struct answer answer;

    CHECK_EQUAL(smp_call(cpu, give_answer, &answer), MM_OK);
    CHECK_EQUAL(answer.cr0, first->cr0);
    CHECK_EQUAL(answer.cr3, first->cr3);
    CHECK_EQUAL(answer.cr4, first->cr4);
    CHECK_EQUAL(answer.efer, first->efer);
    CHECK_EQUAL(answer.pat, first->pat);
    CHECK_EQUAL(answer.flags & RFLAGS_IF, cpu == 0 ? 0 : RFLAGS_IF);
    CHECK_EQUAL(answer.flags & RFLAGS_AC, 0);
}

TEST(smp, all_have_the_same_registers)
{
    struct answer first;

    give_answer(&first);
    for (unsigned cpu = 0; cpu < smp_possible(); cpu++) {
        if (smp_is_online(cpu)) {
            CHECK_HELPER(check_registers(cpu, &first));
        }
    }
}

/* [SDM-3A 8.7 "Task Management in 64-bit Mode"] */
static uint64_t ist_of(const struct percpu *cpu, enum gdt_ist ist)
{
    const uint32_t *half = cpu->gdt.tss.ist[ist - 1];

    return (uint64_t)half[1] << 32 | half[0];
}

static void check_stacks(const struct percpu *cpu)
{
    struct probe probe;

    for (unsigned i = 0; i < STACK_COUNT; i++) {
        const char *start = (const char *)(cpu->stack_end[i] - STACK_BYTES);

        CHECK(probe_read8(start, &probe));
        CHECK(probe_read8(start + STACK_BYTES - 1, &probe));
        CHECK(!probe_read8(start - 1, &probe));
    }
    CHECK_EQUAL(ist_of(cpu, IST_DOUBLE_FAULT),
                cpu->stack_end[STACK_DOUBLE_FAULT]);
    CHECK_EQUAL(ist_of(cpu, IST_NMI), cpu->stack_end[STACK_NMI]);
    CHECK_EQUAL(ist_of(cpu, IST_MACHINE_CHECK),
                cpu->stack_end[STACK_MACHINE_CHECK]);
}

TEST(smp, each_stack_has_a_guard_below)
{
    for (unsigned cpu = 0; cpu < smp_possible(); cpu++) {
        if (percpu_of(cpu) != NULL) {
            CHECK_HELPER(check_stacks(percpu_of(cpu)));
        }
    }
}

/* --- what each one may not do --------------------------------------------- */

static const uint64_t constant = 5;
static uint8_t not_code[16] = {0xc3}; /* RET */

struct attempt {
    bool has_written;
    bool has_executed;
    struct probe write;
    struct probe exec;
};

static void attempt(void *argument)
{
    struct attempt *attempt = argument;

    attempt->has_written =
        probe_write64((void *)(vaddr_t)&constant, 6, &attempt->write);
    attempt->has_executed = probe_exec(not_code, &attempt->exec);
}

static void check_rights(unsigned cpu)
{
    struct attempt made;

    CHECK_EQUAL(smp_call(cpu, attempt, &made), MM_OK);
    CHECK(!made.has_written);
    CHECK_EQUAL(made.write.error, FAULT_P | FAULT_W);
    CHECK_EQUAL(made.has_executed, !cpu_features.has_nx);
    CHECK_EQUAL(made.has_executed ? FAULT_P | FAULT_I : made.exec.error,
                FAULT_P | FAULT_I);
    CHECK_EQUAL(*(const volatile uint64_t *)&constant, 5);
}

TEST(smp, rights_bind_on_each)
{
    for (unsigned cpu = 0; cpu < smp_possible(); cpu++) {
        if (smp_is_online(cpu)) {
            CHECK_HELPER(check_rights(cpu));
        }
    }
}

/* --- work ----------------------------------------------------------------- */

static _Atomic unsigned arrived;
static _Atomic bool may_leave;

static void wait_inside(void *argument)
{
    (void)argument;
    atomic_fetch_add(&arrived, 1);
    while (!atomic_load(&may_leave)) {
        cpu_pause();
    }
}

static void try_a_busy_one(unsigned cpu)
{
    CHECK_EQUAL(smp_run(cpu, wait_inside, NULL), MM_EBUSY);
    CHECK(!smp_is_done(cpu));
}

TEST(smp, work_goes_to_who_is_free)
{
    unsigned cpu = smp_possible() - 1;

    CHECK_EQUAL(smp_run(0, wait_inside, NULL), MM_EINVAL);
    CHECK_EQUAL(smp_run(MM_MAX_CPUS, wait_inside, NULL), MM_EINVAL);
    CHECK(smp_is_done(0));
    if (cpu == 0 || !smp_is_online(cpu)) {
        return;
    }
    atomic_store(&arrived, 0);
    atomic_store(&may_leave, false);
    CHECK_EQUAL(smp_run(cpu, wait_inside, NULL), MM_OK);
    try_a_busy_one(cpu);
    atomic_store(&may_leave, true);
    smp_wait(cpu);
    CHECK(smp_is_done(cpu));
    CHECK_EQUAL(atomic_load(&arrived), 1);
}

#define ROUNDS 100

static void count_arrival(void *argument)
{
    (void)argument;
    atomic_fetch_add(&arrived, 1);
}

/* Should a wake-up be lost, this does not end before the run is ended. */
TEST(smp, no_wake_up_is_lost)
{
    unsigned expected = 0;

    atomic_store(&arrived, 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned cpu = 1; cpu < smp_possible(); cpu++) {
            expected += smp_run(cpu, count_arrival, NULL) == MM_OK ? 1 : 0;
        }
        for (unsigned cpu = 1; cpu < smp_possible(); cpu++) {
            smp_wait(cpu);
        }
    }
    CHECK_EQUAL(atomic_load(&arrived), expected);
    CHECK_EQUAL(expected, (smp_count() - 1) * ROUNDS);
}

/* Run @work on all others at once, and here. */
static void run_on_all(void (*work)(void *), void *argument)
{
    for (unsigned cpu = 1; cpu < smp_possible(); cpu++) {
        if (smp_is_online(cpu)) {
            CHECK_EQUAL(smp_run(cpu, work, argument), MM_OK);
        }
    }
    work(argument);
    for (unsigned cpu = 1; cpu < smp_possible(); cpu++) {
        smp_wait(cpu);
    }
}

static void add_to_page(void *argument)
{
    _Atomic uint64_t *page = argument;

    atomic_fetch_add(page, 1);
}

/* A promise that all want kept at the same time is kept once. */
TEST(smp, all_touch_a_lazy_page)
{
    for (unsigned round = 0; round < 20; round++) {
        _Atomic uint64_t *page = kmap_alloc(PAGE_BYTES, KMAP_LAZY, "smp test");

        CHECK(page != NULL);
        run_on_all(add_to_page, page);
        uint64_t sum = atomic_load(page);
        kmap_free(page);
        CHECK_EQUAL(sum, smp_count());
    }
}

/* --- interrupts ----------------------------------------------------------- */

static void check_nmi(unsigned cpu)
{
    uint64_t before = smp_nmi_count(cpu);

    CHECK_EQUAL(smp_send_nmi(cpu), MM_OK);
    while (smp_nmi_count(cpu) == before) {
        cpu_pause();
    }
    CHECK_EQUAL(smp_nmi_count(cpu), before + 1);
}

TEST(smp, an_nmi_arrives_and_is_forgotten)
{
    CHECK_EQUAL(smp_send_nmi(MM_MAX_CPUS), MM_EINVAL);
    if (!apic_is_on()) {
        CHECK_EQUAL(smp_send_nmi(0), MM_EINVAL);
        return;
    }
    for (unsigned cpu = 0; cpu < smp_possible(); cpu++) {
        if (smp_is_online(cpu)) {
            CHECK_HELPER(check_nmi(cpu));
        }
    }
    CHECK(smp_may_wait());
}

TEST(smp, an_interrupt_waits_until_it_may_come)
{
    if (!apic_is_on()) {
        return;
    }
    CHECK(!apic_is_requested(APIC_VECTOR_WAKE));
    apic_send(apic_id(), APIC_VECTOR_WAKE);
    while (!apic_is_requested(APIC_VECTOR_WAKE)) {
        cpu_pause();
    }
    cpu_irq_window();
    CHECK(!apic_is_requested(APIC_VECTOR_WAKE));
    CHECK_EQUAL(apic_take_errors(), 0);
}

/* --- lines ---------------------------------------------------------------- */

#define LINES     10
#define PRINTERS  8 /* so that the log holds all of their lines */
#define LINE_HEAD "# smp lines of CPU "
#define LINE_TAIL ": nobody else breaks this one"

/* In two writes that belong together: the second comes a while later. */
static void print_lines(void *argument)
{
    (void)argument;
    for (unsigned i = 0; port_cpu() < PRINTERS && i < LINES; i++) {
        bool is_outermost = console_enter();

        printk(LINE_HEAD "%3u", port_cpu());
        printk(LINE_TAIL "\n");
        console_leave(is_outermost);
    }
}

/* What the log says, line by line. */
static struct {
    char text[160];
    size_t length;
    unsigned whole;
    unsigned broken;
} lines;

static void judge_line(const char *line)
{
    size_t head = sizeof(LINE_HEAD) - 1;

    if (strcmp(line, LINE_HEAD) == 0) {
        lines.whole = 0; /* the lines of this run begin */
        lines.broken = 0;
    } else if (test_begins_with(line, LINE_HEAD) &&
               strcmp(line + head + 3, LINE_TAIL) == 0) {
        lines.whole++;
    } else if (test_contains(line, LINE_HEAD) ||
               test_contains(line, LINE_TAIL)) {
        lines.broken++;
    }
}

static void read_lines(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\n') {
            lines.text[lines.length] = '\0';
            judge_line(lines.text);
            lines.length = 0;
        } else if (lines.length < sizeof(lines.text) - 1) {
            lines.text[lines.length] = text[i];
            lines.length++;
        }
    }
}

TEST(smp, lines_of_two_do_not_mix)
{
    unsigned printers = smp_count() < PRINTERS ? smp_count() : PRINTERS;

    printk(LINE_HEAD "\n");
    CHECK_HELPER(run_on_all(print_lines, NULL));
    lines.length = 0;
    log_read(read_lines);
    CHECK_EQUAL(lines.broken, 0);
    CHECK_EQUAL(lines.whole, printers * LINES);
}
