/* SPDX-License-Identifier: MIT */
/* cpu: privileged instructions under names, and what the processor can do. */
#ifndef KERNEL_CPU_H
#define KERNEL_CPU_H

#include <mm/types.h>

/* Control registers. [SDM-3A 2.5 "Control Registers"] */
#define CR0_WP    (UINT64_C(1) << 16)
#define CR0_NW    (UINT64_C(1) << 29)
#define CR0_CD    (UINT64_C(1) << 30)
#define CR4_PAE   (UINT64_C(1) << 5)
#define CR4_MCE   (UINT64_C(1) << 6)
#define CR4_PGE   (UINT64_C(1) << 7)
#define CR4_UMIP  (UINT64_C(1) << 11)
#define CR4_LA57  (UINT64_C(1) << 12)
#define CR4_PCIDE (UINT64_C(1) << 17)
#define CR4_SMEP  (UINT64_C(1) << 20)
#define CR4_SMAP  (UINT64_C(1) << 21)

/* EFLAGS. [SDM-1 3.4.3 "EFLAGS Register"] */
#define RFLAGS_IF (UINT64_C(1) << 9)
#define RFLAGS_AC (UINT64_C(1) << 18)

/* Model-specific registers. [SDM-4 2.1 "Architectural MSRs"] */
#define MSR_APIC_BASE      UINT32_C(0x1b)
#define MSR_MTRRCAP        UINT32_C(0xfe)
#define MSR_CAPABILITIES   UINT32_C(0x10a)
#define MSR_MTRR_PHYSBASE0 UINT32_C(0x200) /* 0x202, ...: the next ranges */
#define MSR_MTRR_PHYSMASK0 UINT32_C(0x201)
#define MSR_MTRR_FIX64K    UINT32_C(0x250)
#define MSR_MTRR_FIX16K    UINT32_C(0x258) /* 2 registers */
#define MSR_MTRR_FIX4K     UINT32_C(0x268) /* 8 registers */
#define MSR_PAT            UINT32_C(0x277)
#define MSR_MTRR_DEF_TYPE  UINT32_C(0x2ff)
#define MSR_EFER           UINT32_C(0xc0000080)
#define MSR_GS_BASE        UINT32_C(0xc0000101)
#define EFER_LMA           (UINT64_C(1) << 10) /* read only */
#define EFER_NXE           (UINT64_C(1) << 11)
/* AMD's: what lies between 4 GiB and TOP_MEM2 is RAM, and write-back. */
#define MSR_SYSCFG             UINT32_C(0xc0010010)
#define MSR_TOP_MEM2           UINT32_C(0xc001001d)
#define SYSCFG_TOM2            (UINT64_C(1) << 21)
#define SYSCFG_TOM2_WRITE_BACK (UINT64_C(1) << 22)

/* Where struct percpu, to which GS points, has the processor's number. */
#define CPU_GS_INDEX 8

/* What this processor is and has; zero where CPUID does not say. */
struct cpu_features {
    char vendor[13]; /* "GenuineIntel" */
    char brand[49];  /* "QEMU Virtual CPU version 2.5+", or "" */
    unsigned family; /* with the extended parts added */
    unsigned model;
    unsigned stepping;
    unsigned physical_bits; /* MAXPHYADDR */
    unsigned linear_bits;
    uint32_t max_leaf;
    uint32_t max_extended_leaf;
    bool has_nx;
    bool has_1g;
    bool has_pge;
    bool has_pat;
    bool has_mtrr;
    bool has_pcid;
    bool has_invpcid;
    bool has_smep;
    bool has_smap;
    bool has_umip;
    bool has_la57;
    bool has_apic;
    bool has_x2apic;
    bool has_rdrand;
    bool has_mce;
    bool has_hypervisor;
};

/* (C) after cpu_detect(). */
extern struct cpu_features cpu_features;

/* Read CPUID into cpu_features. Once, first. */
void cpu_detect(void);

/*
 * Turn on every protection the processor has: NX, WP, SMEP, SMAP, UMIP, PGE,
 * machine checks; and give the PAT the layout x86_64/pte.h encodes for.
 * Context: once a processor, after the IDT is loaded.
 */
void cpu_protect(void);

/*
 * The id of this processor's local APIC, as it came out of reset: of 32 bits
 * where CPUID has them, else of 8. Needs no cpu_detect().
 */
uint32_t cpu_apic_id(void);

/* The CPUID leaf that says so: 0xb, id in EDX, or 1, id in EBX[31:24]. */
uint32_t cpu_apic_id_leaf(void);

/* In what a processor is not like the first. */
struct cpu_difference {
    const char *name; /* of a feature or register; NULL: in nothing */
    uint64_t here;
    uint64_t there; /* on the first */
};

/* Compare what this processor has with cpu_features. False: no difference. */
bool cpu_find_difference(struct cpu_difference *out);

/*
 * What cpu_rdtsc() counts here: "instructions" under QEMU's -icount, found
 * out by timing a loop of known length; else "ticks".
 */
const char *cpu_clock_unit(void);

/* Levels of page tables in use, 4 or 5: boot/start.asm has decided. */
unsigned cpu_levels(void);

struct pt_features;

/* What the paging code needs to know. After cpu_protect(). */
void cpu_pt_features(struct pt_features *out);

/* Its errata that the paging code minds: enum pt_quirk. */
unsigned cpu_pt_quirks(void);

/* --- the instructions ----------------------------------------------------- */

struct cpuid {
    uint32_t eax;
    uint32_t ebx;
    uint32_t ecx;
    uint32_t edx;
};

static inline struct cpuid cpu_cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid id;

    __asm__ volatile("cpuid"
                     : "=a"(id.eax), "=b"(id.ebx), "=c"(id.ecx), "=d"(id.edx)
                     : "a"(leaf), "c"(subleaf));
    return id;
}

static inline void cpu_out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t cpu_in8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void cpu_out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint16_t cpu_in16(uint16_t port)
{
    uint16_t value;

    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void cpu_out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint32_t cpu_in32(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint64_t cpu_rdmsr(uint32_t msr)
{
    uint32_t low;
    uint32_t high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return ((uint64_t)high << 32) | low;
}

static inline void cpu_wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value),
                       "d"((uint32_t)(value >> 32))
                     : "memory");
}

static inline uint64_t cpu_read_cr0(void)
{
    uint64_t value;

    __asm__ volatile("mov %%cr0, %0" : "=r"(value) : : "memory");
    return value;
}

static inline uint64_t cpu_read_cr2(void)
{
    uint64_t value;

    __asm__ volatile("mov %%cr2, %0" : "=r"(value) : : "memory");
    return value;
}

static inline uint64_t cpu_read_cr3(void)
{
    uint64_t value;

    __asm__ volatile("mov %%cr3, %0" : "=r"(value) : : "memory");
    return value;
}

static inline uint64_t cpu_read_cr4(void)
{
    uint64_t value;

    __asm__ volatile("mov %%cr4, %0" : "=r"(value) : : "memory");
    return value;
}

static inline void cpu_write_cr0(uint64_t value)
{
    __asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory");
}

static inline void cpu_write_cr4(uint64_t value)
{
    __asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}

/* What LGDT and LIDT read: limit and base. */
struct cpu_table {
    uint16_t limit;
    uint64_t base;
} MM_PACKED;
_Static_assert(sizeof(struct cpu_table) == 10, "as the processor reads it");

static inline void cpu_lgdt(const struct cpu_table *table)
{
    __asm__ volatile("lgdt %0" : : "m"(*table) : "memory");
}

static inline void cpu_lidt(const struct cpu_table *table)
{
    __asm__ volatile("lidt %0" : : "m"(*table) : "memory");
}

static inline struct cpu_table cpu_read_gdt(void)
{
    struct cpu_table table;

    __asm__ volatile("sgdt %0" : "=m"(table));
    return table;
}

static inline struct cpu_table cpu_read_idt(void)
{
    struct cpu_table table;

    __asm__ volatile("sidt %0" : "=m"(table));
    return table;
}

static inline void cpu_ltr(uint16_t selector)
{
    __asm__ volatile("ltr %0" : : "r"(selector) : "memory");
}

/* Load the code segment by a far return, then the data segments. */
static inline void cpu_load_segments(uint16_t code, uint16_t data)
{
    __asm__ volatile("pushq %0\n\t"
                     "leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "lretq\n"
                     "1:\n\t"
                     "movl %1, %%ds\n\t"
                     "movl %1, %%es\n\t"
                     "movl %1, %%ss"
                     :
                     : "r"((uint64_t)code), "r"((uint32_t)data)
                     : "rax", "memory");
}

/*
 * GS points to what this processor has for itself, always at the same: the
 * compiler may read once for twice.
 */
static inline uint64_t cpu_read_gs64(uint64_t offset)
{
    uint64_t value;

    __asm__("movq %%gs:(%1), %0" : "=r"(value) : "r"(offset));
    return value;
}

/*
 * Read as memory if it can be: what inline assembly has loaded gcc would extend
 * to 64 bits again for each use as an index.
 */
static inline uint32_t cpu_gs_index(void)
{
#ifdef MM_GS
    return *(const MM_GS uint32_t *)CPU_GS_INDEX;
#else
    uint32_t value;

    __asm__("movl %%gs:%c1, %0" : "=r"(value) : "i"(CPU_GS_INDEX));
    return value;
#endif
}

/* What stands at @at, or 0 if reading there faults: fixup_apply(). */
static inline uint32_t cpu_peek32(const uint32_t *at)
{
    uint32_t value;

    __asm__ volatile("1:\n\t"
                     "movl %1, %0\n"
                     "2:\n\t"
                     ".pushsection .text.peek, \"ax\"\n"
                     "3:\n\t"
                     "xorl %0, %0\n\t"
                     "jmp 2b\n\t"
                     ".popsection\n\t"
                     ".pushsection fixup_table, \"a\"\n\t"
                     ".balign 8\n\t"
                     ".quad 1b, 3b, 0\n\t"
                     ".popsection"
                     : "=r"(value)
                     : "m"(*at));
    return value;
}

static inline void cpu_irq_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static inline uint64_t cpu_read_flags(void)
{
    uint64_t flags;

    __asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags) : : "memory");
    return flags;
}

/* Interrupts off; the flags as they were, for cpu_irq_restore(). */
static inline uint64_t cpu_irq_save(void)
{
    uint64_t flags = cpu_read_flags();

    cpu_irq_off();
    return flags;
}

static inline void cpu_irq_restore(uint64_t flags)
{
    if ((flags & RFLAGS_IF) != 0) {
        __asm__ volatile("sti" : : : "memory");
    }
}

/*
 * Sleep until an interrupt, take it, and go on with interrupts off. STI lets
 * HLT begin before the first interrupt: none is lost. [SDM-2B STI]
 */
static inline void cpu_wait_for_interrupt(void)
{
    __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
}

/*
 * One turn of a loop that waits for another CPU: take the interrupts that are
 * pending, and go on with interrupts off. STI takes effect after one more
 * instruction, which must not be PAUSE: QEMU 7.2 then forgets to let any in.
 */
static inline void cpu_irq_window(void)
{
    __asm__ volatile("sti\n\tnop\n\tpause\n\tcli" : : : "memory");
}

/* The same without giving the turn away, to measure what is let in. */
static inline void cpu_irq_gap(void)
{
    __asm__ volatile("sti\n\tnop\n\tcli" : : : "memory");
}

static inline void cpu_irq_on(void)
{
    __asm__ volatile("sti" : : : "memory");
}

static inline void cpu_halt(void)
{
    __asm__ volatile("hlt" : : : "memory");
}

static inline void cpu_pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

/*
 * Stores made before are seen by all before what follows: a WRMSR that sends
 * an interrupt does not wait for them. [SDM-3A 11.12.3 "MSR Access in x2APIC
 * Mode"]
 */
static inline void cpu_fence_before_wrmsr(void)
{
    __asm__ volatile("mfence\n\tlfence" : : : "memory");
}

static inline uint64_t cpu_rdtsc(void)
{
    uint32_t low;
    uint32_t high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return ((uint64_t)high << 32) | low;
}

/* Execute exactly 2 * @turns instructions; @turns is not 0. */
static inline void cpu_count_down(uint64_t turns)
{
    __asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(turns) : : "cc", "memory");
}

static inline void cpu_breakpoint(void)
{
    __asm__ volatile("int3" : : : "memory");
}

/* The frame pointer of the caller: where a backtrace starts. */
static inline uint64_t cpu_read_rbp(void)
{
    uint64_t value;

    __asm__ volatile("mov %%rbp, %0" : "=r"(value));
    return value;
}

static inline uint64_t cpu_read_rsp(void)
{
    uint64_t value;

    __asm__ volatile("mov %%rsp, %0" : "=r"(value));
    return value;
}

#endif
