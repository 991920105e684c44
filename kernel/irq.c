/* SPDX-License-Identifier: MIT */
/* irq: the two 8259 controllers and the timer, to wake a waiting CPU. */
#include "kernel/irq.h"

#include <mm/frame.h>
#include <mm/shrink.h>
#include "kernel/apic.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/percpu.h"
#include "kernel/smp.h"

/* Intel 8259A: command words and ports. */
#define PIC_MASTER_COMMAND 0x20
#define PIC_MASTER_DATA    0x21
#define PIC_SLAVE_COMMAND  0xa0
#define PIC_SLAVE_DATA     0xa1
#define PIC_ICW1_INIT      0x11 /* edge triggered, cascade, ICW4 follows */
#define PIC_ICW3_MASTER    0x04 /* the slave is at line 2 */
#define PIC_ICW3_SLAVE     0x02
#define PIC_ICW4_8086      0x01
#define PIC_READ_ISR       0x0b
#define PIC_EOI            0x20
#define PIC_LINE_SPURIOUS  7 /* of each controller */

/* Intel 8254: channel 0, both bytes, mode 2 (rate generator). */
#define PIT_CHANNEL0  0x40
#define PIT_COMMAND   0x43
#define PIT_CH0_RATE  0x34
#define PIT_CH0_LATCH 0x00
#define PIT_HZ        1193182
#define PIT_DIVISOR   (PIT_HZ / IRQ_TIMER_HZ)

/* Looks at the counter that surely take a microsecond. */
#define LOOKS_A_MICROSECOND 100

#define LINE_TIMER    0
#define LINE_KEYBOARD 1
#define LINE_COM1     4

static uint64_t ticks;

static void start_pic(uint16_t command, uint16_t data, uint8_t vector,
                      uint8_t cascade, uint8_t mask)
{
    cpu_out8(command, PIC_ICW1_INIT);
    cpu_out8(data, vector);
    cpu_out8(data, cascade);
    cpu_out8(data, PIC_ICW4_8086);
    cpu_out8(data, mask);
}

void irq_init(void)
{
    uint8_t open = 1 << LINE_TIMER | 1 << LINE_KEYBOARD | 1 << LINE_COM1;

    start_pic(PIC_MASTER_COMMAND, PIC_MASTER_DATA, IRQ_VECTOR, PIC_ICW3_MASTER,
              (uint8_t)~open);
    start_pic(PIC_SLAVE_COMMAND, PIC_SLAVE_DATA, IRQ_VECTOR + 8, PIC_ICW3_SLAVE,
              0xff);
    cpu_out8(PIT_COMMAND, PIT_CH0_RATE);
    cpu_out8(PIT_CHANNEL0, (uint8_t)PIT_DIVISOR);
    cpu_out8(PIT_CHANNEL0, (uint8_t)(PIT_DIVISOR >> 8));
}

/* The counter of channel 0, which runs down from PIT_DIVISOR. */
static unsigned read_counter(void)
{
    cpu_out8(PIT_COMMAND, PIT_CH0_LATCH);
    unsigned low = cpu_in8(PIT_CHANNEL0);
    return low | (unsigned)cpu_in8(PIT_CHANNEL0) << 8;
}

/* Of whole turns between two looks none is counted: more time has passed. */
void irq_delay(unsigned microseconds)
{
    static unsigned looks_each = LOOKS_A_MICROSECOND;
    uint64_t looks = (uint64_t)microseconds * looks_each;
    uint64_t wanted = (uint64_t)microseconds * PIT_HZ / 1000000 + 1;
    uint64_t passed = 0;
    unsigned last = read_counter();

    for (; passed < wanted && looks > 0; looks--) {
        cpu_pause();
        unsigned now = read_counter();
        if (now <= PIT_DIVISOR) {
            passed += last >= now ? last - now : last + PIT_DIVISOR - now;
            last = now;
        }
    }
    if (passed < wanted) {
        looks_each = 1; /* the timer stands still: not so long again */
    }
}

/*
 * A line that falls before the CPU asks arrives as line 7 with no bit in
 * service; it must not be acknowledged. [8259A "Interrupt Sequence"]
 */
static bool is_spurious(unsigned line)
{
    uint16_t command = line < 8 ? PIC_MASTER_COMMAND : PIC_SLAVE_COMMAND;

    if (line % 8 != PIC_LINE_SPURIOUS) {
        return false;
    }
    cpu_out8(command, PIC_READ_ISR);
    return (cpu_in8(command) & (1 << PIC_LINE_SPURIOUS)) == 0;
}

void (*_Atomic irq_also)(void);

/*
 * What another processor is short of. The heap's part of it takes locks, whose
 * holders may wait for the console: not while this processor has that.
 */
static void give_back(void)
{
    frame_interrupt();
    percpu_this()->is_drain_due = console_is_mine();
    if (!percpu_this()->is_drain_due) {
        shrink_interrupt();
    }
}

void irq_catch_up(void)
{
    uint64_t irq = cpu_irq_save();
    struct percpu *cpu = percpu_this();

    if (cpu->is_drain_due && apic_is_on()) {
        cpu->is_drain_due = false;
        apic_send(cpu->apic_id, APIC_VECTOR_FRAME);
    }
    cpu_irq_restore(irq);
}

static void call_also(void)
{
    void (*also)(void) = atomic_load_explicit(&irq_also, memory_order_acquire);

    if (also != NULL && !console_is_mine()) {
        also();
    }
}

/* Return: whether @vector is one that processors send each other. */
static bool handle_apic(unsigned vector)
{
    if (!apic_is_on()) {
        return false;
    }
    switch (vector) {
    case APIC_VECTOR_FRAME:
        give_back();
        apic_end_interrupt();
        return true;
    case APIC_VECTOR_WAKE: /* mostly, that it has come is all */
        call_also();       /* in tests */
        apic_end_interrupt();
        smp_take_wake();
        return true;
    case APIC_VECTOR_SPURIOUS:
        return true;
    default:
        /* Left by the firmware: it would keep all below it from coming. */
        if (apic_is_in_service(vector)) {
            apic_end_interrupt();
        }
        return false;
    }
}

void irq_handle(unsigned vector)
{
    unsigned line = vector - IRQ_VECTOR;

    if (line >= IRQ_LINES) {
        if (!handle_apic(vector)) {
            printk("unexpected interrupt: vector %u\n", vector);
        }
        return;
    }
    bool spurious = is_spurious(line);
    if (line == LINE_TIMER) {
        ticks++;
        call_also();
    }
    if (line >= 8 && !spurious) {
        cpu_out8(PIC_SLAVE_COMMAND, PIC_EOI);
    }
    /* A spurious line of the slave was a real one to the master. */
    if (line >= 8 || !spurious) {
        cpu_out8(PIC_MASTER_COMMAND, PIC_EOI);
    }
}

uint64_t irq_ticks(void)
{
    return ticks;
}
