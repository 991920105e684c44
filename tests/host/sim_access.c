/* SPDX-License-Identifier: MIT */
/* sim_access: what a program on a simulated CPU does to memory. */
#include "tests/host/sim_mmu_impl.h"

#include <stdatomic.h>

#include <mm/port.h>
#include "tests/host/sim_cpus.h"

/* How often an instruction may fault before it is stuck. */
#define SIM_TRIES 4

enum fault_result sim_last_fault(void)
{
    return sim_this_tlb()->last_fault;
}

pte_t sim_read_entry(pfn_t table, unsigned index)
{
    const pte_t *entry = (pte_t *)phys_to_virt(pfn_to_phys(table)) + index;

    return (pte_t){atomic_load_explicit((const _Atomic uint64_t *)&entry->v,
                                        memory_order_acquire)};
}

bool sim_mark_entry(pfn_t table, unsigned index, pte_t entry, uint64_t bits)
{
    pte_t *slot = (pte_t *)phys_to_virt(pfn_to_phys(table)) + index;

    return (entry.v & bits) == bits ||
           atomic_compare_exchange_strong_explicit(
               (_Atomic uint64_t *)&slot->v, &entry.v, entry.v | bits,
               memory_order_relaxed, memory_order_relaxed);
}

/* What is cached will do, but for a write that must set D first. */
static bool find_usable(vaddr_t address, unsigned access,
                        struct translation *out)
{
    if (!sim_find(address, out)) {
        return false;
    }
    if ((access & WALK_WRITE) && !out->is_dirty &&
        sim_judge(out, access) == WALK_ALLOWED) {
        sim_forget_translation(address);
        return false;
    }
    return true;
}

/*
 * Between the look-up and the access anything may happen elsewhere, but no
 * interrupt here: an instruction is finished with its translation before.
 */
enum walk_verdict sim_translate(vaddr_t address, unsigned access, paddr_t *out)
{
    struct translation one;
    enum walk_verdict verdict;

    if (!pt_is_canonical(address)) {
        return WALK_NON_CANONICAL;
    }
    if (find_usable(address, access, &one)) {
        verdict = sim_judge(&one, access);
    } else {
        verdict = sim_fill(address, access, &one);
    }
    if (verdict != WALK_ALLOWED) {
        sim_forget_page(address);
        return verdict;
    }
    sim_step();
    sim_watch_use(&one);
    *out = paddr_of(pfn_to_phys(one.pfn).v +
                    (address & (pte_span(one.level) - 1)));
    return WALK_ALLOWED;
}

static uint32_t error_code(enum walk_verdict verdict, unsigned access)
{
    uint32_t code = access; /* W, U and I stand at the same bits */

    if (verdict == WALK_RESERVED_BIT) {
        return code | FAULT_P | FAULT_RSVD;
    }
    return verdict == WALK_NOT_PRESENT ? code : code | FAULT_P;
}

static enum fault_result handle_fault(vaddr_t address, uint32_t code)
{
    struct fault fault = {
        .address = address, .code = code, .rules = *sim_rules()};
    struct walk walk;
    uint64_t irq = port_irq_save();
    enum fault_result result = fault_handle(&fault, &walk);

    sim_this_tlb()->last_fault = result;
    port_irq_restore(irq);
    return result;
}

static bool touch(vaddr_t address, unsigned access, paddr_t *out)
{
    for (unsigned try = 0; try < SIM_TRIES; try++) {
        enum walk_verdict verdict = sim_translate(address, access, out);

        if (verdict == WALK_ALLOWED) {
            return true;
        }
        if (verdict == WALK_NON_CANONICAL) {
            return false; /* #GP: the fault handler is not asked */
        }
        enum fault_result result =
            handle_fault(address, error_code(verdict, access));
        if (!fault_is_settled(result)) {
            return false;
        }
    }
    port_bug("access 0x%x to 0x%lx faults for ever", access, address);
    return false;
}

bool sim_read(vaddr_t address, uint8_t *out)
{
    paddr_t physical;

    if (!touch(address, WALK_READ, &physical)) {
        return false;
    }
    *out = *(uint8_t *)phys_to_virt(physical);
    return true;
}

bool sim_write(vaddr_t address, uint8_t value)
{
    paddr_t physical;

    if (!touch(address, WALK_WRITE, &physical)) {
        return false;
    }
    *(uint8_t *)phys_to_virt(physical) = value;
    return true;
}

bool sim_execute(vaddr_t address)
{
    paddr_t physical;

    return touch(address, WALK_EXEC, &physical);
}
