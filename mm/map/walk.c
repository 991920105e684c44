/* SPDX-License-Identifier: MIT */
/* walk: one address through the tables, step by step, as the CPU goes. */
/*
 * Idea      One account of how x86-64 translates, for everybody who explains
 *           or decides: the fault handler, the monitor, the audit, and the
 *           simulated MMU of the tests. walk_address() reads, walk_judge()
 *           applies the rules to what was read; neither changes anything.
 *
 * Source    [SDM-3A 4.5 "4-Level Paging and 5-Level Paging"], [SDM-3A 4.6
 *           "Access Rights"], [SDM-3A 4.7 "Page-Fault Exceptions"].
 */
#include <mm/walk.h>

#include <mm/port.h>
#include "base/bits.h"
#include "base/check.h"

struct pt_features pt_features;

unsigned pt_quirks;
uint64_t pt_payload_end = PTE_PAYLOAD_END;

bool pt_may_resize(unsigned flags)
{
    unsigned in_the_way = PT_QUIRK_MULTIMATCH;
    bool is_code = (flags & PT_EXEC) != 0 || !pt_features.has_nx;

    in_the_way |= is_code ? PT_QUIRK_MULTIHIT : 0;
    return (pt_quirks & in_the_way) == 0;
}

void pt_setup(const struct pt_features *features)
{
    ASSERT(features->levels == 4 || features->levels == 5);
    ASSERT(features->physical_bits >= 32 && features->physical_bits <= 52);
    pt_features = *features;
    pt_payload_end = (pt_quirks & PT_QUIRK_L1TF) != 0
                         ? UINT64_C(1)
                               << (features->physical_bits - 1 - PAGE_SHIFT)
                         : PTE_PAYLOAD_END;
}

unsigned pt_max_leaf(void)
{
    return pt_features.has_1g ? 2 : 1;
}

static pte_t read_entry(paddr_t table, unsigned index)
{
    const volatile pte_t *entries = phys_to_virt(table);

    return (pte_t){entries[index].v};
}

/* Take over the rights of one more level: the strictest wins. */
static void narrow_rights(struct walk *walk, pte_t entry)
{
    walk->is_writable = walk->is_writable && (entry.v & PTE_RW) != 0;
    walk->is_user = walk->is_user && (entry.v & PTE_US) != 0;
    if (pt_features.has_nx && (entry.v & PTE_XD) != 0) {
        walk->is_executable = false;
    }
}

/* Add the step at @level; true if the walk goes on to another table. */
static bool step_down(struct walk *walk, paddr_t *table, unsigned level)
{
    unsigned index = pte_index(walk->address, level);
    pte_t entry = read_entry(*table, index);

    walk->step[walk->count++] = (struct walk_step){level, *table, index, entry};
    walk->state = pte_state(entry, level);
    if (!pte_is_present(entry)) {
        return false;
    }
    narrow_rights(walk, entry);
    if (walk_reserved_bits(entry, level) != 0) {
        return false;
    }
    if (walk->state == PTE_TABLE) {
        *table = pfn_to_phys(pte_pfn(entry, level));
        return true;
    }
    walk->physical = paddr_of(pfn_to_phys(pte_pfn(entry, level)).v +
                              (walk->address & (pte_span(level) - 1)));
    return false;
}

void walk_address(pfn_t root, vaddr_t address, struct walk *out)
{
    paddr_t table = pfn_to_phys(root);

    *out = (struct walk){.address = address,
                         .state = PTE_ABSENT,
                         .is_writable = true,
                         .is_executable = true,
                         .is_user = true};
    if (!pt_is_canonical(address)) {
        return;
    }
    for (unsigned level = pt_features.levels; level-- > 0;) {
        if (!step_down(out, &table, level)) {
            return;
        }
    }
}

uint64_t walk_reserved_bits(pte_t entry, unsigned level)
{
    uint64_t reserved = PTE_FRAME & ~low_bits(pt_features.physical_bits);

    if (!pt_features.has_nx) {
        reserved |= PTE_XD;
    }
    if (level > 2 || (level == 2 && !pt_features.has_1g)) {
        reserved |= PTE_PS;
    } else if (pte_is_leaf(entry, level) && level > 0) {
        /* Bit 12 is PAT; from 13 to the leaf's size nothing may be set. */
        reserved |= low_bits(pte_shift(level)) & ~low_bits(13);
    }
    return pte_is_present(entry) ? entry.v & reserved : 0;
}

/* Rights of a translation that exists, in the order the manual checks. */
static enum walk_verdict judge_rights(const struct walk *walk, unsigned access,
                                      const struct walk_rules *rules)
{
    bool by_user = (access & WALK_USER) != 0;

    if (by_user && !walk->is_user) {
        return WALK_SUPERVISOR;
    }
    if (access & WALK_EXEC) {
        if (rules->nx && !walk->is_executable) {
            return WALK_NO_EXECUTE;
        }
        return !by_user && walk->is_user && rules->smep ? WALK_USER_EXEC
                                                        : WALK_ALLOWED;
    }
    if (!by_user && walk->is_user && rules->smap) {
        return WALK_USER_ACCESS;
    }
    if ((access & WALK_WRITE) && !walk->is_writable &&
        (by_user || rules->write_protect)) {
        return WALK_READ_ONLY;
    }
    return WALK_ALLOWED;
}

/* First step whose entry takes the right away that @verdict names. */
static unsigned step_to_blame(const struct walk *walk,
                              enum walk_verdict verdict)
{
    for (unsigned i = 0; i < walk->count; i++) {
        uint64_t bits = walk->step[i].entry.v;

        if ((verdict == WALK_READ_ONLY && (bits & PTE_RW) == 0) ||
            (verdict == WALK_SUPERVISOR && (bits & PTE_US) == 0) ||
            (verdict == WALK_NO_EXECUTE && (bits & PTE_XD) != 0)) {
            return i;
        }
    }
    return walk->count - 1;
}

enum walk_verdict walk_judge(const struct walk *walk, unsigned access,
                             const struct walk_rules *rules, unsigned *out_step)
{
    enum walk_verdict verdict = WALK_NON_CANONICAL;
    unsigned blame = 0;

    if (walk->count > 0) {
        const struct walk_step *last = &walk->step[walk->count - 1];

        blame = walk->count - 1;
        if (!pte_is_present(last->entry)) {
            verdict = WALK_NOT_PRESENT;
        } else if (walk_reserved_bits(last->entry, last->level) != 0) {
            verdict = WALK_RESERVED_BIT;
        } else {
            verdict = judge_rights(walk, access, rules);
            blame = step_to_blame(walk, verdict);
        }
    }
    if (out_step != NULL) {
        *out_step = blame;
    }
    return verdict;
}

const char *walk_verdict_text(enum walk_verdict verdict)
{
    switch (verdict) {
    case WALK_ALLOWED:
        return "access is allowed";
    case WALK_NON_CANONICAL:
        return "address is not canonical";
    case WALK_NOT_PRESENT:
        return "entry is not present";
    case WALK_RESERVED_BIT:
        return "entry has a reserved bit set";
    case WALK_READ_ONLY:
        return "page is read-only";
    case WALK_NO_EXECUTE:
        return "page is not executable";
    case WALK_SUPERVISOR:
        return "page belongs to the kernel";
    case WALK_USER_EXEC:
        return "page belongs to user mode and SMEP is on";
    case WALK_USER_ACCESS:
        return "page belongs to user mode and SMAP is on";
    }
    return "unknown verdict";
}

const char *walk_level_name(unsigned level)
{
    static const char *const name[PTE_LEVELS] = {"PT", "PD", "PDPT", "PML4",
                                                 "PML5"};

    ASSERT(level < PTE_LEVELS);
    return name[level];
}
