/* SPDX-License-Identifier: MIT */
/* pte: the codec of page-table entries. Pure: no state, no memory access. */
#ifndef MM_X86_64_PTE_H
#define MM_X86_64_PTE_H

#include <mm/attr.h>
#include <mm/types.h>

/*
 * An entry is absent, promise, parked, present, swapped or table.
 *
 *   63 62 59 58  52 51         12 11 10  9  8  7  6  5  4  3  2  1  0
 *  +--+-----+------+-------------+--+--+--+--+--+--+--+--+--+--+--+--+
 *  |XD| key | tag  |    frame    |t7|ow|cw| G|PS| D| A|CD|WT| U| W| 1|
 *  |XD|  0  | 6..0 |  ~ payload  |t7|ow|cw| G|  kind  |CD|WT| U| W| 0|
 *  +--+-----+------+-------------+--+--+--+--+--+--+--+--+--+--+--+--+
 *
 * First row: a leaf. Second row: promise, parked, swapped.
 *
 * The rights stand at the same bits in every state, so that protect and the
 * tag work on promises as on leaves. PS is PAT in a level-0 leaf; a large
 * leaf has its PAT bit at 12. Bits 9..11 and 52..58 are ignored by the CPU
 * [SDM-3A 4.5.4 "Linear-Address Translation with 4-Level Paging and 5-Level
 * Paging"]. Payloads of non-present entries are stored inverted, so that the
 * frame bits name memory that does not exist: a CPU that speculates past P=0
 * (L1TF) finds nothing. All zero is absent: it names frame 0, which holds no
 * secret and is never handed out.
 */
typedef struct {
    uint64_t v;
} pte_t;
_Static_assert(sizeof(pte_t) == 8, "an entry is 8 bytes");

#define PTE_P         (UINT64_C(1) << 0)
#define PTE_RW        (UINT64_C(1) << 1)
#define PTE_US        (UINT64_C(1) << 2)
#define PTE_PWT       (UINT64_C(1) << 3)
#define PTE_PCD       (UINT64_C(1) << 4)
#define PTE_A         (UINT64_C(1) << 5)
#define PTE_D         (UINT64_C(1) << 6)
#define PTE_PS        (UINT64_C(1) << 7) /* levels 1, 2: leaf */
#define PTE_PAT       (UINT64_C(1) << 7) /* level 0 */
#define PTE_G         (UINT64_C(1) << 8)
#define PTE_COW       (UINT64_C(1) << 9)  /* ours */
#define PTE_OWN       (UINT64_C(1) << 10) /* ours */
#define PTE_TAG7      (UINT64_C(1) << 11) /* ours: bit 7 of the tag */
#define PTE_PAT_LARGE (UINT64_C(1) << 12) /* levels 1, 2 */
#define PTE_XD        (UINT64_C(1) << 63)

#define PTE_TAG_SHIFT 52 /* bits 0..6 of the tag */
#define PTE_TAG_MASK  (UINT64_C(0x7f) << PTE_TAG_SHIFT)
#define PTE_FRAME     (UINT64_C(0xffffffffff) << PAGE_SHIFT) /* bits 12..51 */

/* What kind a non-present entry is; zero with nothing else set = absent. */
#define PTE_KIND_SHIFT 5
#define PTE_KIND_MASK  (UINT64_C(7) << PTE_KIND_SHIFT)

/*
 * IA32_PAT: WB WC UC- UC WB WP UC- WT from entry 0 up. Entries 0..3 need no
 * PAT bit [SDM-3A 12.12 "Page Attribute Table (PAT)"].
 */
#define PTE_PAT_LAYOUT UINT64_C(0x0407050600070106)
/* The value with entry 0 lowest: 06=WB 01=WC 07=UC- 00=UC 06=WB 05=WP 07=UC-
 * 04=WT. */

/* Levels are numbers: 0 = PT, 1 = PD, 2 = PDPT, 3 = PML4, 4 = PML5. */
#define PTE_LEVELS      5
#define PTE_TABLE_COUNT (1u << MM_TABLE_BITS)

enum pte_state {
    PTE_ABSENT,
    PTE_PROMISE,
    PTE_PARKED, /* a frame is there, access is not allowed (PROT_NONE) */
    PTE_PRESENT,
    PTE_SWAPPED,
    PTE_DAMAGED, /* bits that no state has: written past the library */
    PTE_TABLE
};

/* Values of the kind field; promises are 1 + enum pt_promise. */
enum pte_kind {
    PTE_KIND_NONE = 0,
    PTE_KIND_PROMISE = 1, /* .. 4 */
    PTE_KIND_PARKED = 5,
    PTE_KIND_SWAPPED = 6,
    PTE_KIND_DAMAGED = 7 /* never made */
};

/* log2 of the bytes one entry of @level spans: 12, 21, 30, 39, 48. */
static inline unsigned pte_shift(unsigned level)
{
    return PAGE_SHIFT + level * MM_TABLE_BITS;
}

static inline uint64_t pte_span(unsigned level)
{
    return UINT64_C(1) << pte_shift(level);
}

/* Which entry of a table of @level translates @address. */
static inline unsigned pte_index(vaddr_t address, unsigned level)
{
    return (unsigned)(address >> pte_shift(level)) & (PTE_TABLE_COUNT - 1);
}

static inline bool pte_is_absent(pte_t pte)
{
    return pte.v == 0;
}

static inline bool pte_is_present(pte_t pte)
{
    return (pte.v & PTE_P) != 0;
}

/* Does a present entry of @level point to another table? */
static inline bool pte_is_table(pte_t pte, unsigned level)
{
    return pte_is_present(pte) && level > 0 && (pte.v & PTE_PS) == 0;
}

static inline bool pte_is_leaf(pte_t pte, unsigned level)
{
    return pte_is_present(pte) && (level == 0 || (pte.v & PTE_PS) != 0);
}

static inline unsigned pte_kind(pte_t pte)
{
    return (unsigned)((pte.v & PTE_KIND_MASK) >> PTE_KIND_SHIFT);
}

static inline enum pte_state pte_state(pte_t pte, unsigned level)
{
    if (pte_is_present(pte)) {
        return pte_is_table(pte, level) ? PTE_TABLE : PTE_PRESENT;
    }
    switch (pte_kind(pte)) {
    case PTE_KIND_NONE:
        return pte_is_absent(pte) ? PTE_ABSENT : PTE_DAMAGED;
    case PTE_KIND_PARKED:
        return PTE_PARKED;
    case PTE_KIND_SWAPPED:
        return PTE_SWAPPED;
    case PTE_KIND_DAMAGED:
        return PTE_DAMAGED;
    default:
        return PTE_PROMISE;
    }
}

/* Rights, type and tag at the bits that all states share; no PAT bit. */
static inline uint64_t pte_encode_attr(struct pt_attr attr)
{
    uint64_t bits = 0;

    bits |= (attr.flags & PT_WRITE) ? PTE_RW : 0;
    bits |= (attr.flags & PT_EXEC) ? 0 : PTE_XD;
    bits |= (attr.flags & PT_USER) ? PTE_US : 0;
    bits |= (attr.flags & PT_GLOBAL) ? PTE_G : 0;
    bits |= (attr.flags & PT_OWNED) ? PTE_OWN : 0;
    bits |= (attr.flags & PT_COW) ? PTE_COW : 0;
    bits |= (attr.memory & 1) ? PTE_PWT : 0;
    bits |= (attr.memory & 2) ? PTE_PCD : 0;
    bits |= (uint64_t)(attr.tag & 0x7f) << PTE_TAG_SHIFT;
    bits |= (attr.tag & 0x80) ? PTE_TAG7 : 0;
    return bits;
}

/* @high_pat: the third bit of the PAT index, which moves about. */
static inline struct pt_attr pte_decode_attr(pte_t pte, bool high_pat)
{
    unsigned flags = 0;
    unsigned memory = high_pat ? 4 : 0;

    flags |= (pte.v & PTE_RW) ? PT_WRITE : 0;
    flags |= (pte.v & PTE_XD) ? 0 : PT_EXEC;
    flags |= (pte.v & PTE_US) ? PT_USER : 0;
    flags |= (pte.v & PTE_G) ? PT_GLOBAL : 0;
    flags |= (pte.v & PTE_OWN) ? PT_OWNED : 0;
    flags |= (pte.v & PTE_COW) ? PT_COW : 0;
    memory |= (pte.v & PTE_PWT) ? 1 : 0;
    memory |= (pte.v & PTE_PCD) ? 2 : 0;
    return (struct pt_attr){
        (uint8_t)flags, (uint8_t)memory,
        (uint8_t)(((pte.v & PTE_TAG_MASK) >> PTE_TAG_SHIFT) |
                  ((pte.v & PTE_TAG7) ? 0x80 : 0))};
}

/* The third bit of the memory type in a leaf of @level. */
static inline uint64_t pte_high_pat(unsigned level)
{
    return level > 0 ? PTE_PAT_LARGE : PTE_PAT;
}

/* The bits a change of rights and memory type replaces, in every state. */
#define PTE_RIGHTS (PTE_RW | PTE_US | PTE_XD | PTE_PWT | PTE_PCD)

/*
 * @pte, not absent and no table, with the rights and memory type of @bits,
 * which are pte_encode_attr()'s. What is copied on write stays read-only.
 */
static inline pte_t pte_with_rights(pte_t pte, unsigned level, uint64_t bits,
                                    bool high_pat)
{
    uint64_t rights = PTE_RIGHTS;

    if (pte_is_present(pte)) {
        rights |= pte_high_pat(level);
        bits |= high_pat ? pte_high_pat(level) : 0;
    }
    if (pte.v & PTE_COW) {
        bits &= ~PTE_RW;
    }
    return (pte_t){(pte.v & ~rights) | (bits & rights)};
}

/*
 * A present leaf of 4 KiB (level 0), 2 MiB (1) or 1 GiB (2), with A and D
 * set: the CPU then never has to write the entry, and kernel tables can be
 * compared as text. @pfn is aligned to the leaf.
 */
static inline pte_t pte_make_leaf(unsigned level, pfn_t pfn,
                                  struct pt_attr attr)
{
    uint64_t bits = pte_encode_attr(attr) | PTE_P | PTE_A | PTE_D;

    bits |= level > 0 ? PTE_PS : 0;
    bits |= (attr.memory & 4) ? pte_high_pat(level) : 0;
    return (pte_t){bits | (pfn.v << PAGE_SHIFT)};
}

/* A pointer to a table; rights are all on, the leaf decides. */
static inline pte_t pte_make_table(pfn_t table, bool is_user)
{
    return (pte_t){(table.v << PAGE_SHIFT) | PTE_P | PTE_RW | PTE_A |
                   (is_user ? PTE_US : 0)};
}

/* Common to all non-present states: @payload has 40 bits. */
static inline pte_t pte_make_other(unsigned kind, struct pt_attr attr,
                                   uint64_t payload)
{
    return (pte_t){pte_encode_attr(attr) | ((uint64_t)kind << PTE_KIND_SHIFT) |
                   (~(payload << PAGE_SHIFT) & PTE_FRAME)};
}

static inline pte_t pte_make_promise(enum pt_promise promise,
                                     struct pt_attr attr, uint64_t payload)
{
    return pte_make_other(PTE_KIND_PROMISE + (unsigned)promise, attr, payload);
}

static inline pte_t pte_make_parked(pfn_t pfn, struct pt_attr attr)
{
    return pte_make_other(PTE_KIND_PARKED, attr, pfn.v);
}

static inline pte_t pte_make_swapped(uint64_t slot, struct pt_attr attr)
{
    return pte_make_other(PTE_KIND_SWAPPED, attr, slot);
}

static inline uint64_t pte_payload(pte_t pte)
{
    return (~pte.v & PTE_FRAME) >> PAGE_SHIFT;
}

static inline enum pt_promise pte_promise(pte_t pte)
{
    return (enum pt_promise)(pte_kind(pte) - PTE_KIND_PROMISE);
}

/* The table a table entry points to. */
static inline pfn_t pte_table(pte_t pte)
{
    return (pfn_t){(pte.v & PTE_FRAME) >> PAGE_SHIFT};
}

/* The frame of a present leaf (its first), a table or a parked entry. */
static inline pfn_t pte_pfn(pte_t pte, unsigned level)
{
    if (!pte_is_present(pte)) {
        return (pfn_t){pte_payload(pte)};
    }
    uint64_t bits = pte.v & PTE_FRAME;
    if (pte_is_leaf(pte, level)) {
        bits &= ~(pte_span(level) - 1);
    }
    return (pfn_t){bits >> PAGE_SHIFT};
}

/* Has a present or parked entry of @level a reference on its frames? */
static inline bool pte_owns_frames(pte_t pte, unsigned level)
{
    enum pte_state state = pte_state(pte, level);

    return (state == PTE_PRESENT || state == PTE_PARKED) &&
           (pte.v & PTE_OWN) != 0;
}

static inline struct pt_attr pte_attr(pte_t pte, unsigned level)
{
    bool high_pat = false;

    if (pte_is_leaf(pte, level)) {
        high_pat = (pte.v & pte_high_pat(level)) != 0;
    }
    return pte_decode_attr(pte, high_pat);
}

#endif
