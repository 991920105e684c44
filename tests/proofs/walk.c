/* SPDX-License-Identifier: MIT */
/* map/walk.c against the manual's words, for any tables and any address. */
#include "tests/proofs/proof.h"

/*
 * The tables have four entries each and lie anywhere in eight frames, in each
 * other even; the entries are any numbers. That nothing but these is read is
 * proved by the way: frames beyond them are beyond MAXPHYADDR.
 */
#include "map/walk.c"

uint64_t proof_memory[PROOF_FRAMES][PTE_TABLE_COUNT];

/* What the second account finds: the entry that decides, and where it is. */
struct account {
    enum walk_verdict verdict;
    unsigned level;
    uint64_t all; /* the entries down to it, and-ed */
    uint64_t any; /* and or-ed */
    uint64_t physical;
};

static void any_features(void)
{
    pt_features.levels = nondet_bool() ? 4 : 5;
    pt_features.physical_bits = PAGE_SHIFT + PROOF_FRAME_BITS;
    pt_features.has_nx = nondet_bool();
    pt_features.has_1g = nondet_bool();
}

/* Is @bit one that must be 0 in a present entry? */
static bool is_reserved(unsigned bit, uint64_t entry, unsigned level)
{
    bool is_large = level > 0 && (entry >> 7 & 1) != 0;

    return (bit >= pt_features.physical_bits && bit < 52) ||
           (bit == 63 && !pt_features.has_nx) || (bit == 7 && level >= 3) ||
           (bit == 7 && level == 2 && !pt_features.has_1g) ||
           (bit >= 13 && bit < pte_shift(level) && is_large && level < 3 &&
            (level < 2 || pt_features.has_1g));
}

static bool has_reserved(uint64_t entry, unsigned level)
{
    bool has = false;

    for (unsigned bit = 0; bit < 64; bit++) {
        has =
            has || ((entry >> bit & 1) != 0 && is_reserved(bit, entry, level));
    }
    return has;
}

/* [SDM-3A 4.6.1 "Determination of Access Rights"] */
static enum walk_verdict may(const struct account *at, unsigned access,
                             const struct walk_rules *rules)
{
    bool is_user_page = (at->all >> 2 & 1) != 0;
    bool is_writable = (at->all >> 1 & 1) != 0;
    bool is_executable = (at->any >> 63) == 0 || !rules->nx;
    bool is_fetch = (access & WALK_EXEC) != 0;

    if (access & WALK_USER) {
        return !is_user_page                ? WALK_SUPERVISOR
               : is_fetch && !is_executable ? WALK_NO_EXECUTE
               : !is_fetch && (access & WALK_WRITE) && !is_writable
                   ? WALK_READ_ONLY
                   : WALK_ALLOWED;
    }
    if (is_fetch) {
        return !is_executable                ? WALK_NO_EXECUTE
               : is_user_page && rules->smep ? WALK_USER_EXEC
                                             : WALK_ALLOWED;
    }
    if (is_user_page && rules->smap) {
        return WALK_USER_ACCESS;
    }
    return (access & WALK_WRITE) && !is_writable && rules->write_protect
               ? WALK_READ_ONLY
               : WALK_ALLOWED;
}

/* The walk as the manual's figures show it, once more. */
static struct account second_account(uint64_t table, vaddr_t address,
                                     unsigned access,
                                     const struct walk_rules *rules)
{
    struct account at = {WALK_NON_CANONICAL, 0, UINT64_MAX, 0, 0};
    uint64_t sign = address >> (11 + pt_features.levels * MM_TABLE_BITS);

    if (sign != 0 &&
        sign != UINT64_MAX >> (11 + pt_features.levels * MM_TABLE_BITS)) {
        return at;
    }
    for (at.level = pt_features.levels - 1;; at.level--) {
        unsigned shift = 12 + at.level * MM_TABLE_BITS;
        uint64_t inside = (UINT64_C(1) << shift) - 1;
        uint64_t entry =
            proof_memory[table][address >> shift & (PTE_TABLE_COUNT - 1)];

        at.all &= entry;
        at.any |= entry;
        if ((entry & 1) == 0) {
            at.verdict = WALK_NOT_PRESENT;
            return at;
        }
        if (has_reserved(entry, at.level)) {
            at.verdict = WALK_RESERVED_BIT;
            return at;
        }
        if (at.level == 0 || (entry >> 7 & 1) != 0) {
            at.physical = (entry & UINT64_C(0xffffffffff000) & ~inside) |
                          (address & inside);
            at.verdict = may(&at, access, rules);
            return at;
        }
        table = entry >> 12 & low_bits(40);
    }
}

/* Has the entry to blame taken the right away, and none before it? */
static bool is_to_blame(const struct walk *walk, unsigned blame,
                        enum walk_verdict verdict)
{
    uint64_t bit = verdict == WALK_READ_ONLY    ? PTE_RW
                   : verdict == WALK_SUPERVISOR ? PTE_US
                                                : PTE_XD;
    bool is_right = true;

    for (unsigned i = 0; i < PTE_LEVELS; i++) {
        bool takes = (walk->step[i].entry.v & bit) == (bit & PTE_XD);
        is_right = is_right && (i >= blame || !takes) && (i != blame || takes);
    }
    return is_right;
}

void harness(void)
{
    vaddr_t address = nondet_u64();
    unsigned access = (unsigned)any_up_to(WALK_WRITE | WALK_USER | WALK_EXEC);
    struct walk_rules rules = {nondet_bool(), nondet_bool(), nondet_bool(),
                               nondet_bool()};
    pfn_t root = pfn_of(any_up_to(PROOF_FRAMES - 1));
    struct walk walk;
    unsigned blame;

    any_features();
    for (unsigned i = 0; i < PROOF_FRAMES; i++) {
        for (unsigned j = 0; j < PTE_TABLE_COUNT; j++) {
            proof_memory[i][j] = nondet_u64();
        }
    }
    walk_address(root, address, &walk);
    enum walk_verdict verdict = walk_judge(&walk, access, &rules, &blame);
    struct account at = second_account(root.v, address, access, &rules);
    PROVE(verdict == at.verdict, "what the manual says");
    PROVE(walk.count <= pt_features.levels, "a step a level");
    if (verdict == WALK_NON_CANONICAL) {
        PROVE(walk.count == 0, "no step is taken");
        return;
    }
    PROVE(walk.step[walk.count - 1].level == at.level, "as far as the manual");
    PROVE(blame < walk.count, "one of the steps is to blame");
    if (verdict == WALK_READ_ONLY || verdict == WALK_SUPERVISOR ||
        verdict == WALK_NO_EXECUTE) {
        PROVE(is_to_blame(&walk, blame, verdict), "the right one");
    } else {
        PROVE(blame == walk.count - 1, "the last");
    }
    if (verdict != WALK_NOT_PRESENT && verdict != WALK_RESERVED_BIT) {
        PROVE(walk.physical.v == at.physical, "where the manual says");
    }
}
