/* SPDX-License-Identifier: MIT */
/* provoke: makes each kind of fault happen, for real. */
/*
 * Each of them ends in the fatal report of kernel/report.c. A function that
 * returns could not provoke its fault on this processor, and has said why.
 */
#include <mm/kmap.h>
#include <mm/mm.h>
#include <mm/pt.h>
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/entry.h"
#include "kernel/layout.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "kernel/percpu.h"
#include "kernel/trap.h"

#define STACK_SCRATCH_BYTES (16 * KiB)

/* overflow.asm */
MM_NORETURN void overflow_stack(void *top);

static const uint64_t constant = 42;
static uint8_t not_code[16] = {0xc3}; /* RET, should anybody get here */

/* Not inline: the compiler must not see that the access is wrong. */
MM_NOINLINE static void touch(vaddr_t address)
{
    (void)*(volatile const uint64_t *)address;
}

static bool fault_null(void)
{
    touch(0);
    return false;
}

static bool fault_ro(void)
{
    *(volatile uint64_t *)(vaddr_t)&constant = 43;
    return false;
}

static bool fault_nx(void)
{
    if (!cpu_features.has_nx) {
        printk("this CPU has no NX: data can be executed\n");
        return false;
    }
    ((void (*)(void))(vaddr_t)not_code)();
    return false;
}

static void *scratch_page(void)
{
    void *page = kmap_alloc(PAGE_BYTES, KMAP_EAGER, "fault scratch");

    if (page == NULL) {
        printk("no memory for a scratch page\n");
    }
    return page;
}

static bool fault_guard(void)
{
    char *page = scratch_page();

    if (page != NULL) {
        page[PAGE_BYTES] = 1;
    }
    return false;
}

/* An address bit the processor does not have. */
static bool fault_rsvd(void)
{
    if (cpu_features.physical_bits >= 52) {
        printk("this CPU has 52 physical address bits: none is reserved\n");
        return false;
    }
    vaddr_t page = (vaddr_t)scratch_page();
    if (page == 0) {
        return false;
    }
    volatile pte_t *entry = entry_find(page, 0);
    entry->v |= UINT64_C(1) << 51;
    entry_invalidate(page);
    touch(page);
    return false;
}

/* One above the highest address of the lower half. */
static bool fault_noncanonical(void)
{
    touch((vaddr_t)1 << (pte_shift(pt_features.levels) - 1));
    return false;
}

static bool fault_stack(void)
{
    const struct percpu *cpu = percpu_this();

    if (cpu->index != 0) {
        /* Nobody returns to what is on it. */
        overflow_stack((void *)cpu->stack_end[STACK_KERNEL]);
    }
    char *stack = kmap_stack(STACK_SCRATCH_BYTES, "fault stack");

    if (stack == NULL) {
        printk("no memory for a stack\n");
        return false;
    }
    overflow_stack(stack + STACK_SCRATCH_BYTES);
}

/*
 * Cut the IDT off before #PF: its delivery is then a #GP, and two of them
 * are a #DF, whose gate stands before the cut. [SDM-3A 6.15 "Interrupt 8"]
 */
static bool fault_double(void)
{
    const struct cpu_table cut = {TRAP_PAGE * 16 - 1, trap_idt_address()};

    cpu_lidt(&cut);
    touch(0);
    return false;
}

/* A page that user mode may touch, and the kernel may not. */
static bool fault_user(void)
{
    if (!cpu_features.has_smap) {
        printk("this CPU has no SMAP: the kernel may touch user pages\n");
        return false;
    }
    vaddr_t page = (vaddr_t)scratch_page();
    if (page == 0) {
        return false;
    }
    for (unsigned level = 0; level < pt_features.levels; level++) {
        entry_find(page, level)->v |= PTE_US;
    }
    tlb_flush_all();
    touch(page);
    return false;
}

/* The end of the arena, where no block ever is. */
static bool fault_unmapped(void)
{
    touch(LAYOUT_KMAP_END - PAGE_BYTES);
    return false;
}

/* A page whose frame is there, and parked. */
static bool fault_none(void)
{
    vaddr_t page = (vaddr_t)scratch_page();

    if (page == 0) {
        return false;
    }
    enum mm_status status =
        pt_protect_kernel(page, PAGE_BYTES, pt_attr(PT_NONE | PT_GLOBAL));
    if (status != MM_OK) {
        printk("the page cannot be parked: %s\n", mm_status_name(status));
        return false;
    }
    touch(page);
    return false;
}

static const struct {
    const char *kind;
    bool (*provoke)(void);
} kinds[] = {
    {"null", fault_null},   {"ro", fault_ro},
    {"nx", fault_nx},       {"guard", fault_guard},
    {"rsvd", fault_rsvd},   {"noncanonical", fault_noncanonical},
    {"stack", fault_stack}, {"double", fault_double},
    {"user", fault_user},   {"unmapped", fault_unmapped},
    {"none", fault_none},
};
#define KINDS                                                                  \
    "null ro nx guard rsvd noncanonical stack double user unmapped none"

static bool run_fault(const struct arguments *arguments)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].kind, arguments->word[0]) == 0) {
            return kinds[i].provoke();
        }
    }
    return complain(arguments, "%s is none of " KINDS, arguments->word[0]);
}

static const struct command commands[] = {
    {"fault", "", "KIND", "provoke a fault: ends in its report", KINDS, 1, 1,
     false, run_fault},
};

const struct command_group command_provoke = COMMAND_GROUP("Faults", commands);
