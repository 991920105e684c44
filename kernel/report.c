/* SPDX-License-Identifier: MIT */
/* report: an exception in words. */
/*
 * Picture  what    PAGE FAULT  write to 0x... from kernel (where)  [E-PF-RO]
 *          code    the error code, bit by bit
 *          why     a sentence
 *          walk    each level's entry, the failing one marked
 *          near    what the address belongs to
 *          try     one or two actions
 *          registers, backtrace
 *
 * Limits   The name of a kmap block is found under the arena's lock: a fault
 *          inside vmem at an address of the kmap area is reported without it.
 */
#include "kernel/report.h"

#include <mm/fault.h>
#include <mm/mm.h>
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/explain.h"
#include "kernel/place.h"
#include "kernel/panic.h"
#include "kernel/symbols.h"
#include "kernel/trap.h"

#define WALK_TITLE            "  walk : "
#define VECTOR_INVALID_OPCODE 6

/* RSP this close to a guard page that was hit: the stack has overflowed. */
#define OVERFLOW_REACH (2 * PAGE_BYTES)

static void print_place(uint64_t rip)
{
    const char *name;
    const char *file;
    uint64_t offset;
    unsigned line;

    printk("(rip ");
    if (symbol_find(rip, &name, &offset)) {
        printk("%s+0x%lx", name, offset);
    } else {
        printk("0x%lx", rip);
    }
    if (symbol_line(rip, &file, &line) && line != 0) {
        printk(", %s:%u", file, line);
    }
    printk(")");
}

static void print_near(vaddr_t address)
{
    struct walk walk;

    printk("  near : %s\n", place_text(address).text);
    if (explain_walk(address, &walk) && walk.state == PTE_PRESENT &&
        walk.step[walk.count - 1].level < PTE_LEVELS &&
        walk_reserved_bits(walk.step[walk.count - 1].entry,
                           walk.step[walk.count - 1].level) == 0) {
        pfn_t pfn = phys_to_pfn(walk.physical);
        printk("         frame 0x%lx: %s\n", pfn.v, explain_frame(pfn).text);
    }
}

/* --- page faults ---------------------------------------------------------- */

static const char *const page_fault_code[FAULT_RESULTS] = {
    [FAULT_RESOLVED] = "", /* never reported */
    [FAULT_UNSHARED] = "",
    [FAULT_SPURIOUS] = "E-PF-STALE",
    [FAULT_NULL] = "E-PF-NULL",
    [FAULT_GUARD] = "E-PF-GUARD",
    [FAULT_NOT_MAPPED] = "E-PF-UNMAPPED",
    [FAULT_READ_ONLY] = "E-PF-RO",
    [FAULT_NO_EXECUTE] = "E-PF-NX",
    [FAULT_RESERVED_BIT] = "E-PF-RSVD",
    [FAULT_SUPERVISOR] = "E-PF-SUPERVISOR",
    [FAULT_USER_EXEC] = "E-PF-SMEP",
    [FAULT_USER_ACCESS] = "E-PF-SMAP",
    [FAULT_NO_ACCESS] = "E-PF-NONE",
    [FAULT_NO_MEMORY] = "E-PF-NOMEM",
};

static const char *access_name(uint64_t code)
{
    if ((code & FAULT_I) != 0) {
        return "execution of";
    }
    return (code & FAULT_W) != 0 ? "write to" : "read of";
}

/* Reserved bits before presence: QEMU 7.2 leaves P clear there. */
static void print_error_code(uint64_t code)
{
    static const struct {
        uint64_t bit;
        const char *name;
    } bits[] = {
        {FAULT_RSVD, "RSVD (reserved bit set)"},
        {FAULT_P, "P (entry present)"},
        {FAULT_W, "W (write)"},
        {FAULT_U, "U (user mode)"},
        {FAULT_I, "I (instruction fetch)"},
        {FAULT_PK, "PK (protection key)"},
        {FAULT_SS, "SS (shadow stack)"},
    };

    printk("  code : page fault, error code 0x%lx:", code);
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        if ((code & bits[i].bit) != 0) {
            printk(" %s", bits[i].name);
        }
    }
    if ((code & (FAULT_P | FAULT_RSVD)) == 0) {
        printk(" (entry not present)");
    }
    printk("\n");
}

static void print_advice(enum fault_result result, vaddr_t address)
{
    printk("  try  : %s;\n         after a restart, in the monitor: explain "
           "0x%lx\n",
           fault_result_advice(result), address);
}

static void print_spurious(uint64_t code)
{
    if ((code & (FAULT_PK | FAULT_SS)) != 0) {
        printk("         but a protection key or the shadow stack does not\n");
    } else {
        printk("         and which has faulted again after %d tries\n",
               TRAP_RETRIES);
    }
}

static void report_page_fault(const struct trap_frame *frame)
{
    struct walk_rules rules = trap_rules(frame->rflags);
    enum fault_result result =
        frame->cr2 < PAGE_BYTES ? FAULT_NULL : FAULT_NOT_MAPPED;
    unsigned blame = EXPLAIN_NO_BLAME;
    struct walk walk;
    bool has_walk = explain_walk(frame->cr2, &walk);

    if (has_walk) {
        result = explain_fault(&walk, (uint32_t)frame->error, &rules, &blame);
    }
    /* A promise that is still there after the handler: no frame for it. */
    if (result == FAULT_RESOLVED) {
        result = FAULT_NO_MEMORY;
    }
    printk("\nPAGE FAULT  %s 0x%lx from %s ", access_name(frame->error),
           frame->cr2, (frame->error & FAULT_U) != 0 ? "user" : "kernel");
    print_place(frame->rip);
    printk("  [%s]\n", page_fault_code[result]);
    print_error_code(frame->error);
    printk("  why  : %s\n", fault_result_text(result));
    if (result == FAULT_SPURIOUS) {
        print_spurious(frame->error);
    }
    if (has_walk) {
        explain_print_walk(&walk, blame, WALK_TITLE);
    } else {
        printk("  walk : the tables cannot be read at this stage (%d)\n",
               (int)mm_stage());
    }
    print_near(frame->cr2);
    print_advice(result, frame->cr2);
}

/* --- double faults -------------------------------------------------------- */

/* Did the stack run into the guard page that CR2 names? */
static bool is_stack_overflow(const struct trap_frame *frame, struct place *out)
{
    place_find(frame->cr2, out);
    return out->is_guard && frame->rsp >= out->start - OVERFLOW_REACH &&
           frame->rsp <= out->end + 1 + OVERFLOW_REACH;
}

static void report_double_fault(const struct trap_frame *frame)
{
    struct place guard;
    struct walk walk;

    if (is_stack_overflow(frame, &guard)) {
        printk("\nDOUBLE FAULT  kernel stack overflow: \"%s\" ", guard.name);
        print_place(frame->rip);
        printk("  [E-DF-STACK]\n");
        printk("  why  : a push at 0x%lx hit the guard page below the stack,"
               "\n         and the page fault had no stack to be reported on;"
               "\n         this report runs on a stack of its own (IST)\n",
               frame->cr2);
        if (explain_walk(frame->cr2, &walk)) {
            explain_print_walk(&walk, walk.count - 1, WALK_TITLE);
        }
        print_near(frame->cr2);
        printk("  try  : look for a function that calls itself in the "
               "backtrace,\n         for large local arrays, or give the stack "
               "more pages\n");
        return;
    }
    printk("\nDOUBLE FAULT  an exception while another was being delivered ");
    print_place(frame->rip);
    printk("  [E-DF]\n");
    printk(
        "  why  : a double fault means that the handler of the first "
        "exception\n         could not be entered: IDT, GDT, its code or its "
        "stack is damaged\n");
    printk("  near : CR2 is 0x%lx: %s (if the first was a page fault)\n",
           frame->cr2, place_text(frame->cr2).text);
    printk("  try  : see what was done to the IDT just before; "
           "QEMU -d int shows\n         both exceptions\n");
}

/* --- the others ----------------------------------------------------------- */

struct named_register {
    const char *name;
    uint64_t value;
};

/* The first general register that is no canonical address. */
static bool find_non_canonical(const struct trap_frame *frame,
                               struct named_register *out)
{
    const struct named_register registers[] = {
        {"rax", frame->rax}, {"rbx", frame->rbx}, {"rcx", frame->rcx},
        {"rdx", frame->rdx}, {"rsi", frame->rsi}, {"rdi", frame->rdi},
        {"rbp", frame->rbp}, {"rsp", frame->rsp}, {"r8", frame->r8},
        {"r9", frame->r9},   {"r10", frame->r10}, {"r11", frame->r11},
        {"r12", frame->r12}, {"r13", frame->r13}, {"r14", frame->r14},
        {"r15", frame->r15}, {"rip", frame->rip},
    };

    if (pt_features.levels == 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof(registers) / sizeof(registers[0]); i++) {
        if (!pt_is_canonical(registers[i].value)) {
            *out = registers[i];
            return true;
        }
    }
    return false;
}

/* With an error code of 0, a bad address is the most likely reason. */
static void report_protection(const struct trap_frame *frame)
{
    struct named_register culprit;
    bool found = frame->error == 0 && find_non_canonical(frame, &culprit);

    printk("\nGENERAL PROTECTION  %s ",
           found ? "address that is not canonical" : "forbidden operation");
    print_place(frame->rip);
    printk("  [%s]\n", found ? "E-GP-NONCANONICAL" : "E-GP");
    printk("  code : general protection, error code 0x%lx\n", frame->error);
    if (found) {
        printk(
            "  why  : %s holds 0x%lx: bits %u to 63 of an address must be "
            "equal;\n         no page table is asked about such an address\n",
            culprit.name, culprit.value, pte_shift(pt_features.levels) - 1);
        printk("  try  : look for a pointer that was overwritten, or a shift "
               "that is too large\n");
        return;
    }
    printk("  why  : %s\n",
           frame->error != 0
               ? "the error code names a segment selector or IDT entry"
               : "a privileged register was given a value it refuses, or a "
                 "memory operand is misaligned");
    printk("  try  : disassemble the instruction at rip\n");
}

static void report_other(const struct trap_frame *frame)
{
    static const struct {
        uint64_t vector;
        const char *code;
        const char *why;
    } known[] = {
        {TRAP_DIVIDE, "E-DE", "division by zero, or a quotient too large"},
        {TRAP_NMI, "E-NMI",
         "the hardware asks for attention: often a memory error"},
        {VECTOR_INVALID_OPCODE, "E-UD",
         "no instruction of this processor; UD2 stands where the "
         "compiler\n         saw that the code cannot be meant"},
        {TRAP_STACK, "E-SS", "a stack address that is not canonical"},
        {TRAP_MACHINE_CHECK, "E-MC",
         "the processor has found a fault in the "
         "hardware"},
    };
    const char *code = "E-TRAP";
    const char *why = "nothing in this kernel raises it";

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (known[i].vector == frame->vector) {
            code = known[i].code;
            why = known[i].why;
        }
    }
    printk("\nEXCEPTION  %s ", trap_name(frame->vector));
    print_place(frame->rip);
    printk("  [%s]\n  why  : %s\n", code, why);
}

static void print_registers(const struct trap_frame *frame)
{
    printk("  rax %016lx  rbx %016lx  rcx %016lx\n", frame->rax, frame->rbx,
           frame->rcx);
    printk("  rdx %016lx  rsi %016lx  rdi %016lx\n", frame->rdx, frame->rsi,
           frame->rdi);
    printk("  rbp %016lx  rsp %016lx  r8  %016lx\n", frame->rbp, frame->rsp,
           frame->r8);
    printk("  r9  %016lx  r10 %016lx  r11 %016lx\n", frame->r9, frame->r10,
           frame->r11);
    printk("  r12 %016lx  r13 %016lx  r14 %016lx\n", frame->r12, frame->r13,
           frame->r14);
    printk("  r15 %016lx  rip %016lx  flags %08lx  cs %lx ss %lx\n", frame->r15,
           frame->rip, frame->rflags, frame->cs, frame->ss);
    printk("  cr0 %016lx  cr2 %016lx  cr3 %016lx  cr4 %lx\n", cpu_read_cr0(),
           frame->cr2, cpu_read_cr3(), cpu_read_cr4());
}

void report_exception(const struct trap_frame *frame)
{
    switch (frame->vector) {
    case TRAP_PAGE:
        report_page_fault(frame);
        break;
    case TRAP_DOUBLE_FAULT:
        report_double_fault(frame);
        break;
    case TRAP_PROTECTION:
        report_protection(frame);
        break;
    default:
        report_other(frame);
        break;
    }
    print_registers(frame);
    panic_backtrace_trap(frame);
}
