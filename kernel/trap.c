/* SPDX-License-Identifier: MIT */
/* trap: exceptions and interrupts, and what is done about them. */
#include "kernel/trap.h"

#include <mm/fault.h>
#include <mm/guard.h>
#include <mm/mm.h>
#include <mm/slab.h>
#include "base/check.h"
#include "kernel/apic.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/gdt.h"
#include "kernel/irq.h"
#include "kernel/lib/string.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"

/* [SDM-3A 6.14.1 "64-Bit Mode IDT"] */
struct gate {
    uint16_t offset_low;
    uint16_t selector;
    uint8_t ist;
    uint8_t type;
    uint16_t offset_middle;
    uint32_t offset_high;
    uint32_t reserved;
};
_Static_assert(sizeof(struct gate) == 16, "64-bit gate");

/* Present, ring 0, interrupt gate: handlers run with interrupts off. */
#define GATE_INTERRUPT 0x8e

/* trap_entry.asm: the entry points, and whether CLAC exists there. */
extern const uint64_t trap_entries[TRAP_VECTORS];
void trap_entry_tlb(void);
extern bool trap_clears_ac;
bool trap_clears_ac;

static struct gate idt[TRAP_VECTORS];

static const char *const exception_names[TRAP_EXCEPTIONS] = {
    [0] = "#DE divide error",
    [1] = "#DB debug",
    [2] = "NMI",
    [3] = "#BP breakpoint",
    [4] = "#OF overflow",
    [5] = "#BR bound range exceeded",
    [6] = "#UD invalid opcode",
    [7] = "#NM no math coprocessor",
    [8] = "#DF double fault",
    [10] = "#TS invalid TSS",
    [11] = "#NP segment not present",
    [12] = "#SS stack fault",
    [13] = "#GP general protection",
    [14] = "#PF page fault",
    [16] = "#MF floating-point error",
    [17] = "#AC alignment check",
    [18] = "#MC machine check",
    [19] = "#XM SIMD floating-point",
    [20] = "#VE virtualization",
    [21] = "#CP control protection",
    [28] = "#HV hypervisor injection",
    [29] = "#VC VMM communication",
    [30] = "#SX security",
};

const char *trap_name(uint64_t vector)
{
    if (vector >= TRAP_EXCEPTIONS) {
        return "interrupt";
    }
    const char *name = exception_names[vector];
    return name != NULL ? name : "reserved exception";
}

/*
 * What may come while RSP is bad gets a stack of its own: a kernel stack
 * overflow is then a #DF report and not a reset.
 */
static enum gdt_ist stack_of(unsigned vector)
{
    switch (vector) {
    case TRAP_DOUBLE_FAULT:
        return IST_DOUBLE_FAULT;
    case TRAP_NMI:
        return IST_NMI;
    case TRAP_MACHINE_CHECK:
        return IST_MACHINE_CHECK;
    default:
        return IST_NONE;
    }
}

void trap_load(void)
{
    struct cpu_table table = {sizeof(idt) - 1, (uint64_t)(uintptr_t)idt};

    cpu_lidt(&table);
}

void trap_init(void)
{
    for (unsigned vector = 0; vector < TRAP_VECTORS; vector++) {
        uint64_t entry = vector == APIC_VECTOR_TLB
                             ? (uint64_t)(uintptr_t)trap_entry_tlb
                             : trap_entries[vector];
        idt[vector] = (struct gate){
            .offset_low = (uint16_t)entry,
            .selector = GDT_KERNEL_CODE,
            .ist = (uint8_t)stack_of(vector),
            .type = GATE_INTERRUPT,
            .offset_middle = (uint16_t)(entry >> 16),
            .offset_high = (uint32_t)(entry >> 32),
        };
    }
    trap_clears_ac = cpu_features.has_smap;
    trap_load();
}

vaddr_t trap_idt_address(void)
{
    return (vaddr_t)idt;
}

void trap_share_stack(void)
{
    idt[TRAP_NMI].ist = IST_NONE;
}

struct walk_rules trap_rules(uint64_t rflags)
{
    uint64_t cr4 = cpu_read_cr4();

    return (struct walk_rules){
        .write_protect = (cpu_read_cr0() & CR0_WP) != 0,
        .nx = cpu_features.has_nx,
        .smep = (cr4 & CR4_SMEP) != 0,
        .smap = (cr4 & CR4_SMAP) != 0 && (rflags & RFLAGS_AC) == 0,
    };
}

/*
 * The tables allow the access, a TLB may have said otherwise: is it worth
 * another try? Not if it has come back with the same registers TRAP_RETRIES
 * times and nothing came in between, and not if what forbids it stands in no
 * page table. With nothing in between: other CPUs may keep a promise before
 * this one time and again, but to be asked for it anew, this one must have been
 * interrupted.
 */
static bool can_retry(const struct trap_frame *frame)
{
    struct percpu *cpu = percpu_this();
    struct trap_retry *retry = &cpu->retry;

    if ((frame->error & (FAULT_PK | FAULT_SS)) != 0) {
        return false;
    }
    if (cpu->traps != retry->trap + 1 ||
        memcmp(frame, &retry->last, sizeof(retry->last)) != 0) {
        retry->last = *frame;
        retry->count = 0;
    }
    retry->trap = cpu->traps;
    retry->count++;
    return retry->count <= TRAP_RETRIES;
}

/* True if the access can be tried again. */
static bool resolve_page_fault(const struct trap_frame *frame)
{
    struct walk walk;

    if (mm_stage() < MM_STAGE_TABLES || panic_is_active()) {
        return false;
    }
    struct fault fault = {
        .address = frame->cr2,
        .code = (uint32_t)frame->error,
        .ip = frame->rip,
        .rules = trap_rules(frame->rflags),
    };
    enum fault_result result = fault_handle(&fault, &walk);
    return fault_is_settled(result) &&
           (result != FAULT_SPURIOUS || can_retry(frame));
}

/*
 * Was it a guarded object of the heap? Then it is reported, and can be tried
 * again if the report returns. An NMI may have come upon a table's lock.
 */
static bool resolve_guarded(const struct trap_frame *frame)
{
    enum guard_access access = GUARD_READ;

    if (mm_stage() < MM_STAGE_MAPS || panic_is_active() ||
        percpu_this()->nmi_depth > 0 ||
        (frame->error & (FAULT_U | FAULT_RSVD)) != 0) {
        return false;
    }
    if ((frame->error & FAULT_I) != 0) {
        access = GUARD_EXEC;
    } else if ((frame->error & FAULT_W) != 0) {
        access = GUARD_WRITE;
    }
    return guard_fault(frame->cr2, access, frame->rip);
}

/*
 * Gates turn interrupts off, and no handler turns them on. It may use the heap:
 * a fast way of that which was interrupted begins anew. (trap_entry_tlb does
 * not come here; what it calls does not use the heap.)
 */
static void take_interrupt(struct trap_frame *frame)
{
    struct percpu *cpu = percpu_this();

    ASSERT(cpu->irq_depth == 0);
    cpu->irq_depth++;
    frame->rip = slab_restart(frame->rip);
    irq_handle((unsigned)frame->vector);
    cpu->irq_depth--;
}

/* Is the NMI one that was sent, or one that a report should not mind? */
static bool resolve_nmi(void)
{
    return smp_take_nmi() || panic_is_active();
}

/* STI and HLT, as cpu_wait_for_interrupt() has them. */
#define OPCODE_STI 0xfb
#define OPCODE_HLT 0xf4

/*
 * STI lets no interrupt come before the HLT behind it, but an NMI there ends
 * that: on the way back what waits is let in, and the HLT would sleep although
 * it has come. So it does not sleep: who waits looks again.
 */
static void step_over_halt(struct trap_frame *frame)
{
    const uint8_t *code = (const uint8_t *)frame->rip;

    if (image_has_code(frame->rip - 1) && image_has_code(frame->rip) &&
        code[-1] == OPCODE_STI && code[0] == OPCODE_HLT) {
        frame->rip++;
    }
}

static void take_exception(struct trap_frame *frame)
{
    if (frame->vector == TRAP_NMI && resolve_nmi()) {
        step_over_halt(frame);
        return;
    }
    if (frame->vector == TRAP_PAGE && resolve_page_fault(frame)) {
        return;
    }
    if (fixup_apply(frame)) {
        return;
    }
    if (frame->vector == TRAP_PAGE && resolve_guarded(frame)) {
        return;
    }
    if (frame->vector == TRAP_BREAKPOINT) {
        printk("breakpoint at 0x%lx\n", frame->rip);
        return;
    }
    panic_exception(frame);
}

void trap_dispatch(struct trap_frame *frame)
{
    struct percpu *cpu = percpu_this();
    unsigned nmi =
        frame->vector == TRAP_NMI || frame->vector == TRAP_MACHINE_CHECK ? 1
                                                                         : 0;

    cpu->traps++;
    if (frame->vector >= TRAP_EXCEPTIONS) {
        take_interrupt(frame);
        return;
    }
    cpu->nmi_depth += nmi;
    take_exception(frame);
    cpu->nmi_depth -= nmi;
}
