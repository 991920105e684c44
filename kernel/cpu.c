/* SPDX-License-Identifier: MIT */
/* cpu: reads CPUID once, then turns on what protects memory. */
#include "kernel/cpu.h"

#include <mm/pt.h>
#include "kernel/lib/string.h"

/* CPUID leaves and their bits. [SDM-2A CPUID], [APM-3 Appendix E] */
#define CPUID_FEATURES           UINT32_C(1)
#define CPUID_1_ECX_PCID         (UINT32_C(1) << 17)
#define CPUID_1_ECX_X2APIC       (UINT32_C(1) << 21)
#define CPUID_1_ECX_RDRAND       (UINT32_C(1) << 30)
#define CPUID_1_ECX_HYPERVISOR   (UINT32_C(1) << 31)
#define CPUID_1_EDX_MCE          (UINT32_C(1) << 7)
#define CPUID_1_EDX_APIC         (UINT32_C(1) << 9)
#define CPUID_1_EDX_MTRR         (UINT32_C(1) << 12)
#define CPUID_1_EDX_PGE          (UINT32_C(1) << 13)
#define CPUID_1_EDX_PAT          (UINT32_C(1) << 16)
#define CPUID_STRUCTURED         UINT32_C(7)
#define CPUID_7_EBX_SMEP         (UINT32_C(1) << 7)
#define CPUID_7_EBX_INVPCID      (UINT32_C(1) << 10)
#define CPUID_7_EBX_SMAP         (UINT32_C(1) << 20)
#define CPUID_7_ECX_UMIP         (UINT32_C(1) << 2)
#define CPUID_7_ECX_LA57         (UINT32_C(1) << 16)
#define CPUID_7_EDX_CAPABILITIES (UINT32_C(1) << 29)
#define CPUID_TOPOLOGY           UINT32_C(0xb)
#define CPUID_EXTENDED           UINT32_C(0x80000000)
#define CPUID_EXTENDED_FEATURES  UINT32_C(0x80000001)
#define CPUID_EXTENDED_1_EDX_NX  (UINT32_C(1) << 20)
#define CPUID_EXTENDED_1_EDX_1G  (UINT32_C(1) << 26)
#define CPUID_BRAND              UINT32_C(0x80000002)
#define CPUID_BRAND_LEAVES       3
#define CPUID_ADDRESS_BITS       UINT32_C(0x80000008)

/* Where leaf 0x80000008 is missing. [SDM-3A 4.1.4 "Enumeration of Paging
 * Features by CPUID"] */
#define FALLBACK_PHYSICAL_BITS 36
#define FALLBACK_LINEAR_BITS   48

struct cpu_features cpu_features;

/* Zeroes for a leaf the processor does not have. */
static struct cpuid read_leaf(const struct cpu_features *out, uint32_t leaf)
{
    uint32_t max =
        leaf >= CPUID_EXTENDED ? out->max_extended_leaf : out->max_leaf;

    if (leaf > max) {
        return (struct cpuid){0};
    }
    return cpu_cpuid(leaf, 0);
}

static void read_vendor(struct cpu_features *out)
{
    struct cpuid id = cpu_cpuid(0, 0);

    out->max_leaf = id.eax;
    memcpy(out->vendor, &id.ebx, 4);
    memcpy(out->vendor + 4, &id.edx, 4);
    memcpy(out->vendor + 8, &id.ecx, 4);
    out->max_extended_leaf = cpu_cpuid(CPUID_EXTENDED, 0).eax;
}

/* The brand string is padded with blanks in front on many models. */
static void read_brand(struct cpu_features *out)
{
    char text[sizeof(out->brand)] = {0};
    const char *start = text;

    for (uint32_t i = 0; i < CPUID_BRAND_LEAVES; i++) {
        struct cpuid id = read_leaf(out, CPUID_BRAND + i);
        memcpy(text + i * sizeof(id), &id, sizeof(id));
    }
    while (*start == ' ') {
        start++;
    }
    memcpy(out->brand, start, strlen(start));
}

/* [SDM-2A CPUID, "Processor Signature"] */
static void read_signature(struct cpu_features *out, uint32_t eax)
{
    unsigned family = (eax >> 8) & 0xf;
    unsigned model = (eax >> 4) & 0xf;

    if (family == 0x6 || family == 0xf) {
        model |= ((eax >> 16) & 0xf) << 4;
    }
    if (family == 0xf) {
        family += (eax >> 20) & 0xff;
    }
    out->family = family;
    out->model = model;
    out->stepping = eax & 0xf;
}

static void read_basic(struct cpu_features *out)
{
    struct cpuid id = read_leaf(out, CPUID_FEATURES);
    struct cpuid more = read_leaf(out, CPUID_STRUCTURED);

    read_signature(out, id.eax);
    out->has_pcid = (id.ecx & CPUID_1_ECX_PCID) != 0;
    out->has_apic = (id.edx & CPUID_1_EDX_APIC) != 0;
    out->has_x2apic = (id.ecx & CPUID_1_ECX_X2APIC) != 0;
    out->has_rdrand = (id.ecx & CPUID_1_ECX_RDRAND) != 0;
    out->has_hypervisor = (id.ecx & CPUID_1_ECX_HYPERVISOR) != 0;
    out->has_mce = (id.edx & CPUID_1_EDX_MCE) != 0;
    out->has_mtrr = (id.edx & CPUID_1_EDX_MTRR) != 0;
    out->has_pge = (id.edx & CPUID_1_EDX_PGE) != 0;
    out->has_pat = (id.edx & CPUID_1_EDX_PAT) != 0;
    out->has_smep = (more.ebx & CPUID_7_EBX_SMEP) != 0;
    out->has_invpcid = (more.ebx & CPUID_7_EBX_INVPCID) != 0;
    out->has_smap = (more.ebx & CPUID_7_EBX_SMAP) != 0;
    out->has_umip = (more.ecx & CPUID_7_ECX_UMIP) != 0;
    out->has_la57 = (more.ecx & CPUID_7_ECX_LA57) != 0;
}

static void read_extended(struct cpu_features *out)
{
    struct cpuid id = read_leaf(out, CPUID_EXTENDED_FEATURES);
    struct cpuid bits = read_leaf(out, CPUID_ADDRESS_BITS);

    out->has_nx = (id.edx & CPUID_EXTENDED_1_EDX_NX) != 0;
    out->has_1g = (id.edx & CPUID_EXTENDED_1_EDX_1G) != 0;
    out->physical_bits = bits.eax & 0xff;
    out->linear_bits = (bits.eax >> 8) & 0xff;
    if (out->physical_bits == 0) {
        out->physical_bits = FALLBACK_PHYSICAL_BITS;
        out->linear_bits = FALLBACK_LINEAR_BITS;
    }
}

static void detect(struct cpu_features *out)
{
    read_vendor(out);
    read_brand(out);
    read_basic(out);
    read_extended(out);
}

void cpu_detect(void)
{
    detect(&cpu_features);
}

uint32_t cpu_apic_id_leaf(void)
{
    if (cpu_cpuid(0, 0).eax < CPUID_TOPOLOGY ||
        cpu_cpuid(CPUID_TOPOLOGY, 0).ebx == 0) {
        return CPUID_FEATURES;
    }
    return CPUID_TOPOLOGY;
}

uint32_t cpu_apic_id(void)
{
    uint32_t leaf = cpu_apic_id_leaf();
    struct cpuid id = cpu_cpuid(leaf, 0);

    return leaf == CPUID_TOPOLOGY ? id.edx : id.ebx >> 24;
}

bool cpu_find_difference(struct cpu_difference *out)
{
    const struct cpu_features *first = &cpu_features;
    struct cpu_features mine = {0};

    detect(&mine);
    const struct cpu_difference feature[] = {
        {"NX", mine.has_nx, first->has_nx},
        {"pages of 1 GiB", mine.has_1g, first->has_1g},
        {"PGE", mine.has_pge, first->has_pge},
        {"PAT", mine.has_pat, first->has_pat},
        {"PCID", mine.has_pcid, first->has_pcid},
        {"INVPCID", mine.has_invpcid, first->has_invpcid},
        {"SMEP", mine.has_smep, first->has_smep},
        {"SMAP", mine.has_smap, first->has_smap},
        {"UMIP", mine.has_umip, first->has_umip},
        {"MCE", mine.has_mce, first->has_mce},
        {"LA57", mine.has_la57, first->has_la57},
        {"x2APIC", mine.has_x2apic, first->has_x2apic},
        {"MAXPHYADDR", mine.physical_bits, first->physical_bits},
    };

    for (size_t i = 0; i < sizeof(feature) / sizeof(feature[0]); i++) {
        if (feature[i].here != feature[i].there) {
            *out = feature[i];
            return true;
        }
    }
    return false;
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

unsigned cpu_levels(void)
{
    return (cpu_read_cr4() & CR4_LA57) != 0 ? 5 : 4;
}

void cpu_pt_features(struct pt_features *out)
{
    *out = (struct pt_features){
        .levels = cpu_levels(),
        .physical_bits = cpu_features.physical_bits,
        .has_nx = cpu_features.has_nx,
        .has_1g = cpu_features.has_1g,
        .has_global = (cpu_read_cr4() & CR4_PGE) != 0,
    };
}

/* AMD's families with erratum 383. */
#define FAMILY_10H 0x10
#define FAMILY_12H 0x12

/* In MSR_CAPABILITIES: no speculation past P=0. */
#define CAPABILITY_RDCL_NO (UINT64_C(1) << 0)
/* A change of page size is safe for fetches of code. */
#define CAPABILITY_PSCHANGE_MC_NO (UINT64_C(1) << 6)

/* Intel's say by @bit when they lack an erratum; those that say nothing may. */
static bool may_have(uint64_t bit)
{
    if (strcmp(cpu_features.vendor, "GenuineIntel") != 0) {
        return false;
    }
    struct cpuid more = read_leaf(&cpu_features, CPUID_STRUCTURED);
    return (more.edx & CPUID_7_EDX_CAPABILITIES) == 0 ||
           (cpu_rdmsr(MSR_CAPABILITIES) & bit) == 0;
}

unsigned cpu_pt_quirks(void)
{
    unsigned family = cpu_features.family;
    unsigned quirks =
        may_have(CAPABILITY_PSCHANGE_MC_NO) ? PT_QUIRK_MULTIHIT : 0;

    quirks |= may_have(CAPABILITY_RDCL_NO) ? PT_QUIRK_L1TF : 0;
    if (strcmp(cpu_features.vendor, "AuthenticAMD") == 0 &&
        (family == FAMILY_10H || family == FAMILY_12H)) {
        quirks |= PT_QUIRK_MULTIMATCH;
    }
    return quirks;
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
