/* SPDX-License-Identifier: MIT */
/* apic: the local APIC of each processor: interrupts from one to another. */
/*
 * Idea     x2APIC where CPUID has it: registers are MSRs, ids have 32 bits.
 *          Else xAPIC: the same registers, 16 bytes apart, in a page of
 *          physical memory in which each processor sees its own.
 *
 *          Devices go on interrupting through the two 8259, whose output the
 *          first processor's APIC passes on by its pin LINT0 ("ExtINT"). There
 *          is no I/O APIC to program, and the timer stays what it was.
 *
 * Locking  Each processor has its own; with interrupts off nobody comes
 *          between the two halves of a command.
 *
 * Limits   Entries for thermal and performance events stay as the firmware
 *          has left them: some are its own (SMI).
 */
#include "kernel/apic.h"

#include <mm/kmap.h>
#include "kernel/cpu.h"
#include "kernel/panic.h"

/* Registers by their offsets. [SDM-3A 11.4.1 "The Local APIC Block Diagram"] */
#define APIC_ID              0x20
#define APIC_TASK_PRIORITY   0x80
#define APIC_EOI             0xb0
#define APIC_SPURIOUS        0xf0
#define APIC_IN_SERVICE      0x100 /* ISR: 8 words of 32 vectors */
#define APIC_REQUESTED       0x200 /* IRR: 8 words of 32 vectors */
#define APIC_ERRORS          0x280
#define APIC_COMMAND         0x300
#define APIC_COMMAND_HIGH    0x310 /* xAPIC only */
#define APIC_LVT_TIMER       0x320
#define APIC_LVT_LINT0       0x350
#define APIC_LVT_LINT1       0x360
#define APIC_LVT_ERROR       0x370
#define APIC_REGISTERS_BYTES 0x400

#define SPURIOUS_ENABLE (UINT32_C(1) << 8)

/* [SDM-3A 11.5.1 "Local Vector Table"] */
#define LVT_MASKED (UINT32_C(1) << 16)
#define LVT_NMI    (UINT32_C(4) << 8)
#define LVT_EXTINT (UINT32_C(7) << 8)

/* [SDM-3A 11.6.1 "Interrupt Command Register (ICR)"] */
#define COMMAND_NMI      (UINT32_C(4) << 8)
#define COMMAND_INIT     (UINT32_C(5) << 8)
#define COMMAND_STARTUP  (UINT32_C(6) << 8)
#define COMMAND_PENDING  (UINT32_C(1) << 12) /* xAPIC only */
#define COMMAND_ASSERT   (UINT32_C(1) << 14)
#define COMMAND_ID_SHIFT 24 /* in the high half, without x2APIC */
#define X2_ID_SHIFT      32
#define XAPIC_ID_SHIFT   24
#define XAPIC_ID_MAX     254 /* 255 means all */
#define X2APIC_ID_MAX    (UINT32_MAX - 1)

/* IA32_APIC_BASE. [SDM-3A 11.12.1 "Detecting and Enabling x2APIC Mode"] */
#define BASE_ENABLE  (UINT64_C(1) << 11)
#define BASE_X2      (UINT64_C(1) << 10)
#define BASE_ADDRESS UINT64_C(0x000ffffffffff000)

/* MSR of the register at offset 0; the next is 0x10 bytes and 1 MSR away. */
#define MSR_X2APIC UINT32_C(0x800)

/* Turns to wait for a command to leave: some microseconds are normal. */
#define PATIENCE 1000000

static bool is_on;                /* (C) after apic_init() */
static bool is_x2;                /* (C) */
static paddr_t base;              /* (C) */
static volatile uint32_t *window; /* (C) xAPIC: the registers */

static uint32_t read(unsigned offset)
{
    return is_x2 ? (uint32_t)cpu_rdmsr(MSR_X2APIC + offset / 16)
                 : window[offset / sizeof(*window)];
}

static void write(unsigned offset, uint32_t value)
{
    if (is_x2) {
        cpu_wrmsr(MSR_X2APIC + offset / 16, value);
    } else {
        window[offset / sizeof(*window)] = value;
    }
}

bool apic_is_in_service(unsigned vector)
{
    return ((read(APIC_IN_SERVICE + vector / 32 * 16) >> (vector % 32)) & 1) !=
           0;
}

/* --- turning it on -------------------------------------------------------- */

/* Into the mode in use, at the address in use. */
static void enter_mode(void)
{
    uint64_t wanted = base.v | BASE_ENABLE | (is_x2 ? BASE_X2 : 0);
    uint64_t msr = cpu_rdmsr(MSR_APIC_BASE);

    if ((msr & (BASE_ADDRESS | BASE_ENABLE | BASE_X2)) != wanted) {
        msr &= ~(BASE_ADDRESS | BASE_ENABLE | BASE_X2);
        cpu_wrmsr(MSR_APIC_BASE, msr | wanted);
    }
}

/*
 * What the pins get is written after the enabling, which opens the masks.
 * [SDM-3A 11.4.7.2 "Local APIC State After It Has Been Software Disabled"]
 */
static void start(uint32_t lint0, uint32_t lint1)
{
    write(APIC_TASK_PRIORITY, 0);
    write(APIC_SPURIOUS, SPURIOUS_ENABLE | APIC_VECTOR_SPURIOUS);
    write(APIC_LVT_TIMER, LVT_MASKED);
    write(APIC_LVT_ERROR, LVT_MASKED);
    write(APIC_LVT_LINT0, lint0);
    write(APIC_LVT_LINT1, lint1);
    (void)apic_take_errors();
}

enum mm_status apic_init(void)
{
    uint64_t msr = cpu_features.has_apic ? cpu_rdmsr(MSR_APIC_BASE) : 0;

    if ((msr & BASE_ENABLE) == 0) {
        return MM_ENOENT;
    }
    base = paddr_of(msr & BASE_ADDRESS);
    is_x2 = cpu_features.has_x2apic;
    if (!is_x2) {
        window = kmap_mmio(base, APIC_REGISTERS_BYTES, PT_UC, "local APIC");
        if (window == NULL) {
            return MM_ENOMEM;
        }
    }
    enter_mode();
    if (apic_id() != cpu_apic_id()) {
        return MM_EINVAL;
    }
    start(LVT_EXTINT, LVT_NMI);
    is_on = true;
    return MM_OK;
}

void apic_start(void)
{
    enter_mode();
    start(LVT_MASKED, LVT_MASKED);
}

bool apic_is_on(void)
{
    return is_on;
}

bool apic_is_x2(void)
{
    return is_x2;
}

uint32_t apic_id(void)
{
    uint32_t id = read(APIC_ID);

    return is_x2 ? id : id >> XAPIC_ID_SHIFT;
}

bool apic_can_reach(uint32_t id)
{
    return id <= (is_x2 ? X2APIC_ID_MAX : XAPIC_ID_MAX);
}

/* --- sending -------------------------------------------------------------- */

/* A command that overwrites one that waits would take it away. */
static void wait_until_sent(void)
{
    unsigned turns = 0;

    while ((read(APIC_COMMAND) & COMMAND_PENDING) != 0) {
        if (turns == PATIENCE) {
            if (panic_is_active()) {
                return;
            }
            panic("the local APIC 0x%x does not send: command 0x%x, errors "
                  "0x%x",
                  apic_id(), read(APIC_COMMAND), apic_take_errors());
        }
        turns++;
        cpu_pause();
    }
}

static void command(uint32_t id, uint32_t low)
{
    if (is_x2) {
        cpu_fence_before_wrmsr();
        cpu_wrmsr(MSR_X2APIC + APIC_COMMAND / 16,
                  (uint64_t)id << X2_ID_SHIFT | low);
        return;
    }
    wait_until_sent();
    write(APIC_COMMAND_HIGH, id << COMMAND_ID_SHIFT);
    write(APIC_COMMAND, low);
}

void apic_send(uint32_t id, enum apic_vector vector)
{
    command(id, COMMAND_ASSERT | (uint32_t)vector);
}

void apic_send_nmi(uint32_t id)
{
    command(id, COMMAND_ASSERT | COMMAND_NMI);
}

void apic_send_init(uint32_t id)
{
    command(id, COMMAND_ASSERT | COMMAND_INIT);
}

void apic_send_startup(uint32_t id, paddr_t code)
{
    command(id,
            COMMAND_ASSERT | COMMAND_STARTUP | (uint32_t)phys_to_pfn(code).v);
}

/* The write brings the register up to date. [SDM-3A 11.5.3 "Error Handling"] */
uint32_t apic_take_errors(void)
{
    write(APIC_ERRORS, 0);
    return read(APIC_ERRORS);
}

/* --- receiving ------------------------------------------------------------ */

bool apic_is_requested(enum apic_vector vector)
{
    unsigned offset = APIC_REQUESTED + (unsigned)vector / 32 * 16;

    return (read(offset) >> ((unsigned)vector % 32) & 1) != 0;
}

void apic_end_interrupt(void)
{
    write(APIC_EOI, 0);
}
