/* SPDX-License-Identifier: MIT */
/* One address through hand-made tables, and the rules applied to it. */
/*
 * At risk: an explanation, or a decision of the fault handler, that differs
 * from what the CPU does. So tables are written by hand, one entry a level,
 * and every combination of the bits that matter is judged by a second,
 * table-like account of the manual's rules.
 */
#include "tests/shared/test.h"

#include <mm/port.h>
#include <mm/walk.h>
#include "base/bits.h"
#include "tests/host/sim.h"

#define ADDRESS UINT64_C(0x0000123456789abc)
#define FRAME   UINT64_C(0x55)

static const struct walk_rules all_rules = {true, true, true, true};

/* Frames 1 to 5 are the tables of levels 4 to 0; top table first. */
static pfn_t build(const struct pt_features *features, unsigned leaf_level,
                   const uint64_t bits[PTE_LEVELS])
{
    pfn_t root = pfn_of(1);

    sim_reset(64 * PAGE_BYTES);
    pt_setup(features);
    for (unsigned level = features->levels; level-- > leaf_level;) {
        unsigned number = features->levels - level;
        pte_t *table = phys_to_virt(pfn_to_phys(pfn_of(number)));
        pte_t entry = {(uint64_t)(number + 1) << PAGE_SHIFT};

        if (level == leaf_level) {
            entry.v = level == 0 ? FRAME << PAGE_SHIFT
                                 : (UINT64_C(1) << pte_shift(level)) | PTE_PS;
        }
        table[pte_index(ADDRESS, level)].v = entry.v | bits[level];
    }
    return root;
}

static const struct pt_features four = {4, 40, true, true, true};
static const struct pt_features five = {5, 46, true, true, true};

#define RIGHTS (PTE_P | PTE_RW | PTE_US)

TEST(walk, four_and_five_levels)
{
    const uint64_t bits[PTE_LEVELS] = {RIGHTS, RIGHTS, RIGHTS, RIGHTS, RIGHTS};
    struct walk walk;

    walk_address(build(&four, 0, bits), ADDRESS, &walk);
    CHECK_EQUAL(walk.count, 4);
    CHECK_EQUAL(walk.state, PTE_PRESENT);
    CHECK_EQUAL(walk.physical.v, (FRAME << PAGE_SHIFT) | 0xabc);
    CHECK_EQUAL(walk.step[0].level, 3);
    CHECK_EQUAL(walk.step[3].index, 0x189);
    walk_address(build(&five, 0, bits), ADDRESS, &walk);
    CHECK_EQUAL(walk.count, 5);
    CHECK_EQUAL(walk.step[0].level, 4);
    CHECK_EQUAL(walk.physical.v, (FRAME << PAGE_SHIFT) | 0xabc);
}

TEST(walk, large_leaves_end_early)
{
    const uint64_t bits[PTE_LEVELS] = {0, RIGHTS, RIGHTS, RIGHTS, 0};
    struct walk walk;

    walk_address(build(&four, 1, bits), ADDRESS, &walk);
    CHECK_EQUAL(walk.count, 3);
    CHECK_EQUAL(walk.physical.v, 2 * MiB + (ADDRESS & (2 * MiB - 1)));
    walk_address(build(&four, 2, bits), ADDRESS, &walk);
    CHECK_EQUAL(walk.count, 2);
    CHECK_EQUAL(walk.physical.v, GiB + (ADDRESS & (GiB - 1)));
}

TEST(walk, canonical_addresses)
{
    struct walk walk;

    sim_reset(16 * PAGE_BYTES);
    pt_setup(&four);
    CHECK(pt_is_canonical(UINT64_C(0x00007fffffffffff)));
    CHECK(!pt_is_canonical(UINT64_C(0x0000800000000000)));
    CHECK(!pt_is_canonical(UINT64_C(0xffff7fffffffffff)));
    CHECK(pt_is_canonical(UINT64_C(0xffff800000000000)));
    walk_address(pfn_of(1), UINT64_C(0x0000800000000000), &walk);
    CHECK_EQUAL(walk.count, 0);
    CHECK_EQUAL(walk_judge(&walk, WALK_READ, &all_rules, NULL),
                WALK_NON_CANONICAL);
    pt_setup(&five);
    CHECK(pt_is_canonical(UINT64_C(0x00ffffffffffffff)));
    CHECK(!pt_is_canonical(UINT64_C(0x0100000000000000)));
}

/* The rules of [SDM-3A 4.6 "Access Rights"], told once more and without regard
 * to order. */
static enum walk_verdict second_account(uint64_t upper, uint64_t leaf,
                                        unsigned access,
                                        const struct walk_rules *rules)
{
    bool is_user_page = (upper & leaf & PTE_US) != 0;
    bool is_writable = (upper & leaf & PTE_RW) != 0;
    bool no_execute = ((upper | leaf) & PTE_XD) != 0 && rules->nx;
    bool by_user = (access & WALK_USER) != 0;

    if (by_user && !is_user_page) {
        return WALK_SUPERVISOR;
    }
    if ((access & WALK_EXEC) && no_execute) {
        return WALK_NO_EXECUTE;
    }
    if ((access & WALK_EXEC) && !by_user && is_user_page && rules->smep) {
        return WALK_USER_EXEC;
    }
    if (!(access & WALK_EXEC) && !by_user && is_user_page && rules->smap) {
        return WALK_USER_ACCESS;
    }
    if ((access & WALK_WRITE) && !is_writable &&
        (by_user || rules->write_protect)) {
        return WALK_READ_ONLY;
    }
    return WALK_ALLOWED;
}

static void judge_all(uint64_t upper, uint64_t leaf, const struct walk *walk)
{
    static const unsigned access[] = {WALK_READ,
                                      WALK_WRITE,
                                      WALK_EXEC,
                                      WALK_READ | WALK_USER,
                                      WALK_WRITE | WALK_USER,
                                      WALK_EXEC | WALK_USER};

    for (unsigned r = 0; r < 16; r++) {
        struct walk_rules rules = {(r & 1) != 0, (r & 2) != 0, (r & 4) != 0,
                                   (r & 8) != 0};
        for (unsigned a = 0; a < sizeof(access) / sizeof(access[0]); a++) {
            CHECK_EQUAL(walk_judge(walk, access[a], &rules, NULL),
                        second_account(upper, leaf, access[a], &rules));
        }
    }
}

TEST(walk, rights_of_all_levels_count)
{
    static const uint64_t bit[] = {PTE_RW, PTE_US, PTE_XD};

    for (unsigned upper_set = 0; upper_set < 8; upper_set++) {
        for (unsigned leaf_set = 0; leaf_set < 8; leaf_set++) {
            uint64_t upper = PTE_P;
            uint64_t leaf = PTE_P;
            struct walk walk;

            for (unsigned i = 0; i < 3; i++) {
                upper |= upper_set & (1u << i) ? bit[i] : 0;
                leaf |= leaf_set & (1u << i) ? bit[i] : 0;
            }
            const uint64_t bits[PTE_LEVELS] = {leaf, RIGHTS, upper, RIGHTS, 0};
            walk_address(build(&four, 0, bits), ADDRESS, &walk);
            CHECK_HELPER(judge_all(upper, leaf, &walk));
        }
    }
}

TEST(walk, the_failing_level_is_named)
{
    const uint64_t read_only_upper[PTE_LEVELS] = {RIGHTS, RIGHTS,
                                                  PTE_P | PTE_US, RIGHTS, 0};
    const uint64_t gap[PTE_LEVELS] = {RIGHTS, 0, RIGHTS, RIGHTS, 0};
    struct walk walk;
    unsigned step;

    walk_address(build(&four, 0, read_only_upper), ADDRESS, &walk);
    CHECK_EQUAL(walk_judge(&walk, WALK_WRITE | WALK_USER, &all_rules, &step),
                WALK_READ_ONLY);
    CHECK_EQUAL(walk.step[step].level, 2);
    walk_address(build(&four, 0, gap), ADDRESS, &walk);
    CHECK_EQUAL(walk_judge(&walk, WALK_READ, &all_rules, &step),
                WALK_NOT_PRESENT);
    CHECK_EQUAL(walk.step[step].level, 1);
}

static void check_reserved(const struct pt_features *features, unsigned level,
                           uint64_t extra, bool is_reserved)
{
    uint64_t bits[PTE_LEVELS] = {RIGHTS, RIGHTS, RIGHTS, RIGHTS, 0};
    bool is_leaf = level > 0 && (extra & PTE_PS) != 0 && level < 3;
    struct walk walk;

    bits[level] |= extra;
    walk_address(build(features, is_leaf ? level : 0, bits), ADDRESS, &walk);
    enum walk_verdict verdict =
        walk_judge(&walk, WALK_READ | WALK_USER, &all_rules, NULL);
    CHECK_EQUAL(verdict == WALK_RESERVED_BIT, is_reserved);
}

TEST(walk, reserved_bits_are_found)
{
    static const struct pt_features no_nx = {4, 40, false, true, true};
    static const struct pt_features no_1g = {4, 40, true, false, true};

    for (unsigned level = 0; level < 4; level++) {
        CHECK_HELPER(check_reserved(&four, level, UINT64_C(1) << 40, true));
        CHECK_HELPER(check_reserved(&four, level, UINT64_C(1) << 51, true));
        CHECK_HELPER(check_reserved(&four, level, UINT64_C(1) << 52, false));
        CHECK_HELPER(check_reserved(&no_nx, level, PTE_XD, true));
        CHECK_HELPER(check_reserved(&four, level, PTE_XD, false));
    }
    CHECK_HELPER(check_reserved(&four, 3, PTE_PS, true));
    CHECK_HELPER(check_reserved(&no_1g, 2, PTE_PS, true));
    CHECK_HELPER(check_reserved(&four, 2, PTE_PS, false));
    CHECK_HELPER(check_reserved(&four, 1, PTE_PS | (UINT64_C(1) << 13), true));
    CHECK_HELPER(check_reserved(&four, 1, PTE_PS | PTE_PAT_LARGE, false));
}
