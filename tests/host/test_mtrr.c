/* SPDX-License-Identifier: MIT */
/* mtrr: types by address and by page, beside a second account of the rules. */
/*
 * At risk: a memory type that is told wrongly sends its reader after a device
 * that works, or past one that does not. Provoked by random registers, for
 * which each page is judged by the manual's words once more; by registers as
 * firmware leaves them; and by all combinations with what the page says.
 */
#include "kernel/mtrr.h"

#include "base/bits.h"
#include "kernel/cpu.h"
#include "tests/shared/test.h"
#include "x86_64/pte.h"

#define ENABLED   (UINT64_C(1) << 11) /* in the default type, and in a mask */
#define FIXED_ON  (UINT64_C(1) << 10)
#define ADDRESSES ((UINT64_C(1) << 40) - 1)

static struct mtrr mtrr;

static bool is_type(uint64_t address, uint64_t bytes, enum memory_type type)
{
    return mtrr_type(&mtrr, paddr_of(address), bytes) == type;
}

/* --- reading -------------------------------------------------------------- */

static uint64_t register_value(uint32_t msr)
{
    switch (msr) {
    case MSR_MTRRCAP:
        return 0x508;
    case MSR_MTRR_DEF_TYPE:
        return ENABLED | FIXED_ON | MEMORY_WB;
    case MSR_SYSCFG:
        return SYSCFG_TOM2 | SYSCFG_TOM2_WRITE_BACK;
    default:
        return msr;
    }
}

static uint64_t too_many(uint32_t msr)
{
    return msr == MSR_MTRRCAP ? 0xff : msr;
}

TEST(mtrr, registers_are_read_where_they_are)
{
    mtrr_read(register_value, false, &mtrr);
    CHECK_EQUAL(mtrr.variable_count, 8);
    CHECK_EQUAL(mtrr.variable[0].base, 0x200);
    CHECK_EQUAL(mtrr.variable[7].mask, 0x20f);
    CHECK_EQUAL(mtrr.fixed[0], 0x250);
    CHECK_EQUAL(mtrr.fixed[2], 0x259);
    CHECK_EQUAL(mtrr.fixed[3], 0x268);
    CHECK_EQUAL(mtrr.fixed[10], 0x26f);
    CHECK_EQUAL(mtrr.write_back_end, 0);
    mtrr_read(register_value, true, &mtrr);
    CHECK_EQUAL(mtrr.write_back_end, MSR_TOP_MEM2);
    mtrr_read(too_many, true, &mtrr);
    CHECK_EQUAL(mtrr.variable_count, MTRR_VARIABLE_MAX);
    CHECK_EQUAL(mtrr.fixed[0], 0);
    CHECK_EQUAL(mtrr.write_back_end, 0);
}

/* --- examples ------------------------------------------------------------- */

TEST(mtrr, switched_off_everything_is_uncached)
{
    mtrr = (struct mtrr){.default_type = MEMORY_WB};
    CHECK(is_type(0, GiB, MEMORY_UC));
}

/* A PC with 4 GiB: all is write-back but the hole below 4 GiB. */
TEST(mtrr, ranges_as_firmware_leaves_them)
{
    mtrr = (struct mtrr){
        .capabilities = 0x508,
        .default_type = ENABLED | FIXED_ON | MEMORY_WB,
        .variable = {{0xc0000000 | MEMORY_UC,
                      (ADDRESSES & ~UINT64_C(0x3fffffff)) | ENABLED}},
        .variable_count = 8};
    for (unsigned i = 0; i < MTRR_FIXED; i++) {
        mtrr.fixed[i] = UINT64_C(0x0606060606060606);
    }
    mtrr.fixed[2] = 0; /* the VGA's window, 0xa0000 */
    CHECK(is_type(0, PAGE_BYTES, MEMORY_WB));
    CHECK(is_type(0x9f000, PAGE_BYTES, MEMORY_WB));
    CHECK(is_type(0xa0000, PAGE_BYTES, MEMORY_UC));
    CHECK(is_type(0xc0000, PAGE_BYTES, MEMORY_WB));
    CHECK(is_type(0, 2 * MiB, MEMORY_MIXED));
    CHECK(is_type(2 * MiB, 2 * MiB, MEMORY_WB));
    CHECK(is_type(3 * GiB, GiB, MEMORY_UC));
    CHECK(is_type(3 * GiB - PAGE_BYTES, PAGE_BYTES, MEMORY_WB));
    CHECK(is_type(2 * GiB, 2 * GiB, MEMORY_MIXED));
    mtrr.fixed[2] = UINT64_C(0x0606060606060606);
    CHECK(is_type(0, GiB, MEMORY_WB));
}

TEST(mtrr, amd_has_ram_above_4_gib_without_a_range)
{
    mtrr = (struct mtrr){.default_type = ENABLED | MEMORY_UC,
                         .write_back_end = 6 * GiB + 2 * MiB};
    CHECK(is_type(4 * GiB - PAGE_BYTES, PAGE_BYTES, MEMORY_UC));
    CHECK(is_type(4 * GiB, GiB, MEMORY_WB));
    CHECK(is_type(6 * GiB, 2 * MiB, MEMORY_WB));
    CHECK(is_type(6 * GiB, GiB, MEMORY_MIXED));
    CHECK(is_type(6 * GiB + 2 * MiB, 2 * MiB, MEMORY_UC));
}

/* --- by address, once more ------------------------------------------------ */

static enum memory_type fixed_again(uint64_t address)
{
    unsigned range = address < 0x80000 ? (unsigned)(address >> 16)
                     : address < 0xc0000
                         ? 8 + (unsigned)((address >> 14) & 15)
                         : 24 + (unsigned)((address >> 12) & 63);

    return (enum memory_type)((mtrr.fixed[range / 8] >> (range % 8 * 8)) & 7);
}

/* Of one page: which types its ranges have, as a set, and what they make. */
static enum memory_type type_again(uint64_t address)
{
    unsigned set = 0;

    if ((mtrr.default_type & ENABLED) == 0) {
        return MEMORY_UC;
    }
    if (address < MiB && (mtrr.capabilities & 0x100) != 0 &&
        (mtrr.default_type & FIXED_ON) != 0) {
        return fixed_again(address);
    }
    for (unsigned i = 0; i < mtrr.variable_count; i++) {
        uint64_t mask = mtrr.variable[i].mask;
        uint64_t base = mtrr.variable[i].base;

        if ((mask & ENABLED) != 0 &&
            ((address & mask) >> 12) == ((base & mask) >> 12)) {
            set |= 1u << (base & 7);
        }
    }
    if (set == 0) {
        bool is_ram = address >= 4 * GiB && address < mtrr.write_back_end;
        return is_ram ? MEMORY_WB : (enum memory_type)(mtrr.default_type & 7);
    }
    if ((set & 1u << MEMORY_UC) != 0) {
        return MEMORY_UC;
    }
    if (set == (1u << MEMORY_WT | 1u << MEMORY_WB)) {
        return MEMORY_WT;
    }
    for (unsigned type = 0; type < 8; type++) {
        if (set == 1u << type) {
            return (enum memory_type)type;
        }
    }
    return MEMORY_UNDEFINED;
}

static enum memory_type block_again(uint64_t address, uint64_t bytes)
{
    enum memory_type type = type_again(address);

    for (uint64_t at = address; at < address + bytes; at += PAGE_BYTES) {
        if (type_again(at) != type) {
            return MEMORY_MIXED;
        }
    }
    return type;
}

static struct test_random source;

static uint64_t below(uint64_t limit)
{
    return test_random_below(&source, limit);
}

static uint64_t random_type(void)
{
    static const uint64_t type[] = {MEMORY_UC, MEMORY_WC, MEMORY_WT,
                                    MEMORY_WP, MEMORY_WB, MEMORY_WB};

    return type[below(6)];
}

static void random_registers(void)
{
    mtrr = (struct mtrr){
        .capabilities = below(4) == 0 ? 0 : 0x100,
        .default_type = random_type() | (below(16) == 0 ? 0 : ENABLED) |
                        (below(4) == 0 ? 0 : FIXED_ON),
        .variable_count = (unsigned)below(5),
        .write_back_end = below(2) * (4 * GiB + below(64) * 32 * MiB)};
    bool is_fixed_alike = below(2) == 0;
    for (unsigned i = 0; i < MTRR_FIXED * 8; i++) {
        uint64_t type = is_fixed_alike ? MEMORY_WB : random_type();
        mtrr.fixed[i / 8] |= type << (i % 8 * 8);
    }
    for (unsigned i = 0; i < mtrr.variable_count; i++) {
        uint64_t bytes = PAGE_BYTES << below(21);
        uint64_t holes = below(8) == 0 ? PAGE_BYTES << below(20) : 0;

        mtrr.variable[i] = (struct mtrr_range){
            align_down(below(8 * GiB), bytes) | random_type(),
            (ADDRESSES & ~(bytes - 1) & ~holes) |
                (below(8) == 0 ? 0 : ENABLED)};
    }
}

static void compare(uint64_t bytes)
{
    /* Near the start of a range, or anywhere. */
    unsigned which = (unsigned)below(MTRR_VARIABLE_MAX);
    uint64_t near = which < mtrr.variable_count
                        ? mtrr.variable[which].base + below(4) * bytes
                        : below(2) * below(8 * GiB) + below(2 * MiB);
    uint64_t address = align_down(near, bytes);

    CHECK_EQUAL(mtrr_type(&mtrr, paddr_of(address), bytes),
                block_again(address, bytes));
}

TEST(mtrr, every_page_and_block_is_as_the_manual_says)
{
    test_random_init(&source, test_seed());
    for (unsigned round = 0; round < 2000; round++) {
        random_registers();
        for (unsigned i = 0; i < 20; i++) {
            CHECK_HELPER(compare(PAGE_BYTES));
        }
        for (unsigned i = 0; i < 4; i++) {
            CHECK_HELPER(compare(2 * MiB));
        }
        if (round % 100 == 0) {
            CHECK_HELPER(compare(GiB));
        }
    }
}

/* --- by page -------------------------------------------------------------- */

TEST(mtrr, the_pat_has_the_layout_that_entries_are_made_for)
{
    static const enum memory_type type[8] = {
        [PT_WB] = MEMORY_WB,   [PT_WC] = MEMORY_WC, [2] = MEMORY_UC_MINUS,
        [PT_UC] = MEMORY_UC,   [4] = MEMORY_WB,     [PT_WP] = MEMORY_WP,
        [6] = MEMORY_UC_MINUS, [PT_WT] = MEMORY_WT};

    for (unsigned i = 0; i < 8; i++) {
        CHECK_EQUAL(memory_type_of_pat(PTE_PAT_LAYOUT, i), type[i]);
    }
}

/* The table in words, page by page. */
static enum memory_type combine_again(enum memory_type by_address,
                                      enum memory_type page)
{
    bool is_uncached = by_address == MEMORY_UC || by_address == MEMORY_WC;

    switch (page) {
    case MEMORY_WB:
        return by_address;
    case MEMORY_WC:
        return MEMORY_WC;
    case MEMORY_WT:
        return is_uncached ? MEMORY_UC : MEMORY_WT;
    case MEMORY_WP:
        return is_uncached ? MEMORY_UC : MEMORY_WP;
    case MEMORY_UC_MINUS:
        return by_address == MEMORY_WC || by_address == MEMORY_WP ? MEMORY_WC
                                                                  : MEMORY_UC;
    default:
        return MEMORY_UC;
    }
}

TEST(mtrr, every_combination_is_as_the_manual_says)
{
    static const enum memory_type type[] = {
        MEMORY_UC, MEMORY_WC, MEMORY_WP, MEMORY_WB, MEMORY_WT, MEMORY_UC_MINUS};

    for (unsigned page = 0; page < 6; page++) {
        for (unsigned i = 0; i < 5; i++) {
            CHECK_EQUAL(memory_type_combine(type[i], type[page]),
                        combine_again(type[i], type[page]));
        }
        CHECK_EQUAL(memory_type_combine(MEMORY_MIXED, type[page]),
                    MEMORY_MIXED);
        CHECK_EQUAL(memory_type_combine(MEMORY_UNDEFINED, type[page]),
                    MEMORY_UNDEFINED);
    }
}
