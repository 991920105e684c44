/* SPDX-License-Identifier: MIT */
/* panic: the last words, and the way the calls came. */
/*
 * Locking  The first processor to fail has the last words; it takes `owner` by
 *          compare-exchange, and stops the others by NMI, whatever they are
 *          doing. Who fails meanwhile stops by itself, silently: one report
 *          can be read, two at once cannot.
 */
#include "kernel/panic.h"

#include <limits.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/console/screen.h"
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/image.h"
#include "kernel/kernel.h"
#include "kernel/memory.h"
#include "kernel/percpu.h"
#include "kernel/report.h"
#include "kernel/shutdown.h"
#include "kernel/smp.h"
#include "kernel/symbols.h"
#include "kernel/trap.h"

#define BACKTRACE_LINES 24
#define BACKTRACE_STEPS 4096 /* a stack has fewer frames */

#define NOBODY UINT_MAX

/* (A) the CPU that says the last words */
static _Atomic unsigned owner = NOBODY;

/* (owner) 1: last words; more: the last words failed, too. */
static unsigned depth;

static unsigned who(void)
{
    return atomic_load_explicit(&owner, memory_order_acquire);
}

bool panic_is_active(void)
{
    return who() != NOBODY;
}

bool panic_is_mine(void)
{
    return who() == percpu_this()->index;
}

/* True on one CPU, however often it asks. */
static bool take_the_word(void)
{
    unsigned expected = NOBODY;
    unsigned me = percpu_this()->index;

    return atomic_compare_exchange_strong_explicit(&owner, &expected, me,
                                                   memory_order_acq_rel,
                                                   memory_order_acquire) ||
           expected == me;
}

MM_NORETURN static void stop(void)
{
    if (cmdline_is("exit", "debug")) {
        shutdown_debug_exit(SHUTDOWN_FAILED);
    }
    if (depth <= 2) {
        printk("The machine is halted (in QEMU: Ctrl-A X leaves).\n");
    }
    cpu_irq_off();
    for (;;) {
        cpu_halt();
    }
}

/* What the last words are about. */
struct cause {
    const char *name;
    uint64_t rip;
    uint64_t cr2;
    uint64_t rbp;
};

static void print_cause(const char *title, const struct cause *cause)
{
    printk("%s: %s, rip 0x%lx, cr2 0x%lx, rbp 0x%lx\n", title, cause->name,
           cause->rip, cause->cr2, cause->rbp);
}

/* Return the first time only: what fails while it reports must not loop. */
static void begin(const struct cause *cause)
{
    static struct cause first;

    cpu_irq_off();
    if (!take_the_word()) {
        smp_stop();
    }
    depth++;
    if (depth == 1) {
        first = *cause;
        trap_share_stack();
        unsigned running = smp_count();
        smp_stop_others();
        console_take_over();
        memory_show_screen();
        if (running > 1) {
            printk("\nCPU %u of %u reports; the others are stopped\n",
                   percpu_this()->index, running);
        }
        return;
    }
    if (depth == 2) {
        screen_use(NULL); /* drawing may be what has failed */
        print_cause("\nwhile this was being reported", cause);
        print_cause("the first was", &first);
    }
    stop();
}

MM_NORETURN void panic_list(const char *format, va_list arguments)
{
    struct cause cause = {"panic", MM_CALLER(), cpu_read_cr2(), cpu_read_rbp()};

    begin(&cause);
    printk("\nPANIC: ");
    printk_list(format, arguments);
    printk("\n");
    printk("backtrace:\n");
    panic_backtrace(cpu_read_rbp());
    stop();
}

MM_NORETURN void panic(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    panic_list(format, arguments);
}

MM_NORETURN void give_up(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    printk("\n" KERNEL_NAME " cannot start: ");
    printk_list(format, arguments);
    printk("\n");
    stop();
}

MM_NORETURN void panic_exception(const struct trap_frame *frame)
{
    struct cause cause = {trap_name(frame->vector), frame->rip, frame->cr2,
                          frame->rbp};

    begin(&cause);
    report_exception(frame);
    stop();
}

/* @place is the address whose function and line are shown. */
static void print_call(unsigned number, uint64_t address, uint64_t place)
{
    const char *name;
    const char *file;
    uint64_t offset;
    unsigned line;

    printk("  %2u 0x%016lx", number, address);
    if (symbol_find(place, &name, &offset)) {
        printk(" %s+0x%lx", name, offset);
    }
    /* The compiler gives line 0 to code that is no line of the source. */
    if (symbol_line(place, &file, &line) && line > 0) {
        printk(" (%s:%u)", file, line);
    }
    printk("\n");
}

/*
 * Frames of -fno-omit-frame-pointer: [rbp] is the caller's rbp, [rbp + 8]
 * the return address; boot/start.asm ends the chain with 0. False at its end
 * and where it makes no sense: it must go up and return into code.
 */
static bool step(uint64_t *rbp, uint64_t *out_caller)
{
    struct probe next;
    struct probe caller;

    if (*rbp < LAYOUT_DIRECT || !is_aligned(*rbp, 8) ||
        !probe_read64((const void *)*rbp, &next) ||
        !probe_read64((const void *)(*rbp + 8), &caller) ||
        !image_has_code(caller.value)) {
        return false;
    }
    *rbp = next.value > *rbp ? next.value : 0;
    *out_caller = caller.value;
    return true;
}

/* The calls that led to the frame at @rbp, numbered from @number. */
static void print_calls(uint64_t rbp, unsigned number)
{
    uint64_t caller;
    uint64_t before = 0;
    unsigned repeated = 0;

    for (unsigned i = 0; i < BACKTRACE_STEPS && step(&rbp, &caller); i++) {
        if (caller == before) {
            repeated++; /* a recursion: one line is enough */
            continue;
        }
        if (repeated > 0) {
            printk("     the same %u times more\n", repeated);
            repeated = 0;
        }
        if (number > BACKTRACE_LINES) {
            printk("     and more\n");
            return;
        }
        /* Less one: a call of a noreturn function may end its function. */
        print_call(number, caller, caller - 1);
        before = caller;
        number++;
    }
}

void panic_backtrace(uint64_t rbp)
{
    print_calls(rbp, 1);
}

/* First byte of a function that makes itself a frame. */
#define PUSH_RBP 0x55

/*
 * Where the return address lies if what was running had made no frame (yet):
 * a jump to nowhere, a small function without one, the first instructions of
 * any other. 0 if there is a frame.
 */
static uint64_t return_slot(const struct trap_frame *frame)
{
    const char *name;
    uint64_t offset;

    if (!image_has_code(frame->rip) ||
        !symbol_find(frame->rip, &name, &offset) || offset == 0) {
        return frame->rsp;
    }
    const uint8_t *start = (const uint8_t *)(frame->rip - offset);
    if (*start != PUSH_RBP) {
        return frame->rsp;
    }
    return offset == 1 ? frame->rsp + sizeof(uint64_t) : 0;
}

void panic_backtrace_trap(const struct trap_frame *frame)
{
    uint64_t slot = return_slot(frame);
    struct probe caller;
    unsigned number = 0;

    printk("backtrace:\n");
    print_call(number++, frame->rip, frame->rip);
    if (slot != 0 && probe_read64((const void *)slot, &caller) &&
        image_has_code(caller.value)) {
        print_call(number++, caller.value, caller.value - 1);
    }
    print_calls(frame->rbp, number);
}
