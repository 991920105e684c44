/* SPDX-License-Identifier: MIT */
/* serial: COM1, a 16550 at 115200 8N1, polled. */
#include "kernel/console/serial.h"

#include "kernel/cpu.h"

/* PC16550D registers and bits, by their names there. */
#define COM1           0x3f8
#define UART_DATA      (COM1 + 0) /* divisor low while DLAB is set */
#define UART_IER       (COM1 + 1) /* divisor high while DLAB is set */
#define UART_FCR       (COM1 + 2)
#define UART_LCR       (COM1 + 3)
#define UART_MCR       (COM1 + 4)
#define UART_LSR       (COM1 + 5)
#define IER_RECEIVED   0x01
#define FCR_ENABLE     0x07 /* FIFOs on and cleared */
#define LCR_8N1        0x03
#define LCR_DLAB       0x80
#define MCR_DTR_RTS    0x03
#define MCR_OUT2       0x08 /* lets the interrupt out */
#define MCR_LOOPBACK   0x10
#define LSR_DATA_READY 0x01
#define LSR_THRE       0x20
#define DIVISOR_115200 1
#define TEST_BYTE      0xa5
/* Polls before a byte is given up: a byte takes 87 us, a poll about 1 us. */
#define PATIENCE 100000

static bool is_present;

/* Wait for @bit in the line status. */
static bool wait_for(uint8_t bit)
{
    for (unsigned i = 0; i < PATIENCE; i++) {
        if ((cpu_in8(UART_LSR) & bit) != 0) {
            return true;
        }
        cpu_pause();
    }
    return false;
}

/* An absent port reads 0xff; a real one returns what loopback sends it. */
static bool passes_loopback(void)
{
    if (cpu_in8(UART_LSR) == 0xff) {
        return false;
    }
    cpu_out8(UART_MCR, MCR_LOOPBACK | MCR_DTR_RTS);
    cpu_out8(UART_DATA, TEST_BYTE);
    return wait_for(LSR_DATA_READY) && cpu_in8(UART_DATA) == TEST_BYTE;
}

void serial_init(void)
{
    cpu_out8(UART_IER, 0);
    cpu_out8(UART_LCR, LCR_DLAB);
    cpu_out8(UART_DATA, DIVISOR_115200);
    cpu_out8(UART_IER, 0);
    cpu_out8(UART_LCR, LCR_8N1);
    cpu_out8(UART_FCR, FCR_ENABLE);
    is_present = passes_loopback();
    if (is_present) {
        cpu_out8(UART_FCR, FCR_ENABLE);
        cpu_out8(UART_MCR, MCR_DTR_RTS | MCR_OUT2);
        cpu_out8(UART_IER, IER_RECEIVED);
    }
}

bool serial_is_present(void)
{
    return is_present;
}

/* The line status is asked before every byte: the FIFO may be full. */
static void send(uint8_t byte)
{
    if (wait_for(LSR_THRE)) {
        cpu_out8(UART_DATA, byte);
    }
}

void serial_write(const char *text, size_t length)
{
    if (!is_present) {
        return;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\n') {
            send('\r');
        }
        send((uint8_t)text[i]);
    }
}

int serial_read(void)
{
    if (!is_present || (cpu_in8(UART_LSR) & LSR_DATA_READY) == 0) {
        return -1;
    }
    return cpu_in8(UART_DATA);
}
