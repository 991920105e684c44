/* SPDX-License-Identifier: MIT */
/* Simulated RAM, and the cold hooks of the port. */
#include "tests/host/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <mm/frame.h>
#include <mm/port.h>
#include "tests/host/sim_mmu.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

/*
 * At risk: a test that cannot see a broken contract. So the machine is strict:
 * RAM that does not exist cannot be touched, and the records of a block cannot
 * be read before they were backed.
 */

#define SIM_MAX_RAM_PIECES 64
#define SIM_ALIGNMENT      MiB /* a sanitizer's page tells of 32 KiB */
#define SIM_LOG_BYTES      (64 * 1024)
#define SIM_CHILD_SECONDS  20 /* until a hang of a copy ends */

char *sim_ram;

static struct {
    uint64_t start;
    uint64_t bytes;
} piece[SIM_MAX_RAM_PIECES];
static unsigned piece_count;

static bool log_is_on;
static char log_text[SIM_LOG_BYTES];
static size_t log_length;

/* In a copy of this process that waits for its panic: where to write it. */
static int panic_pipe = -1;

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
    sim_complain(text);
}

void port_panic(const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (panic_pipe >= 0) {
        ssize_t length = (ssize_t)strlen(text);
        _exit(write(panic_pipe, text, strlen(text)) == length ? 0 : 1);
    }
    sim_complain(text);
    fflush(stdout);
    fprintf(stderr, "panic: %s\n", text);
    abort(); /* the sanitizer prints the stack */
}

/* All that comes through @end until the other side closes it. */
static void read_all(int end, char *out, size_t size)
{
    size_t length = 0;
    ssize_t got;

    while (length < size - 1 &&
           (got = read(end, out + length, size - 1 - length)) > 0) {
        length += (size_t)got;
    }
    out[length] = '\0';
    close(end);
}

int sim_in_child(void (*prepare)(int end), void (*act)(void), char *out_said,
                 size_t size)
{
    int status = 0;
    int end[2];

    fflush(stdout);
    out_said[0] = '\0';
    if (pipe(end) != 0) {
        return -1;
    }
    pid_t child = fork();
    if (child == 0) {
        prepare(end[1]);
        alarm(SIM_CHILD_SECONDS);
        act();
        _exit(0);
    }
    close(end[1]);
    read_all(end[0], out_said, size);
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static void panic_to(int end)
{
    panic_pipe = end;
}

bool sim_panics(void (*act)(void), const char *text)
{
    char said[2048];

    int status = sim_in_child(panic_to, act, said, sizeof(said));
    if (status < 0 || strstr(said, text) == NULL) {
        printf("# no panic that says \"%s\", but \"%s\"\n", text, said);
        return false;
    }
    return true;
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

/*
 * What the last machine's heap has hidden can be touched again. No sanitizer
 * forgets as much as this at once: its own pages go, as sim_ram's do.
 */
static void show_all(void)
{
#if SIM_HIDES
    size_t scale;
    size_t offset;

    __asan_get_shadow_mapping(&scale, &offset);
    madvise((void *)(((uintptr_t)sim_ram >> scale) + offset),
            SIM_PHYSICAL_END >> scale, MADV_DONTNEED);
#endif
}

/* Reserve the address space once, give the pages of the last machine back. */
static void clear_ram(void)
{
    if (sim_ram == NULL) {
        char *space = mmap(NULL, SIM_PHYSICAL_END + SIM_ALIGNMENT, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (space == MAP_FAILED) {
            port_panic("no address space for simulated RAM");
        }
        sim_ram = space + -(uintptr_t)space % SIM_ALIGNMENT;
    }
    for (unsigned i = 0; i < piece_count; i++) {
        char *start = sim_ram + piece[i].start;
        madvise(start, piece[i].bytes, MADV_DONTNEED);
        mprotect(start, piece[i].bytes, PROT_NONE);
    }
    piece_count = 0;
    show_all();
}

void sim_reset(uint64_t ram_bytes)
{
    clear_ram();
    sim_cpus_reset();
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
    return sim_any_irq_is_off() ? "interrupts are still off" : NULL;
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
