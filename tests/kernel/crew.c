/* SPDX-License-Identifier: MIT */
/* crew: the same function on every CPU at once, and a space they share. */
#include "tests/kernel/crew.h"

#include <mm/frame.h>
#include <mm/port.h>
#include "base/check.h"
#include "kernel/cpu.h"
#include "kernel/smp.h"
#include "tests/shared/once.h"

unsigned crew_others(void)
{
    unsigned others = 0;

    for (unsigned i = 0; i < smp_possible(); i++) {
        others += i != port_cpu() && smp_is_online(i) ? 1 : 0;
    }
    return others;
}

void crew_start(void (*work)(void *), void *argument)
{
    for (unsigned i = 0; i < smp_possible(); i++) {
        if (i != port_cpu() && smp_is_online(i)) {
            enum mm_status status = smp_run(i, work, argument);

            ASSERT(status == MM_OK);
        }
    }
}

void crew_wait(void)
{
    for (unsigned i = 0; i < smp_possible(); i++) {
        if (i != port_cpu() && smp_is_online(i)) {
            smp_wait(i);
        }
    }
}

void crew_park(void)
{
    struct tlb_cpu_state state;

    crew_wait();
    for (unsigned i = 0; i < smp_possible(); i++) {
        do {
            cpu_pause();
            tlb_cpu_look(i, &state);
        } while (i != port_cpu() && smp_is_online(i) && !state.is_lazy);
    }
}

void crew_run(void (*work)(void *), void *argument)
{
    crew_start(work, argument);
    cpu_irq_on();
    work(argument);
    cpu_irq_off();
    crew_wait();
}

bool crew_map(struct pt *pt, vaddr_t page, uint64_t value)
{
    pfn_t frame = frame_alloc(0, FRAME_USER, FRAME_ANY);

    if (pfn_is_none(frame)) {
        return false;
    }
    uint64_t *word = phys_to_virt(pfn_to_phys(frame));
    for (size_t i = 0; i < PAGE_BYTES / sizeof(*word); i++) {
        word[i] = value;
    }
    enum mm_status status =
        once_map(pt, page, frame, PAGE_BYTES, pt_attr(PT_WRITE | PT_OWNED));
    if (status != MM_OK) {
        frame_free(frame, 0);
    }
    return status == MM_OK;
}

bool crew_unmap(struct pt *pt, vaddr_t page)
{
    return once_unmap(pt, page, PAGE_BYTES) == MM_OK;
}

bool crew_protect(struct pt *pt, vaddr_t page, unsigned flags)
{
    return once_protect(pt, page, PAGE_BYTES, pt_attr(flags)) == MM_OK;
}
