/* SPDX-License-Identifier: MIT */
/* cpu: reads CPUID once, then turns on what protects memory. */
#include "kernel/cpu.h"

#include <mm/pt.h>
#include "kernel/lib/string.h"

/* CPUID leaves and their bits. [SDM-2A CPUID], [APM-3 Appendix E] */
#define CPUID_FEATURES          UINT32_C(1)
#define CPUID_1_ECX_PCID        (UINT32_C(1) << 17)
#define CPUID_1_ECX_X2APIC      (UINT32_C(1) << 21)
#define CPUID_1_ECX_RDRAND      (UINT32_C(1) << 30)
#define CPUID_1_ECX_HYPERVISOR  (UINT32_C(1) << 31)
#define CPUID_1_EDX_MCE         (UINT32_C(1) << 7)
#define CPUID_1_EDX_MTRR        (UINT32_C(1) << 12)
#define CPUID_1_EDX_PGE         (UINT32_C(1) << 13)
#define CPUID_1_EDX_PAT         (UINT32_C(1) << 16)
#define CPUID_STRUCTURED        UINT32_C(7)
#define CPUID_7_EBX_SMEP        (UINT32_C(1) << 7)
#define CPUID_7_EBX_INVPCID     (UINT32_C(1) << 10)
#define CPUID_7_EBX_SMAP        (UINT32_C(1) << 20)
#define CPUID_7_ECX_UMIP        (UINT32_C(1) << 2)
#define CPUID_7_ECX_LA57        (UINT32_C(1) << 16)
#define CPUID_EXTENDED          UINT32_C(0x80000000)
#define CPUID_EXTENDED_FEATURES UINT32_C(0x80000001)
#define CPUID_EXTENDED_1_EDX_NX (UINT32_C(1) << 20)
#define CPUID_EXTENDED_1_EDX_1G (UINT32_C(1) << 26)
#define CPUID_BRAND             UINT32_C(0x80000002)
#define CPUID_BRAND_LEAVES      3
#define CPUID_ADDRESS_BITS      UINT32_C(0x80000008)

/* Where leaf 0x80000008 is missing. [SDM-3A 4.1.4 "Enumeration of Paging
 * Features by CPUID"] */
#define FALLBACK_PHYSICAL_BITS 36
#define FALLBACK_LINEAR_BITS   48

struct cpu_features cpu_features;

/* Zeroes for a leaf the processor does not have. */
static struct cpuid read_leaf(uint32_t leaf)
{
    uint32_t max = leaf >= CPUID_EXTENDED ? cpu_features.max_extended_leaf
                                          : cpu_features.max_leaf;

    if (leaf > max) {
        return (struct cpuid){0};
    }
    return cpu_cpuid(leaf, 0);
}

static void read_vendor(void)
{
    struct cpuid id = cpu_cpuid(0, 0);

    cpu_features.max_leaf = id.eax;
    memcpy(cpu_features.vendor, &id.ebx, 4);
    memcpy(cpu_features.vendor + 4, &id.edx, 4);
    memcpy(cpu_features.vendor + 8, &id.ecx, 4);
    cpu_features.max_extended_leaf = cpu_cpuid(CPUID_EXTENDED, 0).eax;
}

/* The brand string is padded with blanks in front on many models. */
static void read_brand(void)
{
    char text[sizeof(cpu_features.brand)] = {0};
    const char *start = text;

    for (uint32_t i = 0; i < CPUID_BRAND_LEAVES; i++) {
        struct cpuid id = read_leaf(CPUID_BRAND + i);
        memcpy(text + i * sizeof(id), &id, sizeof(id));
    }
    while (*start == ' ') {
        start++;
    }
    memcpy(cpu_features.brand, start, strlen(start));
}

/* [SDM-2A CPUID, "Processor Signature"] */
static void read_signature(uint32_t eax)
{
    unsigned family = (eax >> 8) & 0xf;
    unsigned model = (eax >> 4) & 0xf;

    if (family == 0x6 || family == 0xf) {
        model |= ((eax >> 16) & 0xf) << 4;
    }
    if (family == 0xf) {
        family += (eax >> 20) & 0xff;
    }
    cpu_features.family = family;
    cpu_features.model = model;
    cpu_features.stepping = eax & 0xf;
}

static void read_basic(void)
{
    struct cpuid id = read_leaf(CPUID_FEATURES);
    struct cpuid more = read_leaf(CPUID_STRUCTURED);

    read_signature(id.eax);
    cpu_features.apic_id = id.ebx >> 24;
    cpu_features.has_pcid = (id.ecx & CPUID_1_ECX_PCID) != 0;
    cpu_features.has_x2apic = (id.ecx & CPUID_1_ECX_X2APIC) != 0;
    cpu_features.has_rdrand = (id.ecx & CPUID_1_ECX_RDRAND) != 0;
    cpu_features.has_hypervisor = (id.ecx & CPUID_1_ECX_HYPERVISOR) != 0;
    cpu_features.has_mce = (id.edx & CPUID_1_EDX_MCE) != 0;
    cpu_features.has_mtrr = (id.edx & CPUID_1_EDX_MTRR) != 0;
    cpu_features.has_pge = (id.edx & CPUID_1_EDX_PGE) != 0;
    cpu_features.has_pat = (id.edx & CPUID_1_EDX_PAT) != 0;
    cpu_features.has_smep = (more.ebx & CPUID_7_EBX_SMEP) != 0;
    cpu_features.has_invpcid = (more.ebx & CPUID_7_EBX_INVPCID) != 0;
    cpu_features.has_smap = (more.ebx & CPUID_7_EBX_SMAP) != 0;
    cpu_features.has_umip = (more.ecx & CPUID_7_ECX_UMIP) != 0;
    cpu_features.has_la57 = (more.ecx & CPUID_7_ECX_LA57) != 0;
}

static void read_extended(void)
{
    struct cpuid id = read_leaf(CPUID_EXTENDED_FEATURES);
    struct cpuid bits = read_leaf(CPUID_ADDRESS_BITS);

    cpu_features.has_nx = (id.edx & CPUID_EXTENDED_1_EDX_NX) != 0;
    cpu_features.has_1g = (id.edx & CPUID_EXTENDED_1_EDX_1G) != 0;
    cpu_features.physical_bits = bits.eax & 0xff;
    cpu_features.linear_bits = (bits.eax >> 8) & 0xff;
    if (cpu_features.physical_bits == 0) {
        cpu_features.physical_bits = FALLBACK_PHYSICAL_BITS;
        cpu_features.linear_bits = FALLBACK_LINEAR_BITS;
    }
}

void cpu_detect(void)
{
    read_vendor();
    read_brand();
    read_basic();
    read_extended();
}

void cpu_protect(void)
{
    uint64_t cr4 = cpu_read_cr4();

    if (cpu_features.has_nx) {
        cpu_wrmsr(MSR_EFER, cpu_rdmsr(MSR_EFER) | EFER_NXE);
    }
    /*
     * Read-only pages bind the kernel too [SDM-3A 4.6 "Access Rights"]. Bochs
     * starts with caches off, as the processor does after reset; memory types
     * count only with them on [SDM-3A 12.5.1 "Cache Control Registers..."].
     */
    cpu_write_cr0((cpu_read_cr0() | CR0_WP) & ~(CR0_CD | CR0_NW));
    if (cpu_features.has_pat) {
        cpu_wrmsr(MSR_PAT, PTE_PAT_LAYOUT);
    }
    cr4 |= cpu_features.has_mce ? CR4_MCE : 0;
    cr4 |= cpu_features.has_umip ? CR4_UMIP : 0;
    cr4 |= cpu_features.has_smep ? CR4_SMEP : 0;
    cr4 |= cpu_features.has_smap ? CR4_SMAP : 0;
    /*
     * A change of CR4.PGE forgets every translation [SDM-3A 4.10.4.1
     * "Operations that Invalidate TLBs and Paging-Structure Caches"], so the
     * write that sets it comes last: none made under the old PAT survives.
     */
    cpu_write_cr4(cr4);
    cpu_write_cr4(cr4 | (cpu_features.has_pge ? CR4_PGE : 0));
}

void cpu_pt_features(struct pt_features *out)
{
    uint64_t cr4 = cpu_read_cr4();

    *out = (struct pt_features){
        .levels = (cr4 & CR4_LA57) != 0 ? 5 : 4,
        .physical_bits = cpu_features.physical_bits,
        .has_nx = cpu_features.has_nx,
        .has_1g = cpu_features.has_1g,
        .has_global = (cr4 & CR4_PGE) != 0,
    };
}

/* The cost of @turns turns and of whatever lies around them. */
static uint64_t time_of(uint64_t turns)
{
    uint64_t start = cpu_rdtsc();

    cpu_count_down(turns);
    return cpu_rdtsc() - start;
}

const char *cpu_clock_unit(void)
{
    /* What lies around them is the same in both. */
    return time_of(2000) - time_of(1000) == 2 * 1000 ? "instructions" : "ticks";
}
