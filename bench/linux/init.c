/* SPDX-License-Identifier: MIT */
/* init: loads the module, then measures system calls and page faults. */
/*
 * The only program in the machine. Rows are those of "Address spaces"; what is
 * counted includes the way into the kernel and back. They are kept until all
 * is measured: a process that may use ports pays for it at each system call.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#define PAGE       ((size_t)4096)
#define MIB        ((size_t)1 << 20)
#define AREA       (64 * MIB)
#define HUGE_PAGE  (2 * MIB)
#define RANGE      (256 * PAGE)
#define SAMPLES    (AREA / PAGE)
#define CALLS      1000
#define RANGES     300
#define FORKS      8
#define REPORT     ((size_t)1 << 16)
#define DEBUG_PORT 0xe9

enum { READ_WRITE = PROT_READ | PROT_WRITE };

/* Shared with children, which measure too. */
static struct report {
    size_t length;
    char text[REPORT];
} * rows;

static uint64_t sample[SAMPLES];
static uint64_t second[SAMPLES];
static uint64_t empty;

/* --- measuring ------------------------------------------------------------ */

static uint64_t now(void)
{
    _mm_lfence();
    return __rdtsc();
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void print(const char *text)
{
    size_t length = strlen(text);

    if (rows->length + length < REPORT) {
        memcpy(rows->text + rows->length, text, length);
        rows->length += length;
    }
}

static void report(const char *name, uint64_t *samples, size_t count)
{
    char line[128];
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        sum += samples[i] - empty;
    }
    qsort(samples, count, sizeof(samples[0]), compare);
    snprintf(line, sizeof(line), "%s,%lu,%lu,%lu\n", name, samples[0] - empty,
             samples[count / 2] - empty, sum / count);
    print(line);
}

static void measure_empty(void)
{
    for (size_t i = 0; i < CALLS; i++) {
        uint64_t start = now();
        sample[i] = now() - start;
    }
    qsort(sample, CALLS, sizeof(sample[0]), compare);
    empty = sample[0];
}

/* --- memory --------------------------------------------------------------- */

static void give_up(const char *what)
{
    print("# failed: ");
    print(what);
    print("\n");
}

/* @bytes of anonymous memory, aligned to a huge page. */
static char *area_of(size_t bytes, int advice)
{
    char *all = mmap(NULL, bytes + HUGE_PAGE, READ_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (all == MAP_FAILED) {
        give_up("mmap");
        exit(1);
    }
    char *area = all + HUGE_PAGE - (uintptr_t)all % HUGE_PAGE;
    munmap(all, (size_t)(area - all));
    munmap(area + bytes, (size_t)(all + HUGE_PAGE - area));
    madvise(area, bytes, advice);
    return area;
}

static char *map_at(char *address, size_t bytes)
{
    return mmap(address, bytes, READ_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static void touch(char *start, size_t bytes, size_t step)
{
    for (size_t at = 0; at < bytes; at += step) {
        *(volatile char *)(start + at) = 1;
    }
}

/* Write to each page, or to each that is @step bytes apart. */
static void measure_writes(const char *name, char *start, size_t step)
{
    for (size_t at = 0; at < AREA; at += step) {
        volatile char *byte = start + at;
        uint64_t begin = now();
        *byte = 1;
        sample[at / step] = now() - begin;
    }
    report(name, sample, AREA / step);
}

static void measure_reads(const char *name, const char *start)
{
    for (size_t at = 0; at < AREA; at += PAGE) {
        const volatile char *byte = start + at;
        uint64_t begin = now();
        (void)*byte;
        sample[at / PAGE] = now() - begin;
    }
    report(name, sample, AREA / PAGE);
}

/* --- faults --------------------------------------------------------------- */

static void bench_null(void)
{
    for (size_t i = 0; i < CALLS; i++) {
        uint64_t start = now();
        syscall(SYS_getppid);
        sample[i] = now() - start;
    }
    report("syscall_null", sample, CALLS);
}

static void bench_faults(void)
{
    char *area = area_of(AREA, MADV_NOHUGEPAGE);

    measure_writes("fault_write", area, PAGE);
    munmap(area, AREA);
    area = area_of(AREA, MADV_NOHUGEPAGE);
    measure_reads("fault_read", area);
    munmap(area, AREA);
    area = area_of(AREA, MADV_HUGEPAGE);
    measure_writes("fault_2m", area, HUGE_PAGE);
    munmap(area, AREA);
}

/* The child copies; then all pages are the parent's alone. */
static void bench_cow(void)
{
    char *area = area_of(AREA, MADV_NOHUGEPAGE);

    touch(area, AREA, PAGE);
    pid_t child = fork();
    if (child == 0) {
        measure_writes("fault_cow_copy", area, PAGE);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    measure_writes("fault_cow_sole", area, PAGE);
    munmap(area, AREA);
}

static void bench_fork(void)
{
    char *area = area_of(AREA, MADV_NOHUGEPAGE);

    touch(area, AREA, PAGE);
    for (size_t i = 0; i < FORKS; i++) {
        uint64_t start = now();
        /* Not fork(), which does the C library's work, too. */
        pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (child == 0) {
            _exit(0);
        }
        sample[i] = now() - start;
        waitpid(child, NULL, 0);
        second[i] = now() - start;
    }
    report("fork_64m", sample, FORKS);
    report("fork_exit_wait_64m", second, FORKS);
    munmap(area, AREA);
}

/* --- calls ---------------------------------------------------------------- */

static void bench_mmap(char *range)
{
    for (size_t i = 0; i < CALLS; i++) {
        uint64_t start = now();
        map_at(range, PAGE);
        munmap(range, PAGE);
        sample[i] = now() - start;
    }
    report("mmap_munmap_1", sample, CALLS);
    for (size_t i = 0; i < RANGES; i++) {
        uint64_t start = now();
        map_at(range, RANGE);
        sample[i] = now() - start;
        touch(range, RANGE, PAGE);
        start = now();
        munmap(range, RANGE);
        second[i] = now() - start;
    }
    report("mmap_256", sample, RANGES);
    report("munmap_256", second, RANGES);
}

static void bench_change(char *range)
{
    map_at(range, RANGE);
    for (size_t i = 0; i < RANGES; i++) {
        touch(range, RANGE, PAGE);
        uint64_t start = now();
        mprotect(range, RANGE, PROT_READ);
        sample[i] = now() - start;
        mprotect(range, RANGE, READ_WRITE);
    }
    report("mprotect_256", sample, RANGES);
    for (size_t i = 0; i < RANGES; i++) {
        touch(range, RANGE, PAGE);
        uint64_t start = now();
        madvise(range, RANGE, MADV_DONTNEED);
        sample[i] = now() - start;
    }
    report("dontneed_256", sample, RANGES);
    munmap(range, RANGE);
}

/* The C library's heap lies there: nothing is allocated meanwhile. */
static void bench_brk(void)
{
    uintptr_t end = (uintptr_t)syscall(SYS_brk, 0);
    uintptr_t at = end;

    for (size_t i = 0; i < CALLS; i++) {
        at += PAGE;
        uint64_t start = now();
        syscall(SYS_brk, at);
        sample[i] = now() - start;
        *(volatile char *)(at - 1) = 1;
    }
    syscall(SYS_brk, end);
    report("brk_1", sample, CALLS);
}

/*
 * In a hole of a larger area: no page table comes or goes, and the page left
 * out on either side keeps Linux from joining the areas.
 */
static void bench_calls(void)
{
    char *area = area_of(8 * MIB, MADV_NOHUGEPAGE);
    char *range = area + HUGE_PAGE + 16 * PAGE;

    touch(area, 8 * MIB, MIB);
    munmap(range - PAGE, RANGE + 2 * PAGE);
    bench_mmap(range);
    bench_change(range);
    munmap(area, 8 * MIB);
    bench_brk();
}

/* --- the machine ---------------------------------------------------------- */

static void write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY);

    if (file < 0 || write(file, text, strlen(text)) < 0) {
        give_up(path);
    }
    close(file);
}

/* Address of the kernel's own symbol @name; 0 if there is none. */
static unsigned long address_of(const char *name)
{
    char line[256];
    char symbol[160];
    unsigned long address;
    unsigned long found = 0;
    FILE *file = fopen("/proc/kallsyms", "r");

    while (file != NULL && found == 0 && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%lx %*c %159s", &address, symbol) == 2 &&
            strcmp(symbol, name) == 0) {
            found = address;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

static void load_module(void)
{
    char words[256];
    int file = open("/vellum_bench.ko", O_RDONLY);

    snprintf(words, sizeof(words),
             "flush_tlb_kernel_range_at=0x%lx set_memory_ro_at=0x%lx "
             "set_memory_rw_at=0x%lx",
             address_of("flush_tlb_kernel_range"), address_of("set_memory_ro"),
             address_of("set_memory_rw"));
    if (syscall(SYS_finit_module, file, words, 0) != 0) {
        give_up("finit_module");
    }
    close(file);
}

static void flush_rows(void)
{
    if (ioperm(DEBUG_PORT, 1, 1) == 0) {
        for (size_t i = 0; i < rows->length; i++) {
            outb((unsigned char)rows->text[i], DEBUG_PORT);
        }
    }
}

int main(void)
{
    rows = mmap(NULL, sizeof(*rows), READ_WRITE,
                MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (rows == MAP_FAILED) {
        return 1;
    }
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mount("proc", "/proc", "proc", 0, "");
    mount("sysfs", "/sys", "sysfs", 0, "");
    /* No fault of our own in between. */
    memset(sample, 1, sizeof(sample));
    memset(second, 1, sizeof(second));
    measure_empty();
    write_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
    load_module();
    bench_null();
    bench_faults();
    bench_cow();
    bench_fork();
    bench_calls();
    print("# done\n");
    flush_rows();
    reboot(RB_AUTOBOOT); /* QEMU runs with -no-reboot */
    return 0;
}
