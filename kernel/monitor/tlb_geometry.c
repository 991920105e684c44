/* SPDX-License-Identifier: MIT */
/* tlb_geometry: what CPUID says about the TLBs. Pure. */
/*
 * Idea: three ways to say the same. Intel began with one-byte descriptors
 * (leaf 2), each a row of a table in the manual, and replaced them by counted
 * fields (leaf 0x18). AMD has fields of its own in three extended leaves.
 */
#include "kernel/monitor/tlb_geometry.h"

#define LEAF_VENDOR       UINT32_C(0)
#define LEAF_DESCRIPTORS  UINT32_C(2)
#define LEAF_TRANSLATION  UINT32_C(0x18)
#define LEAF_AMD_L1       UINT32_C(0x80000005)
#define LEAF_AMD_L2       UINT32_C(0x80000006)
#define LEAF_AMD_1G       UINT32_C(0x80000019)
#define VENDOR_INTEL      UINT32_C(0x756e6547) /* "Genu" in EBX */
#define SUBLEAVES_MOST    64
#define DESCRIPTOR_REFERS 0xfe /* and 0xff: see leaf 0x18 */

struct descriptor {
    uint8_t value;
    struct tlb_geometry tlb;
};

/* [SDM-2A CPUID, table "Encoding of CPUID Leaf 2 Descriptors"], TLBs only. */
static const struct descriptor descriptors[] = {
    {0x01, {1, TLB_INSTRUCTION, TLB_4K, 32, 4}},
    {0x02, {1, TLB_INSTRUCTION, TLB_4M, 2, TLB_FULLY}},
    {0x03, {1, TLB_DATA, TLB_4K, 64, 4}},
    {0x04, {1, TLB_DATA, TLB_4M, 8, 4}},
    {0x05, {1, TLB_DATA, TLB_4M, 32, 4}},
    {0x0b, {1, TLB_INSTRUCTION, TLB_4M, 4, 4}},
    {0x4f, {1, TLB_INSTRUCTION, TLB_4K, 32, 0}},
    {0x50, {1, TLB_INSTRUCTION, TLB_4K | TLB_2M | TLB_4M, 64, 0}},
    {0x51, {1, TLB_INSTRUCTION, TLB_4K | TLB_2M | TLB_4M, 128, 0}},
    {0x52, {1, TLB_INSTRUCTION, TLB_4K | TLB_2M | TLB_4M, 256, 0}},
    {0x55, {1, TLB_INSTRUCTION, TLB_2M | TLB_4M, 7, TLB_FULLY}},
    {0x56, {1, TLB_DATA, TLB_4M, 16, 4}},
    {0x57, {1, TLB_DATA, TLB_4K, 16, 4}},
    {0x59, {1, TLB_DATA, TLB_4K, 16, TLB_FULLY}},
    {0x5a, {1, TLB_DATA, TLB_2M | TLB_4M, 32, 4}},
    {0x5b, {1, TLB_DATA, TLB_4K | TLB_4M, 64, 0}},
    {0x5c, {1, TLB_DATA, TLB_4K | TLB_4M, 128, 0}},
    {0x5d, {1, TLB_DATA, TLB_4K | TLB_4M, 256, 0}},
    {0x61, {1, TLB_INSTRUCTION, TLB_4K, 48, TLB_FULLY}},
    {0x63, {1, TLB_DATA, TLB_2M | TLB_4M, 32, 4}},
    {0x64, {1, TLB_DATA, TLB_4K, 512, 4}},
    {0x6a, {1, TLB_DATA, TLB_4K, 64, 8}},
    {0x6b, {1, TLB_DATA, TLB_4K, 256, 8}},
    {0x6c, {1, TLB_DATA, TLB_2M | TLB_4M, 128, 8}},
    {0x6d, {1, TLB_DATA, TLB_1G, 16, TLB_FULLY}},
    {0x76, {1, TLB_INSTRUCTION, TLB_2M | TLB_4M, 8, TLB_FULLY}},
    {0xa0, {1, TLB_DATA, TLB_4K, 32, TLB_FULLY}},
    {0xb0, {1, TLB_INSTRUCTION, TLB_4K, 128, 4}},
    {0xb1, {1, TLB_INSTRUCTION, TLB_2M, 8, 4}},
    {0xb2, {1, TLB_INSTRUCTION, TLB_4K, 64, 4}},
    {0xb3, {1, TLB_DATA, TLB_4K, 128, 4}},
    {0xb4, {2, TLB_DATA, TLB_4K, 256, 4}},
    {0xb5, {1, TLB_INSTRUCTION, TLB_4K, 64, 8}},
    {0xb6, {1, TLB_INSTRUCTION, TLB_4K, 128, 8}},
    {0xba, {1, TLB_DATA, TLB_4K, 64, 4}},
    {0xc0, {1, TLB_DATA, TLB_4K | TLB_4M, 8, 4}},
    {0xc1, {2, TLB_UNIFIED, TLB_4K | TLB_2M, 1024, 8}},
    {0xc2, {1, TLB_DATA, TLB_4K | TLB_2M, 16, 4}},
    {0xc3, {2, TLB_UNIFIED, TLB_4K | TLB_2M, 1536, 6}},
    {0xc4, {1, TLB_DATA, TLB_2M | TLB_4M, 32, 4}},
    {0xca, {2, TLB_UNIFIED, TLB_4K, 512, 4}},
};

/* Rows that come with a second TLB. */
static const struct descriptor descriptors_more[] = {
    {0x63, {1, TLB_DATA, TLB_1G, 4, 4}},
    {0xc3, {2, TLB_UNIFIED, TLB_1G, 16, 4}},
};

struct list {
    struct tlb_geometry *out;
    unsigned count;
};

static void add(struct list *list, struct tlb_geometry tlb)
{
    if (tlb.entries > 0 && list->count < TLB_GEOMETRY_MAX) {
        list->out[list->count] = tlb;
        list->count++;
    }
}

/* --- Intel: leaf 2 -------------------------------------------------------- */

static void add_descriptor(struct list *list, const struct descriptor *table,
                           size_t rows, uint8_t value)
{
    for (size_t i = 0; i < rows; i++) {
        if (table[i].value == value) {
            add(list, table[i].tlb);
        }
    }
}

/* A register is valid if bit 31 is clear; AL is a constant, no descriptor. */
static bool add_register(struct list *list, uint32_t value)
{
    bool refers = false;

    for (unsigned i = 0; i < 4 && (value >> 31) == 0; i++) {
        uint8_t byte = (uint8_t)(value >> (8 * i));

        refers = refers || byte >= DESCRIPTOR_REFERS;
        add_descriptor(list, descriptors,
                       sizeof(descriptors) / sizeof(descriptors[0]), byte);
        add_descriptor(list, descriptors_more,
                       sizeof(descriptors_more) / sizeof(descriptors_more[0]),
                       byte);
    }
    return refers;
}

/* --- Intel: leaf 0x18 ----------------------------------------------------- */

/* EDX[4:0]: 0 ends, 1 data, 2 instruction, 3 unified, 4 load, 5 store. */
static void add_translation(struct list *list, struct tlb_leaf leaf)
{
    static const enum tlb_kind kinds[] = {
        TLB_DATA, TLB_DATA, TLB_INSTRUCTION, TLB_UNIFIED, TLB_DATA, TLB_DATA};
    unsigned type = leaf.edx & 0x1f;
    unsigned ways = leaf.ebx >> 16;

    if (type == 0 || type >= sizeof(kinds) / sizeof(kinds[0])) {
        return;
    }
    struct tlb_geometry tlb = {
        .level = (leaf.edx >> 5) & 7,
        .kind = kinds[type],
        .pages = leaf.ebx & 0xf,
        .entries = ways * leaf.ecx,
        .ways = (leaf.edx & (UINT32_C(1) << 8)) != 0 ? TLB_FULLY : ways,
    };
    add(list, tlb);
}

static void add_translations(struct list *list, tlb_leaf_fn read)
{
    struct tlb_leaf first = read(LEAF_TRANSLATION, 0);
    uint32_t last = first.eax < SUBLEAVES_MOST ? first.eax : SUBLEAVES_MOST;

    add_translation(list, first);
    for (uint32_t subleaf = 1; subleaf <= last; subleaf++) {
        add_translation(list, read(LEAF_TRANSLATION, subleaf));
    }
}

static void add_intel(struct list *list, tlb_leaf_fn read)
{
    struct tlb_leaf leaf = read(LEAF_DESCRIPTORS, 0);
    bool refers = add_register(list, leaf.eax & ~UINT32_C(0xff));

    refers = add_register(list, leaf.ebx) || refers;
    refers = add_register(list, leaf.ecx) || refers;
    refers = add_register(list, leaf.edx) || refers;
    if (refers || list->count == 0) {
        add_translations(list, read);
    }
}

/* --- AMD ------------------------------------------------------------------ */

/* 4-bit codes of associativity. [APM-3 E.4.5 "CPUID Fn8000_0006"] */
static unsigned amd_ways(unsigned code)
{
    static const unsigned ways[16] = {0,  1, 2,  3,  4,  6,  8,   0,
                                      16, 0, 32, 48, 64, 96, 128, TLB_FULLY};

    return ways[code];
}

/* Level 1: entries and ways in a byte each; 0xff is fully associative. */
static void add_amd_l1(struct list *list, uint32_t value, unsigned pages)
{
    unsigned data_ways = value >> 24;
    unsigned code_ways = (value >> 8) & 0xff;

    add(list, (struct tlb_geometry){1, TLB_DATA, pages, (value >> 16) & 0xff,
                                    data_ways == 0xff ? TLB_FULLY : data_ways});
    add(list, (struct tlb_geometry){1, TLB_INSTRUCTION, pages, value & 0xff,
                                    code_ways == 0xff ? TLB_FULLY : code_ways});
}

/* Level 2, and both levels for 1 GiB: 12 bits of entries, a code for ways. */
static void add_amd_pair(struct list *list, uint32_t value, unsigned pages,
                         unsigned level)
{
    uint32_t data = value >> 16;
    uint32_t code = value & 0xffff;

    add(list, (struct tlb_geometry){level, data == 0 ? TLB_UNIFIED : TLB_DATA,
                                    pages, data & 0xfff, amd_ways(data >> 12)});
    /* No data entries: the others hold both. */
    add(list,
        (struct tlb_geometry){level, data == 0 ? TLB_UNIFIED : TLB_INSTRUCTION,
                              pages, code & 0xfff, amd_ways(code >> 12)});
}

static void add_amd(struct list *list, tlb_leaf_fn read)
{
    struct tlb_leaf leaf = read(LEAF_AMD_L1, 0);

    add_amd_l1(list, leaf.ebx, TLB_4K);
    add_amd_l1(list, leaf.eax, TLB_2M | TLB_4M);
    leaf = read(LEAF_AMD_L2, 0);
    add_amd_pair(list, leaf.ebx, TLB_4K, 2);
    add_amd_pair(list, leaf.eax, TLB_2M | TLB_4M, 2);
    leaf = read(LEAF_AMD_1G, 0);
    add_amd_pair(list, leaf.eax, TLB_1G, 1);
    add_amd_pair(list, leaf.ebx, TLB_1G, 2);
}

unsigned tlb_geometry(tlb_leaf_fn read, struct tlb_geometry *out)
{
    struct list list = {out, 0};

    /* Each vendor reserves the leaves of the other. */
    if (read(LEAF_VENDOR, 0).ebx == VENDOR_INTEL) {
        add_intel(&list, read);
    } else {
        add_amd(&list, read);
    }
    return list.count;
}
