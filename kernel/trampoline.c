/* SPDX-License-Identifier: MIT */
/* trampoline: start-up code of CPUs, put where they begin. */
/*
 * Idea     The code is boot/trampoline.asm. Its page stays reserved in the
 *          memory map for ever, so nothing has to be saved there.
 *          The tables are the kernel's upper half, and below it that one page
 *          at its own address: the instruction behind the switch to paging
 *          must be found. No space is made of them, since nobody runs on them
 *          but processors that do nothing else yet.
 */
#include "kernel/trampoline.h"

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/port.h>
#include <mm/pt.h>
#include "base/check.h"
#include "base/memory.h"
#include "kernel/boot_info.h"
#include "kernel/cpu.h"

/* boot/trampoline.asm */
extern const char trampoline_start[];
extern const char trampoline_end[];
extern const char trampoline_parameters[];

struct trampoline_parameters {
    uint64_t entry;
    uint32_t cr0;
    uint32_t cr3;
    uint32_t cr4;
    uint32_t efer;
    uint32_t protected_entry; /* these are offsets, and want the base added */
    uint16_t protected_selector;
    uint32_t long_entry;
    uint16_t long_selector;
    uint16_t gdt_limit;
    uint32_t gdt;
} MM_PACKED;

/* pt_table_fn. CR3 has 32 bits until the processor is in long mode. */
static pfn_t take_table(void *context)
{
    struct trampoline *trampoline = context;

    ASSERT(trampoline->tables < PTE_LEVELS);
    pfn_t frame = frame_alloc(0, FRAME_KERNEL, FRAME_ZEROED | FRAME_BELOW_4G);
    if (!pfn_is_none(frame)) {
        trampoline->table[trampoline->tables] = frame;
        trampoline->tables++;
    }
    return frame;
}

static enum mm_status build_tables(struct trampoline *trampoline)
{
    pfn_t root = take_table(trampoline);

    if (pfn_is_none(root)) {
        return MM_ENOMEM;
    }
    const pte_t *kernel = phys_to_virt(pfn_to_phys(pt_kernel.root));
    pte_t *own = phys_to_virt(pfn_to_phys(root));
    /* Top-level entries are made once: a copy stays right. */
    memcpy(own + PTE_TABLE_COUNT / 2, kernel + PTE_TABLE_COUNT / 2,
           PTE_TABLE_COUNT / 2 * sizeof(*own));
    return pt_install(root, trampoline->page.v, phys_to_pfn(trampoline->page),
                      PAGE_BYTES, pt_attr(PT_EXEC), take_table, trampoline);
}

static void fill_parameters(struct trampoline_parameters *parameters,
                            const struct trampoline *trampoline,
                            void (*entry)(void))
{
    uint32_t base = (uint32_t)trampoline->page.v;

    parameters->entry = (uint64_t)(uintptr_t)entry;
    parameters->cr0 = (uint32_t)cpu_read_cr0();
    parameters->cr3 = (uint32_t)pfn_to_phys(trampoline->table[0]).v;
    parameters->cr4 = (uint32_t)(cpu_read_cr4() & (CR4_PAE | CR4_LA57));
    parameters->efer = (uint32_t)(cpu_rdmsr(MSR_EFER) & ~EFER_LMA);
    parameters->protected_entry += base;
    parameters->long_entry += base;
    parameters->gdt += base;
}

/* The direct map does not show what is reserved: a window for the writing. */
static enum mm_status write_code(const struct trampoline *trampoline,
                                 void (*entry)(void))
{
    size_t bytes = (size_t)(trampoline_end - trampoline_start);
    size_t parameters = (size_t)(trampoline_parameters - trampoline_start);
    char *code =
        kmap_mmio(trampoline->page, PAGE_BYTES, PT_WB, "start-up code");

    if (code == NULL) {
        return MM_ENOMEM;
    }
    ASSERT(bytes <= PAGE_BYTES);
    memcpy(code, trampoline_start, bytes);
    fill_parameters((void *)(code + parameters), trampoline, entry);
    kmap_free(code);
    return MM_OK;
}

enum mm_status trampoline_make(struct trampoline *out, void (*entry)(void))
{
    *out = (struct trampoline){.page = paddr_of(boot_info.low_page)};
    if (out->page.v == 0) {
        return MM_ENOENT;
    }
    enum mm_status status = build_tables(out);
    if (status == MM_OK) {
        status = write_code(out, entry);
    }
    if (status != MM_OK) {
        trampoline_free(out);
    }
    return status;
}

void trampoline_free(struct trampoline *trampoline)
{
    for (unsigned i = 0; i < trampoline->tables; i++) {
        frame_free(trampoline->table[i], 0);
    }
    trampoline->tables = 0;
}
