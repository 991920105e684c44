/* SPDX-License-Identifier: MIT */
/* The codec: encode and decode are inverse, and bits stand where the CPU
 * looks for them. */
/*
 * At risk: a bit in the wrong place is a reset or a security hole that no
 * later layer can see. So every state is built with every combination of
 * flags and with edge values in every field, and read back; and some entries
 * are compared with numbers worked out by hand from the manual's figures.
 */
#include "tests/shared/test.h"

#include "base/bits.h"
#include "x86_64/pte.h"

#define ALL_FLAGS PT_FLAGS

static const uint64_t edge[] = {0, 1, 0x1234567, PTE_PAYLOAD_END - 1};
#define EDGES (sizeof(edge) / sizeof(edge[0]))

static const enum pt_memory memory[] = {PT_WB, PT_WC, PT_UC, PT_WP, PT_WT};
#define MEMORIES (sizeof(memory) / sizeof(memory[0]))

/* Entries as the figures of the manual have them. */
TEST(pte, known_entries)
{
    CHECK_EQUAL(pte_make_leaf(0, pfn_of(0x12345), pt_attr(PT_WRITE)).v,
                UINT64_C(0x8000000012345063));
    CHECK_EQUAL(pte_make_leaf(0, pfn_of(0x12345), pt_attr(PT_EXEC)).v,
                UINT64_C(0x12345061));
    CHECK_EQUAL(
        pte_make_leaf(1, pfn_of(0x200), pt_attr(PT_WRITE | PT_GLOBAL)).v,
        UINT64_C(0x80000000002001e3));
    CHECK_EQUAL(pte_make_leaf(2, pfn_of(0x40000), pt_attr(PT_USER)).v,
                UINT64_C(0x80000000400000e5));
    CHECK_EQUAL(pte_make_table(pfn_of(7), false).v, UINT64_C(0x7023));
    CHECK_EQUAL(pte_make_table(pfn_of(7), true).v, UINT64_C(0x7027));
    struct pt_attr wt = {PT_WRITE, PT_WT, 0};
    CHECK_EQUAL(pte_make_leaf(0, pfn_of(1), wt).v & 0xfff, 0xfb);
    CHECK_EQUAL(pte_make_leaf(1, pfn_of(512), wt).v & 0x1fff, 0x10fb);
}

/* And as the picture in pte.h has them. */
TEST(pte, known_entries_that_are_not_present)
{
    struct pt_attr wt = {PT_NONE | PT_OWNED, PT_WT, 0x81};

    CHECK_EQUAL(pte_make_promise(PT_ZERO, pt_attr(PT_WRITE), 0).v,
                UINT64_C(0x800ffffffffff022));
    CHECK_EQUAL(pte_make_promise(PT_GUARD_GROW, pt_attr(PT_NONE), 0).v,
                UINT64_C(0x880ffffffffff080));
    CHECK_EQUAL(pte_make_promise(PT_OBJECT, pt_attr(PT_EXEC | PT_USER), 5).v,
                UINT64_C(0x000fffffffffa044));
    CHECK_EQUAL(pte_make_parked(pfn_of(0x12345), pt_attr(PT_NONE)).v,
                UINT64_C(0xb80fffffedcba0a0));
    CHECK_EQUAL(pte_make_swapped(1, wt).v, UINT64_C(0xc81fffffffffecd8));
}

static void check_leaf(unsigned level, pfn_t pfn, struct pt_attr attr)
{
    pte_t pte = pte_make_leaf(level, pfn, attr);

    CHECK_EQUAL(pte_state(pte, level), PTE_PRESENT);
    CHECK(pte_is_leaf(pte, level) && !pte_is_table(pte, level));
    CHECK_EQUAL(pte_pfn(pte, level).v, pfn.v);
    CHECK(pt_attr_equal(pte_attr(pte, level), attr));
    CHECK_EQUAL(pte_accessed_dirty(pte), PTE_AD);
    CHECK_EQUAL(pte_make_frame(level, pfn, attr).v, pte.v);
}

static void check_other(enum pte_state state, unsigned level, pte_t pte,
                        struct pt_attr attr, uint64_t payload)
{
    CHECK_EQUAL(pte_state(pte, level), state);
    CHECK(!pte_is_present(pte) && !pte_is_absent(pte));
    CHECK_EQUAL(pte_payload(pte), payload);
    CHECK(pt_attr_equal(pte_attr(pte, level), attr));
    CHECK_EQUAL(pte_accessed_dirty(pte), state == PTE_PARKED ? PTE_AD : 0);
    /* L1TF: the frame bits name memory far above any that exists. */
    CHECK((pte.v & PTE_FRAME) >= (UINT64_C(1) << 51));
}

static void check_states(struct pt_attr attr, uint64_t value)
{
    struct pt_attr none = attr;

    none.flags |= PT_NONE;
    for (unsigned level = 0; level < 3 && (attr.flags & PT_NONE) == 0;
         level++) {
        uint64_t frames = pte_span(level) >> PAGE_SHIFT;
        CHECK_HELPER(
            check_leaf(level, pfn_of(align_down(value, frames)), attr));
    }
    for (unsigned level = 0; level < PTE_LEVELS; level++) {
        for (unsigned kind = PT_ZERO; kind <= PT_GUARD_GROW; kind++) {
            pte_t pte = pte_make_promise((enum pt_promise)kind, attr, value);
            CHECK_HELPER(check_other(PTE_PROMISE, level, pte, attr, value));
            CHECK_EQUAL(pte_promise(pte), kind);
        }
        CHECK_HELPER(check_other(PTE_PARKED, level,
                                 pte_make_parked(pfn_of(value), attr), none,
                                 value));
        CHECK_HELPER(check_other(PTE_SWAPPED, level,
                                 pte_make_swapped(value, attr), attr, value));
    }
}

TEST(pte, decode_is_inverse_of_encode)
{
    static const uint8_t tag[] = {0x55, 0xaa, 0xff};

    for (unsigned flags = 0; flags <= ALL_FLAGS; flags++) {
        for (unsigned m = 0; m < MEMORIES; m++) {
            for (unsigned t = 0; t < sizeof(tag); t++) {
                struct pt_attr attr = {(uint8_t)flags, (uint8_t)memory[m],
                                       tag[t]};
                for (unsigned e = 0; e < EDGES; e++) {
                    CHECK_HELPER(check_states(attr, edge[e]));
                }
            }
        }
    }
}

TEST(pte, zero_is_absent_at_every_level)
{
    for (unsigned level = 0; level < PTE_LEVELS; level++) {
        CHECK_EQUAL(pte_state((pte_t){0}, level), PTE_ABSENT);
    }
}

/* Bits that no state has, in what is not present. */
TEST(pte, damage_is_seen)
{
    pte_t promise = pte_make_promise(PT_ZERO, pt_attr(PT_WRITE), 0);
    pte_t parked = pte_make_parked(pfn_of(9), pt_attr(PT_NONE));

    for (unsigned level = 0; level < PTE_LEVELS; level++) {
        for (unsigned bit = 1; bit < 64; bit++) {
            uint64_t one = UINT64_C(1) << bit;
            bool is_kind = (one & PTE_KIND_MASK) != 0;
            CHECK(is_kind || pte_state((pte_t){one}, level) == PTE_DAMAGED);
        }
        CHECK_EQUAL(pte_state((pte_t){promise.v | PTE_KIND_MASK}, level),
                    PTE_DAMAGED);
        CHECK_EQUAL(pte_state((pte_t){promise.v | UINT64_C(1) << 60}, level),
                    PTE_DAMAGED);
        CHECK_EQUAL(pte_state((pte_t){promise.v | UINT64_C(1) << 61}, level),
                    PTE_DAMAGED);
        CHECK_EQUAL(pte_state((pte_t){parked.v & ~PTE_NONE}, level),
                    PTE_DAMAGED);
    }
}

TEST(pte, tables_point_at_tables)
{
    for (unsigned level = 1; level < PTE_LEVELS; level++) {
        pte_t pte = pte_make_table(pfn_of(0x98765), true);
        CHECK_EQUAL(pte_state(pte, level), PTE_TABLE);
        CHECK_EQUAL(pte_pfn(pte, level).v, 0x98765);
    }
}

TEST(pte, spans_and_indexes)
{
    static const uint64_t span[PTE_LEVELS] = {4 * KiB, 2 * MiB, GiB, 512 * GiB,
                                              256 * TiB};
    vaddr_t address = UINT64_C(0xffff8abcdef12345);

    for (unsigned level = 0; level < PTE_LEVELS; level++) {
        CHECK_EQUAL(pte_span(level), span[level]);
    }
    CHECK_EQUAL(pte_index(address, 0), 0x112);
    CHECK_EQUAL(pte_index(address, 1), 0xf7);
    CHECK_EQUAL(pte_index(address, 2), 0xf3);
    CHECK_EQUAL(pte_index(address, 3), 0x115);
    CHECK_EQUAL(pte_index(address, 4), 0x1ff);
}
