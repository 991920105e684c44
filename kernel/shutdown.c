/* SPDX-License-Identifier: MIT */
/* shutdown: the ways to end. */
#include "kernel/shutdown.h"

#include "kernel/console/console.h"
#include "kernel/cpu.h"

#define DEBUG_EXIT_PORT 0xf4

/* Ports at which emulators listen for S5; ACPI proper is not read yet. */
#define QEMU_PM1A        0x604
#define BOCHS_PM1A       0xb004
#define VIRTUALBOX_PM1A  0x4004
#define PM1_SLEEP_ENABLE 0x2000 /* SLP_EN with SLP_TYP 0 */
#define PM1_SLEEP_VBOX   0x3400 /* SLP_EN with SLP_TYP 5 */

#define I8042_COMMAND      0x64
#define I8042_INPUT_FULL   0x02
#define I8042_PULSE_RESET  0xfe
#define RESET_CONTROL      0xcf9
#define RESET_CONTROL_WARM 0x06
#define DELAY_PORT         0x80
#define PATIENCE           100000

void shutdown_debug_exit(enum shutdown_code code)
{
    cpu_out8(DEBUG_EXIT_PORT, (uint8_t)code);
}

MM_NORETURN static void halt(void)
{
    for (;;) {
        cpu_irq_off();
        cpu_halt();
    }
}

/* Reads of an unused port take about a microsecond each on a PC. */
static void wait_a_little(void)
{
    for (unsigned i = 0; i < PATIENCE; i++) {
        (void)cpu_in8(DELAY_PORT);
    }
}

MM_NORETURN void shutdown_poweroff(void)
{
    cpu_irq_off();
    cpu_out16(QEMU_PM1A, PM1_SLEEP_ENABLE);
    cpu_out16(BOCHS_PM1A, PM1_SLEEP_ENABLE);
    cpu_out16(VIRTUALBOX_PM1A, PM1_SLEEP_VBOX);
    wait_a_little(); /* an emulator takes its time */
    printk("It is now safe to turn off the machine.\n");
    halt();
}

MM_NORETURN void shutdown_reboot(void)
{
    static const struct cpu_table no_idt;

    cpu_irq_off();
    for (unsigned i = 0; i < PATIENCE; i++) {
        if ((cpu_in8(I8042_COMMAND) & I8042_INPUT_FULL) == 0) {
            break;
        }
    }
    cpu_out8(I8042_COMMAND, I8042_PULSE_RESET);
    wait_a_little();
    cpu_out8(RESET_CONTROL, RESET_CONTROL_WARM);
    wait_a_little();
    /* An exception without an IDT ends in shutdown, which resets a PC. */
    cpu_lidt(&no_idt);
    cpu_breakpoint();
    halt();
}
