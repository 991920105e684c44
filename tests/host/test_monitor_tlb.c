/* SPDX-License-Identifier: MIT */
/* monitor tlb: what CPUID says about TLBs, decoded for known processors. */
#include "kernel/monitor/tlb_geometry.h"

#include <string.h>

#include "tests/shared/test.h"

/*
 * At risk: fields of CPUID leaves mixed up, a leaf of the wrong vendor
 * believed, an endless list. Provoked by the values of real processors and by
 * random ones.
 */

struct row {
    uint32_t leaf;
    uint32_t subleaf;
    struct tlb_leaf value;
};

static const struct row *rows;
static size_t row_count;

static struct tlb_leaf read_row(uint32_t leaf, uint32_t subleaf)
{
    for (size_t i = 0; i < row_count; i++) {
        if (rows[i].leaf == leaf && rows[i].subleaf == subleaf) {
            return rows[i].value;
        }
    }
    return (struct tlb_leaf){0};
}

static struct tlb_geometry found[TLB_GEOMETRY_MAX];

static unsigned decode(const struct row *table, size_t count)
{
    rows = table;
    row_count = count;
    return tlb_geometry(read_row, found);
}
#define DECODE(table) decode(table, sizeof(table) / sizeof(table[0]))

static bool is(unsigned index, unsigned level, enum tlb_kind kind,
               unsigned pages, unsigned entries, unsigned ways)
{
    const struct tlb_geometry *tlb = &found[index];

    return tlb->level == level && tlb->kind == kind && tlb->pages == pages &&
           tlb->entries == entries && tlb->ways == ways;
}

#define INTEL                                                                  \
    {                                                                          \
        0, 0,                                                                  \
        {                                                                      \
            0x18, 0x756e6547, 0x6c65746e, 0x49656e69                           \
        }                                                                      \
    }
#define AMD                                                                    \
    {                                                                          \
        0, 0,                                                                  \
        {                                                                      \
            0x10, 0x68747541, 0x444d4163, 0x69746e65                           \
        }                                                                      \
    }

/* Core 2 Duo: 05 b0 b1 56 57 in leaf 2, among caches. */
TEST(tlb_geometry, descriptors_of_a_core_2)
{
    static const struct row table[] = {
        INTEL,
        {2, 0, {0x05b0b101, 0x005657f0, 0, 0x2cb43049}},
    };

    CHECK_EQUAL(DECODE(table), 6);
    CHECK(is(0, 1, TLB_INSTRUCTION, TLB_2M, 8, 4));
    CHECK(is(1, 1, TLB_INSTRUCTION, TLB_4K, 128, 4));
    CHECK(is(2, 1, TLB_DATA, TLB_4M, 32, 4));
    CHECK(is(3, 1, TLB_DATA, TLB_4K, 16, 4));
    CHECK(is(4, 1, TLB_DATA, TLB_4M, 16, 4));
    CHECK(is(5, 2, TLB_DATA, TLB_4K, 256, 4));
}

/* Skylake: 63 (two TLBs), 76, b5, c3 (two). AL is no descriptor. */
TEST(tlb_geometry, descriptors_of_a_skylake)
{
    static const struct row table[] = {
        INTEL,
        {2, 0, {0x76036301, 0x00f0b5ff, 0, 0x00c30000}},
    };

    CHECK_EQUAL(DECODE(table), 7);
    CHECK(is(0, 1, TLB_DATA, TLB_2M | TLB_4M, 32, 4));
    CHECK(is(1, 1, TLB_DATA, TLB_1G, 4, 4));
    CHECK(is(2, 1, TLB_DATA, TLB_4K, 64, 4));
    CHECK(is(3, 1, TLB_INSTRUCTION, TLB_2M | TLB_4M, 8, TLB_FULLY));
    CHECK(is(4, 1, TLB_INSTRUCTION, TLB_4K, 64, 8));
    CHECK(is(5, 2, TLB_UNIFIED, TLB_4K | TLB_2M, 1536, 6));
    CHECK(is(6, 2, TLB_UNIFIED, TLB_1G, 16, 4));
}

/* A register with bit 31 set says nothing. */
TEST(tlb_geometry, invalid_registers_are_skipped)
{
    static const struct row table[] = {
        INTEL,
        {2, 0, {0x80b0b101, 0x80005657, 0x00000003, 0}},
    };

    CHECK_EQUAL(DECODE(table), 1);
    CHECK(is(0, 1, TLB_DATA, TLB_4K, 64, 4));
}

/* Ice Lake and later: descriptor 0xff or 0xfe sends on to leaf 0x18. */
TEST(tlb_geometry, leaf_18_counts_ways_and_sets)
{
    static const struct row table[] = {
        INTEL,
        {2, 0, {0x00feff01, 0x000000f0, 0, 0}},
        {0x18, 0, {4, 0, 0, 0}},
        {0x18, 1, {0, 0x00080001, 8, 0x22}},
        {0x18, 2, {0, 0x00080006, 2, 0x22}},
        {0x18, 3, {0, 0x00100001, 1, 0x121}},
        {0x18, 4, {0, 0x00080007, 128, 0x43}},
    };

    CHECK_EQUAL(DECODE(table), 4);
    CHECK(is(0, 1, TLB_INSTRUCTION, TLB_4K, 64, 8));
    CHECK(is(1, 1, TLB_INSTRUCTION, TLB_2M | TLB_4M, 16, 8));
    CHECK(is(2, 1, TLB_DATA, TLB_4K, 16, TLB_FULLY));
    CHECK(is(3, 2, TLB_UNIFIED, TLB_4K | TLB_2M | TLB_4M, 1024, 8));
}

/* Zen 2: 64 entries at level 1, 2048 and 1024 at level 2. */
TEST(tlb_geometry, fields_of_a_zen)
{
    static const struct row table[] = {
        AMD,
        {2, 0, {0x05b0b101, 0, 0, 0}}, /* not AMD's to use */
        {0x80000005, 0, {0xff40ff40, 0xff40ff40, 0, 0}},
        {0x80000006, 0, {0x48002200, 0x68004200, 0, 0}},
        {0x80000019, 0, {0xf040f040, 0x00000000, 0, 0}},
    };

    CHECK_EQUAL(DECODE(table), 10);
    CHECK(is(0, 1, TLB_DATA, TLB_4K, 64, TLB_FULLY));
    CHECK(is(3, 1, TLB_INSTRUCTION, TLB_2M | TLB_4M, 64, TLB_FULLY));
    CHECK(is(4, 2, TLB_DATA, TLB_4K, 2048, 8));
    CHECK(is(5, 2, TLB_INSTRUCTION, TLB_4K, 512, 4));
    CHECK(is(6, 2, TLB_DATA, TLB_2M | TLB_4M, 2048, 4));
    CHECK(is(7, 2, TLB_INSTRUCTION, TLB_2M | TLB_4M, 512, 2));
    CHECK(is(8, 1, TLB_DATA, TLB_1G, 64, TLB_FULLY));
    CHECK(is(9, 1, TLB_INSTRUCTION, TLB_1G, 64, TLB_FULLY));
}

/* No data half: the TLB is unified. */
TEST(tlb_geometry, a_unified_level_2_of_amd)
{
    static const struct row table[] = {
        AMD,
        {0x80000006, 0, {0, 0x00004200, 0, 0}},
    };

    CHECK_EQUAL(DECODE(table), 1);
    CHECK(is(0, 2, TLB_UNIFIED, TLB_4K, 512, 4));
}

TEST(tlb_geometry, silence_is_an_empty_list)
{
    static const struct row intel[] = {INTEL};
    static const struct row amd[] = {AMD};

    CHECK_EQUAL(DECODE(intel), 0);
    CHECK_EQUAL(DECODE(amd), 0);
}

static struct test_random noise;

static struct tlb_leaf read_noise(uint32_t leaf, uint32_t subleaf)
{
    bool is_intel = leaf == 0 && test_random_below(&noise, 2) == 0;

    (void)subleaf;
    return (struct tlb_leaf){
        (uint32_t)test_random_next(&noise),
        is_intel ? 0x756e6547 : (uint32_t)test_random_next(&noise),
        (uint32_t)test_random_next(&noise), (uint32_t)test_random_next(&noise)};
}

TEST(tlb_geometry, noise_gives_a_bounded_list)
{
    test_random_init(&noise, test_seed());
    for (unsigned turn = 0; turn < 20000; turn++) {
        unsigned count = tlb_geometry(read_noise, found);
        CHECK(count <= TLB_GEOMETRY_MAX);
        for (unsigned i = 0; i < count; i++) {
            CHECK(found[i].entries > 0);
            CHECK(found[i].kind <= TLB_UNIFIED);
        }
    }
}
