/* SPDX-License-Identifier: MIT */
/* x86_64/pte.h: every entry of 64 bits decodes to what encodes to it. */
#include "tests/proofs/proof.h"

#include "x86_64/pte.h"

/* Levels a leaf may have, and all. */
#define LAST_LEAF  2
#define LAST_LEVEL (PTE_LEVELS - 1)

static struct pt_attr any_attr(void)
{
    return (struct pt_attr){(uint8_t)any_up_to(PT_FLAGS), (uint8_t)any_up_to(7),
                            (uint8_t)any_up_to(UINT8_MAX)};
}

/* A frame that a leaf of @level can have. */
static pfn_t any_frame(unsigned level)
{
    uint64_t pfn = any_up_to(PTE_FRAME >> PAGE_SHIFT);

    ASSUME(is_aligned(pfn << PAGE_SHIFT, pte_span(level)));
    return pfn_of(pfn);
}

/* Any bits at all that are no table and, if they are a leaf, none the CPU
 * refuses and no protection key. */
static pte_t any_entry(unsigned level)
{
    pte_t pte = {nondet_u64()};
    uint64_t unused = UINT64_C(15) << 59;

    ASSUME(!pte_is_table(pte, level));
    if (pte_is_present(pte)) {
        ASSUME(level <= LAST_LEAF && (pte.v & unused) == 0);
        ASSUME(level == 0 ||
               ((pte.v & PTE_FRAME & (pte_span(level) - 1)) >> 13) == 0);
    } else if (pte_state(pte, level) == PTE_PARKED) {
        ASSUME(level <= LAST_LEAF);
        ASSUME(is_aligned(pte_payload(pte) << PAGE_SHIFT, pte_span(level)));
    }
    return pte;
}

/* @pte with A and D as @use says. */
static pte_t used(pte_t pte, uint64_t use)
{
    unsigned shift = pte_is_present(pte) ? 0 : PTE_AD_SHIFT;

    return (pte_t){(pte.v & ~(PTE_AD << shift)) | use << shift};
}

/* What @pte decodes to, encoded. */
static pte_t made_anew(pte_t pte, unsigned level)
{
    struct pt_attr attr = pte_attr(pte, level);
    uint64_t use = pte_accessed_dirty(pte);

    switch (pte_state(pte, level)) {
    case PTE_PRESENT:
        return used(pte_make_leaf(level, pte_pfn(pte, level), attr), use);
    case PTE_PARKED:
        return used(pte_make_parked(pte_pfn(pte, level), attr), use);
    case PTE_SWAPPED:
        return used(pte_make_swapped(pte_payload(pte), attr), use);
    case PTE_PROMISE:
        return pte_make_promise(pte_promise(pte), attr, pte_payload(pte));
    default:
        return (pte_t){0};
    }
}

/* Every number is one state's, and says what it says in one way. */
static void prove_decode(void)
{
    unsigned level = (unsigned)any_up_to(LAST_LEVEL);
    pte_t pte = any_entry(level);
    enum pte_state state = pte_state(pte, level);

    PROVE((state == PTE_ABSENT) == (pte.v == 0), "only zero is absent");
    PROVE(state == PTE_DAMAGED || made_anew(pte, level).v == pte.v,
          "what is decoded encodes to the same");
    PROVE((state == PTE_PRESENT) == ((pte.v & 1) != 0), "bit 0 is present");
}

static void prove_leaf(void)
{
    unsigned level = (unsigned)any_up_to(LAST_LEAF);
    struct pt_attr attr = any_attr();
    pfn_t pfn = any_frame(level);

    ASSUME((attr.flags & PT_NONE) == 0);
    pte_t pte = pte_make_leaf(level, pfn, attr);
    PROVE(pte_state(pte, level) == PTE_PRESENT, "a leaf is present");
    PROVE(pte_pfn(pte, level).v == pfn.v, "its frame");
    PROVE(pt_attr_equal(pte_attr(pte, level), attr), "its attributes");
    PROVE(pte_accessed_dirty(pte) == PTE_AD, "the CPU need not write it");
    PROVE(((pte.v >> 1 & 1) != 0) == ((attr.flags & PT_WRITE) != 0),
          "bit 1 allows writes");
    PROVE(((pte.v >> 63) != 0) == ((attr.flags & PT_EXEC) == 0),
          "bit 63 forbids execution");
    PROVE((pte.v >> 59 & 15) == 0, "it has no protection key");
}

static void prove_other(void)
{
    unsigned level = (unsigned)any_up_to(LAST_LEVEL);
    unsigned promise = (unsigned)any_up_to(PT_GUARD_GROW);
    uint64_t payload = any_up_to(PTE_PAYLOAD_END - 1);
    struct pt_attr attr = any_attr();
    struct pt_attr none = attr;
    pte_t pte[] = {pte_make_promise((enum pt_promise)promise, attr, payload),
                   pte_make_parked(pfn_of(payload), attr),
                   pte_make_swapped(payload, attr)};

    none.flags |= PT_NONE;
    PROVE(pte_state(pte[0], level) == PTE_PROMISE &&
              (unsigned)pte_promise(pte[0]) == promise,
          "a promise");
    PROVE(pte_state(pte[1], level) == PTE_PARKED, "parked");
    PROVE(pte_state(pte[2], level) == PTE_SWAPPED, "swapped");
    for (unsigned i = 0; i < 3; i++) {
        PROVE(pte_payload(pte[i]) == payload, "its payload");
        PROVE(pt_attr_equal(pte_attr(pte[i], level), i == 1 ? none : attr),
              "its attributes");
        PROVE((pte[i].v & 1) == 0, "it is not present");
        PROVE((pte[i].v >> 51 & 1) != 0, "its frame bits name no memory");
    }
}

/* Rights change as decoding, changing and encoding would change them. */
static void prove_rights(void)
{
    const unsigned rights = PT_WRITE | PT_EXEC | PT_USER | PT_NONE;
    unsigned level = (unsigned)any_up_to(LAST_LEVEL);
    pte_t pte = any_entry(level);
    enum pte_state state = pte_state(pte, level);
    struct pt_attr attr = pte_attr(pte, level);
    struct pt_attr wanted = any_attr();
    struct pte_rights bits = pte_rights(wanted);

    ASSUME(state != PTE_ABSENT && state != PTE_DAMAGED);
    pte_t changed = pte_with_rights(pte, level, &bits);
    if (state == PTE_PRESENT || state == PTE_PARKED) {
        state = (wanted.flags & PT_NONE) ? PTE_PARKED : PTE_PRESENT;
    }
    attr.flags = (uint8_t)((attr.flags & ~rights) | (wanted.flags & rights));
    attr.flags &= (attr.flags & PT_COW) ? PT_FLAGS & ~PT_WRITE : PT_FLAGS;
    attr.memory = wanted.memory;
    PROVE(pte_state(changed, level) == state, "frames are parked, or present");
    PROVE(pt_attr_equal(pte_attr(changed, level), attr), "the rights wanted");
    PROVE(pte_accessed_dirty(changed) == pte_accessed_dirty(pte), "A and D");
    PROVE(pte_pfn(changed, level).v == pte_pfn(pte, level).v, "the frame");
    PROVE(state != PTE_PROMISE || pte_promise(changed) == pte_promise(pte),
          "the promise");
    PROVE(made_anew(changed, level).v == changed.v, "no bit besides");
}

/* Nothing is writable and executable that was not asked for. */
static void prove_wx(void)
{
    unsigned level = (unsigned)any_up_to(LAST_LEVEL);
    pte_t pte = any_entry(level);
    struct pt_attr wanted = any_attr();
    struct pte_rights bits = pte_rights(wanted);

    ASSUME(!pte_is_absent(pte));
    ASSUME((wanted.flags & PT_WRITE) == 0 || (wanted.flags & PT_EXEC) == 0);
    pte_t changed = pte_with_rights(pte, level, &bits);
    PROVE((changed.v & PTE_RW) == 0 || (changed.v & PTE_XD) != 0,
          "never writable and executable");
    PROVE((changed.v & PTE_RW) == 0 || (changed.v & PTE_COW) == 0,
          "what is copied on write is read-only");
    PROVE((wanted.flags & PT_NONE) == 0 || !pte_is_present(changed),
          "what has no rights is not present");
}

/* A leaf that loses all access and gets its rights back is the leaf it was. */
static void prove_back(void)
{
    unsigned level = (unsigned)any_up_to(LAST_LEAF);
    pte_t pte = any_entry(level);
    struct pt_attr attr = pte_attr(pte, level);
    struct pt_attr none = any_attr();

    ASSUME(pte_is_present(pte));
    ASSUME((attr.flags & PT_WRITE) == 0 || (attr.flags & PT_COW) == 0);
    none.flags |= PT_NONE;
    struct pte_rights park = pte_rights(none);
    struct pte_rights back = pte_rights(attr);
    pte_t parked = pte_with_rights(pte, level, &park);
    PROVE(pte_with_rights(parked, level, &back).v == pte.v, "the leaf it was");
    none = (struct pt_attr){PT_NONE, 0, 0};
    attr.flags = 0;
    park = pte_rights(none);
    pte = pte_make_leaf(level, any_frame(level), attr);
    attr.memory = 0;
    PROVE(pte_with_rights(pte, level, &park).v ==
              pte_make_parked(pte_pfn(pte, level), attr).v,
          "parked by a change of rights, or from the start");
}

/* Each part says of its pages what the whole said of them. */
static void prove_parts(void)
{
    unsigned level = (unsigned)any_up_to(LAST_LEVEL - 1) + 1;
    unsigned index = (unsigned)any_up_to(PTE_TABLE_COUNT - 1);
    uint64_t pages = (uint64_t)index << (pte_shift(level - 1) - PAGE_SHIFT);
    pte_t pte = any_entry(level);
    enum pte_state state = pte_state(pte, level);

    ASSUME(state == PTE_PRESENT || state == PTE_PARKED || state == PTE_PROMISE);
    ASSUME(state == PTE_PRESENT || pte_payload(pte) < PTE_PAYLOAD_END - pages);
    pte_t part = pte_part(pte, level, index);
    bool is_counted = state != PTE_PROMISE || pte_promise(pte) == PT_OBJECT;
    PROVE(pte_state(part, level - 1) == state, "of the same state");
    PROVE(pt_attr_equal(pte_attr(part, level - 1), pte_attr(pte, level)),
          "of the same rights");
    PROVE(pte_accessed_dirty(part) == pte_accessed_dirty(pte), "A and D");
    PROVE(pte_pfn(part, level - 1).v ==
              pte_pfn(pte, level).v + (is_counted ? pages : 0),
          "its own frame");
    PROVE(made_anew(part, level - 1).v == part.v, "no bit besides");
    PROVE(part.v == pte_advance(pte_part(pte, level, 0), pages).v,
          "it continues the first");
    PROVE(pte_whole(pte_part(pte, level, 0), level).v == pte.v,
          "the whole is made of the first");
}

void harness(void)
{
    PROOF();
}
