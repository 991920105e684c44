/* SPDX-License-Identifier: MIT */
/* port: the cold hooks of a host that is an ordinary process with threads. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <mm/frame.h>
#include <mm/port.h>
#include <mm/slab.h>
#include "bench/native/vellum.h"

_Thread_local struct native_cpu native_cpu;

static struct {
    pthread_t thread;
    _Atomic bool is_there;
    _Atomic bool is_wanted; /* an interrupt was sent and not served yet */
} cpus[NATIVE_THREADS];

unsigned native_bugs;

unsigned port_cpu_count(void)
{
    return NATIVE_THREADS;
}

/* Answer for processor @number, this one or one that has no thread. */
static void serve(unsigned number)
{
    uint64_t state = port_irq_save();
    unsigned own = native_cpu.number;

    native_cpu.number = number;
    /* Before the answer, so that a question after it is a new one. */
    atomic_store_explicit(&cpus[number].is_wanted, false, memory_order_seq_cst);
    frame_interrupt();
    native_cpu.number = own;
    port_irq_restore(state);
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
    greg_t *ip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

    (void)signal;
    (void)info;
    if (!atomic_load_explicit(&native_cpu.is_masked, memory_order_relaxed)) {
        *ip = (greg_t)slab_restart((vaddr_t)*ip);
        serve(native_cpu.number);
    }
}

void port_send_frame_interrupt(unsigned cpu)
{
    /* Acquire: pairs with native_cpu_start(). */
    if (!atomic_load_explicit(&cpus[cpu].is_there, memory_order_acquire)) {
        serve(cpu);
        return;
    }
    atomic_store_explicit(&cpus[cpu].is_wanted, true, memory_order_seq_cst);
    pthread_kill(cpus[cpu].thread, SIGUSR1);
}

void native_wait(void)
{
    for (unsigned cpu = 0; cpu < NATIVE_THREADS; cpu++) {
        if (atomic_load_explicit(&cpus[cpu].is_wanted, memory_order_relaxed)) {
            pthread_kill(cpus[cpu].thread, SIGUSR1);
        }
    }
    sched_yield();
}

void native_cpu_start(unsigned number)
{
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_RESTART | SA_SIGINFO};

    native_cpu.number = number;
    slab_cpu_init(number, native_cpu.heap);
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, &native_cpu) != 0 ||
        sigaction(SIGUSR1, &action, NULL) != 0) {
        native_fail("GS cannot be loaded, or signals not be caught");
    }
    cpus[number].thread = pthread_self();
    /* Release: pairs with port_send_frame_interrupt(). */
    atomic_store_explicit(&cpus[number].is_there, true, memory_order_release);
}

static void say(const char *what, const char *format, va_list arguments)
{
    fprintf(stderr, "%s: ", what);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

void port_log(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say("log", format, arguments);
    va_end(arguments);
}

void port_bug(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say("bug", format, arguments);
    va_end(arguments);
    native_bugs++;
}

void port_panic(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say("panic", format, arguments);
    va_end(arguments);
    abort();
}
