/* SPDX-License-Identifier: MIT */
/* Simulated RAM and processors, and the cold hooks of the port. */
#include "tests/host/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <mm/frame.h>
#include <mm/port.h>
#include "tests/host/sim_mmu.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

/*
 * At risk: a test that cannot see a broken contract. So the machine is strict:
 * RAM that does not exist cannot be touched, interrupts must nest, and the
 * records of a block cannot be read before they were backed.
 */

#define SIM_MAX_RAM_PIECES 64
#define SIM_LOG_BYTES      (64 * 1024)

char *sim_ram;

static struct {
    uint64_t start;
    uint64_t bytes;
} piece[SIM_MAX_RAM_PIECES];
static unsigned piece_count;

static _Thread_local unsigned this_cpu;
static _Thread_local bool irq_is_off;
static void (*interrupt)(void);
static unsigned cpu_count = 1;

static bool log_is_on;
static char log_text[SIM_LOG_BYTES];
static size_t log_length;

unsigned sim_cpu(void)
{
    return this_cpu;
}

void sim_set_cpu(unsigned cpu)
{
    this_cpu = cpu;
}

void sim_set_cpu_count(unsigned count)
{
    cpu_count = count;
}

unsigned port_cpu_count(void)
{
    return cpu_count;
}

/* The state is a word no other value is mistaken for. */
#define SIM_IRQ_ON  UINT64_C(0x1290)
#define SIM_IRQ_OFF UINT64_C(0x0ff0)

void sim_set_interrupt(void (*handler)(void))
{
    interrupt = handler;
}

/* Interrupts are on for a moment: one comes. It is not interrupted itself. */
static void take_interrupt(void)
{
    if (interrupt != NULL && !irq_is_off) {
        irq_is_off = true;
        interrupt();
        irq_is_off = false;
    }
}

uint64_t sim_irq_save(void)
{
    take_interrupt();
    uint64_t state = irq_is_off ? SIM_IRQ_OFF : SIM_IRQ_ON;

    irq_is_off = true;
    return state;
}

void sim_irq_restore(uint64_t state)
{
    if (state != SIM_IRQ_ON && state != SIM_IRQ_OFF) {
        port_panic("interrupt state 0x%llx was never saved",
                   (unsigned long long)state);
    }
    if (!irq_is_off) {
        port_panic("interrupts restored while they are on");
    }
    irq_is_off = state == SIM_IRQ_OFF;
    take_interrupt();
}

bool sim_irq_is_off(void)
{
    return irq_is_off;
}

void sim_relax(void)
{
    sched_yield();
}

void port_log(const char *format, ...)
{
    char line[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (log_is_on || getenv("SIM_LOG") != NULL) {
        printf("# log: %s\n", line);
    }
    size_t length = strlen(line);
    if (log_length + length + 2 < sizeof(log_text)) {
        memcpy(log_text + log_length, line, length);
        log_length += length;
        log_text[log_length++] = '\n';
        log_text[log_length] = '\0';
    }
}

void port_bug(const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (log_is_on || getenv("SIM_LOG") != NULL) {
        printf("# bug: %s\n", text);
    }
    test_note_bug(text);
}

void port_panic(const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fputs("panic: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort(); /* the sanitizer prints the stack */
}

void sim_set_log(bool on)
{
    log_is_on = on;
}

bool sim_log_contains(const char *text)
{
    return strstr(log_text, text) != NULL;
}

void sim_add_ram(uint64_t start, uint64_t bytes)
{
    if (piece_count == SIM_MAX_RAM_PIECES || start + bytes > SIM_PHYSICAL_END ||
        mprotect(sim_ram + start, bytes, PROT_READ | PROT_WRITE) != 0) {
        port_panic("no RAM at 0x%llx", (unsigned long long)start);
    }
    piece[piece_count].start = start;
    piece[piece_count++].bytes = bytes;
}

/* Reserve the address space once, give the pages of the last machine back. */
static void clear_ram(void)
{
    if (sim_ram == NULL) {
        void *space = mmap(NULL, SIM_PHYSICAL_END, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (space == MAP_FAILED) {
            port_panic("no address space for simulated RAM");
        }
        sim_ram = space;
    }
    for (unsigned i = 0; i < piece_count; i++) {
        char *start = sim_ram + piece[i].start;
        madvise(start, piece[i].bytes, MADV_DONTNEED);
        mprotect(start, piece[i].bytes, PROT_NONE);
    }
    piece_count = 0;
}

void sim_reset(uint64_t ram_bytes)
{
    clear_ram();
    this_cpu = 0;
    irq_is_off = false;
    interrupt = NULL;
    cpu_count = 1;
    log_length = 0;
    log_text[0] = '\0';
    sim_mmu_reset();
    if (ram_bytes > 0) {
        sim_add_ram(0, ram_bytes);
    }
}

/* The test runner's side. */

void test_print(const char *line)
{
    puts(line);
}

const char *test_complaint(void)
{
    return irq_is_off ? "interrupts are still off" : NULL;
}

const char test_clock_unit[] = "us";

uint64_t test_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void test_format_list(char *out, size_t size, const char *format,
                      va_list arguments)
{
    vsnprintf(out, size, format, arguments);
}
