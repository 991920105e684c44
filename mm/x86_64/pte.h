/* SPDX-License-Identifier: MIT */
/* pte: the codec of page-table entries. Pure: no state, no memory access. */
#ifndef MM_X86_64_PTE_H
#define MM_X86_64_PTE_H

#include <mm/attr.h>
#include <mm/types.h>

/*
 * An entry is absent, promise, parked, present, swapped or table.
 *
 *   63 62 61 60 59 58  52 51         12 11 10  9  8  7  6  5  4  3  2  1  0
 *  +--+--+--+--+--+------+-------------+--+--+--+--+--+--+--+--+--+--+--+--+
 *  |XD|    key    | tag  |    frame    |t7|ow|cw| G|PS| D| A|CD|WT| U| W| 1|
 *  |XD|PT| D| A|no| 6..0 |  ~ payload  |t7|ow|cw| G|  kind  |CD|WT| U| W| 0|
 *  +--+--+--+--+--+------+-------------+--+--+--+--+--+--+--+--+--+--+--+--+
 *
 * First row: a leaf. Second row: promise, parked, swapped.
 *
 * Rights and tag stand at the same bits in every state, so that protect works
 * on promises as on leaves. PS is PAT in a level-0 leaf; a large leaf has its
 * PAT bit at 12, what is not present at 62. Bits 9..11 and 52..58 are ignored
 * by the CPU [SDM-3A 4.5.4 "Linear-Address Translation with 4-Level Paging and
 * 5-Level Paging"]; the protection key is 0.
 *
 * No (PT_NONE) takes all access away. What is parked has it, and A and D as
 * they were when it was present; a promise has no A and D. Payloads are stored
 * inverted: below PTE_PAYLOAD_END bit 51 is set, and the frame bits name memory
 * that does not exist, so that a CPU that speculates past P=0 finds nothing
 * [Foreshadow18]. (If its cache looks at fewer bits, only payloads below half
 * of those are safe: pt_payload_end.) All zero is absent: it names frame 0,
 * which holds no secret and is never handed out.
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
#define PTE_NONE      (UINT64_C(1) << 59) /* not present: no access */
#define PTE_PAT_OTHER (UINT64_C(1) << 62) /* not present */
#define PTE_XD        (UINT64_C(1) << 63)

/* A and D, and where they are kept in what is not present: 60 and 61. */
#define PTE_AD       (PTE_A | PTE_D)
#define PTE_AD_SHIFT 55

#define PTE_TAG_SHIFT  52 /* bits 0..6 of the tag */
#define PTE_TAG7_SHIFT 4  /* bit 7 */
#define PTE_TAG_MASK   (UINT64_C(0x7f) << PTE_TAG_SHIFT)
#define PTE_FRAME      (UINT64_C(0xffffffffff) << PAGE_SHIFT) /* bits 12..51 */

/* What kind a non-present entry is; zero with nothing else set = absent. */
#define PTE_KIND_SHIFT 5
#define PTE_KIND_MASK  (UINT64_C(7) << PTE_KIND_SHIFT)

/* Payloads have 40 bits; from here on their inverse would name RAM. */
#define PTE_PAYLOAD_END (UINT64_C(1) << 39)

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

/* Does an entry that is not of level 0 point to another table? */
static inline bool pte_leads_on(pte_t pte)
{
    /* Less P, neither bit is set if of the two P alone was. */
    return ((pte.v - PTE_P) & (PTE_P | PTE_PS)) == 0;
}

/* Does an entry of @level? */
static inline bool pte_is_table(pte_t pte, unsigned level)
{
    return level > 0 && pte_leads_on(pte);
}

static inline bool pte_is_leaf(pte_t pte, unsigned level)
{
    return pte_is_present(pte) && (level == 0 || (pte.v & PTE_PS) != 0);
}

static inline unsigned pte_kind(pte_t pte)
{
    return (unsigned)((pte.v & PTE_KIND_MASK) >> PTE_KIND_SHIFT);
}

/* @state, unless there are @strange bits that no entry of that state has. */
static inline enum pte_state pte_unless(uint64_t strange, enum pte_state state)
{
    return strange != 0 ? PTE_DAMAGED : state;
}

/*
 * Damaged are: kind 7, kind 0 with other bits, a parked entry without PTE_NONE
 * and a promise with A or D. What is present is not looked at here: see
 * walk_reserved_bits().
 */
static inline enum pte_state pte_state(pte_t pte, unsigned level)
{
    if (pte_is_present(pte)) {
        return pte_is_table(pte, level) ? PTE_TABLE : PTE_PRESENT;
    }
    switch (pte_kind(pte)) {
    case PTE_KIND_NONE:
        return pte_unless(pte.v, PTE_ABSENT);
    case PTE_KIND_PARKED:
        return pte_unless(~pte.v & PTE_NONE, PTE_PARKED);
    case PTE_KIND_SWAPPED:
        return PTE_SWAPPED;
    case PTE_KIND_DAMAGED:
        return PTE_DAMAGED;
    default:
        return pte_unless(pte.v & (PTE_AD << PTE_AD_SHIFT), PTE_PROMISE);
    }
}

/*
 * Flags, in three groups that lie as in an entry. PT_EXEC says the opposite
 * of XD; PT_NONE is with it, for what is not present.
 */
#define PTE_FLAGS_LOW  (PT_WRITE | PT_USER)
#define PTE_FLAGS_OURS (PT_GLOBAL | PT_COW | PT_OWNED)
#define PTE_FLAGS_HIGH (PT_NONE | PT_EXEC)
#define PTE_LOW_SHIFT  1
#define PTE_OURS_SHIFT 5
#define PTE_HIGH_SHIFT 57
_Static_assert((uint64_t)PTE_FLAGS_LOW << PTE_LOW_SHIFT == (PTE_RW | PTE_US) &&
                   (uint64_t)PT_WRITE << PTE_LOW_SHIFT == PTE_RW,
               "PT_WRITE, PT_USER");
_Static_assert((uint64_t)PT_GLOBAL << PTE_OURS_SHIFT == PTE_G &&
                   (uint64_t)PT_COW << PTE_OURS_SHIFT == PTE_COW &&
                   (uint64_t)PT_OWNED << PTE_OURS_SHIFT == PTE_OWN,
               "PT_GLOBAL, PT_COW, PT_OWNED");
_Static_assert((uint64_t)PT_NONE << PTE_HIGH_SHIFT == PTE_NONE &&
                   (uint64_t)PT_EXEC << PTE_HIGH_SHIFT == PTE_XD,
               "PT_NONE, PT_EXEC");

/* A memory type: two bits beside each other, and a third by the state. */
#define PTE_MEMORY_SHIFT 3
#define PTE_MEMORY_LOW   3u /* bits of enum pt_memory */
#define PTE_MEMORY_PAT   2  /* number of the third */

/* The bits of an entry in any state that hold the bits @tags of its tag. */
static inline uint64_t pte_tag_bits(uint8_t tags)
{
    uint64_t all = tags;

    return (all << PTE_TAG_SHIFT & PTE_TAG_MASK) |
           (all << PTE_TAG7_SHIFT & PTE_TAG7);
}

/* Rights, type and tag at the bits that all states share. */
static inline uint64_t pte_encode_attr(struct pt_attr attr)
{
    uint64_t flags = attr.flags ^ (unsigned)PT_EXEC;
    uint64_t memory = attr.memory;

    return (flags & PTE_FLAGS_LOW) << PTE_LOW_SHIFT |
           (flags & PTE_FLAGS_OURS) << PTE_OURS_SHIFT |
           (flags & PT_EXEC) << PTE_HIGH_SHIFT |
           (memory & PTE_MEMORY_LOW) << PTE_MEMORY_SHIFT |
           pte_tag_bits(attr.tag);
}

/* The third bit of @attr's memory type, where it is the bit @place. */
static inline uint64_t pte_encode_pat(struct pt_attr attr, uint64_t place)
{
    return (attr.memory >> PTE_MEMORY_PAT & 1) * place;
}

/* The third bit of the memory type in a leaf of @level. */
static inline uint64_t pte_high_pat(unsigned level)
{
    return level > 0 ? PTE_PAT_LARGE : PTE_PAT;
}

/* All of @attr in a leaf of @level, which cannot have PT_NONE. */
static inline uint64_t pte_encode_leaf(unsigned level, struct pt_attr attr)
{
    return pte_encode_attr(attr) | pte_encode_pat(attr, pte_high_pat(level));
}

/* All of @attr in what is not present. */
static inline uint64_t pte_encode_other(struct pt_attr attr)
{
    return pte_encode_attr(attr) | pte_encode_pat(attr, PTE_PAT_OTHER) |
           (uint64_t)(attr.flags & PT_NONE) << PTE_HIGH_SHIFT;
}

/* The inverse of all three; @pat and @none stand where the state has them. */
static inline struct pt_attr pte_decode_attr(pte_t pte, uint64_t pat,
                                             uint64_t none)
{
    uint64_t v = pte.v ^ PTE_XD;
    uint64_t flags = (v >> PTE_LOW_SHIFT & PTE_FLAGS_LOW) |
                     (v >> PTE_OURS_SHIFT & PTE_FLAGS_OURS) |
                     ((v & (PTE_XD | none)) >> PTE_HIGH_SHIFT);
    uint64_t memory = (v >> PTE_MEMORY_SHIFT & PTE_MEMORY_LOW) |
                      (v & pat ? 1 << PTE_MEMORY_PAT : 0);
    uint64_t tag =
        (v & PTE_TAG_MASK) >> PTE_TAG_SHIFT | (v & PTE_TAG7) >> PTE_TAG7_SHIFT;

    return (struct pt_attr){(uint8_t)flags, (uint8_t)memory, (uint8_t)tag};
}

/* The attributes of an entry in any state. */
static inline struct pt_attr pte_attr(pte_t pte, unsigned level)
{
    if (!pte_is_present(pte)) {
        return pte_decode_attr(pte, PTE_PAT_OTHER, PTE_NONE);
    }
    return pte_decode_attr(
        pte, pte_is_leaf(pte, level) ? pte_high_pat(level) : 0, 0);
}

/* PTE_A and PTE_D of an entry in any state, or as they were. */
static inline uint64_t pte_accessed_dirty(pte_t pte)
{
    return (pte_is_present(pte) ? pte.v : pte.v >> PTE_AD_SHIFT) & PTE_AD;
}

/*
 * A present leaf of 4 KiB (level 0), 2 MiB (1) or 1 GiB (2), with A and D
 * set: the CPU then never has to write the entry, and kernel tables can be
 * compared as text. @pfn is aligned to the leaf; @attr is without PT_NONE.
 */
static inline pte_t pte_make_leaf(unsigned level, pfn_t pfn,
                                  struct pt_attr attr)
{
    return (pte_t){pte_encode_leaf(level, attr) | PTE_P | PTE_AD |
                   (level > 0 ? PTE_PS : 0) | (pfn.v << PAGE_SHIFT)};
}

/* A pointer to a table; rights are all on, the leaf decides. */
static inline pte_t pte_make_table(pfn_t table, bool is_user)
{
    return (pte_t){(table.v << PAGE_SHIFT) | PTE_P | PTE_RW | PTE_A |
                   (is_user ? PTE_US : 0)};
}

/* What is not present, but for its attributes; @payload has 40 bits. */
static inline uint64_t pte_encode_kind(unsigned kind, uint64_t payload)
{
    return ((uint64_t)kind << PTE_KIND_SHIFT) |
           (~(payload << PAGE_SHIFT) & PTE_FRAME);
}

static inline pte_t pte_make_other(unsigned kind, struct pt_attr attr,
                                   uint64_t payload)
{
    return (pte_t){pte_encode_other(attr) | pte_encode_kind(kind, payload)};
}

static inline pte_t pte_make_promise(enum pt_promise promise,
                                     struct pt_attr attr, uint64_t payload)
{
    return pte_make_other(PTE_KIND_PROMISE + (unsigned)promise, attr, payload);
}

/* What pte_make_leaf() made, after PT_NONE; @attr has it or not. */
static inline pte_t pte_make_parked(pfn_t pfn, struct pt_attr attr)
{
    pte_t pte = pte_make_other(PTE_KIND_PARKED, attr, pfn.v);

    return (pte_t){pte.v | PTE_NONE | (PTE_AD << PTE_AD_SHIFT)};
}

static inline pte_t pte_make_swapped(uint64_t slot, struct pt_attr attr)
{
    return pte_make_other(PTE_KIND_SWAPPED, attr, slot);
}

/* A leaf, or a parked one if @attr has PT_NONE. */
static inline pte_t pte_make_frame(unsigned level, pfn_t pfn,
                                   struct pt_attr attr)
{
    return (attr.flags & PT_NONE) ? pte_make_parked(pfn, attr)
                                  : pte_make_leaf(level, pfn, attr);
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

/*
 * Does an entry of @level name frames: is it present or parked? What is parked
 * may have been present until a flush that another CPU still has to make.
 */
static inline bool pte_has_frames(pte_t pte, unsigned level)
{
    enum pte_state state = pte_state(pte, level);

    return state == PTE_PRESENT || state == PTE_PARKED;
}

/* Has it a reference on them? */
static inline bool pte_owns_frames(pte_t pte, unsigned level)
{
    return (pte.v & PTE_OWN) != 0 && pte_has_frames(pte, level);
}

/* What a change of rights and memory type replaces, in every state. */
#define PTE_RIGHTS       (PTE_RW | PTE_US | PTE_XD | PTE_PWT | PTE_PCD)
#define PTE_RIGHTS_OTHER (PTE_RIGHTS | PTE_NONE | PTE_PAT_OTHER)

/* What stays where it is when an entry is parked or becomes present again. */
#define PTE_KEPT (PTE_G | PTE_COW | PTE_OWN | PTE_TAG7 | PTE_TAG_MASK)

/* PTE_COW is so many bits above PTE_RW, which it takes away. */
#define PTE_COW_SHIFT 8
_Static_assert(PTE_RW << PTE_COW_SHIFT == PTE_COW, "COW takes RW away");
_Static_assert(PTE_AD << PTE_AD_SHIFT == (UINT64_C(3) << 60), "A, D at 60, 61");

/* Rights and memory type as bits, worked out once for many entries. */
struct pte_rights {
    uint64_t small; /* of a leaf of level 0; XD also without NX */
    uint64_t none;  /* PTE_NONE if there are none */
};

static inline struct pte_rights pte_rights(struct pt_attr attr)
{
    return (struct pte_rights){
        pte_encode_leaf(0, attr) & (PTE_RIGHTS | PTE_PAT),
        (uint64_t)(attr.flags & PT_NONE) << PTE_HIGH_SHIFT};
}

/* The present @leaf with the rights @other, which are none. */
static inline pte_t pte_park(pte_t leaf, unsigned level, uint64_t other)
{
    uint64_t pfn = pte_pfn(leaf, level).v;

    return (pte_t){pte_encode_kind(PTE_KIND_PARKED, pfn) | other |
                   (leaf.v & PTE_KEPT) | (leaf.v & PTE_AD) << PTE_AD_SHIFT};
}

/* The present leaf of @level with the rights @bits that was parked. */
static inline pte_t pte_unpark(pte_t parked, unsigned level, uint64_t bits)
{
    return (pte_t){bits | PTE_P | (level > 0 ? PTE_PS : 0) |
                   (parked.v & PTE_KEPT) | pte_accessed_dirty(parked) |
                   (pte_payload(parked) << PAGE_SHIFT)};
}

/*
 * @pte, not absent and no table, with other rights and memory type; frame or
 * payload, owner, tag, A and D stay. A leaf that loses all access is parked; a
 * parked entry that gets any is a leaf of @level again. What is copied on
 * write stays that and never becomes writable: the copy does.
 *
 * The CPU may set A and D of a leaf until it is stored: compare and swap. Once
 * an entry is parked it cannot: to set D it reads the entry again, and faults.
 */
static inline pte_t pte_with_rights(pte_t pte, unsigned level,
                                    const struct pte_rights *rights)
{
    uint64_t read_only = (pte.v & PTE_COW) >> PTE_COW_SHIFT;
    bool has_pat = (rights->small & PTE_PAT) != 0;
    uint64_t base = rights->small & ~PTE_PAT & ~read_only;
    uint64_t leaf = base | (has_pat ? pte_high_pat(level) : 0);
    uint64_t other = base | (has_pat ? PTE_PAT_OTHER : 0) | rights->none;
    bool is_none = rights->none != 0;

    if (pte_is_present(pte)) {
        uint64_t replaced = PTE_RIGHTS | pte_high_pat(level);
        return is_none ? pte_park(pte, level, other)
                       : (pte_t){(pte.v & ~replaced) | leaf};
    }
    if (!is_none && pte_state(pte, level) == PTE_PARKED) {
        return pte_unpark(pte, level, leaf);
    }
    return (pte_t){(pte.v & ~PTE_RIGHTS_OTHER) | other};
}

/*
 * The entry that stands @pages pages after @pte and continues it: frames and
 * pages of an object count up, all else repeats. Not for swapped entries.
 */
static inline pte_t pte_advance(pte_t pte, uint64_t pages)
{
    uint64_t bytes = pages << PAGE_SHIFT;

    if (pte_is_present(pte)) {
        return (pte_t){pte.v + bytes};
    }
    bool is_counted = pte_kind(pte) == PTE_KIND_PARKED ||
                      pte_kind(pte) == PTE_KIND_PROMISE + PT_OBJECT;
    return (pte_t){pte.v - (is_counted ? bytes : 0)}; /* stored inverted */
}

/* A level-1 leaf has its PAT bit so many bits above a level-0 one. */
#define PTE_PAT_SHIFT 5
_Static_assert(PTE_PAT << PTE_PAT_SHIFT == PTE_PAT_LARGE, "PAT moves");

/* What stands at @index of the table of @level - 1 that says what @pte says. */
static inline pte_t pte_part(pte_t pte, unsigned level, unsigned index)
{
    if (pte_is_present(pte) && level == 1) {
        uint64_t pat = (pte.v & PTE_PAT_LARGE) >> PTE_PAT_SHIFT;
        pte.v = (pte.v & ~(PTE_PS | PTE_PAT_LARGE)) | pat;
    }
    return pte_advance(pte,
                       (uint64_t)index << (pte_shift(level - 1) - PAGE_SHIFT));
}

/* What pte_part() makes @first, of @level - 1, of, at index 0. */
static inline pte_t pte_whole(pte_t first, unsigned level)
{
    if (pte_is_present(first) && level == 1) {
        uint64_t pat = (first.v & PTE_PAT) << PTE_PAT_SHIFT;
        first.v = (first.v & ~PTE_PAT) | PTE_PS | pat;
    }
    return first;
}

#endif
