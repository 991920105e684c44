/* SPDX-License-Identifier: MIT */
/* The codec, all of it: every flag, memory type and tag in every state. */
/*
 * At risk: tests/shared/check_pte.c takes a few values of each field, and a
 * mistake may need two fields at once (the PAT bit of a large leaf is a frame
 * bit of a small one; A and D of a leaf are the kind of what is not present).
 * So here is every combination, and each change of rights and size is compared
 * with the way around: decode, change what was decoded, encode.
 */
#include "tests/shared/test.h"

#include "base/bits.h"
#include "x86_64/pte.h"

#define LEAF_LEVELS 3

/* Frames and payloads, aligned to a leaf of any size; the highest that may
 * stand in what is not present; and what a test of one page would not see. */
static const uint64_t frame[] = {0, 0x40000, PTE_PAYLOAD_END - 0x40000};
#define FRAMES (sizeof(frame) / sizeof(frame[0]))

#define TAGS     256
#define MEMORIES 8

/* A way to visit every entry there is, but for frames between the edges. */
typedef void (*entry_fn)(pte_t pte, unsigned level);

/* With A and D in all four ways, if the state has them. */
static void each_use(pte_t pte, unsigned level, unsigned shift, entry_fn visit)
{
    static const uint64_t use[] = {0, PTE_A, PTE_D, PTE_AD};

    for (unsigned i = 0; i < sizeof(use) / sizeof(use[0]); i++) {
        pte_t used = {(pte.v & ~(PTE_AD << shift)) | use[i] << shift};

        CHECK_EQUAL(pte_accessed_dirty(used), use[i]);
        CHECK_HELPER(visit(used, level));
    }
}

static void each_state(struct pt_attr attr, uint64_t value, entry_fn visit)
{
    pfn_t pfn = pfn_of(value);

    for (unsigned level = 0; level < LEAF_LEVELS; level++) {
        pte_t pte = pte_make_frame(level, pfn, attr);
        CHECK_HELPER(each_use(pte, level,
                              pte_is_present(pte) ? 0 : PTE_AD_SHIFT, visit));
    }
    for (unsigned kind = PT_ZERO; kind <= PT_GUARD_GROW; kind++) {
        pte_t pte = pte_make_promise((enum pt_promise)kind, attr, value);
        for (unsigned level = 0; level < PTE_LEVELS; level++) {
            CHECK_HELPER(visit(pte, level));
        }
    }
    CHECK_HELPER(
        each_use(pte_make_swapped(value, attr), 0, PTE_AD_SHIFT, visit));
}

static void each_entry(unsigned tag_step, entry_fn visit)
{
    for (unsigned flags = 0; flags <= PT_FLAGS; flags++) {
        for (unsigned memory = 0; memory < MEMORIES; memory++) {
            for (unsigned tag = 0; tag < TAGS; tag += tag_step) {
                for (unsigned i = 0; i < FRAMES; i++) {
                    struct pt_attr attr = {(uint8_t)flags, (uint8_t)memory,
                                           (uint8_t)tag};
                    CHECK_HELPER(each_state(attr, frame[i], visit));
                }
            }
        }
    }
}

/* The entry that says what @pte says, made anew from what it decodes to. */
static pte_t made_anew(pte_t pte, unsigned level)
{
    struct pt_attr attr = pte_attr(pte, level);
    uint64_t use = pte_accessed_dirty(pte);

    switch (pte_state(pte, level)) {
    case PTE_PRESENT:
        pte = pte_make_leaf(level, pte_pfn(pte, level), attr);
        return (pte_t){(pte.v & ~PTE_AD) | use};
    case PTE_PARKED:
        pte = pte_make_parked(pte_pfn(pte, level), attr);
        return (pte_t){(pte.v & ~(PTE_AD << PTE_AD_SHIFT)) |
                       use << PTE_AD_SHIFT};
    case PTE_PROMISE:
        return pte_make_promise(pte_promise(pte), attr, pte_payload(pte));
    case PTE_SWAPPED:
        pte = pte_make_swapped(pte_payload(pte), attr);
        return (pte_t){pte.v | use << PTE_AD_SHIFT};
    default:
        return (pte_t){0};
    }
}

static void check_made_anew(pte_t pte, unsigned level)
{
    CHECK_EQUAL(made_anew(pte, level).v, pte.v);
    /* L1TF: the frame bits name memory far above any that exists. */
    CHECK(pte_is_present(pte) || (pte.v & PTE_FRAME) >= PTE_PAYLOAD_END
                                                            << PAGE_SHIFT);
}

TEST(pte_all, what_is_decoded_encodes_to_the_same)
{
    CHECK_HELPER(each_entry(1, check_made_anew));
}

/* The new rights and type of what check_rights() looks at. */
static struct pt_attr wanted;

static void check_rights(pte_t pte, unsigned level)
{
    const unsigned rights = PT_WRITE | PT_EXEC | PT_USER | PT_NONE;
    struct pte_rights bits = pte_rights(wanted);
    struct pt_attr old = pte_attr(pte, level);
    struct pt_attr expected = {
        (uint8_t)((old.flags & ~rights) | (wanted.flags & rights)),
        wanted.memory, old.tag};
    pte_t changed = pte_with_rights(pte, level, &bits);
    enum pte_state state = pte_state(pte, level);

    if (old.flags & PT_COW) {
        expected.flags &= (uint8_t)~PT_WRITE;
    }
    if (state == PTE_PRESENT || state == PTE_PARKED) {
        state = (wanted.flags & PT_NONE) ? PTE_PARKED : PTE_PRESENT;
    }
    CHECK_EQUAL(pte_state(changed, level), state);
    CHECK(pt_attr_equal(pte_attr(changed, level), expected));
    CHECK_EQUAL(pte_pfn(changed, level).v, pte_pfn(pte, level).v);
    CHECK_EQUAL(pte_accessed_dirty(changed), pte_accessed_dirty(pte));
    CHECK_EQUAL(made_anew(changed, level).v, changed.v);
    CHECK(pte_is_present(changed) ||
          (changed.v & PTE_FRAME) >= PTE_PAYLOAD_END << PAGE_SHIFT);
    CHECK_EQUAL(pte_kind(changed), pte_is_present(changed) ||
                                           pte_is_present(pte) ||
                                           state == PTE_PARKED
                                       ? pte_kind(changed)
                                       : pte_kind(pte));
}

TEST(pte_all, rights_change_and_all_else_stays)
{
    static const uint8_t flags[] = {0,
                                    PT_WRITE,
                                    PT_EXEC,
                                    PT_USER,
                                    PT_USER | PT_WRITE,
                                    PT_NONE,
                                    PT_NONE | PT_USER,
                                    PT_FLAGS & ~PT_NONE & ~PT_WRITE};

    for (unsigned i = 0; i < sizeof(flags); i++) {
        for (unsigned memory = PT_WB; memory <= PT_WT; memory += PT_WT) {
            wanted = (struct pt_attr){flags[i], (uint8_t)memory, 0xff};
            CHECK_HELPER(each_entry(0x55, check_rights));
        }
    }
}

/* Parts of a large entry are what a small one made anew is. */
static void check_parts(pte_t pte, unsigned level)
{
    static const unsigned index[] = {0, 1, 511};
    uint64_t part_pages = pte_span(level) >> (PAGE_SHIFT + MM_TABLE_BITS);
    enum pte_state state = pte_state(pte, level);

    if (level == 0) {
        return;
    }
    for (unsigned i = 0; i < sizeof(index) / sizeof(index[0]); i++) {
        pte_t part = pte_part(pte, level, index[i]);
        bool is_counted = state != PTE_PROMISE || pte_promise(pte) == PT_OBJECT;
        uint64_t pages = is_counted ? index[i] * part_pages : 0;

        CHECK_EQUAL(pte_state(part, level - 1), state);
        CHECK(pt_attr_equal(pte_attr(part, level - 1), pte_attr(pte, level)));
        CHECK_EQUAL(pte_pfn(part, level - 1).v, pte_pfn(pte, level).v + pages);
        CHECK_EQUAL(made_anew(part, level - 1).v, part.v);
    }
    CHECK_EQUAL(pte_whole(pte_part(pte, level, 0), level).v, pte.v);
}

TEST(pte_all, parts_say_what_the_whole_said)
{
    CHECK_HELPER(each_entry(0x55, check_parts));
}
