/* SPDX-License-Identifier: MIT */
/* port: the hot hooks of a host that is an ordinary process with threads. */
#ifndef BENCH_NATIVE_PORT_H
#define BENCH_NATIVE_PORT_H

#include <stdatomic.h>
#include <stddef.h>

#include <mm/slab.h>
#include <mm/types.h>

#define MM_PORT_RESTARTS 1 /* native_cpu_start() loads GS, on_signal() asks */
#define MM_PORT_PEEKS    1 /* the whole array reads as zero */

/* Where RAM lies: physical 0 is this address, a constant as in a kernel. */
#define NATIVE_RAM_BASE UINT64_C(0x100000000000)

/*
 * A thread is a processor, and a signal its interrupt. A process cannot turn
 * signals off without a system call, so the handler looks whether they are
 * "off" and leaves again; who waits for an answer sends once more, in
 * port_relax(). So off and on are a load, two stores and a branch on a line of
 * the thread's own: less than PUSHF, CLI and STI, but all that it takes here.
 * The heap's fast ways do neither, as in the kernel. GS leads here.
 */
struct native_cpu {
    _Atomic bool is_masked;
    uint32_t turns;                             /* of port_relax() */
    uint32_t number;                            /* at GS:8 */
    uint8_t heap[SLAB_CPU_BYTES] MM_ALIGNED(8); /* at GS:16 */
};
_Static_assert(offsetof(struct native_cpu, number) == 8 &&
                   offsetof(struct native_cpu, heap) == 16,
               "MM_PORT_RESTARTS");
extern _Thread_local struct native_cpu native_cpu;

/* Send again what has not been answered yet, and let others run. */
void native_wait(void);
#define NATIVE_PATIENCE 256 /* turns of PAUSE: some 10 us */

static inline unsigned port_cpu(void)
{
    return native_cpu.number;
}

static inline uint64_t port_irq_save(void)
{
    bool was_masked =
        atomic_load_explicit(&native_cpu.is_masked, memory_order_relaxed);

    atomic_store_explicit(&native_cpu.is_masked, true, memory_order_relaxed);
    /* For the compiler: the handler runs on the same processor. */
    atomic_signal_fence(memory_order_seq_cst);
    return was_masked;
}

static inline void port_irq_restore(uint64_t state)
{
    atomic_signal_fence(memory_order_seq_cst);
    /* As kernels do; and so the next one need not wait for @state. */
    if (MM_LIKELY(state == 0)) {
        atomic_store_explicit(&native_cpu.is_masked, false,
                              memory_order_relaxed);
    }
}

static inline void *phys_to_virt(paddr_t address)
{
    return (unsigned char *)NATIVE_RAM_BASE + address.v;
}

static inline paddr_t virt_to_phys(const void *pointer)
{
    return paddr_of((uint64_t)(uintptr_t)pointer - NATIVE_RAM_BASE);
}

static inline uint32_t port_peek(const uint32_t *at)
{
    return *(const volatile uint32_t *)at;
}

static inline void port_relax(void)
{
    __builtin_ia32_pause();
    if (++native_cpu.turns % NATIVE_PATIENCE == 0) {
        native_wait();
    }
}

#endif
