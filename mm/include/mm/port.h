/* SPDX-License-Identifier: MIT */
/* The port: everything the library asks of the kernel that hosts it. */
#ifndef MM_PORT_H
#define MM_PORT_H

#include <mm/types.h>

/*
 * Hot hooks. The host names a header with -DMM_PORT_HEADER='"my_port.h"' that
 * defines these as static inline functions:
 *
 *   unsigned port_cpu(void)
 *       Number of the processor that executes this, 0 .. port_cpu_count()-1;
 *       0 is the one that calls mm_init(). Called with interrupts off.
 *   uint64_t port_irq_save(void)           void port_irq_restore(uint64_t)
 *       Turn interrupts off and return what they were; put that back. Nests.
 *   void *phys_to_virt(paddr_t)            paddr_t virt_to_phys(const void *)
 *       The direct map: all RAM at a constant distance.
 *   void port_relax(void)
 *       PAUSE: one turn of a loop that waits for another processor.
 *
 * It may define MM_PORT_MMU and bring its own mmu_*() functions in place of
 * those of x86_64/mmu.h; the host tests do, to watch every invalidation.
 *
 * And MM_PORT_HIDES, with two functions more, if it can tell who touches what:
 *   void port_hide(const void *, uint64_t bytes)
 *       Nobody may touch these bytes: they are free objects of caches.
 *   void port_show(const void *, uint64_t bytes)
 *       They may be touched again.
 *
 * And MM_PORT_RESTARTS (for NASM, too), if the uint32_t at GS:8 is port_cpu(),
 * slab_cpu_init() has been told what lies at GS:16, and each interrupt whose
 * handler may use the heap, or switch to somebody else, sets where it goes on
 * to slab_restart() of that first. Then the heap's fast ways need not turn
 * interrupts off: x86_64/magazine.asm.
 *
 * And MM_PORT_PEEKS, with a function more, if it survives a fault there:
 *   uint32_t port_peek(const uint32_t *)
 *       What stands at an address in the record array (mm/record.h); 0 if that
 *       part of it is not backed. The fault may come wherever kfree() may be
 *       called, interrupts off and any lock held: the way out takes none.
 */
#ifndef MM_PORT_HEADER
#error "define MM_PORT_HEADER: the header with the host's hot hooks"
#endif
#include MM_PORT_HEADER

#ifndef MM_PORT_HIDES
static inline void port_hide(const void *start, uint64_t bytes)
{
    (void)start;
    (void)bytes;
}

static inline void port_show(const void *start, uint64_t bytes)
{
    (void)start;
    (void)bytes;
}
#endif

/*
 * Cold hooks: ordinary functions of the host.
 */

/*
 * Processors that may ever call the library, 1 .. MM_MAX_CPUS: constant from
 * the first call on, whether they have started yet or not.
 */
unsigned port_cpu_count(void);

/*
 * Interrupt @cpu, so that it calls tlb_interrupt() as soon as its interrupts
 * are on. Must not be lost; may come later than the call returns, and may
 * find nothing left to do. Never called with one CPU.
 * Context: interrupts off.
 */
void port_send_tlb_interrupt(unsigned cpu);

/*
 * Interrupt @cpu, so that it calls frame_interrupt(), as above. Called when an
 * allocation finds nothing but what other CPUs keep for themselves.
 */
void port_send_frame_interrupt(unsigned cpu);

/*
 * Print one line of information. @format is printf's, with these conversions:
 * %d %u %x %lu %lx %s %p.
 */
void port_log(const char *format, ...) MM_PRINTF(1, 2);

/*
 * A caller broke a contract (double free, foreign pointer). The text has the
 * values; the library has changed nothing and will go on if this returns.
 */
void port_bug(const char *format, ...) MM_PRINTF(1, 2);

/* The library cannot go on: its own structures contradict each other. */
MM_NORETURN void port_panic(const char *format, ...) MM_PRINTF(1, 2);

#endif
